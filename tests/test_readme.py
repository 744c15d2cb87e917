"""Every code block of the README and of the pages in docs/ runs as printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support import ROOT

README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README.read_text(encoding="utf-8"))
SHELL = [text for kind, text in BLOCKS if kind == "sh"]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


def run(command: list[str], folder: Path, **more: str) -> str:
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", **more}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def test_blocks_are_of_known_kinds() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.parametrize("text", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks(text: str, folder: Path) -> None:
    run([sys.executable, "-W", "error", "-c", text], folder)


def test_first_command(folder: Path) -> None:
    """The installation is the one that runs this test (`.ci/run` runs the block as printed); then the main job."""
    install, _, job = SHELL[0].partition(" && ")
    assert install == "python -m pip install -e '.[image]'"
    run(["bash", "-euc", job], folder)
    from graphsr.imagefile import read_image

    small, large = (read_image(folder / name).pixels for name in ("docs/example.png", "example_x2.png"))
    assert large.shape[:2] == tuple(2 * n for n in small.shape[:2])


def test_second_command() -> None:
    """The block that runs these tests cannot run inside them: it collects them."""
    install, _, job = SHELL[1].partition(" && ")
    assert install == "python -m pip install -e '.[test]'"
    out = run(["bash", "-euc", job], ROOT, PYTEST_ADDOPTS="--collect-only")
    assert "test_readme.py" in out


def test_other_commands_in_order(folder: Path) -> None:
    run(["bash", "-euc", SHELL[0].partition(" && ")[2]], folder)
    for text in SHELL[2:]:
        run(["bash", "-euc", text], folder)


def test_links_point_somewhere() -> None:
    if not (ROOT / "graphsr").is_dir():
        pytest.skip("outside a checkout")
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
