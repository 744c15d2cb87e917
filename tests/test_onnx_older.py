"""onnx's node tests, converted to older operator sets, where users' files are: the suite has the newest forms alone.

`onnx.version_converter` writes the older forms, or refuses. Left out by rule is what it converts wrongly:

- what onnx's checker refuses afterwards: an attribute that the older form does not have (dilations of AveragePool);
- Softmax, LogSoftmax and Hardmax before version 13 along another axis than the last: over all axes behind it as well
  they would be something else, which the converter does not heed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import version_converter
from onnx.backend.test.case.node import collect_testcases
from onnx_rule import in_rule

from graphsr.backend import backends
from graphsr.importers.onnx_backend import backend_class

OPSETS = (13, 11, 9)
EXPECTED = {13: 373, 11: 136, 9: 85}
"""How many tests onnx 1.23 converts."""


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The model in an older operator set; None where the converter refuses, or is wrong."""
    (node,) = model.graph.node
    if opset < 13 and node.op_type in ("Softmax", "LogSoftmax", "Hardmax"):
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        rank = len(model.graph.input[0].type.tensor_type.shape.dim)
        if axis % rank != rank - 1:
            return None
    try:
        older = version_converter.convert_version(model, opset)
        onnx.checker.check_model(older)
    except (RuntimeError, onnx.checker.ValidationError):
        return None
    return older


def cases() -> Iterator[tuple[int, str, onnx.ModelProto, Any]]:
    """(operator set, name, model, test)"""
    for case in collect_testcases(None):
        if case.model is None or len(case.model.graph.node) != 1 or not in_rule(case.name, case.model):
            continue
        for opset in OPSETS:
            if (model := converted(case.model, opset)) is not None:
                yield opset, case.name, model, case


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # onnx computes what it expects when it is asked, and overflows on purpose
    CASES = {(opset, name): (model, case) for opset, name, model, case in cases()}


@pytest.mark.parametrize(("opset", "name"), CASES)
def test_older_forms(opset: int, name: str) -> None:
    model, case = CASES[opset, name]
    assert {i.version for i in model.opset_import if not i.domain} == {opset}
    for backend in sorted(backends()):
        prepared = backend_class(backend).prepare(model)
        for inputs, outputs in case.data_sets:
            results = prepared.run([np.asarray(x) for x in inputs])
            for got, expected in zip(results, outputs, strict=True):
                assert got.dtype == expected.dtype
                np.testing.assert_allclose(got, expected, case.rtol, case.atol, err_msg=backend)


def test_the_converter_gives_the_tests() -> None:
    if not onnx.__version__.startswith("1.23."):
        pytest.skip(f"counted for onnx 1.23, this is {onnx.__version__}")
    found = [opset for opset, _ in CASES]
    assert {opset: found.count(opset) for opset in OPSETS} == EXPECTED
