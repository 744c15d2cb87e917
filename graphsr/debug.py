"""What GRAPHSR_DEBUG and GRAPHSR_DUMP ask for: see `graphsr.passes` and `graphsr.backends.llvm.jit`."""

from __future__ import annotations

import os
from pathlib import Path

from graphsr.errors import GraphsrError


def level() -> int:
    """GRAPHSR_DEBUG: 0 nothing, 1 the passes, 3 the IR, 4 the assembly too. Anything that is no number counts as 1."""
    text = os.environ.get("GRAPHSR_DEBUG", "")
    return int(text) if text.isascii() and text.isdecimal() else int(text != "")


def dumps() -> bool:
    """Whether GRAPHSR_DUMP names a folder."""
    return bool(os.environ.get("GRAPHSR_DUMP"))


def dump(name: str, text: str) -> None:
    """Write a file into the folder that GRAPHSR_DUMP names: see `dumps`. Raises `GraphsrError` where it cannot."""
    folder = os.environ["GRAPHSR_DUMP"]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GraphsrError(
            f"GRAPHSR_DUMP={folder!r}: {name} cannot be written there ({error.strerror or error}): "
            "name a folder that can be written to, or unset it"
        ) from error
