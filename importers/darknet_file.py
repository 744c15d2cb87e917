"""darknet networks: .cfg with its .weights

Both forks, pjreddie's and AlexeyAB's.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from graphsr.atomic import atomic_path
from graphsr.errors import ModelError
from graphsr.model import Model

SAVES = (".cfg",)
"""What `save` writes, by suffix."""


def matches(path: Path, head: bytes) -> bool:
    """Whether this is a .cfg, by its first section; or a .weights file, for a word on what is missing."""
    lines = (b"".join(line.split()) for line in head.split(b"\n"))
    first = next((line for line in lines if line and line[:1] not in (b"#", b";")), b"")
    return first in (b"[net]", b"[network]") or path.suffix.lower() in (".cfg", ".weights")


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """The network of a .cfg file with its .weights.

    Options: `weights`, by default the file of the same name that ends in .weights; `fork` ("alexeyab" or "pjreddie"),
    by default the one that wrote the weights, as far as their header and the words of the cfg tell; `batchnorm`
    ("inside": √(v + ε), "outside": √v + ε as pjreddie's fork on a CPU); `input_range`, the value of white (1);
    `time_steps`, in place of the number in [net]; `state` of recurrent layers ("zero" in every call, or "carried").

    Raises `ModelError` for a cfg with errors or with anything that is not supported (all of it at once, by line), and
    for weights that do not fit, with the first layer where they end.
    """
    from .darknet_import import import_network  # all sections take a moment: only when a darknet file is read

    return import_network(Path(path), options)


def save(model: Model, path: str | os.PathLike[str], *, dtype: str = "float32", overwrite: bool = False) -> None:
    """Write a model as `path` (.cfg), the .weights file beside it, and a .tree file for each tree of classes.

    All of them appear, the cfg last, or none. Raises `ModelError` that lists every node which darknet cannot express,
    by name and origin; and where a tree would replace another file, without `overwrite`.
    """
    if dtype != "float32":
        raise ModelError(f"darknet stores float32, not {dtype}")
    from . import darknet_export_rules  # noqa: F401  # what each op is in darknet's words
    from .darknet_export import export

    cfg = Path(path)
    files = export(model, cfg.stem)
    trees = {cfg.with_name(name): text.encode() for name, text in files.trees.items()}
    try:
        for tree, content in trees.items():
            if not overwrite and os.path.lexists(tree) and tree.read_bytes() != content:
                reason = f"{tree} is another file, where the tree of classes goes: overwrite it, or name another cfg"
                raise FileExistsError(errno.EEXIST, reason)
        contents = {cfg: files.cfg.encode(), cfg.with_suffix(".weights"): files.weights, **trees}
        with ExitStack() as stack:  # the files take their places in reverse order
            for file, content in contents.items():
                stack.enter_context(atomic_path(file)).write_bytes(content)
    except OSError as error:
        raise ModelError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error
