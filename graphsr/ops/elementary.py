"""What activations and the elementary functions are alike in: one argument, element by element."""

from __future__ import annotations

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect_float


class Elementary(Op):
    """Base of the functions of one argument: same type out as in, gradient by `derivative`."""

    __slots__ = ()

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        return x

    def derivative(self, x: Array, y: Array) -> Array:
        """f'(x), given x and y = f(x)."""
        raise NotImplementedError

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (cotangent * self.derivative(inputs[0], output),)
