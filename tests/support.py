"""What several tests share: where the real data lies, and how far two float results may differ."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SPATIAL_FAMILIES = (
    "conv",
    "conv_nd",
    "crop",
    "expand",
    "index",
    "matmul",
    "normalise",
    "order",
    "pool",
    "pool_nd",
    "rearrange",
    "reduce",
    "reduce_kinds",
    "resize",
    "shape",
)
"""The files of `graphsr.ops` whose ops read several elements for one: what the rules about sizes are tested on."""


def data_path(relative: str) -> Path:
    """A real file (checkpoint, image, volume); skips the test where it is absent.

    The data is looked for in $GRAPHSR_DATA, then in `shared/data` beside the checkout.
    """
    root = Path(os.environ.get("GRAPHSR_DATA", ROOT.parent / "shared" / "data"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"real data not found: {relative} (set GRAPHSR_DATA to its folder)")
    return path


def pretend_processors(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As on a machine with so many: a team is not larger than the processors, when it is planned and when it runs."""
    for module in ("backend", "segment"):
        monkeypatch.setattr(f"graphsr.backends.llvm.{module}.processors", lambda: count)
