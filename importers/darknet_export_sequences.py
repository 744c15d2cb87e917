"""Recurrent ops, each of which is a whole sequence, as darknet's sections.

darknet has the steps of a sequence in its batch, one after the other: x[T, N, I] is its image [T·N, I, 1, 1]. So an
input or output that is a sequence becomes such an image; the numbers lie in the same order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Activation, Dense, Full, Gru, Linear, Logistic, Lstm, Relu, Reshape, Rnn, SimpleRnn, Tanh

from .darknet_export_errors import UnsupportedError, known, value
from .darknet_export_recurrent import WORDS, RecurrentSection
from .darknet_recurrent import LSTM_ORDER
from .darknet_weights import ALEXEYAB, FORKS, PJREDDIE

RECURRENT = (Lstm, Gru, Rnn, SimpleRnn)
GRU_ORDER = {ALEXEYAB: ("input", "state"), PJREDDIE: ("state", "input")}

Record = tuple[Array, Array]
"""(bias, weight) of one connected layer"""


@dataclass(frozen=True)
class Found:
    """What a section is called, the recurrent op in it, and the records of each fork's file."""

    word: str
    node: Node
    options: dict[str, Any]
    records: dict[str, list[Record]]
    fork: str = ""


def sequences_as_rows(graph: Graph) -> Graph:
    """The graph with one `RecurrentSection` for each recurrent op that darknet has, on images of one row per step."""
    if not any(isinstance(node.op, RECURRENT) for node in graph.nodes()):
        return graph
    (image,), uses, new = graph.inputs, graph.uses(), dict[Node, Node]()
    if image.type.rank == 3 and not isinstance(image.type.shape[0], Dim):
        steps, batch, size = image.type.shape
        new[image] = Node.input(image.name, TensorType(image.type.dtype, (steps * batch, size, 1, 1)), image.origin)
    rows = new.get(image, image)
    new[image] = _as(image, rows)
    for old in graph.nodes():
        if old not in new:
            new[old] = _replaced(old, new, uses)
    return Graph((rows,), {name: _rows(new[y]) or new[y] for name, y in graph.outputs.items()})


def _as(old: Node, x: Node) -> Node:
    """x in the shape of `old`"""
    return x if x.type == old.type else Node(Reshape(old.type.shape), (x,), old.name, old.origin)


def _replaced(old: Node, new: dict[Node, Node], uses: Counter[Node]) -> Node:
    """What has the value of `old`, in its shape."""
    node = old.with_inputs(tuple(new[x] for x in old.inputs))
    try:
        found = section_of(old, uses)
        rows = _rows(new[found.node.inputs[0]]) if found else None
        if found and rows:
            return _as(old, _section(found, rows))
    except UnsupportedError:
        return node  # the rule that writes it finds the reason again
    if isinstance(node.op, Reshape) and isinstance(node.inputs[0].op, Reshape):
        return _as(old, _source(node.inputs[0]))
    layer = _rows(node.inputs[0]) if isinstance(node.op, Dense | Activation) else None
    if layer is not None:
        size = node.inputs[0].type.shape[-1]
        vectors = Node(Reshape((layer.type.shape[0], size)), (layer,), old.name, old.origin)
        return _as(old, Node(node.op, (vectors, *node.inputs[1:]), old.name, old.origin))
    return node


def _source(x: Node) -> Node:
    """What x is a reshape of."""
    while isinstance(x.op, Reshape):
        (x,) = x.inputs
    return x


def _rows(x: Node) -> Node | None:
    """The layer that has one row per step where x is [T, N, I]."""
    found, source = None, x
    while isinstance(source.op, Reshape) and x.type.rank == 3:
        (source,) = source.inputs
        if source.type.rank in (2, 4) and prod(source.type.shape[1:]) == x.type.shape[-1]:
            found = source
    return found


def _section(found: Found, rows: Node) -> Node:
    node, options = found.node, {"batch_normalize": 0, **found.options}
    steps, type_ = known(node.type.shape[0]), TensorType(rows.type.dtype, (rows.type.shape[0], options["output"], 1, 1))
    arrays = {fork: [part for record in records for part in record] for fork, records in found.records.items()}
    op = RecurrentSection(found.word, options, steps, found.fork, arrays, type_)
    return Node(op, (rows,), node.name, node.origin)


def section_of(node: Node, uses: Counter[Node]) -> Found | None:
    """The section that ends in `node`; None for nodes that are not of recurrent layers.

    Raises `UnsupportedError` with the reason for which darknet has no such layer.
    """
    match node.op:
        case Lstm():
            return _lstm(node, node.op)
        case Gru():
            return _gru(node, node.op)
        case Rnn() | SimpleRnn():
            return _alone(node)
        case Activation() | Dense():
            return _with_layer(node, uses)
    return None


