"""`bench/imported.py`: every engine that is installed computes each network from the file the bench makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphsr.backends.reference import ReferenceBackend

from support import data_path

pytest.importorskip("torch", reason="the networks are written in PyTorch")
pytest.importorskip("onnx", reason="and exported to ONNX")
pytest.importorskip("compare", reason="the bench is not beside the tests")

import imported

import compare
from peers.engines import ENGINES
from peers.imported_networks import IMPORTED

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, for its own exporter
SIZE = 32


@pytest.mark.parametrize("name", [network.name for network in IMPORTED])
def test_onnxruntime_agrees(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    (network,) = (replace(n, shape=(1, 3, SIZE, SIZE)) for n in IMPORTED if n.name == name)
    darknet = None if network.build else data_path("darknet")
    model = imported.prepare(network, tmp_path, darknet)
    x = np.load(tmp_path / "input.npy")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"input": x})
    reference = ReferenceBackend("float64").compile(model.graph)({"input": x})["output"]
    for output in (theirs, model.compile("llvm", threads=1)({"input": x})["output"]):
        assert compare.relative_error(output, reference) < compare.WRONG


def test_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A network of the bench, small, on every engine that is here; graphsr is, so there is a line at least."""
    monkeypatch.setattr(imported, "IMPORTED", [replace(n, shape=(1, 3, SIZE, SIZE)) for n in IMPORTED])
    out = tmp_path / "out.json"
    what = ["--networks", "mobilenet-v2", "--threads", "1", "--rounds", "1", "--json", str(out)]
    assert imported.main(what) == 0
    results = json.loads(out.read_text())["results"]
    assert [r["engine"] for r in results] == [e for e in imported.COMPARED if ENGINES[e].version() is not None]
    assert all(len(r["seconds"]) == 1 and r["error"] < compare.WRONG for r in results)
    assert "mobilenet-v2 (1x3x32x32" in capsys.readouterr().out
