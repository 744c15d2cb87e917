"""What is known about values while a graph is built: constants, and integers that follow from open sizes.

Every value is a `Node`. For the integers that shape code computes (Shape, Gather, Concat, …) there is beside the node a
NumPy array of objects, each an `int` or a `Dim`: so a reshape "to batch × channels × whatever the input's height is" is
understood once, for all sizes, and the nodes of the shape code are not needed any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphsr.analysis import MOST_FOLDED_POSITIONS, MOST_POSITIONS, padded_bytes, window_positions
from graphsr.dim import Dim, Size
from graphsr.errors import GraphError, ModelError
from graphsr.ir import Const, Input, Node
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    Cast,
    Ceil,
    Concat,
    Expand,
    Floor,
    Gather,
    Mul,
    Quotient,
    ReduceProd,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    Sub,
    Transpose,
)

SMALL = 1 << 20
"""Bytes up to which a value that depends on constants alone is computed at once."""
LARGE = 64 << 20
"""Bytes up to which it is computed when an operator needs its value: a bound on what a file can make us do."""
BUDGET = 256 << 20
"""Bytes that all computed constants may take together."""
MOST_MACS = 1 << 26
MOST_SIZES = 4096
"""Elements up to which integers are followed through shape code."""


class OpenValueError(ModelError):
    """An operator needs a value that depends on what the model is given at run time.

    `inputs` names the model's inputs whose values are needed; `shapes` says that a size is still open.
    """

    def __init__(self, message: str, inputs: frozenset[str] = frozenset(), shapes: bool = False) -> None:
        super().__init__(message)
        self.inputs = inputs
        self.shapes = shapes


def _divide(a: Any, b: Any) -> Any:
    """Sizes are not negative, so that rounding down is rounding toward zero."""
    return np.frompyfunc(lambda n, d: n // d, 2, 1)(a, b)


SYMBOLIC: dict[type[Op], Callable[..., Any]] = {
    Add: lambda op, a, b: a + b,
    Sub: lambda op, a, b: a - b,
    Mul: lambda op, a, b: a * b,
    Quotient: lambda op, a, b: _divide(a, b),
    Cast: lambda op, x: x,
    Floor: lambda op, x: x,
    Ceil: lambda op, x: x,
    Concat: lambda op, *x: np.concatenate(x, op.axis),
    Expand: lambda op, x: np.broadcast_to(x, op.shape),
    Gather: lambda op, x, i: x.take(i.astype(np.int64), op.axis),
    ReduceProd: lambda op, x: np.prod(x, axis=op.axes, keepdims=op.keepdims),
    Reshape: lambda op, x: x.reshape(op.shape),
    Slice: lambda op, x: op.forward(x),
    Split: lambda op, x: op.forward(x),
    Transpose: lambda op, x: op.forward(x),
}
"""The meaning of the ops of shape code on arrays of sizes."""


class Values:
    """The nodes of a graph under construction."""

    def __init__(self, max_memory: int) -> None:
        self.max_memory = max_memory
        self.narrow: dict[Node, str] = {}
        """Inputs and weights of a model that holds float16 or bfloat16: which they are, or "". Empty for others."""
        self._sizes: dict[Node, Array] = {}
        self._folded: dict[Node, Array] = {}
        self._spent = 0

    def node(self, op: Op, inputs: Sequence[Node], name: str, origin: str) -> Node:
        """`op` applied to `inputs`; a constant, when it is small and depends on constants or known sizes alone."""
        node = Node(op, tuple(inputs), name, origin)
        self._check_size(node)
        if (
            all(child.is_const for child in inputs)
            and not isinstance(op, Input | Const)
            and self._may_fold(node, SMALL)
        ):
            return Node.const(self._evaluate(node), name, origin)
        self._follow(node)
        if isinstance(op, ShapeOf) and all(isinstance(n, int) for n in self._sizes[node]):
            return Node.const(self._sizes[node].astype(np.int64), name, origin)
        return node

    def _check_size(self, node: Node) -> None:
        """Raise `ModelError` for what no machine could compute."""
        if node.type.is_bound and node.type.nbytes > self.max_memory:
            raise ModelError(f"the result {node.type} takes more than max_memory={self.max_memory} bytes")
        padded, positions = padded_bytes(node), window_positions(node)
        if padded > self.max_memory:
            raise ModelError(f"the padded input takes {padded} bytes, more than max_memory={self.max_memory}")
        if positions > MOST_POSITIONS:
            raise ModelError(f"the window has {positions} positions; at most {MOST_POSITIONS} are computed")

    def array(self, node: Node, what: str) -> Array:
        """The value of a node. Raises `OpenValueError` when it depends on what the model is given."""
        if node.is_const:
            return node.value
        sizes = self._sizes.get(node)
        if sizes is not None and all(isinstance(n, int) for n in sizes.flat):
            return sizes.astype(node.type.dtype)
        needed = _dependence(node, what)
        if needed is not None:
            raise needed
        return self._deep(node, what)

    def sizes(self, node: Node, what: str) -> tuple[Size, ...]:
        """The entries of a vector of integers (or of a single one)."""
        if node.type.rank > 1 or node.type.dtype not in ("int64", "int32"):
            raise ModelError(f"{what} must be a vector of integers, got {node.type}")
        found = self._sizes.get(node)
        array = self.array(node, what) if found is None else found
        return tuple(n if isinstance(n, Dim) else int(n) for n in array.flat)

    def known(self, size: Size, what: str) -> int:
        if isinstance(size, Dim):
            raise OpenValueError(f"{what} is the open size {size}", shapes=True)
        return size

    def _follow(self, node: Node) -> None:
        """Note the sizes that a node of shape code computes."""
        if isinstance(node.op, ShapeOf):
            x = node.inputs[0].type.shape[node.op.start : node.op.stop]
            self._sizes[node] = np.array([None, *x], object)[1:]
        elif type(node.op) in SYMBOLIC and node.type.is_bound and node.type.nbytes <= 8 * MOST_SIZES:
            inputs = [self._known_sizes(child) for child in node.inputs]
            if all(x is not None for x in inputs):
                try:
                    value = SYMBOLIC[type(node.op)](node.op, *inputs)
                except (GraphError, TypeError, ValueError, LookupError, ArithmeticError):
                    return  # no integers, a quotient of sizes that is none, a place outside: the value stays open
                self._sizes[node] = np.asarray(value, object)

    def _known_sizes(self, node: Node) -> Array | None:
        if node in self._sizes or not node.is_const or node.value.size > MOST_SIZES:
            return self._sizes.get(node)
        value = node.value
        if value.dtype.kind == "f" and np.isfinite(value).all() and (value == np.rint(value)).all():
            value = value.astype(np.int64)
        return value.astype(object) if value.dtype.kind == "i" else None

    def _may_fold(self, node: Node, limit: int) -> bool:
        budget = min(BUDGET, self.max_memory)
        if not node.type.is_bound or node.type.nbytes > limit or self._spent + node.type.nbytes > budget:
            return False
        if padded_bytes(node) > limit or window_positions(node) > MOST_FOLDED_POSITIONS:
            return False
        macs = node.op.macs(tuple(child.type for child in node.inputs), node.type)
        work = sum(child.type.nbytes for child in node.inputs)
        return isinstance(macs, int) and macs <= MOST_MACS and work <= LARGE

    def _evaluate(self, node: Node) -> Array:
        self._spent += node.type.nbytes
        arguments = (child.value if child.is_const else self._folded[child] for child in node.inputs)
        with np.errstate(all="ignore"):
            return np.array(node.op.forward(*arguments))

    def _deep(self, root: Node, what: str) -> Array:
        """The value of a node that depends on constants, however many nodes lie between."""
        stack = [root]
        while stack:
            node = stack[-1]
            waiting = [c for c in node.inputs if not c.is_const and c not in self._folded]
            if waiting:
                stack.extend(waiting)
                continue
            if node not in self._folded:
                if not self._may_fold(node, LARGE):
                    raise ModelError(f"{what} would take too much memory or work to compute: {node.type}")
                self._folded[node] = self._evaluate(node)
            stack.pop()
        return self._folded[root]


def _dependence(root: Node, what: str) -> OpenValueError | None:
    """Why the value of a node is not known now; None when it follows from constants."""
    inputs: set[str] = set()
    shapes, stack, seen = False, [root], {root}
    while stack:
        node = stack.pop()
        if isinstance(node.op, Input):
            inputs.add(node.name)
        if isinstance(node.op, ShapeOf) or not node.type.is_bound:
            shapes = shapes or any(not child.type.is_bound for child in (node, *node.inputs))
        if not isinstance(node.op, ShapeOf):
            fresh = [child for child in node.inputs if child not in seen]
            seen.update(fresh)
            stack.extend(fresh)
    if inputs:
        return OpenValueError(f"{what} depends on the model's input {', '.join(sorted(inputs))}", frozenset(inputs))
    return OpenValueError(f"{what} depends on sizes that are still open", shapes=True) if shapes else None
