"""darknet's layers with parameters, and those that act on each value alone."""

from __future__ import annotations

import numpy as np

from graphsr.ir import Node
from graphsr.ops import BatchNorm, Conv2d, ConvTranspose2d, Dense, LocalConv2d, Logistic

from .darknet_grammar import MAX_INT, Section
from .darknet_network import MAX_CHANNELS, Network, section
from .darknet_spatial import blur, strides
from .darknet_weights import ALEXEYAB

EPS = {"inside": 1e-5, "outside": 1e-6}
"""Of batch normalisation, in its two forms."""


@section(
    "convolutional",
    "conv",
    refused="binary xnor bin_output sway rotate stretch stretch_sway coordconv",
    ignored="cbn dot angle grad_centr reverse stream wait_stream assisted_excitation",
)
def convolutional(net: Network, s: Section) -> Node:
    """Cross-correlation; then batch normalisation and its bias, or a bias; then the activation."""
    size, filters, groups = s.integer("size", 1, 1), s.integer("filters", 1, 1), s.integer("groups", 1, 1)
    stride = strides(s)
    antialiasing = s.integer("antialiasing", 0, 0, 2)
    channels = net.channels(net.x)
    if channels % groups or filters % groups:
        raise s.error(f"{channels} channels and {filters} filters do not divide into {groups} groups", "groups")
    padding, dilation = padding_of(s, size), s.integer("dilation", 1, 1)
    dilation = 1 if size == 1 else dilation
    if dilation > 1 and 2 * padding != size - 1:
        raise s.error("darknet computes dilation only with an odd size and pad=1", "dilation")
    share = s.integer("share_index", -MAX_INT)
    op = Conv2d((1, 1) if antialiasing else stride, (padding * dilation,) * 4, (dilation, dilation), groups)
    if share == -MAX_INT:
        parameters = _convolution_parameters(net, s, (filters, channels // groups, size, size))
    else:
        parameters = _shared(net, s, share, (filters, channels // groups, size, size))
    net.convolutions[net.index] = parameters
    x = net.activate(_normalised(net, op, parameters))
    return blur(net, x, antialiasing, stride) if antialiasing else x


def _convolution_parameters(net: Network, s: Section, shape: tuple[int, int, int, int]) -> tuple[Node, ...]:
    """(weight, bias) or (weight, scale, bias, mean, var), in the order of the file: bias, scale, mean, var, weight."""
    norm = normalisation(net, s, shape[0])
    if not s.flag("flipped"):
        return (net.parameter("weight", *shape), *norm)
    filters, *rest = shape
    weight = net.take("weight", rest[0] * rest[1] * rest[2], filters).T.reshape(shape)
    return (Node.const(weight, f"{net.name}.weight", s.origin), *norm)


def _shared(net: Network, s: Section, share: int, shape: tuple[int, ...]) -> tuple[Node, ...]:
    """The parameters of another convolution, of which the file holds only one copy."""
    index = share if share >= 0 else net.index + share
    s.asked |= {"batch_normalize", "flipped"}
    if index not in net.convolutions or net.convolutions[index][0].type.shape != shape:
        raise s.error(f"layer {index} is not a convolution with weights of shape {list(shape)}", "share_index")
    return net.convolutions[index]


def _normalised(net: Network, op: Conv2d | ConvTranspose2d, parameters: tuple[Node, ...]) -> Node:
    weight, *norm = parameters
    if len(norm) == 1:
        return net.node(op, net.x, weight, norm[0], part="conv")
    return batch_norm(net, net.node(op, net.x, weight, part="conv"), tuple(norm))


def normalisation(net: Network, s: Section, filters: int, part: str = "") -> tuple[Node, ...]:
    """(bias,) or (scale, bias, mean, var)"""
    bias = net.parameter(f"{part}bias", filters)
    if not s.flag("batch_normalize"):
        return (bias,)
    scale, mean, var = (net.parameter(f"{part}{what}", filters) for what in ("scale", "mean", "var"))
    return scale, bias, mean, var


def batch_norm(net: Network, x: Node, parameters: tuple[Node, ...], part: str = "") -> Node:
    form = net.settings.form
    return net.node(BatchNorm(EPS[form], form), x, *parameters, part=f"{part}norm")


def padding_of(s: Section, size: int) -> int:
    padding = s.integer("padding", 0, 0)
    return size // 2 if s.flag("pad") else padding


@section("deconvolutional", "deconv")
def deconvolutional(net: Network, s: Section) -> Node:
    size, filters, stride = s.integer("size", 1, 1), s.integer("filters", 1, 1), s.integer("stride", 1, 1)
    op = ConvTranspose2d((stride, stride), (padding_of(s, size),) * 4)
    norm = normalisation(net, s, filters)
    weight = net.parameter("weight", net.channels(net.x), filters, size, size)
    return net.activate(_normalised(net, op, (weight, *norm)))


@section("local")
def local(net: Network, s: Section) -> Node:
    """A convolution with its own weights and bias at every position."""
    size, filters, stride = s.integer("size", 1, 1), s.integer("filters", 1, 1), s.integer("stride", 1, 1)
    pad = s.integer("pad", 0, 0)
    if pad and size != 2 * pad + 1:
        raise s.error(f"with pad={pad} darknet computes only size={2 * pad + 1}", "pad")
    c, h, w = net.sizes(net.x)
    if min(h, w) + 2 * pad < size:
        raise s.error(f"windows of {size} pixels do not fit into {h} x {w}", "size")
    ho, wo = ((n + 2 * pad - size) // stride + 1 for n in (h, w))
    bias = net.parameter("bias", filters, ho, wo)
    weight = net.parameter("weight", ho, wo, filters, c, size, size)
    return net.activate(net.node(LocalConv2d((stride, stride), (pad,) * 4), net.x, weight, bias, part="conv"))


@section("connected", "conn")
def connected(net: Network, s: Section) -> Node:
    outputs = s.integer("output", 1, 1, MAX_CHANNELS)
    y = dense(net, s, net.flat(net.x), outputs)
    return net.activate(net.reshape(y, outputs, 1, 1, part="image"))


def dense(net: Network, s: Section, x: Node, outputs: int, part: str = "") -> Node:
    """[N, I] -> [N, outputs]: bias, weight, then batch normalisation in the order of the file."""
    bias = net.parameter(f"{part}bias", outputs)
    weight = weight_matrix(net, f"{part}weight", outputs, net.channels(x))
    if not s.flag("batch_normalize"):
        return net.node(Dense(), x, weight, bias, part=f"{part}dense")
    scale, mean, var = (net.parameter(f"{part}{what}", outputs) for what in ("scale", "mean", "var"))
    return batch_norm(net, net.node(Dense(), x, weight, part=f"{part}dense"), (scale, bias, mean, var), part)


def weight_matrix(net: Network, what: str, outputs: int, inputs: int) -> Node:
    if not net.parameters.transposed:
        return net.parameter(what, outputs, inputs)
    return Node.const(net.take(what, inputs, outputs).T, f"{net.name}.{what}", net.section.origin)


@section("batchnorm")
def batchnorm(net: Network, s: Section) -> Node:
    """AlexeyAB's fork stores a bias and adds it; pjreddie's stores none, and adds a bias that stays 0."""
    channels = net.channels(net.x)
    stored = net.settings.fork == ALEXEYAB
    bias = net.parameter("bias", channels) if stored else net.constant(np.zeros(channels), "bias")
    scale, mean, var = (net.parameter(what, channels) for what in ("scale", "mean", "var"))
    return batch_norm(net, net.x, (scale, bias, mean, var))


@section("activation")
def activation(net: Network, s: Section) -> Node:
    return net.activate(net.x, default="linear")


@section("logistic")
def logistic(net: Network, s: Section) -> Node:
    return net.node(Logistic(), net.x)


@section("dropout", ignored="probability dropblock dropblock_size_rel dropblock_size_abs")
def dropout(net: Network, s: Section) -> Node:
    """Nothing at inference."""
    return net.x


@section("cost", ignored="type scale ratio noobject_scale noobj thresh")
def cost(net: Network, s: Section) -> Node:
    """Nothing at inference: a cost compares its input with the truth."""
    return net.x


@section("empty", "silence")
def empty(net: Network, s: Section) -> Node:
    return net.x
