"""The model builders: parameter counts of the published networks, determinism, gradients of use, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.errors import ModelError
from graphsr.model import Model
from graphsr.models import edsr, espcn, mdsr, srresnet, wdsr_a, wdsr_b
from graphsr.models.edsr import upsampling_factors
from graphsr.verify import verify

BASELINE: dict[str, Any] = {"blocks": 16, "features": 64}
FULL: dict[str, Any] = {"blocks": 32, "features": 256, "res_scale": 0.1}


@pytest.mark.parametrize(
    ("scale", "sizes", "parameters"),
    [
        (2, BASELINE, 1_369_883),
        (3, BASELINE, 1_554_523),
        (4, BASELINE, 1_517_595),
        (2, FULL, 40_729_627),
        (3, FULL, 43_680_027),
        (4, FULL, 43_089_947),
    ],
)
def test_edsr_has_the_published_number_of_parameters(scale: int, sizes: dict[str, Any], parameters: int) -> None:
    assert edsr(scale=scale, **sizes).parameters == parameters


@pytest.mark.parametrize(("blocks", "parameters"), [(16, 3_227_227), (80, 7_954_011)])
def test_mdsr_has_the_published_number_of_parameters_over_its_scales(blocks: int, parameters: int) -> None:
    models = [mdsr(scale=scale, blocks=blocks) for scale in (2, 3, 4)]
    sizes = {node.name: node.value.size for model in models for node in model.graph.nodes() if node.is_const}
    assert sum(sizes.values()) == parameters


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (wdsr_a(scale=2, blocks=16, features=32, expanded=128, weight_norm=True), 1_190_100),
        (wdsr_a(scale=3, blocks=16, features=32, expanded=128, weight_norm=True), 1_195_605),
        (wdsr_a(scale=4, blocks=16, features=32, expanded=128, weight_norm=True), 1_203_312),
        (wdsr_a(scale=4, blocks=32, features=32, expanded=192, weight_norm=True), 3_571_824),
        (wdsr_a(scale=4, blocks=32, features=32, expanded=192), 3_564_528),
        (wdsr_a(scale=4, blocks=32, features=128, expanded=256, weight_norm=True), 18_961_744),
        (wdsr_b(scale=2, blocks=16, weight_norm=True), 303_604),
        (wdsr_b(scale=4, blocks=32, weight_norm=True), 615_088),
        (espcn(scale=3), 22_729),
    ],
)
def test_wdsr_and_espcn_have_the_published_number_of_parameters(model: Model, parameters: int) -> None:
    assert model.parameters == parameters


SMALL: list[Any] = [
    (edsr, {"blocks": 1, "features": 4}),
    (wdsr_a, {"blocks": 1, "features": 4, "expanded": 8, "weight_norm": True}),
    (wdsr_b, {"blocks": 1, "features": 5}),
    (srresnet, {"blocks": 1, "features": 4}),
    (srresnet, {"blocks": 1, "features": 4, "body_end": "batch_norm"}),
    (espcn, {"channels": 3, "features": (4, 4)}),
    (mdsr, {"blocks": 1, "features": 4}),
]


@pytest.mark.parametrize(("build", "sizes"), SMALL)
@settings(max_examples=5, deadline=None)
@given(
    n=st.integers(1, 2),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    scale=st.sampled_from([2, 4]),
    shuffle=st.sampled_from(["crd", "dcr"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_network_enlarges_any_image_by_its_scale(
    build: Any, sizes: dict[str, Any], n: int, h: int, w: int, scale: int, shuffle: str, seed: int
) -> None:
    model = build(scale=scale, shuffle=shuffle, seed=seed, **sizes)
    verify(model.graph)
    x = np.linspace(0, model.input_range, n * 3 * h * w, dtype=np.float32).reshape(n, 3, h, w)
    y = model.compile("reference", threads=1)({"input": x})["output"]
    assert (y.shape, y.dtype, model.scale) == ((n, 3, h * scale, w * scale), x.dtype, scale)
    assert np.isfinite(y).all()


@pytest.mark.parametrize(("build", "sizes"), SMALL)
def test_a_seed_gives_the_same_weights_and_taking_them_back_gives_the_same_model(
    build: Any, sizes: dict[str, Any]
) -> None:
    weights = constants(build(scale=2, seed=7, **sizes))
    again, other = (constants(build(scale=2, seed=seed, **sizes)) for seed in (7, 8))
    learned = constants(build(scale=2, seed=7, **sizes), learned=True)
    taken = constants(build(scale=2, weights=learned, seed=9, **sizes))
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value)
        np.testing.assert_array_equal(taken[name], value)
    assert any((other[name] != value).any() for name, value in weights.items())


def constants(model: Model, *, learned: bool = False) -> dict[str, np.ndarray]:
    nodes = [node for node in model.graph.nodes() if node.is_const]
    return {node.name: node.value for node in nodes if not (learned and node.name in model.fixed)}


def test_he_initialisation_has_the_variance_of_its_fan_in() -> None:
    weight = constants(edsr(scale=2, blocks=1, features=64))["body.0.body.0.weight"]
    # the mean of n squares of N(0, v) has the standard deviation v·√(2/n): six of them
    variance = 2 / (64 * 9)
    assert abs(float(np.square(weight).mean()) - variance) < 6 * variance * np.sqrt(2 / weight.size)


def test_faults_of_weights_are_reported_all_at_once() -> None:
    weights = constants(edsr(scale=2, blocks=2, features=4))
    del weights["body.1.body.2.bias"]
    weights["tail.1.weight"] = np.zeros((3, 5, 3, 3), np.float32)
    weights["head.0.bias"] = np.zeros(4, np.int64)
    weights["extra"] = np.zeros(2, np.float32)
    with pytest.raises(ModelError) as caught:
        edsr(scale=2, blocks=2, features=4, weights=weights)
    text = str(caught.value)
    for fault in (
        "missing: body.1.body.2.bias, expected [4]",
        "wrong shape: tail.1.weight, expected [3, 4, 3, 3], got [3, 5, 3, 3]",
        "wrong dtype: head.0.bias, expected floating point, got int64",
        "unexpected: extra [2]",
    ):
        assert fault in text


def test_missing_weights_of_a_huge_network_cost_no_memory() -> None:
    with pytest.raises(ModelError, match=r"missing: head\.0\.weight"):
        edsr(scale=2, blocks=1, features=10**6, weights={})


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        (edsr, {"scale": 6}),
        (edsr, {"scale": 0}),
        (edsr, {"scale": 2, "features": 0}),
        (edsr, {"scale": 2, "blocks": -1}),
        (edsr, {"scale": 2, "shuffle": "rdc"}),
        (edsr, {"scale": 2, "mean": (0.5, 0.5)}),
        (edsr, {"scale": 2, "input_range": 0}),
        (edsr, {"scale": 2, "res_scale": "much"}),
        (mdsr, {"scale": 8}),
        (wdsr_a, {"scale": 0}),
        (wdsr_a, {"scale": 2, "expanded": 0}),
        (wdsr_b, {"scale": 2, "linear": 0}),
        (srresnet, {"scale": 3}),
        (srresnet, {"scale": 2, "body_end": "relu"}),
        (espcn, {"scale": 2, "activation": "sine"}),
        (espcn, {"scale": 2, "features": ()}),
    ],
)
def test_impossible_hyper_parameters_are_refused(build: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        build(**wrong)


def test_upsampling_factors() -> None:
    assert [upsampling_factors(scale) for scale in (1, 2, 3, 4, 8)] == [(), (2,), (3,), (2, 2), (2, 2, 2)]
