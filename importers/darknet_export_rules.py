"""How each op is written in darknet's words; see `darknet_export`."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    DepthToSpace,
    Div,
    GaussianYoloHead,
    GlobalAvgPool,
    GridHead,
    LocalConv2d,
    MaxPool2d,
    Mul,
    ReduceMax,
    RegionHead,
    Reshape,
    Resize,
    Shortcut,
    Softmax,
    SpaceToDepth,
    Split,
    Sub,
    YoloHead,
)

from .darknet_export import Writer, rule
from .darknet_export_errors import UnsupportedError, known, value
from .darknet_export_norm import darknet_variance, normalised
from .darknet_export_sequences import RECURRENT, section_of
from .darknet_heads import groups_of
from .darknet_weights import ALEXEYAB, PJREDDIE


def need(condition: bool, what: str) -> None:
    if not condition:
        raise UnsupportedError(what)


def _equal_padding(op: Conv2d | ConvTranspose2d | LocalConv2d) -> int:
    need(len(set(op.padding)) == 1, f"its padding {op.padding} differs from side to side")
    return op.padding[0]


def _square(weight: Array) -> int:
    need(weight.shape[-1] == weight.shape[-2], f"its kernel {weight.shape[-2:]} is not square")
    return int(weight.shape[-1])


@rule(Conv2d)
def convolutional(writer: Writer, node: Node, op: Conv2d) -> None:
    weight = value(node.inputs[1])
    size, padding, dilation = _square(weight), _equal_padding(op), op.dilation[0]
    need(op.dilation[0] == op.dilation[1], f"its dilation {op.dilation} differs from side to side")
    need(dilation == 1 or size == 1 or 2 * padding == dilation * (size - 1), "darknet dilates with odd size and pad=1")
    writer.feed(node.inputs[0])
    bias = value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    _layer(
        writer, "convolutional", node, bias, weight,
        filters=len(weight), size=size, **_strides(op),
        **_padding(padding // dilation if size > 1 else padding, size), dilation=dilation if dilation > 1 else None,
        groups=op.groups if op.groups > 1 else None,
    )  # fmt: skip


@rule(ConvTranspose2d)
def deconvolutional(writer: Writer, node: Node, op: ConvTranspose2d) -> None:
    weight = value(node.inputs[1])
    plain = op.groups == 1 and op.dilation == (1, 1) and op.output_padding == (0, 0) and op.stride[0] == op.stride[1]
    need(plain, "darknet has no groups, dilation, output padding or unequal strides here")
    size, padding = _square(weight), _equal_padding(op)
    writer.feed(node.inputs[0])
    bias = value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(weight.shape[1], np.float32)
    _layer(
        writer, "deconvolutional", node, bias, weight, fork=PJREDDIE,
        filters=weight.shape[1], size=size, stride=op.stride[0], **_padding(padding, size),
    )  # fmt: skip


@rule(LocalConv2d)
def local(writer: Writer, node: Node, op: LocalConv2d) -> None:
    weight, bias = map(value, node.inputs[1:])
    size, pad = _square(weight), _equal_padding(op)
    regular = op.stride[0] == op.stride[1] and (pad == 0 or size == 2 * pad + 1)
    need(regular, "darknet has one stride here, and pad=(size-1)/2")
    writer.feed(node.inputs[0])
    word, last = writer.activation(node)
    writer.section("local", last, filters=len(bias), size=size, stride=op.stride[0], pad=pad or None, activation=word)
    writer.covers(node)
    writer.arrays += [bias, weight]


def _layer(
    writer: Writer, word: str, node: Node, bias: Array, weight: Array, *, fork: str = "", **options: Any
) -> None:
    """A layer with weights, with the batch normalisation and activation that follow it."""
    vectors, norm = normalised(writer.norm(node), bias)
    nodes = [node] if norm is None else [node, norm]
    vector, image = node.type.rank == 2, writer.only_user(nodes[-1])
    if vector and image is not None and isinstance(image.op, Reshape) and image.type.shape[2:] == (1, 1):
        nodes.append(image)  # it stands before the activation
    name, last = writer.activation(nodes[-1])
    writer.section(word, last, fork=fork, batch_normalize=1 if norm else None, **options, activation=name)
    writer.covers(*nodes)
    writer.arrays += [vectors[0], weight, *vectors[1:]] if vector else [*vectors, weight]


def _padding(padding: int, size: int) -> dict[str, Any]:
    if padding == 0:
        return {}
    return {"pad": 1} if padding == size // 2 else {"padding": padding}


def _strides(op: Conv2d | MaxPool2d | AvgPool2d) -> dict[str, Any]:
    vertical, horizontal = op.stride
    return {"stride": vertical} if vertical == horizontal else {"stride_y": vertical, "stride_x": horizontal}


@rule(Dense)
def connected(writer: Writer, node: Node, op: Op) -> None:
    weight = value(node.inputs[1])
    need(node.type.rank == 2, f"darknet's connected layers read one vector per image, not {node.inputs[0].type}")
    writer.feed(node.inputs[0], exact=False)
    bias = value(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    _layer(writer, "connected", node, bias, weight, output=len(weight))


@rule(BatchNorm)
def batchnorm(writer: Writer, node: Node, op: BatchNorm) -> None:
    scale, bias, mean, var = map(value, node.inputs[1:])
    writer.feed(node.inputs[0])
    writer.section("batchnorm", node, fork=ALEXEYAB)
    writer.arrays += [bias, scale, mean, darknet_variance(op, var)]


@rule(MaxPool2d, AvgPool2d)
def pooling(writer: Writer, node: Node, op: MaxPool2d | AvgPool2d) -> None:
    need(op.kernel[0] == op.kernel[1] and op.dilation == (1, 1), "darknet's windows are square and without dilation")
    top, left, bottom, right = op.padding
    total = top + bottom
    need((top, left) == (total // 2,) * 2 and bottom == right, f"darknet cannot place its padding {op.padding}")
    need(not op.ceil_mode, "darknet has no ceil mode")
    average = isinstance(op, AvgPool2d)
    need(not average or total == 0 or not getattr(op, "count_include_pad", False), "darknet does not count the padding")
    writer.feed(node.inputs[0])
    word, fork = ("local_avgpool", ALEXEYAB) if average else ("maxpool", "")
    writer.section(word, node, fork=fork, size=op.kernel[0], **_strides(op), padding=total)


@rule(GlobalAvgPool)
def avgpool(writer: Writer, node: Node, op: Op) -> None:
    writer.feed(node.inputs[0])
    writer.section("avgpool", node)


@rule(ReduceMax)
def max_over_channels(writer: Writer, node: Node, op: ReduceMax) -> None:
    """The maximum over groups of channels, which stand on an axis of their own."""
    (groups,) = node.inputs
    grouped = isinstance(groups.op, Reshape) and groups.type.rank == 5 and groups.inputs[0].type.rank == 4
    same = grouped and groups.type.shape[3:] == groups.inputs[0].type.shape[2:]
    need(same and op.axes == (1,) and not op.keepdims, "darknet has the maximum over groups of channels only")
    writer.feed(groups.inputs[0])
    out = known(node.type.shape[1])
    writer.section("maxpool", node, fork=ALEXEYAB, maxpool_depth=1, out_channels=out, size=1, stride=1)


@rule(*RECURRENT)
def sequence(writer: Writer, node: Node, op: Op) -> None:
    """One that is no section: for the reason that is found, or for its input."""
    section_of(node, writer.graph.uses())
    raise UnsupportedError("it does not read a layer with one row per step, of which darknet has a known number")


@rule(Resize)
def upsample(writer: Writer, node: Node, op: Resize) -> None:
    factor = op.scale[0]
    whole = op.size is None and factor == op.scale[1] and factor == int(factor) and op.mode == "nearest"
    corner = (op.coordinates, op.rounding) == ("asymmetric", "floor")
    centre = op.coordinates in (
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
    )  # the same for whole factors
    need(whole and (corner or centre), "darknet repeats pixels a whole number of times, and resizes in no other way")
    writer.feed(node.inputs[0])
    writer.section("upsample", node, stride=int(factor))


@rule(DepthToSpace)
def shuffler(writer: Writer, node: Node, op: DepthToSpace) -> None:
    """[shuffler] is a word of Byron and NumPyNet, not of darknet."""
    writer.feed(node.inputs[0])
    writer.section("shuffler", node, scale=op.block, order=op.mode)


@rule(SpaceToDepth)
def reorg(writer: Writer, node: Node, op: SpaceToDepth) -> None:
    """[reorg3d]; or [reorg], when the image is seen in another shape before and after."""
    (x,) = node.inputs
    need(op.mode == "dcr", "darknet puts the position in the block before the channel")
    after = writer.only_user(node)
    if isinstance(x.op, Reshape) and after is not None and isinstance(after.op, Reshape):
        source, s = x.inputs[0], op.block
        n, c, h, w = source.type.shape
        need(after.type.shape == (n, c * s * s, h // s, w // s) and x.type.shape[2:] == (h * s, w * s), "no [reorg]")
        writer.feed(source)
        writer.section("reorg", after, stride=s)
        writer.covers(node)
    else:
        writer.feed(x)
        writer.section("reorg3d", node, fork=ALEXEYAB, stride=op.block)


@rule(Concat)
def route(writer: Writer, node: Node, op: Concat) -> None:
    need(op.axis % node.type.rank == 1, "darknet joins channels only")
    writer.section("route", node, layers=[writer.layer_of(x) for x in node.inputs])


@rule(Split)
def route_group(writer: Writer, node: Node, op: Split) -> None:
    (x,) = node.inputs
    start, size, total = sum(op.sizes[: op.index]), op.sizes[op.index], sum(op.sizes)
    need(op.axis % node.type.rank == 1 and size > 0, "darknet cuts channels only")
    need(total % size == 0 and start % size == 0, f"darknet cuts channels into equal groups, not {op.sizes}")
    writer.section("route", node, layers=writer.layer_of(x), groups=total // size, group_id=start // size)


@rule(Shortcut, Add, Sub, Mul, Div)
def arithmetic(writer: Writer, node: Node, op: Op) -> None:
    a, b = node.inputs
    if a.is_const or b.is_const:
        _affine(writer, node)
    elif isinstance(node.op, Div):
        raise UnsupportedError("darknet does not divide layers")
    elif isinstance(node.op, Mul):
        _product(writer, node)
    else:
        _sum(writer, node)


def _sum(writer: Writer, node: Node) -> None:
    (x, other), op = node.inputs, node.op
    alpha, beta = (op.alpha, op.beta) if isinstance(op, Shortcut) else (1.0, -1.0 if isinstance(op, Sub) else 1.0)
    need(x.type.shape == other.type.shape, f"darknet adds layers of equal size, not {x.type} and {other.type}")
    if writer.index(other) == len(writer.sections) - 1:
        x, other, alpha, beta = other, x, beta, alpha
    index = writer.layer_of(other)
    writer.feed(x)
    word, last = writer.activation(node)
    scaled = (alpha, beta) != (1, 1)
    factors = {"alpha": alpha, "beta": beta} if scaled else {}
    writer.section("shortcut", last, fork=PJREDDIE if scaled else "", **{"from": index}, **factors, activation=word)
    writer.covers(node)


def _product(writer: Writer, node: Node) -> None:
    x, other = node.inputs
    if x.type.shape == other.type.shape:
        word, options = "sam", dict[str, int]()
    else:
        full = node.type.shape
        if other.type.shape != full:
            x, other = other, x
        need(other.type.shape == full and x.type.rank == 4, "darknet multiplies a layer with one of its size")
        per_channel, per_pixel = x.type.shape[1:] == (full[1], 1, 1), x.type.shape[1:] == (1, *full[2:])
        need(per_channel or per_pixel, f"darknet has factors per channel or per pixel, not {x.type}")
        word, options = "scale_channels", {} if per_channel else {"scale_wh": 1}
    index = writer.layer_of(other)
    writer.feed(x)
    writer.section(word, node, fork=ALEXEYAB, **{"from": index}, **options, activation="linear")


def _affine(writer: Writer, node: Node) -> None:
    """A layer with constants per channel: a convolution of each channel with one weight and a bias."""
    scale, bias, x = _scale_and_bias(node)
    channels = known(x.type.shape[1]) if x.type.rank == 4 else 0
    per_channel = all(
        v.size in (1, channels) and (v.size == 1 or v.shape[-3:] == (channels, 1, 1)) for v in (scale, bias)
    )
    need(channels > 0 and per_channel and x.type.shape == node.type.shape, "darknet has no constants but per channel")
    writer.feed(x)
    weight = np.broadcast_to(scale.reshape(-1), (channels,)).reshape(channels, 1, 1, 1)
    offset = np.broadcast_to(bias.reshape(-1), (channels,))
    _layer(writer, "convolutional", node, offset, weight, filters=channels, size=1, groups=channels)


def _scale_and_bias(node: Node) -> tuple[Array, Array, Node]:
    """(a, b, x) with node = a·x + b"""
    op, (left, right) = node.op, node.inputs
    x, c = (right, value(left)) if left.is_const else (left, value(right))
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    match op:
        case Mul():
            return c, zero, x
        case Div():
            need(x is left, "darknet divides by no layer")
            return 1 / c, zero, x
        case Sub():
            return (one, -c, x) if x is left else (-one, c, x)
        case Shortcut():
            on_x, on_c = (op.alpha, op.beta) if x is left else (op.beta, op.alpha)
            return np.float32(on_x) * one, np.float32(on_c) * c, x
    return one, c, x


@rule(Softmax)
def softmax(writer: Writer, node: Node, op: Softmax) -> None:
    """Over all values, or groups of them: the layer is seen as [N, groups, values] before and in its shape after."""
    (x,) = node.inputs
    need(x.type.rank in (2, 3) and op.axis % x.type.rank == x.type.rank - 1, "darknet's softmax is over whole groups")
    groups = known(x.type.shape[1]) if x.type.rank == 3 else 1
    writer.feed(x, exact=False)
    before = writer.shapes[-1] if writer.shapes else (*x.type.shape, 1, 1)[:4]
    writer.section("softmax", node, groups=groups if groups > 1 else None, temperature=float(op.temperature))
    writer.shapes[-1] = before


@rule(YoloHead, GaussianYoloHead)
def yolo(writer: Writer, node: Node, op: YoloHead | GaussianYoloHead) -> None:
    gaussian = isinstance(op, GaussianYoloHead)
    writer.feed(node.inputs[0])
    writer.section(
        "Gaussian_yolo" if gaussian else "yolo", node, fork=ALEXEYAB if gaussian else "",
        **_anchors(op.anchors), mask=list(range(len(op.anchors))), classes=op.classes,
        scale_x_y=float(op.scale_xy) if op.scale_xy != 1 else None,
        new_coords=1 if isinstance(op, YoloHead) and op.new_coords else None,
        yolo_point=op.point if isinstance(op, GaussianYoloHead) else None,
        nms_kind=op.suppression if op.suppression != "default" else None, beta_nms=float(op.beta),
    )  # fmt: skip


def _anchors(anchors: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    return {"num": len(anchors), "anchors": [float(side) for anchor in anchors for side in anchor]}


@rule(RegionHead)
def region(writer: Writer, node: Node, op: RegionHead) -> None:
    need(op.tree == groups_of(op.parents), f"darknet's groups are classes of one parent in a row, not {op.tree}")
    writer.feed(node.inputs[0])
    writer.section(
        "region", node, **_anchors(op.anchors), classes=op.classes, coords=op.coords, softmax=op.softmax,
        background=1 if op.background else None, tree=writer.tree(op.parents) if op.tree else None,
    )  # fmt: skip


@rule(GridHead)
def detection(writer: Writer, node: Node, op: GridHead) -> None:
    writer.feed(node.inputs[0], exact=False)
    writer.section(
        "detection", node, side=op.side, num=op.boxes, classes=op.classes, coords=4, sqrt=op.squared, softmax=op.softmax
    )
