"""A darknet network under construction: layer by layer, in the order of the cfg.

`SECTIONS` says for every word in brackets which function builds its layer and which of its keys concern training only
or are not supported. All values are [N, C, H, W]; where darknet speaks of a vector, H = W = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np

from graphsr.dim import Dim, Size
from graphsr.errors import GraphError, ModelError
from graphsr.ir import Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Reshape

from .darknet_activations import activate
from .darknet_grammar import MAX_INT, Section, listed
from .darknet_weights import Measure, Parameters, Request


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMON = words(
    """
    learning_rate smooth truth onlyforward stopbackward dontsave dont_update burnin_update clip train_only_bn
    """
)
"""Keys that every section may have and that concern training only."""
NOT_LOADED = {"dontload": 0.0, "dontloadscales": 0.0, "numload": 0.0}
"""Keys of every section that would leave a layer without some of its parameters."""
MAX_CHANNELS = 1 << 24
MAX_NODES = 15_000
"""Of the graph: what many steps of recurrent layers, unrolled, can come to."""
MAX_CONSTANTS = 1 << 25
"""Elements of all constants that the file does not hold."""
MAX_SIZE_TEXT = 400
"""Characters: a size that was divided more often is not kept open."""


@dataclass(frozen=True)
class Settings:
    """What the files do not say."""

    fork: str
    """Whose darknet defines a word that the two forks take differently: "alexeyab" or "pjreddie"."""
    form: str = "inside"
    """Batch normalisation by √(v + ε) as on a GPU and in AlexeyAB's fork, or by √v + ε as in pjreddie's on a CPU."""
    state: str = "zero"
    """Where the states of recurrent layers begin: at "zero" in every call, or "carried" from call to call."""
    time_steps: int | None = None
    """Of recurrent layers, in place of the number in [net]."""
    folder: Path | None = None
    """Where the tree files lie that a cfg names."""


class OpenSizesError(Exception):
    """A layer needs to know the height and the width: the network is built again, for those of [net]."""


class Network:
    """The layers so far. A section's function reads `x`, the output of the layer before, and returns its own."""

    def __init__(self, net: Section, settings: Settings, parameters: Parameters, open_sizes: bool) -> None:
        self.net, self.settings, self.parameters, self.open_sizes = net, settings, parameters, open_sizes
        self.section = net
        self.nodes = self.constants = 0
        self.notes: list[str] = []
        """Sentences for whoever loads the network."""
        self.layers: list[Node] = []
        self.convolutions: dict[int, tuple[Node, ...]] = {}
        """Weight and the rest of the parameters of each convolution by layer index, for `share_index`."""
        self.heads: dict[str, Node] = {}
        """Outputs besides the last layer: detection heads, and the states of recurrent layers."""
        self.states: list[Node] = []
        """Inputs besides the image: the states of recurrent layers."""
        self.fixed: set[str] = set()
        """Names of the constants that were not learned."""
        self.input = Node.input("input", TensorType("float32", self._input_shape()), net.origin)

    def _input_shape(self) -> tuple[Size, ...]:
        n, net = Dim.symbol("N"), self.net
        c, h, w = (net.integer(key, 0, 0, MAX_CHANNELS) for key in ("channels", "height", "width"))
        inputs = net.integer("inputs", 0, 0, MAX_CHANNELS)
        if c and h and w:
            return (n, c, Dim.symbol("H"), Dim.symbol("W")) if self.open_sizes else (n, c, h, w)
        if not inputs:
            raise net.error("height, width and channels (or inputs) must say how large the input is")
        return (n, inputs, 1, 1)

    @property
    def x(self) -> Node:
        """The output of the layer before."""
        return self.layers[-1] if self.layers else self.input

    @property
    def index(self) -> int:
        """The index of the layer under construction; [net] has none."""
        return len(self.layers)

    @property
    def name(self) -> str:
        return f"{self.index}.{self.section.name}"

    def node(self, op: Op, *inputs: Node, part: str = "") -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.section.error(
                f"the network has more than {MAX_NODES} operations; recurrent layers are unrolled: give time_steps=1?"
            )
        return Node(op, inputs, f"{self.name}.{part}" if part else self.name, self.section.origin)

    def constant(self, value: Array | float, part: str) -> Node:
        """Numbers that belong to the layer and not to the file."""
        array = np.atleast_1d(np.asarray(value, np.float32))
        self.constants += array.size
        if self.constants > MAX_CONSTANTS:
            raise self.section.error(f"the layers have more than {MAX_CONSTANTS} constants of their own")
        self.fixed.add(f"{self.name}.{part}")
        return Node.const(array, f"{self.name}.{part}", self.section.origin)

    def parameter(self, what: str, *shape: int) -> Node:
        """The next parameter of the file."""
        return Node.const(self.take(what, *shape), f"{self.name}.{what}", self.section.origin)

    def take(self, what: str, *shape: int) -> Array:
        layer = f"layer {self.index} (line {self.section.line}: [{self.section.name}])"
        if prod(shape) > MAX_INT:
            raise ModelError(f"{layer}: its {what} {list(shape)} are more than darknet can count")
        return self.parameters.take(Request(layer, what, shape))

    def activate(self, x: Node, word: str | None = None, default: str = "logistic") -> Node:
        """x under the section's activation, or that of the given name."""
        return activate(self, x, self.section.text("activation", default) if word is None else word)

    def layer(self, index: int, key: str) -> Node:
        """The output of an earlier layer; negative numbers count back from the current one."""
        absolute = index if index >= 0 else self.index + index
        if not 0 <= absolute < self.index:
            raise self.section.error(f"there is no layer {index} before layer {self.index}", key)
        return self.layers[absolute]

    def channels(self, x: Node) -> int:
        channels = x.type.shape[1]
        if isinstance(channels, Dim) or not 0 < channels <= MAX_CHANNELS:
            raise self.section.error(f"{channels} channels are not possible")
        return channels

    def sizes(self, x: Node) -> tuple[int, int, int]:
        """(C, H, W); without them known, the network is built for the sizes of [net]."""
        _, c, h, w = x.type.shape
        if isinstance(c, Dim) or isinstance(h, Dim) or isinstance(w, Dim):
            raise OpenSizesError
        if c * h * w > MAX_INT:
            raise self.section.error(f"{c * h * w} values per image are more than darknet can count")
        return c, h, w

    def flat(self, x: Node, part: str = "flat") -> Node:
        """x as [N, C·H·W]"""
        return self.node(Reshape((-1, prod(self.sizes(x)))), x, part=part)

    def reshape(self, x: Node, *shape: Size, part: str = "") -> Node:
        """x as [N, *shape]"""
        return self.node(Reshape((x.type.shape[0], *shape)), x, part=part)

    def state(self, name: str, *shape: Size) -> Node:
        """An input that carries the state of a recurrent layer from one call to the next."""
        node = Node.input(f"{self.name}.{name}", TensorType("float32", shape), self.section.origin)
        self.states.append(node)
        return node


