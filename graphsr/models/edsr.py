"""EDSR and MDSR: "Enhanced Deep Residual Networks for Single Image Super-Resolution" (Lim et al., CVPRW 2017).

Parameter names are those of EDSR-PyTorch, the authors' own implementation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.model import Model
from graphsr.models.builder import Builder, Source, check_at_least
from graphsr.models.normalisation import DIV2K_MEAN, Normalisation
from graphsr.op import Array


def edsr(
    *,
    scale: int,
    blocks: int = 16,
    features: int = 64,
    res_scale: float = 1.0,
    input_range: float = 255.0,
    network_range: float | None = None,
    mean: tuple[float, float, float] = DIV2K_MEAN,
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("EDSR-PyTorch"),  # noqa: B008  # immutable
) -> Model:
    """EDSR: head, `blocks` residual blocks, global skip, sub-pixel upsampling, tail; [N, 3, H, W] -> x `scale`.

    The paper's large network has 32 blocks of 256 features and res_scale 0.1, the baseline 16 of 64 and 1. The
    convolutions see (x / input_range − mean) · network_range, by default 0..input_range less the mean.
    `shuffle` is the order of the sub-pixel channels: "crd" (PyTorch) or "dcr" (TensorFlow).

    Parameters: sub_mean, head.0, body.{i}.body.{0,2}, body.{blocks}, tail.0.{0,2,…}, tail.1, add_mean, each with
    .weight and .bias; the two means may be absent from `weights`. Without `weights` they are drawn from `seed`.

    Raises `ModelError` for weights that do not fit, all faults at once.
    """
    check_at_least(1, features=features)
    check_at_least(0, blocks=blocks)
    normalisation = Normalisation(input_range, input_range if network_range is None else network_range, mean)
    net = Builder(weights, seed, source)
    image = net.input(3)
    head = net.conv(_sub_mean(net, image, normalisation), "head.0", features, 3)
    body = _body(net, head, blocks, features, res_scale)
    up = _upsampler(net, body, "tail.0", scale, features, shuffle)
    output = _add_mean(net, net.conv(up, "tail.1", 3, 3), normalisation)
    return net.model(image, output, "EDSR", scale, input_range)


def mdsr(
    *,
    scale: int,
    blocks: int = 16,
    features: int = 64,
    scales: tuple[int, ...] = (2, 3, 4),
    pre_blocks: int = 2,
    res_scale: float = 1.0,
    input_range: float = 255.0,
    network_range: float | None = None,
    mean: tuple[float, float, float] = DIV2K_MEAN,
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("EDSR-PyTorch"),  # noqa: B008  # immutable
) -> Model:
    """MDSR, the branch of one scale: one body for all `scales`, `pre_blocks` 5x5 blocks and an upsampler per scale.

    Parameters, with s the index of `scale` in `scales`: those of `edsr`, but pre_process.{s}.{i}.body.{0,2} behind
    head.0, upsample.{s}.{0,2,…} for tail.0, and tail.0 for tail.1. `weights` may hold the branches of the other
    scales too. The paper's network has 80 blocks, the baseline 16.

    Raises `ModelError` for weights that do not fit, all faults at once.
    """
    check_at_least(1, features=features)
    check_at_least(0, blocks=blocks, pre_blocks=pre_blocks)
    if scale not in scales:
        raise ModelError(f"this MDSR has the scales {', '.join(map(str, scales))}, got scale={scale!r}")
    branch = scales.index(scale)
    normalisation = Normalisation(input_range, input_range if network_range is None else network_range, mean)
    net = Builder(None if weights is None else _one_branch(weights, branch), seed, source)
    image = net.input(3)
    x = net.conv(_sub_mean(net, image, normalisation), "head.0", features, 3)
    for i in range(pre_blocks):
        x = _res_block(net, x, f"pre_process.{branch}.{i}", features, 5, 1.0)
    body = _body(net, x, blocks, features, res_scale)
    up = _upsampler(net, body, f"upsample.{branch}", scale, features, shuffle)
    output = _add_mean(net, net.conv(up, "tail.0", 3, 3), normalisation)
    return net.model(image, output, "MDSR", scale, input_range)


def upsampling_factors(scale: int) -> tuple[int, ...]:
    """The sub-pixel stages of EDSR's upsampler: a power of two is made of x2 stages, 3 of one.

    >>> upsampling_factors(8), upsampling_factors(3)
    ((2, 2, 2), (3,))
    """
    if scale == 3:
        return (3,)
    if isinstance(scale, int) and scale >= 1 and scale & (scale - 1) == 0:
        return (2,) * int(math.log2(scale))
    raise ModelError(f"EDSR upsamples by 3 or by a power of two, got scale={scale!r}")


def _body(net: Builder, x: Node, blocks: int, features: int, res_scale: float) -> Node:
    """x + conv(blocks(x))"""
    y = x
    for i in range(blocks):
        y = _res_block(net, y, f"body.{i}", features, 3, res_scale)
    return net.residual(net.conv(y, f"body.{blocks}", features, 3), x, "body")


def _res_block(net: Builder, x: Node, name: str, features: int, kernel: int, res_scale: float) -> Node:
    """x + res_scale · conv(relu(conv(x)))"""
    y = net.relu(net.conv(x, f"{name}.body.0", features, kernel), f"{name}.body.1")
    return net.residual(net.conv(y, f"{name}.body.2", features, kernel), x, name, res_scale)


def _upsampler(net: Builder, x: Node, name: str, scale: int, features: int, shuffle: str) -> Node:
    for stage, factor in enumerate(upsampling_factors(scale)):
        x = net.conv(x, f"{name}.{2 * stage}", features * factor**2, 3)
        x = net.pixel_shuffle(x, factor, shuffle, f"{name}.{2 * stage + 1}")
    return x


def _sub_mean(net: Builder, x: Node, n: Normalisation) -> Node:
    return net.pointwise(x, "sub_mean", _scaled_identity(1 / n.divisor), -n.offset(n.network_range))


def _add_mean(net: Builder, x: Node, n: Normalisation) -> Node:
    return net.pointwise(x, "add_mean", _scaled_identity(n.divisor), n.offset(n.input_range))


def _scaled_identity(factor: float) -> Array:
    """The weight [3, 3, 1, 1] of a 1x1 convolution that multiplies each colour by `factor`."""
    return (np.eye(3) * factor).astype(np.float32)[:, :, None, None]


def _one_branch(weights: Mapping[str, Array], branch: int) -> dict[str, Array]:
    """The weights without the branches of the other scales."""

    def used(name: str) -> bool:
        part, _, rest = name.partition(".")
        return part not in ("pre_process", "upsample") or rest.partition(".")[0] == str(branch)

    return {name: array for name, array in weights.items() if used(name)}
