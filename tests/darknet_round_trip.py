"""What the tests of darknet's files share: a network written and read, and its outputs before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import graphsr


def again(model: graphsr.Model, folder: str | Path) -> graphsr.Model:
    """Written as darknet's files, and read."""
    target = Path(folder, "again.cfg")
    graphsr.save(model, target)
    return graphsr.load(target)


def run(model: graphsr.Model, x: np.ndarray) -> list[np.ndarray]:
    """In double precision: what changes the order of sums is no difference of meaning."""
    compiled = graphsr.Model(model.graph.astype("float64"), "").compile("reference", 1)
    return list(compiled({"input": x.astype(np.float64)}).values())


def same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    """The outputs come in the same order; factors that were folded are rounded to float32."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        bound = 1e3 * float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(x).max()))
        np.testing.assert_allclose(y, x, rtol=0, atol=bound)
