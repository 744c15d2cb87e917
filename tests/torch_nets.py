"""The super-resolution networks once more, in PyTorch: the oracle of the importer tests.

Written from the papers and from the layer names that each project publishes, independently of `graphsr.models`.
Every class has the project's own parameter names and takes what the project's own network takes. Import it where
PyTorch is installed only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MEAN = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


def conv(ci: int, co: int, k: int = 3) -> Any:
    return nn.Conv2d(ci, co, k, padding=k // 2)


def plain(layer: Any) -> Any:
    return layer


class Chain(nn.Module):
    """conv-ReLU-… under `body`, times res_scale, plus the input."""

    def __init__(self, layers: list[Any], res_scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.res_scale = res_scale

    def forward(self, x: Any) -> Any:
        return x + self.res_scale * self.body(x)


def edsr_block(n: int, k: int, res_scale: float) -> Chain:
    return Chain([conv(n, n, k), nn.ReLU(), conv(n, n, k)], res_scale)


def upsampler(scale: int, n: int) -> Any:
    factors = [3] if scale == 3 else [2] * int(math.log2(scale))
    layers = [layer for f in factors for layer in (conv(n, n * f * f), nn.PixelShuffle(f))]
    return nn.Sequential(*layers)


def mean_shift(value: Any) -> Any:
    layer = nn.Conv2d(3, 3, 1)
    layer.weight.data = torch.eye(3).view(3, 3, 1, 1)
    layer.bias = nn.Parameter(value.flatten())
    return layer


class Edsr(nn.Module):
    """EDSR-PyTorch (`inside=1`), torchSR (`inside=255`: takes 0..1), super-image (`shift=False`)."""

    def __init__(
        self,
        scale: int,
        blocks: int,
        n: int,
        res_scale: float = 1.0,
        *,
        white: float = 255.0,
        inside: float = 1.0,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.inside, self.shift = inside, shift
        self.sub_mean, self.add_mean = mean_shift(-white * MEAN), mean_shift(white * MEAN)
        self.head = nn.Sequential(conv(3, n))
        self.body = nn.Sequential(*[edsr_block(n, 3, res_scale) for _ in range(blocks)], conv(n, n))
        self.tail = nn.Sequential(upsampler(scale, n), conv(n, 3))

    def forward(self, x: Any) -> Any:
        x = self.sub_mean(x * self.inside) if self.shift else x
        x = self.head(x)
        x = self.tail(self.body(x) + x)
        return self.add_mean(x) / self.inside if self.shift else x


class Mdsr(nn.Module):
    """EDSR-PyTorch's MDSR; `branch` chooses among `scales`."""

    def __init__(self, blocks: int, n: int, scales: tuple[int, ...] = (2, 3, 4)) -> None:
        super().__init__()
        self.branch = 0
        self.sub_mean, self.add_mean = mean_shift(-255 * MEAN), mean_shift(255 * MEAN)
        self.head = nn.Sequential(conv(3, n))
        self.pre_process = nn.ModuleList(nn.Sequential(*[edsr_block(n, 5, 1.0) for _ in range(2)]) for _ in scales)
        self.body = nn.Sequential(*[edsr_block(n, 3, 1.0) for _ in range(blocks)], conv(n, n))
        self.upsample = nn.ModuleList(upsampler(scale, n) for scale in scales)
        self.tail = nn.Sequential(conv(n, 3))

    def forward(self, x: Any) -> Any:
        x = self.pre_process[self.branch](self.head(self.sub_mean(x)))
        return self.add_mean(self.tail(self.upsample[self.branch](self.body(x) + x)))


class PairBlock(nn.Module):
    """BasicSR's and mmagic's residual block: conv1, ReLU, conv2."""

    def __init__(self, n: int, res_scale: float) -> None:
        super().__init__()
        self.conv1, self.conv2, self.res_scale = conv(n, n), conv(n, n), res_scale

    def forward(self, x: Any) -> Any:
        return x + self.res_scale * self.conv2(torch.relu(self.conv1(x)))


class ShufflePack(nn.Module):
    """mmagic's PixelShufflePack."""

    def __init__(self, n: int, factor: int) -> None:
        super().__init__()
        self.upsample_conv, self.shuffle = conv(n, n * factor * factor), nn.PixelShuffle(factor)

    def forward(self, x: Any) -> Any:
        return self.shuffle(self.upsample_conv(x))


class ConvFirstEdsr(nn.Module):
    """EDSR as BasicSR (`img_range=255`) and mmagic (`packed`, `img_range=1`) write it; takes 0..1."""

    def __init__(
        self, scale: int, blocks: int, n: int, res_scale: float = 1.0, *, img_range: float = 255.0, packed: bool = False
    ) -> None:
        super().__init__()
        self.img_range = img_range
        self.conv_first, self.conv_after_body, self.conv_last = conv(3, n), conv(n, n), conv(n, 3)
        self.body = nn.Sequential(*[PairBlock(n, res_scale) for _ in range(blocks)])
        factors = [3] if scale == 3 else [2] * int(math.log2(scale))
        self.upsample = nn.Sequential(*[ShufflePack(n, f) for f in factors]) if packed else upsampler(scale, n)

    def forward(self, x: Any) -> Any:
        x = self.conv_first((x - MEAN) * self.img_range)
        x = self.conv_last(self.upsample(self.conv_after_body(self.body(x)) + x))
        return x / self.img_range + MEAN


