"""How far a correct evaluation of a graph may be from the exact one.

A bound for every node, from the rounding error of its op and the errors that its inputs bring along (Higham,
"Accuracy and stability of numerical algorithms", 2002, chapter 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from graphsr.ir import Graph, Node
from graphsr.op import Array, Op
from graphsr.ops import Activation, BatchNorm, Conv2d, ConvNd, ConvTranspose2d, Dense, Div, Fused, Mul, PRelu, Shortcut
from graphsr.ops.conv import winograd_fits
from graphsr.ops.conv_nd import winograd_fits_nd
from graphsr.ops.reduce import ReduceMax, ReduceMean, Reduction
from graphsr.ops.reduce_kinds import (
    CumulativeSum,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMin,
    ReduceProd,
    ReduceSumSquare,
)
from graphsr.testing.cases import Case, growth, tolerance


def evaluate(graph: Graph, inputs: Mapping[str, Array]) -> dict[Node, Array]:
    """The value of every node of a bound graph by the `forward` of its op."""
    values = {node: inputs[node.name] for node in graph.inputs}
    for node in graph.nodes():
        if node not in values:
            values[node] = node.op.forward(*(values[child] for child in node.inputs))
    return values


def error_bounds(values: Mapping[Node, Array], dtype: str, most_growth: float = 1.0) -> dict[Node, float]:
    """Per node the largest difference from its exact value that an evaluation in `dtype` may show.

    bound(y) = rounding(op) + Σ gain(op, input) · bound(input): an error in an input comes out amplified at most by the
    Lipschitz constant of the op in the maximum norm. `most_growth` is the `growth` of the worst algorithm in use;
    it counts where Winograd could compute the node. The keys of `values` are in topological order.
    """
    bounds: dict[Node, float] = {}
    for node, value in values.items():
        arguments = tuple(values[child] for child in node.inputs)
        bounds[node] = rounding(node.op, arguments, value, dtype, most_growth) if arguments else 0.0
        incoming = [bounds[child] for child in node.inputs]
        if any(incoming):
            bounds[node] += sum(g * e for g, e in zip(gains(node.op, arguments), incoming, strict=True) if e)
    return bounds


def rounding(op: Op, inputs: tuple[Array, ...], output: Array, dtype: str, most_growth: float = 1.0) -> float:
    """The rounding error of one op on exact inputs: `tolerance` for the length and the absolute value of its sums.

    It holds for whatever values a test draws. Errors in proportion to √n, as for independent roundings, would be too
    strict: equal or repeated values are rounded in the same direction again and again.
    """
    if output.dtype.kind != "f" or not output.size:
        return 0.0
    terms = Case(op, inputs).terms
    match op:
        case Fused(base, activation, residual):
            inner = rounding(base, inputs[:-1] if residual else inputs, output, dtype, most_growth)
            total = _largest(output)
            if residual:
                inner *= abs(residual.alpha)
                total += abs(residual.beta) * _largest(inputs[-1])
            return inner * (steepness(activation) if activation else 1) + tolerance(dtype, 1, max(1, total))
        case Conv2d() | ConvNd() if _fits(op, inputs[1].shape[2:]) and (worst := max(growth(op), most_growth)) > 1:
            sums = tolerance(dtype, terms, worst * _largest(inputs[0]) * _largest(inputs[1]))
            return sums + tolerance(dtype, 1, _largest(output))  # a bias may be far larger than the sums
        case Conv2d() | ConvTranspose2d() | Dense():
            return tolerance(dtype, terms, _largest(_plain(op).forward(*map(np.abs, inputs))) / terms)
        case BatchNorm():
            x, scale, bias, mean = map(np.abs, inputs[:4])
            return tolerance(dtype, 1, _largest(op.forward(x, scale, bias, -mean, inputs[4])))
        case Reduction():
            return reduction_rounding(op, inputs[0], output, dtype)
        case CumulativeSum(axis):
            count = inputs[0].shape[axis]
            return tolerance(dtype, count, _largest(op.forward(np.abs(inputs[0]))) / count)
    magnitude = max(1.0, *(_largest(x) for x in inputs)) ** 2
    return tolerance(dtype, terms, max(magnitude, _largest(output) / terms))


def reduction_rounding(op: Reduction, x: Array, output: Array, dtype: str) -> float:
    """The rounding error of a reduction of n = |A| elements to each of the outputs, added in any order.

    u is the unit roundoff and γ_k = k·u/(1 − k·u). A sum of n terms, each of them rounded up to four times, comes out
    as s + θ·Σ|terms| with |θ| ≤ γ_(n+4) (Higham, §3.1 and §4.2). What is made of the sum s carries this on:

    Σ x, Σ|x|, Σ x²   θ·Σ|terms|; divided by n for the mean
    Π x               θ·|y|, as long as no partial product overflows or vanishes
    √Σ x²             all terms are positive, so ŝ = (1 + θ)·s, and |√(1 + θ) − 1| = |θ|/(1 + √(1 + θ)) ≤ |θ|: θ·|y|;
                      squares that vanish take at most n·tiny from s, which takes at most √(n·tiny) from its root
    ln Σ x            with δ = θ·Σ|x|/|s|, |ln(1 + δ)| ≤ 2|δ| where |δ| ≤ 1/2; and the rounding of y
    m + ln Σ e^(x−m)  the same, where Σ|x|/|s| = 1. The rounding of x − m gives its term a relative error of u·|x − m|:
                      terms below 1/n weigh nothing, and in the others |x − m| ≤ ln n < n. And the rounding of m + ln s

    `tolerance` of n terms whose absolute values add up to Σ is 4·u·(n + 4)·Σ, so it is at least 2·γ_(n+4)·Σ as long as
    (n + 4)·u ≤ 1/2: eight million elements in float32. A minimum or maximum rounds nothing.
    """
    count = max(1, x.size // output.size)
    largest = _largest(output)
    match op:
        case ReduceMax() | ReduceMin():
            return 0.0
        case ReduceProd():
            return tolerance(dtype, count, largest / count)
        case ReduceL2():
            return tolerance(dtype, count, largest / count) + float(np.sqrt(count * np.finfo(dtype).tiny))
        case ReduceLogSumExp():
            return tolerance(dtype, count, 1 / count) + tolerance(dtype, 1, max(largest, _largest(x)))
        case ReduceLogSum():
            with np.errstate(divide="ignore", invalid="ignore"):
                condition = op.sum(np.abs(x)) / np.abs(op.sum(x))
            return tolerance(dtype, count, _largest(condition) / count) + tolerance(dtype, 1, largest)
    terms = x * x if isinstance(op, ReduceSumSquare) else np.abs(x)
    sums = _largest(terms.sum(op.axes))
    return tolerance(dtype, count, sums / count / (count if isinstance(op, ReduceMean) else 1))


@cache
def steepness(activation: Activation) -> float:
    """The largest slope of an activation, at least 1."""
    x = np.linspace(-10, 10, 4001)
    return max(1.0, _largest(activation.derivative(x, activation.forward(x))))


def gains(op: Op, inputs: tuple[Array, ...]) -> tuple[float, ...]:
    """For each input the largest change of the output per change of that input.

    1 for whatever is not listed: ops that move elements, and pools. Of reductions it is the slope at these inputs,
    Σ_A |∂y/∂x|; of the norm √|A|, since it has a kink at 0.
    """
    match op:
        case Fused(base, activation, residual):
            slope = steepness(activation) if activation else 1.0
            if not residual:
                return tuple(slope * g for g in gains(base, inputs))
            alpha, beta = slope * abs(residual.alpha), slope * abs(residual.beta)
            return (*(alpha * g for g in gains(base, inputs[:-1])), beta)
        case Activation():
            return (steepness(op),)
        case Conv2d() | ConvTranspose2d() | Dense():
            row = _largest(_plain(op).forward(np.ones_like(inputs[0]), np.abs(inputs[1])))
            weight, bias = Case(op, inputs).terms * _largest(inputs[0]), 1.0
            return (row, weight, bias)[: len(inputs)]
        case BatchNorm():
            return (_largest(inputs[1] / op.deviation(inputs[4])), 0, 0, 0, 0)  # its parameters are exact
        case Shortcut(alpha, beta):
            return abs(alpha), abs(beta)
        case Mul():
            return _largest(inputs[1]), _largest(inputs[0])
        case Div():
            least = float(np.abs(inputs[1]).min(initial=np.inf))
            return 1 / least, _largest(inputs[0]) / least**2
        case PRelu():
            return max(1.0, _largest(inputs[1])), _largest(inputs[0])
        case CumulativeSum(axis):
            return (float(inputs[0].shape[axis]),)
        case ReduceL2():
            return (float(np.sqrt(inputs[0].size / max(1, op.forward(inputs[0]).size))),)
        case Reduction():
            y = op.forward(inputs[0])
            (slopes,) = op.vjp(inputs, y, np.ones_like(y))
            return (1.0 if slopes is None else _largest(np.abs(slopes).sum(op.axes)),)
    return (1.0,) * len(inputs)


def _fits(op: Conv2d | ConvNd, kernel: tuple[int, ...]) -> bool:
    """Whether Winograd could compute it."""
    if isinstance(op, ConvNd):
        return winograd_fits_nd(op, kernel)
    return winograd_fits(op, (kernel[0], kernel[1]))


def _plain(op: Op) -> Op:
    return replace(op, algorithm="direct") if isinstance(op, Conv2d) else op


def _largest(x: Array) -> float:
    """The largest finite absolute value: no tolerance makes a number of an infinity."""
    return float(np.abs(x[np.isfinite(x)]).max(initial=0))
