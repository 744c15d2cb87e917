"""Graph -> cfg and weights, for networks that darknet can express.

Every node becomes a section, but for those that `darknet_export_composed` and `darknet_export_recurrent` find to be one
section together; a convolution or connected layer takes the batch normalisation and the activation after it into its
own. Where a section does not read the layer before it, a [route] stands between them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

from graphsr.dim import Dim, Size
from graphsr.errors import ModelError
from graphsr.ir import Graph, Node
from graphsr.model import Model
from graphsr.op import Array
from graphsr.ops import Activation, BatchNorm, Conv2d, Linear, Reshape
from graphsr.ops.detection import HEADS
from graphsr.passes import fold_constants, remove_dead

from .darknet_activations import PLAIN
from .darknet_export_composed import Composed, composed
from .darknet_export_errors import UnsupportedError, value
from .darknet_export_forms import unfused, with_layers, with_words
from .darknet_export_recurrent import RecurrentSection, joined_steps
from .darknet_export_sequences import sequences_as_rows
from .darknet_grammar import listed
from .darknet_weights import ALEXEYAB, PJREDDIE, write_weights

NAMES = {op: name for name, op in reversed(PLAIN.items())} | {Linear(): "linear"}
"""The word for an activation."""


class Writer:
    """The sections and parameters so far. A rule writes the sections of one node."""

    def __init__(self, graph: Graph, stem: str = "net") -> None:
        self.graph, self.stem = graph, stem
        self.sections: list[list[str]] = []
        self.shapes: list[tuple[Size, ...]] = []
        """[N, C, H, W] of each layer's output, as darknet sees it."""
        self.arrays: list[Array | Mapping[str, list[Array]]] = []
        """The parameters in the order of the file; where the forks differ in it, for each of them."""
        self.steps: set[int] = set()
        """Time steps of recurrent sections."""
        self.trees: dict[str, str] = {}
        """The files of the trees of classes, by name."""
        self.layer: dict[Node, int] = {}
        """The layer that holds the value of a node."""
        self.forks: dict[str, set[str]] = defaultdict(set)
        """Words that only one of the forks knows, by fork."""
        self.outputs = set(graph.outputs.values())
        self.users: dict[Node, list[Node]] = defaultdict(list)
        for node in graph.nodes():
            for child in node.inputs:
                self.users[child].append(node)

    def section(self, word: str, node: Node, /, *, fork: str = "", **options: Any) -> None:
        """A section whose output is the value of `node`. Options that are None are left out."""
        if fork:
            self.forks[fork].add(word)
        lines = [f"{key}={_text(value)}" for key, value in options.items() if value is not None]
        self.sections.append([f"[{word}]", *lines])
        self.shapes.append((*node.type.shape, 1, 1)[:4])
        self.layer[node] = len(self.sections) - 1

    def feed(self, node: Node, exact: bool = True) -> None:
        """Make `node` the output of the layer before the next section. Unless it is read as a vector (`exact=False`),
        darknet must see it in its own shape."""
        shape = (*node.type.shape, 1, 1)[:4]
        index = self.index(node)
        if exact and index >= 0 and shape != self.shapes[index]:
            raise UnsupportedError(f"darknet cannot reshape {list(self.shapes[index])} to {list(shape)}")
        if index != len(self.sections) - 1:
            self.sections.append(["[route]", f"layers={index}"])
            self.shapes.append(self.shapes[index])

    def index(self, node: Node) -> int:
        if node not in self.layer:
            raise UnsupportedError("it reads a constant where darknet has a layer")
        return self.layer[node]

    def layer_of(self, node: Node) -> int:
        """The index of the layer that holds the value of `node` in the shape that darknet sees."""
        index = self.index(node)
        if index >= 0 and (*node.type.shape, 1, 1)[:4] != self.shapes[index]:
            raise UnsupportedError(f"darknet cannot reshape to {node.type}")
        return index

    def only_user(self, node: Node) -> Node | None:
        """The node that alone reads this one, which is no output."""
        users = self.users[node]
        return users[0] if len(users) == 1 and node not in self.outputs else None

    def activation(self, node: Node) -> tuple[str, Node]:
        """(word, node after it): the activation that follows a layer, to be written in its section."""
        user = self.only_user(node)
        if user is not None and isinstance(user.op, Activation) and user.op in NAMES:
            return NAMES[user.op], user
        return "linear", node

    def norm(self, node: Node) -> tuple[BatchNorm, tuple[Array, ...], Node] | None:
        """The batch normalisation that follows a layer."""
        user = self.only_user(node)
        if user is not None and isinstance(user.op, BatchNorm) and user.inputs[0] is node:
            return user.op, tuple(value(child) for child in user.inputs[1:]), user
        return None

    def tree(self, parents: Sequence[int]) -> str:
        """The name of the file, beside the cfg, that holds a tree of classes: a line `label parent` for each of them.

        A value in a cfg has no white space, and ends at a comment.
        """
        text = "".join(f"class{i} {parent}\n" for i, parent in enumerate(parents))
        number = f"-{len(self.trees) + 1}" if self.trees else ""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", self.stem) + f"{number}.tree"
        known = next((known for known, held in self.trees.items() if held == text), name)
        self.trees[known] = text
        return known

    def covers(self, *nodes: Node) -> None:
        """The last section holds the values of these nodes, too."""
        self.layer |= dict.fromkeys(nodes, len(self.sections) - 1)


