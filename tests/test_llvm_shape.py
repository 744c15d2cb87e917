"""Ops of the llvm backend that move elements: every strategy of the suite, larger images, and what needs no copy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import Concat, Pad, PadNd, Relu, Reshape, Slice, Split, Transpose
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, layer_case, several, through_blocks

MOVES = ("concat", "pad", "reshape", "slice", "split", "transpose")


@pytest.mark.parametrize("name", MOVES)
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    if case.forward().size:
        assert_has_kernel(layer_graph(case, constant=False))


@several
@given(st.data(), st.permutations(range(4)), st.tuples(*[st.sampled_from(SIZES)] * 4))
def test_transpose(data: st.DataObject, axes: list[int], shape: tuple[int, ...]) -> None:
    assert_has_kernel(layer_case(data.draw, Transpose(tuple(axes)), shape))


@several
@given(st.data(), st.booleans(), st.lists(st.sampled_from([3, 16, 16, 25, 32]), min_size=1, max_size=4))
def test_concat_of_channels(data: st.DataObject, blocked: bool, channels: list[int]) -> None:
    n, h, w = data.draw(st.integers(1, 2)), *(data.draw(st.sampled_from(SIZES)) for _ in range(2))
    blocked = blocked and min(channels) >= 8
    assert_has_kernel(layer_case(data.draw, Concat(1), *((n, c, h, w) for c in channels), blocked=blocked))


@several
@given(st.data(), st.booleans(), st.sampled_from([(16, 0), (32, 16), (20, 16), (7, 3)]), st.sampled_from([1, -2]))
def test_cuts_of_channels(data: st.DataObject, blocked: bool, cut: tuple[int, int], step: int) -> None:
    size, start = cut
    shape = (2, start + size, data.draw(st.sampled_from(SIZES)), data.draw(st.sampled_from(SIZES)))
    slice_ = Slice((start, None), (None, None), (1, 3), (1, step))
    op = data.draw(st.sampled_from([slice_, Split(1, (start, size) if start else (size,), int(start > 0))]))
    assert_has_kernel(layer_case(data.draw, op, shape, blocked=blocked and shape[1] >= 8))


@several
@given(st.data(), st.sampled_from(["constant", "edge", "reflect"]), st.tuples(*[st.sampled_from([0, 1, 3, 17])] * 4))
def test_pad(data: st.DataObject, mode: str, padding: tuple[int, int, int, int]) -> None:
    h, w = (max(padding[a], padding[a + 2]) + data.draw(st.sampled_from(SIZES)) for a in (0, 1))
    assert_has_kernel(layer_case(data.draw, Pad(padding, mode, 0.5), (2, 3, h, w)))


@several
@given(
    st.data(),
    st.sampled_from(["constant", "edge", "reflect", "wrap"]),
    st.tuples(*[st.sampled_from([0, 1, 3, 17])] * 4),
)
def test_pad_of_any_width(data: st.DataObject, mode: str, padding: tuple[int, int, int, int]) -> None:
    """Mirrored and repeated as often as it takes."""
    h, w = (data.draw(st.sampled_from(SIZES)) for _ in "hw")
    top, left, bottom, right = padding
    assert_has_kernel(layer_case(data.draw, PadNd((0, 0, top, left, 0, 0, bottom, right), mode, 0.5), (2, 3, h, w)))


def dense_block(shape: tuple[int, ...]) -> Graph:
    """concat(concat(a, reshape(b)), a', slice of the first): parts of parts, and views of them."""
    x = Node.input("x", TensorType("float32", shape))
    a, b = Node(Relu(), (x,), "a"), Node(Reshape(shape), (Node(Relu(), (x,), "b"),), "b view")
    first = Node(Concat(0), (a, b), "first")
    part = Node(Slice((shape[0] + 1,), (None,), (0,), (1,)), (first,), "part")
    second = Node(Concat(0), (first, Node(Relu(), (a,), "c"), part, x), "second")
    return Graph((x,), {"all": second, "again": Node(Relu(), (part,), "d")})


@several
@given(st.data())
def test_parts_of_parts(data: st.DataObject) -> None:
    shape = (3, *(data.draw(st.sampled_from(SIZES)) for _ in range(3)))
    case = layer_case(data.draw, Relu(), shape)
    assert_has_kernel(GraphCase(dense_block(shape), {"x": case.inputs["x0"]}))


def test_concat_side_by_side_copies_nothing_that_is_computed_here() -> None:
    x = Node.input("x", TensorType("float32", (1, 2, 5, 7)))
    parts = tuple(Node(Relu(), (x,), f"part {i}") for i in range(3))
    run = BACKEND.compile(Graph((x,), {"y": Node(Concat(1), parts, "join")}))
    assert "move" not in run.explain({"x": (1, 2, 5, 7)})
    y = run({"x": np.full((1, 2, 5, 7), 3, np.float32)})["y"]
    np.testing.assert_array_equal(y, np.full((1, 6, 5, 7), 3, np.float32))


def test_whole_blocks_stay_in_blocks() -> None:
    x = Node.input("x", TensorType("float32", (1, 32, 5, 7)))
    block = through_blocks(x)
    joined = Node(Concat(1), (block, Node(Split(1, (16, 16), 1), (block,), "half")), "join")
    run = BACKEND.compile(Graph((x,), {"y": through_blocks(joined)}))
    explained = run.explain({"x": (1, 32, 5, 7)})
    assert explained.count("move blocks") == 3
    assert explained.count("to planar") == 1
