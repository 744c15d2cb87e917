"""Shapes, axes, scales and weights that arrive as inputs of the model, with every backend: right, said in explain(),
and built again when they change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import Array, Shape, model, node, weight

from graphsr.importers.onnx_backend import Specialised
from graphsr.importers.onnx_reader import Source
from graphsr.ops import Conv2d
from graphsr.testing import tolerance

BACKENDS = ("reference", "numpy", "llvm")
INT64 = TensorProto.INT64
X = weight(1, 2, 4, 6)


def prepared(op: str, inputs: str, name: str, shape: Shape, kind: int, backend: str, opset: int = 17) -> Specialised:
    """One operator on x and on an input of the model with this name."""
    made = model(
        [node(op, inputs, "y", "late")], {"x": ["N", 2, "H", "W"], name: shape}, opset=opset, kinds={name: kind}
    )
    return Specialised(Source(made), backend)


def check(run: Specialised, name: str, values: Sequence[Array], wanted: Sequence[Array]) -> None:
    """Every value once, then the first again: the network that was built for it is still there."""
    for value, want in zip([*values, values[0]], [*wanted, wanted[0]], strict=True):
        (y,) = run({"x": X, name: value}).values()
        np.testing.assert_allclose(y, want, rtol=0, atol=tolerance("float32", X.size, 1.0))
        assert f"specialised on the value of {name}: built again when it changes" in run.explain()
    assert run.fixed == {name}


@pytest.mark.parametrize("backend", BACKENDS)
def test_shape(backend: str) -> None:
    run = prepared("Reshape", "x s", "s", [3], INT64, backend)
    shapes = [(2, 4, 6), (6, 2, 4), (0, -1, 3)]
    check(run, "s", [np.array(s) for s in shapes], [X.reshape(s) for s in [*shapes[:2], (1, -1, 3)]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_axes(backend: str) -> None:
    run = prepared("ReduceSum", "x axes", "axes", ["K"], INT64, backend)
    axes = [(1,), (2, 3), (-1, 0)]
    check(run, "axes", [np.array(a) for a in axes], [X.sum(axis=a, keepdims=True) for a in axes])


@pytest.mark.parametrize("backend", BACKENDS)
def test_scales(backend: str) -> None:
    run = prepared("Resize", "x - scales", "scales", [4], TensorProto.FLOAT, backend)
    factors = [(2, 1), (3, 2)]
    scales = [np.array((1, 1, *f), np.float32) for f in factors]
    check(run, "scales", scales, [X.repeat(h, axis=2).repeat(w, axis=3) for h, w in factors])


@pytest.mark.parametrize("backend", BACKENDS)
def test_pads(backend: str) -> None:
    run = prepared("Pad", "x pads", "pads", [8], INT64, backend)
    pads = [(0, 0, 1, 2, 0, 0, 3, 0), (1, 0, 0, -1, 0, 1, 0, 0)]
    wanted = [
        np.pad(X, ((0, 0), (0, 0), (1, 3), (2, 0))),
        np.pad(X, ((1, 0), (0, 1), (0, 0), (0, 0)))[..., 1:],
    ]
    check(run, "pads", [np.array(p) for p in pads], wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights(backend: str) -> None:
    run = prepared("Conv", "x w", "w", [3, 2, 3, 3], TensorProto.FLOAT, backend)
    weights = [np.float32(factor) * weight(3, 2, 3, 3) for factor in (1.0, -0.5)]
    check(run, "w", weights, [Conv2d().forward(X, w) for w in weights])


def test_what_is_data_as_well_is_no_weight() -> None:
    run = Specialised(
        Source(model([node("PRelu", "x s", "a"), node("Add", "a s", "y")], {"x": [2], "s": [2]})), "numpy"
    )
    x, s = np.array([-2, 3], np.float32), np.array([4, 5], np.float32)
    np.testing.assert_array_equal(run({"x": x, "s": s})["y"], [-4, 8])
    assert not run.fixed
