"""The built-in backends. They use the core as any other backend would, and are found by entry point."""

if __name__ != "graphsr.backends":
    raise ImportError("import graphsr.backends, not the top-level folder 'backends': it would run a second copy")
