"""Reductions, products and normalisations of ONNX."""

from __future__ import annotations

import math

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    Add,
    ArgMax,
    ArgMin,
    BatchNorm,
    Dense,
    Div,
    Expand,
    Full,
    GroupNorm,
    Hardmax,
    InstanceNorm,
    L1Norm,
    L2Norm,
    LayerNorm,
    LocalResponseNorm,
    LogSoftmax,
    MatMul,
    Mul,
    Reciprocal,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
    Reshape,
    RmsNorm,
    Softmax,
    Sqrt,
    Sub,
    Transpose,
)
from graphsr.ops.reduce import Reduction, normal_axes

from .onnx_call import OPERATORS, Call, Translate, operator
from .onnx_ops_shape import flat_shape

REDUCTIONS: dict[str, tuple[type[Reduction], int, float | None]] = {
    "ReduceL1": (ReduceL1, 18, None),
    "ReduceL2": (ReduceL2, 18, None),
    "ReduceLogSum": (ReduceLogSum, 18, None),
    "ReduceLogSumExp": (ReduceLogSumExp, 18, -math.inf),
    "ReduceMax": (ReduceMax, 18, -math.inf),
    "ReduceMean": (ReduceMean, 18, math.nan),
    "ReduceMin": (ReduceMin, 18, math.inf),
    "ReduceProd": (ReduceProd, 18, None),
    "ReduceSum": (ReduceSum, 13, None),
    "ReduceSumSquare": (ReduceSumSquare, 18, None),
}
"""Our op; the version since which `axes` is an input and no attribute; and the result for no elements at all, where the
op does not define one."""


def _reduction(kind: type[Reduction], input_since: int, empty: float | None) -> Translate:
    def translate(call: Call) -> Node:
        x = call.x()
        axes = call.attr("axes") if call.version < input_since else call.ints_from(1)
        none_is_all = not call.attr("noop_with_empty_axes", 0)
        if not axes:
            axes = tuple(range(x.type.rank)) if none_is_all else ()
        op = kind(tuple(axes), bool(call.attr("keepdims")))
        if empty is not None and any(x.type.shape[a] == 0 for a in normal_axes(op.axes, x.type.rank)):
            if x.type.dtype.startswith(("int", "uint")):
                raise ModelError(f"the result for no integers at all is not supported: {x.type}, axes {op.axes}")
            return call(Full(Reduction.infer(op, x.type).shape, _nothing(empty, x.type.dtype), x.type.dtype))
        return call(op, x)

    return translate


def _nothing(empty: float, dtype: str) -> float:
    """The result for no elements; of booleans, none of them is true, and none is false."""
    return float(empty > 0) if dtype == "bool" else empty


OPERATORS.update({name: _reduction(*row) for name, row in REDUCTIONS.items()})


@operator("ArgMax")
def arg_max(call: Call) -> Node:
    return call(ArgMax(*_place(call)), call.x())


@operator("ArgMin")
def arg_min(call: Call) -> Node:
    return call(ArgMin(*_place(call)), call.x())


def _place(call: Call) -> tuple[int, bool, bool]:
    """`select_last_index` since version 12."""
    return call.attr("axis"), bool(call.attr("keepdims")), bool(call.attr("select_last_index", 0))


@operator("Softmax")
def softmax(call: Call) -> Node:
    return _flattened(call, Softmax(-1), Softmax(call.attr("axis")))


@operator("LogSoftmax")
def log_softmax(call: Call) -> Node:
    return _flattened(call, LogSoftmax(-1), LogSoftmax(call.attr("axis")))


@operator("Hardmax")
def hardmax(call: Call) -> Node:
    return _flattened(call, Hardmax(-1), Hardmax(call.attr("axis")))


def _flattened(call: Call, last: Op, along: Op) -> Node:
    """| since | |
    |---|---|
    | 1 | over all axes from `axis` on, 1 by default |
    | 13 | along `axis`, −1 by default |
    """
    x, axis = call.x(), call.attr("axis")
    if call.version >= 13 or axis in (-1, x.type.rank - 1):
        return call(along, x)
    if not -x.type.rank <= axis <= x.type.rank:
        raise ModelError(f"attribute axis={axis} does not exist in {x.type}")
    return call(Reshape(x.type.shape), call(last, call(Reshape(flat_shape(x, axis)), x)))


@operator("MatMul")
def matmul(call: Call) -> Node:
    return call(MatMul(), call.x(0), call.x(1))


