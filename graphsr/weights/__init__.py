"""The embedded models: one safetensors file each, trained by `bench/train_embedded.py`."""
