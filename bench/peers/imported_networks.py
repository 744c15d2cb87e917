"""Networks as users bring them: ONNX files that PyTorch's exporter wrote, and darknet's cfg with its weights.

ResNet18 and MobileNetV2 (torchvision's form of them), and a U-Net with batch normalisation and transposed convolutions,
have seeded random weights; their statistics of batch normalisation come from a few noise images, so that values stay of
order one through all layers. YOLO-Fastest has its published weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import graphsr
from graphsr.importers.onnx_export import OPSET, onnx_model
from graphsr.ir import Graph, Node
from graphsr.ops import Concat, Reshape

from peers.networks import folded

CALIBRATION = 4
"""Noise images from which batch normalisation takes its mean and variance."""


class ConvNorm(nn.Sequential):
    """Convolution that keeps the size (apart from the stride), batch normalisation, and perhaps an activation."""

    def __init__(
        self, ci: int, co: int, kernel: int, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
    ) -> None:
        layers = [nn.Conv2d(ci, co, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(co)]
        super().__init__(*layers, *([activation] if activation else []))


class Residual(nn.Module):
    """activation(body(x) + skip(x))"""

    def __init__(self, body: nn.Module, skip: nn.Module | None = None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip, self.activation = body, skip or nn.Identity(), activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x) + self.skip(x))
        return y


def basic_block(ci: int, co: int, stride: int) -> Residual:
    """Two 3x3 convolutions; He et al. 2016, figure 5 left."""
    body = nn.Sequential(ConvNorm(ci, co, 3, stride, activation=nn.ReLU()), ConvNorm(co, co, 3))
    return Residual(body, ConvNorm(ci, co, 1, stride) if stride > 1 else None, nn.ReLU())


def resnet18() -> nn.Module:
    """He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, table 1."""
    stem = [ConvNorm(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    stages = [
        block
        for ci, co in pairwise((64, 64, 128, 256, 512))
        for block in (basic_block(ci, co, 1 + (ci < co)), basic_block(co, co, 1))
    ]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def inverted_residual(ci: int, co: int, stride: int, expansion: int) -> nn.Module:
    """1x1 to more channels, 3x3 on each by itself, 1x1 to few."""
    wide = ci * expansion
    expand = [ConvNorm(ci, wide, 1, activation=nn.ReLU6())] if expansion > 1 else []
    depthwise = ConvNorm(wide, wide, 3, stride, wide, nn.ReLU6())
    body = nn.Sequential(*expand, depthwise, ConvNorm(wide, co, 1))
    return Residual(body) if stride == 1 and ci == co else body


def mobilenet_v2() -> nn.Module:
    """Sandler et al.: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2."""
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, activation=nn.ReLU6())]
    ci = 32
    for expansion, co, repeats, stride in settings:
        for number in range(repeats):
            layers.append(inverted_residual(ci, co, stride if number == 0 else 1, expansion))
            ci = co
    layers.append(ConvNorm(ci, 1280, 1, activation=nn.ReLU6()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


def double_conv(ci: int, co: int) -> nn.Module:
    return nn.Sequential(ConvNorm(ci, co, 3, activation=nn.ReLU()), ConvNorm(co, co, 3, activation=nn.ReLU()))


class UNet(nn.Module):
    """Ronneberger, Fischer, Brox 2015, figure 1, with half the features, padding and batch normalisation."""

    def __init__(self, features: tuple[int, ...] = (32, 64, 128, 256, 512)) -> None:
        super().__init__()
        self.down = nn.ModuleList(double_conv(ci, co) for ci, co in pairwise((3, *features)))
        steps = list(pairwise(reversed(features)))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(ci, co, 2, 2) for ci, co in steps)
        self.up = nn.ModuleList(double_conv(ci, co) for ci, co in steps)
        self.last = nn.Conv2d(features[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for grow, up, skip in zip(self.grow, self.up, reversed(skips[:-1]), strict=True):
            x = up(torch.cat([skip, grow(x)], 1))
        y: Tensor = self.last(x)
        return y


def exported(build: Callable[[], nn.Module], shape: tuple[int, ...], path: Path) -> None:
    """Write the module, its weights drawn from seed 0, with sizes that are known."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build()
        _calibrate(module, shape)
        torch.onnx.export(
            module.eval(),
            (torch.zeros(shape),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
        )


def _calibrate(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Statistics of batch normalisation from noise images."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        module.train()(torch.rand(CALIBRATION, *shape[1:]))


def yolo_fastest(darknet: Path, shape: tuple[int, ...], path: Path) -> None:
    """Write the network of `darknet` up to its heads, whose maps are laid side by side: [N, 255, all places]."""
    model = graphsr.load(darknet / "yolo-fastest-1.1.cfg", weights=darknet / "yolo-fastest-1.1.weights")
    (name,) = model.inputs
    graph = model.graph.bind({name: shape})
    maps = [head.inputs[0] for head in graph.outputs.values()]
    flat = [Node(Reshape((*m.type.dims[:2], -1)), (m,), f"places{i}") for i, m in enumerate(maps)]
    output = Node(Concat(2), tuple(flat), "output")
    onnx.save(onnx_model(folded(replace(model, graph=Graph(graph.inputs, {"output": output}))).graph), path)


@dataclass(frozen=True)
class Imported:
    """A network, the size of its input, and how its file is made."""

    name: str
    shape: tuple[int, int, int, int]
    build: Callable[[], nn.Module] | None
    """None for YOLO-Fastest, which is read from darknet's files."""

    def write(self, path: Path, darknet: Path | None) -> None:
        if self.build:
            exported(self.build, self.shape, path)
        elif darknet:
            yolo_fastest(darknet, self.shape, path)
        else:
            raise ValueError(f"{self.name} needs --darknet, the folder with yolo-fastest-1.1.cfg and .weights")


IMPORTED = (
    Imported("resnet18", (1, 3, 224, 224), resnet18),
    Imported("mobilenet-v2", (1, 3, 224, 224), mobilenet_v2),
    Imported("u-net", (1, 3, 256, 256), UNet),
    Imported("yolo-fastest", (1, 3, 320, 320), None),
)
