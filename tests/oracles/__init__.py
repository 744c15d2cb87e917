"""What each op is held to: an implementation that shares no code with ours.

`ORACLES[name](case)` gives the expected output of a case (float64 inputs). PyTorch where it has the op (the test skips
without it), else a second formulation written independently from the definition.
"""

from __future__ import annotations

from collections.abc import Callable

from graphsr.op import Array
from graphsr.testing import Case

from oracles import (
    activation,
    conv,
    conv_nd,
    cost,
    dense,
    detection,
    elementwise,
    fused,
    index,
    norm,
    normalise,
    pool,
    quantise,
    rearrange,
    recurrent,
    reduce,
    reduce_kinds,
    resize,
    sample,
    shape,
    unary,
)

ORACLES: dict[str, Callable[[Case], Array]] = {
    **activation.ORACLES,
    **conv.ORACLES,
    **conv_nd.ORACLES,
    **cost.ORACLES,
    **dense.ORACLES,
    **detection.ORACLES,
    **elementwise.ORACLES,
    **fused.ORACLES,
    **index.ORACLES,
    **norm.ORACLES,
    **normalise.ORACLES,
    **pool.ORACLES,
    **quantise.ORACLES,
    **rearrange.ORACLES,
    **recurrent.ORACLES,
    **reduce.ORACLES,
    **reduce_kinds.ORACLES,
    **resize.ORACLES,
    **sample.ORACLES,
    **shape.ORACLES,
    **unary.ORACLES,
}
