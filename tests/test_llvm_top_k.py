"""The k largest and smallest in the llvm backend: every bit as NumPy has them, with ties, zeros of both signs, NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import TopK
from graphsr.testing import LAYERS
from graphsr.testing.cases import Case
from graphsr.testing.check import layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, several

from graphsr.backends.llvm.kernels.top_k import FEW, FEW_WIDE, ROOM

FEW_VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, np.nan])
VALUES = st.lists(FEW_VALUES | st.floats(width=32), min_size=1, max_size=60)
OUTPUTS = ("values", "indices")


def assert_as_forward(x: Array, k: int, axis: int, largest: bool, outputs: tuple[str, ...]) -> None:
    """Bit by bit, for several numbers of threads, with the outputs in one graph; nothing runs through `forward`."""
    node = Node.input("x", TensorType("float32", x.shape))
    ops = {output: TopK(k, axis, largest, output) for output in outputs}
    graph = Graph((node,), {output: Node(op, (node,), output) for output, op in ops.items()})
    for threads in (1, 2, 3):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({"x": x.shape})
        got = run({"x": x})
        for output, op in ops.items():
            want = op.forward(x)
            assert got[output].tobytes() == want.tobytes(), f"{op}: {got[output]} is not {want}"


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    case = data.draw(LAYERS["top_k"]())
    if case.forward().size:
        assert isinstance(case.op, TopK)
        assert_as_forward(case.inputs[0], case.op.k, case.op.axis, case.op.largest, (case.op.output,))


def test_nothing_and_other_types_run_through_forward() -> None:
    for x, k, reason in ((np.ones(3, np.float32), 0, "nothing to compute"), (np.ones(3), 2, "only float32")):
        graph = layer_graph(Case(TopK(k), (x,)), constant=False)
        (step,) = BACKEND.compile(graph.graph).bind(graph.shapes).steps()
        assert reason in step.note


@several
@given(st.data(), st.lists(st.sampled_from(SIZES), min_size=1, max_size=3), st.booleans())
def test_ties_zeros_and_nan(data: st.DataObject, shape: list[int], largest: bool) -> None:
    x = np.resize(np.array(data.draw(VALUES), np.float32), shape)
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    k = data.draw(st.integers(1, x.shape[axis]))
    outputs = data.draw(st.sampled_from([OUTPUTS, OUTPUTS[:1], OUTPUTS[1:]]))
    assert_as_forward(x, k, axis, largest, outputs)


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
@pytest.mark.parametrize("k", [1, FEW, FEW + 1, ROOM, 3 * ROOM])
@pytest.mark.parametrize("largest", [True, False])
def test_long_rows(order: str, k: int, largest: bool) -> None:
    """Lists that are sorted again and again, never, and of all there is; of every value two, in places far apart."""
    rising = np.repeat(np.arange(-2500, 2500, dtype=np.float32), 2)
    x = {"rising": rising, "falling": rising[::-1], "mixed": np.arange(5000, dtype=np.float32) * 1031 % 2503}[order]
    assert_as_forward(np.stack([x, -x]), k, -1, largest, OUTPUTS)


def test_columns_of_a_long_axis() -> None:
    x = (np.arange(3 * 200 * 37, dtype=np.float32) * 1031 % 997).reshape(3, 200, 37)
    for k in (5, FEW_WIDE, FEW_WIDE + 1, 200):
        assert_as_forward(x, k, 1, True, OUTPUTS)


def test_values_and_indices_are_one_step() -> None:
    x = Node.input("x", TensorType("float32", (4, 50)))
    graph = Graph((x,), {output: Node(TopK(5, output=output), (x,), output) for output in OUTPUTS})
    assert len(BACKEND.compile(graph).bind({"x": (4, 50)}).steps()) == 1
