"""Arithmetic on whole arrays: the shortcut of residual networks and the four operations with broadcasting."""

from __future__ import annotations

from dataclasses import dataclass

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op, same_dtype, unbroadcast


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


@dataclass(frozen=True, slots=True)
class Arithmetic(Op):
    """Base of the four operations y = a ∘ b, element by element. Shapes are broadcast as in NumPy: aligned at the last
    axis, where an axis of size 1 is repeated. Integers stay integers and wrap around at the end of their range."""

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        dtype = same_dtype(a, b)
        expect(dtype != "bool", "arithmetic on bool is not defined")
        return TensorType(dtype, broadcast(a.shape, b.shape))

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        """(dy·∂y/∂a, dy·∂y/∂b), in the shape of y."""
        raise NotImplementedError

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array, ...]:
        a, b = inputs
        partials = self.partials(a, b, output, cotangent)
        return tuple(unbroadcast(d, x.shape) for d, x in zip(partials, inputs, strict=True))


@op("add")
@dataclass(frozen=True, slots=True)
class Add(Arithmetic):
    """y = a + b; da = dy, db = dy

    >>> Add().forward(np.array([[1.0], [2.0]]), np.array([10.0, 20.0]))
    array([[11., 21.],
           [12., 22.]])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return dy, dy


@op("sub")
@dataclass(frozen=True, slots=True)
class Sub(Arithmetic):
    """y = a − b; da = dy, db = −dy

    >>> Sub().forward(np.array([3, 5]), np.array([1]))
    array([2, 4])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return dy, -dy


@op("mul")
@dataclass(frozen=True, slots=True)
class Mul(Arithmetic):
    """y = a·b; da = dy·b, db = dy·a

    >>> Mul().forward(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([3., 8.])
    """

    def forward(self, a: Array, b: Array) -> Array:
        return a * b

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return dy * b, dy * a


@op("div")
@dataclass(frozen=True, slots=True)
class Div(Arithmetic):
    """y = a / b, for floating-point numbers; da = dy/b, db = −dy·y/b

    >>> Div().forward(np.array([1.0, 6.0]), np.array([2.0]))
    array([0.5, 3. ])
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        expect_float(a, b)
        return Arithmetic.infer(self, a, b)

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def partials(self, a: Array, b: Array, y: Array, dy: Array) -> tuple[Array, Array]:
        return dy / b, -dy * y / b


def broadcast(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The common shape of arrays that are broadcast against each other.

    An axis that is not 1 must be the same in all of them. An open size is taken to differ from every number and from
    every other open size: whether it would be repeated must not depend on the size of an image. Raises `GraphError`.
    """
    rank = max(map(len, shapes), default=0)
    common: list[Size] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        wide = [n for n in sizes if n != 1]
        text = " and ".join(f"({', '.join(map(str, shape))})" for shape in shapes)
        expect(all(n == wide[0] for n in wide), f"{text} cannot be broadcast: {' and '.join(map(str, wide))} differ")
        common.append(wide[0] if wide else 1)
    return tuple(common)
