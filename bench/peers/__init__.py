"""What `bench/compare.py` is made of: the networks, the engines, the processes they run in, and the report."""
