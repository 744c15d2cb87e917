"""darknet's recurrent layers, unrolled over the time steps of [net].

The batch holds T steps of B sequences, step by step: [T·B, …]. The weights are those of several connected or
convolutional layers, one after the other; h is the state, x the input of a step, σ the logistic function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from graphsr.dim import Size
from graphsr.ir import Node
from graphsr.ops import Add, Clip, Concat, Conv2d, Dense, Logistic, Mul, Reshape, Split, Sub, Tanh

from .darknet_grammar import Section
from .darknet_layers import batch_norm, normalisation, padding_of, weight_matrix
from .darknet_network import MAX_CHANNELS, Network, section
from .darknet_weights import ALEXEYAB, PJREDDIE

MAX_STEPS = 1000

Affine: TypeAlias = Callable[[Node, str], Node]
"""A layer with its weights, without activation: f(x, name of the step)."""

LSTM_ORDER = {ALEXEYAB: "f i g o", PJREDDIE: "i f o g"}
"""The gates in the order of the file, first on the state, then on the input."""


def dense_layer(net: Network, s: Section, part: str, inputs: int, outputs: int) -> Affine:
    """[B, inputs] -> [B, outputs]; takes its parameters from the file now."""
    bias = net.parameter(f"{part}.bias", outputs)
    weight = weight_matrix(net, f"{part}.weight", outputs, inputs)
    if not s.flag("batch_normalize"):
        return lambda x, step: net.node(Dense(), x, weight, bias, part=f"{part}.{step}")
    scale, mean, var = (net.parameter(f"{part}.{what}", outputs) for what in ("scale", "mean", "var"))

    def normed(x: Node, step: str) -> Node:
        y = net.node(Dense(), x, weight, part=f"{part}.{step}")
        return batch_norm(net, y, (scale, bias, mean, var), f"{part}.{step}.")

    return normed


def conv_layer(net: Network, s: Section, part: str, inputs: int, outputs: int, op: Conv2d, size: int) -> Affine:
    """[B, inputs, H, W] -> [B, outputs, H, W]"""
    if inputs % op.groups or outputs % op.groups:
        raise s.error(f"{inputs} channels and {outputs} filters do not divide into {op.groups} groups", "groups")
    norm = normalisation(net, s, outputs, f"{part}.")
    weight = net.parameter(f"{part}.weight", outputs, inputs // op.groups, size, size)
    if len(norm) == 1:
        return lambda x, step: net.node(op, x, weight, norm[0], part=f"{part}.{step}")
    return lambda x, step: batch_norm(net, net.node(op, x, weight, part=f"{part}.{step}.conv"), norm, f"{part}.{step}.")


@dataclass(frozen=True)
class Steps:
    """The steps of a layer's input: `inputs[t]` is [B, *shape]."""

    net: Network
    count: int
    inputs: tuple[Node, ...]

    @property
    def batch(self) -> Size:
        return self.net.input.type.shape[0] // self.count

    def start(self, name: str, *shape: int) -> Node:
        """The state before the first step: zeros, or an input of the network."""
        if self.net.settings.state == "zero":
            return self.net.constant(np.zeros((1, *shape)), f"{name}.zero")
        return self.net.state(name, self.batch, *shape)

    def keep(self, name: str, state: Node) -> None:
        """The state after the last step: an output of the network when states are carried."""
        if self.net.settings.state == "carried":
            self.net.heads[f"{self.net.name}.{name}"] = state

    def joined(self, outputs: list[Node], *shape: Size) -> Node:
        """[T·B, *shape]"""
        y = outputs[0] if len(outputs) == 1 else self.net.node(Concat(0), *outputs, part="steps")
        return self.net.reshape(y, *shape)


def steps_of(net: Network, flat: bool) -> Steps:
    """The layer's input, step by step: [B, C·H·W], or [B, C, H, W]."""
    count = net.settings.time_steps or net.net.integer("time_steps", 1, 1)
    if count > MAX_STEPS:
        raise net.net.error(f"more than {MAX_STEPS} steps are not unrolled: give time_steps=", "time_steps")
    c, h, w = net.sizes(net.x)
    shape = (c * h * w,) if flat else (c, h, w)
    x = net.reshape(net.x, *shape, part="rows") if flat else net.x
    if count == 1:
        return Steps(net, 1, (x,))
    batch = net.input.type.shape[0] // count
    rows = net.node(Reshape((count, batch, *shape)), x, part="by_step")
    cuts = [net.node(Split(0, (1,) * count, t), rows, part=f"x{t}.cut") for t in range(count)]
    return Steps(net, count, tuple(net.node(Reshape((batch, *shape)), cut, part=f"x{t}") for t, cut in enumerate(cuts)))


