"""darknet's layers that take the outputs of several others: route, shortcut, scale_channels, sam; and implicit."""

from __future__ import annotations

import numpy as np

from graphsr.dim import Dim
from graphsr.ir import Node
from graphsr.ops import (
    Add,
    Concat,
    ConvTranspose2d,
    Mul,
    Relu,
    Reshape,
    Shortcut,
    Slice,
    Split,
)

from .darknet_activations import share_of_sum, softmax_with_eps
from .darknet_grammar import Section
from .darknet_network import MAX_CHANNELS, Network, section

NORMALISATIONS = {"none": "none", "relu": "relu", "avg_relu": "relu", "softmax": "softmax"}
WEIGHTS = ("none", "per_feature", "per_layer", "per_channel")


@section("route", ignored="stream wait_stream")
def route(net: Network, s: Section) -> Node:
    """The channels of the listed layers one after the other; with `groups`, group `group_id` of each."""
    sources = [net.layer(index, "layers") for index in s.integers("layers")]
    groups = s.integer("groups", 1, 1)
    group = s.integer("group_id", 0, 0, groups - 1)
    if not sources:
        raise s.error("layers= must name the layers")
    if groups > 1:
        sources = [_group(net, s, x, groups, group, i) for i, x in enumerate(sources)]
    return sources[0] if len(sources) == 1 else net.node(Concat(1), *sources)


def _group(net: Network, s: Section, x: Node, groups: int, group: int, i: int) -> Node:
    channels = net.channels(x)
    if channels % groups:
        raise s.error(f"{channels} channels do not divide into {groups} groups", "groups")
    size = channels // groups
    cut = Split(1, (group * size, size, channels - (group + 1) * size), 1)
    return net.node(cut, x, part=f"group{i}")


@section("shortcut", ignored="weights_normalizion")
def shortcut(net: Network, s: Section) -> Node:
    """The sum of the layer before and others: α and β are pjreddie's, several and weighted ones AlexeyAB's."""
    others = [net.layer(index, "from") for index in s.integers("from")]
    if not others:
        raise s.error("from= must name a layer")
    kind = s.choice("weights_type", "none", WEIGHTS)
    normalisation = NORMALISATIONS[s.choice("weights_normalization", "none", NORMALISATIONS)]
    alpha, beta = s.number("alpha", 1.0), s.number("beta", 1.0)
    if kind != "none":
        y = _weighted(net, others, kind == "per_channel", normalisation)
    elif len(others) == 1:
        y = overlaid(net, net.x, others[0], alpha, beta)
    else:
        y = net.x
        for i, other in enumerate(others):
            y = overlaid(net, y, other, 1.0, 1.0, f"sum{i}")
    return net.activate(y, default="linear")


def overlaid(net: Network, x: Node, other: Node, alpha: float, beta: float, part: str = "sum") -> Node:
    """α·x + β·other on the channels that both have, and where sizes differ by a factor on the pixels that both have:
    every n-th of the larger one. The rest of x stays as it is."""
    if x.type.shape == other.type.shape:
        return net.node(Shortcut(alpha, beta), x, other, part=part)
    channels = min(net.channels(x), net.channels(other))
    rest = net.channels(x) - channels
    common = _first_channels(net, x, channels, f"{part}.x")
    added = _first_channels(net, other, channels, f"{part}.other")
    if x.type.shape[2:] == added.type.shape[2:]:
        y = net.node(Shortcut(alpha, beta), common, added, part=f"{part}.common")
    else:
        y = _sampled(net, common, added, (alpha, beta), part)
    if not rest:
        return y
    tail = net.node(Split(1, (channels, rest), 1), x, part=f"{part}.rest")
    return net.node(Concat(1), y, tail, part=part)


def _first_channels(net: Network, x: Node, count: int, part: str) -> Node:
    channels = net.channels(x)
    return x if count == channels else net.node(Split(1, (count, channels - count), 0), x, part=part)


