"""Costs in the llvm backend, as element-wise ops and a reduction."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.ops import (
    HellingerCost,
    HingeCost,
    LogCoshCost,
    LogisticCost,
    MaeCost,
    MaskedCost,
    MseCost,
    SegCost,
    SmoothCost,
    WganCost,
)
from graphsr.testing import LAYERS
from graphsr.testing.check import assert_agrees, layer_graph

pytest.importorskip("llvmlite")

from llvm_layers import BACKEND, SIZES, assert_has_kernel, assert_same_nans, layer_case, several, with_nans

COSTS = (
    HingeCost(scale=2.0),
    LogCoshCost(),
    LogisticCost(),
    MaeCost(smoothing=0.25),
    MaskedCost(mark=0.5),
    MseCost(noobject_scale=0.5),
    SegCost(),
    SmoothCost(),
    WganCost(),
)


@pytest.mark.parametrize("name", sorted(name for name in LAYERS if name.endswith("_cost")))
@several
@given(st.data())
def test_every_strategy(name: str, data: st.DataObject) -> None:
    case = layer_graph(data.draw(LAYERS[name]()).astype("float32"), constant=False)
    assert_agrees(BACKEND.compile(case.graph), case)


@pytest.mark.parametrize("op", COSTS, ids=lambda op: op.name)
@several
@given(st.data())
def test_costs_have_kernels(op: MseCost, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.sampled_from(SIZES)) for _ in range(data.draw(st.integers(1, 3))))
    case = layer_case(data.draw, op, shape, shape)
    assert_has_kernel(case)
    assert_same_nans(with_nans(case))


@several
@given(st.data())
def test_roots_of_negative_numbers_are_nan(data: st.DataObject) -> None:
    shape = (data.draw(st.sampled_from(SIZES)),)
    assert_same_nans(layer_case(data.draw, HellingerCost(), shape, shape))


@given(st.data())
@settings(max_examples=1, database=None)
def test_ranked_elements_run_through_forward(data: st.DataObject) -> None:
    case = layer_case(data.draw, MseCost(ratio=0.5), (4,), (4,))
    explained = BACKEND.compile(case.graph).explain({name: x.shape for name, x in case.inputs.items()})
    assert "by the rank of their slopes" in explained
