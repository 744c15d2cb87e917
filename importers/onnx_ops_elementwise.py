"""Element-wise operators of ONNX: arithmetic, elementary functions, comparisons, activations."""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    Abs,
    Add,
    And,
    Cast,
    Ceil,
    Celu,
    Clip,
    Cos,
    Div,
    Elu,
    Equal,
    Erf,
    Exp,
    Floor,
    Gelu,
    Greater,
    GreaterEqual,
    HardSigmoid,
    HardSwish,
    IsInf,
    IsNan,
    Leaky,
    Less,
    LessEqual,
    Log,
    Logistic,
    Maximum,
    Minimum,
    Mish,
    Mod,
    Mul,
    Neg,
    Not,
    Or,
    Pow,
    PRelu,
    Quotient,
    Reciprocal,
    Relu,
    Reshape,
    Round,
    Selu,
    Shrink,
    Sign,
    Silu,
    Sin,
    SoftPlus,
    SoftSign,
    Sqrt,
    Sub,
    Tanh,
    ThresholdedRelu,
    Where,
    Xor,
)

from .onnx_call import OPERATORS, Call, Translate, operator
from .onnx_reader import NARROW, dtype_of

UNARY: dict[str, Op] = {
    "Abs": Abs(),
    "Ceil": Ceil(),
    "Cos": Cos(),
    "Erf": Erf(),
    "Exp": Exp(),
    "Floor": Floor(),
    "HardSwish": HardSwish(),
    "IsNaN": IsNan(),
    "Log": Log(),
    "Mish": Mish(),
    "Neg": Neg(),
    "Not": Not(),
    "Reciprocal": Reciprocal(),
    "Relu": Relu(),
    "Round": Round(),
    "Sigmoid": Logistic(),
    "Sign": Sign(),
    "Sin": Sin(),
    "Softplus": SoftPlus(),
    "Softsign": SoftSign(),
    "Sqrt": Sqrt(),
    "Tanh": Tanh(),
}
"""Operators that are one op of ours, in all versions. (Version 1 of some has `consumed_inputs`, a hint.)"""

BINARY: dict[str, Op] = {
    "Add": Add(),
    "And": And(),
    "Equal": Equal(),
    "Greater": Greater(),
    "GreaterOrEqual": GreaterEqual(),
    "Less": Less(),
    "LessOrEqual": LessEqual(),
    "Mul": Mul(),
    "Or": Or(),
    "Pow": Pow(),
    "Sub": Sub(),
    "Xor": Xor(),
}


def _unary(op: Op) -> Translate:
    def translate(call: Call) -> Node:
        call.ignore("consumed_inputs")
        return call(op, call.x())

    return translate


def _binary(op: Op) -> Translate:
    def translate(call: Call) -> Node:
        return call(op, call.x(0), aligned(call))

    return translate


OPERATORS.update({name: _unary(op) for name, op in UNARY.items()})
OPERATORS.update({name: _binary(op) for name, op in BINARY.items()})


def aligned(call: Call) -> Node:
    """The second operand, such that it is broadcast to the first as its version says.

    | since | |
    |---|---|
    | 1 | only with broadcast=1; its axes stand at `axis` of the first operand, by default at the last |
    | 7 | as in NumPy |
    """
    a, b = call.x(0), call.x(1)
    if call.version >= 7:
        return b
    call.ignore("consumed_inputs")
    axis = call.attr("axis")
    if not call.attr("broadcast", 0):
        if a.type.shape != b.type.shape:
            raise ModelError(f"shapes differ without broadcast=1: {a.type} and {b.type}")
        return b
    if axis is None:
        return b
    behind = a.type.rank - axis % max(a.type.rank, 1) - b.type.rank
    if behind < 0:
        raise ModelError(f"{b.type} at axis {axis} does not fit {a.type}")
    return call(Reshape((*b.type.shape, *[1] * behind)), b)


@operator("Div")
def div(call: Call) -> Node:
    """Integers are rounded toward zero."""
    a, b = call.x(0), aligned(call)
    return call(Div() if a.type.dtype.startswith("float") else Quotient(), a, b)


@operator("Mod")
def mod(call: Call) -> Node:
    """The sign is that of the divisor, with fmod=1 that of the dividend."""
    return call(Mod(truncated=bool(call.attr("fmod"))), call.x(0), call.x(1))


@operator("Max")
def maximum(call: Call) -> Node:
    return _all(call, Maximum())


@operator("Min")
def minimum(call: Call) -> Node:
    return _all(call, Minimum())


@operator("Sum")
def sum_(call: Call) -> Node:
    return _all(call, Add())


@operator("Mean")
def mean(call: Call) -> Node:
    total = _all(call, Add())
    return call(Div(), total, call.like(len(call.inputs), total))


def _all(call: Call, op: Op) -> Node:
    """The operator between all inputs, of which there may be one."""
    call.ignore("consumed_inputs")
    return reduce(lambda a, b: call(op, a, b), call.all())


@operator("IsInf")
def is_inf(call: Call) -> Node:
    return call(IsInf(bool(call.attr("detect_negative")), bool(call.attr("detect_positive"))), call.x())


@operator("Tan")
def tan(call: Call) -> Node:
    return call(Div(), call(Sin(), call.x()), call(Cos(), call.x()))


@operator("Where")
def where(call: Call) -> Node:
    return call(Where(), call.x(0), call.x(1), call.x(2))