@operator("Gemm")
def gemm(call: Call) -> Node:
    """α·a·b + β·c, a and b transposed on demand. Before version 7 `broadcast` had to be set for c; since 11 c may be
    left out."""
    call.ignore("broadcast")
    a, b, c = call.x(0), call.x(1), call.opt(2)
    if a.type.rank != 2 or b.type.rank != 2:
        raise ModelError(f"matrices expected, got {a.type} and {b.type}")
    a = call(Transpose((1, 0)), a) if call.attr("transA") else a
    weight = b if call.attr("transB") else call(Transpose((1, 0)), b)
    alpha, beta = call.attr("alpha"), call.attr("beta")
    weight = weight if alpha == 1 else call(Mul(), weight, call.like(alpha, weight))
    if c is None or beta == 0:
        return call(Dense(), a, weight)
    c = c if beta == 1 else call(Mul(), c, call.like(beta, c))
    if c.type.shape == weight.type.shape[:1]:
        return call(Dense(), a, weight, c)
    return call(Add(), call(Dense(), a, weight), c)


@operator("BatchNormalization")
def batch_normalization(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attributes `is_test`, which must be set, and `spatial`, which must be 1 |
    | 7 | inference when there is one output |
    | 9 | no `spatial` |
    | 14 | `training_mode`, which must be 0 |
    """
    call.ignore("momentum", "consumed_inputs")
    if call.version < 7:
        call.only("is_test", 1)
    call.only("spatial", 1)
    call.only("training_mode", 0)
    if len([name for name in call.outputs if name]) > 1:
        raise ModelError("statistics as outputs (training) are not supported: export the model for inference")
    return call(BatchNorm(call.attr("epsilon")), *call.all())


@operator("InstanceNormalization")
def instance_normalization(call: Call) -> Node:
    call.ignore("consumed_inputs")
    return call(InstanceNorm(call.attr("epsilon")), *call.all())


@operator("LayerNormalization")
def layer_normalization(call: Call) -> list[Node]:
    """y and, where they are asked for, the mean μ and 1/√(v + ε) of x over the axes from `axis` on."""
    call.only("stash_type", 1)
    x, eps = call.x(), call.attr("epsilon")
    y = call(LayerNorm(call.attr("axis"), eps), *call.all())
    if len(call.outputs) == 1:
        return [y]
    mean_over = ReduceMean(tuple(range(call.attr("axis") % x.type.rank, x.type.rank)))
    mean = call(mean_over, x)
    centred = call(Sub(), x, mean)
    var = call(mean_over, call(Mul(), centred, centred))
    return [y, mean, call(Reciprocal(), call(Sqrt(), call(Add(), var, call.like(eps, x))))]


@operator("RMSNormalization")
def rms_normalization(call: Call) -> Node:
    call.only("stash_type", 1)
    return call(RmsNorm(call.attr("axis"), call.attr("epsilon")), *call.all())


@operator("GroupNormalization")
def group_normalization(call: Call) -> Node:
    """| since | |
    |---|---|
    | 18 | scale and bias per group |
    | 21 | scale and bias per channel; `stash_type` |
    """
    call.only("stash_type", 1)
    x, groups, parameters = call.x(), call.attr("num_groups"), call.all()[1:]
    if call.version < 21:
        parameters = tuple(_per_channel(call, each, groups) for each in parameters)
    return call(GroupNorm(groups, call.attr("epsilon")), x, *parameters)


def _per_channel(call: Call, parameter: Node, groups: int) -> Node:
    """[groups] -> [C], each value once for every channel of its group."""
    channels = call.known(call.x().type.shape[1], "the number of channels")
    if parameter.type.shape != (groups,) or channels % groups:
        raise ModelError(f"{parameter.type} is no value for each of {groups} groups of {channels} channels")
    columns = call(Expand((groups, channels // groups)), call(Reshape((groups, 1)), parameter))
    return call(Reshape((channels,)), columns)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(call: Call) -> Node:
    """(x − μ) / (σ + 10⁻⁹), without anything added to the variance."""
    x, axes = call.x(), call.attr("axes")
    centred = call(Sub(), x, call(ReduceMean(axes), x))
    sigma = call(Sqrt(), call(ReduceMean(axes), call(Mul(), centred, centred)))
    return call(Div(), centred, call(Add(), sigma, call.like(1e-9, x)))


@operator("LRN")
def local_response_normalization(call: Call) -> Node:
    return call(
        LocalResponseNorm(call.attr("size"), call.attr("alpha"), call.attr("beta"), call.attr("bias")), call.x()
    )


@operator("LpNormalization")
def lp_normalization(call: Call) -> Node:
    call.only("p", 2, 1)
    axes = (call.attr("axis"),)
    return call(L1Norm(axes) if call.attr("p") == 1 else L2Norm(axes), call.x())