Builder: TypeAlias = Callable[[Network, Section], Node]


@dataclass(frozen=True)
class Kind:
    """What a word in brackets means."""

    build: Builder
    refused: dict[str, float] = field(default_factory=dict)
    """Keys that would change the result and are not supported, with the value that changes nothing."""
    ignored: frozenset[str] = frozenset()
    """Keys that concern training only."""


SECTIONS: dict[str, Kind] = {}


def section(*names: str, refused: str = "", ignored: str = "") -> Callable[[Builder], Builder]:
    """Enter a function as the builder of the sections of these names; the keys are given as words."""

    def enter(function: Builder) -> Builder:
        kind = Kind(function, dict.fromkeys(words(refused), 0.0) | NOT_LOADED, COMMON | words(ignored))
        SECTIONS.update(dict.fromkeys(names, kind))
        return function

    return enter


def check(sections: Iterable[Section]) -> None:
    """Raise `ModelError` that lists everything in these sections which is not supported."""
    faults = []
    for s in sections:
        kind = SECTIONS.get(s.name)
        if kind is None:
            faults.append(f"line {s.line}: [{s.name}] is not a section that graphsr knows")
            continue
        for key in kind.refused.keys() & s.options.keys():
            if s.number(key, 0.0) != kind.refused[key]:
                faults.append(f"line {s.options[key].line}: [{s.name}] {key}={s.options[key].text} is not supported")
    if faults:
        raise ModelError("this network cannot be loaded:" + listed(faults, 100))


def unread(sections: Iterable[Section]) -> list[str]:
    """A sentence on every key that means nothing in its section, as far as the network was built, or has no value."""
    found = []
    for s in sections:
        ignored = SECTIONS[s.name].ignored if s.name in SECTIONS else NET_KEYS
        for key in s.options.keys() - s.asked - ignored:
            found.append(f"line {s.options[key].line}: [{s.name}] has no key {key!r}: it is ignored")
        found += [f"line {line}: [{s.name}] {key}= has no value: it is ignored" for key, line in s.skipped.items()]
    return sorted(found, key=lambda text: int(text[5 : text.index(":")]))


NET_KEYS = words(
    """
    batch subdivisions momentum decay adam B1 B2 eps learning_rate learning_rate_min policy burn_in power step steps
    scale scales seq_scales gamma max_batches max_crop min_crop max_ratio min_ratio center clip flip angle aspect
    saturation exposure hue blur gaussian_noise mosaic mosaic_bound cutmix mixup notruth random track augment_speed
    sequential_subdivisions try_fix_nan weights_reject_freq equidistant_point badlabels_rejection_percentage
    num_sigmas_reject_badlabels ema_alpha use_cuda_graph loss_scale dynamic_minibatch optimized_memory
    workspace_size_limit_MB sgdr_cycle sgdr_mult contrastive contrastive_jit_flip contrastive_color unsupervised
    label_smooth_eps resize_step attention adversarial_lr max_chart_loss show_receptive_field letter_box
    burnin_update
    """
)
"""Keys of [net] that the graph does not depend on."""


def build(sections: list[Section], settings: Settings, parameters: Parameters, open_sizes: bool) -> Network:
    """The network of these sections, the first of which is [net]. Raises `ModelError`, `GraphError`."""
    network = Network(sections[0], settings, parameters, open_sizes)
    for s in sections[1:]:
        network.section = s
        network.layers.append(SECTIONS[s.name].build(network, s))
        if open_sizes and max(len(str(size)) for size in network.x.type.shape) > MAX_SIZE_TEXT:
            raise OpenSizesError
    return network


def measure(sections: list[Section], settings: Settings) -> tuple[Network, list[Request]]:
    """The network with zeros for parameters, and what it will ask the weights file for.

    Height and width stay open where every layer allows it; else they are those of [net].
    """
    measure = Measure()
    try:
        return build(sections, settings, measure, open_sizes=True), measure.requests
    except (OpenSizesError, GraphError):
        measure = Measure()
        return build(sections, settings, measure, open_sizes=False), measure.requests
