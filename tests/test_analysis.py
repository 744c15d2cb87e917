"""Cost and receptive field, held to what a probe of the network shows."""

from __future__ import annotations

import numpy as np
import pytest

from graphsr.analysis import macs, macs_per_pixel, receptive_field
from graphsr.backend import get_backend
from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.models import edsr, espcn, srresnet, wdsr_a, wdsr_b
from graphsr.ops import Concat, Conv2d, DepthToSpace, GlobalAvgPool, Resize

SMALL = {
    "edsr": lambda: edsr(scale=2, blocks=1, features=4),
    "wdsr_a": lambda: wdsr_a(scale=2, blocks=1, features=4, expanded=8),
    "wdsr_b": lambda: wdsr_b(scale=3, blocks=1, features=5),
    "srresnet": lambda: srresnet(scale=2, blocks=1, features=4),
    "espcn": lambda: espcn(scale=3),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_receptive_field_is_what_a_probe_sees(name: str) -> None:
    """One image for each input row that is changed: an output pixel sees the rows whose images differ there."""
    model = SMALL[name]()
    run = get_backend("reference").compile(model.graph.astype("float64"), threads=1)
    size, scale = 41, model.scale or 1
    bound = model.graph.bind({"input": (size + 1, 1 if name == "espcn" else 3, size, 5)})
    images = np.full(bound.inputs[0].type.dims, 100.0)
    for row in range(size):
        images[row, :, row] += 50.0
    output = run({"input": images})["output"]
    differs = np.abs(output[:-1] - output[-1]).max(axis=(1, 3)) > 0  # [input row, output row]
    middle = size // 2 * scale
    seen = [np.flatnonzero(differs[:, phase]) for phase in range(middle, middle + scale)]
    assert receptive_field(model.graph) == (max(rows[-1] - rows[0] + 1 for rows in seen),) * 2


def test_macs_of_a_convolution() -> None:
    h, w = Dim.symbol("H"), Dim.symbol("W")
    x = Node.input("x", TensorType("float32", (1, 3, h, w)))
    y = Node(Conv2d(padding=(1, 1, 1, 1)), (x, Node.const(np.zeros((8, 3, 3, 3), np.float32))))
    graph = Graph((x,), {"y": Node(DepthToSpace(2, "crd"), (y,))})
    assert macs(graph) == 216 * h * w
    assert macs_per_pixel(graph) == 216
    assert receptive_field(graph) == (3, 3)


def test_global_layers_see_everything() -> None:
    x = Node.input("x", TensorType("float32", (1, 3, Dim.symbol("H"), Dim.symbol("W"))))
    assert receptive_field(Graph((x,), {"y": Node(GlobalAvgPool(), (x,))})) is None


def test_outputs_of_several_sizes() -> None:
    """Each output sees its own window; what they see together is not what one pixel sees."""
    x = Node.input("x", TensorType("float32", (1, 3, Dim.symbol("H"), Dim.symbol("W"))))
    weight = Node.const(np.ones((3, 3, 3, 3), np.float32))
    one = Node(Conv2d((2, 2), (1, 1, 1, 1)), (x, weight))
    two = Node(Conv2d((2, 2), (1, 1, 1, 1)), (one, weight))
    assert receptive_field(Graph((x,), {"one": one, "two": two})) == (7, 7)


def test_a_network_that_takes_some_sizes_only() -> None:
    x = Node.input("x", TensorType("float32", (1, 3, Dim.symbol("H"), Dim.symbol("W"))))
    small = Node(Conv2d((32, 32)), (x, Node.const(np.ones((3, 3, 1, 1), np.float32))))
    y = Node(Concat(1), (Node(Resize((32.0, 32.0)), (small,)), x))
    assert macs_per_pixel(Graph((x,), {"y": y})) == 9 / 32**2
