"""SRResNet: the generator of "Photo-Realistic Single Image Super-Resolution Using a GAN" (Ledig et al., CVPR 2017).

Parameter names and details (five blocks, tanh at the end) are those of leftthomas/SRGAN.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.model import Model
from graphsr.models.builder import Builder, Source, check_at_least
from graphsr.op import Array
from graphsr.ops import Add, BatchNorm, Mul, Tanh

BODY_ENDS = ("prelu", "batch_norm")
"""What follows the last convolution of the body: PReLU in the published weights, batch norm in the paper."""


def srresnet(
    *,
    scale: int,
    blocks: int = 5,
    features: int = 64,
    body_end: str = "prelu",
    shuffle: str = "crd",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
    source: Source = Source("leftthomas/SRGAN"),  # noqa: B008  # immutable
) -> Model:
    """SRResNet: 9x9 head, residual blocks with batch norm and PReLU, sub-pixel upsampling, 9x9 tail.

    [N, 3, H, W] -> x `scale` (a power of two), white at 1 on both sides: the result is (tanh(x) + 1) / 2.

    Parameters, with B = `blocks`: block1.{0,1}; block{2…B+1}.{conv1,bn1,prelu,conv2,bn2}; block{B+2}.{0,1};
    block{B+3}.{i}.{conv,prelu} per upsampling by 2; block{B+3}.{n}. Batch norms have .weight, .bias, .running_mean
    and .running_var. Without `weights` they are drawn from `seed`.

    Raises `ModelError` for weights that do not fit, all faults at once.
    """
    check_at_least(1, features=features, scale=scale)
    check_at_least(0, blocks=blocks)
    if scale & (scale - 1):
        raise ModelError(f"SRResNet upsamples by a power of two, got scale={scale}")
    if body_end not in BODY_ENDS:
        raise ModelError(f"body_end must be one of {BODY_ENDS}, got {body_end!r}")
    net = Builder(weights, seed, source)
    image = net.input(3)
    head = net.prelu(net.conv(image, "block1.0", features, 9), "block1.1")
    x = head
    for i in range(2, blocks + 2):
        x = _res_block(net, x, f"block{i}", features)
    end = f"block{blocks + 2}"
    x = net.conv(x, f"{end}.0", features, 3)
    x = net.prelu(x, f"{end}.1") if body_end == "prelu" else _batch_norm(net, x, f"{end}.1")
    x = net.residual(x, head, end)
    tail = f"block{blocks + 3}"
    stages = scale.bit_length() - 1
    for i in range(stages):
        x = net.conv(x, f"{tail}.{i}.conv", 4 * features, 3)
        x = net.prelu(net.pixel_shuffle(x, 2, shuffle, f"{tail}.{i}.pixel_shuffle"), f"{tail}.{i}.prelu")
    x = net.node(Tanh(), (net.conv(x, f"{tail}.{stages}", 3, 9),), "tanh")
    output = net.arithmetic(Mul(), net.arithmetic(Add(), x, 1.0, "plus_one"), 0.5, "half")
    return net.model(image, output, "SRResNet", scale, 1.0)


def _res_block(net: Builder, x: Node, name: str, features: int) -> Node:
    """x + bn(conv(prelu(bn(conv(x)))))"""
    y = _batch_norm(net, net.conv(x, f"{name}.conv1", features, 3), f"{name}.bn1")
    y = net.conv(net.prelu(y, f"{name}.prelu"), f"{name}.conv2", features, 3)
    return net.residual(_batch_norm(net, y, f"{name}.bn2"), x, name)


def _batch_norm(net: Builder, x: Node, name: str) -> Node:
    initial = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    channels = net.channels(x)
    parameters = [net.parameter(f"{name}.{kind}", net.filled(channels, value)) for kind, value in initial.items()]
    return net.node(BatchNorm(eps=1e-5), (x, *parameters), name)
