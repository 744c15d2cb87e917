"""Networks of others: imported, written again, and computed by onnxruntime as our reference computes the import."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphsr
from graphsr.errors import GraphsrError, ModelError
from graphsr.op import Array
from graphsr.passes import DEFAULT, Pass, run_passes
from graphsr.testing import tolerance

onnx = pytest.importorskip("onnx", reason="writes ONNX files")
runtime = pytest.importorskip("onnxruntime", reason="the oracle")

from onnx.backend.test.case.node import collect_testcases  # noqa: E402
from onnx.backend.test.case.test_case import TestCase  # noqa: E402
from onnx_oracle import OnnxRuntime  # noqa: E402

from graphsr.importers.onnx_backend import GraphsrBackend, Specialised  # noqa: E402
from graphsr.importers.onnx_reader import Source  # noqa: E402

from support import data_path  # noqa: E402

PASSES = pytest.mark.parametrize("passes", [(), DEFAULT], ids=["before the passes", "after the passes"])
EVERY = 1 if os.environ.get("GRAPHSR_EXHAUSTIVE") else 5
"""Of so many tests of onnx one is run."""
LEAST = 100
"""At least so many of them are tests of operators that we import and onnxruntime has."""


def node_tests() -> Iterator[tuple[TestCase, Any, list[Array]]]:
    """(test, its model, inputs), of operators that are no functions and take arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes what it expects when it is asked, and overflows on purpose
        cases = collect_testcases(None)
    for case in [case for case in cases if case.model is not None and "_expanded" not in case.name][::EVERY]:
        for inputs, _ in case.data_sets or ():
            if all(isinstance(x, np.ndarray | np.generic) for x in inputs):
                yield case, case.model, list(inputs)


@PASSES
def test_onnx_node_tests(passes: tuple[Pass, ...]) -> None:
    compared = 0
    for case, model, inputs in node_tests():
        try:
            want = GraphsrBackend.prepare(model, backend="reference").run(inputs)
        except GraphsrError:
            continue  # an operator that we do not import
        try:
            got = GraphsrBackend.prepare(model, backend=OnnxRuntime(passes)).run(inputs)
        except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
            continue  # no kernel for these dtypes
        except ModelError as error:
            if "GridSample of operator set 17 samples images alone" not in str(error):
                raise
            continue
        compared += 1
        for y, expected in zip(got, want, strict=True):
            assert (y.dtype, y.shape) == (expected.dtype, expected.shape), case.name
            np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol, err_msg=case.name)
    assert compared >= LEAST


@PASSES
@pytest.mark.parametrize("name", ["EDSR", "SRResNet", "U-Net", "classifier", "attention"])
def test_what_pytorch_exports(name: str, passes: tuple[Pass, ...]) -> None:
    torch = pytest.importorskip("torch", reason="exports networks")
    from test_onnx_torch import NETS, exported

    make, channels, multiple = NETS[name]
    torch.manual_seed(0)
    source = Source(exported(make().eval(), channels, 17))
    reference, oracle = Specialised(source, "reference"), Specialised(source, OnnxRuntime(passes))  # type: ignore[arg-type]  # a backend instead of its name
    for n, h, w in [(1, 2, 3), (2, 4, 2)]:
        shape = (n, channels, multiple * h, multiple * w)
        x = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        (want,), (got,) = reference({"x": x}).values(), oracle({"x": x}).values()
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float32", 72, scale))


@PASSES
def test_yolo_fastest(passes: tuple[Pass, ...]) -> None:
    """A detector of darknet's, its heads included."""
    weights = data_path("darknet/yolo-fastest-1.1.weights")
    graph = graphsr.load(data_path("darknet/yolo-fastest-1.1.cfg"), weights=weights).graph
    (given,) = graph.inputs
    shape = given.type.substitute({"N": 1, "H": 96, "W": 64}).dims
    x = {given.name: np.random.default_rng(0).random(shape, np.float32)}
    want = graphsr.backend.get_backend("reference").compile(graph)(x)
    got = OnnxRuntime().compile(run_passes(graph, passes))(x)
    for name, y in want.items():
        scale = max(1.0, float(np.abs(y).max()))
        np.testing.assert_allclose(got[name], y, rtol=0, atol=tolerance("float32", 72, scale))
