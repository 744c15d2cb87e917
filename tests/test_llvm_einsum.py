"""einsum in the llvm backend, as a product of matrices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import Einsum
from graphsr.testing import LAYERS
from graphsr.testing.check import assert_agrees, layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, layer_case, several

EQUATIONS = ("ij,jk", "bij,bjk->bik", "bhqd,bhkd->bhqk", "ijb,kjb->kbi", "i,j->ji", "ij,ij->", "ab,cb->ca", "ijk->kij")


@several
@given(st.data())
def test_every_strategy(data: st.DataObject) -> None:
    case = layer_graph(data.draw(LAYERS["einsum"]()).astype("float32"), data.draw(st.booleans()))
    assert_agrees(BACKEND.compile(case.graph), case)


@pytest.mark.parametrize("equation", EQUATIONS)
@several
@given(st.data())
def test_products_have_kernels(equation: str, data: st.DataObject) -> None:
    sizes = {letter: data.draw(st.sampled_from(SIZES[:9])) for letter in sorted(set(equation)) if letter.isalpha()}
    shapes = [tuple(sizes[c] for c in term) for term in equation.partition("->")[0].split(",")]
    assert_has_kernel(layer_case(data.draw, Einsum(equation), *shapes))


@pytest.mark.parametrize("equation", ["ii->i", "ij->i", "...j,jk->...k", "ij,ij,j->i", "ij,jk->j"])
def test_others_run_through_forward(equation: str) -> None:
    terms = equation.replace("...", "b").partition("->")[0].split(",")
    inputs = tuple(Node.input(f"x{i}", TensorType("float32", (3,) * len(term))) for i, term in enumerate(terms))
    run = BACKEND.compile(Graph(inputs, {"y": Node(Einsum(equation), inputs, "layer")}))
    assert "forward" in run.explain({node.name: node.type.dims for node in inputs})
