"""What `explain()`, `profile()` and `graphsr profile` say, and the options of backends."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

import graphsr
from graphsr.backend import get_backend
from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.llvm.kernels.peak import measure
from graphsr.backends.llvm.library import library
from graphsr.backends.llvm.target import host
from graphsr.cli import main
from graphsr.errors import BackendError, ShapeError
from graphsr.explain import Step, repeated_as_one, steps_table
from graphsr.ir import Graph, Node, TensorType
from graphsr.models import edsr
from graphsr.ops import Conv2d


def test_a_profile_accounts_for_every_step_beside_the_peaks() -> None:
    run = edsr(scale=2, blocks=2, features=16).compile("llvm", threads=2)
    profile = run.profile({"input": np.ones((1, 3, 24, 32), np.float32)}, repeats=2)
    steps = run.bind({"input": (1, 3, 24, 32)}).steps()
    assert profile.steps == tuple(steps)
    assert len(profile.milliseconds) == len(steps)
    assert all(ms >= 0 for ms in profile.milliseconds)
    assert profile.total > 0
    assert profile.flops > 1e8
    assert profile.bandwidth > 1e8
    assert all(step.traffic >= step.nbytes for step in steps)
    assert "% of peak" in str(profile)


@pytest.mark.parametrize("threads", [1, 3, 5, 12])
def test_the_machine_is_measured_by_any_number_of_threads(threads: int) -> None:
    """Parts of the memory that is copied are whole vectors, and end where it ends."""
    assert min(measure(library(host()), threads)) > 1e8


def test_a_network_without_any_kernel_is_profiled() -> None:
    x = Node.input("x", TensorType("float64", (1, 2, 8, 8)))
    y = Node(Conv2d(), (x, Node.const(np.ones((1, 2, 3, 3)))), "layer")
    profile = get_backend("llvm").compile(Graph((x,), {"y": y}), threads=1).profile({"x": np.ones(x.type.dims)}, 1)
    assert [step.kernel for step in profile.steps] == ["forward"]
    assert profile.milliseconds[0] > 0


def test_what_is_computed_at_once_is_told() -> None:
    steps = edsr(scale=2, blocks=1, features=16).compile("llvm", threads=1).bind({"input": (1, 3, 48, 48)}).steps()
    notes = [step.note for step in steps if step.kernel.startswith("winograd")]
    assert notes
    assert all("in registers" in note and "tiles in cache" in note and "units" in note for note in notes)


def test_weights_that_are_made_in_each_run_are_told_with_their_size() -> None:
    backend = get_backend("llvm", memory="low")
    steps = backend.compile(edsr(scale=2, blocks=1, features=64).graph).bind({"input": (1, 3, 48, 48)}).steps()
    made = [step for step in steps if step.kernel == "weights of F(6,3)"]
    assert made
    assert all(step.nbytes >= 64 * 64 * 64 * 4 and not step.macs for step in made)


def test_equal_steps_of_a_layer_are_one_line() -> None:
    """With their totals; layers that follow each other are told apart, whatever their names."""

    def layer(*steps: int) -> list[Step]:
        product = Step("rnn", "dense", "product", macs=64, nbytes=8)
        return [product, *(Step("rnn", "dense", "step", 3, 4, f"step {i}", 1, 5) for i in steps)]

    steps = (*layer(1, 2, 3), *layer(1, 2), *layer(1))
    table = steps_table(steps).splitlines()[1:]
    assert [line.split("  ")[-1].strip() for line in table if "  step" in line] == ["x 3 steps", "x 2 steps", "step 1"]
    merged = repeated_as_one(steps, [1.0] * len(steps))
    assert [ms for _, ms in merged] == [1, 3, 1, 2, 1, 1]
    assert merged[1][0] == Step("rnn", "dense", "step", 9, 12, "x 3 steps", 1, 15)


def test_a_profiled_run_gives_the_same_bits() -> None:
    run = edsr(scale=2, blocks=1, features=16).compile("llvm", threads=2)
    x = np.linspace(0, 255, 3 * 20 * 20, dtype=np.float32).reshape(1, 3, 20, 20)
    before = run({"input": x})["output"]
    run.profile({"input": x}, repeats=1)
    np.testing.assert_array_equal(run({"input": x})["output"], before)


def test_a_backend_that_does_not_measure_says_so() -> None:
    run = edsr(scale=2, blocks=1, features=16).compile("numpy")
    with pytest.raises(BackendError, match="'numpy' does not measure"):
        run.profile({"input": np.ones((1, 3, 8, 8), np.float32)})


def test_explain_shows_what_the_choices_cost() -> None:
    model = edsr(scale=2, blocks=1, features=32)
    shapes = {"input": (1, 3, 24, 24)}
    kernels, weights = {}, {}
    choices = {"exact": {"accuracy": "high"}, "low": {"memory": "low"}, "default": {}, "high": {"memory": "high"}}
    for name, options in choices.items():
        steps = model.compile("llvm", threads=1, **options).bind(shapes).steps()
        kernels[name] = " ".join(step.kernel for step in steps)
        weights[name] = sum(step.weight_bytes for step in steps)
    assert all(("F(6,3)" in kernels[name]) == (name != "exact") for name in choices)
    assert "F(2,3)" in kernels["exact"]
    assert "weights of F(6,3)" in kernels["low"]
    assert "weights of" not in kernels["high"]
    assert weights["low"] < weights["default"] < weights["high"]


def test_explain_tells_the_memory_of_all_choices() -> None:
    """Whatever is chosen, and as it turns out where it is: planning for the others packs nothing."""
    model = edsr(scale=2, blocks=2, features=32)
    shapes = {"input": (1, 3, 40, 40)}
    lines = {}
    for choice in ("low", "default", "high"):
        backend = LlvmBackend(memory=choice)
        run = model.compile(backend, threads=1)
        program = run.bind(shapes)
        packed = backend.weights.nbytes
        *_, summary, low, default, high = run.explain(shapes).splitlines()
        assert backend.weights.nbytes == packed
        lines[choice] = (low, default, high)
        told = dict(zip(("low", "default", "high"), lines[choice], strict=True))[choice]
        planned, weights = map(float, re.findall(r"([\d.]+) MB", told)[:2])
        assert planned == pytest.approx(program.planned_bytes / 1e6, abs=0.051)
        assert weights == pytest.approx(sum(step.weight_bytes for step in program.steps()) / 1e6, rel=0.2)
        assert f"planned memory {planned} MB" in summary
    assert "made in every run" in low
    assert "made in every run" not in high
    assert len(set(lines.values())) == 1, "what a choice takes does not depend on the one that was made"


def test_weights_that_do_not_fit_are_refused_before_they_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = edsr(scale=2, blocks=2, features=256)
    backend = LlvmBackend(memory="high")
    run = model.compile(backend, threads=1)
    with monkeypatch.context() as limited:
        limited.setattr("graphsr.memory.available_memory", lambda: 80_000_000)
        with pytest.raises(ShapeError, match=r"weights .* needs 0.2 GB, 0.1 GB are free; use memory='low'"):
            run.bind({"input": (1, 3, 24, 24)})
        assert backend.weights.nbytes == 0
        run.bind({"input": (1, 3, 8, 8)})  # so small that the kernels read another form
        packed = backend.weights.nbytes
        assert packed > 0
        with pytest.raises(ShapeError, match="use memory='low'"):
            run.bind({"input": (1, 3, 24, 24)})
        assert backend.weights.nbytes == packed
        model.compile("llvm", threads=1, memory="low").bind({"input": (1, 3, 24, 24)})
    run.bind({"input": (1, 3, 24, 24)})
    assert backend.weights.nbytes > 150_000_000


def test_a_run_and_its_weights_must_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would. What was made for another size is not asked for again."""
    model, shapes = edsr(scale=2, blocks=2, features=256), {"input": (1, 3, 96, 96)}
    before = LlvmBackend(memory="high")
    planned = model.compile(before, threads=1).bind(shapes).planned_bytes
    weights = before.weights.nbytes
    backend = LlvmBackend(memory="high")
    run = model.compile(backend, threads=1)
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: int(0.9 * (planned + weights)))
    with pytest.raises(ShapeError, match=r"a run, with the weights .* needs .* use memory='low'"):
        run.bind(shapes)
    assert backend.weights.nbytes == 0
    run.bind({"input": (1, 3, 48, 48)})
    assert run.bind(shapes).planned_bytes == planned


