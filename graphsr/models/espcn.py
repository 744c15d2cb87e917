"""ESPCN: "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN" (Shi et al., CVPR 2016).

Parameter names are those of yjn870/ESPCN-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsr.errors import ModelError
from graphsr.model import Model
from graphsr.models.builder import Builder, Source, check_at_least
from graphsr.op import Array, Op
from graphsr.ops import Relu, Tanh

ACTIVATIONS: dict[str, Op] = {"tanh": Tanh(), "relu": Relu()}


def espcn(
    *,
    scale: int,
    channels: int = 1,
    features: tuple[int, ...] = (64, 32),
    activation: str = "tanh",
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("yjn870/ESPCN-pytorch"),  # noqa: B008  # immutable
) -> Model:
    """ESPCN: one 5x5 and then 3x3 convolutions at low resolution, then a pixel shuffle.

    [N, channels, H, W] -> x `scale`, white at 1; one channel is the luma. `features` are the outputs of all
    convolutions but the last; `activation` ("tanh" in the paper, or "relu") follows each of them.

    Parameters: first_part.{0,2,…} and last_part.0, each with .weight and .bias. Without `weights` they are drawn
    from `seed`.

    Raises `ModelError` for weights that do not fit, all faults at once.
    """
    check_at_least(1, scale=scale, channels=channels, features=min(features, default=0))
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    net = Builder(weights, seed, source)
    image = net.input(channels)
    x = image
    for i, width in enumerate(features):
        x = net.conv(x, f"first_part.{2 * i}", width, 5 if i == 0 else 3)
        x = net.node(ACTIVATIONS[activation], (x,), f"first_part.{2 * i + 1}")
    x = net.conv(x, "last_part.0", channels * scale**2, 3)
    output = net.pixel_shuffle(x, scale, shuffle, "last_part.1")
    return net.model(image, output, "ESPCN", scale, 1.0)
