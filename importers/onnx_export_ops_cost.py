"""How costs are written as ONNX, each with the symbols of `graphsr.ops.cost`: d = x − t, ℓ(x, t) and ∂ℓ/∂x."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TypeAlias

from graphsr.dim import product
from graphsr.ops import (
    HellingerCost,
    HingeCost,
    LogCoshCost,
    LogisticCost,
    MaeCost,
    MaskedCost,
    MseCost,
    SegCost,
    SmoothCost,
    WganCost,
)
from graphsr.ops.cost import Cost

from .onnx_export_ops_activation import affine, clip
from .onnx_export_ops_reduce import reduce_sum, reduced
from .onnx_export_writer import Operand, Rule, Rules, Site, UnwritableError, integers

Formula: TypeAlias = Callable[..., str]
"""(site, op, x, t) -> an array of their shape."""


def _cost(loss: Formula, slope: Formula) -> Rule:
    """scale · Σ w·ℓ(x, t') / m"""

    def rule(s: Site, op: Cost, x: str, t: str) -> str:
        smooth = _smoothed(s, op, t)
        weight = _weight(s, op, t, lambda: slope(s, op, x, smooth))
        terms = loss(s, op, x, smooth)
        terms = s("Mul", weight, terms) if weight else terms
        mean = reduced(s, "ReduceMean", terms, tuple(range(s.x.rank)), keepdims=False)
        return mean if op.scale == 1 else s("Mul", mean, s.number(op.scale))

    return rule


def _smoothed(s: Site, op: Cost, t: str) -> str:
    """t' = (1 − smoothing)·t + smoothing/n"""
    if not op.smoothing:
        return t
    count = s.scalar(product(s.x.shape[1:]))
    share = s("Div", s.number(op.smoothing), s.cast(count, s.dtype))
    return s("Add", s("Mul", t, s.number(1 - op.smoothing)), share)


def _weight(s: Site, op: Cost, t: str, slope: Callable[[], str]) -> str:
    """w, or "" where it is one everywhere."""
    weight = ""
    if op.noobject_scale != 1:
        weight = s("Where", s("Equal", t, s.number(0)), s.number(op.noobject_scale), s.number(1))
    if not op.threshold and not op.ratio:
        return weight
    size = s("Abs", slope())
    size = s("Mul", weight, size) if weight else size
    least: Operand = s.number(op.threshold)
    if op.ratio:
        least = s("Max", least, _ranked(s, size, op.ratio))
    return s("Where", s("Less", size, least), s.number(0), weight or s.number(1))


def _ranked(s: Site, values: str, ratio: float) -> str:
    """The smallest of the largest `ratio` of all values."""
    count = s.x.size
    if not isinstance(count, int):
        raise UnwritableError("a ratio needs known sizes")
    taken = count - min(int((1 - ratio) * count), count - 1)
    largest, _ = s.several("TopK", 2, s("Reshape", values, integers([-1])), integers([taken]))
    return s("Reshape", s.slice(largest, 0, taken - 1), integers([]))


def _unmasked(s: Site, op: MaskedCost, x: str, t: str) -> str:
    """d, 0 where t is the mark"""
    return s("Where", s("Equal", t, s.number(op.mark)), s.number(0), s("Sub", x, t))


def _complement(s: Site, x: str) -> str:
    return s("Sub", s.number(1), x)


def _square(s: Site, x: str) -> str:
    return s("Mul", x, x)


def _smooth_loss(s: Site, op: SmoothCost, x: str, t: str) -> str:
    d = s("Abs", s("Sub", x, t))
    return s("Where", s("Less", d, s.number(1)), _square(s, d), affine(s, d, 2, -1))


def _entropy(s: Site, op: SegCost, x: str, t: str) -> str:
    """−t·ln x − (1 − t)·ln(1 − x)"""
    ones, zeros = s("Mul", t, s("Log", x)), s("Mul", _complement(s, t), s("Log", _complement(s, x)))
    return s("Neg", s("Add", ones, zeros))


def _entropy_slope(s: Site, op: SegCost, x: str, t: str) -> str:
    """(x − t) / (x·(1 − x))"""
    return s("Div", s("Sub", x, t), s("Mul", x, _complement(s, x)))


def _critic(s: Site, op: WganCost, x: str, t: str) -> str:
    """1 − 2·sign |t|"""
    return affine(s, s("Sign", s("Abs", t)), -2, 1)


def _hinge_slope(s: Site, op: HingeCost, x: str, t: str) -> str:
    return s("Where", s("Less", s("Mul", t, x), s.number(1)), s("Neg", t), s.number(0))


def _log_cosh(s: Site, op: LogCoshCost, x: str, t: str) -> str:
    """|d| + ln(1 + e^(−2|d|)) − ln 2"""
    d = s("Abs", s("Sub", x, t))
    return s("Add", d, s("Sub", s("Softplus", affine(s, d, -2)), s.number(log(2))))


def _logistic(s: Site, op: LogisticCost, x: str, t: str) -> str:
    """Σ ln(1 + e^x) − t·x"""
    terms = s("Sub", s("Softplus", x), s("Mul", t, x))
    return reduce_sum(s, terms, tuple(range(s.x.rank)), keepdims=False)


COST: Rules = {
    MseCost: _cost(
        lambda s, op, x, t: _square(s, s("Sub", x, t)),
        lambda s, op, x, t: affine(s, s("Sub", x, t), 2),
    ),
    MaeCost: _cost(
        lambda s, op, x, t: s("Abs", s("Sub", x, t)),
        lambda s, op, x, t: s("Sign", s("Sub", x, t)),
    ),
    SmoothCost: _cost(
        _smooth_loss,
        lambda s, op, x, t: affine(s, clip(s, s("Sub", x, t), -1, 1), 2),
    ),
    MaskedCost: _cost(
        lambda s, op, x, t: _square(s, _unmasked(s, op, x, t)),
        lambda s, op, x, t: affine(s, _unmasked(s, op, x, t), 2),
    ),
    SegCost: _cost(_entropy, _entropy_slope),
    WganCost: _cost(lambda s, op, x, t: s("Mul", x, _critic(s, op, x, t)), _critic),
    HellingerCost: _cost(
        lambda s, op, x, t: _square(s, s("Sub", s("Sqrt", t), s("Sqrt", x))),
        lambda s, op, x, t: _complement(s, s("Sqrt", s("Div", t, x))),
    ),
    HingeCost: _cost(
        lambda s, op, x, t: s("Relu", _complement(s, s("Mul", t, x))),
        _hinge_slope,
    ),
    LogCoshCost: _cost(_log_cosh, lambda s, op, x, t: s("Tanh", s("Sub", x, t))),
    LogisticCost: _logistic,
}
