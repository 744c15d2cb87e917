"""Graphs that other hands have formed are written for darknet: the passes, other formats, and the model builders."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.models import edsr, espcn, srresnet, wdsr_a, wdsr_b
from graphsr.ops import Activation, Clip, HardTan, Leaky, Mul, PRelu, Relie, Relu, Relu6
from graphsr.passes import DEFAULT, run_passes

pytest.importorskip("torch")

from darknet_round_trip import again, run, same
from darknet_strategies import (
    LAYERS,
    DarknetCase,
    anchor_head,
    conv_recurrent,
    darknet_networks,
    grid_head,
    local,
    recurrent,
    strided_shortcut,
    tree_region,
)

FORKS_DIFFER = ("neither fork", "equal groups", "cuts channels only")
"""Why a network that mixes the words of both forks is refused."""
LOST = (anchor_head, tree_region, grid_head, local, recurrent, conv_recurrent, strided_shortcut)
"""What ONNX has no words for: heads become arithmetic, without their anchors. A state that begins with zeros is folded
into constants, and the pixels that a sum of unequal sizes leaves out are padded."""


def through(form: str, model: graphsr.Model, folder: str) -> graphsr.Model:
    """The same network in another form."""
    if form == "passes":
        return replace(model, graph=run_passes(model.graph, DEFAULT))
    if form == "native":
        return graphsr.load(saved(model, Path(folder, "form.safetensors")))
    return graphsr.load(saved(model, Path(folder, "form.onnx")))


def saved(model: graphsr.Model, path: Path) -> Path:
    graphsr.save(model, path)
    return path


@pytest.mark.parametrize("form", ["passes", "onnx"])
@settings(max_examples=60)
@given(case=darknet_networks(tuple(layer for layer in LAYERS if layer not in LOST)))
def test_networks_come_back_through_another_form(form: str, case: DarknetCase) -> None:
    """Fused by the passes, or written as ONNX and read: what darknet read once it reads again."""
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork)
        try:
            back = again(through(form, model, folder), folder)
        except ModelError as error:
            if not any(word in str(error) for word in FORKS_DIFFER):
                raise
            assume(False)
    a, b = run(model, case.x), run(back, case.x)
    same(a, [y.reshape(x.shape) for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize("form", ["passes", "native", "onnx"])
@pytest.mark.parametrize("build", [edsr, espcn, wdsr_a, wdsr_b, srresnet], ids=lambda build: str(build.__name__))
def test_a_network_of_the_builders(build: object, form: str, tmp_path: Path) -> None:
    """Residual scales, weight normalisation, means, batch normalisation, PReLU and pixel shuffles."""
    assert callable(build)
    model = build(scale=3) if build is espcn else build(scale=2, blocks=2, features=8)
    back = again(through(form, model, str(tmp_path)), tmp_path)
    assert (back.scale, back.input_range) == (model.scale, model.input_range)
    channels = model.graph.inputs[0].type.shape[1]
    x = np.linspace(0, model.input_range, channels * 63, dtype=np.float32).reshape(1, channels, 9, 7)
    same(run(model, x), run(back, x))


def activated(op: Activation) -> graphsr.Model:
    x = Node.input("input", TensorType("float32", (1, 3, 2, 8)))
    return graphsr.Model(Graph((x,), {"output": Node(op, (x,))}), "test", input_range=1.0)


@pytest.mark.parametrize(
    ("op", "word"),
    [
        (Clip(0.0, 6.0), "relu6"),
        (Clip(-1.0, 1.0), "hardtan"),
        (Clip(0.0, float("inf")), "relu"),
        (Leaky(float(np.float32(0.1))), "leaky"),
        (Leaky(0.01), "relie"),
        (Relu6(), "relu6"),
        (HardTan(), "hardtan"),
        (Relie(), "relie"),
        (Relu(), "relu"),
    ],
)
def test_an_activation_is_written_by_its_word(op: Activation, word: str, tmp_path: Path) -> None:
    """Attributes are compared as float32, which files of other formats hold."""
    graphsr.save(activated(op), tmp_path / "x.cfg")
    assert (tmp_path / "x.cfg").read_text().count(f"activation={word}\n") == 1


@settings(max_examples=20)
@given(slope=st.floats(-2, 2, width=32), each=st.booleans())
def test_any_slope_is_made_up_of_layers(slope: float, each: bool) -> None:
    """Leaky and PReLU: the positive part less the slope times that of −x."""
    x = Node.input("input", TensorType("float32", (1, 3, 2, 8)))
    slopes = np.array([slope, 0.5, -1] if each else [slope], np.float32)
    y = Node(Mul(), (Node(PRelu(), (x, Node.const(slopes))), Node.const(np.full(1, 2, np.float32))))
    image = np.linspace(-3, 3, 48, dtype=np.float32).reshape(1, 3, 2, 8)
    for model in (graphsr.Model(Graph((x,), {"output": y}), "test", input_range=1.0), activated(Leaky(slope))):
        with tempfile.TemporaryDirectory() as folder:
            same(run(model, image), run(again(model, folder), image))
