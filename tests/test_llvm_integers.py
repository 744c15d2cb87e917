"""Remainders, and floats as integers, in the llvm backend: every bit as NumPy has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Cast, Mod
from graphsr.testing.elementwise import broadcast_shapes

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, several, through_blocks

INTEGERS = {dtype: st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in ("int32", "int64")}
FEW = st.sampled_from([0, 1, -1, 2, -7, 10])
EDGES = st.sampled_from([0.0, -0.0, 2.0**31, -(2.0**31), 2.0**63, -(2.0**63), np.inf, -np.inf, np.nan, 2.0**31 - 0.5])


def assert_same_bits(op: Op, *arrays: Array) -> None:
    """But for those of NaN."""
    nodes = tuple(Node.input(f"x{i}", TensorType(x.dtype.name, x.shape)) for i, x in enumerate(arrays))
    graph = Graph(nodes, {"y": Node(op, nodes, "layer")})
    inputs = {node.name: x for node, x in zip(nodes, arrays, strict=True)}
    with np.errstate(all="ignore"):
        want = op.forward(*arrays)
    for threads in (1, 2):
        run = BACKEND.compile(graph, threads=threads)
        assert "forward" not in run.explain({name: x.shape for name, x in inputs.items()})
        y = run(inputs)["y"]
        np.testing.assert_array_equal(y, want, err_msg=str(op))
        if y.dtype.kind == "f":
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(y[numbers]), np.signbit(want[numbers]), err_msg=str(op))


def drawn(data: st.DataObject, dtype: str, values: st.SearchStrategy[float], shape: tuple[int, ...]) -> Array:
    return np.resize(np.array(data.draw(st.lists(values, min_size=1, max_size=30)), dtype), shape)


@several
@given(st.data(), broadcast_shapes(), st.booleans())
def test_remainders_of_any_floats(
    data: st.DataObject, shapes: tuple[tuple[int, ...], tuple[int, ...]], truncated: bool
) -> None:
    """Also where the quotient has far more digits than a float: 1e38 mod 1e-45."""
    a, b = (drawn(data, "float32", st.floats(width=32) | st.floats(-9, 9, width=32), shape) for shape in shapes)
    assert_same_bits(Mod(truncated), a, b)


@several
@given(st.data(), st.booleans(), st.integers(-120, 120))
def test_remainders_of_multiples(data: st.DataObject, truncated: bool, exponent: int) -> None:
    """Next to a multiple of the divisor, where a rounded quotient is one too large."""
    factors = drawn(data, "float32", st.integers(1, 2**24), (40,))
    with np.errstate(over="ignore", under="ignore"):
        divisors = drawn(data, "float32", st.integers(1, 2**24), (40,)) * np.float32(2.0**exponent)
        multiples = factors * divisors
        for near in (multiples, np.nextafter(multiples, np.float32(0)), -multiples):
            assert_same_bits(Mod(truncated), near, divisors)


@several
@given(st.data(), broadcast_shapes(), st.booleans(), st.sampled_from(sorted(INTEGERS)))
def test_remainders_of_integers(
    data: st.DataObject, shapes: tuple[tuple[int, ...], tuple[int, ...]], truncated: bool, dtype: str
) -> None:
    """Modulo 0 as well, and the least integer modulo −1, which is a trap for processors."""
    least = st.just(int(np.iinfo(dtype).min))
    assert_same_bits(Mod(truncated), *(drawn(data, dtype, INTEGERS[dtype] | FEW | least, shape) for shape in shapes))


@several
@given(st.data(), st.sampled_from(["float32", "float64"]), st.sampled_from(sorted(INTEGERS)), st.integers(1, 70))
def test_casts_of_any_floats(data: st.DataObject, source: str, target: str, size: int) -> None:
    """What is too large, and NaN, become what NumPy makes of them on this machine."""
    values = st.floats(width=32) | st.floats(-1e10, 1e10) | EDGES
    assert_same_bits(Cast(target), drawn(data, source, values, (size,)))


def test_remainders_in_blocks() -> None:
    """Lanes beyond the channels stay zero, though 0 mod 0 is NaN: a later layer would show it."""
    x = Node.input("x", TensorType("float32", (1, 20, 3, 5)))
    remainders = Node(Mod(), (through_blocks(x), through_blocks(x)), "remainders")
    graph = Graph((x,), {"y": through_blocks(remainders)})
    values = np.arange(1, 301, dtype=np.float32).reshape(1, 20, 3, 5)
    run = BACKEND.compile(graph)
    assert "element-wise in blocks" in run.explain({"x": values.shape})
    np.testing.assert_array_equal(run({"x": values})["y"], np.zeros_like(values))


def test_remainders_of_float64_run_through_forward() -> None:
    x = Node.input("x", TensorType("float64", (3,)))
    (step,) = BACKEND.compile(Graph((x,), {"y": Node(Mod(), (x, x), "layer")})).bind({"x": (3,)}).steps()
    assert step.note == "no kernel for mod of float64, float64 to float64"
