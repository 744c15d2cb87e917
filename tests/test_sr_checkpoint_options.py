"""What a checkpoint does not say is assumed, listed and settable; what does not fit is refused with all faults."""

from __future__ import annotations

import contextlib
from math import prod as product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.importers.architectures import recognise
from graphsr.importers.checkpoint import Checkpoint
from graphsr.importers.safetensors_file import write_safetensors
from graphsr.importers.sr_checkpoint import build as build_checkpoint
from graphsr.model import Model
from graphsr.models import edsr, espcn, mdsr, srresnet, wdsr_a, wdsr_b


def written(path: Path, model: Model, **changes: Any) -> Path:
    """The weights of a model as a safetensors file with canonical names; a change of None leaves one out."""
    learned = {node.name: node.value for node in model.graph.nodes() if node.is_const and node.name not in model.fixed}
    weights = {name: array for name, array in {**learned, **changes}.items() if array is not None}
    write_safetensors(path, weights)
    return path


def drawn(build: Any, **sizes: Any) -> dict[str, np.ndarray]:
    """Weights and biases at random: with zero biases the ranges of the network would not matter."""
    random = np.random.default_rng(5)
    nodes = [node for node in build(**sizes).graph.nodes() if node.is_const and not node.name.endswith(".value")]
    means = ("sub_mean", "add_mean")
    return {
        node.name: node.value if node.name.startswith(means) else random.normal(0, 0.2, node.value.shape)
        for node in nodes
    }


def run(model: Model) -> np.ndarray:
    x = np.linspace(0, model.input_range, 3 * 5 * 4, dtype=np.float32).reshape(1, 3, 5, 4)
    return model.compile("reference", threads=1)({"input": x})["output"]


def same(a: Model, b: Model) -> bool:
    return a.input_range == b.input_range and np.array_equal(run(a), run(b))


def test_every_assumption_names_the_option_that_changes_it(tmp_path: Path) -> None:
    model = graphsr.load(written(tmp_path / "a.safetensors", wdsr_a(scale=2, blocks=1, features=4, expanded=8)))
    assert [text.partition("=")[0] for text in model.assumptions] == [
        "input_range", "network_range", "mean", "res_scale", "shuffle"
    ]  # fmt: skip
    for text in model.assumptions:
        option = text.partition("=")[0]
        assert f"Set {option}= to change it." in text


@pytest.mark.parametrize(
    "options",
    [
        {"res_scale": 0.5},
        {"input_range": 1},
        {"mean": (0.5, 0.4, 0.3)},
        {"network_range": 1},
        {"shuffle": "dcr"},
        {"res_scale": 0.1, "input_range": 1, "mean": (0, 0, 0), "shuffle": "dcr"},
    ],
)
@pytest.mark.parametrize("build", [edsr, wdsr_a, wdsr_b])
def test_options_override_assumptions(tmp_path: Path, build: Any, options: dict[str, Any]) -> None:
    sizes = {"scale": 2, "blocks": 1, "features": 5}
    weights = drawn(build, **sizes)
    path = tmp_path / "net.safetensors"
    write_safetensors(path, weights)
    model = graphsr.load(path, **options)
    if {"input_range", "network_range", "mean"} & options.keys():
        weights = {name: array for name, array in weights.items() if not name.startswith(("sub_mean", "add_mean"))}
    assert same(model, build(**sizes, **options, weights=weights))
    assert not same(model, graphsr.load(path))
    assert not {text.partition("=")[0] for text in model.assumptions} & options.keys()


def test_the_large_edsr_is_known_to_scale_its_residuals() -> None:
    def wide(n: int) -> int:
        return 64 * n if n in (4, 16) else n

    small = edsr(scale=2, blocks=32, features=4)
    shapes = {node.name: tuple(map(wide, node.value.shape)) for node in small.graph.nodes() if node.is_const}
    found = recognise({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()})
    assert (found.read["blocks"], found.read["features"]) == (32, 256)
    assert found.assumed["res_scale"].value == 0.1


