"""What is legal in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Op
from graphsr.ops import Relu
from graphsr.verify import verify

TYPE = TensorType("float32", (1, 3, 4, 4))


def test_a_graph_of_known_ops_is_legal() -> None:
    x, unused = Node.input("x", TYPE), Node.input("unused", TYPE)
    verify(Graph((x, unused), {"y": Node(Relu(), (x,)), "same": x}))


def test_outputs_are_needed() -> None:
    with pytest.raises(GraphError, match="at least one output"):
        verify(Graph((Node.input("x", TYPE),), {}))


@pytest.mark.parametrize("names", [("x", "x"), ("x", "")])
def test_inputs_are_told_apart_by_name(names: tuple[str, str]) -> None:
    a, b = (Node.input(name, TYPE) for name in names)
    with pytest.raises(GraphError, match="distinct, non-empty names"):
        verify(Graph((a, b), {"y": a}))


def test_inputs_are_input_nodes() -> None:
    x = Node.input("x", TYPE)
    y = Node(Relu(), (x,), "act", "file: line 3")
    with pytest.raises(GraphError, match=r"relu 'act' \(file: line 3\) is listed as an input"):
        verify(Graph((y,), {"y": y}))


def test_every_input_is_declared() -> None:
    x, other = Node.input("x", TYPE), Node.input("other", TYPE)
    with pytest.raises(GraphError, match="input 'other' is read but is not among the graph's inputs"):
        verify(Graph((x,), {"y": Node(Relu(), (other,))}))


@dataclass(frozen=True, slots=True)
class Foreign(Op):
    """An op that was never entered in the table."""

    def infer(self, x: TensorType) -> TensorType:
        return x


def test_ops_are_in_the_table() -> None:
    Foreign.name = "foreign"
    x = Node.input("x", TYPE)
    with pytest.raises(GraphError, match="op 'foreign' is not in the table"):
        verify(Graph((x,), {"y": Node(Foreign(), (x,))}))


def test_types_are_those_of_the_type_rules() -> None:
    """A node is typed on construction, but an op that is not a pure function could give two types."""
    x = Node.input("x", TYPE)
    y = Node(Relu(), (x,), "act")
    object.__setattr__(y, "type", TensorType("float32", (9,)))
    with pytest.raises(GraphError, match=r"relu 'act' has type float32\[9\], its op gives float32\[1, 3, 4, 4\]"):
        verify(Graph((x,), {"y": y}))
