"""From an ONNX message to a `Graph`: scopes, model-local functions, and all complaints at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto

from graphsr.errors import GraphError, ModelError
from graphsr.ir import Graph, Node
from graphsr.op import Array

from .onnx_call import OPERATORS, Call
from .onnx_reader import NARROW, Source, narrow_floats, widened
from .onnx_types import input_type
from .onnx_values import OpenValueError, Values

OLDEST, NEWEST = 1, 28
"""Operator sets of the default domain whose operators are known here."""
MOST_NODES = 25_000
"""After inlining: a file of a kilobyte can ask for more than any machine has."""
DEEPEST = 64
DEFAULT_DOMAINS = ("", "ai.onnx")
REVISED = ("GroupNormalization",)
"""Operators whose deprecated form is read: a newer form of the same name means something else."""
CONTROL = ("If",)
"""Operators that have graphs as attributes, and are read here."""
MOST_REASONS = 50
MALFORMED = (TypeError, ValueError, LookupError, ArithmeticError)
"""What the translation of an operator runs into when a value from the file has the wrong length or range."""

Scope = dict[str, "Node | None"]
"""Values by name. None stands for a value that could not be built, for a reason that has been noted."""


class TooLargeError(ModelError):
    """The model is given up: looking for more to complain about would take too long."""


@dataclass
class Builder:
    """One run over a model, with what is fixed for this run: input shapes, and values of some inputs."""

    source: Source
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    given: Mapping[str, Array] = field(default_factory=dict)
    values: Values = field(init=False)
    reasons: list[str] = field(default_factory=list)
    open: list[OpenValueError] = field(default_factory=list)
    nodes: int = 0
    narrow: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.values = Values(self.source.max_memory)
        self.narrow = narrow_floats(self.source.model)

    def build(self) -> Graph:
        """The graph. Raises `ModelError` with everything that is not supported, `OpenValueError` when some values that
        the model is given at run time must be known before."""
        model = self.source.model
        self._check_names(model)
        functions = {(f.domain, f.name): f for f in model.functions}
        versions = _versions(model.opset_import, self.reasons)
        scope: Scope = {}
        weights = {t.name for t in model.graph.initializer}
        for tensor in model.graph.initializer:
            scope[tensor.name] = self.initializer(tensor)
        if model.graph.sparse_initializer:
            self.reasons.append("sparse initializers are not supported")
        inputs = [self._input(value) for value in model.graph.input if value.name not in weights]
        scope.update((node.name, node) for node in inputs if node is not None)
        scope.update((name, self._value(name, array)) for name, array in self.given.items())
        if self.narrow:
            self._note_narrow(model.graph, scope)
        body = _Body(self, functions, versions, ())
        body.run(model.graph.node, scope)
        outputs = {value.name: self._output(scope, value.name) for value in model.graph.output}
        self._raise()
        taken = tuple(node for node in inputs if node is not None)
        return Graph(taken, {name: node for name, node in outputs.items() if node is not None})

    def _check_names(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        for what, found in (
            ("initializer", [t.name for t in graph.initializer]),
            ("input", [v.name for v in graph.input]),
            ("output", [v.name for v in graph.output]),
            ("model-local function", [f"{f.domain}.{f.name}" for f in model.functions]),
        ):
            for name in sorted(
                {name for name in found if not name or found.count(name) > 1} if len(found) < 10_000 else ()
            ):
                self.reasons.append(
                    f"{what} {name!r} is there {found.count(name)} times" if name else f"an {what} has no name"
                )
        if not graph.output:
            self.reasons.append("the model has no outputs")

    def initializer(self, tensor: onnx.TensorProto) -> Node | None:
        try:
            return Node.const(self.source.array(tensor, f"tensor {tensor.name!r}"), tensor.name, "onnx initializer")
        except (ModelError, GraphError) as error:
            self.reasons.append(str(error))
            return None

    def _input(self, value: onnx.ValueInfoProto) -> Node | None:
        """The model's input; None when its value is given, or it is none that we can take."""
        if value.name in self.given:
            return None
        try:
            type_ = input_type(value, self.shapes.get(value.name))
            return Node.input(value.name, type_, f"onnx input {value.name}")
        except OpenValueError as error:
            self.open.append(error)
        except (ModelError, GraphError) as error:
            self.reasons.append(str(error))
        return None

    def _value(self, name: str, array: Array) -> Node:
        """The value of an input, as a constant."""
        return Node.const(widened(array), name, f"onnx input {name}")

    def _note_narrow(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Which inputs and weights are float16 or bfloat16: what is computed from them does not say it any more."""
        kinds = {value.name: value.type.tensor_type.elem_type for value in graph.input}
        kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        for name, node in scope.items():
            if node is not None:
                self.values.narrow[node] = NARROW.get(kinds[name], "")

    def _output(self, scope: Scope, name: str) -> Node | None:
        if name not in scope:
            self.reasons.append(f"output {name!r} is not computed by any node")
        return scope.get(name)

    def count(self) -> None:
        """One more node."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise TooLargeError(f"more than {MOST_NODES} nodes, after its functions are inlined")

    def _raise(self) -> None:
        if self.reasons:
            shown = self.reasons[:MOST_REASONS]
            left = len(self.reasons) - len(shown)
            more = [f"and {left} more"] if left else []
            raise ModelError("this model cannot be imported:\n" + "\n".join(f"  {line}" for line in [*shown, *more]))
        if self.open:
            inputs = frozenset[str]().union(*(error.inputs for error in self.open))
            shapes = any(error.shapes for error in self.open)
            lines = "\n".join(f"  {error}" for error in self.open[:MOST_REASONS])
            raise OpenValueError(f"this model needs to know more before it can be built:\n{lines}", inputs, shapes)


@dataclass(frozen=True)
class _Body:
    """The nodes of the main graph, or of a model-local function that is being inlined."""

    builder: Builder
    functions: Mapping[tuple[str, str], onnx.FunctionProto]
    versions: Mapping[str, int]
    calls: tuple[tuple[str, str], ...]
    arguments: Mapping[str, AttributeProto] = field(default_factory=dict)

    def run(self, nodes: Iterable[onnx.NodeProto], scope: Scope) -> None:
        for number, node in enumerate(nodes):
            self.builder.count()
            where = self._where(node, number)
            try:
                results = self._results(node, where, scope)
            except OpenValueError as error:
                self.builder.open.append(OpenValueError(f"{where}: {error}", error.inputs, error.shapes))
                results = None
            except TooLargeError:
                raise
            except GraphError as error:
                self._ill_typed(node, where, error, scope)
                results = None
            except ModelError as error:
                self.builder.reasons.append(f"{where}: {error}")
                results = None
            self._store(node, where, results, scope)

    def _ill_typed(self, node: onnx.NodeProto, where: str, error: GraphError, scope: Scope) -> None:
        """While sizes are open the complaint may be that two of them are not known to be equal."""
        inputs = [scope.get(name) for name in node.input]
        if any(x is not None and not x.type.is_bound for x in inputs):
            self.builder.open.append(OpenValueError(f"{where}: {error}", shapes=True))
        else:
            self.builder.reasons.append(f"{where}: {error}")

    def _store(self, node: onnx.NodeProto, where: str, results: Sequence[Node | None] | None, scope: Scope) -> None:
        for i, name in enumerate(node.output):
            if not name:
                continue
            if name in scope:
                self.builder.reasons.append(f"{where}: value {name!r} is already defined")
            scope[name] = results[i] if results is not None and i < len(results) else None
            if results is not None and scope[name] is None:
                self.builder.reasons.append(f"{where}: output {i} ({name!r}) is not supported")

    def _where(self, node: onnx.NodeProto, number: int) -> str:
        path = "".join(f"{name}/" for _, name in self.calls)
        return f"{node.op_type} {path}{node.name or f'#{number}'}"

    def _results(self, node: onnx.NodeProto, where: str, scope: Scope) -> Sequence[Node | None] | None:
        missing = [name for name in node.input if name and name not in scope]
        if missing:
            raise ModelError(f"value {missing[0]!r} is not computed before it is used")
        function = self.functions.get((node.domain, node.op_type))
        blocked = any(name and scope[name] is None for name in node.input)
        inputs = tuple(scope[name] if name else None for name in node.input)
        given = self._attributes(node)
        if function is not None:
            return None if blocked else self._inline(function, node, inputs, given)
        if node.domain not in DEFAULT_DOMAINS:
            raise ModelError(f"operator domain {node.domain!r} is not supported")
        schema = self._schema(node, given)
        if node.op_type in CONTROL:
            return None if blocked else self._branch(node, given, scope)
        translate = OPERATORS.get(node.op_type)
        if translate is None:
            raise ModelError("the operator is not supported")
        decoded = {name: self._decoded(name, a, where) for name, a in given.items()}
        if blocked:
            return None  # its input is the reason, and has been noted
        call = Call(
            op_type=node.op_type,
            version=schema.since_version,
            name=node.name or next((name for name in node.output if name), node.op_type),
            origin=f"onnx {where}",
            inputs=inputs,
            outputs=tuple(node.output),
            given=decoded,
            defaults=_defaults(node.op_type, self.versions[""]),
            values=self.builder.values,
        )
        try:
            result = translate(call)
        except MALFORMED as error:
            raise ModelError(f"attributes or inputs are malformed: {error}") from error
        if unread := call.unread():
            raise ModelError(f"attribute {', '.join(unread)} is not supported")
        return (result,) if isinstance(result, Node) else result

    def _attributes(self, node: onnx.NodeProto) -> dict[str, AttributeProto]:
        """Attributes by name, those of the function that is being inlined put in the place of references."""
        found: dict[str, AttributeProto] = {}
        for a in node.attribute:
            if a.name in found:
                raise ModelError(f"attribute {a.name} is there twice")
            if not a.ref_attr_name:
                found[a.name] = a
            elif a.ref_attr_name in self.arguments:
                found[a.name] = self.arguments[a.ref_attr_name]
        return found

    def _schema(self, node: onnx.NodeProto, given: Mapping[str, AttributeProto]) -> onnx.defs.OpSchema:
        """The form of the operator in this operator set, against which names, types and numbers are checked."""
        if "" not in self.versions:
            raise ModelError("the model does not say which operator set it uses")
        try:
            schema = _form(node.op_type, self.versions[""])
        except onnx.defs.SchemaError:
            raise ModelError(f"operator set {self.versions['']} has no such operator") from None
        if schema.deprecated and node.op_type not in REVISED:
            raise ModelError(f"the operator is deprecated since operator set {schema.since_version}")
        for name, a in given.items():
            if name not in schema.attributes:
                raise ModelError(f"operator set {self.versions['']} has no attribute {name}")
            expected = schema.attributes[name].type
            if int(a.type) != expected.value:  # type: ignore[attr-defined]  # an enum of pybind11, which its stub hides
                raise ModelError(
                    f"attribute {name} must be {expected}, got {AttributeProto.AttributeType.Name(a.type)}"
                )
        absent = [name for name, a in schema.attributes.items() if a.required and name not in given]
        if absent:
            raise ModelError(f"attribute {', '.join(absent)} is missing")
        for what, n, low, high in (
            ("inputs", len(node.input), schema.min_input, schema.max_input),
            ("outputs", len(node.output), schema.min_output, schema.max_output),
        ):
            if not low <= n <= high:
                raise ModelError(f"{n} {what}, expected {low} to {high}")
        return schema

    def _decoded(self, name: str, a: AttributeProto, where: str) -> Any:
        match a.type:
            case AttributeProto.FLOAT:
                return float(a.f)
            case AttributeProto.INT:
                return int(a.i)
            case AttributeProto.STRING:
                return a.s.decode("utf-8", "backslashreplace")
            case AttributeProto.FLOATS:
                return tuple(float(f) for f in a.floats)
            case AttributeProto.INTS:
                return tuple(int(i) for i in a.ints)
            case AttributeProto.STRINGS:
                return tuple(text.decode("utf-8", "backslashreplace") for text in a.strings)
            case AttributeProto.TENSOR:
                return self.builder.source.array(a.t, f"attribute {name}")
        raise ModelError(f"attribute {name} is of a kind that is not supported")

    def _inline(
        self,
        function: onnx.FunctionProto,
        node: onnx.NodeProto,
        inputs: Sequence[Node | None],
        given: Mapping[str, AttributeProto],
    ) -> list[Node | None] | None:
        """The nodes of a model-local function in the place of its call."""
        key = (function.domain, function.name)
        if key in self.calls or len(self.calls) >= DEEPEST:
            raise ModelError(f"function {function.name!r} calls itself, or functions are nested deeper than {DEEPEST}")
        if len(inputs) > len(function.input) or len(node.output) > len(function.output):
            raise ModelError(
                f"function {function.name!r} has {len(function.input)} inputs, {len(function.output)} outputs"
            )
        defaults = {a.name: a for a in function.attribute_proto}
        unknown = given.keys() - defaults.keys() - set(function.attribute)
        if unknown:
            raise ModelError(f"function {function.name!r} has no attribute {', '.join(sorted(unknown))}")
        versions = _versions(function.opset_import, self.builder.reasons)
        body = _Body(self.builder, self.functions, versions, (*self.calls, key), {**defaults, **given})
        scope: Scope = {name: node_ for name, node_ in zip(function.input, inputs, strict=False) if node_ is not None}
        before = len(self.builder.reasons) + len(self.builder.open)
        body.run(function.node, scope)
        if before < len(self.builder.reasons) + len(self.builder.open):
            return None  # its nodes have been complained about
        return [scope.get(name) for name in function.output]

    def _branch(
        self, node: onnx.NodeProto, given: Mapping[str, AttributeProto], scope: Scope
    ) -> list[Node | None] | None:
        """The nodes of one branch of an If in its place; which one must be known now. The other is not looked at."""
        (condition,) = (scope[name] for name in node.input)
        if len(self.calls) >= DEEPEST:
            raise ModelError(f"branches are nested deeper than {DEEPEST}")
        if condition is None or (condition.type.dtype, condition.type.size) != ("bool", 1):
            raise ModelError(f"the condition must be a single bool, got {condition and condition.type}")
        taken = self.builder.values.array(condition, "the condition").item()
        graph = given["then_branch" if taken else "else_branch"].g
        inner = {**scope, **{tensor.name: self.builder.initializer(tensor) for tensor in graph.initializer}}
        if graph.input or graph.sparse_initializer or len(graph.output) != len(node.output):
            raise ModelError(f"a branch without inputs and with {len(node.output)} outputs expected")
        before = len(self.builder.reasons) + len(self.builder.open)
        replace(self, calls=(*self.calls, ("", node.name or "If"))).run(graph.node, inner)
        if before < len(self.builder.reasons) + len(self.builder.open):
            return None  # its nodes have been complained about
        return [inner.get(value.name) for value in graph.output]


def _versions(imports: Iterable[onnx.OperatorSetIdProto], reasons: list[str]) -> dict[str, int]:
    found = {"" if i.domain in DEFAULT_DOMAINS else i.domain: i.version for i in imports}
    if not OLDEST <= found.get("", OLDEST) <= NEWEST:
        reasons.append(f"operator set {found['']} is not known, only {OLDEST} to {NEWEST}")
        found[""] = NEWEST
    return found


@cache
def _form(op_type: str, opset: int) -> onnx.defs.OpSchema:
    """The operator as it is in an operator set. Raises `SchemaError`."""
    return onnx.defs.get_schema(op_type, opset, "")


@cache
def _defaults(op_type: str, opset: int) -> Mapping[str, Any]:
    """The default attributes of a form. Names without a default are absent."""
    found: dict[str, Any] = {}
    for name, a in _form(op_type, opset).attributes.items():
        if a.default_value.type:
            value = onnx.helper.get_attribute_value(a.default_value)
            found[name] = (
                value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value
            )
    return found
