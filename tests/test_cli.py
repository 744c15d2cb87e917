"""The command line as a user meets it: exit codes, messages, files kept and written."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from cli_support import detector_cfg, graphsr, picture

from graphsr import cli
from graphsr.errors import GraphsrError
from graphsr.imagefile import read_image
from graphsr.importers.checkpoint import read_checkpoint
from graphsr.importers.safetensors_file import write_safetensors
from graphsr.memory import available_memory


def test_upscale_beside_the_input_and_quiet(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    before = source.read_bytes()
    done = graphsr("upscale", source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read_image(tmp_path / "a_x2.png").pixels.shape == (24, 32, 3)
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a_x2.png"]


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("grey.png", "uint8", (9, 7)),
        ("grey16.png", "uint16", (9, 7)),
        ("rgb16.png", "uint16", (9, 7, 3)),
        ("rgba16.png", "uint16", (9, 7, 4)),
        ("rgba.webp", "uint8", (9, 7, 4)),
        ("rgb.bmp", "uint8", (9, 7, 3)),
        ("rgb.jpg", "uint8", (9, 7, 3)),
        ("rgb16.tif", "uint16", (9, 7, 3)),
    ],
)
def test_depth_and_alpha_are_kept(tmp_path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    source = picture(tmp_path / name, dtype, shape)
    assert graphsr("upscale", source, "-o", tmp_path / "out", "-j", 1).returncode == 0
    pixels = read_image(tmp_path / "out" / name).pixels
    assert (pixels.dtype.name, pixels.shape) == (dtype, (18, 14, *shape[2:]))


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    picture(folder / "c.png")
    done = graphsr("upscale", folder, tmp_path / "absent.png", "-o", tmp_path / "out", "-s", 4)
    assert done.returncode == 1
    assert "b.png" in done.stderr
    assert "absent.png" in done.stderr
    assert "2 of 4 images failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_a_folder_twice_gives_the_same(tmp_path: Path) -> None:
    """Results that lie beside their originals are not taken for new originals."""
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert graphsr("upscale", tmp_path).returncode == 0
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a_x2.png"]


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    done = graphsr("upscale", source, "n" * 300 + ".png", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert (tmp_path / "a_x2.png").exists()
    assert graphsr("info", "m" * 5000).returncode == 3
    done = graphsr("convert", "wdsr-x2", tmp_path / "absent" / "y.safetensors")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_compare_folders_says_what_has_no_partner(tmp_path: Path) -> None:
    for folder, names in (("a", ("1.png", "2.png")), ("b", ("1.png",))):
        (tmp_path / folder).mkdir()
        for name in names:
            picture(tmp_path / folder / name)
    done = graphsr("compare", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 1
    assert "2.png: only in" in done.stderr
    assert "mean" in done.stdout


def test_existing_outputs(tmp_path: Path) -> None:
    source, target = picture(tmp_path / "a.png"), tmp_path / "b.png"
    target.write_bytes(b"precious")
    assert graphsr("upscale", source, "-o", target, "--exists", "skip").returncode == 0
    assert target.read_bytes() == b"precious"
    assert graphsr("upscale", source, "-o", target, "--exists", "error").returncode == 1
    assert target.read_bytes() == b"precious"
    assert graphsr("upscale", source, "-o", target).returncode == 0
    assert read_image(target).pixels.shape == (24, 32, 3)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["upscale"],
        ["enlarge", "a.png"],
        ["upscale", "a.png", "-o", "a.png"],
        ["upscale", "a.png", "b.png", "-o", "c.png"],
        ["upscale", "a.png", "-j", "0"],
        ["upscale", "a.png", "-s", "3"],
        ["upscale", "a.png", "--backend", "nonsense"],
        ["upscale", "a.png", "--mean", "1,2"],
        ["upscale", "empty"],
        ["upscale", "a.png", "-o", "b.gif"],
        ["compare", "a.png", "empty"],
        ["convert", "wdsr-x2", "out.bin"],
        ["compare", "a.png", "b.png", "--convention", "paper"],
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(tmp_path: Path, words: list[str]) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "empty").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    done = graphsr(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("command", [["info"], ["upscale", "a.png", "-m"], ["convert"]])
def test_a_refused_model_is_3(tmp_path: Path, command: list[str]) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 this is no checkpoint")
    more = ["out.safetensors"] if command == ["convert"] else []
    for name in ("bad.pt", "absent.pt"):
        done = graphsr(*command, name, *more, cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        assert name in done.stderr
        assert "Traceback" not in done.stderr


def test_info_names_what_it_knows(tmp_path: Path) -> None:
    done = graphsr("info", "wdsr-x2", "--svg", tmp_path / "graph.svg")
    assert done.returncode == 0
    for words in ("WDSR-A", "x2", "parameters", "receptive field", "MACs per input pixel", "credits"):
        assert words in done.stdout
    assert "assumed:" not in done.stdout
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")
    assert "return output=" in graphsr("info", "wdsr-x2", "--graph").stdout


def test_what_is_assumed_is_said_and_can_be_set(tmp_path: Path) -> None:
    with as_file(files("graphsr.weights") / "wdsr-x2.safetensors") as path:
        tensors = read_checkpoint(path).tensors
    write_safetensors(tmp_path / "bare.safetensors", tensors, {})
    assert "assumed: res_scale=1.0" in graphsr("info", tmp_path / "bare.safetensors").stdout
    told = graphsr("info", tmp_path / "bare.safetensors", "--res-scale", "0.5", "--mean", "0.5,0.5,0.5").stdout
    assert "assumed: shuffle" in told
    assert "assumed: res_scale" not in told
    assert "assumed: mean" not in told


def test_convert_and_use(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    assert graphsr("convert", "wdsr-x2", tmp_path / "own.safetensors").returncode == 0
    assert graphsr("upscale", source, "-o", tmp_path / "1.png").returncode == 0
    assert graphsr("upscale", source, "-o", tmp_path / "2.png", "-m", tmp_path / "own.safetensors").returncode == 0
    assert (read_image(tmp_path / "1.png").pixels == read_image(tmp_path / "2.png").pixels).all()


def test_compare_names_its_convention(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", shape=(12, 16, 3))
    done = graphsr("compare", a, b)
    assert done.returncode == 0
    assert "convention" in done.stdout
    assert "PSNR     inf dB" in done.stdout
    assert "SSIM 1.0000" in done.stdout
    other = picture(tmp_path / "c.png", shape=(13, 16, 3))
    assert graphsr("compare", a, other).returncode == 1


def test_compare_of_folders_of_damaged_images_prints_no_figures(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"nonsense")
    done = graphsr("compare", "a", "b", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "1.png" in done.stderr


def test_backends_are_listed() -> None:
    done = graphsr("backends")
    assert done.returncode == 0
    assert "reference" in done.stdout
    assert "numpy" in done.stdout


def test_interruption_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphsr.commands.backends", interrupted)
    assert cli.main(["backends"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_is_quick_and_light() -> None:
    code = (
        "import sys; from graphsr import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'llvmlite', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_every_error_class_has_an_exit_code() -> None:
    pending, codes = [GraphsrError], {}
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        codes[kind.__name__] = cli.error_code(kind("x"))
    assert codes["ModelError"] == 3
    assert codes["BackendError"] == codes["UsageError"] == 2
    assert set(codes.values()) == {1, 2, 3}


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "a.png", "--cfg", "a.cfg", "--json", "a.png"),
        ("detect", "a.png", "--cfg", "a.cfg", "--json", "a.weights"),
        ("detect", "a.png", "--cfg", "a.cfg", "-o", "out.png", "--json", "out.png"),
        ("info", "a.cfg", "--svg", "a.cfg"),
        ("convert", "wdsr-x2", "b.cfg"),
    ],
)
def test_no_output_falls_on_another_file(tmp_path: Path, words: tuple[str, ...]) -> None:
    picture(tmp_path / "a.png")
    for name in ("a.cfg", "a.weights", "b.weights"):
        (tmp_path / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = graphsr(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "another" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("a.png", "-o", "a.png"), "a.png would be written over a.png, which is an input: name another place with -o"),
        (("a.png", "b/a.png", "-o", "b"), "a.png would be written over b/a.png, which is an input"),
        (("a.png", "a.png", "-o", "c"), "a.png and a.png would both be written to c/a.png: give each image once"),
        (("a.png", "b/a.png", "-o", "c"), "a.png and b/a.png would both be written to c/a.png"),
    ],
)
def test_no_image_falls_on_another(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    (tmp_path / "b").mkdir()
    before = [picture(path).read_bytes() for path in (tmp_path / "a.png", tmp_path / "b" / "a.png")]
    done = graphsr("upscale", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert [path.read_bytes() for path in (tmp_path / "a.png", tmp_path / "b" / "a.png")] == before


@pytest.mark.skipif(available_memory() is None, reason="the system does not tell how much memory there is")
def test_profile_of_more_than_there_is() -> None:
    done = graphsr("profile", "wdsr-x2", "--size", "999999999999x99999999999")
    assert done.returncode == 2
    assert "GB are free" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_the_backend_reach_it(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    written = {}
    for options in ((), ("--accuracy", "high"), ("--memory", "low", "-j", "1")):
        done = graphsr("upscale", source, "-o", tmp_path / "b.png", *options)
        assert (done.returncode, done.stderr) == (0, "")
        written[options] = read_image(tmp_path / "b.png").pixels.astype(int)
    first, *others = written.values()
    assert all(np.abs(first - other).max() <= 1 for other in others)


def test_white_survives_onnx(tmp_path: Path) -> None:
    assert graphsr("convert", "wdsr-x2", tmp_path / "x2.onnx").returncode == 0
    source = picture(tmp_path / "a.png")
    for name, model in (("own", "wdsr-x2"), ("onnx", tmp_path / "x2.onnx")):
        done = graphsr("upscale", source, "-m", model, "-o", tmp_path / f"{name}.png")
        assert (done.returncode, done.stderr) == (0, "")
    own, onnx = (read_image(tmp_path / f"{name}.png").pixels.astype(int) for name in ("own", "onnx"))
    assert np.abs(own - onnx).max() <= 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("convert wdsr-x2 out.foo", 2, "named by its format"),
        ("convert wdsr-x2 absent/out.onnx", 1, "cannot be written: No such file"),
        ("upscale a.png -m absent", 3, "neither a file nor an embedded model"),
        ("upscale absent.png", 1, "cannot be read: No such file"),
        ("upscale a.png --backend absent", 2, "unknown backend"),
        ("upscale a.png --backend numpy --accuracy high", 2, "'numpy' has no option accuracy; it has none"),
        ("info a.png", 3, "not a model file"),
        ("profile wdsr-x2 --size 0x4", 2, "expected height and width"),
        ("detect a.png --cfg d.cfg --size 31x30", 2, "give the size 28 x 28 or 32 x 32"),
        ("detect a.png --cfg d.cfg --names absent", 2, "--names absent: cannot be read: No such file or directory"),
        (
            "detect a.png --cfg d.cfg --names three.names",
            2,
            "--names three.names: the network knows 1 classes, 3 names",
        ),
        ("detect a.png --cfg d.cfg --names a.png", 2, "--names a.png: a line of text for each class"),
        ("detect a.png --cfg absent.cfg", 3, "neither a file"),
        ("upscale a.png -m d.cfg", 3, "not an image upscaler"),
        ("profile d.cfg --size 31x30", 2, "give the size 28 x 28 or 32 x 32"),
        ("profile wdsr-x2 --size 99999x99999", 2, "GB are free"),
        ("profile wdsr-x2 --size 8x8 --repeats 1001", 2, "expected a whole number from 1 to 1000"),
        ("info wdsr-x2 --activation relu", 2, "--activation: change or leave out"),
        ("info wdsr-x2 --shuffle dcr --fork alexeyab", 2, "embedded model wdsr-x2: this file"),
        ("info wdsr-x2 -s 4", 2, "leave out -s"),
        ("info d.cfg -s 2", 2, "does not enlarge images"),
        ("info d.cfg --weights absent", 1, "No such file"),
        ("detect a.png --cfg wdsr-x2 --fork alexeyab", 2, "--fork: change or leave out"),
        ("convert wdsr-x2 x.onnx --float16", 2, "--float16 is for .safetensors files"),
        ("convert d.cfg d.cfg", 2, "the file is an input"),
        ("detect a.png --cfg d.cfg --size 999999x999999", 2, "--size: inputs of these sizes are too large"),
        ("info .", 3, "'.' is a folder or a device"),
        ("compare a.png d.cfg --border 9", 1, "d.cfg: not a PNG"),
        ("compare a.png a.png --border 9", 1, "a.png, a.png: a 16x12 image has no pixels left"),
        ("compare a.png absent.png", 1, "No such file"),
        ("compare . absent", 1, "absent: cannot be read"),
    ],
)
def test_exit_codes(words: str, code: int, said: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    detector_cfg(tmp_path)
    (tmp_path / "three.names").write_text("cat\ndog\npug\n")
    done = graphsr(*words.split(), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == "", "nothing is said before the words are known to be right"


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    assert graphsr("convert", "wdsr-x2", "x.SAFETENSORS", cwd=tmp_path).returncode == 0
    assert graphsr("convert", "x.SAFETENSORS", "x.ONNX", cwd=tmp_path).returncode == 0
    assert graphsr("info", "x.ONNX", cwd=tmp_path).returncode == 0


def test_a_folder_for_dumps_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHSR_DUMP", str(picture(tmp_path / "a.png")))
    done = graphsr("upscale", tmp_path / "a.png")
    assert done.returncode == 1
    assert "GRAPHSR_DUMP=" in done.stderr
    assert "unset it" in done.stderr
