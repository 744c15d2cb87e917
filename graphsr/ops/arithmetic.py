"""Arithmetic beyond the four operations, with the same broadcasting: extrema, power, and division of integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, op, same_dtype, unbroadcast
from graphsr.ops.elementwise import Arithmetic, broadcast


@op("maximum")
@dataclass(frozen=True, slots=True)
class Maximum(Arithmetic):
    """y = max(a, b), NaN where either is NaN; the whole of dy goes to the larger, to a where they are equal.

    >>> Maximum().forward(np.array([1.0, np.nan]), np.array([2.0]))
    array([ 2., nan])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return _shared(a >= b, dy)


@op("minimum")
@dataclass(frozen=True, slots=True)
class Minimum(Arithmetic):
    """y = min(a, b), NaN where either is NaN; the whole of dy goes to the smaller, to a where they are equal.

    >>> Minimum().forward(np.array([1.0, np.nan]), np.array([2.0]))
    array([ 1., nan])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return _shared(a <= b, dy)


@op("pow")
@dataclass(frozen=True, slots=True)
class Pow(Op):
    """y = a^b, in the dtype of a; da = dy·b·a^(b−1), db = dy·y·ln a, which is 0 for a = 0.

    A negative base has a power for whole exponents only, else NaN. The exponent may be of any numeric dtype. Integer
    bases are raised in float64 and what follows the point is cut off.

    >>> Pow().forward(np.array([4.0, -2.0, -2.0]), np.array([0.5, 3.0, 0.5]))
    array([ 2., -8., nan])
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        expect("bool" not in (a.dtype, b.dtype), "powers of bool are not defined")
        return TensorType(a.dtype, broadcast(a.shape, b.shape))

    def forward(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            if a.dtype.kind == "f":
                return np.power(a, b.astype(a.dtype))
            return np.power(a.astype(np.float64), b).astype(a.dtype)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        a, b = inputs
        with np.errstate(all="ignore"):
            da = cotangent * np.where(b == 0, 0, b * np.power(a, (b - 1).astype(a.dtype)))
            db = cotangent * output * np.log(np.where(a == 0, 1, a))
        return unbroadcast(da.astype(a.dtype), a.shape), unbroadcast(db, b.shape) if b.dtype.kind == "f" else None


@op("mod")
@dataclass(frozen=True, slots=True)
class Mod(Op):
    """y = a − b·q: the remainder of a division; da = dy, db = −dy·q; integers have no gradient.

    q = ⌊a/b⌋, so that y has the sign of b (Python, `torch.remainder`); with `truncated` q is a/b rounded toward zero,
    so that y has the sign of a (C's fmod). An integer modulo 0 is 0.

    >>> Mod().forward(np.array([-7, 7]), np.array([3]))
    array([2, 1])
    >>> Mod(truncated=True).forward(np.array([-7.5, 7.5]), np.array([3.0]))
    array([-1.5,  1.5])
    """

    truncated: bool = False

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        dtype = same_dtype(a, b)
        expect(dtype != "bool", "arithmetic on bool is not defined")
        return TensorType(dtype, broadcast(a.shape, b.shape))

    def forward(self, a: Array, b: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.fmod(a, b) if self.truncated else np.mod(a, b))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        a, b = inputs
        if output.dtype.kind != "f":
            return None, None
        with np.errstate(divide="ignore", invalid="ignore"):
            db = -cotangent * np.rint((a - output) / b)
        return unbroadcast(cotangent, a.shape), unbroadcast(db, b.shape)


@op("quotient")
@dataclass(frozen=True, slots=True)
class Quotient(Op):
    """y = a / b for integers, rounded toward zero (ONNX's Div, C); 0 where b is 0.

    >>> Quotient().forward(np.array([-7, 7]), np.array([2]))
    array([-3,  3])
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        dtype = same_dtype(a, b)
        expect("int" in dtype, f"integers expected, got {a} and {b}; `Div` divides floating-point numbers")
        return TensorType(dtype, broadcast(a.shape, b.shape))

    def forward(self, a: Array, b: Array) -> Array:
        """a − fmod(a, b) is a multiple of b, which floor division divides without a rest."""
        with np.errstate(divide="ignore"):
            return (a - np.fmod(a, b)) // b

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return None, None


def _shared(first: Array, dy: Array) -> tuple[Array, Array]:
    """dy for one operand or the other."""
    zero = dy.dtype.type(0)
    return np.where(first, dy, zero), np.where(first, zero, dy)
