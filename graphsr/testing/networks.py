"""Strategy for small super-resolution networks, built of the same layers as the random graphs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.ir import Node
from graphsr.ops import Add, Div, Mul, PRelu, Relu, Shortcut, Sub, Tanh
from graphsr.testing.graphs import GraphCase, Sketch, batch_norm


@st.composite
def networks(draw: st.DrawFn) -> GraphCase:
    """A network of one of the families EDSR, WDSR-A, WDSR-B and SRResNet, with its pre- and post-processing."""
    sketch = Sketch(draw, channels=3, low=5)
    family = draw(st.sampled_from([_edsr, _wdsr, _srresnet]))
    return sketch.case({"output": family(sketch, sketch.input)})


def _edsr(s: Sketch, image: Node) -> Node:
    """Mean shift as 1x1 convolutions, residual blocks with residual scaling, global skip, sub-pixel upsampling."""
    c, scale = 4, s.draw(st.integers(2, 3))
    mean = s.vector(3)
    x = skip = s.conv(s.shift(image, -mean), c)
    for _ in range(s.draw(st.integers(1, 2))):
        y = s.conv(s.node(Relu(), s.conv(x, c)), c)
        x = s.node(Shortcut(s.draw(st.sampled_from([1.0, 0.1]))), y, x)
    x = s.node(Shortcut(), s.conv(x, c), skip)
    x = s.shuffle(s.conv(x, c * scale**2), scale, s.draw(st.sampled_from(["crd", "dcr"])))
    return s.shift(s.conv(x, 3), mean)


def _wdsr(s: Sketch, image: Node) -> Node:
    """(x − mean) / range, wide activations (A: 3x3 pairs, B: 1x1 pairs and 3x3), two branches, and back again."""
    c, wide, scale = 3, 6, 2
    mean = s.vector(3)
    z = s.arithmetic(Div(), s.arithmetic(Sub(), image, mean), np.array([2.0]))
    x = s.conv(z, c)
    kernel = s.draw(st.sampled_from([1, 3]))
    for _ in range(s.draw(st.integers(1, 2))):
        y = s.conv(s.node(Relu(), s.conv(x, wide, kernel)), c if kernel == 3 else 2, kernel)
        x = s.node(Shortcut(0.5), y if kernel == 3 else s.conv(y, c), x)
    total = s.node(Shortcut(), s.conv(x, 3 * scale**2), s.conv(z, 3 * scale**2))
    y = s.shuffle(total, scale, s.draw(st.sampled_from(["crd", "dcr"])))
    return s.arithmetic(Add(), s.arithmetic(Mul(), y, np.array([0.5])), mean)


def _srresnet(s: Sketch, image: Node) -> Node:
    """Batch normalisation behind every inner convolution, one PReLU slope per layer, tanh at the end."""
    c = 4

    def prelu(x: Node) -> Node:
        return s.node(PRelu(), x, s.const(s.vector(1), "slope"))

    x = skip = prelu(s.conv(image, c))
    for _ in range(s.draw(st.integers(1, 2))):
        y = prelu(batch_norm(s, s.conv(x, c)))
        x = s.node(Add(), batch_norm(s, s.conv(y, c)), x)
    x = s.node(Add(), batch_norm(s, s.conv(x, c)), skip)
    x = prelu(s.shuffle(s.conv(x, c * 4), 2, "crd"))
    return s.node(Tanh(), s.conv(x, 3))
