"""Every naming family of checkpoints: written by PyTorch from independent networks, loaded, and compared with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsr
from graphsr.model import Model

torch = pytest.importorskip("torch")

import torch_nets as nets  # noqa: E402  # needs PyTorch

TOLERANCE = 1e-4
"""Of the output's range: float32 sums in another order."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randomised(net: Any) -> Any:
    """The network in evaluation mode, with batch-norm statistics that matter."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return net.eval()


def assert_agrees(model: Model, net: Any, channels: int = 3, white: float | None = None) -> None:
    """The model computes what the network does; `white` is the network's where it differs from the model's."""
    x = np.random.default_rng(1).uniform(0, 1, (1, channels, 9, 7)).astype(np.float32)
    white = model.input_range if white is None else white
    with torch.no_grad():
        expected = net(torch.from_numpy(x * np.float32(white))).numpy() / white
    for backend in ("reference", "numpy"):
        got = model.compile(backend, threads=2)({"input": x * np.float32(model.input_range)})["output"]
        assert np.abs(got / model.input_range - expected).max() <= TOLERANCE * np.ptp(expected)


def saved(net: Any, path: Path, wrap: Callable[[Any], Any] = lambda state: state, **options: Any) -> Path:
    torch.save(wrap(net.state_dict()), path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_the_large_edsr_loads_from_both_forms_of_pytorch_files(tmp_path: Path, zipped: bool) -> None:
    net = randomised(nets.Edsr(2, 32, 256, 0.1))
    model = graphsr.load(saved(net, tmp_path / "edsr_x2.pt", _use_new_zipfile_serialization=zipped))
    assert (model.architecture, model.scale, model.input_range) == ("EDSR", 2, 255)
    assert model.parameters == 40_729_627
    assert_agrees(model, net)


def test_the_wdsr_of_the_thesis(tmp_path: Path) -> None:
    net = randomised(nets.Wdsr("A", 4, 32, 32, 6, NORMS["parametrized"]))
    model = graphsr.load(saved(net, tmp_path / "wdsr_x4.pt"))
    assert (model.architecture, model.scale, model.parameters) == ("WDSR-A", 4, 3_571_824)
    assert_agrees(model, net)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_edsr_pytorch(tmp_path: Path, scale: int) -> None:
    net = randomised(nets.Edsr(scale, 3, 8))
    model = graphsr.load(saved(net, tmp_path / "net.pt"))
    assert model.inferred == {"family": "EDSR-PyTorch", "scale": str(scale), "blocks": "3", "features": "8"}
    assert_agrees(model, net)


def test_edsr_pytorch_trained_on_0_to_1(tmp_path: Path) -> None:
    net = randomised(nets.Edsr(2, 1, 4, white=1.0))
    model = graphsr.load(saved(net, tmp_path / "net.pt"))
    assert model.input_range == 1
    assert_agrees(model, net)


def test_torchsr(tmp_path: Path) -> None:
    net = randomised(nets.Edsr(3, 2, 8, inside=255.0))
    assert_agrees(graphsr.load(saved(net, tmp_path / "edsr64_x3.pt")), net, white=1.0)


@pytest.mark.parametrize(
    ("name", "options"), [("pytorch_model_2x.pt", {}), ("net.pt", {"input_range": 1, "mean": (0, 0, 0)})]
)
def test_super_image(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    net = randomised(nets.Edsr(2, 2, 8, shift=False))
    assert_agrees(graphsr.load(saved(net, tmp_path / name), **options), net, white=1.0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("wrapper", ["params", "params_ema"])
def test_basicsr(tmp_path: Path, scale: int, wrapper: str) -> None:
    net = randomised(nets.ConvFirstEdsr(scale, 3, 8))
    model = graphsr.load(saved(net, tmp_path / "net.pth", lambda state: {wrapper: state}))
    assert (model.inferred["family"], model.scale, model.input_range) == ("BasicSR", scale, 1)
    assert_agrees(model, net)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_mmagic(tmp_path: Path, scale: int) -> None:
    net = randomised(nets.ConvFirstEdsr(scale, 3, 8, img_range=1.0, packed=True))

    def wrapped(state: Any) -> Any:
        return {"state_dict": {f"generator.{name}": value for name, value in state.items()}, "meta": {"iter": 3}}

    model = graphsr.load(saved(net, tmp_path / "net.pth", wrapped))
    assert (model.inferred["family"], model.scale, model.input_range) == ("mmagic", scale, 1)
    assert_agrees(model, net)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_mdsr(tmp_path: Path, branch: int) -> None:
    net = randomised(nets.Mdsr(2, 8))
    net.branch = branch
    model = graphsr.load(saved(net, tmp_path / "mdsr.pt"), scale=branch + 2)
    assert (model.architecture, model.scale) == ("MDSR", branch + 2)
    assert_agrees(model, net)


NORMS = {
    "fused": nets.plain,
    "weight_g": lambda layer: torch.nn.utils.weight_norm(layer),
    "parametrized": torch.nn.utils.parametrizations.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_wdsr_ntire2018(tmp_path: Path, kind: str, norm: str, scale: int) -> None:
    net = randomised(nets.Wdsr(kind, scale, 2, 10, 4, NORMS[norm]))
    model = graphsr.load(saved(net, tmp_path / "wdsr.pt"))
    assert (model.architecture, model.scale) == (f"WDSR-{kind}", scale)
    assert model.parameters == sum(p.numel() for p in net.parameters())
    assert_agrees(model, net)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_ychfan_wdsr(tmp_path: Path, norm: str, scale: int) -> None:
    net = randomised(nets.YchfanWdsr(scale, 3, 8, 4, NORMS[norm]))

    def wrapped(state: Any) -> Any:
        return {"model_state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}, "epoch": 30}

    model = graphsr.load(saved(net, tmp_path / "epoch_30.pth", wrapped))
    assert (model.inferred["family"], model.scale, model.input_range) == ("ychfan/wdsr", scale, 1)
    assert_agrees(model, net)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("batch_norm_end", [True, False])
def test_srresnet(tmp_path: Path, scale: int, batch_norm_end: bool) -> None:
    net = randomised(nets.SrResNet(scale, 8, batch_norm_end=batch_norm_end))
    model = graphsr.load(saved(net, tmp_path / "netG.pth"))
    assert (model.architecture, model.scale, model.input_range) == ("SRResNet", scale, 1)
    assert_agrees(model, net)


@pytest.mark.parametrize(("net", "channels"), [(nets.Espcn(3), 1), (nets.Espcn(2, 3), 3), (nets.ReluEspcn(4), 1)])
def test_espcn(tmp_path: Path, net: Any, channels: int) -> None:
    model = graphsr.load(saved(net, tmp_path / "espcn.pth"))
    assert (model.architecture, model.inputs["input"].shape[1]) == ("ESPCN", channels)
    assert_agrees(model, net, channels)


def test_prefix_of_data_parallel(tmp_path: Path) -> None:
    net = randomised(nets.Edsr(2, 1, 4))
    path = saved(net, tmp_path / "net.pt", lambda state: {f"module.{name}": value for name, value in state.items()})
    assert_agrees(graphsr.load(path), net)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    net = randomised(nets.Wdsr("A", 2, 1, 8, 4)).half()
    model = graphsr.load(saved(net, tmp_path / "net.pt"))
    assert_agrees(model, net.float())


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    net = randomised(nets.Wdsr("B", 2, 2, 10, 6))
    path = tmp_path / "net.safetensors"
    safetensors.save_file(net.state_dict(), path, metadata={"credits": "photographs by A and B", "res_scale": "1"})
    model = graphsr.load(path)
    assert model.provenance["credits"] == "photographs by A and B"
    assert model.inferred["res_scale"] == "1"
    assert not any(sentence.startswith("res_scale") for sentence in model.assumptions)
    assert_agrees(model, net)


def test_where_the_weights_came_from(tmp_path: Path) -> None:
    net = nets.ConvFirstEdsr(2, 2, 4)
    model = graphsr.load(saved(net, tmp_path / "net.pth", lambda state: {"params": state}))
    assert model.provenance["file"] == "net.pth"
    assert len(model.provenance["sha256"]) == 64
    origins = {node.name: node.origin for node in model.graph.nodes()}
    assert origins["body.1.body.2"] == "BasicSR: body.1.conv2"
    assert origins["head.0.weight"] == "BasicSR: conv_first.weight"
