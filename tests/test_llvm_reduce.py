"""Reductions of the llvm backend: any axes, long and short, and global pools in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import (
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    L2Norm,
    LogSoftmax,
    ReduceL2,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    Softmax,
)
from graphsr.ops.reduce import Reduction
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, CHANNELS, SIZES, assert_has_kernel, layer_case, several, with_nans

from graphsr.backends.llvm.anticipate import kernels_of_all_sizes
from graphsr.backends.llvm.kernel import Call
from graphsr.backends.llvm.kernels.reduce import CHUNK, FEW_ROWS, FORMULAS, LONG_ROW, PART
from graphsr.backends.llvm.plan import Planner
from graphsr.backends.llvm.target import host
from graphsr.backends.weights import WeightCache

KINDS = [kind for kind in FORMULAS if issubclass(kind, Reduction)]
NAMES = [kind.name for kind in FORMULAS]


@st.composite
def reductions(draw: st.DrawFn) -> GraphCase:
    shape = tuple(draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=5)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), unique=True))
    return layer_case(draw, draw(st.sampled_from(KINDS))(tuple(axes), draw(st.booleans())), shape)


@pytest.mark.parametrize("name", NAMES)
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = data.draw(LAYERS[name]())
    if case.op.infer(*case.types) != case.types[0]:
        assert_has_kernel(layer_graph(case, constant=False))


@several
@given(reductions())
def test_any_axes(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case))


@several
@given(
    st.data(),
    st.sampled_from(
        [
            GlobalAvgPool(),
            GlobalMaxPool(),
            ReduceMax((2, 3)),
            ReduceSum((2, 3), False),
            ReduceL2((2, 3)),
            ReduceMin((2, 3)),
        ]
    ),
)
def test_in_blocks(data: st.DataObject, op: Op) -> None:
    channels = data.draw(st.sampled_from([c for c in CHANNELS if c >= 8]))
    shape = (
        data.draw(st.integers(1, 2)),
        channels,
        data.draw(st.sampled_from(SIZES)),
        data.draw(st.sampled_from(SIZES)),
    )
    assert_has_kernel(layer_case(data.draw, op, shape, blocked=True))


LONG = st.builds(int.__add__, st.sampled_from([LONG_ROW, LONG_ROW + PART]), st.sampled_from([-1, 0, 1, 17, PART // 2]))
EPS = float(np.finfo(np.float32).eps)


@several
@given(st.data(), st.sampled_from(KINDS), st.sampled_from([1, 2, FEW_ROWS]), LONG)
def test_long_rows(data: st.DataObject, kind: type[Reduction], rows: int, size: int) -> None:
    """Of numbers near 1, whose product neither overflows nor vanishes, with and without NaN."""
    x = 1 + data.draw(repeated((rows, size))) / np.float32(2048 * 1024)
    assert_accurate_on_any_threads(kind((1,)), x)
    x[:: rows + 1, data.draw(st.integers(0, size - 1))] = np.nan
    assert_accurate_on_any_threads(kind((1,)), x)


def assert_accurate_on_any_threads(op: Reduction, x: Array) -> None:
    """The bound is that of sums in chunks; every factor of a product, however, adds its rounding."""
    node = Node.input("x0", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(op, (node,), "y")})
    one, two, three = (BACKEND.compile(graph, threads=n)({"x0": x})["y"] for n in (1, 2, 3))
    assert one.tobytes() == two.tobytes() == three.tobytes()
    bound = EPS * (x.shape[1] if isinstance(op, ReduceProd) else 2 * CHUNK)
    np.testing.assert_allclose(one, op.forward(x.astype(np.float64)), rtol=bound, atol=bound)


@pytest.mark.parametrize(
    "op",
    [
        *(kind((1, 2)) for kind in KINDS),
        Softmax(2, 0.5),
        LogSoftmax(2),
        ReduceLogSumExp((2,)),
        GroupNorm(1),
        L2Norm((1, 2)),
    ],
)
def test_long_rows_need_no_new_machine_code(op: Op) -> None:
    """The sizes that a network is planned for in advance have short rows."""
    node, one = Node.input("x", TensorType("float32", (2, 1, Dim.symbol("W")))), Node.const(np.ones(1, np.float32))
    parameters = (one, one) if isinstance(op, GroupNorm) else ()
    graph, target = Graph((node,), {"y": Node(op, (node, *parameters), "y")}), host()
    works = Planner(graph.bind({"x": (2, 1, LONG_ROW)}), target, 2, WeightCache(), lambda _: None, keep=0).plan().works
    needed = {work.step.kernel for work in works if isinstance(work.step, Call)}
    assert len(works) > 1
    assert needed <= kernels_of_all_sizes(graph, target, 2, WeightCache(), keep=0)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_long_sums_keep_their_accuracy(axes: tuple[int, ...]) -> None:
    """The bound is that of a sum of chunks and of a sum of their sums, far below that of a sum of millions."""
    x = np.full((1500, 2000), 1.1, np.float32)
    node = Node.input("x0", TensorType("float32", x.shape))
    graph = Graph((node,), {"y": Node(ReduceMean(axes), (node,), "mean")})
    y = BACKEND.compile(graph, threads=2)({"x0": x})["y"]
    np.testing.assert_allclose(y, np.float32(1.1), rtol=2 * CHUNK * float(np.finfo(np.float32).eps))
