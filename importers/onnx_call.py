"""One operator of an ONNX graph, as the functions that translate it see it, and the table of these functions.

A function `f(call) -> Node` builds our nodes for one operator. It reads attributes and inputs through the `Call`; what
it does not read it does not support: an attribute that the file sets and no function reads is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from graphsr.dim import Size
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Array, Op

from .onnx_values import Values

Result: TypeAlias = "Node | Sequence[Node | None]"
Translate: TypeAlias = "Callable[[Call], Result]"

OPERATORS: dict[str, Translate] = {}
"""Every supported operator of the default domain, by name."""


def operator(*names: str) -> Callable[[Translate], Translate]:
    """Enter a function in the table."""

    def enter(function: Translate) -> Translate:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


@dataclass(frozen=True)
class Call:
    """An operator with its inputs as nodes (None where an optional one is left out).

    `version` is the opset version that introduced this form of the operator (its `since_version`), so that
    `call.version < 13` asks for the form before opset 13. `given` has the attributes of the file, `defaults` those of
    the form.
    """

    op_type: str
    version: int
    name: str
    origin: str
    inputs: tuple[Node | None, ...]
    outputs: tuple[str, ...]
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    values: Values
    seen: set[str] = field(default_factory=set)

    def __call__(self, op: Op, *inputs: Node) -> Node:
        """A node of ours that belongs to this operator."""
        return self.values.node(op, inputs, self.name, self.origin)

    def const(self, array: Array) -> Node:
        return Node.const(array, f"{self.name}.const", self.origin)

    def like(self, value: float, x: Node) -> Node:
        """A scalar in the dtype of x."""
        return self.const(scalar(value, x.type.dtype))

    # Inputs

    def opt(self, i: int) -> Node | None:
        """Input i, None when the file leaves it out."""
        return self.inputs[i] if i < len(self.inputs) else None

    def x(self, i: int = 0) -> Node:
        """Input i, which must be there."""
        node = self.opt(i)
        if node is None:
            raise ModelError(f"input {i} is missing")
        return node

    def all(self) -> tuple[Node, ...]:
        return tuple(self.x(i) for i in range(len(self.inputs)))

    def array(self, i: int) -> Array | None:
        """The value of input i, which must be known now. Raises `OpenValueError`."""
        node = self.opt(i)
        return None if node is None else self.values.array(node, f"input {i}")

    def sizes(self, i: int) -> tuple[Size, ...] | None:
        """The value of input i, a vector or a single number, whose entries may be open sizes."""
        node = self.opt(i)
        return None if node is None else self.values.sizes(node, f"input {i}")

    def ints_from(self, i: int) -> tuple[int, ...] | None:
        """Like `sizes`, where numbers are needed."""
        sizes = self.sizes(i)
        return None if sizes is None else tuple(self.known(n, f"input {i}") for n in sizes)

    def known(self, size: Size, what: str) -> int:
        return self.values.known(size, what)

    # Attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute in the file; else the default of the operator's form; else the one given here."""
        self.seen.add(name)
        if name in self.given:
            return self.given[name]
        return self.defaults.get(name, default)

    def ignore(self, *names: str) -> None:
        """Attributes that change nothing here."""
        self.seen.update(names)

    def only(self, name: str, *allowed: Any) -> None:
        """An attribute of which not all values are supported."""
        value = self.attr(name, allowed[0])
        if value not in allowed:
            raise ModelError(f"attribute {name}={value!r} is not supported, only {', '.join(map(repr, allowed))}")

    def unread(self) -> list[str]:
        """Attributes that the file sets to something else than the default and that nobody read."""
        return sorted(
            name for name, value in self.given.items() if name not in self.seen and value != self.defaults.get(name)
        )


def scalar(value: float, dtype: str) -> Array:
    return np.asarray(value, dtype)
