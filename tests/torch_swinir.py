"""SwinIR (Liang et al. 2021) in PyTorch, small: the oracle of the tests of imported attention networks.

Written from the paper; views, rolls and masks depend on the size of the image, as in the published network. Import it
where PyTorch is installed only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


def windows(x: Any, s: int) -> Any:
    """[N, H, W, C] -> [N · windows, s², C]"""
    n, h, w, c = x.shape
    return x.view(n, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)


def image(x: Any, s: int, h: int, w: int) -> Any:
    """The inverse of `windows`."""
    c = x.shape[-1]
    return x.view(-1, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)


def shift_mask(h: int, w: int, s: int, shift: int) -> Any:
    """[windows, s², s²]: −100 between pixels that are neighbours only because the image was rolled."""
    regions = torch.zeros(1, h, w, 1)
    parts = (slice(0, -s), slice(-s, -shift), slice(-shift, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            regions[:, rows, columns, :] = 3 * i + j
    region = windows(regions, s).squeeze(-1)
    apart = region.unsqueeze(1) - region.unsqueeze(2)
    return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)


def relative_index(s: int) -> Any:
    """[s², s²]: the row of the bias table for each pair of pixels of a window."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(s), torch.arange(s), indexing="ij"))
    return (y[:, None] - y + s - 1) * (2 * s - 1) + x[:, None] - x + s - 1


class Attention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position."""

    index: Any

    def __init__(self, c: int, heads: int, s: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (c // heads) ** -0.5
        self.bias = nn.Parameter(torch.randn((2 * s - 1) ** 2, heads) * 0.5)
        self.register_buffer("index", relative_index(s))
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)

    def forward(self, x: Any, mask: Any) -> Any:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        scores = scores + self.bias[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            m = mask.shape[0]
            scores = scores.view(b // m, m, self.heads, n, n) + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, n, n)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class SwinLayer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); every other layer in windows shifted by half their size."""

    def __init__(self, c: int, heads: int, s: int, shift: int) -> None:
        super().__init__()
        self.s, self.shift = s, shift
        self.norm1, self.norm2, self.attention = nn.LayerNorm(c), nn.LayerNorm(c), Attention(c, heads, s)
        self.mlp = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))

    def forward(self, x: Any) -> Any:
        _, h, w, _ = x.shape
        y, mask = self.norm1(x), None
        if self.shift:
            y, mask = y.roll((-self.shift, -self.shift), (1, 2)), shift_mask(h, w, self.s, self.shift)
        y = image(self.attention(windows(y, self.s), mask), self.s, h, w)
        x = x + (y.roll((self.shift, self.shift), (1, 2)) if self.shift else y)
        return x + self.mlp(self.norm2(x))


class Block(nn.Module):
    """A residual Swin transformer block: layers, a convolution, and the input added."""

    def __init__(self, c: int, heads: int, s: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[SwinLayer(c, heads, s, (i % 2) * (s // 2)) for i in range(depth)])
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return x + self.conv(self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class SwinIr(nn.Module):
    """Takes 0..1 of any size: it is mirrored at the edges to whole windows, and the output cropped."""

    mean: Any

    def __init__(self, scale: int = 2, c: int = 8, heads: int = 2, s: int = 4, blocks: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.scale, self.s = scale, s
        self.register_buffer("mean", torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1))
        self.head = nn.Conv2d(3, c, 3, padding=1)
        self.body = nn.Sequential(*[Block(c, heads, s, depth) for _ in range(blocks)])
        self.norm, self.after = nn.LayerNorm(c), nn.Conv2d(c, c, 3, padding=1)
        self.tail = nn.Sequential(
            nn.Conv2d(c, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale), nn.Conv2d(3, 3, 3, padding=1)
        )

    def forward(self, x: Any) -> Any:
        _, _, h, w = x.shape
        x = F.pad(x, (0, -w % self.s, 0, -h % self.s), "reflect") - self.mean
        x = self.head(x)
        y = self.norm(self.body(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.tail(self.after(y) + x) + self.mean
        return y[:, :, : h * self.scale, : w * self.scale]
