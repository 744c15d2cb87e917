"""Strategy for layers with the channel counts of real networks: where blocks, panels and vectors begin and end.

Only a few hundred values are drawn and repeated, as drawing each of many thousands would be slow. Their number is
prime, so that neither channels nor rows repeat each other.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Conv2d, Leaky, Relu, Shortcut
from graphsr.testing.cases import arrays
from graphsr.testing.graphs import GraphCase

CHANNELS = (1, 3, 7, 8, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65)
SIZES = (1, 2, 4, 5, 11, 12, 13, 16, 17, 25)


@st.composite
def wide_layers(draw: st.DrawFn) -> GraphCase:
    """act(α·conv(x) + β·r) of 1 to 65 channels, where bias, residual and activation may be absent."""
    ci, co = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(CHANNELS))
    kernel = draw(st.sampled_from([3, 3, 3, 1, 5]))
    stride = draw(st.sampled_from([1, 1, 1, 2]))
    x_shape = (draw(st.integers(1, 2)), ci, draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES)))
    n, h, w = (Dim.symbol(name) for name in "NHW")
    x = Node.input("x", TensorType("float32", (n, ci, h, w)))
    inputs = {"x": draw(repeated(x_shape))}
    weight = Node.const(draw(repeated((co, ci, kernel, kernel))), "weight")
    bias = (Node.const(draw(repeated((co,))), "bias"),) if draw(st.booleans()) else ()
    y = Node(Conv2d((stride, stride), (kernel // 2,) * 4), (x, weight, *bias), "conv")
    if draw(st.booleans()):
        residual = Node.input("r", y.type)
        inputs["r"] = draw(repeated(y.type.substitute(dict(zip("NHW", (x_shape[0], *x_shape[2:]), strict=True))).dims))
        y = Node(Shortcut(draw(st.sampled_from([1.0, -0.5]))), (y, residual), "sum")
    if activation := draw(st.sampled_from([None, Relu(), Leaky(0.25)])):
        y = Node(activation, (y,), "activation")
    nodes = (x, *((residual,) if "r" in inputs else ()))
    return GraphCase(Graph(nodes, {"y": y}), inputs)


@st.composite
def repeated(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """A float32 array of this shape that repeats 251 drawn values."""
    return np.resize(draw(arrays((251,))), shape)
