"""Strategy for whole graphs: random ones over the table of ops.

Every graph has open sizes N, H and W and comes with arrays that bind them. Sizes stay small, so that a case takes
milliseconds. Values stay small too: the weights of a layer are scaled until the absolute values behind an output sum
up to at most 1, activations and pools have slopes of at most 1. So every layer passes an error on at most as large
as it came in, and the rounding errors of a deep graph add up instead of multiplying (`check.error_bounds`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Clip,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    DepthToSpace,
    Div,
    GlobalAvgPool,
    GlobalMaxPool,
    Leaky,
    MaxPool2d,
    Mul,
    Pad,
    PRelu,
    Relu,
    Reshape,
    Resize,
    Shortcut,
    Slice,
    SpaceToDepth,
    Split,
    Sub,
    Tanh,
    Transpose,
    WeightNorm,
)
from graphsr.testing.cases import arrays

MAX_CHANNELS = 6
MAX_PIXELS = 24 * 24


@dataclass(frozen=True)
class GraphCase:
    """A graph with open sizes, and float32 arrays for its inputs."""

    graph: Graph
    inputs: dict[str, Array]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: x.shape for name, x in self.inputs.items()}

    def astype(self, dtype: str) -> GraphCase:
        """The same case in another floating-point dtype."""
        inputs = {name: x.astype(dtype) if x.dtype.kind == "f" else x for name, x in self.inputs.items()}
        return GraphCase(self.graph.astype(dtype), inputs)

    def __repr__(self) -> str:
        return f"GraphCase(inputs of {self.shapes})\n{self.graph}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis shows a failing case: as text, without the arrays."""
        printer.text(repr(self))


def _any_node(node: Node) -> bool:
    return True


@st.composite
def graphs(draw: st.DrawFn, max_steps: int = 6, supports: Callable[[Node], bool] = _any_node) -> GraphCase:
    """A random graph of supported nodes: up to `max_steps` steps, some of which branch and join, and 1 to 3 outputs."""
    sketch = Sketch(draw, channels=draw(st.integers(1, 4)), low=4, supports=supports)
    x = sketch.input
    passed = [x]
    for _ in range(draw(st.integers(1, max_steps))):
        x = sketch.step(x, draw(st.sampled_from(STEPS)))
        passed.append(x)
    outputs = {"y": x}
    for i in range(draw(st.integers(0, 2))):
        outputs[f"inner.{i}"] = draw(st.sampled_from(passed))
    if draw(st.integers(0, 4)) == 0 and sketch.accepts(head := sketch.head(x)):
        outputs["class"] = head
    return sketch.case(outputs)


