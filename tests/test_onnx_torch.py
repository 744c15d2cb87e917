"""Networks as PyTorch exports them to ONNX, with open sizes: the same answers at sizes that the exporter never saw."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest

from graphsr.importers.onnx_backend import Specialised
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source, parse
from graphsr.ops import Conv2d
from graphsr.testing import tolerance

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch_imported import Classifier, UNet, WindowAttention  # noqa: E402
from torch_nets import Edsr, SrResNet, Wdsr  # noqa: E402

NETS: dict[str, tuple[Any, int, int]] = {
    "EDSR": (lambda: Edsr(2, 1, 8), 3, 4),
    "SRResNet": (lambda: SrResNet(2, 4), 3, 4),
    "U-Net": (UNet, 3, 4),
    "classifier": (Classifier, 3, 4),
    "attention": (WindowAttention, 8, 4),
}
"""Name -> network, its input channels, and what its image sizes must be multiples of."""


def exported(net: Any, channels: int, opset: int, **options: Any) -> Any:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        axes = {"x": {0: "N", 2: "H", 3: "W"}}
        x = torch.zeros(1, channels, 8, 12)
        torch.onnx.export(
            net,
            x,
            stream,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
            opset_version=opset,
            dynamo=False,
            **options,
        )
    return parse(stream.getvalue(), "exported")


@pytest.mark.parametrize("opset", [9, 11, 17])
@pytest.mark.parametrize("name", NETS)
def test_exported_networks_agree(name: str, opset: int) -> None:
    make, channels, multiple = NETS[name]
    if name == "U-Net" and opset < 11:
        pytest.skip("operator set 9 cannot say half-pixel bilinear: the exporter writes something else")
    torch.manual_seed(0)
    net = make().eval()
    source = Source(exported(net, channels, opset))
    run = Specialised(source, "reference")
    for n, h, w in [(1, 2, 3), (2, 4, 2)]:
        x = np.random.default_rng(n).standard_normal((n, channels, multiple * h, multiple * w)).astype(np.float32)
        with torch.no_grad():
            want = net(torch.from_numpy(x)).numpy()
        (got,) = run({"x": x}).values()
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float32", 72, scale))
    assert not run.fixed


def test_weight_norm_that_the_exporter_did_not_fold_is_constant() -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Wdsr("B", 2, 1, 4, 2, nn.utils.weight_norm).eval()
    model = exported(net, 3, 17, do_constant_folding=False)
    assert any(node.op_type in ("Div", "ReduceL2", "Pow") for node in model.graph.node)
    graph = build_graph(Source(model), {}, {})
    weights = [node.inputs[1] for node in graph.nodes() if isinstance(node.op, Conv2d)]
    assert weights
    assert all(weight.is_const for weight in weights)


@pytest.mark.parametrize("name", ["EDSR", "SRResNet"])
def test_upscalers_have_open_sizes(name: str) -> None:
    make, channels, _ = NETS[name]
    graph = build_graph(Source(exported(make().eval(), channels, 17)), {}, {})
    assert str(graph.output_types()["y"]) == "float32[N, 3, 2*H, 2*W]"
