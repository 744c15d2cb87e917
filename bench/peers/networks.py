"""The networks and single layers that are compared, with seeded random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

import graphsr
from graphsr.backend import node_macs
from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.models import edsr, espcn, srresnet, wdsr_a
from graphsr.op import Array, Op
from graphsr.ops import Conv2d, DepthToSpace, MaxPool2d
from graphsr.passes import Pass, fold_batchnorm, fold_constants, fold_scale, remove_dead, run_passes
from graphsr.textform import parse_graph, print_graph

FOLDING: tuple[Pass, ...] = (fold_constants, remove_dead, fold_batchnorm, fold_scale)
"""What is done to a network before the peers get it. What can be folded before the run is not held against them."""
QUICK_SIZE = 32
"""Largest height and width with --quick; no less than the largest pooling window."""


@dataclass(frozen=True)
class Case:
    """A network and the size of its input."""

    name: str
    build: Callable[[], Model]
    shape: tuple[int, int, int, int]  # N, C, H, W
    resident: bool = True
    """Whether the engines' processes fit into memory side by side; if not, each round starts them anew."""

    def shrunk(self) -> Case:
        """The same network on one image of at most 32 x 32."""
        _, c, h, w = self.shape
        return replace(self, shape=(1, c, min(h, QUICK_SIZE), min(w, QUICK_SIZE)))

    def input(self, model: Model) -> Array:
        """Uniform noise over the range of pixel values."""
        noise = np.random.default_rng(1).random(self.shape, np.float32)
        return noise * np.float32(model.input_range)


@dataclass(frozen=True)
class Work:
    """What a run does, whatever the algorithm saves."""

    flops: int
    """Of the direct sums: two for each multiply-accumulate."""
    moved: int
    """Bytes of the input and the output, each once: what a layer without arithmetic cannot avoid."""


def work(model: Model, shape: tuple[int, int, int, int]) -> Work:
    graph = model.graph.bind({"input": shape})
    values = (*graph.inputs, *graph.outputs.values())
    return Work(2 * sum(map(node_macs, graph.nodes())), sum(node.type.nbytes for node in values))


def folded(model: Model) -> Model:
    """The model as the peers get it."""
    return replace(model, graph=run_passes(model.graph, FOLDING))


def save_model(model: Model, stem: Path) -> None:
    """Write graphsr's own format to `stem`.safetensors, or to `stem`.txt for a graph without constants."""
    if any(node.is_const for node in model.graph.nodes()):
        graphsr.save(model, stem.with_suffix(".safetensors"))
    else:
        stem.with_suffix(".txt").write_text(print_graph(model.graph), encoding="utf-8")


def load_model(stem: Path) -> Model:
    """What `save_model` wrote."""
    text = stem.with_suffix(".txt")
    if text.exists():
        return Model(parse_graph(text.read_text(encoding="utf-8")), "layer")
    return graphsr.load(stem.with_suffix(".safetensors"))


def layer(op: Op, channels: int, weight: tuple[int, ...] = ()) -> Model:
    """A network of one layer; weights of this shape are drawn from N(0, 2/fan_in), biases from N(0, 1)."""
    n, h, w = (Dim.symbol(s) for s in "NHW")
    x = Node.input("input", TensorType("float32", (n, channels, h, w)))
    random = np.random.default_rng(0)
    constants = []
    if weight:
        deviation = np.float32(math.sqrt(2 / math.prod(weight[1:])))
        constants.append(Node.const(random.standard_normal(weight, np.float32) * deviation, "weight"))
        constants.append(Node.const(random.standard_normal(weight[0], np.float32), "bias"))
    return Model(Graph((x,), {"output": Node(op, (x, *constants), "layer")}), "layer")


_edsr = partial(edsr, scale=2, blocks=32, features=256, res_scale=0.1)
_baseline = partial(edsr, scale=2)
_wdsr = partial(wdsr_a, scale=4, blocks=32, features=32, expanded=192)
_conv3x3 = partial(layer, channels=3, weight=(100, 3, 3, 3))
_padding = (1, 1, 1, 1)

CASES = (
    Case("edsr-48", _edsr, (1, 3, 48, 48)),
    Case("edsr-128", _edsr, (1, 3, 128, 128)),
    Case("edsr-baseline-128", _baseline, (1, 3, 128, 128)),
    Case("edsr-baseline-339x510", _baseline, (1, 3, 339, 510)),
    Case("wdsr-64", _wdsr, (1, 3, 64, 64)),
    Case("wdsr-256", _wdsr, (1, 3, 256, 256)),
    Case("espcn-360x640", partial(espcn, scale=3), (1, 1, 360, 640)),
    Case("srresnet-128", partial(srresnet, scale=4), (1, 3, 128, 128)),
    Case("conv-stride-1", partial(_conv3x3, Conv2d(padding=_padding)), (16, 3, 512, 512), resident=False),
    Case("conv-stride-2", partial(_conv3x3, Conv2d((2, 2), _padding)), (16, 3, 512, 512), resident=False),
    Case("max-pool-3", partial(layer, MaxPool2d((3, 3)), 3), (16, 3, 512, 512), resident=False),
    Case("max-pool-30", partial(layer, MaxPool2d((30, 30)), 3), (16, 3, 512, 512), resident=False),
    Case("pixel-shuffle-6", partial(layer, DepthToSpace(6), 108), (16, 108, 512, 512), resident=False),
)
"""EDSR x2 of 32 blocks of 256 and of 16 of 64, WDSR-A x4 of 32 blocks 32-192-32, ESPCN x3, SRResNet x4; and the layers
of the thesis on a batch of 16 images."""