@pytest.mark.parametrize(
    ("build", "sizes", "wrong"),
    [
        (edsr, {"blocks": 1, "features": 4}, {"scale": 2}),
        (edsr, {"blocks": 1, "features": 4}, {"sclae": 2}),
        (edsr, {"blocks": 1, "features": 4}, {"shuffle": "torch"}),
        (edsr, {"blocks": 1, "features": 4}, {"mean": 0.5}),
        (edsr, {"blocks": 1, "features": 4}, {"mean": (0.5, float("nan"), 0.5)}),
        (edsr, {"blocks": 1, "features": 4}, {"input_range": -1}),
        (edsr, {"blocks": 1, "features": 4}, {"res_scale": None}),
        (srresnet, {"blocks": 1, "features": 4}, {"mean": (0, 0, 0)}),
        (espcn, {"features": (4, 4)}, {"activation": "sine"}),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, build: Any, sizes: dict[str, Any], wrong: dict[str, Any]) -> None:
    path = written(tmp_path / "net.safetensors", build(scale=2, **sizes))
    with pytest.raises(ModelError, match=r"net\.safetensors"):
        graphsr.load(path, **wrong)


def test_mdsr_needs_a_scale_that_it_has(tmp_path: Path) -> None:
    weights: dict[str, Any] = {}
    for scale in (2, 3, 4):
        nodes = mdsr(scale=scale, blocks=1, features=4).graph.nodes()
        weights |= {node.name: node.value for node in nodes if node.is_const}
    write_safetensors(tmp_path / "mdsr.safetensors", weights)
    model = graphsr.load(tmp_path / "mdsr.safetensors")
    assert model.scale == 2
    assert any(text.startswith("scale=2: ") and "2, 3, 4" in text for text in model.assumptions)
    assert graphsr.load(tmp_path / "mdsr.safetensors", scale=4).scale == 4
    with pytest.raises(ModelError, match="has the scales 2, 3, 4"):
        graphsr.load(tmp_path / "mdsr.safetensors", scale=5)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("body.0.body.0.body.3.conv_du.0.weight", "RCAN"),
        ("RRDB_trunk.0.RDB1.conv1.weight", "ESRGAN"),
        ("layers.0.attn.relative_position_bias_table", "SwinIR"),
    ],
)
def test_known_networks_that_are_not_supported_are_refused_by_name(tmp_path: Path, key: str, name: str) -> None:
    path = written(tmp_path / "net.safetensors", edsr(scale=2, blocks=1, features=4), **{key: np.zeros(1, np.float32)})
    with pytest.raises(ModelError, match=name):
        graphsr.load(path)


def test_unknown_networks_are_refused_with_their_parameters(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "net.safetensors", {"encoder.0.weight": np.zeros((1, 1, 3, 3), np.float32)})
    with pytest.raises(ModelError, match=r"encoder\.0\.weight.*supported are EDSR"):
        graphsr.load(tmp_path / "net.safetensors")


NETWORKS: list[Model] = [
    edsr(scale=4, blocks=2, features=4),
    wdsr_a(scale=2, blocks=2, features=4, expanded=8, weight_norm=True),
    wdsr_b(scale=2, blocks=2, features=5),
    srresnet(scale=2, blocks=2, features=4),
    espcn(scale=2, features=(4, 4)),
    mdsr(scale=2, scales=(2,), blocks=1, features=4),
]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), model=st.sampled_from(NETWORKS))
def test_a_missing_or_misshapen_parameter_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, model: Model
) -> None:
    learned = {node.name: node.value for node in model.graph.nodes() if node.is_const and node.name not in model.fixed}
    name = data.draw(st.sampled_from(sorted(learned)))
    shape = learned[name].shape
    changed = data.draw(
        st.one_of(
            st.none(),
            st.just((*shape, 1)),
            st.sampled_from(range(len(shape))).map(lambda axis: tuple(n + (i == axis) for i, n in enumerate(shape))),
        )
    )
    array = None if changed is None else np.zeros(changed, np.float32)
    path = written(tmp_path_factory.mktemp("faults") / "net.safetensors", model, **{name: array})
    with pytest.raises(ModelError) as caught:
        graphsr.load(path)
    layer = name.rpartition(".")[0]
    assert layer in str(caught.value)


def test_faults_are_listed_together_in_the_names_of_the_file(tmp_path: Path) -> None:
    path = written(
        tmp_path / "net.safetensors",
        edsr(scale=2, blocks=2, features=4),
        **{"body.0.body.0.bias": None, "tail.1.bias": np.zeros(4, np.float32), "extra.weight": np.zeros(2, np.float32)},
    )
    with pytest.raises(ModelError) as caught:
        graphsr.load(path)
    text = str(caught.value)
    assert "missing: body.0.body.0.bias, expected [4]" in text
    assert "wrong shape: tail.1.bias, expected [3], got [4]" in text
    assert "unexpected: extra.weight [2]" in text


def test_no_such_file_and_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither a file nor an embedded model[\s\S]*Embedded models:"):
        graphsr.load(tmp_path / "absent.pt")
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(ModelError, match=r"not a model file that graphsr reads[\s\S]*Files:"):
        graphsr.load(tmp_path / "notes.txt")
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(ModelError):
        graphsr.load(tmp_path / "empty.pt")
    with pytest.raises(ModelError):
        graphsr.load(tmp_path)


KEYS = sorted(
    {node.name for model in NETWORKS for node in model.graph.nodes() if node.is_const and node.name not in model.fixed}
    | {"conv_first.weight", "conv_after_body.bias", "body.7.conv1.weight", "upsample.0.upsample_conv.weight"}
    | {"body.999999999999.body.0.weight", "body.99999999.body.0.weight", "conv4.weight", "first_part.0.weight"}
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(KEYS),
        st.lists(st.sampled_from([0, 1, 3, 4, 5, 12, 16, 10**8]), max_size=5),
        max_size=12,
    )
)
def test_any_set_of_parameters_loads_or_is_refused(shapes: dict[str, list[int]]) -> None:
    """Whatever names and shapes a file declares: a model or a `ModelError`, and no memory for what it lacks."""
    tensors = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in shapes.items()
        if product(filter(None, shape)) < 2**50
    }
    checkpoint = Checkpoint("net.pt", "PyTorch zip", tensors, {}, "")
    with contextlib.suppress(ModelError):
        build_checkpoint(checkpoint, {})
