"""`Fused`: a layer with its epilogue, the form that the fuse_ passes build and fast backends compute in one go."""

from __future__ import annotations

from dataclasses import dataclass

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, op
from graphsr.ops.activation import Activation
from graphsr.ops.elementwise import Shortcut


@op("fused")
@dataclass(frozen=True, slots=True)
class Fused(Op):
    """y = activation(α·base(x, …) + β·r), where each part may be absent.

    The inputs are those of `base`, followed by the residual r when `residual` is set (α and β are its factors).
    The meaning is that of the three ops one after the other, so nothing is defined twice.

    >>> from graphsr.ops import Conv2d, Relu
    >>> x, w, r = np.ones((1, 1, 1, 2)), np.full((1, 1, 1, 1), 2.0), np.array([[[[-3.0, 1.0]]]])
    >>> Fused(Conv2d(), activation=Relu(), residual=Shortcut(alpha=0.5)).forward(x, w, r)
    array([[[[0., 2.]]]])
    """

    base: Op
    activation: Activation | None = None
    residual: Shortcut | None = None

    def _split(self, inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """(inputs of base, (residual,) or ())"""
        return (inputs[:-1], inputs[-1:]) if self.residual else (inputs, ())

    def infer(self, *types: TensorType) -> TensorType:
        base, activation, residual = self.base, self.activation, self.residual
        expect(isinstance(base, Op) and not isinstance(base, Fused), f"base must be an unfused op, got {base!r}")
        expect(activation is None or isinstance(activation, Activation), f"{activation!r} is not an activation")
        expect(residual is None or isinstance(residual, Shortcut), f"residual must be a shortcut, got {residual!r}")
        y = self.base.infer(*(types[:-1] if self.residual else types))
        if self.residual:
            y = self.residual.infer(y, types[-1])
        return self.activation.infer(y) if self.activation else y

    def forward(self, *inputs: Array) -> Array:
        return self._stages(inputs)[-1]

    def _stages(self, inputs: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        """(base output, after the residual, after the activation)"""
        arguments, residual = self._split(inputs)
        base = self.base.forward(*arguments)
        total = self.residual.forward(base, *residual) if self.residual else base
        return base, total, self.activation.forward(total) if self.activation else total

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The chain rule backwards through activation, residual and base."""
        arguments, residual = self._split(inputs)
        base, total, _ = self._stages(inputs)
        d_base: Array = cotangent
        d_residual: tuple[Array, ...] = ()
        if self.activation:
            d_base = cotangent * self.activation.derivative(total, output)
        if self.residual:
            d_base, d_last = self.residual.vjp((base, *residual), total, d_base)
            d_residual = (d_last,)
        return (*self.base.vjp(arguments, base, d_base), *d_residual)

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return self.base.macs(inputs[:-1] if self.residual else inputs, output)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return self.base.needs(low, high, axis, *(types[:-1] if self.residual else types))