def test_options_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(BackendError, match="'numpy' has no option accuracy; it has none"):
        get_backend("numpy", accuracy="high")
    with pytest.raises(BackendError, match="has no option speed; it has accuracy, memory"):
        get_backend("llvm", speed="high")
    with pytest.raises(BackendError, match="accuracy='exact' is not one of default, high"):
        get_backend("llvm", accuracy="exact")
    with pytest.raises(BackendError, match="made already"):
        get_backend(get_backend("llvm"), accuracy="high")


@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
def test_an_executable_can_be_pickled(backend: str) -> None:
    run = edsr(scale=2, blocks=40, features=8).compile(backend, threads=2)  # too deep to pickle node in node
    x = {"input": np.linspace(0, 255, 3 * 9 * 7, dtype=np.float32).reshape(1, 3, 9, 7)}
    again = pickle.loads(pickle.dumps(run))
    np.testing.assert_array_equal(again(x)["output"], run(x)["output"])
    assert again is not run


def test_an_executable_that_is_unpickled_often_is_one_executable() -> None:
    """As in the tasks of a pool: its kernels are compiled and its weights are packed once. The last two are kept."""
    pickled = [pickle.dumps(edsr(scale=2, blocks=1, features=8).compile("llvm", threads=1)) for _ in range(3)]
    first, again, other = (pickle.loads(pickled[i]) for i in (0, 0, 1))
    assert first is again is not other
    assert pickle.loads(pickle.dumps(again)) is first, "pickled on the way"
    pickle.loads(pickled[2])
    assert pickle.loads(pickled[0]) is first
    assert pickle.loads(pickled[1]) is not other


def test_options_survive_pickling() -> None:
    run = edsr(scale=2, blocks=1, features=16).compile("llvm", threads=1, memory="low")
    again = pickle.loads(pickle.dumps(run))
    assert again.explain({"input": (1, 3, 9, 9)}) == run.explain({"input": (1, 3, 9, 9)})


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "wdsr-x2", "--size", "16x24", "--repeats", "1", "-j", "1", "--accuracy", "high"]) == 0
    printed = capsys.readouterr().out
    assert "tail.0" in printed
    assert "on 1 thread:" in printed
    assert "F(6,3)" not in printed


def test_llvm_is_the_default() -> None:
    assert graphsr.load("wdsr-x2").compile().backend.name == "llvm"
