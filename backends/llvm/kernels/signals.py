"""conv_nd, max_pool_nd, avg_pool_nd over one axis or two: they are what conv2d and the pools of images compute.

A signal is an image of one row; its views cost nothing. Volumes have no kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.op import Array, Op
from graphsr.ops import AvgPool2d, AvgPoolNd, Conv2d, ConvNd, MaxPool2d, MaxPoolNd, Reshape

if TYPE_CHECKING:
    from ..plan import Planner

Pair = tuple[int, int]
Border = tuple[int, int, int, int]


def lower(plan: Planner, node: Node) -> None:
    """Lower the layer of images that gives the same."""
    from ..plan import NoKernel
    from . import conv, pool

    x, *parameters = node.inputs
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if x.type.rank > 4:
        raise NoKernel(f"{x.type.rank - 2} spatial axes, not 1 or 2")
    if not all(parameter.is_const for parameter in parameters):
        raise NoKernel("weights are not constant")
    weights = tuple(Node.const(_as_image(p.value) if p.type.rank == 3 else p.value, p.name) for p in parameters)
    layer = Node(_of_images(node.op), (_image(plan, x), *weights), node.name, node.origin)
    (conv if isinstance(layer.op, Conv2d) else pool).lower(plan, layer)
    plan.view(node, layer)


def _image(plan: Planner, x: Node) -> Node:
    """The input as an image."""
    if x.type.rank == 4:
        return x
    n, channels, width = x.type.dims
    image = Node(Reshape((n, channels, 1, width)), (x,), x.name)
    plan.view(image, x)
    return image


def _as_image(weight: Array) -> Array:
    return weight[:, :, None]


def _of_images(op: Op) -> Op:
    assert isinstance(op, ConvNd | MaxPoolNd | AvgPoolNd)
    stride, dilation = _pair(op.stride), _pair(op.dilation)
    if isinstance(op, ConvNd):
        return Conv2d(stride, _border(op.padding), dilation, op.groups)
    if isinstance(op, MaxPoolNd):
        return MaxPool2d(_pair(op.kernel), stride, _border(op.padding), dilation, op.ceil_mode)
    padding = _border(op.padding)
    return AvgPool2d(_pair(op.kernel), stride, padding, op.ceil_mode, op.count_include_pad, dilation)


def _pair(sizes: tuple[int, ...]) -> Pair:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _border(padding: tuple[int, ...]) -> Border:
    """Top, left, bottom, right."""
    before, behind = padding[: len(padding) // 2], padding[len(padding) // 2 :]
    return (0, before[0], 0, behind[0]) if len(before) == 1 else (before[0], before[1], behind[0], behind[1])
