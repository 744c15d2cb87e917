"""What the rules of the ONNX export are written with: `Writer` collects a file, `Site` is the place of one op in it.

A rule says how an op is written: `rule(site, op, *names of the inputs) -> name of the result`. It calls the site with
an operator and its inputs, names or arrays, and gets the name of what comes out:

    lambda s, op, x: s("Mul", x, s("Sigmoid", x))

Sizes that are open are computed in the file from the shapes of its inputs, each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphsr.dim import Dim, Extremum, FloorDiv, Size, Symbol
from graphsr.errors import ModelError
from graphsr.ir import TensorType
from graphsr.op import Array, Op

Rule: TypeAlias = Callable[..., str]
"""(site, op, *names of the inputs) -> name of the result, which may be an input. Raises `UnwritableError`."""
Rules: TypeAlias = dict[type[Op], Rule]
Operand: TypeAlias = "str | Array"


class UnwritableError(ModelError):
    """An op that ONNX cannot express with these attributes; the message is the reason."""


class Writer:
    """Collects the operators and the constants of a file; names of helpers derive from the node that needs them."""

    def __init__(self, inputs: Mapping[str, TensorType], taken: Iterable[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._inputs = inputs
        self._taken = set(taken)
        self._unnamed: dict[str, onnx.NodeProto] = {}
        self._splits: dict[tuple[object, ...], onnx.NodeProto] = {}
        self._sizes: dict[Dim, str] = {}

    def fresh(self, base: str) -> str:
        """A name that nothing else has."""
        name, suffix = base, 2
        while name in self._taken:
            name, suffix = f"{base}_{suffix}", suffix + 1
        self._taken.add(name)
        return name

    def constant(self, value: Array, base: str) -> str:
        name = self.fresh(base)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, inputs: Iterable[str], base: str, count: int = 1, **attributes: Any) -> list[str]:
        """One operator -> the names of its results."""
        outputs = [self.fresh(base) for _ in range(count)]
        self.nodes.append(helper.make_node(operator, list(inputs), outputs, outputs[0], **attributes))
        return outputs

    def unnamed(self, operator: str, inputs: Iterable[str], base: str, count: int, **attributes: Any) -> list[str]:
        """As `add`, but one of the results may be that of an op, and is then called so (`settle`)."""
        outputs = self.add(operator, inputs, base, count, **attributes)
        self._unnamed.update(dict.fromkeys(outputs, self.nodes[-1]))
        return outputs

    def settle(self, result: str, name: str, called: str) -> None:
        """Give a result its final name: that of the operator it comes from or, where it has a name, a copy; the
        operator is called so."""
        node = self._unnamed.pop(result, None)
        if node is None:
            self.nodes.append(helper.make_node("Identity", [result], [name], called))
            return
        node.output[list(node.output).index(result)] = name
        node.name = called

    def split(self, x: str, axis: int, sizes: tuple[int, ...], base: str) -> onnx.NodeProto:
        """The operator that cuts x into these pieces: one for all that read a piece."""
        key = (x, axis, sizes)
        if key not in self._splits:
            lengths = self.constant(np.array(sizes, np.int64), f"{base}.sizes")
            self.unnamed("Split", [x, lengths], f"{base}.piece", len(sizes), axis=axis)
            self._splits[key] = self.nodes[-1]
        return self._splits[key]

    def size(self, size: Dim) -> str:
        """A vector of one element, the value of an open size."""
        if size not in self._sizes:
            match size.terms:
                case (((Symbol(name),), 1),):
                    self._sizes[size] = self._symbol(name)
                case terms:
                    summands = [self._term(size, atoms, factor) for atoms, factor in terms]
                    self._sizes[size] = self._chain("Add", summands, size)
        return self._sizes[size]

    def _term(self, size: Dim, atoms: tuple[object, ...], factor: int) -> str:
        factors = [self._atom(atom) for atom in atoms]
        if factor != 1 or not factors:
            factors.append(self.constant(np.array([factor], np.int64), f"size.{size}.const"))
        return self._chain("Mul", factors, size)

    def _chain(self, operator: str, values: list[str], size: Size) -> str:
        total = values[0]
        for value in values[1:]:
            (total,) = self.add(operator, [total, value], f"size.{size}")
        return total

    def _atom(self, atom: object) -> str:
        match atom:
            case Symbol(name):
                return self.size(Dim.symbol(name))
            case FloorDiv(numerator, divisor):  # of no negative number, so that Div, which truncates, rounds down
                operands = [self._sized(numerator), self._sized(divisor)]
                return self.add("Div", operands, f"size.{atom}")[0]
            case Extremum(which, a, b):
                return self.add(which.title(), [self._sized(a), self._sized(b)], f"size.{atom}")[0]
        raise UnwritableError(f"size {atom} has no form in ONNX")

    def _sized(self, size: Size) -> str:
        if isinstance(size, Dim):
            return self.size(size)
        return self.constant(np.array([size], np.int64), f"size.{size}")

    def _symbol(self, name: str) -> str:
        symbol = Dim.symbol(name)
        for given, type_ in self._inputs.items():
            if symbol in type_.shape:
                axis = type_.shape.index(symbol)
                return self.add("Shape", [given], f"size.{name}", start=axis, end=axis + 1)[0]
        raise UnwritableError(f"open size {name} is the size of no input")


@dataclass(frozen=True)
class Value:
    """A value of the file: its name, its type and, where it is a constant, the array."""

    name: str
    type: TensorType
    array: Array | None = None


class Site:
    """Where an op is written: what it is called in the file, its inputs, the type of its result."""

    def __init__(self, writer: Writer, name: str, inputs: tuple[Value, ...], output: TensorType) -> None:
        self.writer = writer
        self.name = name
        self.inputs = inputs
        self.types = tuple(value.type for value in inputs)
        self.output = output

    def __call__(self, operator: str, *inputs: Operand, **attributes: Any) -> str:
        """Adds an operator with one result. Arrays among the inputs become constants; "" leaves one out."""
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, count: int, *inputs: Operand, **attributes: Any) -> list[str]:
        """Adds an operator with several results."""
        names = [x if isinstance(x, str) else self.writer.constant(x, f"{self.name}.const") for x in inputs]
        return self.writer.unnamed(operator, names, f"{self.name}.{operator}", count, **attributes)

    @property
    def x(self) -> TensorType:
        """The type of the first input."""
        return self.types[0]

    @property
    def dtype(self) -> str:
        """The dtype of the first input, in which most ops compute; of the result where there is no input."""
        return (self.types or (self.output,))[0].dtype

    def number(self, value: float) -> Array:
        """A scalar in the dtype of the first input."""
        return np.array(value, self.dtype)

    def cast(self, x: Operand, dtype: str) -> str:
        return self("Cast", x, to=onnx_dtype(dtype))

    def sizes(self, shape: Iterable[Size]) -> Operand:
        """A vector of sizes: a constant where all are known, else put together of known and computed ones."""
        pieces: list[Operand] = []
        known: list[int] = []
        for size in (*shape, None):
            if isinstance(size, int):
                known.append(size)
                continue
            if known or (size is None and not pieces):
                pieces.append(integers(known))
                known = []
            if size is not None:
                pieces.append(self.writer.size(size))
        return pieces[0] if len(pieces) == 1 else self("Concat", *pieces, axis=0)

    def scalar(self, size: Size) -> Operand:
        """A size as a tensor without axes."""
        if isinstance(size, int):
            return np.array(size, np.int64)
        return self("Reshape", self.writer.size(size), integers([]))

    def reshape(self, x: str, shape: Sequence[Size]) -> str:
        """x, of the shape of the first input, under another: with sizes that are copied (0) or follow from the others
        (−1), and computed ones only where these are not enough."""
        if any(size == 0 and isinstance(size, int) for size in shape):
            return self("Reshape", x, self.sizes(shape), allowzero=1)
        before = self.x.shape
        copied: list[Size] = [
            0 if isinstance(size, Dim) and axis < len(before) and before[axis] == size else size
            for axis, size in enumerate(shape)
        ]
        computed = [axis for axis, size in enumerate(copied) if isinstance(size, Dim)]
        if len(computed) <= 1:
            return self("Reshape", x, integers(-1 if isinstance(size, Dim) else size for size in copied))
        return self("Reshape", x, self.sizes(shape))

    def per_channel(self, vector: str) -> str:
        """v[C] as [C, 1, …], which broadcasts along axis 1 of the first input."""
        axes = range(1, self.x.rank - 1)
        return self("Unsqueeze", vector, integers(axes)) if axes else vector

    def slice(self, x: str, axis: int, start: str | int = 0, stop: str | int | None = None) -> str:
        """x[start:stop] along one axis; start and stop are numbers, or names of vectors of one element."""
        first = start if isinstance(start, str) else integers([start])
        last = stop if isinstance(stop, str) else integers([MOST if stop is None else stop])
        return self("Slice", x, first, last, integers([axis]))


MOST = 2**63 - 1
LEAST = -(2**63)
"""What ONNX takes for "to the end" of a slice, forwards and backwards."""


def integers(values: Iterable[int]) -> Array:
    """An int64 vector."""
    return np.array(list(values), np.int64)


def onnx_dtype(dtype: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def plain(operator: str) -> Rule:
    """An op without attributes that ONNX has under the same meaning."""
    return lambda s, op, *x: s(operator, *x)
