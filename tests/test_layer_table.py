"""docs/layers.md is what the tables of the program give."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")
pytest.importorskip("layer_table", reason="the bench is not beside the tests")

import layer_table


def test_the_page_is_current() -> None:
    if not layer_table.PAGE.is_file():
        pytest.skip("outside a checkout")
    page = layer_table.PAGE.read_text(encoding="utf-8")
    assert page == layer_table.page(), "python bench/layer_table.py --write"


def test_no_cell_of_graphsr_is_empty() -> None:
    rows = [line.split(" | ") for line in layer_table.page().split("\n## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert all(len(row) == 6 and row[-1].strip("| ") for row in rows)
