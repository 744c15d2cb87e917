"""Strategies for normalisation: variances and norms stay away from zero, where the functions vary fast."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graphsr.ops import BatchNorm, BatchNormTrain, WeightNorm
from graphsr.ops.norm import FORMS
from graphsr.testing.cases import Case, arrays, distinct_arrays, layer
from graphsr.testing.elementwise import nonzero_arrays

SHAPE = st.lists(st.integers(1, 3), min_size=2, max_size=4).map(tuple)
EPS = st.sampled_from([1e-5, 1e-3])


@layer("batch_norm")
def batch_norm(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    scale, bias, mean = (draw(arrays(shape[1:2])) for _ in range(3))
    var = np.abs(draw(nonzero_arrays(shape[1:2])))
    return Case(BatchNorm(draw(EPS), draw(st.sampled_from(FORMS))), (draw(arrays(shape)), scale, bias, mean, var))


@layer("batch_norm_train")
def batch_norm_train(draw: st.DrawFn) -> Case:
    """The values of a channel differ by at least 1, or the channel has only one."""
    shape = draw(SHAPE)
    x = 8 * draw(distinct_arrays(shape))
    return Case(BatchNormTrain(draw(EPS)), (x, draw(arrays(shape[1:2])), draw(arrays(shape[1:2]))))


@layer("weight_norm")
def weight_norm(draw: st.DrawFn) -> Case:
    rows, *rest = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    v = draw(nonzero_arrays((rows, *rest)))
    return Case(WeightNorm(), (v, draw(arrays((rows, *[1] * len(rest))))))
