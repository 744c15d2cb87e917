"""Networks of other kinds than upscalers, in PyTorch: what the tests of exported networks run beside them. Import it
where PyTorch is installed only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch_nets import conv


class UNet(nn.Module):
    """Down and up again, the skip joined by its size: Shape, Slice, Concat and Resize to a size of another value."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up = conv(3, 4), conv(4, 4), conv(8, 3)

    def forward(self, x: Any) -> Any:
        a = F.leaky_relu(self.down(x), 0.2)
        b = torch.sigmoid(self.deep(F.max_pool2d(a, 2)))
        b = F.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.up(torch.cat([a, b], 1))


class Classifier(nn.Module):
    """Strides, batch norm, grouped convolution, squeeze and excitation, global pool, linear layer, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Sequential(nn.Conv2d(8, 2, 1), nn.ReLU6(), nn.Conv2d(2, 8, 1), nn.Hardsigmoid())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.depth(x)
        y = x + y * self.gate(F.adaptive_avg_pool2d(y, 1))
        return F.softmax(self.head(y.mean((2, 3)).flatten(1)), dim=-1)


class WindowAttention(nn.Module):
    """Attention in shifted windows, as in SwinIR: views and permutations that depend on the size of the image."""

    def __init__(self, c: int = 8, window: int = 4) -> None:
        super().__init__()
        self.norm, self.qkv, self.out, self.window = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c), window

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        s = self.window
        tokens = torch.roll(x, (-2, -2), (2, 3)).view(n, c, h // s, s, w // s, s)
        tokens = self.norm(tokens.permute(0, 2, 4, 3, 5, 1).reshape(-1, s * s, c))
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        mixed = self.out(F.gelu(torch.softmax(q @ k.transpose(1, 2) * 0.25, -1) @ v))
        image = mixed.view(n, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return x + torch.roll(image, (2, 2), (2, 3))
