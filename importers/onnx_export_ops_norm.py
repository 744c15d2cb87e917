"""How normalisations are written as ONNX: by the operator of set 17 where it has one, else put together."""

from __future__ import annotations

import numpy as np

from graphsr.ops import (
    BatchNorm,
    BatchNormTrain,
    GroupNorm,
    InstanceNorm,
    L1Norm,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    RmsNorm,
    WeightNorm,
)

from .onnx_export_ops_reduce import reduce_sum, reduced
from .onnx_export_writer import Rules, Site, integers


def _standard(s: Site, x: str, axes: tuple[int, ...], eps: float) -> str:
    """(x − μ)/√(v + ε), the statistics over `axes`"""
    centred = s("Sub", x, reduced(s, "ReduceMean", x, axes))
    return s("Div", centred, _root_mean_square(s, centred, axes, eps))


def _root_mean_square(s: Site, x: str, axes: tuple[int, ...], eps: float) -> str:
    return s("Sqrt", s("Add", reduced(s, "ReduceMean", s("Mul", x, x), axes), s.number(eps)))


def _scaled(s: Site, x: str, scale: str, bias: str) -> str:
    """γ·x + β for each channel"""
    return s("Add", s("Mul", x, s.per_channel(scale)), s.per_channel(bias))


def _batch_norm(s: Site, op: BatchNorm, x: str, scale: str, bias: str, mean: str, var: str) -> str:
    """The form with ε outside of the root has another variance. Attributes are float32, so float64 has a constant."""
    if op.form == "inside" and s.dtype == "float32":
        return s("BatchNormalization", x, scale, bias, mean, var, epsilon=op.eps)
    if op.form == "inside":
        sigma = s("Sqrt", s("Add", var, s.number(op.eps)))
    else:
        sigma = s("Add", s("Sqrt", var), s.number(op.eps))
    normal = s("Div", s("Sub", x, s.per_channel(mean)), s.per_channel(sigma))
    return _scaled(s, normal, scale, bias)


def _batch_norm_train(s: Site, op: BatchNormTrain, x: str, scale: str, bias: str) -> str:
    axes = tuple(a for a in range(s.x.rank) if a != 1)
    return _scaled(s, _standard(s, x, axes, op.eps), scale, bias)


def _weight_norm(s: Site, op: WeightNorm, v: str, g: str) -> str:
    axes = tuple(range(1, s.x.rank))
    norm = reduced(s, "ReduceL2", v, axes) if axes else s("Abs", v)
    return s("Mul", g, s("Div", v, norm))


def _layer_norm(s: Site, op: LayerNorm, x: str, scale: str, *bias: str) -> str:
    if s.dtype == "float32":
        return s("LayerNormalization", x, scale, *bias, axis=op.axis, epsilon=op.eps)
    y = s("Mul", _standard(s, x, _tail(s, op.axis), op.eps), scale)
    return s("Add", y, *bias) if bias else y


def _rms_norm(s: Site, op: RmsNorm, x: str, scale: str) -> str:
    return s("Mul", s("Div", x, _root_mean_square(s, x, _tail(s, op.axis), op.eps)), scale)


def _tail(s: Site, axis: int) -> tuple[int, ...]:
    return tuple(range(axis % s.x.rank, s.x.rank))


def _group_norm(s: Site, op: GroupNorm, x: str, scale: str, bias: str) -> str:
    """Each group becomes one line, which is normalised and takes the shape of x again."""
    lines = s("Reshape", x, integers([0, op.groups, -1]))
    return _scaled(s, s("Reshape", _standard(s, lines, (2,), op.eps), s("Shape", x)), scale, bias)


def _instance_norm(s: Site, op: InstanceNorm, x: str, scale: str, bias: str) -> str:
    if s.x.rank >= 3 and s.dtype == "float32":
        return s("InstanceNormalization", x, scale, bias, epsilon=op.eps)
    if s.x.rank == 2:  # every value is its own mean
        return _scaled(s, s("Sub", x, x), scale, bias)
    return _scaled(s, _standard(s, x, tuple(range(2, s.x.rank)), op.eps), scale, bias)


def _divided(s: Site, x: str, norm: str, eps: float) -> str:
    """x/(norm + ε), 0 where the norm is 0"""
    if eps:
        return s("Div", x, norm)
    return s("Div", x, s("Where", s("Equal", norm, s.number(0)), s.number(1), norm))


def _l1_norm(s: Site, op: L1Norm, x: str) -> str:
    norm = reduce_sum(s, s("Abs", x), op.axes)
    return _divided(s, x, s("Add", norm, s.number(op.eps)) if op.eps else norm, op.eps)


def _l2_norm(s: Site, op: L2Norm, x: str) -> str:
    square = reduce_sum(s, s("Mul", x, x), op.axes)
    return _divided(s, x, s("Sqrt", s("Add", square, s.number(op.eps)) if op.eps else square), op.eps)


def _local_response_norm(s: Site, op: LocalResponseNorm, x: str) -> str:
    """The operator where engines take it: images, a window with a middle; else the sum over shifted channels."""
    if s.x.rank == 4 and op.size % 2 and s.dtype == "float32":
        return s("LRN", x, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.kappa)
    pads = np.zeros((2, s.x.rank), np.int64)
    pads[:, 1] = (op.size - 1) // 2, op.size // 2
    squares = s("Pad", s("Mul", x, x), pads.ravel(), s.number(0))
    last = op.size - 1
    total = s.slice(squares, 1, last)
    for first in range(last):
        total = s("Add", total, s.slice(squares, 1, first, first - last))
    scale = s("Add", s("Mul", total, s.number(op.alpha / op.size)), s.number(op.kappa))
    return s("Mul", x, s("Pow", scale, s.number(-op.beta)))


NORM: Rules = {
    BatchNorm: _batch_norm,
    BatchNormTrain: _batch_norm_train,
    WeightNorm: _weight_norm,
    LayerNorm: _layer_norm,
    RmsNorm: _rms_norm,
    GroupNorm: _group_norm,
    InstanceNorm: _instance_norm,
    L1Norm: _l1_norm,
    L2Norm: _l2_norm,
    LocalResponseNorm: _local_response_norm,
}
