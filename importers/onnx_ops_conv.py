"""Convolutions and pools of ONNX, over any number of spatial axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from graphsr.dim import Size
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    AvgPool2d,
    AvgPoolNd,
    Conv2d,
    ConvNd,
    ConvTranspose2d,
    ConvTransposeNd,
    GlobalAvgPool,
    GlobalMaxPool,
    LpPoolNd,
    MaxPool2d,
    MaxPoolNd,
    ReduceMax,
    ReduceMean,
)

from .onnx_call import Call, operator

Ints: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How a kernel moves: one number per spatial axis; `padding` before all axes, then behind them."""

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def image(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
        """(kernel, stride, padding, dilation) of a window over an image."""
        (kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw) = self.kernel, self.stride, self.padding, self.dilation
        return (kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw)


def window(call: Call, x: Node, kernel: Ints) -> Window:
    """The window of a convolution or a pool."""
    axes = len(kernel)
    if x.type.rank != axes + 2:
        raise ModelError(f"an input with {axes} spatial axes expected, got {x.type}")
    stride, dilation = (tuple(call.attr(name) or (1,) * axes) for name in ("strides", "dilations"))
    _expect_axes(axes, strides=stride, dilations=dilation)
    if min((*kernel, *stride, *dilation), default=1) < 1:
        raise ModelError(f"kernel {kernel}, strides {stride} and dilations {dilation} must be at least 1")
    return Window(kernel, stride, _padding(call, x.type.shape[2:], kernel, stride, dilation), dilation)


def _padding(call: Call, sizes: tuple[Size, ...], kernel: Ints, stride: Ints, dilation: Ints) -> Ints:
    """`pads`, or what `auto_pad` makes of the sizes: as many windows as strides fit in, the odd element behind
    (SAME_UPPER) or before (SAME_LOWER)."""
    axes, auto = len(kernel), call.attr("auto_pad", "NOTSET")
    pads = tuple(call.attr("pads") or (0,) * (2 * axes))
    if auto == "NOTSET":
        if len(pads) != 2 * axes:
            raise ModelError(f"attribute pads={pads}: {2 * axes} numbers expected")
        return pads
    if auto == "VALID":
        return (0,) * (2 * axes)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"attribute auto_pad={auto!r} is not supported")
    before, behind = [], []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        reach = d * (k - 1) + 1
        if s > 1:
            n = call.known(n, "the input size, which auto_pad needs,")
            reach = max((-(-n // s) - 1) * s + reach - n, 0) + 1
        total = reach - 1
        before.append(total // 2 if auto == "SAME_UPPER" else total - total // 2)
        behind.append(total - before[-1])
    return (*before, *behind)


def _expect_axes(axes: int, **attributes: Ints) -> None:
    for name, value in attributes.items():
        if len(value) != axes:
            raise ModelError(f"attribute {name}={value}: {axes} numbers expected")


def _kernel_of(call: Call, weight: Node) -> Ints:
    """The spatial axes of the weight, which `kernel_shape` repeats."""
    kernel = tuple(call.known(n, "kernel size") for n in weight.type.shape[2:])
    if tuple(call.attr("kernel_shape") or kernel) != kernel or weight.type.rank < 3:
        raise ModelError(f"kernel_shape {call.attr('kernel_shape')} does not fit the weight {weight.type}")
    return kernel


@operator("Conv")
def conv(call: Call) -> Node:
    w = window(call, call.x(), _kernel_of(call, call.x(1)))
    groups = call.attr("group")
    inputs = [node for node in (call.x(0), call.x(1), call.opt(2)) if node is not None]
    if len(w.kernel) == 2:
        _, stride, padding, dilation = w.image()
        return call(Conv2d(stride, padding, dilation, groups), *inputs)
    return call(ConvNd(w.stride, w.padding, w.dilation, groups), *inputs)


@operator("ConvTranspose")
def conv_transpose(call: Call) -> Node:
    x, weight, bias = call.x(0), call.x(1), call.opt(2)
    w = window(call, x, _kernel_of(call, weight)) if call.attr("auto_pad") in (None, "NOTSET", "VALID") else None
    w, extra = _output_shape(call, x, _kernel_of(call, weight), w)
    inputs = [node for node in (x, weight, bias) if node is not None]
    groups = call.attr("group")
    if len(w.kernel) == 2:
        _, stride, padding, dilation = w.image()
        return call(ConvTranspose2d(stride, padding, dilation, (extra[0], extra[1]), groups), *inputs)
    return call(ConvTransposeNd(w.stride, w.padding, w.dilation, groups, extra), *inputs)


def _output_shape(call: Call, x: Node, kernel: Ints, w: Window | None) -> tuple[Window, Ints]:
    """The padding and output padding that give `output_shape`, or with auto_pad=SAME_… the input size times stride.

    Where the output is larger than all windows together, the missing elements are output padding.
    """
    axes = len(kernel)
    extra = tuple(call.attr("output_padding") or (0,) * axes)
    wanted = call.attr("output_shape")
    _expect_axes(axes, output_padding=extra)
    if w is not None and wanted is None:
        return w, extra
    stride, dilation = (tuple(call.attr(name) or (1,) * axes) for name in ("strides", "dilations"))
    _expect_axes(axes, strides=stride, dilations=dilation)
    call.ignore("pads")
    sizes = [call.known(n, "the input size, which output_shape needs,") for n in x.type.shape[2:]]
    wanted = wanted[-axes:] if wanted is not None else tuple(n * s for n, s in zip(sizes, stride, strict=True))
    _expect_axes(axes, output_shape=wanted)
    before, behind, grown = [], [], []
    for a, (n, k, s, d) in enumerate(zip(sizes, kernel, stride, dilation, strict=True)):
        total = s * (n - 1) + extra[a] + d * (k - 1) + 1 - wanted[a]
        grown.append(extra[a] + max(0, -total))
        total = max(total, 0)
        before.append(total // 2 if call.attr("auto_pad") == "SAME_UPPER" else total - total // 2)
        behind.append(total - before[-1])
    return Window(kernel, stride, (*before, *behind), dilation), tuple(grown)


@operator("MaxPool")
def max_pool(call: Call) -> list[Node]:
    """| since | |
    |---|---|
    | 1 | values |
    | 8 | output `Indices`, attribute `storage_order` |
    | 10 | `dilations`, `ceil_mode` |
    """
    x, w = call.x(), window(call, call.x(), call.attr("kernel_shape"))
    ceil, column_major = bool(call.attr("ceil_mode", 0)), bool(call.attr("storage_order", 0))
    if len(w.kernel) == 2:
        kernel, stride, padding, dilation = w.image()
        values = call(MaxPool2d(kernel, stride, padding, dilation, ceil), x)
    else:
        values = call(MaxPoolNd(w.kernel, w.stride, w.padding, w.dilation, ceil), x)
    if len(call.outputs) < 2:
        return [values]
    places = MaxPoolNd(w.kernel, w.stride, w.padding, w.dilation, ceil, "indices", column_major)
    return [values, call(places, x)]


@operator("AveragePool")
def average_pool(call: Call) -> Node:
    """| since | |
    |---|---|
    | 1 | padding never counts |
    | 7 | `count_include_pad` |
    | 10 | `ceil_mode` |
    | 19 | `dilations` |
    """
    x, w = call.x(), window(call, call.x(), call.attr("kernel_shape"))
    ceil, include = bool(call.attr("ceil_mode", 0)), bool(call.attr("count_include_pad", 0))
    if len(w.kernel) == 2:
        kernel, stride, padding, dilation = w.image()
        return call(AvgPool2d(kernel, stride, padding, ceil, include, dilation), x)
    return call(AvgPoolNd(w.kernel, w.stride, w.padding, w.dilation, ceil, include), x)


@operator("LpPool")
def lp_pool(call: Call) -> Node:
    """Version 1 has a real p; `ceil_mode` and `dilations` since version 18."""
    x, w, p = call.x(), window(call, call.x(), call.attr("kernel_shape")), call.attr("p")
    if p != int(p):
        raise ModelError(f"attribute p={p} must be an integer")
    return call(LpPoolNd(w.kernel, w.stride, w.padding, w.dilation, bool(call.attr("ceil_mode", 0)), int(p)), x)


@operator("GlobalAveragePool")
def global_average_pool(call: Call) -> Node:
    return _global(call, GlobalAvgPool(), ReduceMean(_spatial(call)))


@operator("GlobalMaxPool")
def global_max_pool(call: Call) -> Node:
    return _global(call, GlobalMaxPool(), ReduceMax(_spatial(call)))


def _global(call: Call, image: Op, other: Op) -> Node:
    return call(image if call.x().type.rank == 4 else other, call.x())


def _spatial(call: Call) -> Ints:
    return tuple(range(2, call.x().type.rank))
