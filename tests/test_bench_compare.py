"""`bench/compare.py`: what the engines are given means what graphsr means, and what is measured is told right."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.backends.reference import ReferenceBackend
from graphsr.model import Model
from graphsr.models import wdsr_a
from graphsr.ops import Conv2d

pytest.importorskip("compare", reason="the bench is not beside the tests")

from graphsr.importers.onnx_export import onnx_model

import compare
from peers import engines, machine, networks, report
from peers.ncnn_file import write_ncnn
from peers.process import Worker, WorkerError, environment

TINY = networks.Case("tiny", lambda: wdsr_a(scale=2, blocks=1, features=4, expanded=8), (1, 3, 6, 5))
PEERS = [name for name in engines.ENGINES if name not in engines.OWN]
TWICE = ("edsr-48", "edsr-128", "edsr-baseline-339x510", "wdsr-256")
CASES = [case.shrunk() for case in networks.CASES if case.name not in TWICE]
"""Those that are left out differ from others in size alone."""


def result(engine: str, seconds: list[float], flops: int = 10**9, failure: str = "") -> report.Result:
    """A made-up measurement on a machine of 100 GFLOP/s and 10 GB/s."""
    rounds = [report.Round(1e11, 1e10)] * len(seconds)
    made = report.Result("net", (1, 3, 8, 8), flops, 10**9, engine, "1.0", 2, "", failure, 1e-6, [0.1], [0.5], seconds)
    made.cores = [1.9] * len(seconds)
    made.rounds, made.rss = rounds, 2 * 10**8
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_computes_the_network(engine: str, case: networks.Case, tmp_path: Path) -> None:
    if engines.ENGINES[engine].version() is None:
        pytest.skip(f"{engine} is not installed")
    model = case.build()
    compare.prepare(case, model, tmp_path)
    made = compare.new_result(case, networks.Work(1, 1), engine, 1, tmp_path)
    assert made.failure == ""
    entrant = compare.Entrant(made, tmp_path, resident=False)
    reference = ReferenceBackend("float64").compile(model.graph)({"input": case.input(model)})["output"]
    entrant.check(reference, 1)
    assert entrant.result.failure == ""


@given(st.tuples(st.integers(1, 3), st.integers(1, 3)), st.tuples(*[st.integers(0, 2)] * 4), st.integers(1, 2))
def test_onnx_keeps_every_attribute_of_a_convolution(
    stride: tuple[int, int], padding: tuple[int, int, int, int], dilation: int
) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = networks.layer(Conv2d(stride, padding, (dilation, 1), groups=2), 4, (6, 2, 3, 2))
    x = np.linspace(-1, 1, 4 * 7 * 6, dtype=np.float32).reshape(1, 4, 7, 6)
    proto = onnx_model(model.graph.bind({"input": x.shape}))
    (got,) = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"input": x})
    expected = model.compile("reference")({"input": x})["output"]
    weight, bias = (node.value for node in model.graph.nodes() if node.is_const)
    largest = np.abs(weight).sum(axis=(1, 2, 3)).max() + np.abs(bias).max()  # of any sum of magnitudes, as |x| ≤ 1
    np.testing.assert_allclose(got, expected, rtol=0, atol=2 * 13 * np.finfo(np.float32).eps * largest)  # 13 terms


def test_ncnn_files_of_a_network(tmp_path: Path) -> None:
    """ReLU is part of the convolution before it, values with two readers are split, the mean is a Scale."""
    graph = networks.folded(TINY.build()).graph
    write_ncnn(graph.bind({"input": TINY.shape}), tmp_path / "net")
    magic, counts, *lines = (tmp_path / "net.param").read_text().splitlines()
    kinds = [line.split()[0] for line in lines]
    outputs = [name for line in lines for name in line.split()[4 + int(line.split()[2]) :] if "=" not in name]
    assert magic == "7767517"
    assert counts == f"{len(lines)} {len(outputs)}"
    assert "ReLU" not in kinds
    assert sum("9=1" in line.split() for line in lines) == 1
    assert kinds.count("Split") == 2  # the normalised image, and the head's output
    assert kinds[:3] == ["Input", "Scale", "BinaryOp"]
    assert outputs[-1] == "output"
    constants = [node.value for node in graph.nodes() if node.is_const]
    flags = sum(value.ndim == 4 and value.shape[2:] != (1, 1) for value in constants)  # one for each convolution
    floats = sum(value.size for value in constants) - 1 + 3  # the divisor is text, and Scale has a bias
    assert (tmp_path / "net.bin").stat().st_size == 4 * (flags + floats)


def test_every_engine_has_a_colour_and_options_run_on_request_alone() -> None:
    assert set(report.COLOURS) == set(engines.ENGINES)
    usual = compare.parse([]).engines
    assert "llvm" in usual
    assert not any(name.startswith("llvm-") for name in usual)
    assert compare.parse(["--engines", "llvm", "llvm-memory-low"]).engines == ["llvm", "llvm-memory-low"]


def test_models_come_back_from_their_files(tmp_path: Path) -> None:
    for number, case in enumerate((TINY, networks.CASES[-1])):
        model = case.build()
        networks.save_model(model, tmp_path / str(number))
        assert str(networks.load_model(tmp_path / str(number)).graph) == str(model.graph)


def test_work_counts_the_direct_sums() -> None:
    cases = {case.name: case for case in networks.CASES}
    done = {name: networks.work(case.build(), case.shape) for name, case in cases.items() if not case.resident}
    assert done["conv-stride-1"].flops == 2 * 16 * 100 * 512 * 512 * 27
    assert done["conv-stride-2"].flops * 4 == done["conv-stride-1"].flops
    assert done["pixel-shuffle-6"] == networks.Work(0, 2 * 4 * 16 * 108 * 512 * 512)
    assert done["max-pool-30"].moved == 4 * 16 * 3 * (512**2 + 483**2)


def test_shares_and_speeds_of_a_table() -> None:
    results = [
        result("llvm", [0.01, 0.02, 0.01]),
        result("mnn", [0.04, 0.05, 0.06]),
        result("ncnn", [0.1] * 3),
        result("torch", [], failure="RuntimeError: no"),
    ]
    assert report.rows(results, engines.OWN) == [
        ("llvm", "2", "10.00", "100", "100%", "5.00", "1.9", "0.50 0.50", "200", "1.0e-06"),
        ("mnn", "2", "50.00", "20", "20%", "1.00", "1.9", "0.50 0.50", "200", "1.0e-06"),
        ("ncnn", "2", "100.00", "10", "10%", "0.50", "1.9", "0.50 0.50", "200", "1.0e-06"),
        ("torch", "2", "failed: RuntimeError: no"),
    ]
    (copy,) = report.rows([result("mnn", [0.2], flops=0)], engines.OWN)
    assert copy[3:5] == ("5 GB/s", "50% of copy")
    (alone,) = report.rows([result("llvm", [0.2])], engines.OWN)
    assert alone[5] == ""


def test_what_is_shown(tmp_path: Path) -> None:
    results = [result("llvm", [0.01]), result("mnn", [0.04]), result("torch", [], failure="a | b")]
    text = report.table(results, engines.OWN)
    assert text.startswith("net (1x3x8x8, 1.0 GFLOP), 2 threads: peak 100 GFLOP/s, copy 10 GB/s")
    assert len(text.splitlines()) == 5
    lines = report.markdown(results, engines.OWN).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(report.HEADER) + 2}
    report.save(tmp_path / "out.json", {"python": "3"}, results)
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved["results"][0]["rounds"] == [{"flops": 1e11, "bandwidth": 1e10}]
    if find_spec("matplotlib"):
        report.plot(results, engines.OWN, tmp_path / "out.png")
        assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_error_is_relative_to_the_deviation() -> None:
    reference = np.array([[-2.0, 2.0]])
    assert compare.relative_error(np.array([[-2.0, 3.0]]), reference) == 0.5
    assert compare.relative_error(np.zeros((1, 3)), reference) == float("inf")


def test_a_wrong_engine_is_reported(tmp_path: Path) -> None:
    model: Model = TINY.build()
    compare.prepare(TINY, model, tmp_path)
    made = compare.new_result(TINY, networks.Work(1, 1), "numpy", 1, tmp_path)
    entrant = compare.Entrant(made, tmp_path, resident=True)
    wrong = np.random.default_rng(0).random((1, 3, 12, 10)) * 1e6
    entrant.check(wrong, 1)
    entrant.round()
    entrant.close()
    assert entrant.result.failure.startswith("wrong output: maximum error ")
    assert entrant.result.seconds == []


def test_a_worker_says_why_it_cannot(tmp_path: Path) -> None:
    with Worker("numpy", tmp_path, 1) as worker, pytest.raises(WorkerError, match="FileNotFoundError"):
        worker.ask("load", variant="")
    with Worker("machine", tmp_path, -1) as worker, pytest.raises(WorkerError, match="ended with exit code 1"):
        worker.ask("measure")
    with Worker("numpy", tmp_path, 1, timeout=0.0) as worker, pytest.raises(WorkerError, match="no answer within"):
        worker.ask("load", variant="")


def test_workers_run_without_tuning_for_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    variables = environment(2, Path("caches"))
    assert "OPENBLAS_CORETYPE" not in variables
    assert os.environ.keys() - variables.keys() <= {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    assert variables["OMP_NUM_THREADS"] == "2"


def test_the_machine_is_measured() -> None:
    flops, bandwidth = machine.Machine(1).measure()
    assert flops > 0
    assert bandwidth > 0


def test_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    files = ["--json", str(out), "--markdown", str(table)]
    what = ["--quick", "--networks", "max-pool-3", "--engines", "numpy", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["compare.py", *what, *files])
    assert compare.main() == 0
    (measured,) = json.loads(out.read_text())["results"]
    assert measured["failure"] == ""
    assert measured["error"] == 0
    assert len(measured["seconds"]) == len(measured["rounds"]) == 1
    assert measured["rss"] > 10**7
    assert measured["cores"][0] > 0
    assert "max-pool-3 (1x3x32x32" in capsys.readouterr().out
    assert "| max-pool-3 | numpy | 1 |" in table.read_text()
