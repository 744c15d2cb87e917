"""The type rules on open sizes: bound later, they say the same as when all sizes are known at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.dim import Dim, Size, substitute
from graphsr.errors import GraphError, ShapeError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import OPS, Op
from graphsr.ops import AvgPool2d, Concat, MaxPool2d, Reshape, Resize, Slice, SpaceToDepth
from graphsr.testing import LAYERS, Case

from support import SPATIAL_FAMILIES

H, W = Dim.symbol("H"), Dim.symbol("W")

NAMES = sorted(
    name
    for name, op in OPS.items()
    if op.__module__.rsplit(".", 1)[-1] in SPATIAL_FAMILIES
    and name != "expand"  # an open size is taken to differ from numbers
)


def opened(case: Case) -> tuple[tuple[TensorType, ...], dict[str, Size]]:
    """The types of a case with height and width open, equal sizes under one name, and the sizes by name. Only the
    first input is an image for sure, and all of them where they are joined."""
    types = list(case.types)
    sizes: dict[str, Size] = {}
    for i in range(len(types) if isinstance(case.op, Concat) else 1):
        (n, c, *image) = types[i].dims
        sizes.update({f"S{size}": size for size in image})
        types[i] = TensorType(types[i].dtype, (n, c, *(Dim.symbol(f"S{size}") for size in image)))
    return tuple(types), sizes


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_binding_commutes_with_the_type_rule(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    bound = case.op.infer(*case.types)
    if case.types[0].rank != 4 or 0 in bound.dims:
        return  # not an image; or an empty slice, and while sizes are open it is taken that something is left
    types, sizes = opened(case)
    output = case.op.infer(*types)
    assert output.substitute(sizes) == bound
    case.op.needs(0, 0, 2, *types)
    if getattr(case.op, "size", None) is None:  # antialiasing to a given size needs to know the size it comes from
        assert substitute(case.op.macs(types, output), sizes) == case.op.macs(case.types, bound)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (MaxPool2d((2, 2), (2, 2)), (H // 2, W // 2)),
        (MaxPool2d((2, 2), (2, 2), ceil_mode=True), ((H + 1) // 2, (W + 1) // 2)),
        (AvgPool2d((3, 3), padding=(1, 1, 1, 1)), (H, W)),
        (SpaceToDepth(2), (H // 2, W // 2)),
        (Resize((2.0, 3.0)), (2 * H, 3 * W)),
        (Resize((1.5, 1 / 3)), (3 * H // 2, W // 3)),
        (Resize(size=(4 * H, W + 1)), (4 * H, W + 1)),
        (Slice((2, 1), (-2, None), (2, 3), (1, 2)), (H - 4, W // 2)),
        (Slice((None, None), (None, None), (2, 3), (-1, 2)), (H, (W + 1) // 2)),
        (Slice((0, 0), (H - 1, 2 * W), (2, 3), (1, 1)), (H - 1, 2 * W)),
    ],
)
def test_open_sizes_stay_simple(op: Op, expected: tuple[Size, Size]) -> None:
    assert op.infer(TensorType("float32", (1, 4, H, W))).shape[2:] == expected


def test_reshape_finds_an_open_size() -> None:
    x = TensorType("float32", (2, 3, H, W))
    assert Reshape((2, -1)).infer(x).shape == (2, 3 * H * W)
    assert Reshape((-1, H, W)).infer(x).shape == (6, H, W)
    assert Reshape((2, 3, H * W)).infer(x).shape == (2, 3, H * W)


@pytest.mark.parametrize("op", [SpaceToDepth(2), Reshape((-1, 2)), MaxPool2d((4, 4))])
def test_binding_checks_what_was_open(op: Op) -> None:
    x = Node.input("x", TensorType("float32", (1, 1, H, W)))
    graph = Graph((x,), {"y": Node(op, (x,))})
    graph.bind({"x": (1, 1, 10, 10)})
    with pytest.raises(ShapeError):
        graph.bind({"x": (1, 1, 3, 3)})


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (Reshape((4, -1)), (1, 6), "elements"),
        (Reshape((-1, -1)), (1, 6), "at most one"),
        (Reshape((0, -1)), (1, 6), "no answer"),
        (SpaceToDepth(2), (1, 1, 3, 4), "multiple of 2"),
        (MaxPool2d((2, 2), padding=(2, 0, 0, 0)), (1, 1, 4, 4), "padding 2"),
        (MaxPool2d((5, 1)), (1, 1, 4, 4), "too small"),
        (Resize((0.1, 1.0)), (1, 1, 4, 4), "too small"),
        (Resize((float("inf"), 1.0)), (1, 1, 4, 4), "finite"),
        (Concat(4), (1, 1, 4, 4), "axis 4"),
        (Slice((0,), (1,), (0, 1), (1,)), (4, 4), "equally many"),
    ],
)
def test_refusals_say_why(op: Op, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer(TensorType("float32", shape))