@section("rnn")
def rnn(net: Network, s: Section) -> Node:
    """h ← f(U·x) + g(W·h), plus h with `shortcut`; y = f(V·h)"""
    outputs = s.integer("output", 1, 1, MAX_CHANNELS)
    hidden = s.integer("hidden", 1 if net.settings.fork == ALEXEYAB else outputs, 1, MAX_CHANNELS)
    steps = steps_of(net, flat=True)
    given, own, out = (
        dense_layer(net, s, part, a, b)
        for part, a, b in (
            ("input", net.channels(steps.inputs[0]), hidden),
            ("self", hidden, hidden),
            ("output", hidden, outputs),
        )
    )
    return _simple(net, s, steps, (given, own, out), (hidden,), (outputs, 1, 1))


@section("crnn", refused="xnor")
def crnn(net: Network, s: Section) -> Node:
    """The same with convolutions."""
    pj = "output_filters" in s.options or "hidden_filters" in s.options or net.settings.fork == PJREDDIE
    outputs, hidden = (
        s.integer(f"{what}_filters" if pj else what, 1, 1, MAX_CHANNELS) for what in ("output", "hidden")
    )
    op, size = (Conv2d(padding=(1, 1, 1, 1)), 3) if pj else _geometry(s)
    steps = steps_of(net, flat=False)
    c, h, w = net.sizes(net.x)
    layers = tuple(
        conv_layer(net, s, part, a, b, op, size)
        for part, a, b in (("input", c, hidden), ("self", hidden, hidden), ("output", hidden, outputs))
    )
    return _simple(net, s, steps, (layers[0], layers[1], layers[2]), (hidden, h, w), (outputs, h, w))


def _simple(
    net: Network,
    s: Section,
    steps: Steps,
    layers: tuple[Affine, Affine, Affine],
    hidden: tuple[int, ...],
    shape: tuple[int, ...],
) -> Node:
    """The loop over the steps of rnn and crnn."""
    given, own, out = layers
    word, kept = s.text("activation", "logistic"), s.flag("shortcut")
    own_word = {0: word, 2: "loggy"}.get(s.integer("logistic", 0, 0), "logistic")
    state, outputs = steps.start("state", *hidden), []
    for t, x in enumerate(steps.inputs):
        fresh = net.node(
            Add(), net.activate(given(x, f"{t}"), word), net.activate(own(state, f"{t}"), own_word), part=f"sum{t}"
        )
        state = net.node(Add(), fresh, state, part=f"state{t}") if kept else fresh
        outputs.append(net.activate(out(state, f"{t}"), word))
    steps.keep("state", state)
    return steps.joined(outputs, *shape)


def _geometry(s: Section) -> tuple[Conv2d, int]:
    """The convolution that AlexeyAB's recurrent layers use throughout; the size of the image must not change."""
    size, stride, groups = s.integer("size", 3, 1), s.integer("stride", 1, 1), s.integer("groups", 1, 1)
    dilation, padding = s.integer("dilation", 1, 1), padding_of(s, size)
    if stride != 1 or 2 * padding != size - 1:
        raise s.error("a recurrent convolution keeps the size of the image: odd size, stride=1, pad=1", "size")
    dilation = 1 if size == 1 else dilation
    return Conv2d(padding=(padding * dilation,) * 4, dilation=(dilation, dilation), groups=groups), size


@section("gru", refused="logistic")
def gru(net: Network, s: Section) -> Node:
    """z = σ(W_z·h + U_z·x), r = σ(W_r·h + U_r·x), c = σ(W_h·(r∘h) + U_h·x), h ← z∘h + (1 − z)∘c

    The candidate c goes through the logistic function, through tanh with `tanh` (pjreddie's key).
    """
    outputs, steps = s.integer("output", 1, 1, MAX_CHANNELS), steps_of(net, flat=True)
    inputs = net.channels(steps.inputs[0])
    sides = {"state": outputs, "input": inputs}
    order = ("input", "state") if net.settings.fork == ALEXEYAB else ("state", "input")
    layers = {
        (side, gate): dense_layer(net, s, f"{side}_{gate}", sides[side], outputs) for side in order for gate in "zrh"
    }
    candidate = Tanh() if s.flag("tanh") else Logistic()
    state, states = steps.start("state", outputs), []
    for t, x in enumerate(steps.inputs):

        def both(gate: str, h: Node, x: Node = x, t: int = t) -> Node:
            return net.node(
                Add(), layers["state", gate](h, f"{t}"), layers["input", gate](x, f"{t}"), part=f"{gate}{t}.sum"
            )

        z, r = (net.node(Logistic(), both(gate, state), part=f"{gate}{t}") for gate in "zr")
        c = net.node(candidate, both("h", net.node(Mul(), r, state, part=f"forgot{t}")), part=f"c{t}")
        change = net.node(Mul(), z, net.node(Sub(), state, c, part=f"d{t}"), part=f"zd{t}")
        state = net.node(Add(), c, change, part=f"state{t}")  # c + z∘(h − c)
        states.append(state)
    steps.keep("state", state)
    return steps.joined(states, outputs, 1, 1)


