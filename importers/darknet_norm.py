"""darknet's normalisations across channels: [normalization] and [l2norm]."""

from __future__ import annotations

import numpy as np

from graphsr.ir import Node
from graphsr.ops import Conv2d, Div, Mul, Pow, ReduceSum, Sqrt

from .darknet_grammar import Section
from .darknet_network import Network, section

MAX_CHANNELS = 2048
"""Of a local response normalisation, whose sums are a product with a matrix of this size."""


@section("normalization", "lrn")
def normalization(net: Network, s: Section) -> Node:
    """y[c] = x[c]·n[c]^−β, n[c] = κ + α·(Σ_j x[j]² − x[k]²) over the `size` channels j around c, k = ⌊size/2⌋.

    Local response normalisation (Krizhevsky et al., 2012) with darknet's running sum. It starts without channel k and
    so lacks it ever after: where the window holds k it is missing, elsewhere it is subtracted.
    """
    alpha, beta = s.number("alpha", 1e-4), s.number("beta", 0.75)
    kappa, size = s.number("kappa", 1.0), s.integer("size", 5, 1)
    channels = net.channels(net.x)
    if size // 2 > channels or channels > MAX_CHANNELS:
        raise s.error(f"a window of {size} channels does not suit {channels} channels", "size")
    place = np.arange(channels)
    distance = place - place[:, None]
    window = ((distance >= -((size - 1) // 2)) & (distance <= size // 2)).astype(np.float32)
    window[:, size // 2 : size // 2 + 1] -= 1
    square = net.node(Mul(), net.x, net.x, part="square")
    weight = net.constant(np.float32(alpha) * window[:, :, None, None], "window")
    bias = net.constant(np.full(channels, kappa), "kappa")
    total = net.node(Conv2d(), square, weight, bias, part="sum")
    power = net.node(Pow(), total, net.constant(-beta, "beta"), part="power")
    return net.node(Mul(), net.x, power)


@section("l2norm")
def l2norm(net: Network, s: Section) -> Node:
    """y[c] = x[c] / √(Σ_c x[c]²) at every pixel; 0/0 where all are 0, as in darknet."""
    square = net.node(Mul(), net.x, net.x, part="square")
    total = net.node(ReduceSum((1,)), square, part="sum")
    return net.node(Div(), net.x, net.node(Sqrt(), total, part="norm"))