Rule: TypeAlias = Callable[[Writer, Node, Any], None]

RULES: dict[type, Rule] = {}
"""How a node of each op is written."""


def rule(*ops: type) -> Callable[[Rule], Rule]:
    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


@dataclass(frozen=True)
class Files:
    """What a network comes to in darknet's format."""

    cfg: str
    weights: bytes
    trees: dict[str, str]
    """By the names that the cfg has for them."""


def export(model: Model, stem: str) -> Files:
    """The contents of the files; trees are named after `stem`. Raises `ModelError`; see `save`."""
    # the weights of a state that begins with zeros would be folded away
    graph = fold_constants(with_words(joined_steps(unfused(model.graph))))
    if len(graph.inputs) != 1:
        inputs = ", ".join(graph.input_types())
        raise ModelError(f"darknet has one input besides the states of its recurrent layers, this network has {inputs}")
    graph = remove_dead(sequences_as_rows(with_layers(graph)))
    writer, faults = Writer(graph, stem), []
    (image,) = graph.inputs
    _begin(writer, image)
    whole = composed(graph)
    inner = {node for section in whole.values() for node in section.inner}
    for node in graph.nodes():
        if node is image or node.is_const or node in writer.layer or node in inner:
            continue
        try:
            if node in whole:
                _write_composed(writer, node, whole[node])
            else:
                _rule_of(node)(writer, node, node.op)
        except UnsupportedError as error:
            faults.append(f"{node.where()}: {error}")
            writer.section("unsupported", node)
    try:
        _end(writer)
    except UnsupportedError as error:
        faults.append(str(error))
    fork = PJREDDIE if writer.forks[PJREDDIE] else ALEXEYAB
    if writer.forks[PJREDDIE] and writer.forks[ALEXEYAB]:
        both = (", ".join(sorted(words)) for words in (writer.forks[PJREDDIE], writer.forks[ALEXEYAB]))
        faults.append("neither fork knows all of it: {} are pjreddie's, {} AlexeyAB's".format(*both))
    if len(writer.steps) > 1:
        faults.append(f"its recurrent layers differ in their time steps: {sorted(writer.steps)}")
    if faults:
        raise ModelError("darknet cannot express this network:" + listed(list(dict.fromkeys(faults)), 100))
    text = "\n\n".join("\n".join(lines) for lines in [_net(model, image, writer.steps), *writer.sections])
    return Files(text + "\n", write_weights(_in_order(writer.arrays, fork), fork), writer.trees)


