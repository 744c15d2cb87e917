"""EDSR and MDSR in Torch7's files: trees of nn modules as LimBee/NTIRE2017 builds them, compared with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch7_writer import Cuda, Nn, t7_bytes

import graphsr
from graphsr.errors import ModelError

torch = pytest.importorskip("torch")

import torch_nets as nets  # noqa: E402  # needs PyTorch

TOLERANCE = 1e-4
"""Of the output's range: float32 sums in another order."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def table(class_name: str, *modules: Nn) -> Nn:
    return Nn(class_name, {"modules": list(modules), "train": False})


def sequential(*modules: Nn) -> Nn:
    return table("nn.Sequential", *modules)


def conv(layer: Any, library: str = "cudnn") -> Nn:
    """A convolution as cudnn.convert leaves it: fields of nn.SpatialConvolution, arrays on the GPU."""
    co, ci, kh, kw = layer.weight.shape
    numbers = {"nInputPlane": ci, "nOutputPlane": co, "kW": kw, "kH": kh, "dW": 1, "dH": 1}
    arrays = {"weight": Cuda(layer.weight.detach().numpy()), "bias": Cuda(layer.bias.detach().numpy())}
    return Nn(f"{library}.SpatialConvolution", {**numbers, "padW": kw // 2, "padH": kh // 2, **arrays})


def skip(*chain: Nn) -> Nn:
    return sequential(table("nn.ConcatTable", sequential(*chain), Nn("nn.Identity")), Nn("nn.CAddTable"))


def block(net: Any) -> Nn:
    factor = [Nn("nn.MulConstant", {"constant_scalar": net.res_scale})] if net.res_scale != 1 else []
    return skip(conv(net.body[0]), Nn("cudnn.ReLU"), conv(net.body[2]), *factor)


def body(net: Any) -> Nn:
    *blocks, end = net.body
    return skip(*map(block, blocks), conv(end))


def upsampler(layers: Any) -> Nn:
    parts = []
    for layer in layers:
        factor = getattr(layer, "upscale_factor", None)
        parts.append(Nn("nn.PixelShuffle", {"upscaleFactor": factor}) if factor else conv(layer))
    return sequential(*parts)


def edsr_tree(net: Any) -> Nn:
    up = upsampler(net.tail[0])
    return sequential(conv(net.sub_mean), conv(net.head[0]), body(net), up, conv(net.tail[1]), conv(net.add_mean))


def mdsr_tree(net: Any, *, pre: bool = True) -> Nn:
    """Here every scale has its own last convolution; in PyTorch's MDSR they share one."""
    branches = [sequential(*map(block, branch)) for branch in net.pre_process]
    tails = [sequential(upsampler(up), conv(net.tail[0])) for up in net.upsample]
    means = [conv(net.add_mean) for _ in net.upsample]
    return sequential(
        conv(net.sub_mean),
        conv(net.head[0]),
        *([table("nn.ParallelTable", *branches)] if pre else []),
        body(net),
        table("nn.ConcatTable", *tails),
        table("nn.ParallelTable", *means),
    )


def assert_agrees(path: Path, net: Any, size: tuple[int, int] = (9, 7), **options: Any) -> None:
    model = graphsr.load(path, **options)
    x = np.random.default_rng(1).uniform(0, 255, (1, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    got = model.compile("reference", threads=1)({"input": x})["output"]
    assert np.abs(got - expected).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("res_scale", [1.0, 0.1])
def test_edsr(tmp_path: Path, scale: int, res_scale: float) -> None:
    net = nets.Edsr(scale, 3, 8, res_scale).eval()
    path = tmp_path / "EDSR.t7"
    path.write_bytes(t7_bytes(edsr_tree(net)))
    model = graphsr.load(path)
    assert model.inferred["res_scale"] == str(res_scale)
    assert not any(text.startswith("res_scale") for text in model.assumptions)
    assert_agrees(path, net)


def test_the_large_edsr(tmp_path: Path) -> None:
    net = nets.Edsr(2, 32, 256, 0.1).eval()
    path = tmp_path / "EDSR_x2.t7"
    path.write_bytes(t7_bytes(edsr_tree(net)))
    assert graphsr.load(path).parameters == 40_729_627
    assert_agrees(path, net, (4, 3))


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_mdsr(tmp_path: Path, branch: int) -> None:
    net = nets.Mdsr(2, 8).eval()
    net.branch = branch
    path = tmp_path / "MDSR.t7"
    path.write_bytes(t7_bytes(mdsr_tree(net)))
    assert_agrees(path, net, scale=branch + 2)
    assert graphsr.load(path).scale == 2
    with pytest.raises(ModelError, match="has the scales 2, 3, 4"):
        graphsr.load(path, scale=8)


def test_mdsr_of_the_challenge_has_no_branches_before_its_body(tmp_path: Path) -> None:
    net = nets.Mdsr(2, 8).eval()
    path = tmp_path / "bicubic_multiscale.t7"
    path.write_bytes(t7_bytes(mdsr_tree(net, pre=False)))
    net.pre_process = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    assert_agrees(path, net)


def test_a_model_saved_from_several_gpus(tmp_path: Path) -> None:
    net = nets.Edsr(2, 1, 4).eval()
    path = tmp_path / "net.t7"
    path.write_bytes(t7_bytes(table("nn.DataParallelTable", edsr_tree(net))))
    assert_agrees(path, net)


def test_origins_and_faults_name_the_place_in_the_tree(tmp_path: Path) -> None:
    net = nets.Edsr(2, 1, 4).eval()
    path = tmp_path / "net.t7"
    path.write_bytes(t7_bytes(edsr_tree(net)))
    origins = {node.name: node.origin for node in graphsr.load(path).graph.nodes()}
    assert origins["head.0"] == "Torch7: modules.2"
    net.head[0] = nets.conv(3, 5)
    path.write_bytes(t7_bytes(edsr_tree(net)))
    with pytest.raises(ModelError, match=r"wrong shape: modules\.2\.weight|wrong shape: modules\.3"):
        graphsr.load(path)


def looped() -> Nn:
    modules: list[Any] = []
    loop = Nn("nn.Sequential", {"modules": modules})
    modules.append(loop)
    return loop


def doubled(depth: int) -> Nn:
    """One module named 2^depth times."""
    module = Nn("nn.ReLU")
    for _ in range(depth):
        module = sequential(module, module)
    return sequential(conv(nets.conv(1, 1)), module)


def test_other_networks_and_hostile_trees_are_refused(tmp_path: Path) -> None:
    net = nets.Edsr(2, 1, 4).eval()
    strided = conv(net.head[0])
    trees = {
        "neither EDSR nor MDSR": sequential(conv(net.head[0]), Nn("nn.ReLU")),
        "class nn.SpatialBatchNormalization": sequential(conv(net.head[0]), Nn("nn.SpatialBatchNormalization")),
        "stride 1": sequential(Nn(strided.class_name, {**strided.fields, "dW": 2})),
        "CAddTable without": sequential(conv(net.head[0]), Nn("nn.CAddTable")),
        "nested too deeply": sequential(conv(net.head[0]), looped()),
        "too many modules": doubled(22),
        "expected a weight": sequential(Nn(strided.class_name, {**strided.fields, "kW": 1, "padW": 0})),
        "needs a number kW": sequential(Nn(strided.class_name, {**strided.fields, "kW": "3"})),
    }
    for message, tree in trees.items():
        path = tmp_path / "net.t7"
        path.write_bytes(t7_bytes(tree))
        with pytest.raises(ModelError, match=message):
            graphsr.load(path)