class Sketch:
    """A graph in the making: knows the sizes that its inputs will have, and draws what a layer needs."""

    def __init__(self, draw: st.DrawFn, channels: int, low: int, supports: Callable[[Node], bool] = _any_node) -> None:
        self.draw = draw
        self.supports = supports
        n, h, w = (Dim.symbol(name) for name in "NHW")
        self.sizes = {"N": draw(st.integers(1, 2)), "H": draw(st.integers(low, 8)), "W": draw(st.integers(low, 8))}
        self.input = Node.input("input", TensorType("float32", (n, channels, h, w)))
        self.number = 0

    def case(self, outputs: dict[str, Node]) -> GraphCase:
        array = self.draw(arrays(self.shape(self.input)))
        return GraphCase(Graph((self.input,), outputs), {"input": array})

    def shape(self, x: Node) -> tuple[int, ...]:
        """The shape that a node will have."""
        return x.type.substitute(self.sizes).dims

    def step(self, x: Node, step: Step) -> Node:
        """One step, or none where the value is too small or too large for it, or the step is not supported."""
        y = step(self, x)
        (_, channels, *size) = self.shape(y)
        return y if channels <= MAX_CHANNELS**2 and size[0] * size[1] <= MAX_PIXELS and self.accepts(y) else x

    def accepts(self, y: Node) -> bool:
        return all(self.supports(node) for node in Graph((), {"y": y}).nodes())

    def node(self, op: Op, *inputs: Node) -> Node:
        self.number += 1
        origin = f"drawn: step {self.number}" if self.number % 3 else ""
        return Node(op, inputs, f"{op.name}.{self.number}" if self.number % 4 else "", origin)

    def const(self, array: Array, name: str = "") -> Node:
        return Node.const(np.asarray(array, np.float32), name and f"{name}.{self.number}")

    def vector(self, n: int, scale: float = 0.25) -> Array:
        return self.draw(arrays((n,), scale))

    def weight(self, shape: tuple[int, ...], summed: tuple[int, ...]) -> Node:
        """A weight whose absolute values sum up to at most 1 over the axes `summed`, those behind one output."""
        values = self.draw(arrays(shape))
        return self.const(values / np.abs(values).sum(axis=summed).max(), "weight")

    def bias(self, n: int) -> tuple[Node, ...]:
        return (self.const(self.vector(n), "bias"),) if self.draw(st.booleans()) else ()

    def conv(self, x: Node, co: int, kernel: int = 3, padding: bool = True) -> Node:
        """The convolution of super-resolution networks: stride 1, "same" padding or none."""
        ci = self.shape(x)[1]
        op = Conv2d(padding=(kernel // 2 if padding else 0,) * 4)
        return self.node(op, x, self.weight((co, ci, kernel, kernel), (1, 2, 3)), *self.bias(co))

    def activation(self, x: Node) -> Node:
        """An activation with slopes of at most 1."""
        choices = (Relu(), Leaky(0.25), Tanh(), Clip(-0.5, 0.5), PRelu())
        match self.draw(st.sampled_from(choices)):
            case PRelu() as op:
                c = self.shape(x)[1] if self.draw(st.booleans()) else 1
                return self.node(op, x, self.const(self.vector(c), "slope"))
            case op:
                return self.node(op, x)

    def shift(self, x: Node, shift: Array) -> Node:
        """x + shift as a convolution 1x1: EDSR's mean shift."""
        c = shift.size
        return self.node(Conv2d(), x, self.const(np.eye(c)[:, :, None, None], "weight"), self.const(shift, "bias"))

    def shuffle(self, x: Node, block: int, mode: str) -> Node:
        return self.node(DepthToSpace(block, mode), x)

    def join(self, a: Node, b: Node) -> Node:
        """A residual connection, in any of the forms that mean one."""
        if self.draw(st.booleans()):
            a, b = b, a
        factor = st.sampled_from([1.0, 0.5, -0.25])
        op = self.draw(st.one_of(st.builds(Shortcut, factor, factor), st.sampled_from([Add(), Sub()])))
        return self.node(op, a, b)

    def arithmetic(self, op: Op, x: Node, values: Array, left: bool = False) -> Node:
        """x ∘ c, or c ∘ x, for one constant per channel or one for all, in any shape that is broadcast so."""
        forms: list[tuple[int, ...]] = [(1, -1, 1, 1), (-1, 1, 1)]
        forms += [(1,), (), (1, 1, 1)] if values.size == 1 else []
        c = self.const(values.reshape(self.draw(st.sampled_from(forms))), "c")
        return self.node(op, c, x) if left else self.node(op, x, c)

    def head(self, x: Node) -> Node:
        """A classifier: global pooling and a dense layer."""
        n, c = x.type.shape[:2]
        pooled = self.node(self.draw(st.sampled_from([GlobalAvgPool(), GlobalMaxPool()])), x)
        flat = self.node(Reshape((n, c)), pooled)
        return self.node(Dense(), flat, self.weight((3, self.shape(x)[1]), (1,)), *self.bias(3))


Step = Callable[[Sketch, Node], Node]


def _conv(s: Sketch, x: Node) -> Node:
    """Any attributes: kernel, stride, padding, dilation and groups that fit the size."""
    _, c, *size = s.shape(x)
    kernel = s.draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (1, 3), (2, 2)]))
    stride, dilation = s.draw(st.sampled_from([((1, 1), (1, 1)), ((1, 1), (1, 1)), ((2, 1), (1, 2)), ((2, 2), (1, 1))]))
    padding = s.draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (kernel[0] // 2, kernel[1] // 2) * 2, (0, 1, 2, 0)]))
    if any(dilation[a] * (kernel[a] - 1) + 1 > size[a] + padding[a] + padding[a + 2] for a in (0, 1)):
        return x
    groups = s.draw(st.sampled_from([g for g in (1, 1, 2, c) if c % g == 0]))
    co = groups * s.draw(st.integers(1, max(1, MAX_CHANNELS // groups)))
    weight = s.weight((co, c // groups, *kernel), (1, 2, 3))
    return s.node(Conv2d(stride, padding, dilation, groups), x, weight, *s.bias(co))


def _conv_transpose(s: Sketch, x: Node) -> Node:
    _, c, *size = s.shape(x)
    groups = s.draw(st.sampled_from([g for g in (1, 2) if c % g == 0]))
    stride = s.draw(st.integers(1, 2))
    padding = s.draw(st.integers(0, 1)) if min(size) > 1 else 0
    op = ConvTranspose2d((stride, stride), (padding,) * 4, output_padding=(stride - 1, 0), groups=groups)
    cog = s.draw(st.integers(1, 2))
    weight = s.weight((c, cog, 3, 3), (0, 2, 3))
    return s.node(op, x, weight, *s.bias(groups * cog))


def _weight_norm(s: Sketch, x: Node) -> Node:
    """A convolution whose weight g·v/‖v‖ is computed in the graph; with g = 1/√fan_in the rows sum up to ≤ 1."""
    c = s.shape(x)[1]
    v = s.const(s.draw(arrays((c, c, 3, 3))), "v")
    g = s.const(np.full((c, 1, 1, 1), (9 * c) ** -0.5), "g")
    return s.node(Conv2d(padding=(1, 1, 1, 1)), x, s.node(WeightNorm(), v, g))


def batch_norm(s: Sketch, x: Node) -> Node:
    """|scale| ≤ 1 and variance ≥ 1; a third of them without shift, which may fold through padding."""
    c = s.shape(x)[1]
    scale, variance = s.vector(c, 0.5), 1 + np.abs(s.vector(c))
    bias, mean = (np.zeros(c), np.zeros(c)) if s.draw(st.integers(0, 2)) == 0 else (s.vector(c), s.vector(c))
    return s.node(BatchNorm(1e-5), x, *(s.const(v) for v in (scale, bias, mean, variance)))


def _arithmetic(s: Sketch, x: Node) -> Node:
    values = s.vector(s.draw(st.sampled_from([1, s.shape(x)[1]])), 0.5)
    match s.draw(st.sampled_from([Add(), Sub(), Mul(), Div()])):
        case Div() as op:
            return s.arithmetic(op, x, 1 / values)
        case op:
            return s.arithmetic(op, x, values, left=s.draw(st.booleans()))


def _pointwise(s: Sketch, x: Node) -> Node:
    """A convolution 1x1: any matrix, or a diagonal one as in EDSR's mean shift."""
    c = s.shape(x)[1]
    if s.draw(st.booleans()):
        return s.conv(x, s.draw(st.integers(1, MAX_CHANNELS)), kernel=1)
    weight = np.diag(s.vector(c, 0.5))[:, :, None, None]
    return s.node(Conv2d(), x, s.const(weight, "weight"), *s.bias(c))


def _residual(s: Sketch, x: Node) -> Node:
    """f(x) joined with x, where f keeps the shape."""
    y = x
    for _ in range(s.draw(st.integers(1, 2))):
        keeps = (_activation, batch_norm, _arithmetic, lambda s, x: s.conv(x, s.shape(x)[1]))
        y = s.draw(st.sampled_from(keeps))(s, y)
    return s.join(y, x)


def _two_branches(s: Sketch, x: Node) -> Node:
    """Two convolutions of one value, joined."""
    co = s.draw(st.integers(1, MAX_CHANNELS))
    return s.join(s.conv(x, co), s.conv(x, co, kernel=1))


def _activation(s: Sketch, x: Node) -> Node:
    return s.activation(x)


def _concat(s: Sketch, x: Node) -> Node:
    axis = s.draw(st.sampled_from([1, -1]))
    return s.node(Concat(axis), x, s.draw(st.sampled_from([_activation, _arithmetic]))(s, x))


def _split(s: Sketch, x: Node) -> Node:
    c = s.shape(x)[1]
    first = s.draw(st.integers(1, c))
    sizes = (first, c - first) if first < c else (c,)
    return s.node(Split(1, sizes, s.draw(st.integers(0, len(sizes) - 1))), x)


def _slice(s: Sketch, x: Node) -> Node:
    _, _, *size = s.shape(x)
    start = s.draw(st.integers(0, min(size) // 2))
    return s.node(Slice((start,), (None,), (s.draw(st.sampled_from([2, -1])),), (s.draw(st.integers(1, 2)),)), x)


def _pool(s: Sketch, x: Node) -> Node:
    _, _, *size = s.shape(x)
    kernel = s.draw(st.integers(1, min(3, *size)))
    kind = s.draw(st.sampled_from([MaxPool2d, AvgPool2d]))
    stride, padding = s.draw(st.integers(1, 2)), s.draw(st.integers(0, kernel // 2))
    return s.node(kind((kernel, kernel), (stride, stride), (padding,) * 4), x)


def _pad(s: Sketch, x: Node) -> Node:
    mode = s.draw(st.sampled_from(["constant", "reflect", "edge"]))
    _, _, *size = s.shape(x)
    amount = s.draw(st.sampled_from([(1, 1, 1, 1), (0, 0, 0, 0), (0, 1, 1, 0)]))
    return s.node(Pad(amount, mode), x) if min(size) > 1 or mode != "reflect" else x


def _resize(s: Sketch, x: Node) -> Node:
    scale = s.draw(st.sampled_from([(2.0, 2.0), (1.0, 1.0), (2.0, 1.0)]))
    return s.node(Resize(scale, mode=s.draw(st.sampled_from(["nearest", "linear"]))), x)


def _shuffle(s: Sketch, x: Node) -> Node:
    """A sub-pixel convolution, sometimes with its post-processing behind the shuffle."""
    y = s.shuffle(s.conv(x, 4 * s.draw(st.integers(1, 3))), 2, s.draw(st.sampled_from(["crd", "dcr"])))
    return _arithmetic(s, y) if s.draw(st.booleans()) else y


def _unshuffle(s: Sketch, x: Node) -> Node:
    """Space to depth of an even size: the padding makes it even whatever it was."""
    _, _, h, w = s.shape(x)
    even = s.node(Pad((0, 0, h % 2, w % 2)), x)
    return s.node(SpaceToDepth(2, s.draw(st.sampled_from(["crd", "dcr"]))), even)


def _nothing(s: Sketch, x: Node) -> Node:
    """A node that changes nothing."""
    keep = [Reshape(x.type.shape), Transpose((0, 1, -2, 3)), Pad((0, 0, 0, 0)), Concat(1), DepthToSpace(1)]
    return s.node(s.draw(st.sampled_from(keep)), x)


STEPS: tuple[Step, ...] = (
    _conv,
    _conv,
    _conv_transpose,
    _weight_norm,
    _activation,
    _activation,
    batch_norm,
    _arithmetic,
    _arithmetic,
    _pointwise,
    _residual,
    _residual,
    _two_branches,
    _concat,
    _split,
    _slice,
    _pool,
    _pad,
    _resize,
    _shuffle,
    _unshuffle,
    _nothing,
)