@operator("Cast")
def cast(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | `to` is the name of the type |
    | 6 | `to` is its number |
    | 19 | `saturate`, for 8-bit floats, which are not supported |
    """
    call.ignore("saturate", "round_mode")
    to = call.attr("to")
    if isinstance(to, str):
        if to not in onnx.TensorProto.DataType.keys():  # noqa: SIM118  # no dict
            raise ModelError(f"attribute to={to!r} is no element type")
        to = onnx.TensorProto.DataType.Value(to)
    return _rounded(call, NARROW[to]) if to in NARROW else _cast(call, dtype_of(to, "the result"))


@operator("CastLike")
def cast_like(call: Call) -> Node:
    """In a model with float16 or bfloat16, to a float32 that may stand for them, it is refused: whether to round is not
    known."""
    call.ignore("saturate", "round_mode")
    like = call.x(1)
    narrow = call.values.narrow
    if narrow and like.type.dtype == "float32" and like not in narrow:
        raise ModelError("in a model with float16 or bfloat16 the type of a computed value is not followed: use Cast")
    kind = narrow.get(like)
    return _rounded(call, kind) if kind else _cast(call, like.type.dtype)


def _rounded(call: Call, kind: str) -> Node:
    """The nearest float16, held in float32."""
    if kind != "float16":
        raise ModelError(f"rounding to {kind} is not supported: cast to float32, which is what it is computed in")
    return call(Cast("float32"), call(Cast("float16"), call.x()))


def _cast(call: Call, dtype: str) -> Node:
    return call.x() if call.x().type.dtype == dtype else call(Cast(dtype), call.x())


@operator("Identity")
def identity(call: Call) -> Node:
    return call.x()


@operator("Clip")
def clip(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | attributes `min` and `max` |
    | 11 | inputs `min` and `max`, either of which may be left out |
    """
    call.ignore("consumed_inputs")
    x = call.x()
    if call.version < 11:
        given = call.attr("min"), call.attr("max")
        low, high = (None if bound is None else call.like(bound, x) for bound in given)
    else:
        low, high = call.opt(1), call.opt(2)
    for bound in (low, high):
        if bound is not None and bound.type.size != 1:
            raise ModelError(f"the bounds must be single numbers, got {bound.type}")
    if x.type.dtype.startswith("float") and all(bound is None or bound.is_const for bound in (low, high)):
        lowest, highest = (None if bound is None else float(bound.value.flat[0]) for bound in (low, high))
        ends = -np.inf if lowest is None else lowest, np.inf if highest is None else highest
        if ends[0] <= ends[1]:
            return call(Clip(*ends), x)
    y = x if low is None else call(Maximum(), x, call(Reshape(()), low))
    return y if high is None else call(Minimum(), y, call(Reshape(()), high))


@operator("LeakyRelu")
def leaky_relu(call: Call) -> Node:
    call.ignore("consumed_inputs")
    return call(Leaky(call.attr("alpha")), call.x())


@operator("PRelu")
def prelu(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | a slope of one axis has one value per channel |
    | 7 | the slope is broadcast as in NumPy |
    """
    call.ignore("consumed_inputs")
    x, slope = call.x(0), call.x(1)
    sizes = slope.type.shape
    if slope.type.size == 1:
        return call(PRelu(), x, call(Reshape((1,)), slope))
    if call.version < 7 and len(sizes) == 1:
        return call(PRelu(), x, slope)
    per_channel = (sizes[-(x.type.rank - 1)],) if len(sizes) >= x.type.rank - 1 >= 1 else ()
    if per_channel and slope.type.size == per_channel[0] == x.type.shape[1]:
        return call(PRelu(), x, call(Reshape(per_channel), slope))
    return call(Where(), call(Greater(), x, call.like(0, x)), x, call(Mul(), slope, x))


@operator("Elu")
def elu(call: Call) -> Node:
    call.ignore("consumed_inputs")
    return call(Elu(call.attr("alpha")), call.x())


@operator("Selu")
def selu(call: Call) -> Node:
    """γ·Elu(x); version 1 has rounded defaults."""
    call.ignore("consumed_inputs")
    alpha, gamma = call.attr("alpha"), call.attr("gamma")
    x = call.x()
    if (np.float32(alpha), np.float32(gamma)) == (np.float32(1.6732632), np.float32(1.050701)):
        return call(Selu(), x)
    return call(Mul(), call(Elu(alpha), x), call.like(gamma, x))


@operator("Celu")
def celu(call: Call) -> Node:
    return call(Celu(call.attr("alpha")), call.x())


@operator("HardSigmoid")
def hard_sigmoid(call: Call) -> Node:
    call.ignore("consumed_inputs")
    return call(HardSigmoid(call.attr("alpha"), call.attr("beta")), call.x())


@operator("ThresholdedRelu")
def thresholded_relu(call: Call) -> Node:
    return call(ThresholdedRelu(call.attr("alpha")), call.x())


@operator("Shrink")
def shrink(call: Call) -> Node:
    return call(Shrink(call.attr("lambd"), call.attr("bias")), call.x())


@operator("Gelu")
def gelu(call: Call) -> Node:
    return call(Gelu(call.attr("approximate")), call.x())


@operator("Swish")
def swish(call: Call) -> Node:
    return _swish(call)


@operator("SwiGLU")
def swiglu(call: Call) -> Node:
    """The gate's swish times the value."""
    return call(Mul(), _swish(call), call.x(1))


def _swish(call: Call) -> Node:
    """x·σ(α·x)"""
    x, alpha = call.x(), call.attr("alpha")
    if alpha == 1:
        return call(Silu(), x)
    return call(Mul(), x, call(Logistic(), call(Mul(), x, call.like(alpha, x))))
