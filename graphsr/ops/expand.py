"""Ops that repeat, move or mask elements, and the conversion of their dtype."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import DTYPES, TensorType
from graphsr.op import Array, Op, expect, op, unbroadcast
from graphsr.ops.elementwise import broadcast
from graphsr.ops.generate import known
from graphsr.ops.reduce import normal_axes
from graphsr.ops.shape import scatter_add


@op("expand")
@dataclass(frozen=True, slots=True)
class Expand(Op):
    """y = x, broadcast against `shape`: axes of size 1 are repeated, on either side. dx is the sum over the copies.

    >>> Expand(shape=(2, 1)).forward(np.array([[1.0, 2.0]]))
    array([[1., 2.],
           [1., 2.]])
    """

    shape: tuple[Size, ...]

    def infer(self, x: TensorType) -> TensorType:
        return TensorType(x.dtype, broadcast(x.shape, self.shape))

    def forward(self, x: Array) -> Array:
        return np.broadcast_to(x, self.infer(TensorType(x.dtype.name, x.shape)).dims)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (unbroadcast(cotangent, inputs[0].shape),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        (x,), y = types, self.infer(*types)
        return (low, high) if x.rank == y.rank == 4 and x.shape[axis] == y.shape[axis] else None


@op("tile")
@dataclass(frozen=True, slots=True)
class Tile(Op):
    """y = repeats[a] copies of x, one after the other along each axis a. dx is the sum over the copies.

    >>> Tile(repeats=(3,)).forward(np.array([1.0, 2.0]))
    array([1., 2., 1., 2., 1., 2.])
    """

    repeats: tuple[Size, ...]

    def infer(self, x: TensorType) -> TensorType:
        expect(len(self.repeats) == x.rank, f"{len(self.repeats)} repeats do not fit {x}")
        return TensorType(x.dtype, tuple(n * r for n, r in zip(x.shape, self.repeats, strict=True)))

    def forward(self, x: Array) -> Array:
        return np.tile(x, [known(r) for r in self.repeats])

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """[r₀·n₀, r₁·n₁, …] as [r₀, n₀, r₁, n₁, …], summed over the r."""
        (x,) = inputs
        pairs = zip(self.repeats, x.shape, strict=True)
        copies = cotangent.reshape([known(size) for pair in pairs for size in pair])
        return (copies.sum(axis=tuple(range(0, copies.ndim, 2))),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return (low, high) if types[0].rank == 4 and self.repeats[axis] == 1 else None


@op("roll")
@dataclass(frozen=True, slots=True)
class Roll(Op):
    """y[(k + shifts[j]) mod n] = x[k] along axes[j]: what leaves at one end comes in at the other (`torch.roll`). The
    gradient rolls back.

    >>> Roll(shifts=(1,), axes=(0,)).forward(np.array([1.0, 2.0, 3.0]))
    array([3., 1., 2.])
    """

    shifts: tuple[int, ...]
    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        expect(len(self.shifts) == len(self.axes), f"{len(self.shifts)} shifts for {len(self.axes)} axes")
        normal_axes(self.axes, x.rank)
        return x

    def forward(self, x: Array) -> Array:
        return np.roll(x, self.shifts, self.axes)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (np.roll(cotangent, tuple(-shift for shift in self.shifts), self.axes),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis in normal_axes(self.axes, types[0].rank) else (low, high)


@op("triangle")
@dataclass(frozen=True, slots=True)
class Triangle(Op):
    """y[…, i, j] = x[…, i, j] on the diagonal j = i + k and above it (below it, with `upper=False`), else 0.

    >>> Triangle().forward(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [0., 4.]])
    """

    k: int = 0
    upper: bool = True

    def infer(self, x: TensorType) -> TensorType:
        expect(x.rank >= 2, f"at least 2 dimensions are needed, got {x}")
        return x

    def forward(self, x: Array) -> Array:
        return np.triu(x, self.k) if self.upper else np.tril(x, self.k)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (self.forward(cotangent),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis >= types[0].rank - 2 else (low, high)


@op("cast")
@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The same numbers in another dtype. Real numbers lose what follows the point when they become integers, and those
    that the dtype does not have become what NumPy makes of them on this machine; whatever is not 0 is true. A gradient
    goes between floating-point dtypes only.

    >>> Cast("int64").forward(np.array([-1.5, 1.5]))
    array([-1,  1])
    """

    dtype: str

    def infer(self, x: TensorType) -> TensorType:
        expect(self.dtype in DTYPES, f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        return TensorType(self.dtype, x.shape)

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return x.astype(self.dtype)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        real = inputs[0].dtype.kind == output.dtype.kind == "f"
        return (cotangent.astype(inputs[0].dtype) if real else None,)


PAD_MODES = ("constant", "edge", "reflect", "wrap")


@op("pad_nd")
@dataclass(frozen=True, slots=True)
class PadNd(Op):
    """x with elements added, or with a negative number taken away, before and behind every axis.

    `padding` is (before axis 0, before axis 1, …, behind axis 0, behind axis 1, …). They are filled with `value`
    ("constant"), with the nearest element of x ("edge"), with x mirrored at its outermost elements, which are not
    repeated ("reflect"), or with x from its other end ("wrap"). (`Pad` is the same for images, in fewer words.)

    >>> PadNd(padding=(2, 1), mode="wrap").forward(np.array([1.0, 2.0, 3.0]))
    array([2., 3., 1., 2., 3., 1.])
    >>> PadNd(padding=(-1, 1)).forward(np.array([1.0, 2.0, 3.0]))
    array([2., 3., 0.])
    """

    padding: tuple[Size, ...]
    mode: str = "constant"
    value: float = 0.0

    def infer(self, x: TensorType) -> TensorType:
        expect(len(self.padding) == 2 * x.rank, f"{len(self.padding)} numbers of padding do not fit {x}")
        expect(self.mode in PAD_MODES, f"mode {self.mode!r} is not one of {PAD_MODES}")
        shape = []
        for a, (n, before, behind) in enumerate(zip(x.shape, self.padding, self.padding[x.rank :], strict=False)):
            size = n + before + behind
            expect(not isinstance(size, int) or size >= 0, f"axis {a} of {x} would have {size} elements")
            empty = n == 0 and self.mode != "constant"
            expect(not empty or size == 0, f"axis {a} of {x} has no element to repeat")
            shape.append(size)
        return TensorType(x.dtype, tuple(shape))

    def forward(self, x: Array) -> Array:
        if self.mode == "constant":
            return self._framed(x)
        for axis, (source, _) in enumerate(self._sources(x.shape)):
            x = x.take(source, axis)
        return x

    def _framed(self, x: Array) -> Array:
        """The part of x that stays, amid the constant."""
        y = np.full(self.infer(TensorType(x.dtype.name, x.shape)).dims, self.value, x.dtype)
        kept, into = [], []
        for n, m, before in zip(x.shape, y.shape, map(known, self.padding), strict=False):
            first, last = max(0, -before), min(n, m - before)
            kept.append(slice(first, max(first, last)))
            into.append(slice(first + before, max(first, last) + before))
        y[tuple(into)] = x[tuple(kept)]
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """What was copied adds up, axis by axis; what is outside x counts only where it was copied from there."""
        (x,), dx = inputs, cotangent
        for axis, (source, inside) in enumerate(self._sources(x.shape)):
            copied = inside | (self.mode != "constant")
            dx = scatter_add(dx.compress(copied, axis), source[copied], x.shape[axis], axis)
        return (dx,)

    def _sources(self, shape: tuple[int, ...]) -> list[tuple[Array, Array]]:
        """For each axis, where every element of y comes from, and whether it lies in x."""
        sources = []
        for axis, n in enumerate(shape):
            before, behind = known(self.padding[axis]), known(self.padding[axis + len(shape)])
            position = np.arange(-before, n + behind)
            sources.append((_folded(position, n, self.mode), (position >= 0) & (position < n)))
        return sources

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        before = self.padding[axis] if types[0].rank == 4 and self.mode == "constant" else None
        return (low - before, high - before) if isinstance(before, int) else None


def _folded(position: Array, n: int, mode: str) -> Array:
    """The element in 0 … n−1 that stands at a position, as far outside as may be."""
    match mode:
        case "wrap":
            return position % max(n, 1)
        case "reflect" if n > 1:
            return (n - 1) - np.abs((n - 1) - position % (2 * (n - 1)))
        case _:
            return position.clip(0, max(n - 1, 0))