def wdsr_block(kind: str, n: int, expand: int, norm: Callable[[Any], Any]) -> list[Any]:
    if kind == "A":
        return [norm(conv(n, n * expand)), nn.ReLU(), norm(conv(n * expand, n))]
    low = int(0.8 * n)
    return [norm(conv(n, n * expand, 1)), nn.ReLU(), norm(conv(n * expand, low, 1)), norm(conv(low, n))]


class Wdsr(nn.Module):
    """wdsr_ntire2018, A or B; takes 0..255."""

    def __init__(
        self,
        kind: str,
        scale: int,
        blocks: int,
        n: int,
        expand: int,
        norm: Callable[[Any], Any] = plain,
        res_scale: float = 1.0,
    ) -> None:
        super().__init__()
        out = 3 * scale * scale
        self.head = nn.Sequential(norm(conv(3, n)))
        self.body = nn.Sequential(*[Chain(wdsr_block(kind, n, expand, norm), res_scale) for _ in range(blocks)])
        self.tail = nn.Sequential(norm(conv(n, out)), nn.PixelShuffle(scale))
        self.skip = nn.Sequential(norm(conv(3, out, 5)), nn.PixelShuffle(scale))

    def forward(self, x: Any) -> Any:
        x = (x - 255 * MEAN) / 127.5
        return (self.tail(self.body(self.head(x))) + self.skip(x)) * 127.5 + 255 * MEAN


class YchfanWdsr(nn.Module):
    """ychfan/wdsr: head and tail inside `body`; takes 0..1."""

    def __init__(self, scale: int, blocks: int, n: int, expand: int, norm: Callable[[Any], Any]) -> None:
        super().__init__()
        out = 3 * scale * scale
        chains = [Chain(wdsr_block("A", n, expand, norm)) for _ in range(blocks)]
        self.body = nn.Sequential(norm(conv(3, n)), *chains, norm(conv(n, out)))
        self.skip = nn.Sequential(norm(conv(3, out, 5)))
        self.shuf = nn.Sequential(nn.PixelShuffle(scale))

    def forward(self, x: Any) -> Any:
        x = x - 0.5
        return self.shuf(self.body(x) + self.skip(x)) + 0.5


class BnBlock(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = conv(n, n), nn.BatchNorm2d(n), nn.PReLU()
        self.conv2, self.bn2 = conv(n, n), nn.BatchNorm2d(n)

    def forward(self, x: Any) -> Any:
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))


class UpBlock(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv, self.pixel_shuffle, self.prelu = conv(n, 4 * n), nn.PixelShuffle(2), nn.PReLU()

    def forward(self, x: Any) -> Any:
        return self.prelu(self.pixel_shuffle(self.conv(x)))


class SrResNet(nn.Module):
    """leftthomas/SRGAN; the body ends in PReLU (published weights) or batch norm (newest source). Takes 0..1."""

    def __init__(self, scale: int, n: int, *, batch_norm_end: bool = False) -> None:
        super().__init__()
        self.block1 = nn.Sequential(conv(3, n, 9), nn.PReLU())
        for i in range(2, 7):
            setattr(self, f"block{i}", BnBlock(n))
        self.block7 = nn.Sequential(conv(n, n), nn.BatchNorm2d(n) if batch_norm_end else nn.PReLU())
        self.block8 = nn.Sequential(*[UpBlock(n) for _ in range(int(math.log2(scale)))], conv(n, 3, 9))

    def forward(self, x: Any) -> Any:
        first = x = self.block1(x)
        for i in range(2, 8):
            x = getattr(self, f"block{i}")(x)
        return (torch.tanh(self.block8(first + x)) + 1) / 2


class Espcn(nn.Module):
    """yjn870/ESPCN-pytorch."""

    def __init__(self, scale: int, channels: int = 1) -> None:
        super().__init__()
        self.first_part = nn.Sequential(conv(channels, 64, 5), nn.Tanh(), conv(64, 32), nn.Tanh())
        self.last_part = nn.Sequential(conv(32, channels * scale * scale), nn.PixelShuffle(scale))

    def forward(self, x: Any) -> Any:
        return self.last_part(self.first_part(x))


class ReluEspcn(nn.Module):
    """leftthomas/ESPCN and PyTorch's super_resolution example: four convolutions, ReLU."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv(1, 64, 5), conv(64, 64), conv(64, 32)
        self.conv4, self.pixel_shuffle = conv(32, scale * scale), nn.PixelShuffle(scale)

    def forward(self, x: Any) -> Any:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = torch.relu(layer(x))
        return self.pixel_shuffle(self.conv4(x))