def _in_order(arrays: list[Array | Mapping[str, list[Array]]], fork: str) -> list[Array]:
    """The parameters in the order of the fork's file."""
    return [one for part in arrays for one in (part[fork] if isinstance(part, Mapping) else [part])]


def _rule_of(node: Node) -> Rule:
    if isinstance(node.op, Activation):
        return _write_activation
    if type(node.op) not in RULES:
        raise UnsupportedError("darknet has no such layer")
    return RULES[type(node.op)]


def _write_composed(writer: Writer, node: Node, section: Composed) -> None:
    if section.fork:
        writer.forks[section.fork].add(section.options.get("activation", section.word))
    if section.other is None:
        writer.feed(section.source)
        tree = {"tree": writer.tree(_some_tree(section.groups))} if section.groups else {}
        writer.section(section.word, node, **section.options, **tree)
        return
    options: dict[str, Any] = {**section.options, "from": writer.layer_of(section.other)}
    writer.feed(section.source)
    word, last = writer.activation(node)
    writer.section(section.word, last, **options, activation=word)
    writer.covers(node)


def _some_tree(groups: Sequence[int]) -> list[int]:
    """Parents of classes that come in these groups. A softmax does not depend on them, so that the graph has none:
    each group hangs on the first class of the group before."""
    starts = list(accumulate(groups, initial=0))
    return [parent for parent, size in zip([-1, *starts], groups, strict=False) for _ in range(size)]


def _begin(writer: Writer, image: Node) -> None:
    """Layers cannot refer to the image: unless one section with weights alone reads it, a layer repeats it."""
    writer.layer[image] = -1
    user = writer.only_user(image)
    if user is None or not isinstance(user.op, Conv2d | RecurrentSection):
        writer.section("activation", image, activation="linear")


def _end(writer: Writer) -> None:
    """darknet's output is its last layer, besides heads, which are found wherever they stand."""
    plain = [node for node in writer.graph.outputs.values() if not isinstance(node.op, HEADS)]
    if len(plain) > 1:
        raise UnsupportedError(f"darknet has one output besides its heads, this network has {len(plain)}")
    for node in plain:
        writer.feed(node)


def _net(model: Model, image: Node, steps: set[int]) -> list[str]:
    """[net], with the size that is known: that of the input, or of the training."""
    _, channels, *sizes = (*image.type.shape, 1, 1)[:4]
    told = [int(model.inferred.get(key, "0")) or 64 for key in ("height", "width")]
    height, width = (told[i] if isinstance(size, Dim) else size for i, size in enumerate(sizes))
    lines = ["[net]", "batch=1", f"height={height}", f"width={width}", f"channels={channels}"]
    lines += [f"time_steps={count}" for count in steps - {1}]
    if model.input_range != 1:
        lines.append(f"input_range={model.input_range:g}")
    if model.inferred.get("letterbox") == "yes":
        lines.append("letter_box=1")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_text, value))
    return f"{value:.9g}" if isinstance(value, float) else str(int(value) if isinstance(value, bool) else value)


def _write_activation(writer: Writer, node: Node, op: Activation) -> None:
    if op not in NAMES:
        raise UnsupportedError("darknet has no such activation")
    writer.feed(node.inputs[0])
    writer.section("activation", node, activation=NAMES[op])


@rule(Reshape)
def _write_reshape(writer: Writer, node: Node, op: Reshape) -> None:
    """No layer: whoever reads it takes a vector anyway, or finds it in the shape that darknet sees."""
    (x,) = node.inputs
    if node.type.rank < 2 or node.type.shape[0] != x.type.shape[0]:
        raise UnsupportedError(f"darknet cannot reshape {x.type} to {node.type}")
    writer.layer[node] = writer.index(x)


@rule(RecurrentSection)
def _write_recurrent(writer: Writer, node: Node, op: RecurrentSection) -> None:
    writer.feed(node.inputs[0])
    writer.section(op.word, node, fork=op.fork, **op.options)
    writer.steps.add(op.steps)
    writer.arrays.append(op.arrays)
