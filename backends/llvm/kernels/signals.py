"""conv_nd, conv_transpose_nd, max_pool_nd, avg_pool_nd: where they can, what the layers of images compute.

A signal is an image of one row; its views cost nothing. A pool over more than two axes takes one after the other: the
first axis of x[N, C, D, H, W] is the height of the image [N, C, D, H·W], and what is left is the image [N, C·D', H, W].
Where maxima lie, and convolutions of volumes, have kernels of their own (pool_places.py, volumes.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Const, Node
from graphsr.op import Array, Op
from graphsr.ops import (
    AvgPool2d,
    AvgPoolNd,
    Conv2d,
    ConvNd,
    ConvTranspose2d,
    ConvTransposeNd,
    Fused,
    MaxPool2d,
    MaxPoolNd,
    Reshape,
)

from ...layer import layer_of

if TYPE_CHECKING:
    from ..plan import Planner

Pair = tuple[int, int]
Border = tuple[int, int, int, int]


def lower(plan: Planner, node: Node) -> None:
    """Lower the layer of images that gives the same, or the one of volumes."""
    from ..plan import NoKernel
    from . import pool_places, volumes

    op = node.op.base if isinstance(node.op, Fused) else node.op
    if isinstance(op, MaxPoolNd) and op.output == "indices":
        pool_places.lower(plan, node, op)
        return
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if isinstance(op, MaxPoolNd | AvgPoolNd):
        plan.view(node, _pooled(plan, node.inputs[0], op))
    elif node.inputs[0].type.rank > 4:
        volumes.lower(plan, node)
    else:
        _convolve(plan, node)


def _convolve(plan: Planner, node: Node) -> None:
    from ..plan import NoKernel
    from . import conv, conv_transpose

    op, epilogue = layer_of(node)
    end = epilogue.residual or len(node.inputs)
    x, parameters, residual = node.inputs[0], node.inputs[1:end], node.inputs[end:]
    if not all(parameter.is_const for parameter in parameters):
        raise NoKernel("weights are not constant")
    weights = (_as_image(plan, p) if p.type.rank == 3 else p for p in parameters)
    images = (_image(plan, x), *weights, *(_image(plan, r) for r in residual))
    base = _of_images(op)
    layer = Node(replace(node.op, base=base) if isinstance(node.op, Fused) else base, images, node.name, node.origin)
    (conv if isinstance(base, Conv2d) else conv_transpose).lower(plan, layer)
    plan.view(node, layer)


def _image(plan: Planner, x: Node) -> Node:
    """A signal as an image; an image as it is."""
    n, channels, *size = x.type.dims
    return x if len(size) == 2 else _seen_as(plan, x, (n, channels, 1, *size))


def _seen_as(plan: Planner, x: Node, shape: tuple[int, ...]) -> Node:
    """The same values in another shape."""
    image = Node(Reshape(shape), (x,), x.name, x.origin)
    plan.view(image, x)
    return image


@dataclass(frozen=True, slots=True, eq=False)
class _Kept(Const):
    """A constant that is this very array, not a view of it: what is packed of it is found again by its identity."""

    def __post_init__(self) -> None:
        """The array is read-only already."""


def _as_image(plan: Planner, weight: Node) -> Node:
    """The weights of a signal's layer as those of an image's, the same array for all sizes. It is a copy, as a view
    that the cache keeps would keep the weights themselves from ever being freed."""
    return Node(_Kept(plan.rearranged(weight.value, "as image", _with_height)), (), weight.name, weight.origin)


def _with_height(weight: Array) -> Array:
    return weight[:, :, None].copy()


def _of_images(op: Op) -> Op:
    assert isinstance(op, ConvNd | ConvTransposeNd)
    stride, dilation, padding = _pair(op.stride), _pair(op.dilation), _border(op.padding)
    if isinstance(op, ConvNd):
        return Conv2d(stride, padding, dilation, op.groups)
    extra = op.output_padding or (0,) * len(op.stride)
    return ConvTranspose2d(stride, padding, dilation, (0, extra[0]) if len(extra) == 1 else _pair(extra), op.groups)


def _pair(sizes: tuple[int, ...]) -> Pair:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _border(padding: tuple[int, ...]) -> Border:
    """Top, left, bottom, right."""
    before, behind = padding[: len(padding) // 2], padding[len(padding) // 2 :]
    return (0, before[0], 0, behind[0]) if len(before) == 1 else (before[0], before[1], behind[0], behind[1])


def _pooled(plan: Planner, x: Node, op: MaxPoolNd | AvgPoolNd) -> Node:
    """A node with the values of a pool, in some shape."""
    from . import pool

    n, channels, *size = x.type.dims
    while len(size) > 2:
        first, op = _first_axis(op), _other_axes(op)
        if first.kernel != (1, 1) or first.stride != (1, 1):
            x = Node(first, (_seen_as(plan, x, (n, channels, size[0], prod(size[1:]))),), x.name, x.origin)
            pool.lower(plan, x)
        channels, size = x.type.dims[1] * x.type.dims[2], size[1:]
        x = _seen_as(plan, x, (n, channels, *size))
    layer = Node(_pool_of_images(op), (_image(plan, x),), x.name, x.origin)
    pool.lower(plan, layer)
    return layer


def _first_axis(op: MaxPoolNd | AvgPoolNd) -> MaxPool2d | AvgPool2d:
    """The pool along the first axis, as that along the height of an image."""
    kernel, stride, dilation = (op.kernel[0], 1), (op.stride[0], 1), (op.dilation[0], 1)
    padding = (op.padding[0], 0, op.padding[len(op.kernel)], 0)
    return _pool_of_images(replace(op, kernel=kernel, stride=stride, dilation=dilation, padding=padding))


def _other_axes(op: MaxPoolNd | AvgPoolNd) -> MaxPoolNd | AvgPoolNd:
    axes = len(op.kernel)
    sizes = {name: getattr(op, name)[1:] for name in ("kernel", "stride", "dilation")}
    return replace(op, **sizes, padding=op.padding[1:axes] + op.padding[axes + 1 :])


def _pool_of_images(op: MaxPoolNd | AvgPoolNd) -> MaxPool2d | AvgPool2d:
    """The same over one or two axes."""
    kernel, stride, dilation, padding = _pair(op.kernel), _pair(op.stride), _pair(op.dilation), _border(op.padding)
    if isinstance(op, MaxPoolNd):
        return MaxPool2d(kernel, stride, padding, dilation, op.ceil_mode)
    return AvgPool2d(kernel, stride, padding, op.ceil_mode, op.count_include_pad, dilation)
