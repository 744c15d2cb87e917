"""WDSR: "Wide Activation for Efficient and Accurate Image Super-Resolution" (Yu et al. 2018).

Parameter names are those of wdsr_ntire2018, the authors' implementation. Every convolution may carry weight
normalisation (Salimans & Kingma 2016).
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsr.ir import Node
from graphsr.model import Model
from graphsr.models.builder import Builder, Source, check_at_least
from graphsr.models.normalisation import DIV2K_MEAN, Normalisation
from graphsr.op import Array
from graphsr.ops import Add, Div, Mul, Sub


def wdsr_a(
    *,
    scale: int,
    blocks: int = 16,
    features: int = 32,
    expanded: int = 128,
    res_scale: float = 1.0,
    weight_norm: bool = False,
    input_range: float = 255.0,
    network_range: float = 2.0,
    mean: tuple[float, float, float] = DIV2K_MEAN,
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("wdsr_ntire2018"),  # noqa: B008  # immutable
) -> Model:
    """WDSR-A: blocks of a 3x3 convolution to `expanded` channels, ReLU, and a 3x3 convolution back.

    [N, 3, H, W] -> x `scale`. The convolutions see (x / input_range − mean) · network_range, by default
    (x − 255·mean) / 127.5. With `weight_norm` the parameters .weight_v and .weight_g stay in the graph.
    `shuffle` is the order of the sub-pixel channels: "crd" (PyTorch) or "dcr" (TensorFlow).

    Parameters: head.0, body.{i}.body.{0,2}, tail.0, skip.0, each with .weight (or .weight_v and .weight_g) and
    .bias. Without `weights` they are drawn from `seed`.

    Raises `ModelError` for weights that do not fit, all faults at once.
    """
    check_at_least(1, features=features, expanded=expanded)
    check_at_least(0, blocks=blocks)
    normalisation = Normalisation(input_range, network_range, mean)
    net = Builder(weights, seed, source, weight_norm)
    image = net.input(3)
    z = _normalise(net, image, normalisation)
    x = net.conv(z, "head.0", features, 3)
    for i in range(blocks):
        y = net.relu(net.conv(x, f"body.{i}.body.0", expanded, 3), f"body.{i}.body.1")
        x = net.residual(net.conv(y, f"body.{i}.body.2", features, 3), x, f"body.{i}", res_scale)
    output = _denormalise(net, _tail(net, x, z, scale, shuffle), normalisation)
    return net.model(image, output, "WDSR-A", scale, input_range)


def wdsr_b(
    *,
    scale: int,
    blocks: int = 16,
    features: int = 32,
    expanded: int | None = None,
    linear: int | None = None,
    res_scale: float = 1.0,
    weight_norm: bool = False,
    input_range: float = 255.0,
    network_range: float = 2.0,
    mean: tuple[float, float, float] = DIV2K_MEAN,
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("wdsr_ntire2018"),  # noqa: B008  # immutable
) -> Model:
    """WDSR-B: blocks of 1x1 to `expanded` (6·features), ReLU, 1x1 to `linear` (⌊0.8·features⌋), 3x3 back.

    Everything else is as in `wdsr_a`; parameters: head.0, body.{i}.body.{0,2,3}, tail.0, skip.0.
    """
    wide = 6 * features if expanded is None else expanded
    low_rank = int(0.8 * features) if linear is None else linear
    check_at_least(1, features=features, expanded=wide, linear=low_rank)
    check_at_least(0, blocks=blocks)
    normalisation = Normalisation(input_range, network_range, mean)
    net = Builder(weights, seed, source, weight_norm)
    image = net.input(3)
    z = _normalise(net, image, normalisation)
    x = net.conv(z, "head.0", features, 3)
    for i in range(blocks):
        y = net.relu(net.conv(x, f"body.{i}.body.0", wide, 1), f"body.{i}.body.1")
        y = net.conv(y, f"body.{i}.body.2", low_rank, 1)
        x = net.residual(net.conv(y, f"body.{i}.body.3", features, 3), x, f"body.{i}", res_scale)
    output = _denormalise(net, _tail(net, x, z, scale, shuffle), normalisation)
    return net.model(image, output, "WDSR-B", scale, input_range)


def _normalise(net: Builder, x: Node, n: Normalisation) -> Node:
    """(x − input_range·mean) / (input_range / network_range), in the order of the published code"""
    x = net.arithmetic(Sub(), x, _per_channel(n), "normalise.mean")
    return x if n.divisor == 1 else net.arithmetic(Div(), x, n.divisor, "normalise.range")


def _denormalise(net: Builder, x: Node, n: Normalisation) -> Node:
    x = x if n.divisor == 1 else net.arithmetic(Mul(), x, n.divisor, "denormalise.range")
    return net.arithmetic(Add(), x, _per_channel(n), "denormalise.mean")


def _per_channel(n: Normalisation) -> Array:
    return n.offset(n.input_range)[None, :, None, None]


def _tail(net: Builder, x: Node, z: Node, scale: int, shuffle: str) -> Node:
    """pixel_shuffle(conv3x3(x) + conv5x5(z)): the shuffle of a sum is the sum of the published code's two shuffles."""
    check_at_least(1, scale=scale)
    main = net.conv(x, "tail.0", 3 * scale**2, 3)
    skip = net.conv(z, "skip.0", 3 * scale**2, 5)
    return net.pixel_shuffle(net.residual(main, skip, "skip"), scale, shuffle, "shuffle")
