"""File -> Graph: one module per kind of file, found through the entry-point group `graphsr.importers`."""

if __name__ != "graphsr.importers":
    raise ImportError("import graphsr.importers, not the top-level folder 'importers': it would run a second copy")
