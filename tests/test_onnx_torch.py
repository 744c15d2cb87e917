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
from torch.nn import functional as F  # noqa: E402, N812
from torch_nets import Edsr, SrResNet, Wdsr, conv  # noqa: E402


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
