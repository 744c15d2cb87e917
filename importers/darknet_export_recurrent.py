"""[rnn], [crnn], [gru], [lstm] and [conv_lstm], found again in a graph where they are unrolled over the time steps.

As in `darknet_export_composed`, a section is guessed and built once more by the function that reads it. Its parameters
are not known before: where the section that was built has one, the graph must have a constant of the same shape, and
this is the parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar

import numpy as np

from graphsr.errors import GraphError, ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Activation, BatchNorm, Clip, Concat, Conv2d, Dense, Logistic, Mul, Reshape

from . import darknet_recurrent
from .darknet_activations import COMPOSED, PLAIN
from .darknet_export_composed import Rebuilt, same_op
from .darknet_export_norm import darknet_variance
from .darknet_grammar import MAX_INT, Option, Section
from .darknet_network import Builder, OpenSizesError, Settings
from .darknet_weights import ALEXEYAB, FORKS

WORDS = {op: word for word, op in reversed(PLAIN.items())}
BUILDERS: dict[str, Builder] = {
    "rnn": darknet_recurrent.rnn,
    "crnn": darknet_recurrent.crnn,
    "gru": darknet_recurrent.gru,
    "lstm": darknet_recurrent.lstm,
    "conv_lstm": darknet_recurrent.conv_lstm,
}


@dataclass(frozen=True, slots=True, eq=False)
class RecurrentSection(Op):
    """All steps of a recurrent section as one node, which is there from the search to the rule that writes it."""

    name: ClassVar[str] = "recurrent section"

    word: str
    options: dict[str, Any]
    steps: int
    fork: str
    """The only fork that knows the section; "" is both."""
    arrays: dict[str, list[Array]]
    """The parameters in the order of each fork's file."""
    type: TensorType

    def infer(self, x: TensorType) -> TensorType:
        return self.type


@dataclass(frozen=True)
class Guess:
    """What a section may be called, and its options."""

    word: str
    options: dict[str, Any]
    fork: str = ""


class Unknown(Rebuilt):
    """A network of one recurrent layer, whose parameters are to be found."""

    def __init__(self, source: Node, image: Node, settings: Settings) -> None:
        super().__init__(source)
        self.input, self.settings = image, settings
        self.unknown: list[Node] = []

    def parameter(self, what: str, *shape: int) -> Node:
        self.unknown.append(super().parameter(what, *shape))
        return self.unknown[-1]


@dataclass(frozen=True)
class Match:
    """A recurrent section in a graph: the layer that it reads, and the nodes between that and its last one."""

    source: Node
    section: RecurrentSection
    inner: set[Node]
    states: set[Node]
    """Its states before and after, where they are inputs and outputs of the network."""


def joined_steps(graph: Graph) -> Graph:
    """The graph with one node for each recurrent section.

    darknet keeps states from call to call: where they are inputs and outputs, these belong to the section.
    """
    users: dict[Node, set[Node]] = {}
    for node in graph.nodes():
        for child in node.inputs:
            users.setdefault(child, set()).add(node)
    outputs, replaced, states = set(graph.outputs.values()), dict[Node, Node](), set[Node]()

    def join(old: Node, new: Node) -> Node:
        replaced[old] = new
        if isinstance(old.op, Reshape) and old.type.rank == 4:
            for match in _sections(old, graph):
                inner = match.inner | {old}
                if all(users.get(n, set()) <= inner and n not in outputs - match.states for n in match.inner):
                    states.update(match.states)
                    replaced[old] = Node(match.section, (replaced[match.source],), old.name, old.origin)
                    break
        return replaced[old]

    joined = graph.map(join)
    inputs = tuple(replaced[x] for x in graph.inputs if x not in states)
    return Graph(inputs, {name: joined.outputs[name] for name, y in graph.outputs.items() if y not in states})


