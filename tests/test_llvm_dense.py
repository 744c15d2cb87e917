"""The fully connected layer of the llvm backend: sizes around rows, vectors and panels, and its epilogue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.ops import Dense, Fused, Leaky, Relu, Shortcut
from graphsr.testing import LAYERS
from graphsr.testing.cases import Case
from graphsr.testing.check import layer_graph
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

pytest.importorskip("llvmlite")

from llvm_layers import assert_has_kernel, assert_same_nans, layer_case, several, with_nans

SIZES = (1, 3, 4, 15, 16, 17, 25, 63, 64, 65, 100, 192)


@st.composite
def layers(draw: st.DrawFn) -> GraphCase:
    inputs, outputs = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    outer = draw(st.sampled_from([(), (1,), (2,), (3, 2), (33,), (65,)]))
    constants = [draw(repeated((outputs, inputs))), *([draw(repeated((outputs,)))] if draw(st.booleans()) else [])]
    op = Fused(Dense(), draw(st.sampled_from([None, Relu(), Leaky(0.25)])))
    return layer_case(draw, op, (*outer, inputs), constants=tuple(constants))


@several
@given(LAYERS["dense"]())
def test_every_strategy(case: Case) -> None:
    assert_has_kernel(layer_graph(case, constant=True))


@several
@given(layers())
def test_sizes(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(st.data(), st.sampled_from([(1, 17), (5, 64)]))
def test_residual(data: st.DataObject, shape: tuple[int, int]) -> None:
    x, r = data.draw(repeated((shape[0], 9))), data.draw(repeated(shape))
    weight, bias = data.draw(repeated((shape[1], 9))), data.draw(repeated((shape[1],)))
    graph = layer_graph(Case(Fused(Dense(), Relu(), Shortcut(0.5, 2.0)), (x, weight, bias, r)), constant=True)
    assert_has_kernel(graph)
