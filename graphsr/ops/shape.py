"""Ops that move elements without computing: reshape, transpose, concat, split, slice, pad.

All but `Pad` take arrays of any dtype and rank. Negative axes count from the last, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphsr.dim import Dim, Size, larger, product, smaller
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_size, op, same_dtype
from graphsr.ops.reduce import normal_axes


@op("reshape")
@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """The same elements in row-major order under another shape. One size may be −1: it follows from the others.
    0 is a size like any other (not ONNX's "as in the input").

    >>> Reshape(shape=(3, -1)).forward(np.arange(6.0))
    array([[0., 1.],
           [2., 3.],
           [4., 5.]])
    """

    shape: tuple[Size, ...]

    def infer(self, x: TensorType) -> TensorType:
        known = product(n for n in self.shape if n != -1)
        unknown = self.shape.count(-1)
        expect(unknown <= 1, f"shape {self.shape} has {unknown} sizes of -1, at most one can be found")
        expect(not unknown or known != 0, f"-1 in shape {self.shape} has no answer beside a size of 0")
        if not unknown:
            expect_size("number of elements", known, x.size)
            return TensorType(x.dtype, self.shape)
        rest = x.size // known
        expect_size(f"number of elements of shape {self.shape}", rest * known, x.size)
        return TensorType(x.dtype, tuple(rest if n == -1 else n for n in self.shape))

    def forward(self, x: Array) -> Array:
        return x.reshape(self.infer(TensorType(x.dtype.name, x.shape)).dims)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (cotangent.reshape(inputs[0].shape),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        """Pixels stay where they are when height and width do; else any output may come from anywhere."""
        (x,), y = types, self.infer(*types)
        return (low, high) if x.rank == y.rank == 4 and x.shape[2:] == y.shape[2:] else None


@op("transpose")
@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Axis i of y is axis axes[i] of x.

    >>> Transpose(axes=(1, 0)).forward(np.array([[1.0, 2.0]]))
    array([[1.],
           [2.]])
    """

    axes: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        complete = normal_axes(self.axes, x.rank) == tuple(range(x.rank))
        expect(complete, f"axes {self.axes} must name each of the {x.rank} dimensions once")
        return TensorType(x.dtype, tuple(x.shape[i] for i in self.axes))

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        inverse = np.argsort([axis % output.ndim for axis in self.axes])
        return (cotangent.transpose(inverse),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        (x,) = types
        return (low, high) if x.rank == 4 and self.axes[axis] % 4 == axis else None


@op("concat")
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """The inputs one after the other along `axis`.

    >>> Concat(axis=0).forward(np.array([1.0]), np.array([2.0, 3.0]))
    array([1., 2., 3.])
    """

    axis: int

    def infer(self, *inputs: TensorType) -> TensorType:
        expect(len(inputs) >= 1, "at least one input is needed")
        dtype, first = same_dtype(*inputs), inputs[0]
        axis = _axis(self.axis, first.rank)
        total: Size = 0
        for i, x in enumerate(inputs):
            expect(x.rank == first.rank, f"all inputs must have {first.rank} dimensions, input {i} is {x}")
            for a in set(range(first.rank)) - {axis}:
                expect_size(f"size of axis {a} of input {i}", x.shape[a], first.shape[a])
            total = total + x.shape[axis]
        return TensorType(dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))

    def forward(self, *inputs: Array) -> Array:
        return np.concatenate(inputs, self.axis)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        ends = np.cumsum([x.shape[self.axis] for x in inputs])
        return tuple(np.split(cotangent, ends[:-1], self.axis))

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == _axis(self.axis, types[0].rank) else (low, high)


@op("split")
@dataclass(frozen=True, slots=True)
class Split(Op):
    """The `index`-th of the pieces of `sizes` that x is cut into along `axis`: one node per piece.

    >>> Split(axis=0, sizes=(1, 2), index=1).forward(np.array([1.0, 2.0, 3.0]))
    array([2., 3.])
    """

    axis: int
    sizes: tuple[int, ...]
    index: int

    def infer(self, x: TensorType) -> TensorType:
        axis = _axis(self.axis, x.rank)
        expect(0 <= self.index < len(self.sizes), f"piece {self.index} does not exist, there are {len(self.sizes)}")
        expect(min(self.sizes) >= 0, f"sizes {self.sizes} must not be negative")
        expect_size(f"size of axis {axis}", x.shape[axis], sum(self.sizes))
        return TensorType(x.dtype, (*x.shape[:axis], self.sizes[self.index], *x.shape[axis + 1 :]))

    def forward(self, x: Array) -> Array:
        return x[self._piece(x.ndim)]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        dx = np.zeros(inputs[0].shape, cotangent.dtype)
        dx[self._piece(dx.ndim)] = cotangent
        return (dx,)

    def _piece(self, rank: int) -> tuple[slice, ...]:
        start = sum(self.sizes[: self.index])
        return (*[slice(None)] * _axis(self.axis, rank), slice(start, start + self.sizes[self.index]))

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        start = sum(self.sizes[: self.index]) if axis == _axis(self.axis, types[0].rank) else 0
        return low + start, high + start


@op("slice")
@dataclass(frozen=True, slots=True)
class Slice(Op):
    """y = x[starts[0]:stops[0]:steps[0], …], where the i-th slice is along axes[i], by the rules of Python: negative
    positions count from the end, those outside are clipped, None is "from the first" or "to the last".

    While sizes are open, an open start or stop is taken to lie in the array, counted from the front, and the result
    not to be empty; once they are bound the rules above hold.

    >>> Slice(starts=(1, None), stops=(None, None), axes=(0, 1), steps=(1, -1)).forward(np.array([[0, 1], [2, 3]]))
    array([[3, 2]])
    >>> Slice((2,), (-2,), (0,), (1,)).infer(TensorType("float32", (Dim.symbol("H"),)))
    float32[H-4]
    """

    starts: tuple[Size | None, ...]
    stops: tuple[Size | None, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]

    def infer(self, x: TensorType) -> TensorType:
        lengths = {len(self.starts), len(self.stops), len(self.axes), len(self.steps)}
        expect(len(lengths) == 1, f"starts, stops, axes and steps must be equally many in {self}")
        expect(0 not in self.steps, f"steps {self.steps} must not be zero")
        normal_axes(self.axes, x.rank)
        shape = list(x.shape)
        for start, stop, axis, step in zip(self.starts, self.stops, self.axes, self.steps, strict=True):
            shape[axis] = _slice_length(start, stop, step, shape[axis])
        return TensorType(x.dtype, tuple(shape))

    def forward(self, x: Array) -> Array:
        return x[self._slices(x.ndim)]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        dx = np.zeros(inputs[0].shape, cotangent.dtype)
        dx[self._slices(dx.ndim)] = cotangent
        return (dx,)

    def _slices(self, rank: int) -> tuple[slice, ...]:
        slices = [slice(None)] * rank
        for start, stop, axis, step in zip(self.starts, self.stops, self.axes, self.steps, strict=True):
            slices[axis] = slice(start, stop, step)
        return tuple(slices)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        (x,) = types
        if x.rank != 4:
            return None
        n, cut = x.shape[axis], self._slices(x.rank)[axis]
        step = cut.step or 1
        if isinstance(n, int) and not isinstance(cut.start, Dim) and not isinstance(cut.stop, Dim):
            start = cut.indices(n)[0]
        elif step > 0 and (cut.start is None or (isinstance(cut.start, int) and cut.start >= 0)):
            start = cut.start or 0
        else:
            return None  # where the slice starts depends on an open size
        ends = start + step * low, start + step * high
        return min(ends), max(ends)


@op("pad")
@dataclass(frozen=True, slots=True)
class Pad(Op):
    """x with rows and columns added around its last two axes, filled with `value` ("constant"), the nearest pixel of
    x ("edge"), or x mirrored at the outermost pixel, which is not repeated ("reflect").

    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> Pad(padding=(0, 2, 0, 1), mode="reflect").forward(x)
    array([[3., 2., 1., 2., 3., 2.]])
    """

    padding: tuple[int, int, int, int]  # top, left, bottom, right
    mode: str = "constant"
    value: float = 0.0

    def infer(self, x: TensorType) -> TensorType:
        expect(x.rank >= 2, f"at least 2 dimensions are needed, got {x}")
        expect(min(self.padding) >= 0, f"padding {self.padding} must not be negative")
        expect(self.mode in ("constant", "reflect", "edge"), f"mode {self.mode!r} is not constant, reflect or edge")
        *outer, h, w = x.shape
        top, left, bottom, right = self.padding
        for size, widest in ((h, max(top, bottom)), (w, max(left, right))):
            if isinstance(size, int) and widest:
                expect(self.mode != "reflect" or widest < size, f"{size} pixels cannot be mirrored by {widest}")
                expect(self.mode != "edge" or size > 0, f"{x} has no edge to repeat")
        return TensorType(x.dtype, (*outer, h + top + bottom, w + left + right))

    def forward(self, x: Array) -> Array:
        if self.mode == "constant":
            top, left, bottom, right = self.padding
            widths = [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)]
            return np.pad(x, widths, constant_values=self.value)
        rows, columns = self._sources(x.shape)
        return x[..., rows[:, None], columns]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        h, w = inputs[0].shape[-2:]
        if self.mode == "constant":
            top, left = self.padding[:2]
            return (cotangent[..., top : top + h, left : left + w],)
        rows, columns = self._sources(inputs[0].shape)
        return (scatter_add(scatter_add(cotangent, columns, w, axis=-1), rows, h, axis=-2),)

    def _sources(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Which row and column of x each row and column of y repeats."""
        rows, columns = (
            _fold(np.arange(-self.padding[a], shape[a - 2] + self.padding[a + 2]), shape[a - 2], self.mode)
            for a in (0, 1)
        )
        return rows, columns

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        """Besides the pixels themselves those that the padding repeats; the far border counts once it is known."""
        (x,) = types
        if x.rank != 4:
            return None
        n, before, after = x.shape[axis], self.padding[axis - 2], self.padding[axis]
        low, high = low - before, high - before
        if self.mode == "constant":
            return low, high
        mirrored = -low if self.mode == "reflect" else 0
        if isinstance(n, int) and n <= high < n + after:
            low = min(low, int(_fold(np.array(high), n, self.mode)))
        return low, max(high, mirrored) if -before <= low < 0 else high


def scatter_add(gradient: Array, index: Array, size: int, axis: int) -> Array:
    """The vjp of x.take(index, axis), where x has `size` elements along `axis`: what was read often adds up."""
    total = np.zeros((*gradient.shape[:axis], size, *gradient.shape[axis:][1:]), gradient.dtype)
    np.add.at(np.moveaxis(total, axis, 0), index, np.moveaxis(gradient, axis, 0))
    return total


def _fold(position: Array, n: int, mode: str) -> Array:
    """The pixel in 0 … n−1 that stands at a position outside."""
    if mode == "edge":
        return position.clip(0, n - 1)
    return (n - 1) - np.abs((n - 1) - np.abs(position))


def _axis(axis: int, rank: int) -> int:
    return normal_axes((axis,), rank)[0]


def _slice_length(start: Size | None, stop: Size | None, step: int, n: Size) -> Size:
    if all(size is None or isinstance(size, int) for size in (start, stop, n)):
        return len(range(*slice(start, stop, step).indices(n)))  # type: ignore[arg-type]  # n is an int here
    if step > 0:
        first = 0 if start is None else _clip(start, n, larger, 0)
        end = n if stop is None else _clip(stop, n, smaller, n)
        return (end - first + step - 1) // step
    first = n - 1 if start is None else _clip(start, n, smaller, n - 1)
    end = -1 if stop is None else _clip(stop, n, larger, -1)
    return (first - end - step - 1) // -step


def _clip(position: Size, n: Size, clip: Callable[[Size, Size], Size], bound: Size) -> Size:
    """A position from the front, clipped on the side where it can leave a slice that is not empty."""
    if isinstance(position, Dim):
        return position
    return clip(n + position if position < 0 else position, bound)