def _check_start(*states: Node) -> None:
    for state in map(_source, states):
        zero = state.is_const and not state.value.any()
        if not zero and not (isinstance(state.op, Full) and state.op.value == 0):
            raise UnsupportedError("darknet's states begin with zeros")


def _gates(array: Array, order: str) -> dict[str, Array]:
    return dict(zip(order, np.split(array, len(order)), strict=True))


def _lstm(node: Node, op: Lstm) -> Found:
    _, weight, recurrent, bias, *states = node.inputs
    _check_start(*states)
    if op.output != "hidden":
        raise UnsupportedError("darknet's [lstm] gives its state and not its cell")
    w, r, b = (_gates(value(parameter), op.order) for parameter in (weight, recurrent, bias))
    gates = {fork: LSTM_ORDER[fork].split() for fork in FORKS}
    records = {
        fork: [*((np.zeros_like(b[g]), r[g]) for g in order), *((b[g], w[g]) for g in order)]
        for fork, order in gates.items()
    }
    return Found("lstm", node, {"output": node.type.shape[2]}, records)


def _gru(node: Node, op: Gru) -> Found:
    _, weight, recurrent, bias, recurrent_bias, *states = node.inputs
    _check_start(*states)
    if op.reset != "before":
        raise UnsupportedError("darknet's [gru] resets the state before the weights of the candidate, and not after")
    if not isinstance(op.activation, Tanh | Logistic):
        raise UnsupportedError("the candidate of darknet's [gru] goes through tanh or the logistic function")
    w, r, b, q = (_gates(value(parameter), op.order) for parameter in (weight, recurrent, bias, recurrent_bias))
    sides = {"input": [(b[g], w[g]) for g in "zrh"], "state": [(q[g], r[g]) for g in "zrh"]}
    records = {fork: [record for side in order for record in sides[side]] for fork, order in GRU_ORDER.items()}
    return Found("gru", node, {"output": node.type.shape[2], "tanh": int(isinstance(op.activation, Tanh))}, records)


def _alone(node: Node) -> Found:
    """A recurrent op whose states are the output: the layer that darknet puts behind it changes nothing."""
    size = known(node.type.shape[2])
    if isinstance(node.op, Rnn) and not isinstance(node.op.activation, Linear | Relu):
        raise UnsupportedError("darknet's [rnn] has a layer with the same activation behind the states")
    return _rnn(node, np.zeros(size, np.float32), np.eye(size, dtype=np.float32))


def _with_layer(node: Node, uses: Counter[Node]) -> Found | None:
    """f(V·h + c) of the states h of a recurrent op with the same activation f, which nothing else reads."""
    f, dense = (node.op, _alone_below(node.inputs[0], uses)) if isinstance(node.op, Activation) else (Linear(), node)
    if dense is None or not isinstance(dense.op, Dense):
        return None
    rnn = _alone_below(dense.inputs[0], uses)
    if rnn is None or not isinstance(rnn.op, Rnn | SimpleRnn) or rnn.op.activation != f:
        return None
    if rnn.type.shape[2] != dense.inputs[1].type.shape[1]:
        return None
    weight = value(dense.inputs[1])
    return _rnn(rnn, value(dense.inputs[2]) if len(dense.inputs) > 2 else np.zeros(len(weight), np.float32), weight)


def _alone_below(x: Node, uses: Counter[Node]) -> Node | None:
    """What x is a reshape of, if nothing else reads it."""
    while uses[x] == 1:
        if not isinstance(x.op, Reshape):
            return x
        (x,) = x.inputs
    return None


def _rnn(node: Node, bias: Array, weight: Array) -> Found:
    op = node.op
    _, given, own, given_bias, *rest = node.inputs
    _check_start(rest[-1])
    if isinstance(op, SimpleRnn) and not isinstance(op.activation, Linear):
        raise UnsupportedError("darknet's [rnn] adds f(w·x + b) and f(r·h + q), not what goes into one f")
    activation = op.activation if isinstance(op, Rnn | SimpleRnn) else Linear()
    if activation not in WORDS and not isinstance(activation, Linear):
        raise UnsupportedError("darknet has no such activation")
    own_bias = value(rest[0]) if isinstance(op, Rnn) else np.zeros(len(value(own)), np.float32)
    records = [(value(given_bias), value(given)), (own_bias, value(own)), (bias, weight)]
    hidden, outputs = weight.shape[1], weight.shape[0]
    options = {"output": outputs, "hidden": hidden, "activation": WORDS.get(activation, "linear")}
    options["shortcut"] = int(isinstance(op, Rnn) and op.shortcut)
    return Found("rnn", node, options, dict.fromkeys(FORKS, records), ALEXEYAB if hidden != outputs else "")
