"""docs/add-a-kernel.md does what it says: it is followed in a copy of the tree, and what it leads to is run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import graphsr.backends
import graphsr.importers
import graphsr.ops
from graphsr.op import OPS

from support import ROOT

PAGE = (ROOT / "docs" / "add-a-kernel.md").read_text(encoding="utf-8")
NEW_FILES: list[tuple[str, str]] = re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
(USE,) = re.findall(r"^## See what runs\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
(TABLES,) = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)
COMMANDS: list[str] = re.findall(r"^python (-m .*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed, with the tests of ops, as one who has followed the page has it."""
    if "mirror" in OPS:
        pytest.skip("the page has been followed here")
    tree = tmp_path_factory.mktemp("tree")
    leave = shutil.ignore_patterns("__pycache__")
    for package in (graphsr, graphsr.backends, graphsr.importers):
        shutil.copytree(
            package.__path__[0], tree.joinpath(*package.__name__.split(".")), ignore=leave, dirs_exist_ok=True
        )
    shutil.copytree(ROOT / "tests" / "oracles", tree / "tests" / "oracles", ignore=leave)
    for name in ("conftest.py", "support.py", "onnx_oracle.py", *re.findall(r"tests/(test_\w+\.py)", COMMANDS[1])):
        shutil.copy(ROOT / "tests" / name, tree / "tests")
    (tree / "pytest.ini").write_text("[pytest]\npythonpath = tests\naddopts = --import-mode=importlib\n")
    for path, text in NEW_FILES:
        assert not place(tree, path).exists(), path
        place(tree, path).write_text(text, encoding="utf-8")
    for part in TABLES.split("--- ")[1:]:
        path, _, lines = part.partition("\n")
        enter(place(tree, path), lines)
    return tree


def place(tree: Path, path: str) -> Path:
    """Where a file of the checkout is installed."""
    return tree / "graphsr" / path if path.startswith(("backends/", "importers/")) else tree / path


def enter(table: Path, lines: str) -> None:
    """Each line that begins with "+" below the one before it."""
    text = table.read_text(encoding="utf-8")
    pairs: list[tuple[str, str]] = re.findall(r"^ (.*\n)\+(.*\n)", lines, re.MULTILINE)
    assert 2 * len(pairs) == lines.count("\n"), lines
    for before, new in pairs:
        assert text.count(f"\n{before}") == 1, f"{table}: {before}"
        text = text.replace(f"\n{before}", f"\n{before}{new}")
    table.write_text(text, encoding="utf-8")


def python(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=tree, env=env, timeout=250)


def test_the_op_is_held_to_all_that_the_page_names(tree: Path) -> None:
    suite, tests = COMMANDS
    done = python(tree, *suite.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"layers_agree +ok .*\nlayers_give_the_same_bits +ok .*\n", done.stdout)
    done = python(tree, *tests.removesuffix("mirror").split(), "mirror or tables", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {
        "test_the_tables_are_complete",
        "test_agrees_with_its_oracle",
        "test_gradient_by_finite_differences",
        "test_prints_and_parses",
        "test_inputs_are_not_written",
        "test_pixels_outside_the_window_play_no_part",
    }
    if find_spec("onnxruntime"):
        passed |= {"test_layers", "test_layers_are_read_back", "test_layers_of_open_sizes"}
    assert set(re.findall(r"::(\w+)(?:\[mirror\])? PASSED", done.stdout)) == passed


@pytest.mark.parametrize(
    ("path", "right", "wrong", "command", "said"),
    [
        ("backends/llvm/kernels/mirror.py", "y + (rest - 1 - i) * 4", "y + i * 4", 0, r"layers_agree +FAILED"),
        ("backends/llvm/kernels/mirror.py", "TURNED = range(LANES - 1, -1, -1)", "TURNED = range(LANES)", 0, "FAILED"),
        ("graphsr/ops/mirror.py", "(cotangent[..., ::-1].copy(),)", "(cotangent,)", 1, "finite_differences"),
        ("graphsr/ops/mirror.py", "return x[..., ::-1].copy()", "return x.copy()", 1, "agrees_with_its_oracle"),
        ("graphsr/ops/mirror.py", "None if axis == types[0].rank - 1 else (low, high)", "low, high", 1, "outside"),
    ],
    ids=["rest", "vectors", "vjp", "forward", "needs"],
)
def test_what_is_wrong_is_found(tree: Path, path: str, right: str, wrong: str, command: int, said: str) -> None:
    text = place(tree, path).read_text(encoding="utf-8")
    assert right in text
    place(tree, path).write_text(text.replace(right, wrong), encoding="utf-8")
    try:
        done = python(tree, *COMMANDS[command].split(), *(["-x"] if command else []))
    finally:
        place(tree, path).write_text(text, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(said, done.stdout), done.stdout


def test_the_kernel_runs_and_says_what_it_leaves_out(tree: Path) -> None:
    done = python(tree, "-c", USE + USE.replace("float32", "float64"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^turned +mirror +mirror ", done.stdout, re.MULTILINE), done.stdout
    assert "only float32, not float64" in done.stdout


def test_the_examples_of_the_op_are_right(tree: Path) -> None:
    run = "import doctest, numpy, graphsr.ops.mirror as m; print(doctest.testmod(m, extraglobs={'np': numpy}))"
    done = python(tree, "-c", run)
    assert done.stdout == "TestResults(failed=0, attempted=1)\n", done.stderr


@pytest.mark.skipif(not (ROOT / "backends").is_dir(), reason="outside the checkout, which the links lead into")
def test_the_page_names_files_that_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
