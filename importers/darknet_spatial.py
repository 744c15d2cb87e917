"""darknet's layers that look at a neighbourhood or move pixels: pooling, sampling, reorg, crop, pixel shuffle."""

from __future__ import annotations

import numpy as np

from graphsr.dim import Size
from graphsr.ir import Node
from graphsr.ops import (
    AvgPool2d,
    Conv2d,
    DepthToSpace,
    GlobalAvgPool,
    MaxPool2d,
    Mul,
    Pad,
    ReduceMax,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    Sub,
    Transpose,
)

from .darknet_grammar import MAX_INT, Section
from .darknet_network import MAX_CHANNELS, Network, section

BLUR = (
    np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16,
    np.full((2, 2), 0.25, np.float32),
)
"""Kernels of antialiasing=1 and =2 (Zhang, "Making convolutional networks shift-invariant again", 2019)."""
ORDERS = {"crd": "crd", "torch": "crd", "pytorch": "crd", "dcr": "dcr", "tf": "dcr", "tensorflow": "dcr"}


def strides(s: Section, default: int = 1) -> tuple[int, int]:
    """(vertical, horizontal)"""
    stride = s.integer("stride", default, 1)
    return s.integer("stride_y", stride, 1), s.integer("stride_x", stride, 1)


def blur(net: Network, x: Node, kind: int, stride: tuple[int, int]) -> Node:
    """Antialiasing: the layer ran at stride 1, a blur of each channel does the stride."""
    channels, kernel = net.channels(x), BLUR[kind - 1]
    weight = net.constant(np.broadcast_to(kernel, (channels, 1, *kernel.shape)), "blur.weight")
    padding = len(kernel) // 2 if kind == 1 else 0
    return net.node(Conv2d(stride, (padding,) * 4, groups=channels), x, weight, part="blur")


@section("maxpool", "max", ignored="maxpool_zero_nonmax")
def maxpool(net: Network, s: Section) -> Node:
    """The padding is the sum of both sides; the first side gets the smaller half."""
    if s.flag("maxpool_depth"):
        return _max_over_channels(net, s)
    antialiasing, stride = s.integer("antialiasing", 0, 0, 2), strides(s)
    kernel, padding = _window(s)
    x = net.node(MaxPool2d(kernel, (1, 1) if antialiasing else stride, padding), net.x)
    return blur(net, x, antialiasing, stride) if antialiasing else x


@section("local_avgpool", "local_avg")
def local_avgpool(net: Network, s: Section) -> Node:
    """The mean of the pixels of a window that lie in the image."""
    kernel, padding = _window(s)
    return net.node(AvgPool2d(kernel, strides(s), padding), net.x)


def _window(s: Section) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """(kernel, padding) of a pooling layer."""
    size = s.integer("size", s.integer("stride", 1, 1), 1)
    total = s.integer("padding", size - 1, 0)
    before, after = total // 2, total - total // 2
    if after >= size:
        raise s.error(f"windows of {size} pixels would lie in the padding altogether", "padding")
    return (size, size), (before, before, after, after)


