"""Arithmetic on whole arrays: the shortcut of residual networks and the four operations with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op, same_dtype


@op("shortcut")
@dataclass(frozen=True, slots=True)
class Shortcut(Op):
    """H = α·x₁ + β·x₂ for arrays of one shape: the residual connection (He et al. 2016; darknet's shortcut).

    >>> Shortcut(alpha=0.5).forward(np.array([2.0]), np.array([3.0]))
    array([4.])
    """

    alpha: float = 1.0
    beta: float = 1.0

    def infer(self, x1: TensorType, x2: TensorType) -> TensorType:
        same_dtype(x1, x2)
        expect_float(x1)
        expect(x1.shape == x2.shape, f"shapes must be equal, got {x1} and {x2}")
        return x1

    def forward(self, x1: Array, x2: Array) -> Array:
        y: Array = x1.dtype.type(self.alpha) * x1 + x1.dtype.type(self.beta) * x2
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array, Array]:
        return cotangent * cotangent.dtype.type(self.alpha), cotangent * cotangent.dtype.type(self.beta)
