"""How activations are written as ONNX: by the operator of the same meaning, or put together of simpler ones."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from graphsr.ops import (
    Celu,
    Clip,
    Elliot,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    HardTan,
    Leaky,
    LhTan,
    Linear,
    Loggy,
    Logistic,
    Mish,
    Plse,
    PRelu,
    Ramp,
    Relie,
    Relu,
    Relu6,
    Selu,
    Shrink,
    Silu,
    SoftPlus,
    SoftSign,
    Stair,
    SymmElliot,
    Tanh,
    ThresholdedRelu,
)
from graphsr.ops.activation import SELU_ALPHA, SELU_LAMBDA

from .onnx_export_writer import Rules, Site, plain


def affine(s: Site, x: str, factor: float, summand: float = 0.0) -> str:
    """factor·x + summand"""
    y = s("Mul", x, s.number(factor))
    return s("Add", y, s.number(summand)) if summand else y


def _bent(s: Site, x: str, below: str) -> str:
    """x for x > 0, else `below`."""
    return s("Where", s("Greater", x, s.number(0)), x, below)


def _exponential(s: Site, x: str, factor: float, inner: float = 1.0) -> str:
    """factor · (e^(x/inner) − 1) for x < 0, else 0"""
    negative = s("Min", x, s.number(0))
    exponent = negative if inner == 1 else s("Div", negative, s.number(inner))
    return affine(s, s("Sub", s("Exp", exponent), s.number(1)), factor)


def _leaky(s: Site, x: str, slope: float) -> str:
    """ONNX keeps attributes in float32, so float64 has a constant instead (here and below)."""
    return s("LeakyRelu", x, alpha=slope) if s.dtype == "float32" else _bent(s, x, affine(s, x, slope))


def _elu(s: Site, op: Elu, x: str) -> str:
    if s.dtype == "float32":
        return s("Elu", x, alpha=op.alpha)
    return _bent(s, x, _exponential(s, x, op.alpha))


def _selu(s: Site, op: Selu, x: str) -> str:
    if s.dtype == "float32":
        return s("Selu", x, alpha=SELU_ALPHA, gamma=SELU_LAMBDA)
    return _bent(s, affine(s, x, SELU_LAMBDA), _exponential(s, x, SELU_LAMBDA * SELU_ALPHA))


def _celu(s: Site, op: Celu, x: str) -> str:
    if s.dtype == "float32":
        return s("Celu", x, alpha=op.alpha)
    return _bent(s, x, _exponential(s, x, op.alpha, op.alpha))


def clip(s: Site, x: str, low: float, high: float) -> str:
    bounds = ["" if np.isinf(bound) else s.number(bound) for bound in (low, high)]
    return s("Clip", x, *bounds)


def _plse(s: Site, op: Plse, x: str) -> str:
    low, middle, high = affine(s, x, 0.01, 0.04), affine(s, x, 0.125, 0.5), affine(s, x, 0.01, 0.96)
    upper = s("Where", s("Greater", x, s.number(4)), high, middle)
    return s("Where", s("Less", x, s.number(-4)), low, upper)


def _lhtan(s: Site, op: LhTan, x: str) -> str:
    upper = s("Where", s("Greater", x, s.number(1)), affine(s, x, 0.001, 0.999), x)
    return s("Where", s("Less", x, s.number(0)), affine(s, x, 0.001), upper)


def _stair(s: Site, op: Stair, x: str) -> str:
    """⌊⌊x⌋/2⌋ + max(0, r − 1), r = x − 2·⌊x/2⌋"""
    flat = s("Floor", affine(s, s("Floor", x), 0.5))
    rest = s("Sub", x, affine(s, s("Floor", affine(s, x, 0.5)), 2))
    return s("Add", flat, s("Relu", s("Sub", rest, s.number(1))))


def _gelu(s: Site, op: Gelu, x: str) -> str:
    """x·(1 + erf(x/√2))/2, or x·σ(2·√(2/π)·(x + 0.044715·x³))"""
    if op.approximate == "none":
        return s("Mul", x, affine(s, s("Erf", affine(s, x, sqrt(0.5))), 0.5, 0.5))
    cube = s("Mul", s("Mul", x, x), x)
    inner = s("Add", x, affine(s, cube, 0.044715))
    return s("Mul", x, s("Sigmoid", affine(s, inner, 2 * sqrt(2 / pi))))


def _hard_sigmoid(s: Site, op: HardSigmoid, x: str) -> str:
    if s.dtype == "float32":
        return s("HardSigmoid", x, alpha=op.alpha, beta=op.beta)
    return clip(s, affine(s, x, op.alpha, op.beta), 0, 1)


def _hard_swish(s: Site, op: HardSwish, x: str) -> str:
    return s("Mul", x, clip(s, affine(s, x, 1 / 6, 0.5), 0, 1)) if s.dtype != "float32" else s("HardSwish", x)


def _shrink(s: Site, op: Shrink, x: str) -> str:
    if s.dtype == "float32":
        return s("Shrink", x, lambd=op.threshold, bias=op.bias)
    inside = s("LessOrEqual", s("Abs", x), s.number(op.threshold))
    return s("Where", inside, s.number(0), s("Sub", x, affine(s, s("Sign", x), op.bias)))


def _thresholded(s: Site, op: ThresholdedRelu, x: str) -> str:
    if s.dtype == "float32":
        return s("ThresholdedRelu", x, alpha=op.threshold)
    return s("Where", s("LessOrEqual", x, s.number(op.threshold)), s.number(0), x)


def _prelu(s: Site, op: PRelu, x: str, slope: str) -> str:
    """ONNX broadcasts the slopes from the right, so they get axes for height and width."""
    return s("PRelu", x, s.per_channel(slope))


ACTIVATIONS: Rules = {
    Linear: plain("Identity"),
    Logistic: plain("Sigmoid"),
    Loggy: lambda s, op, x: s("Tanh", affine(s, x, 0.5)),
    Relu: plain("Relu"),
    Elu: _elu,
    Relie: lambda s, op, x: _leaky(s, x, 0.01),
    Ramp: lambda s, op, x: s("Add", s("Relu", x), affine(s, x, 0.1)),
    Tanh: plain("Tanh"),
    Plse: _plse,
    Leaky: lambda s, op, x: _leaky(s, x, op.slope),
    HardTan: lambda s, op, x: clip(s, x, -1, 1),
    LhTan: _lhtan,
    Selu: _selu,
    SoftPlus: plain("Softplus"),
    SoftSign: plain("Softsign"),
    Elliot: lambda s, op, x: affine(s, s("Softsign", affine(s, x, op.steepness)), 0.5, 0.5),
    SymmElliot: lambda s, op, x: s("Softsign", affine(s, x, op.steepness)),
    Stair: _stair,
    Relu6: lambda s, op, x: clip(s, x, 0, 6),
    Clip: lambda s, op, x: clip(s, x, op.low, op.high),
    Silu: lambda s, op, x: s("Mul", x, s("Sigmoid", x)),
    Gelu: _gelu,
    Mish: lambda s, op, x: s("Mul", x, s("Tanh", s("Softplus", x))),
    Celu: _celu,
    HardSigmoid: _hard_sigmoid,
    HardSwish: _hard_swish,
    PRelu: _prelu,
    ThresholdedRelu: _thresholded,
    Shrink: _shrink,
}