def _sampled(net: Network, x: Node, other: Node, factors: tuple[float, float], part: str) -> Node:
    """x + Z((α − 1)·x' + β·other'), where x' and other' are the pixels that meet and Z puts them back between zeros."""
    (channels, h, w), (_, oh, ow) = net.sizes(x), net.sizes(other)
    if (max(1, oh // h), max(1, h // oh)) != (max(1, ow // w), max(1, w // ow)):
        raise net.section.error(f"{h} x {w} and {oh} x {ow} pixels do not differ by one factor", "from")
    stride, sample = max(1, oh // h), max(1, h // oh)
    rows, columns = min(h, oh), min(w, ow)

    def met(image: Node, step: int, name: str) -> Node:
        stops = ((rows - 1) * step + 1, (columns - 1) * step + 1)
        return net.node(Slice((0, 0), stops, (2, 3), (step, step)), image, part=f"{part}.{name}")

    change = net.node(
        Shortcut(factors[0] - 1, factors[1]), met(x, sample, "met"), met(other, stride, "met_other"), part=f"{part}.at"
    )
    bottom, right = h - ((rows - 1) * sample + 1), w - ((columns - 1) * sample + 1)
    spread = ConvTranspose2d((sample, sample), output_padding=(bottom, right), groups=channels)
    ones = net.constant(np.ones((channels, 1, 1, 1)), f"{part}.ones")
    return net.node(Add(), x, net.node(spread, change, ones, part=f"{part}.spread"), part=f"{part}.placed")


def _weighted(net: Network, others: list[Node], per_channel: bool, normalisation: str) -> Node:
    """Σ_i w_i·x_i with learned weights, as in BiFPN (Tan et al., "EfficientDet", 2020); x_0 is the layer before."""
    channels, inputs = net.channels(net.x), [net.x, *others]
    width = channels if per_channel else 1
    weights = _normalised(net, net.parameter("weight", len(inputs), width), normalisation)
    terms = []
    for i, x in enumerate(inputs):
        shared = min(channels, net.channels(x))
        used = min(width, shared)
        row = net.node(Slice((i, 0), (i + 1, used), (0, 1), (1, 1)), weights, part=f"row{i}")
        factor = net.node(Reshape((1, used, 1, 1)), row, part=f"factor{i}")
        terms.append(net.node(Mul(), _first_channels(net, x, shared, f"first{i}"), factor, part=f"term{i}"))
    total = terms[0]
    for i, term in enumerate(terms[1:], start=1):
        total = overlaid(net, total, term, 1.0, 1.0, f"sum{i}")
    return total


def _normalised(net: Network, weights: Node, how: str) -> Node:
    """max(0, w)/(Σ max(0, w) + ε), e^(w − max w)/(Σ e^(w − max w) + ε), or w"""
    if how == "relu":
        return share_of_sum(net, net.node(Relu(), weights, part="weight.positive"), 0, "weight.share")
    return softmax_with_eps(net, weights, 0, True, "weight.softmax") if how == "softmax" else weights


@section("scale_channels")
def scale_channels(net: Network, s: Section) -> Node:
    """Another layer times one factor per channel (squeeze and excitation), or with `scale_wh` one per pixel."""
    other = _from(net, s)
    per_pixel = s.flag("scale_wh")
    one = net.x.type.shape[1:2] if per_pixel else net.x.type.shape[2:]
    if any(isinstance(size, Dim) or size != 1 for size in one):
        raise s.error(f"the factors must be one per {'pixel' if per_pixel else 'channel'}, got {net.x.type}", "from")
    return net.activate(net.node(Mul(), other, net.x, part="product"), default="linear")


@section("sam")
def sam(net: Network, s: Section) -> Node:
    """The product of two layers of equal size (spatial attention)."""
    other = _from(net, s)
    if other.type.shape[1] != net.x.type.shape[1]:
        raise s.error(f"the layers must be of equal size, got {net.x.type} and {other.type}", "from")
    return net.activate(net.node(Mul(), other, net.x, part="product"), default="linear")


def _from(net: Network, s: Section) -> Node:
    indices = s.integers("from")
    if not indices:
        raise s.error("from= must name a layer")
    return net.layer(indices[0], "from")


@section("implicit", ignored="mean std")
def implicit(net: Network, s: Section) -> Node:
    """What was learned, whatever the image (Wang et al., "You only learn one representation", 2021)."""
    filters, atoms = s.integer("filters", 128, 1, MAX_CHANNELS), s.integer("atoms", 1, 1, MAX_CHANNELS)
    return net.parameter("weight", 1, filters, atoms, 1)
