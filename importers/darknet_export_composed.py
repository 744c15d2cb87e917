"""Sections of darknet that are several nodes of ours, found again in a graph.

For every node that could be the last of such a section, the section is guessed and built once more by the function that
reads it. If this gives the nodes that are there, they are written as that section: so nothing is found that would not
come back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from graphsr.dim import Dim
from graphsr.errors import GraphError, ModelError
from graphsr.ir import Graph, Node
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    DepthToSpace,
    Div,
    Mul,
    Pad,
    Pow,
    Relu,
    Reshape,
    Shortcut,
    Slice,
    Softmax,
    Split,
    Sub,
)

from . import darknet_heads, darknet_merge, darknet_norm, darknet_spatial
from .darknet_activations import COMPOSED
from .darknet_grammar import Option, Section
from .darknet_network import Builder, Network, OpenSizesError, Settings
from .darknet_weights import ALEXEYAB, PJREDDIE, Measure

DEPTH = 5
"""How many nodes lie between the last node of a section and its input at most."""


@dataclass(frozen=True)
class Composed:
    """A section, the node that it reads, and the nodes besides the last that it stands for."""

    word: str
    options: dict[str, str]
    source: Node
    inner: frozenset[Node] = frozenset()
    fork: str = ""
    other: Node | None = None
    """The layer that a [shortcut] adds."""
    groups: tuple[int, ...] = ()
    """The sizes of the groups of classes of a [softmax] with a tree."""

    @property
    def reads(self) -> tuple[Node, ...]:
        return (self.source,) if self.other is None else (self.source, self.other)


class Rebuilt(Network):
    """A network of one layer, which reads `source`."""

    def __init__(self, source: Node) -> None:
        image = Section("net", 0, {key: Option("1", 0) for key in ("height", "width", "channels")})
        super().__init__(image, Settings(ALEXEYAB), Measure(), open_sizes=False)
        self.source = source

    @property
    def x(self) -> Node:
        return self.source


def composed(graph: Graph) -> dict[Node, Composed]:
    """The sections by the last node of each."""
    users: dict[Node, set[Node]] = {}
    for node in graph.nodes():
        for child in node.inputs:
            users.setdefault(child, set()).add(node)
    outputs, found = set(graph.outputs.values()), dict[Node, Composed]()
    for node in graph.nodes():
        for guess in _guesses(node):
            inner = _nodes_between(node, guess.reads, 2 * (DEPTH + len(guess.groups)))
            private = all(users[n] <= inner | {node} and n not in outputs for n in inner)
            if private and _is(guess, node):
                found[node] = replace(guess, inner=inner)
                break
    return found


def _guesses(node: Node) -> Iterator[Composed]:
    """What `node` could be the last node of."""
    for types, guesses in GUESSES:
        if isinstance(node.op, types):
            for source in _sources(node):
                yield from guesses(node, source)


def _sources(node: Node) -> list[Node]:
    """The images from which `node` may be computed, the farthest first: a section may begin like another one's end."""
    level, found = [node], dict[Node, None]()
    for _ in range(DEPTH):
        level = [x for n in level for x in n.inputs if not x.is_const and x not in found]
        found |= dict.fromkeys(level)
    return [x for x in reversed(found) if x.type.rank == 4]


def _nodes_between(node: Node, reads: tuple[Node, ...], most: int) -> frozenset[Node]:
    found, stack = set[Node](), [node]
    while stack:
        for x in stack.pop().inputs:
            if x not in reads and not x.is_const and x not in found and len(found) < most:
                found.add(x)
                stack.append(x)
    return frozenset(found)


def _is(guess: Composed, node: Node) -> bool:
    """Whether reading the section gives `node`."""
    section = Section(guess.word, 0, {key: Option(text, 0) for key, text in guess.options.items()})
    network = Rebuilt(guess.source)
    network.section = section
    network.layers += guess.reads[1:]
    try:
        if guess.groups:
            again = darknet_heads.softmax_by_group(network, guess.groups, section.number("temperature", 1.0))
        else:
            again = BUILDERS[guess.word](network, section)
    except (GraphError, ModelError, OpenSizesError):
        return False
    return _same(again, node, guess.reads)


def _same(a: Node, b: Node, reads: tuple[Node, ...]) -> bool:
    if isinstance(a.op, Slice) and a.type == a.inputs[0].type:  # all of it: such nodes are gone from the graph
        return _same(a.inputs[0], b, reads)
    if a is b or a in reads or b in reads:
        return a is b
    if a.is_const and b.is_const:
        return a.type.shape == b.type.shape and bool(np.array_equal(a.value, b.value))
    alike = same_op(a, b) and len(a.inputs) == len(b.inputs)
    return alike and all(_same(x, y, reads) for x, y in zip(a.inputs, b.inputs, strict=True))


def same_op(a: Node, b: Node) -> bool:
    """Whether two nodes compute the same of their inputs; a reshape is what it gives, however that is put."""
    return a.op == b.op or (isinstance(a.op, Reshape) and isinstance(b.op, Reshape) and a.type == b.type)


def _activations(node: Node, source: Node) -> Iterator[Composed]:
    sums = isinstance(node.op, Div) or isinstance(node.inputs[0].op, Relu)  # hard_mish is a sum
    if sums and source.type.shape == node.type.shape:
        for word in COMPOSED:
            yield Composed("activation", {"activation": word}, source)


