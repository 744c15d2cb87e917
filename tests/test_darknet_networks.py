"""Whole darknet networks drawn at random give what a reconstruction in PyTorch gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr

pytest.importorskip("torch")

from darknet_strategies import LAYERS, DarknetCase, Draft, darknet_networks
from darknet_torch import Darknet


def loaded(case: DarknetCase, folder: str | Path, **options: str) -> graphsr.Model:
    return graphsr.load(case.write(folder), fork=case.fork, **options)


def expected(case: DarknetCase, model: graphsr.Model, eps_outside: bool = False) -> dict[str, np.ndarray]:
    """What the reconstruction gives for each output of the model."""
    layers = Darknet(case.cfg, case.numbers, case.fork, eps_outside, case.trees).run(case.x)
    return {name: layers[int(name.rpartition("_")[2])] if "_" in name else layers[-1] for name in model.outputs}


def agree(case: DarknetCase, **options: str) -> None:
    """In double precision, so that a difference is one of meaning; constants of layers are rounded to float32."""
    with tempfile.TemporaryDirectory() as folder:
        model = loaded(case, folder, **options)
    got = graphsr.Model(model.graph.astype("float64"), "").compile("reference", 1)({"input": case.x.astype("f8")})
    want = expected(case, model, options.get("batchnorm") == "outside")
    for name, y in want.items():
        shape = np.broadcast_shapes(got[name].shape, y.shape)
        assert got[name].shape[1:] == y.shape[1:]
        bound = 1e3 * float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(np.broadcast_to(got[name], shape), np.broadcast_to(y, shape), rtol=0, atol=bound)


@pytest.mark.parametrize("layer", dict.fromkeys(LAYERS), ids=lambda layer: layer.__name__)
@settings(max_examples=15)
@given(data=st.data())
def test_each_layer_agrees_with_the_reconstruction(layer: Callable[[Draft], None], data: st.DataObject) -> None:
    """Two or three of the same kind, after one that gives them something to refer to."""
    agree(data.draw(darknet_networks((LAYERS[0], layer, layer, layer))))


@settings(max_examples=80)
@given(case=darknet_networks(), form=st.sampled_from(["inside", "outside"]))
def test_networks_agree_with_the_reconstruction(case: DarknetCase, form: str) -> None:
    agree(case, batchnorm=form)
