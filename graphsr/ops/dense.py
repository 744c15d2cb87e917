"""The fully connected layer and softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_rank, expect_size, op, same_dtype


@op("dense")
@dataclass(frozen=True, slots=True)
class Dense(Op):
    """y[…, o] = b[o] + Σ_i weight[o, i] · x[…, i]

    Inputs: x[…, I], weight[O, I] (a row per output), bias[O] or none. ("Connected" in darknet, "Linear" in PyTorch.)

    >>> Dense().forward(np.array([1.0, 2.0]), np.array([[3.0, 4.0]]))
    array([11.])
    """

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> TensorType:
        dtype = same_dtype(x, weight, *([bias] if bias else []))
        expect_float(x)
        expect(x.rank >= 1, f"input must be [..., I], got {x}")
        expect_rank("weight", weight, 2)
        outputs, inputs = weight.shape
        expect_size("size of the last axis", x.shape[-1], inputs)
        expect(bias is None or bias.shape == (outputs,), f"bias must have shape ({outputs},), got {bias}")
        return TensorType(dtype, (*x.shape[:-1], outputs))

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        y = x @ weight.T
        return y if bias is None else y + bias

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx = dy · weight, dweight = dyᵀ · x, db = Σ dy, over the rows of x and dy."""
        x, weight = inputs[:2]
        rows, d_rows = x.reshape(-1, weight.shape[1]), cotangent.reshape(-1, weight.shape[0])
        return (cotangent @ weight, d_rows.T @ rows, d_rows.sum(axis=0))[: len(inputs)]

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size * inputs[1].shape[1]

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == types[0].rank - 1 else (low, high)


@op("softmax")
@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """y = exp((x − max x)/T) / Σ exp((x − max x)/T) along `axis`, at temperature T.

    Subtracting the maximum changes nothing but the range of exp. x = −∞ gives 0; an infinite maximum gives NaN, as in
    PyTorch.

    >>> Softmax().forward(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """

    axis: int = -1
    temperature: float = 1.0

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        expect(-x.rank <= self.axis < x.rank, f"axis {self.axis} does not exist in {x}")
        expect(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        return x

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is the NaN that the docstring promises
            e = np.exp((x - x.max(axis=self.axis, keepdims=True, initial=-np.inf)) / x.dtype.type(self.temperature))
            return e / e.sum(axis=self.axis, keepdims=True)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx = y · (dy − Σ dy·y) / T"""
        mean = (cotangent * output).sum(axis=self.axis, keepdims=True)
        return (output * (cotangent - mean) / output.dtype.type(self.temperature),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if self.axis % types[0].rank == axis else (low, high)
