"""What the command line says when something is wrong, and that it says it whatever the names and streams are."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import detector_cfg, graphsr, picture
from hypothesis import given
from hypothesis import strategies as st

from graphsr import cli
from graphsr.detection_drawing import detections_json

COMMANDS = ("upscale", "detect", "info", "convert", "compare", "profile", "backends", "cache")
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="the system has no device that is always full")


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of sh; `graphsr` is the command."""
    line = line.replace("graphsr", f"{sys.executable} -m graphsr")
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", **environment}
    return subprocess.run(line, shell=True, capture_output=True, timeout=120, cwd=folder, env=env, check=False)


def not_text(folder: Path) -> Path:
    """A picture whose name is no UTF-8."""
    try:
        return picture(folder / os.fsdecode(b"a\xff.png"))
    except OSError:
        pytest.skip("file names are text here")


def test_names_that_are_not_text(tmp_path: Path) -> None:
    """On standard output the name's bytes, in JSON the escape that Python's json reads back to them."""
    source = not_text(tmp_path)
    detector_cfg(tmp_path)
    done = shell("graphsr detect *.png --cfg d.cfg --json found.json -o boxes", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"a\xff.png: 0 objects -> boxes/a\xff.png" in done.stdout
    (entry,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert os.fsencode(entry["image"]) == os.fsencode(source.name)
    done = shell("graphsr compare *.png *.png", tmp_path)
    assert done.returncode == 0
    assert b"a\xff.png" in done.stdout


@given(name=st.binary(min_size=1))
def test_any_name_is_read_back_from_json(name: bytes) -> None:
    written = detections_json({os.fsdecode(name): (3, 4, [])}).encode("utf-8")
    (entry,) = json.loads(written)
    assert os.fsencode(entry["image"]) == name


def test_an_encoding_without_the_character(tmp_path: Path) -> None:
    picture(tmp_path / "é.png")
    done = shell("graphsr compare *.png *.png", tmp_path, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\xe9.png" in done.stdout


WRITES = {
    "info wdsr-x2 --svg {}": ".svg",
    "detect a.png --cfg d.cfg --json {}": ".json",
    "detect a.png --cfg d.cfg -o {}": ".png",
    "upscale a.png -o {}": ".png",
    "convert wdsr-x2 {}": ".onnx",
    "convert d.cfg {}": ".safetensors",
}


@pytest.mark.parametrize("words", WRITES)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.png/x", ("a.png is a file, and no folder", "a file is in the way")),
        ("pipe", ("only regular files",)),
        ("n" * 300, ("name a shorter one",)),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, words: str, name: str, said: tuple[str, ...]) -> None:
    picture(tmp_path / "a.png")
    detector_cfg(tmp_path)
    target = name + WRITES[words]
    if name == "pipe":
        os.mkfifo(tmp_path / target)
    before = sorted(tmp_path.iterdir())
    done = graphsr(*words.format(target).split(), cwd=tmp_path)
    assert done.returncode == 1
    assert target in done.stderr
    assert any(text in done.stderr for text in said), done.stderr
    for unwanted in ("Traceback", "Errno", "partial"):
        assert unwanted not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "info wdsr-x2 --svg absent/x.svg",
            1,
            "--svg absent/x.svg: cannot be written: No such file or directory: make ",
        ),
        ("info wdsr-x2 --svg .", 1, "--svg .: cannot be written: Is a directory: name a file in it"),
        ("detect a.png --cfg d.cfg --json .", 1, "--json .: cannot be written: Is a directory: name a file in it"),
        ("upscale a.png -o d.weights", 2, "images are written as"),
        ("upscale a.png -o file", 2, "-o file: a file is there, and no folder"),
        ("upscale a.png -o file/", 2, "-o file/: a file is there, and no folder"),
    ],
)
def test_places_that_are_none(tmp_path: Path, words: str, code: int, said: str) -> None:
    picture(tmp_path / "a.png")
    detector_cfg(tmp_path)
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.iterdir())
    done = graphsr(*words.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_slash_names_a_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert graphsr("upscale", "a.png", "-o", "b.png/", cwd=tmp_path).returncode == 0
    assert (tmp_path / "b.png" / "a.png").is_file()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "out").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    done = graphsr("upscale", "a.png", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "you may not write there" in done.stderr


@needs_full
@pytest.mark.parametrize("command", ["backends", "info wdsr-x2", "compare a.png a.png"])
def test_standard_output_on_a_full_disk(tmp_path: Path, command: str) -> None:
    picture(tmp_path / "a.png")
    done = shell(f"graphsr {command} > {FULL}", tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode() == f"graphsr {command.split()[0]}: No space left on device\n"


@pytest.mark.parametrize("command", ["backends", "info wdsr-x2", "compare a.png a.png", "detect a.png --cfg d.cfg"])
def test_standard_output_that_is_closed(tmp_path: Path, command: str) -> None:
    picture(tmp_path / "a.png")
    detector_cfg(tmp_path)
    done = shell(f"graphsr {command} >&-", tmp_path)
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr


def test_what_prints_nothing_needs_no_streams(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert shell("graphsr upscale a.png >&- 2>&-", tmp_path).returncode == 0
    done = shell("graphsr upscale absent.png 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_reader_has_gone(tmp_path: Path) -> None:
    done = shell("(graphsr backends; echo $? >&2) | true", tmp_path)
    assert done.stderr in (b"0\n", b"1\n")  # whether it printed before the reader went


def test_a_warning_shows_no_source(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    done = shell("graphsr upscale a.png", tmp_path, GRAPHSR_CACHE_DIR=str(source))
    assert done.returncode == 0
    assert done.stderr.startswith(b"graphsr: warning: ")
    assert done.stderr.count(b"\n") == 1
    assert b".py" not in done.stderr


@pytest.mark.parametrize("command", ["upscale a.png b.png", "detect a.png b.png --cfg d.cfg"])
def test_what_is_wrong_with_the_backend_is_said_once(tmp_path: Path, command: str) -> None:
    """And not for each image, as if these were the reason."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    detector_cfg(tmp_path)
    done = shell(f"graphsr {command}", tmp_path, GRAPHSR_CACHE="nope")
    assert done.returncode == 2
    assert done.stderr.startswith(f"graphsr {command.split()[0]}: GRAPHSR_CACHE='nope'".encode())
    assert done.stderr.count(b"\n") == 1


def test_warnings_may_be_errors(tmp_path: Path) -> None:
    """As the user's environment has it; no traceback."""
    source = picture(tmp_path / "a.png")
    done = shell("graphsr upscale a.png", tmp_path, GRAPHSR_CACHE_DIR=str(source), PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert done.stderr.startswith(b"graphsr upscale: object cache off")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("upscale", ""),
        ("upscale", "a.png", "-o", ""),
        ("upscale", "a.png", "-m", ""),
        ("compare", "", ""),
        ("info", ""),
        ("info", "wdsr-x2", "--svg", ""),
        ("convert", "wdsr-x2", ""),
        ("profile", "", "--size", "8x8"),
        ("detect", "", "--cfg", "d.cfg"),
        ("detect", "a.png", "--cfg", "d.cfg", "--json", ""),
    ],
)
def test_empty_names(tmp_path: Path, words: tuple[str, ...]) -> None:
    picture(tmp_path / "a.png")
    done = graphsr(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "expected the name of a file or folder, got an empty one" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("words", [("-j", "9" * 5000), ("-j", "²"), ("-s", "-2")])
def test_numbers_that_are_none(tmp_path: Path, words: tuple[str, str]) -> None:
    done = graphsr("upscale", picture(tmp_path / "a.png"), *words)
    assert done.returncode == 2
    assert "expected a whole number of at least 1" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert " ".join(capsys.readouterr().out.split()).endswith(cli.EXIT_CODES)


def test_a_file_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    done = graphsr("info", "bad.onnx", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.count("bad.onnx") == 1


def test_trees_are_replaced_when_asked(tmp_path: Path) -> None:
    """A network for darknet is up to three files, and --overwrite means all of them."""
    (tmp_path / "t.tree").write_text("cat -1\ndog -1\npug 1\n")
    (tmp_path / "t.cfg").write_text("[net]\nchannels=3\nheight=1\nwidth=1\n[activation]\n[softmax]\ntree=t.tree\n")
    (tmp_path / "t.weights").write_bytes(b"\0\0\0\0\2\0\0\0" + bytes(12))
    (tmp_path / "u.tree").write_text("mine")
    done = graphsr("convert", "t.cfg", "u.cfg", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "u.tree is another file" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "u.tree").read_text() == "mine"
    done = graphsr("convert", "t.cfg", "u.cfg", "--overwrite", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "u.tree").read_text() != "mine"
    assert graphsr("info", "u.cfg", cwd=tmp_path).returncode == 0
