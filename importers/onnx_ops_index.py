"""Operators of ONNX that read and write at places which are computed, and those that order elements."""

from __future__ import annotations

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.ops import (
    CumulativeSum,
    Einsum,
    Gather,
    GatherElements,
    GatherND,
    OneHot,
    ScatterElements,
    ScatterND,
    TopK,
    Triangle,
)

from .onnx_call import Call, operator


@operator("Gather")
def gather(call: Call) -> Node:
    return call(Gather(call.attr("axis")), call.x(0), call.x(1))


@operator("GatherElements")
def gather_elements(call: Call) -> Node:
    return call(GatherElements(call.attr("axis")), call.x(0), call.x(1))


@operator("GatherND")
def gather_nd(call: Call) -> Node:
    return call(GatherND(call.attr("batch_dims", 0)), call.x(0), call.x(1))


@operator("ScatterND")
def scatter_nd(call: Call) -> Node:
    return call(ScatterND(call.attr("reduction", "none")), *call.all())


@operator("Scatter", "ScatterElements")
def scatter_elements(call: Call) -> Node:
    """Called Scatter before version 11."""
    return call(ScatterElements(call.attr("reduction", "none"), call.attr("axis")), *call.all())


@operator("OneHot")
def one_hot(call: Call) -> Node:
    """Negative indices count from the end since version 11; before they were not defined. `depth` may be a real number
    (of an integer value)."""
    given = call.x(1)
    depth = (
        call.sizes(1)
        if given.type.dtype in ("int64", "int32")
        else tuple(map(int, call.values.array(given, "depth").flat))
    )
    if depth is None or len(depth) != 1:
        raise ModelError(f"depth must be a single number, got {given.type}")
    return call(OneHot(depth[0], call.attr("axis")), call.x(0), call.x(2))


@operator("TopK")
def top_k(call: Call) -> list[Node]:
    """| since | |
    |---|---|
    | 1 | attribute `k`, the largest |
    | 10 | input `k` |
    | 11 | `largest`, `sorted` |
    """
    call.ignore("sorted")  # ours are
    (k,) = (call.attr("k"),) if call.version < 10 else call.ints_from(1) or (0,)
    axis, largest = call.attr("axis"), bool(call.attr("largest", 1))
    return [call(TopK(k, axis, largest, output), call.x()) for output in ("values", "indices")]


@operator("CumSum")
def cumulative_sum(call: Call) -> Node:
    (axis,) = call.ints_from(1) or (0,)
    return call(CumulativeSum(axis, bool(call.attr("exclusive")), bool(call.attr("reverse"))), call.x())


@operator("Trilu")
def triangle(call: Call) -> Node:
    (k,) = call.ints_from(1) or (0,)
    return call(Triangle(k, bool(call.attr("upper"))), call.x())


@operator("Einsum")
def einsum(call: Call) -> Node:
    return call(Einsum(call.attr("equation")), *call.all())
