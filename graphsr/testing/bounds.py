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
    magnitude = max(1.0, *(_largest(x) for x in inputs)) ** 2
    return tolerance(dtype, terms, max(magnitude, _largest(output) / terms))


@cache
def steepness(activation: Activation) -> float:
    """The largest slope of an activation, at least 1."""
    x = np.linspace(-10, 10, 4001)
    return max(1.0, _largest(activation.derivative(x, activation.forward(x))))


def gains(op: Op, inputs: tuple[Array, ...]) -> tuple[float, ...]:
    """For each input the largest change of the output per change of that input.

    1 for whatever is not listed: ops that move elements, and pools.
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
    return (1.0,) * len(inputs)


def _fits(op: Conv2d | ConvNd, kernel: tuple[int, ...]) -> bool:
    """Whether Winograd could compute it."""
    if isinstance(op, ConvNd):
        return winograd_fits_nd(op, kernel)
    return winograd_fits(op, (kernel[0], kernel[1]))


def _plain(op: Op) -> Op:
    return replace(op, algorithm="direct") if isinstance(op, Conv2d) else op


def _largest(x: Array) -> float:
    return float(np.abs(x).max(initial=0))
