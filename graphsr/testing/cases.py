"""What the strategies are made of: a `Case` is one op with concrete inputs, drawn by hypothesis.

Every op has one strategy, entered in `LAYERS` with `@layer(name)`. Arrays are drawn as bytes, so that they are
dense, cheap, and shrink to something readable; their values are odd multiples of 1/128 in (-2, 2), exact in
float32 and never on the kink of an activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from graphsr.ir import TensorType
from graphsr.op import Array, Op
from graphsr.ops import Conv2d, ConvNd, Fused
from graphsr.ops.winograd import R, matrices


@dataclass(frozen=True)
class Case:
    """One layer to test: the op and float32 (or integer) arrays for its inputs."""

    op: Op
    inputs: tuple[Array, ...]

    def astype(self, dtype: str) -> Case:
        """The same case with its floating-point inputs in another dtype."""
        return Case(self.op, tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in self.inputs))

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(TensorType(x.dtype.name, x.shape) for x in self.inputs)

    @property
    def terms(self) -> int:
        """Length of the longest sum behind one output element, for `tolerance`."""
        output = self.op.infer(*self.types)
        macs = self.op.macs(self.types, output)
        if isinstance(macs, int) and isinstance(output.size, int) and macs and output.size:
            return -(-macs // output.size)
        return max((x.size for x in self.inputs), default=1) if self.op.needs(0, 0, 2, *self.types) is None else 1

    def forward(self) -> Array:
        return self.op.forward(*self.inputs)

    def __repr__(self) -> str:
        return f"Case({self.op}, inputs of {', '.join(map(str, self.types))})"


Layer: TypeAlias = Callable[[], "st.SearchStrategy[Case]"]

LAYERS: dict[str, Layer] = {}
"""The strategy of every op, by the op's name."""


def layer(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function `draw -> Case` as the strategy of an op: `@layer("conv2d") def conv2d(draw): …`."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        LAYERS[name] = st.composite(function)
        return function

    return enter


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """A dense float32 array with values in (-2, 2) · scale, none of them zero."""
    size = int(np.prod(shape))
    values = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=np.int8)
    return ((values + np.float32(0.5)) / np.float32(64) * np.float32(scale)).astype(np.float32).reshape(shape)


@st.composite
def distinct_arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """A float32 array whose values all differ by at least 1/8: for ops that choose a largest element."""
    size = int(np.prod(shape))
    keys = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=np.uint8)
    ranks = np.argsort(np.argsort(keys, kind="stable"), kind="stable")
    return ((ranks - size / 2 + 0.5) / 8).astype(np.float32).reshape(shape)


@st.composite
def integers(draw: st.DrawFn, shape: tuple[int, ...], low: int, high: int) -> Array:
    """An int64 array with values from low to high, both included."""
    size = int(np.prod(shape))
    values = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype=np.uint8)
    return (values % (high - low + 1) + np.int64(low)).reshape(shape)


def tolerance(dtype: str | np.dtype[Any], terms: int = 1, magnitude: float = 1.0) -> float:
    """The largest difference that two correct evaluations of a sum of `terms` products may show.

    Each evaluation in precision ε is within γ = terms·ε of the exact value, relative to the sum of the absolute
    terms (Higham, "Accuracy and stability of numerical algorithms", 2002, §3.1), for which `magnitude` · terms
    is a bound when no product exceeds `magnitude`. Four more roundings cover what surrounds the sum.
    """
    return 2 * float(np.finfo(np.dtype(dtype)).eps) * (terms + 4) * max(terms, 1) * magnitude


def growth(op: Op) -> float:
    """How much larger the rounding errors of an op's algorithm are than those of the plain sum; 1 but for Winograd.

    In one dimension output i of F(m, 3) is Σ_k Aᵀ[i,k]·(G g)[k]·(Bᵀ d)[k]. For g and d of root mean square 1 the
    products in it have the squares Aᵀ[i,k]²·Σ_j G[k,j]²·Σ_l Bᵀ[k,l]², where the plain sum has three of 1. Errors that
    are independent add up in their squares (Higham & Mary, "A new approach to probabilistic rounding error
    analysis", 2019), so they grow by the root of the quotient, and in two dimensions by the quotient.
    """
    conv = op.base if isinstance(op, Fused) else op
    if not isinstance(conv, Conv2d | ConvNd) or not conv.algorithm.startswith("winograd"):
        return 1.0
    AT, G, BT = (matrix**2 for matrix in matrices(int(conv.algorithm[-1])))
    return float((AT @ (G.sum(axis=1) * BT.sum(axis=1))).max()) / R
