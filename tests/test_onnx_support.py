"""docs/onnx.md lists exactly the operators that the importer reads."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnx_support", reason="the bench is not beside the tests")

import onnx_support

from graphsr.importers.onnx_call import OPERATORS
from graphsr.importers.onnx_graph import CONTROL


def test_the_page_lists_the_operators_of_the_table() -> None:
    if not onnx_support.PAGE.is_file():
        pytest.skip("outside a checkout")
    table = onnx_support.PAGE.read_text(encoding="utf-8").split(onnx_support.MISSED)[0]
    listed = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    assert listed[1:] == sorted({*OPERATORS, *CONTROL}), "python bench/onnx_support.py --write"


def test_errors_are_counted_in_last_places() -> None:
    expected = np.array([1.0, np.inf, 1e-9, 2.0], np.float32)
    got = np.array([1 + 4 * 2.0**-23, np.inf, 2e-9, 2.0], np.float32)
    assert onnx_support.last_places(got, expected, 1e-7) == 4
    assert onnx_support.last_places(got, got, 0.0) == 0
