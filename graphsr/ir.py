"""The program: immutable, typed nodes and the graph that they form.

A `Node` applies an `Op` to other nodes and knows the type of its value; a `Graph` is just its inputs and its
named outputs. Nothing is ever changed in place: a pass builds new nodes and shares the old ones.

>>> from graphsr.ops import Relu
>>> x = Node.input("x", TensorType("float32", (1, 3, Dim.symbol("H"), 8)))
>>> graph = Graph((x,), {"y": Node(Relu(), (x,), name="act")})
>>> print(graph)
%x = input() : float32[1, 3, H, 8]
%act = relu(%x) : float32[1, 3, H, 8]
return y=%act
>>> graph.bind({"x": (1, 3, 4, 8)}).outputs["y"].type
float32[1, 3, 4, 8]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from graphsr.dim import Dim, Size, product, substitute
from graphsr.errors import GraphError, ShapeError
from graphsr.forksafe import once
from graphsr.op import Array, Op, check_attributes, op

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "uint16", "bool")


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape of a value. Shapes are NCHW for images, OIHW for convolution weights."""

    dtype: str
    shape: tuple[Size, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        for n in self.shape:
            if not isinstance(n, int | Dim) or isinstance(n, bool):
                raise GraphError(f"size {n!r} in {self} is neither an integer nor an open size")
            if isinstance(n, int) and n < 0:
                raise GraphError(f"negative size in {self}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def is_bound(self) -> bool:
        return all(isinstance(n, int) for n in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of a bound type, as plain integers."""
        for n in self.shape:
            if isinstance(n, Dim):
                raise GraphError(f"sizes of {self} are still open: bind the graph first")
        return cast("tuple[int, ...]", self.shape)  # asked for thousands of times while a network is planned

    @property
    def nbytes(self) -> int:
        """Bytes of a bound value, in Python integers."""
        return int(product(self.dims)) * np.dtype(self.dtype).itemsize  # type: ignore[arg-type]  # dims are int

    def substitute(self, sizes: Mapping[str, Size]) -> TensorType:
        return TensorType(self.dtype, tuple(substitute(n, sizes) for n in self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


@op("input")
@dataclass(frozen=True, slots=True)
class Input(Op):
    """A value given at the call. `type` may have open sizes."""

    type: TensorType

    def infer(self) -> TensorType:
        return self.type


@op("const")
@dataclass(frozen=True, slots=True, eq=False)
class Const(Op):
    """A value known now: weights, statistics, shapes. The array is read-only; two constants are equal when they
    are the same object (comparing megabytes in a hash would be a trap)."""

    value: Array

    def __post_init__(self) -> None:
        view = np.asarray(self.value).view()
        view.setflags(write=False)
        object.__setattr__(self, "value", view)

    def infer(self) -> TensorType:
        return TensorType(self.value.dtype.name, self.value.shape)

    def forward(self) -> Array:
        return self.value


_MISTYPED = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What a type rule runs into when an attribute from a file has the wrong type or length."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """`op` applied to `inputs`. Typed on construction, so an ill-typed node cannot exist.

    `name` is for people and files; `origin` says where the node came from ("EDSR-PyTorch: head.0") and is
    carried through rewrites into every error. Nodes are compared by identity.
    """

    op: Op
    inputs: tuple[Node, ...] = ()
    name: str = ""
    origin: str = ""
    type: TensorType = field(init=False)

    def __post_init__(self) -> None:
        try:
            check_attributes(self.op)
            type_ = self.op.infer(*(node.type for node in self.inputs))
        except (GraphError, *_MISTYPED) as error:
            types = ", ".join(str(node.type) for node in self.inputs)
            raise GraphError(f"{self.where()}: {error}; inputs are ({types})") from error
        object.__setattr__(self, "type", type_)

    @staticmethod
    def input(name: str, type_: TensorType, origin: str = "") -> Node:
        return Node(Input(type_), (), name, origin)

    @staticmethod
    def const(value: Array, name: str = "", origin: str = "") -> Node:
        return Node(Const(value), (), name, origin)

    @property
    def is_const(self) -> bool:
        return isinstance(self.op, Const)

    @property
    def value(self) -> Array:
        """The array of a constant node."""
        if not isinstance(self.op, Const):
            raise GraphError(f"{self.where()} is not a constant")
        return self.op.value

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same op on other inputs; the node itself when they are the same."""
        if all(a is b for a, b in zip(self.inputs, inputs, strict=True)):
            return self
        return replace_node(self, inputs=inputs)

    def __repr__(self) -> str:
        """Short: a node reaches a whole graph."""
        return f"<Node {self.where()} : {self.type}>"

    def where(self) -> str:
        """How errors name this node: op, name and origin."""
        name = f" {self.name!r}" if self.name else ""
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.op.name}{name}{origin}"


def replace_node(node: Node, *, op: Op | None = None, inputs: tuple[Node, ...] | None = None) -> Node:
    """A node in the place of another: it keeps the name and the origin."""
    return Node(node.op if op is None else op, node.inputs if inputs is None else inputs, node.name, node.origin)


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A program: its inputs in order and its outputs by name. Everything between is reached from the outputs."""

    inputs: tuple[Node, ...]
    outputs: Mapping[str, Node]

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", MappingProxyType(dict(self.outputs)))

    def nodes(self) -> Iterator[Node]:
        """All nodes, each after its inputs: first the graph's inputs, then depth first from the outputs."""
        return iter(self._order)

    @once
    def _order(self) -> tuple[Node, ...]:
        done: dict[Node, None] = dict.fromkeys(self.inputs)
        for root in self.outputs.values():
            stack = [(root, iter(root.inputs))] if root not in done else []
            while stack:
                node, rest = stack[-1]
                pending = next((child for child in rest if child not in done), None)
                if pending is not None:
                    stack.append((pending, iter(pending.inputs)))
                else:
                    done[node] = None
                    stack.pop()
        return tuple(done)

    def map(self, f: Callable[[Node, Node], Node]) -> Graph:
        """Rebuild bottom-up. `f(old, new)` gets each node as it was and with its inputs already rebuilt, and
        returns its replacement (`new` itself to keep it). The same graph comes back when nothing changed."""
        return self._rebuild(lambda old, inputs: f(old, old.with_inputs(inputs)))

    def _rebuild(self, make: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
        """`make(old, inputs)` gives the replacement of each node, from its inputs already rebuilt."""
        replacement: dict[Node, Node] = {}
        for old in self.nodes():
            replacement[old] = make(old, tuple(replacement[child] for child in old.inputs))
        if all(a is b for a, b in replacement.items()):
            return self
        return Graph(
            tuple(replacement[node] for node in self.inputs),
            {name: replacement[node] for name, node in self.outputs.items()},
        )

    def uses(self) -> Counter[Node]:
        """How many inputs and outputs read each node."""
        count = Counter(child for node in self.nodes() for child in node.inputs)
        count.update(self.outputs.values())
        return count

    def input_types(self) -> dict[str, TensorType]:
        return {node.name: node.type for node in self.inputs}

    def output_types(self) -> dict[str, TensorType]:
        return {name: node.type for name, node in self.outputs.items()}

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
        """The concrete graph for inputs of these shapes: every type is known.

        Raises `ShapeError` when the shapes do not fit the inputs, or a layer at these sizes.
        """
        sizes = self.solve(shapes)

        def bind_node(old: Node, inputs: tuple[Node, ...]) -> Node:
            """Attributes and inputs at once: an op with some of its sizes bound may be ill-typed."""
            op_ = bind_op(old.op, sizes)
            return old.with_inputs(inputs) if op_ is old.op else replace_node(old, op=op_, inputs=inputs)

        try:
            return self._rebuild(bind_node)
        except GraphError as error:
            given = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
            raise ShapeError(f"inputs of shape ({given}) do not fit this network: {error}") from error

    def solve(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The values of the open sizes that these input shapes imply."""
        names = [node.name for node in self.inputs]
        if set(shapes) != set(names):
            raise ShapeError(f"inputs are named {names}, got {sorted(shapes)}")
        sizes: dict[str, int] = {}
        for node in self.inputs:
            shape = shapes[node.name]
            if len(shape) != node.type.rank:
                raise ShapeError(f"input {node.name!r}: expected {node.type}, got shape {shape}")
            for expected, got in zip(node.type.shape, shape, strict=True):
                if isinstance(expected, Dim) and str(expected) in expected.symbols() and got > 0:
                    sizes.setdefault(str(expected), got)
        for node in self.inputs:
            for expected, got in zip(node.type.shape, shapes[node.name], strict=True):
                if substitute(expected, sizes) != got:
                    raise ShapeError(
                        f"input {node.name!r}: expected {node.type}, got shape {shapes[node.name]}: "
                        f"{expected} cannot be {got}"
                    )
        return sizes

    def astype(self, dtype: str) -> Graph:
        """The same program computed in another floating-point type (constants, inputs and casts converted)."""

        def convert(_: Node, new: Node) -> Node:
            given = new.type.dtype
            if isinstance(new.op, Input) and given in ("float32", "float64", "float16") and given != dtype:
                return replace_node(new, op=Input(TensorType(dtype, new.type.shape)))
            if new.is_const and new.value.dtype.kind == "f" and new.value.dtype.name != dtype:
                return replace_node(new, op=Const(new.value.astype(dtype)))
            if getattr(new.op, "dtype", dtype) in {"float32", "float64"} - {dtype}:  # a cast, or an array made of sizes
                return replace_node(new, op=replace(new.op, dtype=dtype))  # type: ignore[type-var]  # a dataclass
            return new

        return self.map(convert)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a flat list: node inside node, a deep network would exceed the recursion limit."""
        place = {node: index for index, node in enumerate(self.nodes())}
        nodes = [(n.op, tuple(place[child] for child in n.inputs), n.name, n.origin) for n in self.nodes()]
        outputs = {name: place[node] for name, node in self.outputs.items()}
        return _restore, (nodes, tuple(place[node] for node in self.inputs), outputs)

    def __repr__(self) -> str:
        return f"<Graph of {len(self._order)} nodes: {self.input_types()} -> {self.output_types()}>"

    def __str__(self) -> str:
        from graphsr.textform import print_graph

        return print_graph(self)

    def _repr_html_(self) -> str:
        from graphsr.picture import graph_svg

        return graph_svg(self)


def _restore(
    nodes: list[tuple[Op, tuple[int, ...], str, str]], inputs: tuple[int, ...], outputs: dict[str, int]
) -> Graph:
    """The graph that `Graph.__reduce__` took apart."""
    made: list[Node] = []
    for op_, children, name, origin in nodes:
        made.append(Node(op_, tuple(made[child] for child in children), name, origin))
    return Graph(tuple(made[index] for index in inputs), {name: made[index] for name, index in outputs.items()})


def bind_op(op_: Op, sizes: Mapping[str, Size]) -> Op:
    """The op with every open size among its attributes replaced; the op itself when there is none."""
    changed = {f.name: _bind_value(getattr(op_, f.name), sizes) for f in fields(op_)}  # type: ignore[arg-type]
    if all(getattr(op_, name) is value for name, value in changed.items()):
        return op_
    return replace(op_, **changed)  # type: ignore[type-var]  # every Op is a dataclass


def _bind_value(value: Any, sizes: Mapping[str, Size]) -> Any:
    match value:
        case Dim() | TensorType():
            bound = value.substitute(sizes)
            return value if bound == value else bound
        case tuple():
            items = tuple(_bind_value(item, sizes) for item in value)
            return value if all(a is b for a, b in zip(value, items, strict=True)) else items
        case Op():
            return bind_op(value, sizes)
        case _:
            return value
