"""`python -m graphsr.testing`: what it prints, and its exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphsr.testing import CHECKS
from graphsr.testing.__main__ import main

BACKENDS = """
from graphsr.backend import get_backend
from graphsr.backends.reference import ReferenceBackend

class Right(ReferenceBackend):
    name = "right"

class OneMore:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def run(self, inputs):
        return [y + 1 for y in self.inner.run(inputs)]

class Wrong(ReferenceBackend):
    name = "wrong"

    def program(self, graph, threads):
        return OneMore(super().program(graph, threads))

class Broken(ReferenceBackend):
    name = "broken"

    def program(self, graph, threads):
        raise IndexError("no room for it")

made = Right()

def given_nothing(options): ...
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with backends that are not installed."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(BACKENDS)
    (tmp_path / f"{name}_damaged.py").write_text("def (")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_each_check_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference", "--examples", "1", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [check.__name__ for check in CHECKS]
    assert all(re.fullmatch(r"\w+ +ok +\d+\.\d s", line) for line in lines)


def test_layers_and_checks_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llvm", "--layers", "relu", "dense", "--examples", "2"]) == 0
    assert re.findall(r"^\w+", capsys.readouterr().out, re.MULTILINE) == ["layers_agree", "layers_give_the_same_bits"]
    assert main(["reference", "--layers", "relu", "--checks", "graphs_agree", "--examples", "2"]) == 0
    assert re.findall(r"^\w+", capsys.readouterr().out, re.MULTILINE) == ["graphs_agree"]


@pytest.mark.parametrize("word", ["Right", "made"])
def test_a_backend_that_is_not_installed(mine: str, word: str) -> None:
    assert main([f"{mine}:{word}", "--layers", "relu", "--examples", "2"]) == 0


def test_a_failure_shows_the_smallest_graph_and_the_others_go_on(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checks", "layers_agree", "wrong_inputs_are_refused", "--layers", "relu", "--examples", "5"]
    assert main([f"{mine}:Wrong", *words]) == 1
    out = capsys.readouterr().out
    assert re.match(r"layers_agree +FAILED +\d+\.\d s\nbackend 'wrong', output 'y': ", out)
    assert "= relu(" in out
    assert "Traceback" not in out
    assert re.search(r"^wrong_inputs_are_refused +ok ", out, re.MULTILINE)


def test_what_a_backend_raises_is_a_failure_with_its_place(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{mine}:Broken", "--layers", "relu", "--checks", "layers_agree"]) == 1
    out = capsys.readouterr().out
    assert re.match(r"layers_agree +FAILED ", out)
    assert 'raise IndexError("no room for it")' in out
    assert "IndexError: no room for it" in out
    assert "hypothesis" not in out
    if sys.version_info >= (3, 11):  # errors have no notes before
        assert "= relu(" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lvm"], "unknown backend 'lvm'; installed are llvm, numpy, reference"),
        (["reference", "--checks", "layer_agree"], "no check is called 'layer_agree': did you mean 'layers_agree'?"),
        (["reference", "--layers", "turn"], "no layer is called 'turn'. The layers are abs, "),
        (["reference", "--examples", "0"], "examples must be a whole number of at least 1, got 0"),
        ([":"], "':' is neither the name of a backend nor of the form module:Class"),
        (["no_such_module:Right"], "ModuleNotFoundError: No module named 'no_such_module'"),
        (["MINE:Absent"], "has no attribute 'Absent'"),
        (["MINE:given_nothing"], "missing 1 required positional argument"),
        (["MINE_damaged:Right"], "SyntaxError: "),
        (["MINE:get_backend.__name__"], "'str' object is not callable"),
        (["builtins:dict"], "'builtins:dict' does not give a graphsr Backend, but dict"),
        (["sys:exit"], "SystemExit"),
    ],
    ids=str,
)
def test_wrong_words_are_told_in_one_line(
    words: Sequence[str], said: str, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("MINE", mine) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("python -m graphsr.testing: ")


@pytest.mark.parametrize("words", [[], ["reference", "--examples", "many"], ["reference", "--layers"], ["a", "b"]])
def test_wrong_options_are_usage(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "python -m graphsr.testing: error: " in capsys.readouterr().err


def test_help_tells_the_exit_codes_and_lists_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "exit codes: 0 ok, 1 a check failed, 2 wrong usage" in out
    for check in CHECKS:
        assert re.search(rf"^  {check.__name__} +\S", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110


def python(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_runs_as_a_module() -> None:
    done = python("-m", "graphsr.testing", "reference", "--layers", "relu", "--examples", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"layers_agree +ok ", done.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize(("target", "said"), [("> /dev/full", "No space left"), ("| true", "")])
def test_output_that_goes_nowhere(target: str, said: str) -> None:
    line = f"{{ {sys.executable} -m graphsr.testing reference --layers relu --examples 1; echo $? >&2; }} {target}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=120, check=False)
    *told, code = done.stderr.splitlines()
    assert (code, len(told)) == ("1", 1 if said else 0), done.stderr
    assert said in done.stderr


def test_without_hypothesis_it_is_said_what_to_install() -> None:
    done = python("-c", "import sys; sys.modules['hypothesis'] = None; import graphsr.testing")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "graphsr.errors.MissingExtraError: graphsr.testing needs hypothesis: pip install 'graphsr[test]'"
    )
