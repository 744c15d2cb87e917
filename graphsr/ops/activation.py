"""Activations: element-wise functions y = f(x) with their derivative f'.

Every class states f in its docstring, `forward`, and `derivative`, so that vjp = cotangent · f'(x). At a kink
the derivative is the one-sided value that the docstring's cases give. NaN goes in, NaN comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect_float, op


class Activation(Op):
    """Base of the activations: same type out as in, gradient by `derivative`."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        return x

    def derivative(self, x: Array, y: Array) -> Array:
        """f'(x), given x and y = f(x)."""
        raise NotImplementedError

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (cotangent * self.derivative(inputs[0], output),)


@op("relu")
@dataclass(frozen=True, slots=True)
class Relu(Activation):
    """f(x) = max(0, x); f' = 1 for x > 0, else 0.

    >>> Relu().forward(np.array([-1.0, 2.0, np.nan]))
    array([ 0.,  2., nan])
    """

    def forward(self, x: Array) -> Array:
        return np.maximum(x, x.dtype.type(0))

    def derivative(self, x: Array, y: Array) -> Array:
        return (x > 0).astype(x.dtype)
