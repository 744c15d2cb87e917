"""Placeholder docstring, written with the package."""

if __name__ != "graphsr.backends":
    raise ImportError("import graphsr.backends, not the top-level folder 'backends': it would run a second copy")
