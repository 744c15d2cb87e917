"""Dropout, with a mask that anybody can compute again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op


@op("dropout")
@dataclass(frozen=True, slots=True)
class Dropout(Op):
    """y = x·k/(1 − p), where k is 0 with probability p, else 1 (Srivastava et al. 2014, inverted); dx = dy·k/(1 − p).
    For training: at inference there is no dropout, and the importers leave it out.

    k = [u ≥ p] with the 64-bit numbers u/2⁶⁴ that the generator Philox4x64-10 with the key (seed, step) gives, one for
    each element in row-major order (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). The mask
    follows from seed, step and shape alone, on every machine. Inputs: x, and the step (an int64 scalar, 0 if left out),
    which a training loop counts, so that each step has its own mask.

    >>> Dropout(0.5, seed=1).forward(np.ones(8))
    array([0., 2., 0., 0., 2., 0., 2., 0.])
    """

    probability: float
    seed: int = 0

    def infer(self, x: TensorType, step: TensorType | None = None) -> TensorType:
        expect_float(x)
        expect(0 <= self.probability < 1, f"probability must be from 0 to less than 1, got {self.probability}")
        expect(0 <= self.seed < 2**64, f"seed {self.seed} must be from 0 to 2⁶⁴ − 1")
        expect(step is None or (step.dtype, step.shape) == ("int64", ()), f"step must be an int64 scalar, got {step}")
        return x

    def forward(self, x: Array, step: Array | None = None) -> Array:
        return x * self._factor(x, step)

    def _factor(self, x: Array, step: Array | None) -> Array:
        """k/(1 − p)"""
        count = 0 if step is None else int(step) % 2**64
        generator = np.random.Philox(key=self.seed + (count << 64))
        keep = generator.random_raw(x.size).reshape(x.shape) >= np.uint64(self.probability * 2**64)
        return keep.astype(x.dtype) / x.dtype.type(1 - self.probability)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, step = inputs[0], inputs[1] if len(inputs) > 1 else None
        return (cotangent * self._factor(x, step), None)[: len(inputs)]

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None  # the mask depends on where a pixel lies: the image cannot be cut
