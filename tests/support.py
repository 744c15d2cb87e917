"""What several tests share: where the real data lies, how many processors there seem to be, what a file may cost."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def costs_little(seconds: float = 1.0) -> Iterator[None]:
    """The block takes at most so many seconds of a processor, of a machine on which `_loop` takes 0.04 s.

    What a hostile file may cost is a promise, and a wrong order of growth takes minutes: the limit is no measurement.
    A slow machine does not count, nor do the objects of earlier tests, which the garbage collector would visit.
    """
    gc.freeze()
    start = time.process_time()
    try:
        yield
    finally:  # of a refusal, too
        took = time.process_time() - start
        gc.unfreeze()
        if took > seconds:
            slowness = max(1.0, _loop() / 0.04)
            assert took <= seconds * slowness, f"{took:.2f} s on a machine {slowness:.1f} times as slow as a usual one"


def _loop() -> float:
    start = time.process_time()
    sum(range(2_000_000))
    return time.process_time() - start
