"""Networks as both of PyTorch's exporters write them, with open sizes, on every backend: the answers of PyTorch.

The older exporter traces TorchScript; the newer one (`dynamo=True`, the default) writes its weights to a file beside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import onnx
import pytest

import graphsr
from graphsr.errors import ModelError
from graphsr.importers.onnx_backend import Specialised
from graphsr.importers.onnx_reader import read_model
from graphsr.ops import Conv2d, Dense, DepthToSpace, Fused, Gelu, MatMul
from graphsr.passes import DEFAULT, run_passes
from graphsr.testing import tolerance

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it")
from torch.nn.utils.parametrizations import weight_norm  # noqa: E402
from torch_imported import Classifier, UNet  # noqa: E402
from torch_nets import Edsr, Espcn, SrResNet, Wdsr  # noqa: E402
from torch_swinir import SwinIr  # noqa: E402

BACKENDS = ("reference", "numpy", "llvm")
EXPORTERS = ("torchscript", "dynamo")
SIZES = ((2, 12, 16), (3, 9, 13))
"""Batch, height, width: those of the export, and others that the exporter never saw."""


@dataclass(frozen=True)
class Net:
    """A network; the products that are summed up for one of its outputs, in the longest chain of layers."""

    make: Callable[[], Any]
    terms: int
    channels: int = 3
    even: bool = False


NETS = {
    "EDSR": Net(lambda: Edsr(2, 1, 8), 6 * 72),
    "WDSR": Net(lambda: Wdsr("B", 2, 1, 4, 2, weight_norm), 6 * 36),
    "ESPCN": Net(lambda: Espcn(3), 25 + 9 * 96, channels=1),
    "SRResNet": Net(lambda: SrResNet(2, 4), 15 * 36 + 81 * 7),
    "U-Net": Net(UNet, 27 + 36 + 72, even=True),
    "classifier": Net(Classifier, 27 + 9 + 10 + 48),
    "SwinIR": Net(SwinIr, 6 * 72 + 4 * 64),
}


def export(net: Any, channels: int, exporter: str, path: Path, opset: int | None = None, **options: Any) -> Path:
    """The network as a file with open sizes."""
    n, h, w = SIZES[0]
    x = torch.zeros(n, channels, h, w)
    options.update(input_names=["x"], output_names=["y"], opset_version=opset, verbose=False)
    if exporter == "dynamo":
        options.update(dynamo=True, dynamic_shapes=(dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),))
    else:
        options.update(dynamo=False, dynamic_axes={"x": {0: "N", 2: "H", 3: "W"}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(net, (x,), str(path), **options)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Any, Path]]:
    """(network, exporter) -> the network in PyTorch, and its file; each is written once."""
    done: dict[tuple[str, str], tuple[Any, Path]] = {}

    def get(name: str, exporter: str) -> tuple[Any, Path]:
        if (name, exporter) not in done:
            torch.manual_seed(0)
            net = NETS[name].make().eval()
            path = tmp_path_factory.mktemp("exported") / "net.onnx"
            done[name, exporter] = net, export(net, NETS[name].channels, exporter, path)
        return done[name, exporter]

    return get


Exported = Callable[[str, str], tuple[Any, Path]]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_exported_networks_agree(name: str, exporter: str, exported: Exported) -> None:
    net, path = exported(name, exporter)
    runs = {backend: Specialised(read_model(path), backend) for backend in BACKENDS}
    for n, h, w in SIZES:
        h, w = (h & ~1, w & ~1) if NETS[name].even else (h, w)
        x = np.random.default_rng(n).random((n, NETS[name].channels, h, w), np.float32)
        with torch.no_grad():
            want = net(torch.from_numpy(x)).numpy()
        scale = max(1.0, float(np.abs(want).max()))
        for backend, run in runs.items():
            (got,) = run({"x": x}).values()
            bound = tolerance("float32", NETS[name].terms, scale)
            np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=backend)
    assert not any(run.fixed for run in runs.values())


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["EDSR", "WDSR", "ESPCN", "SRResNet"])
def test_upscalers_have_open_sizes(name: str, exporter: str, exported: Exported) -> None:
    """One graph for all sizes, without any of the shape code; weights are constants, weight norm or not."""
    model = graphsr.load(exported(name, exporter)[1])
    assert model.scale == (3 if name == "ESPCN" else 2)
    assert not all(isinstance(size, int) for size in model.outputs["y"].shape)
    graph = run_passes(model.graph, DEFAULT)
    assert all(node.inputs[1].is_const for node in graph.nodes() if isinstance(node.op, Conv2d))
    assert any(isinstance(node.op, DepthToSpace) for node in graph.nodes())


def test_the_newer_exporter_writes_external_data(exported: Exported) -> None:
    _, path = exported("EDSR", "dynamo")
    assert path.with_name("net.onnx.data").stat().st_size > 0
    assert any(t.data_location == t.EXTERNAL for t in onnx.load(path, load_external_data=False).graph.initializer)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_masks_and_branches_of_swinir_are_constants(exporter: str, exported: Exported) -> None:
    """Its masks follow from the size of the image, which therefore must be given; then nothing of them is left."""
    path = exported("SwinIR", exporter)[1]
    with pytest.raises(ModelError, match="shapes="):
        graphsr.load(path)
    model = graphsr.load(path, shapes={"x": (2, 3, 12, 16)})
    nodes = [*run_passes(model.graph, DEFAULT).nodes()]
    left = {node.op.name for node in nodes}
    assert not left & {"scatter_nd", "gather", "mod", "where", "equal", "arange", "expand", "full", "shape_of", "cast"}
    assert {"layer_norm", "softmax", "matmul", "dense", "roll"} <= left
    fused = {type(node.op.activation) for node in nodes if isinstance(node.op, Fused) and node.op.base == Dense()}
    assert fused == {Gelu, NoneType}
    assert not any(child.is_const for node in nodes if isinstance(node.op, MatMul) for child in node.inputs)


@pytest.mark.parametrize("opset", [18, 23, 25])
def test_operator_sets_of_the_newer_exporter(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet().eval()
    path = export(net, 3, "dynamo", tmp_path / "net.onnx", opset)
    (version,) = {i.version for i in onnx.load(path, load_external_data=False).opset_import if not i.domain}
    assert version == opset
    x = np.random.default_rng(0).random((1, 3, 6, 8), np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    (got,) = Specialised(read_model(path), "reference")({"x": x}).values()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float32", NETS["U-Net"].terms, 1.0))


def test_weight_norm_that_the_newer_exporter_did_not_fold_is_constant(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NETS["WDSR"].make().eval()
    path = export(net, 3, "dynamo", tmp_path / "net.onnx", optimize=False)
    model = graphsr.load(path)
    weights = [node.inputs[1] for node in model.graph.nodes() if isinstance(node.op, Conv2d)]
    assert weights
    assert all(weight.is_const for weight in weights)
