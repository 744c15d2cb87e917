"""check_backend finds what is wrong with a backend, passes those that are right, and so does the page in docs/."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsr.backend import Backend, Executable, Program, backends, get_backend
from graphsr.errors import BackendError, MissingExtraError
from graphsr.explain import Step
from graphsr.ir import Graph, Node, replace_node
from graphsr.op import Array
from graphsr.ops import Conv2d
from graphsr.passes import DEFAULT
from graphsr.testing import CHECKS, check_backend
from graphsr.testing.check import (
    Check,
    Suite,
    graphs_agree,
    layers_agree,
    layers_give_the_same_bits,
    layout_of_inputs_is_free,
    nan_is_never_lost,
    networks_agree,
    new_sizes_need_no_recompiling,
    programs_explain_themselves,
    runs_are_independent,
    threads_give_the_same_bits,
    wide_layers_agree,
    wrong_inputs_are_refused,
)

from support import ROOT

EXAMPLES = 15

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each_check
@pytest.mark.parametrize("name", sorted(backends()))
def test_installed_backends(name: str, check: Check) -> None:
    try:
        backend = get_backend(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    check_backend(backend, checks=[check], examples=5 if check is layers_give_the_same_bits else EXAMPLES)


@each_check
def test_the_default_passes_keep_every_property(check: Check) -> None:
    """The reference behind the passes: what they build means the same to it."""
    backend = get_backend("reference")
    backend.passes = DEFAULT
    check_backend(backend, checks=[check], examples=EXAMPLES)


@dataclass
class FaultyProgram:
    """A program of the reference, with one thing wrong in how it runs."""

    inner: Program
    graph: Graph
    threads: int
    fault: Fault
    memory: dict[str, Any]

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        return self.fault(self, inputs)

    @property
    def planned_bytes(self) -> int:
        return self.inner.planned_bytes

    def steps(self) -> Sequence[Step]:
        return self.inner.steps()


Fault = Callable[[FaultyProgram, Sequence[Array]], Sequence[Array]]


class Faulty(Backend):
    name = "faulty"

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.memory: dict[str, Any] = {}

    def program(self, graph: Graph, threads: int) -> FaultyProgram:
        return FaultyProgram(get_backend("reference").program(graph, 1), graph, threads, self.fault, self.memory)


def no_fault(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return program.inner.run(inputs)


def a_thousandth_off(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return [y + np.float32(1e-3) * np.abs(y).max(initial=0) for y in program.inner.run(inputs)]


def half_precision(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return [y.astype(np.float16).astype(y.dtype) for y in program.inner.run(inputs)]


def other_dtype(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return [y.astype(np.float16) for y in program.inner.run(inputs)]


def first_image_only(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return [np.repeat(y[:1], len(y), axis=0) for y in program.inner.run(inputs)]


def remembers_the_batch(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    n = program.memory.setdefault("n", len(inputs[0]))
    return [y[:n] for y in program.inner.run(inputs)]


def depends_on_threads(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    """In the last bit; truth values are turned around."""
    outputs = program.inner.run(inputs)
    if program.threads < 3:
        return outputs
    return [np.nextafter(y, np.inf) if y.dtype.kind == "f" else ~y for y in outputs]


def writes_to_inputs(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    outputs = program.inner.run(inputs)
    for x in inputs:
        if x.flags.writeable:
            x *= 2
    return outputs


def returns_its_own_buffers(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    outputs = program.inner.run(inputs)
    key = str(program.graph)
    kept: list[Array] = program.memory.setdefault(key, outputs)
    for buffer, y in zip(kept, outputs, strict=True):
        buffer[...] = y
    return kept


def returns_an_input(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    graph = program.graph
    outputs = program.inner.run(inputs)
    nodes = graph.outputs.values()
    return [inputs[0] if node is graph.inputs[0] else y for node, y in zip(nodes, outputs, strict=True)]


def remembers_results(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    kept = program.memory.setdefault(str(program.graph), program.inner.run(inputs))
    return [y.copy() for y in kept]


def shares_scratch_between_runs(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    program.memory["scratch"] = inputs
    time.sleep(1e-3)
    mine: Sequence[Array] = program.memory["scratch"]
    return program.inner.run(mine)


def ignores_strides(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return program.inner.run([x.ravel(order="K").reshape(x.shape) for x in inputs])


def loses_nan(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    return [np.nan_to_num(y) if y.dtype.kind == "f" else y for y in program.inner.run(inputs)]


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (a_thousandth_off, layers_agree),
        (a_thousandth_off, wide_layers_agree),
        (a_thousandth_off, graphs_agree),
        (a_thousandth_off, networks_agree),
        (half_precision, layers_agree),
        (half_precision, graphs_agree),
        (other_dtype, layers_agree),
        (first_image_only, graphs_agree),
        (first_image_only, new_sizes_need_no_recompiling),
        (remembers_the_batch, new_sizes_need_no_recompiling),
        (depends_on_threads, threads_give_the_same_bits),
        (depends_on_threads, layers_give_the_same_bits),
        (writes_to_inputs, runs_are_independent),
        (returns_its_own_buffers, runs_are_independent),
        (returns_an_input, runs_are_independent),
        (remembers_results, runs_are_independent),
        (shares_scratch_between_runs, runs_are_independent),
        (ignores_strides, layout_of_inputs_is_free),
        (loses_nan, nan_is_never_lost),
    ],
)
def test_faults_are_found(fault: Fault, check: Check) -> None:
    with pytest.raises(AssertionError, match=r"return (y|output)="):  # the failure shows the graph
        check_backend(Faulty(fault), checks=[check], examples=30)


class TestFaultsOfACompiler:
    """A backend may also be wrong in what it makes of a graph."""

    @staticmethod
    def backend(change: Callable[[Node], Node]) -> Backend:
        def compile_wrongly(graph: Graph) -> Graph:
            return graph.map(lambda old, new: change(new))

        backend = get_backend("reference")
        backend.passes = (compile_wrongly,)
        return backend

    def test_sides_of_the_padding_exchanged(self) -> None:
        def exchange(node: Node) -> Node:
            if not isinstance(node.op, Conv2d):
                return node
            top, left, bottom, right = node.op.padding
            return replace_node(node, op=replace(node.op, padding=(bottom, right, top, left)))

        with pytest.raises(AssertionError, match="conv2d"):
            check_backend(self.backend(exchange), checks=[layers_agree], examples=30)

    def test_the_17th_channel_forgotten(self) -> None:
        """A loop over blocks of 16 channels without its remainder: seen only by a layer that has one."""

        def forget(node: Node) -> Node:
            if not isinstance(node.op, Conv2d) or not node.inputs[1].is_const or node.inputs[1].type.dims[1] <= 16:
                return node
            weight = node.inputs[1].value.copy()
            weight[:, weight.shape[1] // 16 * 16 :] = 0
            return node.with_inputs((node.inputs[0], Node.const(weight), *node.inputs[2:]))

        with pytest.raises(AssertionError, match="conv2d"):
            check_backend(self.backend(forget), checks=[wide_layers_agree], examples=30)


class TestFaultsOfTheInterface:
    def test_nothing_supported(self) -> None:
        class Idle(Faulty):
            def supports(self, node: Node) -> bool:
                return False

        with pytest.raises(AssertionError, match="supports none of the ops"):
            check_backend(Idle(no_fault), examples=1)

    def test_wrong_inputs_accepted(self) -> None:
        class Lenient(Executable):
            def __call__(self, inputs: Any) -> dict[str, Array]:
                return {name: np.zeros(1, np.float32) for name in self.outputs}

        class Accepting(Faulty):
            def compile(self, graph: Graph, *, threads: int | None = None) -> Executable:
                return Lenient(self, graph, threads or 1)

        with pytest.raises(AssertionError, match="no ShapeError"):
            check_backend(Accepting(no_fault), checks=[wrong_inputs_are_refused])

    def test_nothing_explained(self) -> None:
        class Silent(FaultyProgram):
            def steps(self) -> Sequence[Step]:
                return []

        class Mute(Faulty):
            def program(self, graph: Graph, threads: int) -> FaultyProgram:
                return Silent(**vars(super().program(graph, threads)))

        with pytest.raises(AssertionError, match=r"steps\(\) is \[\]"):
            check_backend(Mute(no_fault), checks=[programs_explain_themselves])


def test_one_layer_alone_is_checked_by_its_name() -> None:
    check_backend("reference", layers=["max_pool2d"], examples=5)
    check_backend("llvm", layers=["max_pool2d", "conv2d"], checks=[layers_agree], examples=5)
    check_backend("reference", layers="relu", checks="layers_agree", examples=5)
    check_backend("reference", checks=["graphs_agree", "networks_agree"], examples=1)


@pytest.mark.parametrize("layer", ["softmax", "greater"])
def test_one_layer_alone_is_held_to_the_same_bits_on_all_threads(layer: str) -> None:
    with pytest.raises(AssertionError, match="3 threads differ from one: 'y' by up to"):
        check_backend(Faulty(depends_on_threads), layers=layer, examples=5)


def test_a_check_of_ones_own() -> None:
    suites: list[Suite] = []
    check_backend("reference", checks=suites.append, layers="relu", examples=3, seed=5)
    check_backend("reference", checks=[suites.append, "programs_explain_themselves"], examples=1)
    assert [(suite.backend.name, suite.examples, suite.seed) for suite in suites] == [
        ("reference", 3, 5),
        ("reference", 1, 0),
    ]
    assert suites[0].layers == ("relu",)


def fails_in_two_ways(program: FaultyProgram, inputs: Sequence[Array]) -> Sequence[Array]:
    if inputs[0].size > 40:
        raise IndexError("too large")
    return a_thousandth_off(program, inputs)


def test_of_several_faults_the_smallest_graph_is_shown() -> None:
    """And not a group of errors."""
    with pytest.raises(AssertionError, match="elements are wrong"):
        check_backend(Faulty(fails_in_two_ways), checks=[graphs_agree], examples=30)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layers": ["turn"]}, "no layer is called 'turn'. The layers are abs, add, "),
        ({"layers": ["relu", "conv2"]}, "no layer is called 'conv2': did you mean 'conv2d'? The layers are abs, "),
        ({"layers": ["const"]}, "op 'const' has no strategy that draws it: enter one with @layer('const')"),
        ({"layers": []}, "layers are none"),
        ({"layers": ""}, "no layer is called ''. The layers are"),
        ({"layers": 7}, "layers must be names of ops, or a list of them, got 7"),
        ({"layers": ["relu", 7]}, "layers must be names of ops, got 7 among them"),
        ({"layers": [["relu"]]}, "layers must be names of ops, got ['relu'] among them"),
        ({"layers": print}, "layers must be names of ops, got <built-in function print> among them"),
        ({"layers": [layers_agree]}, "layers must be names of ops, got <function layers_agree"),
        ({"checks": []}, "checks are none"),
        (
            {"checks": "graph_agree"},
            "no check is called 'graph_agree': did you mean 'graphs_agree'? The checks are graphs_agree, ",
        ),
        ({"checks": 7}, "checks must be names of checks or functions that take a Suite, or a list of them, got 7"),
        ({"checks": [None]}, "checks must be names of checks or functions that take a Suite, got None among them"),
        ({"checks": [["layers_agree"]]}, "got ['layers_agree'] among them"),
        ({"examples": 0}, "examples must be a whole number of at least 1, got 0"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"backend": "lvm"}, "unknown backend 'lvm'"),
    ],
    ids=str,
)
def test_wrong_names_are_told(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=re.escape(said)):
        check_backend(**{"backend": "reference", **wrong})


PAGE = (ROOT / "docs" / "write-a-backend.md").read_text(encoding="utf-8")
BACKEND, USE, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_writes_a_small_backend_that_passes() -> None:
    """docs/write-a-backend.md: the code runs as printed, in under 60 lines, and the backend is right."""
    assert len(BACKEND.splitlines()) < 60
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(BACKEND, "write-a-backend.md", "exec"), names)
    exec(compile(USE, "write-a-backend.md", "exec"), names)


@pytest.mark.parametrize("line", re.findall(r"^python (-m graphsr.*)$", PAGE, re.MULTILINE))
def test_the_commands_of_the_page_run(line: str, tmp_path: Path) -> None:
    (tmp_path / "fft_backend.py").write_text(BACKEND, encoding="utf-8")
    words = [*line.split(), "--examples", "1"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"\w+ +ok ", done.stdout)


def test_the_command_finds_what_the_backend_of_the_page_gets_wrong(tmp_path: Path) -> None:
    wrong = BACKEND.replace(" and node.op.stride == (1, 1)", "")
    assert wrong != BACKEND
    (tmp_path / "fft_backend.py").write_text(wrong, encoding="utf-8")
    (line,) = re.findall(r"^python (-m graphsr.* --layers .*)$", PAGE, re.MULTILINE)
    done = subprocess.run([sys.executable, *line.split()], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.match(r"layers_agree +FAILED .*\nbackend 'fft', output 'y': ", done.stdout)
