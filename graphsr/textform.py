"""The stable text form of a graph, and its parser.

One line per node, in topological order; attributes that have their default are left out:

    %input = input() : float32[N, 3, H, W]
    %head.weight = const() : float32[64, 3, 3, 3]
    %head = conv2d(%input, %head.weight, padding=(1, 1, 1, 1)) : float32[N, 64, H, W]  # EDSR-PyTorch: head.0
    return output=%head

Constants of up to eight elements carry their values (`const(values=(0.5,))`); the others are given to the parser
by name. `parse_graph(str(graph), constants)` is the same graph again. Golden tests compare this text, and
our model files keep it beside the weights, so the parser trusts nothing: every failure is a `GraphError` with
the line.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

import graphsr.ops  # noqa: F401  # fills OPS, where the parser looks
from graphsr.dim import Dim, Size, larger, smaller
from graphsr.errors import GraphError
from graphsr.ir import Const, Graph, Input, Node, TensorType
from graphsr.op import OPS, Array, Op

INLINE = 8
"""Constants of at most this many elements are printed with their values."""

MAX_INTEGER = 2**64
MAX_TERMS = 1000
"""What a size may grow to while it is read: a hostile file must not make a short text into a long computation."""

_BARE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]*\Z")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOKEN = re.compile(
    r"\s*(?:(?P<node>%(?:\"(?:[^\"\\]|\\.)*\"|[A-Za-z0-9_][A-Za-z0-9_.\-/]*))"
    r"|(?P<string>\"(?:[^\"\\]|\\.)*\")"
    r"|(?P<number>(?:\d+\.?\d*(?:e[+-]?\d+)?))"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>//|[()\[\],:=+*\-])"
    r"|(?P<comment>#.*))"
)


def print_graph(graph: Graph) -> str:
    """The text form of a graph."""
    names = node_names(graph)
    lines = [_print_node(node, names) for node in graph.nodes()]
    outputs = ", ".join(f"{_output(name)}={_reference(node, names)}" for name, node in graph.outputs.items())
    return "\n".join([*lines, f"return {outputs}"])


def node_names(graph: Graph) -> dict[Node, str]:
    """A unique name for every node: its own, else its number; a second use of a name gets a suffix."""
    names: dict[Node, str] = {}
    taken: set[str] = set()
    for number, node in enumerate(graph.nodes()):
        base = node.name or str(number)
        name, suffix = base, 2
        while name in taken:
            name, suffix = f"{base}_{suffix}", suffix + 1
        taken.add(name)
        names[node] = name
    return names


def print_op(op: Op) -> str:
    """An op as `name(attribute=value, …)`."""
    return f"{op.name}({', '.join(_print_attributes(op))})"


def _print_node(node: Node, names: Mapping[Node, str]) -> str:
    arguments = [_reference(child, names) for child in node.inputs]
    match node.op:
        case Input():
            pass
        case Const(value) if value.size <= INLINE:
            arguments.append(f"values={_print_value(tuple(value.ravel().tolist()))}")
        case Const():
            pass
        case op:
            arguments += _print_attributes(op)
    origin = f"  # {text}" if (text := _one_line(node.origin)) else ""
    return f"{_reference(node, names)} = {node.op.name}({', '.join(arguments)}) : {node.type}{origin}"


def _print_attributes(op: Op) -> list[str]:
    shown = []
    for f in fields(op):  # type: ignore[arg-type]  # every Op is a dataclass
        value = getattr(op, f.name)
        if f.default is MISSING or value != f.default:
            shown.append(f"{f.name}={_print_value(value)}")
    return shown


def _print_value(value: object) -> str:
    match value:
        case str():
            return json.dumps(value)
        case tuple():
            return f"({', '.join(map(_print_value, value))}{',' if len(value) == 1 else ''})"
        case Op():
            return print_op(value)
        case float():
            return repr(float(value))  # NumPy's own floats print differently
        case _:
            return str(value) if isinstance(value, Dim) else repr(value)


def _quote(name: str) -> str:
    return name if _BARE_NAME.match(name) else json.dumps(name)


def _output(name: str) -> str:
    return name if _WORD.match(name) else json.dumps(name)


def _reference(node: Node, names: Mapping[Node, str]) -> str:
    """`%name`; bare digits are the number of a node without a name, so a name of digits is quoted."""
    name = names[node]
    return "%" + (json.dumps(name) if node.name and name.isdigit() else _quote(name))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def parse_graph(text: str, constants: Mapping[str, Array] | None = None) -> Graph:
    """The graph that a text form describes. `constants` gives the arrays of large constants by node name.

    Raises `GraphError` with the line number for anything that is not a well-typed graph.
    """
    nodes: dict[str, Node] = {}
    inputs: list[Node] = []
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines or not lines[-1][1].lstrip().startswith("return "):
        raise GraphError("the text form of a graph must end in a line 'return name=%node'")
    for number, line in lines[:-1]:
        try:
            name, node = _LineParser(line).node(nodes, constants or {})
        except GraphError as error:
            raise GraphError(f"line {number}: {error}") from error
        if name in nodes:
            raise GraphError(f"line {number}: node %{name} is defined twice")
        nodes[name] = node
        if isinstance(node.op, Input):
            inputs.append(node)
    number, line = lines[-1]
    try:
        outputs = _LineParser(line).outputs(nodes)
    except GraphError as error:
        raise GraphError(f"line {number}: {error}") from error
    return Graph(tuple(inputs), outputs)


class _LineParser:
    """Recursive descent over the tokens of one line."""

    MAX_DEPTH = 20

    def __init__(self, line: str) -> None:
        self.origin = ""
        self.tokens: list[tuple[str, str]] = []
        self.depth = 0
        position, body = 0, line.rstrip()
        while position < len(body):
            match = _TOKEN.match(body, position)
            if match is None:
                raise GraphError(f"cannot read {body[position : position + 20]!r}")
            kind = match.lastgroup or ""
            position = match.end()
            if kind == "comment":
                self.origin = match[kind][1:].strip()
            else:
                self.tokens.append((kind, match[kind]))
        self.tokens.append(("end", "end of line"))
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at][1]

    def take(self, expected: str = "") -> tuple[str, str]:
        kind, text = self.tokens[self.at]
        if expected and expected not in (kind, text):
            raise GraphError(f"expected {expected!r}, got {text!r}")
        if kind != "end":
            self.at += 1
        return kind, text

    def accept(self, mark: str) -> bool:
        if self.tokens[self.at] == ("mark", mark):
            self.at += 1
            return True
        return False

    def node(self, nodes: Mapping[str, Node], constants: Mapping[str, Array]) -> tuple[str, Node]:
        """`%name = op(%input, …, attribute=value, …) : type`"""
        reference = self.take("node")[1][1:]
        name = _unquote(reference)
        self.take("=")
        op_name = self.take("word")[1]
        arguments, attributes = self.arguments(nodes)
        self.take(":")
        type_ = self.type()
        self.take("end")
        own_name = "" if reference.isdigit() else name
        if op_name == "input":
            return name, Node(Input(type_), (), own_name, self.origin)
        if op_name == "const":
            array = _constant(name, type_, attributes.get("values"), constants)
            return name, Node(Const(array), (), own_name, self.origin)
        node = Node(_make_op(op_name, attributes), tuple(arguments), own_name, self.origin)
        if node.type != type_:
            raise GraphError(f"%{name} is declared {type_}, but its op gives {node.type}")
        return name, node

    def arguments(self, nodes: Mapping[str, Node]) -> tuple[list[Node], dict[str, Any]]:
        inputs: list[Node] = []
        attributes: dict[str, Any] = {}
        self.take("(")
        while not self.accept(")"):
            if self.tokens[self.at][0] == "node":
                name = _unquote(self.take()[1][1:])
                if name not in nodes:
                    raise GraphError(f"node %{name} is used before it is defined")
                inputs.append(nodes[name])
            else:
                key = self.take("word")[1]
                self.take("=")
                attributes[key] = self.value()
            if not self.accept(","):
                self.take(")")
                break
        return inputs, attributes

    def outputs(self, nodes: Mapping[str, Node]) -> dict[str, Node]:
        """`return name=%node, …`"""
        outputs: dict[str, Node] = {}
        self.take("return")
        while True:
            kind, text = self.take()
            if kind == "end":
                raise GraphError("an output name is missing")
            self.take("=")
            target = _unquote(self.take("node")[1][1:])
            if target not in nodes:
                raise GraphError(f"output {text!r} returns the unknown node %{target}")
            if _unquote(text) in outputs:
                raise GraphError(f"two outputs are called {text}")
            outputs[_unquote(text)] = nodes[target]
            if not self.accept(","):
                self.take("end")
                return outputs

    def type(self) -> TensorType:
        dtype = self.take("word")[1]
        shape: list[Size] = []
        self.take("[")
        while not self.accept("]"):
            shape.append(self.size())
            if not self.accept(","):
                self.take("]")
                break
        return TensorType(dtype, tuple(shape))

    def size(self) -> Size:
        size = self.value()
        if isinstance(size, bool) or not isinstance(size, int | Dim):
            raise GraphError(f"a size must be an integer or an open size, got {size!r}")
        return size

    def value(self) -> Any:
        """A literal, a tuple, an op, or a sum of products of open sizes."""
        self.depth += 1
        if self.depth > self.MAX_DEPTH:
            raise GraphError("values are nested too deeply")
        total = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()[1]
            total = _arithmetic(sign, total, self.product())
        self.depth -= 1
        return total

    def product(self) -> Any:
        total = self.factor()
        while self.peek() in ("*", "//"):
            sign = self.take()[1]
            total = _arithmetic(sign, total, self.factor())
        return total

    def factor(self) -> Any:
        kind, text = self.take()
        match kind, text:
            case "number", _:
                return float(text) if any(c in text for c in ".e") else _integer(text)
            case "string", _:
                return _unquote(text)
            case "mark", "-" if self.peek() != "-":
                return _arithmetic("*", self.factor(), -1)
            case "mark", "(":
                return self.tuple_or_group()
            case "word", "True" | "False" | "None":
                return {"True": True, "False": False, "None": None}[text]
            case "word", "inf" | "nan":
                return float(text)
            case "word", "min" | "max" if self.accept("("):
                a = self.size()
                self.take(",")
                b = self.size()
                self.take(")")
                return smaller(a, b) if text == "min" else larger(a, b)
            case "word", _ if self.peek() == "(":
                return _make_op(text, self.arguments({})[1])
            case "word", _:
                return Dim.symbol(text)
        raise GraphError(f"a value is expected, got {text!r}")

    def tuple_or_group(self) -> Any:
        items: list[Any] = []
        comma = False
        while not self.accept(")"):
            items.append(self.value())
            comma = self.accept(",")
            if not comma:
                self.take(")")
                break
        return items[0] if len(items) == 1 and not comma else tuple(items)


def _integer(text: str) -> int:
    if len(text) > len(str(MAX_INTEGER)):
        raise GraphError(f"the number {text[:30]}… is too large")
    return int(text)


def _arithmetic(sign: str, a: Any, b: Any) -> Any:
    if any(isinstance(x, bool) or not isinstance(x, int | float | Dim) for x in (a, b)):
        raise GraphError(f"{a!r} {sign} {b!r} is not arithmetic on sizes")
    if any(isinstance(x, float) for x in (a, b)) and any(isinstance(x, Dim) for x in (a, b)):
        raise GraphError(f"{a!r} {sign} {b!r} mixes a size and a real number")
    if sign == "//" and b == 0:
        raise GraphError(f"{a!r} {sign} {b!r} divides by zero")
    if isinstance(a, Dim) and isinstance(b, Dim) and len(a.terms) * len(b.terms) > MAX_TERMS:
        raise GraphError("a size has too many terms")
    result = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}[sign](a, b)
    numbers = [factor for _, factor in result.terms] if isinstance(result, Dim) else [result]
    if any(isinstance(n, int) and abs(n) > MAX_INTEGER for n in numbers):
        raise GraphError("a size is too large")
    return result


def _make_op(name: str, attributes: dict[str, Any]) -> Op:
    if name not in OPS:
        raise GraphError(f"unknown op {name!r}")
    try:
        return OPS[name](**attributes)
    except TypeError as error:
        raise GraphError(f"{name}: {error}") from error


def _constant(name: str, type_: TensorType, values: Any, constants: Mapping[str, Array]) -> Array:
    array = constants.get(name)
    if array is None:
        if not isinstance(values, tuple):
            raise GraphError(f"the array of constant %{name} ({type_}) is missing")
        if type_.size != len(values):
            raise GraphError(f"constant %{name} is {type_} but has {len(values)} values")
        try:
            array = np.array(values, dtype=type_.dtype).reshape(type_.dims)
        except (TypeError, ValueError, OverflowError) as error:
            raise GraphError(f"constant %{name}: {error}") from error
    if (array.dtype.name, array.shape) != (type_.dtype, type_.shape):
        raise GraphError(f"constant %{name}: expected {type_}, got {array.dtype.name}{list(array.shape)}")
    return array


def _unquote(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise GraphError(f"bad string {text}: {error}") from error
