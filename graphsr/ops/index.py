"""Reading and writing at places that are computed: gather, scatter, one-hot vectors.

Symbols: x data, i indices (int32 or int64, negative ones count from the end), u updates, y output. A place outside the
array is an error of the call (`GraphError`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Dim, Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_rank, expect_size, op, same_dtype
from graphsr.ops.generate import known
from graphsr.ops.reduce import normal_axes
from graphsr.ops.shape import scatter_add

Places = tuple[Array, ...]
"""One array of indices for each indexed axis, as NumPy takes them."""


@op("gather")
@dataclass(frozen=True, slots=True)
class Gather(Op):
    """y = the slices of x at i[…] along `axis`; the axes of i stand in the place of that axis.

    Each dy is added to where its slice was read.

    >>> Gather(axis=0).forward(np.array([10.0, 20.0, 30.0]), np.array([[2, 0]]))
    array([[30., 10.]])
    """

    axis: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _expect_indices(indices)
        (axis,) = normal_axes((self.axis,), x.rank)
        return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def forward(self, x: Array, indices: Array) -> Array:
        return np.asarray(x.take(_inside(indices, x.shape[self.axis]), self.axis))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, indices = inputs
        axis = self.axis % x.ndim
        slices = cotangent.reshape(*x.shape[:axis], indices.size, *x.shape[axis + 1 :])
        return scatter_add(slices, indices.ravel(), x.shape[axis], axis), None

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        x, indices = types
        return (low, high) if indices.rank == 1 and axis != self.axis % x.rank else None


@op("gather_elements")
@dataclass(frozen=True, slots=True)
class GatherElements(Op):
    """y[a, b, …] = x[i[a, b, …], b, …], where the index replaces the position along `axis` (`torch.gather`). Each dy is
    added to where its element was read.

    >>> GatherElements(axis=1).forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1], [0]]))
    array([[2.],
           [3.]])
    """

    axis: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _expect_indices(indices)
        _expect_fits(self.axis, x, indices)
        return TensorType(x.dtype, indices.shape)

    def forward(self, x: Array, indices: Array) -> Array:
        return x[_along(x, indices, self.axis)]

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, indices = inputs
        return _added(x.shape, _along(x, indices, self.axis), cotangent), None

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank else (low, high)


@op("gather_nd")
@dataclass(frozen=True, slots=True)
class GatherND(Op):
    """y[b…, p…] = x[b…, i[b…, p…, 0], …, i[b…, p…, k−1]]: each row of i is a place in the axes of x that follow the
    first `batch_axes`, which both have in common. Each dy is added to where its element or slice was read.

    >>> GatherND().forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0, 1], [1, 0]]))
    array([2., 3.])
    """

    batch_axes: int = 0

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        _expect_indices(indices)
        depth = _depth(indices)
        shared = self.batch_axes
        expect(
            0 <= shared < indices.rank, f"batch_axes {shared} must be less than the {indices.rank} axes of {indices}"
        )
        expect(shared + depth <= x.rank, f"indices of {depth} axes behind {shared} do not fit {x}")
        for a in range(shared):
            expect_size(f"size of batch axis {a}", indices.shape[a], x.shape[a])
        return TensorType(x.dtype, (*indices.shape[:-1], *x.shape[shared + depth :]))

    def forward(self, x: Array, indices: Array) -> Array:
        return np.asarray(x[_rows(x, indices, self.batch_axes)])

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, indices = inputs
        return _added(x.shape, _rows(x, indices, self.batch_axes), cotangent), None

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@dataclass(frozen=True, slots=True)
class Scatter(Op):
    """Base of the two scatters: y is x, with u written at the places that i names; `reduction="add"` adds u instead.

    Of several values for one place the last is written. dx is dy, with zeros where u has been written; du is dy at the
    places (where values collide, each of them gets it).
    """

    reduction: str = "none"

    def places(self, x: Array, indices: Array) -> Places:
        raise NotImplementedError

    def check(self, x: TensorType, indices: TensorType, updates: TensorType) -> None:
        _expect_indices(indices)
        same_dtype(x, updates)
        expect(self.reduction in ("none", "add"), f"reduction {self.reduction!r} is neither 'none' nor 'add'")

    def forward(self, x: Array, indices: Array, updates: Array) -> Array:
        y, places = x.copy(), self.places(x, indices)
        if self.reduction == "add":
            np.add.at(y, places, updates)
        else:
            y[places] = updates
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, indices, _ = inputs
        dx, places = cotangent.copy(), self.places(x, indices)
        if self.reduction == "none":
            dx[places] = 0
        return dx, None, np.asarray(cotangent[places])

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("scatter_elements")
@dataclass(frozen=True, slots=True)
class ScatterElements(Scatter):
    """y = x, then y[i[a, b, …], b, …] = u[a, b, …], where the index replaces the position along `axis`
    (`torch.scatter`). Inputs: x, i, u, the last two of one shape.

    >>> x = np.zeros(3)
    >>> ScatterElements(axis=0).forward(x, np.array([2, 0]), np.array([5.0, 6.0]))
    array([6., 0., 5.])
    """

    axis: int = 0

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        self.check(x, indices, updates)
        _expect_fits(self.axis, x, indices)
        expect(updates.shape == indices.shape, f"updates must have the shape of {indices}, got {updates}")
        return x

    def places(self, x: Array, indices: Array) -> Places:
        return _along(x, indices, self.axis)


@op("scatter_nd")
@dataclass(frozen=True, slots=True)
class ScatterND(Scatter):
    """y = x, then y[i[p…, 0], …, i[p…, k−1]] = u[p…]: each row of i is a place in the first k axes of x, for an element
    or a slice. Inputs: x, i, u.

    >>> x = np.zeros((2, 2))
    >>> ScatterND().forward(x, np.array([[1]]), np.array([[5.0, 6.0]]))
    array([[0., 0.],
           [5., 6.]])
    """

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> TensorType:
        self.check(x, indices, updates)
        depth = _depth(indices)
        expect(depth <= x.rank, f"indices of {depth} axes do not fit {x}")
        expected = (*indices.shape[:-1], *x.shape[depth:])
        expect_rank("updates", updates, len(expected))
        for a, (got, size) in enumerate(zip(updates.shape, expected, strict=True)):
            expect_size(f"size of axis {a} of updates", got, size)
        return x

    def places(self, x: Array, indices: Array) -> Places:
        return _rows(x, indices, 0)


@op("one_hot")
@dataclass(frozen=True, slots=True)
class OneHot(Op):
    """y[…, k, …] = on where k = i[…], else off, for k in 0 … depth−1 along the new `axis`. An index outside −depth …
    depth−1 gives off everywhere. Inputs: i (numbers), (off, on); the gradient of these two are the sums of dy.

    >>> OneHot(depth=3).forward(np.array([2, -3]), np.array([0.0, 1.0]))
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """

    depth: Size
    axis: int = -1

    def infer(self, indices: TensorType, values: TensorType) -> TensorType:
        expect(values.shape == (2,), f"(off, on) must have shape (2,), got {values}")
        (axis,) = normal_axes((self.axis,), indices.rank + 1)
        return TensorType(values.dtype, (*indices.shape[:axis], self.depth, *indices.shape[axis:]))

    def forward(self, indices: Array, values: Array) -> Array:
        return np.where(self._on(indices), values[1], values[0])

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        on = self._on(inputs[0])
        return None, np.array([cotangent[~on].sum(), cotangent[on].sum()])

    def _on(self, indices: Array) -> Array:
        """Where y is on."""
        depth = known(self.depth)
        wanted = np.expand_dims(np.where(indices < 0, indices + depth, indices), self.axis)
        shape = [1] * wanted.ndim
        shape[self.axis] = depth
        return wanted == np.arange(depth).reshape(shape)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


def _expect_indices(indices: TensorType) -> None:
    expect(indices.dtype in ("int32", "int64"), f"indices must be int32 or int64, got {indices}")


def _expect_fits(axis: int, x: TensorType, indices: TensorType) -> None:
    """Indices that replace the position along one axis reach no further than x along the others."""
    expect_rank("indices", indices, x.rank)
    (axis,) = normal_axes((axis,), x.rank)
    for a, (got, size) in enumerate(zip(indices.shape, x.shape, strict=True)):
        fits = isinstance(got, Dim) or isinstance(size, Dim) or got <= size
        expect(a == axis or fits, f"axis {a} of indices {indices} is longer than that of {x}")


def _depth(indices: TensorType) -> int:
    """k, the length of the rows of indices."""
    expect(indices.rank >= 1, f"indices must have at least one axis, got {indices}")
    return known(indices.shape[-1])


def _inside(indices: Array, size: int) -> Array:
    """The indices, if all of them are positions of an axis of this size."""
    if indices.size:
        expect_inside(int(indices.min()), int(indices.max()), size)
    return indices


def expect_inside(low: int, high: int, size: int) -> None:
    """Raise `GraphError` unless indices from `low` to `high` are positions of an axis of this size."""
    expect(-size <= low and high < size, f"indices {low} … {high} leave an axis of {size} elements")


def _along(x: Array, indices: Array, axis: int) -> Places:
    """The places of elements whose position along one axis is given, and along the others that of the index itself."""
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _inside(indices, x.shape[axis])
    return tuple(places)


def _rows(x: Array, indices: Array, shared: int) -> Places:
    """The places that the rows of indices name, behind the first `shared` axes, which run along."""
    outer = np.indices(indices.shape[:-1], sparse=True)[:shared]
    inner = (_inside(indices[..., k], x.shape[shared + k]) for k in range(indices.shape[-1]))
    return (*outer, *inner)


def _added(shape: tuple[int, ...], places: Places, cotangent: Array) -> Array:
    """Zeros of this shape, to which the cotangent is added at the places."""
    total = np.zeros(shape, cotangent.dtype)
    np.add.at(total, places, cotangent)
    return total
