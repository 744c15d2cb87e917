"""EDSR and WDSR in Keras HDF5 files: real ones against the PSNR by PyTorch, written ones against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsr
from graphsr.errors import ModelError
from graphsr.imagefile import read_image
from graphsr.metrics import paper, psnr

from support import data_path

h5py = pytest.importorskip("h5py")


def write_keras(path: Path, layers: dict[str, dict[str, np.ndarray]]) -> Path:
    """What `model.save_weights` writes: a group per layer with the attribute weight_names."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in layers])
        file.attrs["backend"] = b"tensorflow"
        for name, weights in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/{weight}:0".encode() for weight in weights])
            for weight, array in weights.items():
                group.create_dataset(f"{name}/{weight}:0", data=array)
    return path


def keras_layer(layer: Any, *, norm: bool = False, initialized: bool = True) -> dict[str, np.ndarray]:
    """A PyTorch convolution as a Keras one; with weight norm the kernel's length is moved into g."""
    kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
    weights = {"kernel": kernel, "bias": layer.bias.detach().numpy()}
    if norm:
        g = np.sqrt(np.square(kernel).sum(axis=(0, 1, 2)))
        kernel = kernel * 3 if initialized else kernel
        weights = {"g": g, "kernel": kernel, "bias": weights["bias"], "initialized": np.array(initialized)}
    return weights


def to_dcr(layer: Any, factor: int) -> None:
    """Reorder the output channels of a convolution from PyTorch's sub-pixel order to TensorFlow's."""
    torch = pytest.importorskip("torch")
    channels = layer.weight.shape[0]
    order = torch.arange(channels).view(channels // factor**2, factor**2).T.flatten()
    layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize(("norm", "initialized"), [(False, True), (True, True), (True, False)])
def test_wdsr(tmp_path: Path, kind: str, norm: bool, initialized: bool) -> None:
    pytest.importorskip("torch")
    import torch_nets as nets

    net: Any = nets.Wdsr(kind, 3, 2, 10, 4).eval()
    x = np.random.default_rng(1).uniform(0, 255, (1, 3, 9, 7)).astype(np.float32)
    expected = evaluated(net, x)
    to_dcr(net.tail[0], 3)
    to_dcr(net.skip[0], 3)
    convs = [net.head[0], *(layer for chain in net.body for layer in chain.body if hasattr(layer, "weight"))]
    convs += [net.tail[0], net.skip[0]]
    layers = {f"conv_{i}": keras_layer(conv, norm=norm, initialized=initialized) for i, conv in enumerate(convs)}
    model = graphsr.load(write_keras(tmp_path / "wdsr.h5", {"input_1": {}, **layers, "lambda_1": {}}))
    assert (model.architecture, model.scale, model.input_range) == (f"WDSR-{kind}", 3, 255)
    assert model.inferred["weight_norm"] == str(norm and initialized)
    assert_close(model, x, expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr(tmp_path: Path, scale: int) -> None:
    torch = pytest.importorskip("torch")
    import torch_nets as nets

    net: Any = nets.Edsr(scale, 2, 8).eval()
    net.sub_mean.weight.data /= 127.5
    net.sub_mean.bias.data /= 127.5
    net.add_mean.weight.data *= 127.5
    x = np.random.default_rng(1).uniform(0, 255, (1, 3, 9, 7)).astype(np.float32)
    expected = evaluated(net, x)
    *blocks, end = net.body
    stages = [layer for layer in net.tail[0] if isinstance(layer, torch.nn.Conv2d)]
    for stage in stages:
        to_dcr(stage, 3 if scale == 3 else 2)
    convs = [net.head[0], *(block.body[k] for block in blocks for k in (0, 2)), end, *stages, net.tail[1]]
    layers = {f"conv2d_{i + 30}": keras_layer(conv) for i, conv in enumerate(convs)}
    model = graphsr.load(write_keras(tmp_path / "edsr.h5", layers))
    assert (model.architecture, model.scale, model.input_range) == ("EDSR", scale, 255)
    assert_close(model, x, expected)
    assert {"shuffle='dcr'", "res_scale=1.0"} <= {text.partition(":")[0] for text in model.assumptions}


def evaluated(net: Any, x: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        y: np.ndarray = net(torch.from_numpy(x)).numpy()
    return y


def assert_close(model: graphsr.Model, x: np.ndarray, expected: np.ndarray) -> None:
    got = model.compile("reference", threads=1)({"input": x})["output"]
    assert np.abs(got - expected).max() <= 1e-4 * np.ptp(expected)


def zeros(*shape: int) -> dict[str, np.ndarray]:
    return {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[-1], np.float32)}


@pytest.mark.parametrize(
    ("message", "layers"),
    [
        ("neither EDSR nor WDSR", [zeros(3, 3, 3, 8)]),
        ("do not divide into residual blocks", [zeros(3, 3, 3, 8), *[zeros(3, 3, 8, 8)] * 2, zeros(3, 3, 8, 3)]),
        ("none closes the body", [zeros(3, 3, 3, 8), zeros(3, 3, 8, 32), zeros(3, 3, 8, 3)]),
        ("expected 8·r²", [zeros(3, 3, 3, 8), zeros(3, 3, 8, 8), zeros(3, 3, 8, 30), zeros(3, 3, 8, 3)]),
        ("only convolutions", [zeros(3, 3, 3, 8), {"gamma": np.ones(8, np.float32)}, zeros(3, 3, 8, 3)]),
        ("wrong shape: layer_1.weight", [zeros(3, 3, 3, 8), zeros(3, 3, 7, 8), zeros(3, 3, 8, 32), zeros(3, 3, 8, 3)]),
        ("wrong dtype", [{**zeros(3, 3, 3, 8), "bias": np.zeros(8, np.int32)}, zeros(3, 3, 8, 8), zeros(3, 3, 8, 3)]),
    ],
)
def test_other_sequences_are_refused(tmp_path: Path, message: str, layers: list[dict[str, np.ndarray]]) -> None:
    path = write_keras(tmp_path / "net.h5", {f"layer_{i}": layer for i, layer in enumerate(layers)})
    with pytest.raises(ModelError, match=message):
        graphsr.load(path)


@pytest.mark.parametrize(
    ("file", "scale", "expected"),
    [
        ("sisr/sisr_edsr-1-x4.h5", 4, 23.4907),
        ("sisr/sisr_wdsr-a-1-x4.h5", 4, 24.7416),
        ("sisr/sisr_wdsr-b-1-x4.h5", 4, 24.5681),
        ("srresnet/leftthomas_srresnet_x2.pth", 2, 32.3367),
    ],
)
def test_trained_weights_reach_their_psnr(file: str, scale: int, expected: float) -> None:
    """One image of the table that bench/set5_table.py prints whole; a wrong shuffle or mean is decibels away."""
    path = data_path(f"weights/{file}")
    small = read_image(data_path(f"images/set5_lr_x{scale}/butterfly.png")).pixels
    large = graphsr.upscale(small, path, backend="reference")
    original = read_image(data_path("images/set5/butterfly.bmp")).pixels[: large.shape[0], : large.shape[1]]
    assert abs(psnr(large, original, paper(scale)) - expected) < 0.01
