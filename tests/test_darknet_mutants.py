"""Damaged cfg and weights files are loaded or refused, in a moment and in little memory.

`GRAPHSR_MUTANTS=5000 pytest tests/test_darknet_mutants.py` runs the full number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from darknet_mutants import ZOO, weights_for

from graphsr.importers.darknet_file import load
from graphsr.importers.darknet_network import SECTIONS

COUNT = int(os.environ.get("GRAPHSR_MUTANTS", "300"))
MEGABYTES = 512.0


@pytest.mark.timeout(max(300, COUNT))
def test_damaged_files_are_loaded_or_refused() -> None:
    """Any other exception ends the program; its limits are per file."""
    program = [sys.executable, str(Path(__file__).with_name("darknet_mutants.py")), str(COUNT)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=None)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["megabytes"] < MEGABYTES
    assert 0 < result["loads"] < COUNT  # the damage is real, and not all of it fatal


def test_the_network_that_is_damaged_has_every_section(tmp_path: Path) -> None:
    cfg = tmp_path / "zoo.cfg"
    cfg.write_text(ZOO)
    cfg.with_suffix(".weights").write_bytes(weights_for(ZOO.encode()))
    load(cfg, fork="alexeyab")
    held = {kind.build for name, kind in SECTIONS.items() if f"[{name}]" in ZOO}
    assert held == {kind.build for kind in SECTIONS.values()}
