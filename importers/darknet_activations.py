"""darknet's activations by name. Those that are no op of their own are composed of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import (
    Activation,
    Add,
    Clip,
    Div,
    Elu,
    Exp,
    Gelu,
    HardTan,
    Leaky,
    LhTan,
    Loggy,
    Logistic,
    Mish,
    Mul,
    Plse,
    Ramp,
    ReduceMax,
    ReduceSum,
    Relie,
    Relu,
    Relu6,
    Selu,
    Shortcut,
    Silu,
    Stair,
    Sub,
    Tanh,
)

if TYPE_CHECKING:
    from .darknet_network import Network

PLAIN: dict[str, Activation] = {
    "elu": Elu(),
    "gelu": Gelu("tanh"),
    "hardtan": HardTan(),
    "leaky": Leaky(0.1),
    "lhtan": LhTan(),
    "loggy": Loggy(),
    "logistic": Logistic(),
    "mish": Mish(),
    "plse": Plse(),
    "ramp": Ramp(),
    "relie": Relie(),
    "relu": Relu(),
    "relu6": Relu6(),
    "revleaky": Leaky(0.1),
    "selu": Selu(),
    "stair": Stair(),
    "swish": Silu(),
    "tanh": Tanh(),
}
EPS = 1e-4
"""In the sums of the normalising activations."""


def hard_mish(net: Network, x: Node) -> Node:
    """x for x > 0, x²/2 + x for −2 < x ≤ 0, else 0: max(0, x) + u + u²/2 with u = min(max(x, −2), 0)"""
    u = net.node(Clip(-2.0, 0.0), x, part="clip")
    square = net.node(Mul(), u, u, part="square")
    below = net.node(Shortcut(1.0, 0.5), u, square, part="below")
    return net.node(Add(), net.node(Relu(), x, part="above"), below)


def normalize_channels(net: Network, x: Node) -> Node:
    """max(0, x) / (Σ_c max(0, x) + ε)"""
    return share_of_sum(net, net.node(Relu(), x, part="positive"), 1, "share")


def channel_softmax(net: Network, x: Node, shift: bool) -> Node:
    """e^(x − m) / (Σ_c e^(x − m) + ε), m = max_c x or 0"""
    return softmax_with_eps(net, x, 1, shift, "softmax")


def softmax_with_eps(net: Network, x: Node, axis: int, shift: bool, part: str) -> Node:
    """e^(x − m) / (Σ e^(x − m) + ε) along `axis`, m = max x or 0"""
    if shift:
        x = net.node(Sub(), x, net.node(ReduceMax((axis,)), x, part=f"{part}.max"), part=f"{part}.shifted")
    return share_of_sum(net, net.node(Exp(), x, part=f"{part}.exp"), axis, part)


def share_of_sum(net: Network, x: Node, axis: int, part: str) -> Node:
    """x / (Σ x + ε) along `axis`"""
    total = net.node(ReduceSum((axis,)), x, part=f"{part}.sum")
    return net.node(Div(), x, net.node(Add(), total, net.constant(EPS, f"{part}.eps"), part=f"{part}.total"))


COMPOSED: dict[str, Callable[[Network, Node], Node]] = {
    "hard_mish": hard_mish,
    "normalize_channels": normalize_channels,
    "normalize_channels_softmax": lambda net, x: channel_softmax(net, x, shift=False),
    "normalize_channels_softmax_maxval": lambda net, x: channel_softmax(net, x, shift=True),
}


def activate(net: Network, x: Node, word: str) -> Node:
    """x under the activation of that name. darknet takes ReLU for a name that it does not know; this is an error."""
    if word == "linear":
        return x
    if word in PLAIN:
        return net.node(PLAIN[word], x)
    if word in COMPOSED:
        return COMPOSED[word](net, x)
    known = ", ".join(sorted({"linear", *PLAIN, *COMPOSED}))
    raise net.section.error(f"{word!r} is not an activation; there are {known}", "activation")
