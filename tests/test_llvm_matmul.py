"""Matrix products of the llvm backend: sizes around rows, vectors and panels, batches, vectors, and long sums."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import MatMul
from graphsr.testing import LAYERS
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_assembly import innermost_loops
from llvm_layers import BACKEND, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

from graphsr.backends.llvm.jit import emit_assembly
from graphsr.backends.llvm.kernels.matmul import DEPTH, GROUP, MatrixProduct, tile_of
from graphsr.backends.llvm.loops import module
from graphsr.backends.llvm.target import named

SIZES = (1, 2, 11, 15, 16, 17, 30, 32, 33, 48, 64, 65, 100, GROUP + 5)
BATCHES = (((), ()), ((3,), ()), ((), (2,)), ((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((1,), (1,)))


@st.composite
def products(draw: st.DrawFn) -> GraphCase:
    count, inner, columns = (draw(st.sampled_from(SIZES)) for _ in range(3))
    outer_a, outer_b = draw(st.sampled_from(BATCHES))
    a, b = (*outer_a, count, inner), (*outer_b, inner, columns)
    if draw(st.booleans()):
        return layer_case(draw, MatMul(), a, constants=(draw(repeated(b)),))
    return layer_case(draw, MatMul(), a, b)


@pytest.mark.parametrize("constant", [False, True])
@several
@given(st.data())
def test_every_strategy(constant: bool, data: st.DataObject) -> None:
    assert_has_kernel(layer_graph(data.draw(LAYERS["matmul"]()), constant))


@several
@given(products())
def test_sizes_and_batches(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("inner", [DEPTH - 1, DEPTH, 2 * DEPTH + 3])
def test_sums_in_parts(inner: int, constant: bool) -> None:
    """The bound is that of a sum of this many terms, in any order."""
    generator = np.random.default_rng(inner)
    a, b = (generator.standard_normal(shape, np.float32) for shape in ((13, inner), (inner, 37)))
    left, right = Node.input("a", TensorType("float32", a.shape)), Node.input("b", TensorType("float32", b.shape))
    graph = Graph((left, right), {"y": Node(MatMul(), (left, right), "product")})
    if constant:
        graph = Graph((left,), {"y": Node(MatMul(), (left, Node.const(b, "b")), "product")})
    y = BACKEND.compile(graph, threads=2)({"a": a} if constant else {"a": a, "b": b})["y"]
    bound = inner * float(np.finfo(np.float32).eps) * (np.abs(a.astype(np.float64)) @ np.abs(b))
    assert (np.abs(y - a.astype(np.float64) @ b) <= bound).all()


@pytest.mark.parametrize("columns", [16, 32, 48, 64])
@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
def test_the_register_tile_stays_in_registers(name: str, columns: int) -> None:
    target = named(name)
    vectors, rows = tile_of(target, 1000, columns)
    kernel = MatrixProduct(rows, vectors, packed=False, axes=1)
    loops = innermost_loops(emit_assembly(module([kernel.function(target)]), target))
    products = [loop for loop in loops if len(re.findall("fmadd|mulps", loop)) >= 3]
    assert products
    assert not any(re.search(r"[xyz]mm.*rsp|rsp.*[xyz]mm", loop) for loop in products)
