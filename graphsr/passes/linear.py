"""The algebra behind fold_batchnorm and fold_scale: per-channel affine maps, and the layers that take them up.

All arithmetic is in float64 and is rounded once to the dtype of the weights, so that folding adds one relative
rounding error to each weight. What would not be finite is not folded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphsr.ir import Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    BatchNorm,
    Conv2d,
    ConvNd,
    ConvTranspose2d,
    ConvTransposeNd,
    Dense,
    DepthToSpace,
    Div,
    Mul,
    Shortcut,
    Sub,
)
from graphsr.ops.conv_nd import CONVOLUTIONS
from graphsr.passes.rewrite import merge

Uses: TypeAlias = Mapping[Node, int]

LAYERS = (*CONVOLUTIONS, Dense)
"""Ops with weights, which take up what follows them."""

MAX_DEPTH = 6
"""An affine map is moved back through at most this many sums and shuffles: more than stand behind any last layer."""

ARITHMETIC: dict[type[Op], Callable[[Any], tuple[Any, Any]]] = {
    Add: lambda c: (1, c),
    Sub: lambda c: (1, -c),
    Mul: lambda c: (c, 0),
    Div: lambda c: (1 / c, 0),
}
"""(scale, shift) of x ∘ c"""

REVERSED: dict[type[Op], Callable[[Any], tuple[Any, Any]]] = {
    Add: lambda c: (1, c),
    Sub: lambda c: (-1, c),
    Mul: lambda c: (c, 0),
}
"""(scale, shift) of c ∘ x"""


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale·x + shift for each channel (axis 1): two float64 vectors [C]."""

    scale: Array
    shift: Array

    def after(self, first: Affine) -> Affine:
        """x -> self(first(x))"""
        return Affine(self.scale * first.scale, self.scale * first.shift + self.shift)

    def before_shuffle(self, op: DepthToSpace) -> Affine:
        """The same map on the C·b² channels that `op` makes C channels of."""
        b2 = op.block**2
        if op.mode == "crd":  # channel c comes from c·b² … c·b² + b² − 1
            return Affine(np.repeat(self.scale, b2), np.repeat(self.shift, b2))
        return Affine(np.tile(self.scale, b2), np.tile(self.shift, b2))


def affine_of(node: Node) -> tuple[Node, Affine] | None:
    """(x, f) for a node that is f(x), where f is affine in each channel and made of constants; else None.

    These are batch normalisation, arithmetic with a constant that is broadcast over batch, height and width, and
    convolutions 1x1 with a diagonal matrix, such as EDSR's mean shift. Taking these as affine leaves out the products
    with the zeros beside the diagonal, by which NaN and infinity would reach the other channels.
    """
    match node:
        case Node(BatchNorm() as norm, (x, *parameters)) if all(p.is_const for p in parameters):
            scale, bias, mean, var = (p.value.astype(np.float64) for p in parameters)
            factor = scale / norm.deviation(var)
            return affine_map(x, node.type, factor, bias - mean * factor)
        case Node(Conv2d(), (x, weight, *bias)) if is_pointwise(node) and weight.type.shape[0] == weight.type.shape[1]:
            matrix = weight.value[:, :, 0, 0].astype(np.float64)
            if (matrix == np.diag(matrix.diagonal())).all():
                return affine_map(x, node.type, matrix.diagonal(), bias[0].value.astype(np.float64) if bias else 0)
        case Node(Add() | Sub() | Mul() | Div() as op, (a, b)):
            for x, other, table in ((a, b, ARITHMETIC), (b, a, REVERSED)):
                constant = _per_channel(other, node.type)
                if constant is not None and type(op) in table:
                    return affine_map(x, node.type, *table[type(op)](constant))
    return None


def is_layer(node: Node) -> bool:
    """Whether the node has weights W and computes W∗x + b with constant parameters and the channels along axis 1."""
    match node.op:
        case Dense():
            return node.type.rank == 2 and has_constant_parameters(node)
        case op:
            return isinstance(op, LAYERS) and has_constant_parameters(node)


def is_pointwise(node: Node) -> bool:
    """Whether the node is a convolution 1x1 with constant parameters that multiplies each pixel by one matrix."""
    match node:
        case Node(Conv2d((1, 1), (0, 0, 0, 0), _, 1), (_, weight, *_)):
            return weight.type.shape[2:] == (1, 1) and has_constant_parameters(node)
    return False


def has_constant_parameters(layer: Node) -> bool:
    return all(child.is_const for child in layer.inputs[1:])


def sum_factors(node: Node) -> tuple[float, float] | None:
    """(α, β) for a node that is α·x₁ + β·x₂ of two values of one shape, else None."""
    match node:
        case Node(Shortcut(alpha, beta)):
            return alpha, beta
        case Node(Add() | Sub() as op, (x1, x2)) if x1.type == x2.type:
            return 1.0, 1.0 if isinstance(op, Add) else -1.0
    return None


def absorb(x: Node, affine: Affine, reader: Node, uses: Uses, depth: int = MAX_DEPTH) -> Node | None:
    """f(x) without f: the layers behind `x` whose weights have taken up the affine map f. None where there are none.

    `reader` is the node that f came from. Only values that are read once are changed; f moves back
    - into a layer:         f(W∗x + b) = (scale·W)∗x + (scale·b + shift)
    - through another map:  f(g(x)) = (f∘g)(x)
    - through a shuffle:    f(shuffle(x)) = shuffle(f'(x)), where f' repeats f for the b² channels of a block
    - through a sum:        f(α·x₁ + β·x₂) = α·f₁(x₁) + β·f₂(x₂) with the shift in one of the two
    """
    if uses[x] != 1 or depth == 0:
        return None
    inner = affine_of(x)
    match x.op:
        case _ if is_layer(x):
            return scale_outputs(x, affine, reader)
        case DepthToSpace() as op:
            behind = absorb(x.inputs[0], affine.before_shuffle(op), reader, uses, depth - 1)
            return behind and x.with_inputs((behind,))
        case _ if inner is not None:
            return absorb(inner[0], affine.after(inner[1]), reader, uses, depth - 1)
        case _ if factors := sum_factors(x):
            return _absorb_in_sum(x, factors, affine, reader, uses, depth - 1)
    return None


