"""docs/layers.md is what the tables of the program give."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("onnx")
pytest.importorskip("layer_table", reason="the bench is not beside the tests")

import layer_table
from darknet_mutants import ZOO
from layer_table import LAYERS, Layer


def test_the_page_is_current() -> None:
    if not layer_table.PAGE.is_file():
        pytest.skip("outside a checkout")
    page = layer_table.PAGE.read_text(encoding="utf-8")
    assert page == layer_table.page(), "python bench/layer_table.py --write"


def test_no_cell_of_graphsr_is_empty() -> None:
    rows = [line.split(" | ") for line in layer_table.page().split("\n## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert all(len(row) == 6 and row[-1].strip("| ") for row in rows)


def crop_renamed(**changes: str) -> tuple[Layer, ...]:
    return tuple(replace(layer, **changes) if layer.name == "crop" else layer for layer in LAYERS)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            tuple(layer for layer in LAYERS if layer.name != "crop"),
            r"no row has darknet's \[crop\]: add Layer\(.*'crop'",
        ),
        (
            crop_renamed(section="cropp"),
            r"no row has darknet's \[crop\]: .*; darknet has no section \[cropp\]: remove it",
        ),
        (crop_renamed(ops="turn"), "graphsr has no op 'turn': remove it from the row 'crop'"),
        ((*LAYERS, Layer("turn")), "the row 'turn' of LAYERS has neither section nor ops"),
    ],
    ids=["section without a row", "unknown section", "unknown op", "empty row"],
)
def test_what_does_not_fit_is_told(
    layers: tuple[Layer, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layer_table, "LAYERS", layers)
    assert layer_table.main(["--check"]) == 1
    assert re.fullmatch(f"layer_table: {said}.*\n", capsys.readouterr().err)


def test_a_section_that_no_cfg_shows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be said to be nothing at inference."""
    monkeypatch.setattr(layer_table, "ZOO", ZOO.replace("[crop]", "[l2norm]"))
    with pytest.raises(layer_table.TableError, match=r"ZOO has no \[crop\]"):
        layer_table.page()
