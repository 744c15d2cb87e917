"""Networks written as ONNX files: onnxruntime, and our own importer, give the same answers from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphsr
from graphsr.errors import ModelError

onnx = pytest.importorskip("onnx", reason="writes ONNX files")
EMBEDDED = ["wdsr-x2"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_one_file_serves_every_size(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the oracle")
    model, file = graphsr.load(name), tmp_path / "model.onnx"
    graphsr.save(model, file)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (result,) = model.graph.inputs, model.graph.outputs
    run, again = model.compile(backend="reference"), graphsr.load(file).compile(backend="reference")
    for height, width in [(7, 9), (12, 5)]:
        ramp = np.linspace(0, model.input_range, 3 * height * width, dtype=np.float32)
        x = {given.name: ramp.reshape(1, 3, height, width)}
        expected = run(x)[result]
        bound = 1e-4 * np.abs(expected).max()  # float32 sums of some hundred terms, a few dozen layers deep
        np.testing.assert_allclose(session.run([result], x)[0], expected, rtol=0, atol=bound)
        np.testing.assert_allclose(again(x)[result], expected, rtol=0, atol=bound)


def test_the_same_model_gives_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    model = graphsr.load("wdsr-x2")
    for name in ("a.onnx", "b.onnx"):
        graphsr.save(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_another_dtype_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="float32"):
        graphsr.save(graphsr.load("wdsr-x2"), tmp_path / "model.onnx", dtype="float16")
    assert not list(tmp_path.iterdir())
