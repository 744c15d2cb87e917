"""The embedded models: one safetensors file each, trained by `bench/train_embedded.py`.

`wdsr-x2` and `wdsr-x4` are WDSR-A networks (Yu et al., 2018; 4 blocks, 32 features, 96 inside a block) for
photographs, of 0.23 M and 0.24 M parameters in float16. They take and give RGB in 0..255, and undo an antialiased
bicubic reduction. The metadata of each file state its scale, training, PSNR on Set5 (luma, `scale` pixels of border
cut) and the credits of the photographs, which NOTICE lists as well.
"""
