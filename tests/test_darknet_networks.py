"""Whole darknet networks drawn at random give what a reconstruction in PyTorch gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.importers.darknet_weights import write_weights
from graphsr.testing import tolerance

pytest.importorskip("torch")

import torch
from darknet_strategies import LAYERS, DarknetCase, Draft, darknet_networks
from darknet_torch import Darknet


def loaded(case: DarknetCase, folder: str | Path, **options: str) -> graphsr.Model:
    cfg, weights = Path(folder, "net.cfg"), Path(folder, "net.weights")
    cfg.write_text(case.cfg)
    weights.write_bytes(write_weights([case.numbers]))
    return graphsr.load(cfg, fork=case.fork, **options)


def expected(case: DarknetCase, model: graphsr.Model, eps_outside: bool = False) -> dict[str, np.ndarray]:
    """What the reconstruction gives for each output of the model."""
    layers = Darknet(case.cfg, case.numbers, case.fork, eps_outside).run(case.x)
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


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """The parents of classes, in runs of equal ones, each of an earlier class or of none."""
    parents = [-1] * draw(st.integers(1, 3))
    for _ in range(draw(st.integers(0, 3))):
        others = [p for p in range(-1, len(parents)) if p != parents[-1]]
        parents += [draw(st.sampled_from(others))] * draw(st.integers(1, 3))
    return parents


@settings(max_examples=30)
@given(parents=trees(), section=st.sampled_from(["softmax", "region"]), data=st.data())
def test_a_tree_of_classes_agrees_with_softmaxes_by_group(
    parents: list[int], section: str, data: st.DataObject
) -> None:
    """The probabilities of the classes of one parent sum to 1 (YOLO9000); a 1x1 convolution gives the logits."""
    classes, steps = len(parents), data.draw(st.lists(st.integers(-80, 80), min_size=64, max_size=64))
    each = classes + (5 if section == "region" else 0)
    numbers = np.resize(np.array(steps), each * 3).astype(np.float32) / 32
    size = 1 if section == "softmax" else 2
    cfg = f"[net]\nheight={size}\nwidth={size}\nchannels=2\n[conv]\nfilters={each}\nactivation=linear\n[{section}]\n"
    cfg += "tree=names.tree\n" + (
        f"classes={classes}\nsoftmax=1\nnum=1\n" if section == "region" else "temperature=2\n"
    )
    x = np.resize(np.array(steps[::-1]), (1, 2, size, size)) / 64
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "names.tree").write_text("".join(f"class{i} {p}\n" for i, p in enumerate(parents)))
        model = loaded(DarknetCase(cfg, numbers, x, "pjreddie"), folder)
    got = graphsr.Model(model.graph.astype("float64"), "").compile("reference", 1)({"input": x})["output"]
    bias, weight = (torch.from_numpy(part) for part in np.split(numbers.astype("f8"), [each]))
    y = torch.einsum("oc,nchw->nohw", weight.reshape(each, 2), torch.from_numpy(x)) + bias[:, None, None]
    if section == "region":
        y[:, [0, 1, 4]] = y[:, [0, 1, 4]].sigmoid()
    start, temperature = each - classes, 2 if section == "softmax" else 1
    for _, run in groupby(range(classes), key=parents.__getitem__):
        group = [start + i for i in run]
        y[:, group] = (y[:, group] / temperature).softmax(1)
    np.testing.assert_allclose(got, y.numpy(), rtol=0, atol=tolerance("float32", 2 * classes, 10.0))