def _sections(node: Node, graph: Graph) -> Iterator[Match]:
    """The sections that end in `node`."""
    (last,) = node.inputs
    steps = 1
    if isinstance(last.op, Concat) and last.op.axis == 0:
        steps, last = len(last.inputs), last.inputs[-1]
    guesses = list(_vectors(last) if last.type.rank == 2 else _images(last, graph))
    state = "zero" if len(graph.inputs) == 1 else "carried"
    for source in _sources(last, steps) if guesses else ():
        for guess in guesses:
            pairs, arrays, states = dict[Node, Node](), dict[str, list[Array]](), set[Node]()
            for fork in (guess.fork,) if guess.fork else FORKS:
                network = Unknown(source, graph.inputs[0], Settings(fork, state=state, time_steps=steps))
                pairs = _pairs(network, guess, node)
                states = _states(network, pairs, graph)
                if not pairs or len(states) < len(network.states) + len(network.heads):
                    break
                arrays[fork] = _parameters(network, pairs)
            else:
                section = RecurrentSection(guess.word, guess.options, steps, guess.fork, arrays, node.type)
                inner = {n for n in pairs.values() if not n.is_const} | states
                yield Match(source, section, inner - {node, source}, states)


def _states(network: Unknown, pairs: dict[Node, Node], graph: Graph) -> set[Node]:
    """The inputs and outputs of the graph that are states of the section, as far as they are found."""
    found = {pairs[state] for state in network.states if state in pairs} & set(graph.inputs[1:])
    for head in network.heads.values():
        for y in graph.outputs.values():  # the last one may be clipped, which no step reads
            reads = [pairs.get(x, x if x.is_const else None) for x in head.inputs]
            if pairs.get(head, y) is y and same_op(head, y) and reads == list(y.inputs):
                found.add(y)
    return found


def _sources(last: Node, steps: int) -> list[Node]:
    """The layers that a section may read whose last step gives `last`: of vectors the nearest image; else the image
    that is cut into steps, or without steps what the nearest convolutions read."""
    if last.type.rank == 2:
        found = (n for n in _ancestors(last) if n.type.rank == 4)
    elif steps > 1:
        found = (n.inputs[0] for n in _ancestors(last) if isinstance(n.op, Reshape) and n.type.rank == 5)
    else:
        read = (n.inputs[0] for n in _ancestors(last) if isinstance(n.op, Conv2d) and not n.inputs[0].is_const)
        return list(dict.fromkeys(islice(read, 8)))  # the state, the cell and the layer before, for several gates
    return [x for x in islice(found, 1) if x.type.rank == 4]


def _ancestors(node: Node) -> Iterator[Node]:
    """`node` and what it is computed from, the nearest first."""
    level = {node: None}
    seen = set(level)
    while level:
        yield from level
        level = {x: None for n in level for x in n.inputs if not x.is_const and x not in seen}
        seen |= level.keys()


def _pairs(network: Unknown, guess: Guess, node: Node) -> dict[Node, Node]:
    """Which node of the graph is which of the section; {} unless reading the section gives `node`."""
    options = {key: Option(str(option), 0) for key, option in guess.options.items()}
    network.section = Section(guess.word, 0, options)
    try:
        again = BUILDERS[guess.word](network, network.section)
    except (GraphError, ModelError, OpenSizesError):
        return {}
    pairs, stack, unknown = dict[Node, Node](), [(again, node)], set(network.unknown)
    while stack:
        a, b = stack.pop()
        if pairs.setdefault(a, b) is not b:
            return {}
        if a in unknown:
            alike = b.is_const and a.type.shape == b.type.shape
        elif a.is_const:
            alike = b.is_const and np.array_equal(a.value, b.value)
        elif a is network.source:
            alike = a is b
        else:
            norms = isinstance(a.op, BatchNorm) and isinstance(b.op, BatchNorm)
            alike = (norms or same_op(a, b)) and len(a.inputs) == len(b.inputs)
            stack += zip(a.inputs, b.inputs, strict=True) if alike else ()
        if not alike:
            return {}
    return pairs


