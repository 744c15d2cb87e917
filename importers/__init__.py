"""Placeholder docstring, written with the package."""

if __name__ != "graphsr.importers":
    raise ImportError("import graphsr.importers, not the top-level folder 'importers': it would run a second copy")
