"""`Op`: what one kind of layer means, and `OPS`: the table of all of them.

An op is a frozen dataclass; its fields are the attributes of the layer. The class states, in this order, the
maths (docstring), the fields, the type rule `infer`, the meaning `forward` and the gradient `vjp`. Nothing
else in the project defines what a layer computes: backends only compute the same faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy.typing as npt

from graphsr.dim import Dim, Size
from graphsr.errors import GraphError

if TYPE_CHECKING:
    from graphsr.ir import TensorType

Array: TypeAlias = npt.NDArray[Any]

OPS: dict[str, type[Op]] = {}
"""Every op by the name that the text form prints."""

T = TypeVar("T", bound="type[Op]")


class Op:
    """Base of all ops. Subclasses are frozen, slotted dataclasses entered with `@op(name)`.

    The signatures of `infer` and `forward` name the inputs of the op, so a wrong number of inputs is an error
    of the call itself. They return one value: an op with several results is one node per result
    (`Split(..., index=0)`, `Split(..., index=1)`), so that every node is one array.
    """

    __slots__ = ()
    name: ClassVar[str]

    def infer(self, *types: Any, **named: Any) -> TensorType:
        """The type rule: types of the inputs -> type of the output. Raises `GraphError` where ill-typed."""
        raise GraphError(f"op {self.name!r} has no type rule")

    def forward(self, *arrays: Any, **named: Any) -> Array:
        """The meaning of the op in the shortest correct NumPy. Never writes to its inputs."""
        raise GraphError(f"op {self.name!r} has no forward")

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """The gradient (vector-Jacobian product): for each input x the array Σ cotangent · ∂output/∂x, shaped
        like x, or None where the op is not differentiable in that input (indices, shapes)."""
        raise GraphError(f"op {self.name!r} has no gradient")

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        """Multiply-accumulates of one evaluation; 0 for ops whose cost is moving data."""
        return 0

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        """Which input pixels the output pixels low..high (inclusive) read, along `axis` (2 = height, 3 = width),
        for inputs of these types.

        None means all of them (a global reduction). Positions outside the input are padding. The default is an
        element-wise op. Receptive fields, halos and exact tiling follow from this one rule.
        """
        return low, high


def op(name: str) -> Callable[[T], T]:
    """Class decorator: enter an op in `OPS` under its printed name."""

    def enter(cls: T) -> T:
        if name in OPS:
            raise GraphError(f"two ops are called {name!r}")
        cls.name = name
        OPS[name] = cls
        return cls

    return enter


def check_attributes(op: Op) -> None:
    """Raise `GraphError` unless every field has the type that the class declares: attributes come from files too."""
    for name, hint in _hints(type(op)).items():  # type: ignore[arg-type]  # mypy takes a class for its instance's __hash__
        value = getattr(op, name)
        if not _fits(value, hint):  # only then the message: printing the array of a constant takes a millisecond
            raise GraphError(f"attribute {name} must be {_words(hint)}, got {value!r}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[1:] == (...,):
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if isinstance(value, bool) and hint is not bool:
        return False
    return isinstance(value, int | float if hint is float else origin or hint)


def _words(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint)) if get_origin(hint) is None else str(hint)


def expect(condition: bool, message: str) -> None:
    """The type rules' check: raise `GraphError` unless the condition holds."""
    if not condition:
        raise GraphError(message)


# These are asked many times for each node of a network: a message is only put together for somebody to read it.


def expect_rank(what: str, type_: TensorType, rank: int) -> None:
    if len(type_.shape) != rank:
        raise GraphError(f"{what} must have {rank} dimensions, got {type_}")


def expect_float(*types: TensorType) -> None:
    for type_ in types:
        if type_.dtype not in ("float32", "float64"):
            raise GraphError(f"floating-point input expected, got {type_}")


def expect_size(what: str, got: Size, expected: Size) -> None:
    """Two sizes must agree; a size that is still open is checked when it is bound."""
    if not isinstance(got, Dim) and not isinstance(expected, Dim) and got != expected:
        raise GraphError(f"{what}: expected {expected}, got {got}")


def expect_positive(what: str, size: Size) -> None:
    if not isinstance(size, Dim) and size <= 0:
        raise GraphError(f"{what} would be {size}: the input is too small for this layer")


def same_dtype(*types: TensorType) -> str:
    """The common dtype of all inputs; mixing dtypes is an error, never a silent conversion."""
    if any(t.dtype != types[0].dtype for t in types):
        raise GraphError(f"all inputs must have one dtype, got {', '.join(t.dtype for t in types)}")
    return types[0].dtype


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes that broadcasting had added or stretched: the vjp of broadcasting."""
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=stretched, keepdims=True) if stretched else gradient