def _parameters(network: Unknown, pairs: dict[Node, Node]) -> list[Array]:
    """In the order in which they are read."""
    found = {a: pairs[a].value for a in network.unknown}
    for a, b in pairs.items():
        if isinstance(b.op, BatchNorm) and a is not network.source:
            found[a.inputs[4]] = darknet_variance(b.op, b.inputs[4].value)
    return list(found.values())


def _vectors(last: Node) -> Iterator[Guess]:
    """The sections of connected layers."""
    outputs, layer = last.type.shape[1], _layer(last)
    if layer is None:
        return
    for norm in (0, 1):
        options = {"output": outputs, "batch_normalize": norm}
        if isinstance(last.op, Mul):
            yield Guess("lstm", options)
        yield from (Guess("gru", {**options, "tanh": tanh}) for tanh in (0, 1))
        hidden = layer.inputs[1].type.shape[1]
        fork = "" if hidden == outputs else ALEXEYAB  # pjreddie's state has the size of the output
        yield from (Guess("rnn", {**options, "hidden": hidden, **simple}, fork) for simple in _simple(last))


def _images(last: Node, graph: Graph) -> Iterator[Guess]:
    """The sections of convolutions."""
    outputs, layer = last.type.shape[1], _layer(last)
    if layer is None or not isinstance(layer.op, Conv2d):
        return
    weight, op = layer.inputs[1], layer.op
    size, hidden = weight.type.shape[-1], weight.type.shape[1] * op.groups
    geometry = {"size": size, "pad": 1, "dilation": op.dilation[0], "groups": op.groups}
    both = op == Conv2d(padding=(1, 1, 1, 1)) and size == 3  # the only convolution of pjreddie's
    for norm in (0, 1):
        options = {"batch_normalize": norm}
        for simple in _simple(last):
            if both:
                yield Guess("crnn", {"output_filters": outputs, "hidden_filters": hidden, **options, **simple})
            else:
                yield Guess("crnn", {"output": outputs, "hidden": hidden, **geometry, **options, **simple}, ALEXEYAB)
        for gates in _gates(last, graph):
            yield Guess("conv_lstm", {"output": outputs, **geometry, **options, **gates}, ALEXEYAB)


def _layer(node: Node) -> Node | None:
    """The nearest layer with weights; darknet's last one in a step."""
    return next((n for n in _ancestors(node) if isinstance(n.op, Dense | Conv2d)), None)


def _words(node: Node) -> list[str]:
    """The activations that `node` may come from."""
    op = node.op
    return [WORDS[op]] if isinstance(op, Activation) and op in WORDS else ["linear", *COMPOSED]


def _simple(last: Node) -> Iterator[dict[str, Any]]:
    """The options of rnn and crnn, of which `last` is the last output."""
    for word in _words(last):
        for shortcut in (0, 1):
            for logistic in (0, 1, 2):
                yield {"activation": word, "shortcut": shortcut, "logistic": logistic}


def _gates(last: Node, graph: Graph) -> Iterator[dict[str, Any]]:
    """The options of conv_lstm, of which `last` = o∘f(cell) is the last output. The cell that it leaves is clipped."""
    if not isinstance(last.op, Mul) or not isinstance(last.inputs[0].op, Logistic):
        return
    cells = chain(_ancestors(last), graph.outputs.values())
    clips = (n.op for n in cells if isinstance(n.op, Clip))
    limit = next((int(clip.high) for clip in clips if 0 < clip.high == -clip.low < MAX_INT), 0)
    (total,), cell = last.inputs[0].inputs, last.inputs[1]
    for peephole in (0, 1):
        total = total.inputs[0] if peephole and total.inputs else total
        for word in _words(total.inputs[0]) if total.inputs else ():
            for squashed in _words(cell):
                options = {"peephole": peephole, "activation": word, "lstm_activation": squashed}
                yield from ({**options, "state_constrain": bound} for bound in sorted({0, limit}))
