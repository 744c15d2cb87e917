"""Element-wise kernels of the llvm backend: every op, both layouts, chains."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvm_layers import BACKEND

from graphsr.backends.llvm.kernel import Call
from graphsr.backends.llvm.kernels.elementwise import MOST_OPERANDS
from graphsr.backends.llvm.kernels.elementwise_blocked import InBlocks
from graphsr.backends.llvm.kernels.elementwise_ops import FORMULAS
from graphsr.backends.llvm.kernels.elementwise_planar import merge_axes
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import OPS, Array, Op
from graphsr.ops import (
    Abs,
    Activation,
    Add,
    BatchNorm,
    Cast,
    Ceil,
    Clip,
    Conv2d,
    Div,
    Equal,
    Exp,
    Expand,
    Floor,
    Fused,
    Gelu,
    Greater,
    GreaterEqual,
    IsInf,
    IsNan,
    Less,
    LessEqual,
    Logistic,
    Maximum,
    Minimum,
    Mul,
    Neg,
    Pow,
    PRelu,
    Relu,
    Round,
    Shortcut,
    Sqrt,
    Sub,
    Tanh,
    Where,
)
from graphsr.testing import LAYERS, Case, GraphCase, arrays
from graphsr.testing.activation import ACTIVATIONS
from graphsr.testing.check import assert_agrees, layer_graph
from graphsr.testing.elementwise import broadcast_shapes

UNARY = sorted(
    name for name, kind in OPS.items() if kind in FORMULAS and not issubclass(kind, Activation) and name in LAYERS
)


def check(case: GraphCase) -> list[str]:
    """The graph on one thread is as the reference, on two it has the same bits; returns the kernels that ran."""
    one, two = (BACKEND.compile(case.graph, threads=n) for n in (1, 2))
    assert_agrees(one, case)
    first, second = one(case.inputs), two(case.inputs)
    for name, y in first.items():
        assert y.tobytes() == second[name].tobytes(), f"{name!r} differs between one thread and two\n{case}"
    return [f"{step.kernel}: {step.note}" for step in one.bind(case.shapes).steps()]


def is_float(case: GraphCase) -> bool:
    types = [node.type.dtype for node in case.graph.nodes()]
    return set(types) <= {"float32", "bool"}


@pytest.mark.parametrize("name", [*UNARY, *sorted(ACTIVATIONS)])
def test_every_op_is_as_its_forward(name: str) -> None:
    @settings(max_examples=12)
    @given(LAYERS[name](), st.booleans())
    def run(layer: Case, constant: bool) -> None:
        case = layer_graph(layer, constant)
        kernels = check(case)
        assert not is_float(case) or "forward" not in "".join(kernels), kernels

    run()


def values(size: int) -> st.SearchStrategy[Array]:
    """Any floats: NaN, infinities, zeros of both signs, denormal numbers."""
    some = st.lists(st.floats(width=32), min_size=1, max_size=24)
    return some.map(lambda drawn: np.resize(np.array(drawn, np.float32), size))


def assert_close(got: Array, op: Op, *inputs: Array) -> None:
    """NaN where `forward` has it, elsewhere within a few roundings of its value in float64 or float32."""
    with np.errstate(all="ignore"):
        want = op.forward(*inputs)
        exact = op.forward(*(x.astype(np.float64) for x in inputs))
        allowed = 10 * np.finfo(np.float32).eps * np.maximum(1, np.abs(exact))
        near = (got == want) | (np.abs(got - exact) <= allowed) | (got == exact.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=str(op))
    wrong = ~(near | np.isnan(want))
    assert not wrong.any(), f"{op} of {[x[wrong][:3] for x in inputs]} is {want[wrong][:3]}, got {got[wrong][:3]}"


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_of_any_float(name: str) -> None:
    @settings(max_examples=12)
    @given(ACTIVATIONS[name], st.integers(1, 70).flatmap(values))
    def run(op: Op, x: Array) -> None:
        node = Node.input("x", TensorType("float32", x.shape))
        graph = Graph((node,), {"y": Node(op, (node,), "layer")})
        assert_close(BACKEND.compile(graph)({"x": x})["y"], op, x)

    run()


@settings(max_examples=30)
@given(st.data())
def test_broadcasting_of_any_shapes(data: st.DataObject) -> None:
    """Two ops one after the other, the second one broadcasting the first."""
    a, b = data.draw(broadcast_shapes())
    x, y = (Node.input(name, TensorType("float32", shape)) for name, shape in (("x", a), ("y", b)))
    total = Node(Add(), (x, y), "sum")
    graph = Graph((x, y), {"z": Node(Mul(), (Node(Sub(), (total, y), "difference"), x), "product")})
    inputs = {"x": data.draw(arrays(a)), "y": data.draw(arrays(b))}
    kernels = check(GraphCase(graph, inputs))
    assert len(kernels) <= 1 + (total.type.shape != graph.outputs["z"].type.shape)


@given(broadcast_shapes())
def test_merged_axes_visit_the_same_elements(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape = np.broadcast_shapes(*shapes)
    outer, n, strides = merge_axes(shape, list(shapes))
    for given_shape, steps in zip(shapes, strides, strict=True):
        x = np.arange(prod(given_shape)).reshape(given_shape)
        grid = np.ix_(*(range(size) for size in (*outer, n)))
        places = sum(index * step for index, step in zip(grid, steps, strict=True))
        np.testing.assert_array_equal(x.ravel()[places].ravel(), np.broadcast_to(x, shape).ravel())


def conv(x: Node, weight: Array, name: str) -> Node:
    """A 3x3 convolution: what comes out of it is a blocked image."""
    return Node(Conv2d(padding=(1, 1, 1, 1)), (x, Node.const(weight, f"{name}.weight")), name)


@settings(max_examples=25)
@given(st.data(), st.sampled_from([1, 3, 8, 16, 25, 100]), st.integers(1, 2))
def test_blocked_images(data: st.DataObject, channels: int, batch: int) -> None:
    """Between two convolutions: the second one reads the halo and the lanes beyond the channels."""
    h, w = data.draw(st.sampled_from([(1, 1), (1, 13), (5, 7), (9, 18)]))

    def weight(co: int, ci: int) -> Array:
        return np.resize(data.draw(arrays((57,), 1 / (9 * ci))), (co, ci, 3, 3))

    def vector(*shape: int) -> Node:
        return Node.const(np.resize(data.draw(arrays((7,))), shape))

    x = Node.input("x", TensorType("float32", (batch, 2, h, w)))
    gate = Node.input("gate", TensorType("float32", (data.draw(st.sampled_from([1, batch])), channels, 1, 1)))
    a = conv(x, weight(channels, 2), "a")
    y = a
    for i in range(data.draw(st.integers(1, 4))):
        step = data.draw(st.integers(0, 7))
        y = [
            lambda y=y: Node(Tanh(), (y,)),
            lambda y=y: Node(Mul(), (y, gate)),
            lambda y=y: Node(Add(), (vector(channels, 1, 1), y)),
            lambda y=y: Node(PRelu(), (y, vector(channels))),
            lambda y=y: Node(Shortcut(0.5, 2.0), (a, y)),
            lambda y=y: Node(Fused(Sub(), Gelu(), Shortcut(0.5, 0.5)), (Node.const(np.float32(0.75)), y, y)),
            lambda y=y: Node(Where(), (Node(Greater(), (y, vector(1))), y, a)),
            lambda y=y: Node(Clip(-0.5, 1.0), (y,)),
        ][step]()
        y = Node(y.op, y.inputs, f"step{i}")
    z = conv(y, weight(3, channels), "z")
    shapes = {node: node.type.dims for node in (x, gate)}
    inputs = {n.name: np.resize(data.draw(arrays((31,))), shape) for n, shape in shapes.items()}
    kernels = check(GraphCase(Graph((x, gate), {"z": z, "y": y}), inputs))
    assert not any("forward" in kernel for kernel in kernels), kernels


def graph_of(*, channels: int = 16, height: int = 5, width: int = 7) -> GraphCase:
    """exp, max, batch normalisation and the logistic function after a convolution."""
    x = Node.input("x", TensorType("float32", (1, channels, height, width)))
    ones = np.ones(channels, np.float32)
    y = conv(x, np.full((channels, channels, 3, 3), 0.01, np.float32), "conv")
    y = Node(Maximum(), (Node(Exp(), (y,), "exp"), Node.const(ones.reshape(-1, 1, 1))), "maximum")
    y = Node(BatchNorm(0.1), (y, *map(Node.const, (ones, 0 * ones, 0.5 * ones, ones))), "norm")
    return GraphCase(Graph((x,), {"y": Node(Logistic(), (y,), "logistic")}), {"x": np.ones(x.type.dims, np.float32)})


def test_a_chain_is_one_loop() -> None:
    kernels = check(graph_of())
    assert sum("element-wise" in kernel for kernel in kernels) == 1
    assert any("exp, maximum, batch_norm, logistic" in kernel for kernel in kernels)


def test_another_size_needs_no_other_kernel() -> None:
    kernels = []
    for height, width in ((5, 7), (40, 33)):
        program = BACKEND.program(graph_of(height=height, width=width).graph, 1)
        calls = [work.step for work in program.plan.works if isinstance(work.step, Call)]
        kernels.append({call.kernel for call in calls if isinstance(call.kernel, InBlocks)})
    assert len(kernels[0]) == 1
    assert kernels[0] == kernels[1]


def test_a_value_that_others_read_is_written() -> None:
    x = Node.input("x", TensorType("float32", (3, 5)))
    e = Node(Exp(), (x,), "e")
    y = Node(Div(), (Node(Relu(), (e,), "r"), e), "y")
    case = GraphCase(Graph((x,), {"y": y}), {"x": np.linspace(-2, 2, 15, dtype=np.float32).reshape(3, 5)})
    assert len(check(case)) == 2


def test_a_chain_with_too_many_operands_is_cut() -> None:
    nodes = [Node.input(f"x{i}", TensorType("float32", (4, 9))) for i in range(3 * MOST_OPERANDS)]
    y = nodes[0]
    for i, node in enumerate(nodes[1:]):
        y = Node(Maximum() if i % 2 else Add(), (y, node), f"y{i}")
    inputs = {node.name: np.full((4, 9), i % 5, np.float32) for i, node in enumerate(nodes)}
    kernels = check(GraphCase(Graph(tuple(nodes), {"y": y}), inputs))
    assert 3 <= len(kernels) <= 4


def test_long_runs_are_cut_into_units() -> None:
    x = Node.input("x", TensorType("float32", (2, 3, 97, 131)))
    shift = Node.input("shift", TensorType("float32", (3, 1, 1)))
    graph = Graph((x, shift), {"y": Node(Add(), (Node(Tanh(), (x,), "t"), shift), "y")})
    values_ = np.linspace(-3, 3, prod(x.type.dims), dtype=np.float32).reshape(x.type.dims)
    check(GraphCase(graph, {"x": values_, "shift": np.array([1, 2, 3], np.float32).reshape(3, 1, 1)}))


def test_other_dtypes_run_through_forward_and_say_why() -> None:
    x = Node.input("x", TensorType("float64", (3,)))
    program = BACKEND.compile(Graph((x,), {"y": Node(Relu(), (x,), "y")})).bind({"x": (3,)})
    assert [step.note for step in program.steps()] == ["no kernel for relu of float64 to float64"]


LIMITS = {"int32": st.integers(-(2**31), 2**31 - 1), "int64": st.integers(-(2**63), 2**63 - 1)}
NUMBERS: dict[str, st.SearchStrategy[float]] = {**LIMITS, "float64": st.floats(), "float32": st.floats(width=32)}
TWO: tuple[Op, ...] = (
    Add(),
    Sub(),
    Mul(),
    Maximum(),
    Minimum(),
    Equal(),
    Greater(),
    GreaterEqual(),
    Less(),
    LessEqual(),
)
ONE: tuple[Op, ...] = (Neg(), Abs(), Expand((3, 1, 1)))
REAL: tuple[Op, ...] = (Div(), Sqrt(), Floor(), Ceil(), Round(), IsNan(), IsInf(), IsInf(negative=False))


def some(data: st.DataObject, dtype: str, shape: tuple[int, ...]) -> Array:
    drawn = data.draw(st.lists(NUMBERS[dtype], min_size=1, max_size=20))
    return np.resize(np.array(drawn, dtype), shape)


def assert_exact(op: Op, *arrays: Array, want: Array | None = None) -> None:
    """Every bit of `forward`, or of what is wanted, but for that of NaN, without a step that runs `forward`."""
    nodes = tuple(Node.input(f"x{i}", TensorType(x.dtype.name, x.shape)) for i, x in enumerate(arrays))
    graph = Graph(nodes, {"y": Node(op, nodes, "layer")})
    inputs = {node.name: x for node, x in zip(nodes, arrays, strict=True)}
    run = BACKEND.compile(graph, threads=2)
    assert "forward" not in run.explain({name: x.shape for name, x in inputs.items()})
    with np.errstate(all="ignore"):
        y = op.forward(*arrays) if want is None else want
        np.testing.assert_array_equal(run(inputs)["y"], y, err_msg=str(op))


@settings(max_examples=60)
@given(st.data(), broadcast_shapes(), st.sampled_from(["int32", "int64", "float64"]))
def test_other_numbers(data: st.DataObject, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: str) -> None:
    op = data.draw(st.sampled_from((*TWO, *ONE, *(REAL if dtype == "float64" else ()))))
    count = 2 if op in TWO or isinstance(op, Div) else 1
    assert_exact(op, *(some(data, dtype, shape) for shape in shapes[:count]))


@given(st.data(), st.sampled_from([*NUMBERS, "bool"]), st.sampled_from([*NUMBERS, "bool"]), st.integers(1, 40))
def test_casts(data: st.DataObject, source: str, target: str, size: int) -> None:
    """As each number alone: of floats that no integer can be, NumPy makes other integers in the middle of an array than
    at its end, on aarch64."""
    x = some(data, "int32" if source == "bool" else source, (size,))
    x = x > 0 if source == "bool" else x
    assert_exact(Cast(target), x, want=np.concatenate([Cast(target).forward(one) for one in np.split(x, size)]))


@given(st.data(), st.sampled_from(sorted(NUMBERS)), st.integers(1, 40))
def test_choices_of_other_numbers(data: st.DataObject, dtype: str, size: int) -> None:
    condition = some(data, "int32", (size,)) > 0
    assert_exact(Where(), condition, some(data, dtype, (2, size)), some(data, dtype, (1,)))


def test_powers_with_whole_exponents_of_another_dtype() -> None:
    x, exponents = np.array([-2, 0.5, 3], np.float32), np.array([3, -2, 0])
    for dtype in ("int32", "int64"):
        assert_exact(Pow(), x, exponents.astype(dtype))
