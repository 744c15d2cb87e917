"""Nodes and graphs: typed on construction, immutable, bound late."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from graphsr.backend import get_backend
from graphsr.dim import Dim
from graphsr.errors import GraphError, ShapeError
from graphsr.ir import Graph, Node, TensorType, replace_node
from graphsr.models import edsr
from graphsr.op import Op
from graphsr.ops import Conv2d, Relu, Reshape, Shortcut

N, H, W = (Dim.symbol(name) for name in "NHW")
IMAGE = TensorType("float32", (N, 3, H, W))


def conv(x: Node, co: int = 3, kernel: int = 3, name: str = "conv", origin: str = "a test") -> Node:
    weight = np.full((co, 3, kernel, kernel), 0.5, np.float32)
    return Node(Conv2d(), (x, Node.const(weight, f"{name}.weight")), name, origin)


def chain(length: int) -> Graph:
    x = node = Node.input("x", IMAGE)
    for _ in range(length):
        node = Node(Relu(), (node,))
    return Graph((x,), {"y": node})


class TestTypes:
    def test_a_wrong_type_names_node_origin_and_inputs(self) -> None:
        x = Node.input("x", TensorType("float32", (1, 4, 8, 8)))
        weight = Node.const(np.zeros((3, 5, 3, 3), np.float32))
        with pytest.raises(GraphError, match="input channels: expected 5, got 4") as error:
            Node(Conv2d(), (x, weight), "head", "EDSR: head.0")
        for part in ("conv2d 'head' (EDSR: head.0)", "float32[1, 4, 8, 8]", "float32[3, 5, 3, 3]"):
            assert part in str(error.value)

    @pytest.mark.parametrize("inputs", [0, 1, 4])
    def test_a_wrong_number_of_inputs(self, inputs: int) -> None:
        x = Node.input("x", IMAGE)
        with pytest.raises(GraphError, match="conv2d 'c'"):
            Node(Conv2d(), (x,) * inputs, "c")

    @pytest.mark.parametrize(
        "op",
        [
            Conv2d(stride=(1,)),  # type: ignore[arg-type]
            Conv2d(stride=()),  # type: ignore[arg-type]
            Conv2d(padding=None),  # type: ignore[arg-type]
            Conv2d(groups=0),
            Conv2d(algorithm=3),  # type: ignore[arg-type]
            Reshape(shape=("a",)),  # type: ignore[arg-type]
            Reshape(shape=3),  # type: ignore[arg-type]
        ],
        ids=str,
    )
    def test_whatever_a_file_gives_as_attribute(self, op: Op) -> None:
        """Attributes come from files: a value that a type rule trips over is an error of this node."""
        x, weight = Node.input("x", IMAGE), Node.const(np.zeros((3, 3, 3, 3), np.float32))
        inputs = (x, weight) if isinstance(op, Conv2d) else (x,)
        with pytest.raises(GraphError, match=f"{op.name} 'n' \\(file: 7\\)"):
            Node(op, inputs, "n", "file: 7")

    @pytest.mark.parametrize(("dtype", "shape"), [("float31", (1,)), ("float32", (1, -1))])
    def test_wrong_types_do_not_exist(self, dtype: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(GraphError):
            TensorType(dtype, shape)

    def test_open_sizes_are_not_numbers(self) -> None:
        assert not IMAGE.is_bound
        assert IMAGE.size == 3 * N * H * W
        for read in (lambda: IMAGE.dims, lambda: IMAGE.nbytes):
            with pytest.raises(GraphError, match="bind the graph first"):
                read()

    def test_bytes_do_not_wrap(self) -> None:
        assert TensorType("float64", (2**40, 2**40)).nbytes == 2**83


class TestImmutability:
    def test_nothing_is_assigned(self) -> None:
        graph = chain(1)
        for thing in (graph, *graph.nodes(), graph.inputs[0].op):
            for field in dataclasses.fields(thing):  # type: ignore[arg-type]
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(thing, field.name, None)
        with pytest.raises(TypeError):
            graph.outputs["y"] = graph.inputs[0]  # type: ignore[index]

    def test_constants_are_read_only_views(self) -> None:
        array = np.ones(3, np.float32)
        node = Node.const(array)
        with pytest.raises(ValueError, match="read-only"):
            node.value[0] = 2
        array[0] = 2  # the caller's own array stays writeable
        with pytest.raises(GraphError, match="input 'x' is not a constant"):
            _ = Node.input("x", IMAGE).value


class TestGraph:
    def test_order_is_inputs_first_and_each_after_its_inputs(self) -> None:
        x, unused = Node.input("x", IMAGE), Node.input("unused", IMAGE)
        a = conv(x, name="a")
        b = Node(Shortcut(), (a, conv(x, name="b")))
        nodes = list(Graph((unused, x), {"b": b, "a": a, "again": b}).nodes())
        assert nodes[:2] == [unused, x]
        assert len(set(nodes)) == len(nodes) == 7
        for i, node in enumerate(nodes):
            assert set(node.inputs) <= set(nodes[:i])

    def test_long_chains_need_no_stack(self) -> None:
        graph = chain(5000)
        assert len(list(graph.nodes())) == 5001
        assert graph.bind({"x": (1, 3, 2, 2)}).outputs["y"].type.dims == (1, 3, 2, 2)

    def test_map_returns_the_same_graph_when_nothing_changes(self) -> None:
        graph = chain(3)
        assert graph.map(lambda old, new: new) is graph

    def test_map_shares_what_did_not_change(self) -> None:
        x = Node.input("x", IMAGE)
        a, b = conv(x, name="a"), conv(x, name="b")
        graph = Graph((x,), {"a": a, "b": b})
        mapped = graph.map(lambda old, new: Node(Relu(), (new,)) if old is b else new)
        assert mapped.outputs["a"] is a
        assert mapped.outputs["b"].inputs == (b,)

    def test_map_sees_rebuilt_inputs_and_keeps_names(self) -> None:
        x = Node.input("x", IMAGE)
        a = conv(x, name="a")
        graph = Graph((x,), {"y": Node(Relu(), (a,), "act", "line 2")})

        def widen(old: Node, new: Node) -> Node:
            return conv(x, co=5, name="a") if old is a else new

        y = graph.map(widen).outputs["y"]
        assert (y.name, y.origin, y.type.shape[1]) == ("act", "line 2", 5)

    def test_uses_count_readers_and_outputs(self) -> None:
        x = Node.input("x", IMAGE)
        y = Node(Shortcut(), (x, x))
        uses = Graph((x,), {"y": y, "again": y, "x": x}).uses()
        assert (uses[x], uses[y]) == (3, 2)

    def test_astype(self) -> None:
        x = Node.input("x", IMAGE)
        graph = Graph((x,), {"y": conv(x)}).astype("float64")
        assert {node.type.dtype for node in graph.nodes()} == {"float64"}
        assert graph.astype("float64") is graph

    def test_replace_node_keeps_name_and_origin(self) -> None:
        x = Node.input("x", IMAGE, "file")
        assert replace_node(Node(Relu(), (x,), "r", "o"), inputs=(x,)).where() == "relu 'r' (o)"


class TestBinding:
    def test_sizes_reach_types_and_attributes(self) -> None:
        x = Node.input("x", IMAGE)
        flat = Node(Reshape((N, 3 * H * W)), (x,))
        bound = Graph((x,), {"y": conv(x), "flat": flat}).bind({"x": (2, 3, 5, 7)})
        assert bound.outputs["y"].type.dims == (2, 3, 3, 5)
        assert bound.outputs["flat"].type.dims == (2, 105)
        assert bound.outputs["flat"].op == Reshape((2, 105))

    def test_a_bound_graph_is_itself(self) -> None:
        bound = chain(2).bind({"x": (2, 3, 5, 7)})
        assert bound.bind({"x": (2, 3, 5, 7)}) is bound

    @pytest.mark.parametrize(
        ("shapes", "words"),
        [
            ({}, "inputs are named"),
            ({"x": (1, 3, 4, 4), "z": (1,)}, "inputs are named"),
            ({"x": (3, 4, 4)}, r"expected float32\[N, 3, H, W\], got shape \(3, 4, 4\)"),
            ({"x": (1, 4, 4, 4)}, "3 cannot be 4"),
            ({"x": (0, 3, 4, 4)}, "N cannot be 0"),
            ({"x": (1, 3, 2, 4)}, "do not fit this network: conv2d 'conv'.*too small"),
        ],
    )
    def test_shapes_that_do_not_fit(self, shapes: dict[str, tuple[int, ...]], words: str) -> None:
        x = Node.input("x", IMAGE)
        with pytest.raises(ShapeError, match=words):
            Graph((x,), {"y": conv(x)}).bind(shapes)

    def test_one_size_has_one_value(self) -> None:
        a, b = Node.input("a", TensorType("float32", (H, W))), Node.input("b", TensorType("float32", (H, 2 * W)))
        graph = Graph((a, b), {"y": a})
        assert graph.solve({"a": (2, 3), "b": (2, 6)}) == {"H": 2, "W": 3}
        with pytest.raises(ShapeError, match=r"input 'b'.*H cannot be 3"):
            graph.solve({"a": (2, 3), "b": (3, 6)})
        with pytest.raises(ShapeError, match=r"input 'b'.*2\*W cannot be 7"):
            graph.solve({"a": (2, 3), "b": (2, 7)})

    def test_sizes_that_follow_from_a_later_input(self) -> None:
        b, a = Node.input("b", TensorType("float32", (H, 2 * W))), Node.input("a", TensorType("float32", (H, W)))
        assert Graph((b, a), {"y": a}).solve({"a": (2, 3), "b": (2, 6)}) == {"H": 2, "W": 3}
        with pytest.raises(ShapeError, match=r"2\*W cannot be 7"):
            Graph((b, a), {"y": a}).solve({"a": (2, 3), "b": (2, 7)})

    def test_sizes_that_do_not_follow(self) -> None:
        x = Node.input("x", TensorType("float32", (2 * H, 3)))
        with pytest.raises(ShapeError, match=r"2\*H"):
            Graph((x,), {"y": x}).solve({"x": (4, 3)})


def test_a_size_zero_output_is_refused_or_empty_but_never_wrong() -> None:
    """Batch 0 is no batch: the shapes of a call are positive."""
    with pytest.raises(ShapeError):
        get_backend("reference").compile(chain(1))({"x": np.zeros((0, 3, 2, 2), np.float32)})


def test_repr_is_short_however_deep_the_graph() -> None:
    """Every node reaches all before it, so that a repr of the fields would grow without bound."""
    model = edsr(scale=2, blocks=32, features=4)
    run = model.compile("numpy", threads=1)
    program = run.bind({"input": (1, 3, 8, 8)})
    for thing in (model, model.graph, model.graph.outputs["output"], run, program):
        assert len(repr(thing)) < 500
    assert repr(model).startswith("<Model EDSR x2")