@section("lstm")
def lstm(net: Network, s: Section) -> Node:
    """f, i, o = σ(W·h + U·x), g = tanh(W·h + U·x), c ← f∘c + i∘g, h ← o∘tanh c"""
    outputs, steps = s.integer("output", 1, 1, MAX_CHANNELS), steps_of(net, flat=True)
    inputs, gates = net.channels(steps.inputs[0]), LSTM_ORDER[net.settings.fork].split()
    w = {gate: dense_layer(net, s, f"w{gate}", outputs, outputs) for gate in gates}
    u = {gate: dense_layer(net, s, f"u{gate}", inputs, outputs) for gate in gates}
    return _lstm(net, steps, Gates(w, u, {}), (outputs,), (outputs, 1, 1))


@section("conv_lstm", refused="xnor bottleneck shortcut", ignored="time_normalizer")
def conv_lstm(net: Network, s: Section) -> Node:
    """The same with convolutions, each under `activation`; with `peephole`, f and i also see V·c before the step, and o
    sees it after (Shi et al., "Convolutional LSTM network", 2015). The cell is then held within ±`state_constrain`."""
    outputs, (op, size) = s.integer("output", 1, 1, MAX_CHANNELS), _geometry(s)
    steps = steps_of(net, flat=False)
    c, h, w = net.sizes(net.x)
    word = s.text("activation", "linear")

    def layer(part: str, channels: int) -> Affine:
        affine = conv_layer(net, s, part, channels, outputs, op, size)
        return lambda x, step: net.activate(affine(x, step), word)

    peepholes = {gate: layer(f"v{gate}", outputs) for gate in "fio"} if s.flag("peephole") else {}
    states = {gate: layer(f"w{gate}", outputs) for gate in "figo"}
    inputs = {gate: layer(f"u{gate}", c) for gate in "figo"}
    limit = s.integer("state_constrain", 32 * steps.count, 0)
    gates = Gates(states, inputs, peepholes, s.text("lstm_activation", "tanh"), float(limit))
    return _lstm(net, steps, gates, (outputs, h, w), (outputs, h, w))


@dataclass(frozen=True)
class Gates:
    """The layers of an LSTM by gate: on the state, on the input, and peepholes on the cell."""

    w: dict[str, Affine]
    u: dict[str, Affine]
    v: dict[str, Affine]
    activation: str = "tanh"
    limit: float = 0.0
    """Of the cell; 0 is none."""


def _lstm(net: Network, steps: Steps, gates: Gates, state: tuple[int, ...], shape: tuple[int, ...]) -> Node:
    cell, hidden = steps.start("cell", *state), steps.start("state", *state)
    outputs = []
    for t, x in enumerate(steps.inputs):

        def gate(name: str, cell: Node | None, x: Node = x, t: int = t, h: Node = hidden) -> Node:
            """Before its activation."""
            total = net.node(Add(), gates.w[name](h, f"{t}"), gates.u[name](x, f"{t}"), part=f"{name}{t}.sum")
            if cell is None or name not in gates.v:
                return total
            return net.node(Add(), total, gates.v[name](cell, f"{t}"), part=f"{name}{t}.peeped")

        f, i = (net.node(Logistic(), gate(name, cell), part=f"{name}{t}") for name in "fi")
        g = net.activate(gate("g", None), gates.activation)
        cell = net.node(
            Add(), net.node(Mul(), f, cell, part=f"fc{t}"), net.node(Mul(), i, g, part=f"ig{t}"), part=f"cell{t}"
        )
        o = net.node(Logistic(), gate("o", cell), part=f"o{t}")
        hidden = net.node(Mul(), o, net.activate(cell, gates.activation), part=f"state{t}")
        if gates.limit:
            cell = net.node(Clip(-gates.limit, gates.limit), cell, part=f"clipped{t}")
        outputs.append(hidden)
    steps.keep("cell", cell)
    steps.keep("state", hidden)
    return steps.joined(outputs, *shape)