def _absorb_in_sum(
    x: Node, factors: tuple[float, float], affine: Affine, reader: Node, uses: Uses, depth: int
) -> Node | None:
    unshifted = Affine(affine.scale, np.zeros_like(affine.shift))
    is_shift = bool((affine.scale == 1).all())
    for i in (0, 1):
        if factors[i] == 0:
            continue
        shifted, other = x.inputs[i], x.inputs[1 - i]
        one = absorb(shifted, Affine(affine.scale, affine.shift / factors[i]), reader, uses, depth)
        two = other if is_shift or one is None else absorb(other, unshifted, reader, uses, depth)
        if one is not None and two is not None:
            return x.with_inputs((one, two) if i == 0 else (two, one))
    return None


def scale_outputs(layer: Node, affine: Affine, reader: Node) -> Node | None:
    """affine(layer(x)) as one layer: every output channel's weights times its scale, its bias scaled and shifted."""
    weight, bias = parameters(layer)
    match layer.op:
        case ConvTranspose2d(groups=g) | ConvTransposeNd(groups=g):  # [Ci, Co/g, …]: which Co/g: by the group of Ci
            ci, cog, *kernel = weight.shape
            scaled = weight.reshape(g, ci // g, cog, *kernel) * affine.scale.reshape(g, 1, cog, *[1] * len(kernel))
            weight = scaled.reshape(weight.shape)
        case _:  # [Co, …]
            weight = weight * affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    return with_parameters(layer, layer.inputs[0], weight, affine.scale * bias + affine.shift, reader)


def scale_inputs(layer: Node, affine: Affine, x: Node, before: Node) -> Node | None:
    """layer(affine(x)) as one layer; `before` is the node of the affine map.

    W∗(scale·x + shift) + b = (W·scale)∗x + (b + Σ W·shift), where the second term holds only as long as every tap
    meets a pixel: the zeros that a convolution pads with, and those between the pixels of a transposed
    convolution, are not shifted. There a shift other than zero is refused (None).
    """
    weight, bias = parameters(layer)
    ones = [1] * (weight.ndim - 2)
    unshifted = bool((affine.shift == 0).all())
    match layer.op:
        case Conv2d(_, padding, _, g) | ConvNd(_, padding, _, g) if unshifted or not any(padding):  # [Co, Ci/g, …]
            grouped = weight.reshape(g, -1, *weight.shape[1:])
            scale, shift = (v.reshape(g, 1, -1, *ones) for v in (affine.scale, affine.shift))
            bias = bias + (grouped * shift).sum(axis=tuple(range(2, grouped.ndim))).reshape(-1)
            weight = (grouped * scale).reshape(weight.shape)
        case Dense():  # [O, I]
            bias, weight = bias + weight @ affine.shift, weight * affine.scale
        case ConvTranspose2d() | ConvTransposeNd() if unshifted:  # [Ci, Co/g, …]
            weight = weight * affine.scale.reshape(-1, 1, *ones)
        case _:
            return None
    return with_parameters(layer, x, weight, bias, before)


def parameters(layer: Node) -> tuple[Array, Array]:
    """Weight and bias in float64; a bias of zeros where the layer has none."""
    weight, *bias = (child.value.astype(np.float64) for child in layer.inputs[1:])
    return weight, bias[0] if bias else np.zeros(layer.type.shape[1])  # type: ignore[arg-type]  # follows from weight


def with_parameters(layer: Node, x: Node, weight: Array, bias: Array, folded: Node) -> Node | None:
    """The layer on `x` with other (float64) parameters, that stands for `folded` as well; None if not finite."""
    old_weight, *old_bias = layer.inputs[1:]
    new_weight, new_bias = (array.astype(old_weight.type.dtype) for array in (weight, bias))
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return None
    constants = [Node.const(new_weight, old_weight.name, old_weight.origin)]
    if old_bias:
        constants.append(Node.const(new_bias, old_bias[0].name, old_bias[0].origin))
    elif new_bias.any():
        name = f"{layer.name}.bias" if layer.name else ""
        constants.append(Node.const(new_bias, name, layer.origin))
    return merge(layer.op, (x, *constants), layer, folded)


def affine_map(x: Node, type_: TensorType, scale: Any, shift: Any) -> tuple[Node, Affine] | None:
    """(x, the map), unless the map is not finite, or x is broadcast or has no known number of channels."""
    channels = type_.shape[1]
    if x.type != type_ or not isinstance(channels, int) or not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    return x, Affine(*(np.broadcast_to(np.asarray(v, dtype=np.float64), (channels,)) for v in (scale, shift)))


def _per_channel(node: Node, type_: TensorType) -> Array | None:
    """A constant as a float64 vector [C] or [1], if it is broadcast over all axes of `type_` but the channels."""
    if not node.is_const or type_.rank < 2 or node.type.rank > type_.rank:
        return None
    shape = (1,) * (type_.rank - node.type.rank) + node.value.shape
    if any(n != 1 for axis, n in enumerate(shape) if axis != 1):
        return None
    return node.value.astype(np.float64).reshape(-1)