def _l2norm(node: Node, source: Node) -> Iterator[Composed]:
    if source in node.inputs:
        yield Composed("l2norm", {}, source, fork=PJREDDIE)


def _normalization(node: Node, source: Node) -> Iterator[Composed]:
    """x·(κ + Σ window·x²)^−β: alpha is any element of the window that is not 0, size what gives the same window."""
    match node.inputs:
        case (Node() as x, Node(op=Pow(), inputs=(Node(op=Conv2d(), inputs=(_, window, kappa)), beta))):
            if x is not source or not (window.is_const and kappa.is_const and beta.is_const):
                return
        case _:
            return
    used = np.abs(window.value[window.value != 0])
    alpha = float(used[0]) if used.size else 0.0
    options = {"alpha": _text(alpha), "beta": _text(-beta.value), "kappa": _text(kappa.value)}
    for size in range(1, 2 * len(window.value) + 2):
        yield Composed("normalization", {**options, "size": str(size)}, source)


def _text(number: Array | float) -> str:
    return f"{float(np.ravel(number)[0]):.9g}"


def _crop(node: Node, source: Node) -> Iterator[Composed]:
    if node.type.rank != 4:
        return
    height, width = node.type.shape[2:]
    sizes = {"crop_height": str(height), "crop_width": str(width)}
    yield Composed("crop", sizes if isinstance(node.op, Sub) else {**sizes, "noadjust": "1"}, source)


def _reorganised(node: Node, source: Node) -> Iterator[Composed]:
    """The forms of [reorg] and [reorg3d] that end in another shape."""
    (x,) = node.inputs
    if isinstance(x.op, DepthToSpace):
        yield Composed("reorg3d", {"stride": str(x.op.block), "reverse": "1"}, source, fork=ALEXEYAB)
    if isinstance(x.op, Pad):
        yield Composed("reorg", {"extra": str(x.op.padding[3])}, source)
    before, after = source.type.shape[2], node.type.shape[2] if node.type.rank == 4 else 0
    if not isinstance(before, Dim) and not isinstance(after, Dim) and min(before, after) > 0:
        yield Composed("reorg", {"stride": str(after // before), "reverse": "1", "flatten": "1"}, source)
        yield Composed("reorg", {"stride": str(before // after), "flatten": "1"}, source)


def _tree_softmax(node: Node, source: Node) -> Iterator[Composed]:
    """One softmax for each group of a tree of classes."""
    (together,) = node.inputs
    parts = together.inputs if isinstance(together.op, Concat) else ()
    sizes = [part.type.shape[-1] for part in parts if isinstance(part.op, Softmax)]
    groups = tuple(size for size in sizes if not isinstance(size, Dim))
    if parts and len(groups) == len(parts):
        temperature = {op.temperature for op in (part.op for part in parts) if isinstance(op, Softmax)}
        yield Composed("softmax", {"temperature": f"{min(temperature):.9g}"}, source, groups=groups)


def _overlaid(node: Node, source: Node) -> Iterator[Composed]:
    """[shortcut] of layers of unequal size: on the channels and the pixels that both have, the rest stays."""
    y = node.inputs[0] if isinstance(node.op, Concat) else node
    match y:
        case Node(op=Shortcut() as factors, inputs=(_, added)):
            alpha, beta = factors.alpha, factors.beta
        case Node(
            op=Add(), inputs=(_, Node(op=ConvTranspose2d(), inputs=(Node(op=Shortcut() as factors) as change, _)))
        ):
            alpha, beta = factors.alpha + 1, factors.beta
            added = change.inputs[1]
        case _:
            return
    options = {"from": "0"} | ({} if (alpha, beta) == (1, 1) else {"alpha": _text(alpha), "beta": _text(beta)})
    layers = [added]  # or what its channels and pixels were cut from
    while isinstance(layers[-1].op, Slice | Split):
        layers += layers[-1].inputs
    for other in reversed(layers):
        if source.type.shape == node.type.shape != other.type.shape and other.type.rank == 4:
            same_pixels = source.type.shape[2:] == other.type.shape[2:]
            fork = "" if same_pixels and "alpha" not in options else PJREDDIE
            yield Composed("shortcut", options, source, fork=fork, other=other)


GUESSES: tuple[tuple[type[Op] | tuple[type[Op], ...], Callable[[Node, Node], Iterator[Composed]]], ...] = (
    ((Div, Add), _activations),
    (Div, _l2norm),
    (Mul, _normalization),
    ((Sub, Slice), _crop),
    (Reshape, _tree_softmax),
    (Reshape, _reorganised),
    ((Concat, Shortcut, Add), _overlaid),
)
"""What the last node of a section may be, and the guesses for it: functions of that node and of the section's input."""
BUILDERS: dict[str, Builder] = {
    "activation": lambda net, s: COMPOSED[s.text("activation")](net, net.x),
    "l2norm": darknet_norm.l2norm,
    "normalization": darknet_norm.normalization,
    "crop": darknet_spatial.crop,
    "reorg": darknet_spatial.reorg,
    "reorg3d": darknet_spatial.reorg3d,
    "shortcut": darknet_merge.shortcut,
}
