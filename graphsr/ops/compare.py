"""Comparisons, logic and the choice between two arrays, with broadcasting. What is true or false has no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op, same_dtype, unbroadcast
from graphsr.ops.elementwise import broadcast


@dataclass(frozen=True, slots=True)
class Comparison(Op):
    """Base of the comparisons of two arrays of one dtype. With NaN all are false (IEEE 754)."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        same_dtype(a, b)
        return TensorType("bool", broadcast(a.shape, b.shape))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return None, None


@op("equal")
@dataclass(frozen=True, slots=True)
class Equal(Comparison):
    """y = [a = b]

    >>> Equal().forward(np.array([1, 2]), np.array([2]))
    array([False,  True])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)


@op("less")
@dataclass(frozen=True, slots=True)
class Less(Comparison):
    """y = [a < b]

    >>> Less().forward(np.array([1, 2]), np.array([2]))
    array([ True, False])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.less(a, b)


@op("less_equal")
@dataclass(frozen=True, slots=True)
class LessEqual(Comparison):
    """y = [a ≤ b]

    >>> LessEqual().forward(np.array([1, 2, 3]), np.array([2]))
    array([ True,  True, False])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.less_equal(a, b)


@op("greater")
@dataclass(frozen=True, slots=True)
class Greater(Comparison):
    """y = [a > b]

    >>> Greater().forward(np.array([1, 2, 3]), np.array([2]))
    array([False, False,  True])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)


@op("greater_equal")
@dataclass(frozen=True, slots=True)
class GreaterEqual(Comparison):
    """y = [a ≥ b]

    >>> GreaterEqual().forward(np.array([1, 2, np.nan]), np.array([2]))
    array([False,  True, False])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.greater_equal(a, b)


@dataclass(frozen=True, slots=True)
class Logic(Comparison):
    """Base of the operations on two arrays of bool."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        expect(same_dtype(a, b) == "bool", f"inputs must be bool, got {a} and {b}")
        return Comparison.infer(self, a, b)


@op("and")
@dataclass(frozen=True, slots=True)
class And(Logic):
    """y = a ∧ b

    >>> And().forward(np.array([True, False]), np.array([True]))
    array([ True, False])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.logical_and(a, b)


@op("or")
@dataclass(frozen=True, slots=True)
class Or(Logic):
    """y = a ∨ b

    >>> Or().forward(np.array([True, False]), np.array([False]))
    array([ True, False])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.logical_or(a, b)


@op("xor")
@dataclass(frozen=True, slots=True)
class Xor(Logic):
    """y = a ⊕ b: one of the two, not both

    >>> Xor().forward(np.array([True, False]), np.array([True]))
    array([False,  True])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return np.logical_xor(a, b)


@op("not")
@dataclass(frozen=True, slots=True)
class Not(Op):
    """y = ¬x

    >>> Not().forward(np.array([True, False]))
    array([False,  True])
    """

    def infer(self, x: TensorType) -> TensorType:
        expect(x.dtype == "bool", f"input must be bool, got {x}")
        return x

    def forward(self, x: Array) -> Array:
        return np.logical_not(x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,)


@dataclass(frozen=True, slots=True)
class Kind(Op):
    """Base of the questions what kind of number an element is."""

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        return TensorType("bool", x.shape)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (None,)


@op("is_nan")
@dataclass(frozen=True, slots=True)
class IsNan(Kind):
    """y = [x is not a number]

    >>> IsNan().forward(np.array([1.0, np.nan]))
    array([False,  True])
    """

    def forward(self, x: Array) -> Array:
        return np.isnan(x)


@op("is_inf")
@dataclass(frozen=True, slots=True)
class IsInf(Kind):
    """y = [x = −∞] if `negative`, ∨ [x = ∞] if `positive`

    >>> IsInf(negative=False).forward(np.array([1.0, np.inf, -np.inf]))
    array([False,  True, False])
    """

    negative: bool = True
    positive: bool = True

    def forward(self, x: Array) -> Array:
        return (self.negative & (x == -np.inf)) | (self.positive & (x == np.inf))


@op("where")
@dataclass(frozen=True, slots=True)
class Where(Op):
    """y = a where the condition holds, else b; dy goes to the one that was chosen. Inputs: condition (bool), a, b.

    >>> Where().forward(np.array([True, False]), np.array([1.0, 2.0]), np.array([9.0]))
    array([1., 9.])
    """

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> TensorType:
        expect(condition.dtype == "bool", f"the condition must be bool, got {condition}")
        return TensorType(same_dtype(a, b), broadcast(condition.shape, a.shape, b.shape))

    def forward(self, condition: Array, a: Array, b: Array) -> Array:
        return np.where(condition, a, b)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        condition, a, b = inputs
        zero = cotangent.dtype.type(0)
        da, db = np.where(condition, cotangent, zero), np.where(condition, zero, cotangent)
        return None, unbroadcast(da, a.shape), unbroadcast(db, b.shape)
