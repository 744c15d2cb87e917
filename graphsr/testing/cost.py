"""Strategies for costs, within the domain of each and away from its kinks; for dropout and for cut-out images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphsr.op import Array
from graphsr.ops import (
    CropAndResize,
    Dropout,
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
from graphsr.ops.cost import Cost
from graphsr.testing.cases import Case, arrays, integers, layer

SHAPE = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def probabilities(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Values from 3/8 to 5/8, where logarithms vary slowly."""
    return np.asarray(draw(arrays(shape)) / np.float32(16) + np.float32(0.5))


@st.composite
def labels(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """0 or 1"""
    return draw(integers(shape, 0, 1)).astype(np.float32)


@st.composite
def some_marked(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    t = draw(arrays(shape))
    return np.where(draw(integers(shape, 0, 2)) == 0, np.float32(12345), t)


@st.composite
def beside(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Truths that are no output of `arrays`, so that no difference is 0 or 1."""
    return np.asarray(draw(arrays(shape)) + np.float32(1 / 256))


DOMAINS: dict[type[Cost], tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    MseCost: (arrays, beside),
    MaeCost: (arrays, beside),
    SmoothCost: (arrays, beside),
    MaskedCost: (arrays, some_marked),
    SegCost: (probabilities, probabilities),
    WganCost: (arrays, labels),
    HellingerCost: (probabilities, probabilities),
    HingeCost: (arrays, arrays),
    LogCoshCost: (arrays, beside),
}


def _case_of(kind: type[Cost]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        shape = draw(SHAPE)
        output, truth = DOMAINS[kind]
        op = kind(
            scale=draw(st.sampled_from([1.0, 0.5])),
            smoothing=draw(st.sampled_from([0.0, 0.125])) if kind in (MseCost, SegCost, LogCoshCost) else 0.0,
            noobject_scale=draw(st.sampled_from([1.0, 0.5])),
            threshold=draw(st.sampled_from([0.0, 0.3])) if kind in (MseCost, LogCoshCost) else 0.0,
        )
        return Case(op, (draw(output(shape)), draw(truth(shape))))

    return draw_case


for _kind in DOMAINS:
    layer(_kind.name)(_case_of(_kind))


@layer("logistic_cost")
def logistic_cost(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    return Case(LogisticCost(), (draw(arrays(shape, 4.0)), draw(probabilities(shape))))


@layer("dropout")
def dropout(draw: st.DrawFn) -> Case:
    op = Dropout(draw(st.sampled_from([0.0, 0.25, 0.5])), draw(st.integers(0, 2**64 - 1)))
    step = (draw(integers((), -4, 100)),) if draw(st.booleans()) else ()
    return Case(op, (draw(arrays(draw(SHAPE))), *step))


@layer("crop_and_resize")
def crop_and_resize(draw: st.DrawFn) -> Case:
    """Regions may be empty, turned round, or reach over the border."""
    position = st.sampled_from([-0.25, 0.0, 0.3, 0.7, 1.0, 1.5])
    small = st.integers(1, 4)
    region = (draw(position), draw(position), draw(position), draw(position))
    op = CropAndResize(region, (draw(small), draw(small)), draw(st.sampled_from([0.0, -2.0])))
    return Case(op, (draw(arrays((draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(small), draw(small)))),))