def _max_over_channels(net: Network, s: Section) -> Node:
    """y[g] = max_k x[k·out_channels + g]"""
    s.asked |= {"stride", "stride_x", "stride_y", "size", "padding", "antialiasing"}
    out, channels = s.integer("out_channels", 1, 1), net.channels(net.x)
    if channels % out:
        raise s.error(f"{channels} channels do not divide into groups of {out}", "out_channels")
    h, w = net.x.type.shape[2:]
    groups = net.reshape(net.x, channels // out, out, h, w, part="groups")
    return net.node(ReduceMax((1,), keepdims=False), groups)


@section("avgpool", "avg")
def avgpool(net: Network, s: Section) -> Node:
    return net.node(GlobalAvgPool(), net.x)


@section("upsample")
def upsample(net: Network, s: Section) -> Node:
    """Every pixel `stride` times in both directions, times `scale`; with a negative stride the sum of each block."""
    stride, scale = s.integer("stride", 2, -1000, 1000), s.number("scale", 1.0)
    if stride == 0:
        raise s.error("the stride must not be 0", "stride")
    if stride > 0:
        resize = Resize((float(stride), float(stride)), coordinates="asymmetric", rounding="floor")
        return scaled(net, net.node(resize, net.x, part="resize"), scale)
    block = -stride
    for size in net.x.type.shape[2:]:
        if isinstance(size, int) and size % block:
            raise s.error(f"{size} pixels do not divide into blocks of {block}", "stride")
    mean = net.node(AvgPool2d((block, block), (block, block)), net.x, part="mean")
    return scaled(net, mean, scale * block * block)


def scaled(net: Network, x: Node, factor: float) -> Node:
    return x if factor == 1 else net.node(Mul(), x, net.constant(factor, "factor"))


@section("reorg")
def reorg(net: Network, s: Section) -> Node:
    """YOLOv2's passthrough, with darknet's historical order.

    darknet computes indices as if x had C/s² channels of s·H x s·W pixels, whose blocks it makes channels; the bytes
    are then taken for C·s² channels of H/s x W/s pixels. `reverse` is the inverse of the middle step. With `extra` the
    values stay as they are, and so many zeros follow them.
    """
    stride, (n, _, h, w) = s.integer("stride", 1, 1, 1000), net.x.type.shape
    c, block = net.channels(net.x), stride * stride
    if s.flag("flatten"):
        return _flattened(net, s, stride)
    if extra := s.integer("extra", 0, 0, MAX_CHANNELS):
        padded = net.node(Pad((0, 0, 0, extra)), net.flat(net.x), part="padded")
        return net.reshape(padded, net.channels(padded), 1, 1)
    if c % block:
        raise s.error(f"{c} channels do not divide by {block}", "stride")
    if s.flag("reverse"):
        return net.node(DepthToSpace(stride, "dcr"), net.x)
    _expect_blocks(s, stride, h, w)
    wide = net.reshape(net.x, c // block, h * stride, w * stride, part="wide")
    deep = net.node(SpaceToDepth(stride, "dcr"), wide, part="deep")
    return net.node(Reshape((n, c * block, h // stride, w // stride)), deep)


def _flattened(net: Network, s: Section, stride: int) -> Node:
    """Channels last, or with `reverse` channels first, under the shape of the reorganised image."""
    c, h, w = net.sizes(net.x)
    reverse = s.flag("reverse")
    if reverse:
        shape = (c // (stride * stride), h * stride, w * stride)
    else:
        shape = (c * stride * stride, h // stride, w // stride)
    if shape[0] * shape[1] * shape[2] != c * h * w:
        raise s.error(f"{c} x {h} x {w} values do not divide into blocks of {stride}", "stride")
    rows = net.reshape(net.x, *((h * w, c) if reverse else (c, h * w)), part="rows")
    return net.reshape(net.node(Transpose((0, 2, 1)), rows, part="turned"), *shape)


@section("reorg3d")
def reorg3d(net: Network, s: Section) -> Node:
    """Blocks become channels, the position in the block before the channel. `reverse` has an historical order: darknet
    takes the bytes for C/s² channels of s·H x s·W pixels, and makes blocks of the channels of those."""
    stride, (n, _, h, w) = s.integer("stride", 1, 1, 1000), net.x.type.shape
    c, block = net.channels(net.x), stride * stride
    if not s.flag("reverse"):
        _expect_blocks(s, stride, h, w)
        return net.node(SpaceToDepth(stride, "dcr"), net.x)
    if c % (block * block):
        raise s.error(f"{c} channels do not divide by {block * block}", "stride")
    shape = (n, c // block, h * stride, w * stride)
    wide = net.node(Reshape(shape), net.x, part="wide")
    return net.node(Reshape(shape), net.node(DepthToSpace(stride, "dcr"), wide, part="shuffled"))


def _expect_blocks(s: Section, stride: int, *sizes: Size) -> None:
    for size in sizes:
        if isinstance(size, int) and size % stride:
            raise s.error(f"{size} pixels do not divide into blocks of {stride}", "stride")


@section("crop", ignored="flip angle saturation exposure shift")
def crop(net: Network, s: Section) -> Node:
    """The middle of the image; its values 0..1 become −1..1 unless `noadjust`."""
    height, width = (s.integer(key, 1, 1, MAX_CHANNELS) for key in ("crop_height", "crop_width"))
    _, h, w = net.sizes(net.x)
    if height > h or width > w:
        raise s.error(f"{height} x {width} pixels cannot be cut from {h} x {w}")
    top, left = (h - height) // 2, (w - width) // 2
    cut = Slice((top, left), (top + height, left + width), (2, 3), (1, 1))
    x = net.node(cut, net.x, part="cut")
    if s.flag("noadjust"):
        return x
    doubled = net.node(Mul(), x, net.constant(2.0, "two"), part="doubled")
    return net.node(Sub(), doubled, net.constant(1.0, "one"))


@section("shuffler", "pixel_shuffle", "depth_to_space")
def shuffler(net: Network, s: Section) -> Node:
    """Channels become blocks of pixels: not darknet's, but of Byron and NumPyNet, in TensorFlow's order by default."""
    key = "scale" if "scale" in s.options else "stride"
    factor = s.integer(key, 2, 1, MAX_INT)
    order = ORDERS[s.choice("order", "crd" if s.name == "pixel_shuffle" else "dcr", ORDERS)]
    channels = net.channels(net.x)
    if channels % (factor * factor):
        raise s.error(f"{channels} channels do not divide by {factor}²", key)
    return net.node(DepthToSpace(factor, order), net.x)
