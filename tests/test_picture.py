"""The picture of a graph is well-formed SVG that names every layer, whatever its names hold."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from graphsr.ir import Graph, Node, TensorType
from graphsr.models import edsr
from graphsr.ops import Conv2d, Relu


def test_names_are_escaped_and_shown() -> None:
    x = Node.input("<x> & 'y'", TensorType("float32", (1, 3, 8, 8)))
    weight = Node.const(np.zeros((3, 3, 3, 3), np.float32), "w")
    y = Node(Relu(), (Node(Conv2d(), (x, weight), name='a"b'),))
    graph = Graph((x,), {"<out>": y})
    text = " ".join(ElementTree.fromstring(graph._repr_html_()).itertext())
    for shown in ("<x> & 'y'", 'a"b', "relu", "conv2d", "→ <out>", "w : float32[3, 3, 3, 3]"):
        assert shown in text


def test_a_network_of_many_layers() -> None:
    model = edsr(scale=2, blocks=16, features=4)
    root = ElementTree.fromstring(model._repr_html_())
    boxes = list(root.iter("{http://www.w3.org/2000/svg}g"))
    assert len(boxes) == sum(not node.is_const for node in model.graph.nodes())


def test_an_output_that_is_an_input() -> None:
    x = Node.input("x", TensorType("float32", (1, 3, 8, 8)))
    assert "→ same" in Graph((x,), {"same": x})._repr_html_()
