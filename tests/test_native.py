"""Our own model files: what is saved comes back bit for bit, and damaged or hostile files are refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.importers import native
from graphsr.importers.byte_source import open_source
from graphsr.importers.safetensors_file import read_safetensors, write_safetensors
from graphsr.ir import Graph, Node
from graphsr.model import Model
from graphsr.models import edsr, espcn, srresnet, wdsr_a, wdsr_b
from graphsr.ops import Resize
from graphsr.textform import print_graph


def described(model: Model) -> Model:
    return replace(
        model, inferred={"blocks": "2"}, assumptions=("res_scale=1: because.",), provenance={"credits": "Ærøskøbing"}
    )


MODELS = [
    edsr(scale=4, blocks=2, features=5, res_scale=0.1),
    wdsr_a(scale=2, blocks=2, features=4, expanded=9, weight_norm=True),
    wdsr_b(scale=3, blocks=1, features=5),
    srresnet(scale=2, blocks=1, features=3),
    espcn(scale=2, channels=1),
]


def known(model: Model) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if name != "graph"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.architecture)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, model: Model) -> None:
    model = described(model)
    graphsr.save(model, tmp_path / "net.safetensors")
    loaded = graphsr.load(tmp_path / "net.safetensors")
    assert print_graph(loaded.graph) == print_graph(model.graph)
    for a, b in zip(constants(loaded), constants(model), strict=True):
        assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    assert known(loaded) == known(model)
    assert loaded.parameters == model.parameters


def constants(model: Model) -> list[np.ndarray]:
    return [node.value for node in model.graph.nodes() if node.is_const]


def test_two_saves_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        graphsr.save(MODELS[0], tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_half_precision_halves_the_file_and_is_widened(tmp_path: Path) -> None:
    model = wdsr_a(scale=2, blocks=2, features=32, expanded=96)
    graphsr.save(model, tmp_path / "full.safetensors")
    graphsr.save(model, tmp_path / "half.safetensors", dtype="float16")
    sizes = [(tmp_path / name).stat().st_size for name in ("half.safetensors", "full.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = graphsr.load(tmp_path / "half.safetensors")
    assert print_graph(loaded.graph) == print_graph(model.graph)
    for got, want in zip(constants(loaded), constants(model), strict=True):
        rounded = want.astype(np.float16).astype(np.float32) if want.size > 3 and want.ndim >= 2 else want
        np.testing.assert_array_equal(got, rounded)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    weights = {node.name: node.value for node in MODELS[0].graph.nodes() if node.is_const}
    weights["head.0.weight"] = np.full((5, 3, 3, 3), 1e5, np.float32)
    model = edsr(scale=4, blocks=2, features=5, weights=weights)
    with pytest.raises(ModelError, match=r"head\.0\.weight holds 100000"):
        graphsr.save(model, tmp_path / "net.safetensors", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_only_its_own_suffix_and_dtypes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\.safetensors"):
        graphsr.save(MODELS[0], tmp_path / "net.pt")
    with pytest.raises(ModelError, match="float32 or float16"):
        graphsr.save(MODELS[0], tmp_path / "net.safetensors", dtype="int8")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_graph_without_constants_is_a_model_too(tmp_path: Path, dtype: str) -> None:
    (x,) = MODELS[0].graph.inputs
    model = Model(Graph((x,), {"y": Node(Resize(scale=(2.0, 2.0), mode="cubic"), (x,))}), "bicubic", 2)
    graphsr.save(model, tmp_path / "net.safetensors", dtype=dtype)
    loaded = graphsr.load(tmp_path / "net.safetensors")
    assert print_graph(loaded.graph) == print_graph(model.graph)
    assert known(loaded) == known(model)
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(tmp_path / "net.safetensors", "np") as file:
        assert list(file.keys()) == []
        assert file.metadata()["format"] == native.FORMAT


def test_a_foreign_file_of_metadata_alone_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "net.safetensors", {}, {"format": "pt"})
    with pytest.raises(ModelError, match=r"net\.safetensors.*no tensors"):
        graphsr.load(tmp_path / "net.safetensors")


def test_options_are_refused(tmp_path: Path) -> None:
    graphsr.save(MODELS[0], tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match="takes no options, got res_scale"):
        graphsr.load(tmp_path / "net.safetensors", res_scale=1)


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with open_source(path, 1 << 30) as source:
        return read_safetensors(source)


def text(value: Any) -> str:
    return json.dumps(value)


DAMAGE: list[tuple[str, Any]] = [
    ("graph", lambda graph: ""),
    ("graph", lambda graph: graph.replace("conv2d", "exec")),
    ("graph", lambda graph: graph.replace("padding=(1, 1, 1, 1)", "padding=1", 1)),
    ("graph", lambda graph: graph.replace("%head.0.bias = const", "%other = const")),
    ("graph", lambda graph: graph.rpartition("\n")[0]),
    ("graph", lambda graph: graph.replace("float32[N, 3, H, W]", "float32[N, 4, H, W]", 1)),
    ("graph", lambda graph: "(" * 10_000 + graph),
    ("model", lambda model: ""),
    ("model", lambda model: "[" * 100_000),
    ("model", lambda model: "{}"),
    ("model", lambda model: text({**json.loads(model), "scale": "2"})),
    ("model", lambda model: text({**json.loads(model), "scale": -2})),
    ("model", lambda model: text({**json.loads(model), "scale": True})),
    ("model", lambda model: text({**json.loads(model), "input_range": 0})),
    ("model", lambda model: text({**json.loads(model), "input_range": None})),
    ("model", lambda model: text({**json.loads(model), "assumptions": "none"})),
    ("model", lambda model: text({**json.loads(model), "inferred": {"blocks": 3}})),
    ("model", lambda model: text({**json.loads(model), "more": 3})),
    ("format", lambda format_: "graphsr-model-99"),
]


@pytest.mark.parametrize(("entry", "damage"), DAMAGE)
def test_damaged_metadata_is_refused(tmp_path: Path, entry: str, damage: Any) -> None:
    path = tmp_path / "net.safetensors"
    graphsr.save(MODELS[1], path)
    tensors, metadata = contents(path)
    write_safetensors(path, tensors, {**metadata, entry: damage(metadata[entry])})
    with pytest.raises(ModelError, match=r"net\.safetensors"):
        native.load(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_of_the_graph_text_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever a file says: a model or a `ModelError`, nothing else."""
    path = tmp_path_factory.mktemp("fuzz") / "net.safetensors"
    graphsr.save(MODELS[4], path)
    tensors, metadata = contents(path)
    graph = metadata["graph"]
    at = data.draw(st.integers(0, len(graph)))
    length = data.draw(st.integers(0, 20))
    new = data.draw(st.text('%()[]{}=,:#"\\\n 0123456789.-+*/NHWconvdtushapef', max_size=6))
    write_safetensors(path, tensors, {**metadata, "graph": graph[:at] + new + graph[at + length :]})
    with contextlib.suppress(ModelError):
        native.load(path)


def test_missing_extra_and_misshapen_tensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    graphsr.save(MODELS[1], path)
    tensors, metadata = contents(path)
    name = "head.0.weight_v"
    for changed in (
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "surplus": np.zeros(3, np.float32)},
        {**tensors, name: tensors[name][:-1]},
        {**tensors, name: tensors[name].astype(np.float64)},
    ):
        write_safetensors(path, changed, metadata)
        with pytest.raises(ModelError, match=r"surplus|weight_v"):
            graphsr.load(path)
