"""Code for every instruction set: it stays in its registers, assembles, and computes the same."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from llvm_assembly import SPILL, innermost_loops
from llvm_kernels import kernels, kinds

from graphsr.backends.llvm.jit import emit_assembly, emit_object
from graphsr.backends.llvm.kernel import Kernel
from graphsr.backends.llvm.loops import module
from graphsr.backends.llvm.target import named
from graphsr.op import Array

NAMES = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "aarch64")
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


ADVICE = (
    "a loop holds more vectors than there are registers: write it for one register at a time (`Function.narrowed`, "
    "`Function.pieces`), unroll it less, or leave its constants in memory (`Function.stored`)"
)


@cache
def assemblies(name: str) -> dict[Kernel, str]:
    """The assembly of every kernel on a target."""
    target = named(name)
    return {kernel: emit_assembly(module([kernel.function(target)]), target) for kernel in kernels(target)}


@pytest.mark.parametrize("name", NAMES)
def test_innermost_loops_keep_their_vectors_in_registers(name: str) -> None:
    """R10: no innermost loop of any kernel stores a vector to the stack or loads one from it."""
    loops = {kernel: innermost_loops(assembly) for kernel, assembly in assemblies(name).items()}
    assert sum(map(len, loops.values())) > len(loops)
    spilling = {kernel: sum(len(SPILL.findall(loop)) for loop in those) for kernel, those in loops.items()}
    found = "\n".join(f"{count} times {kernel}" for kernel, count in spilling.items() if count)
    assert not found, f"{ADVICE}; on {name} there are loads and stores of the stack:\n{found}"


@pytest.mark.parametrize("name", NAMES)
def test_every_class_of_kernels_is_read(name: str) -> None:
    """What the test above does not see may spill: each class has a layer in llvm_kernels.py that needs it."""
    absent = sorted(kind.__name__ for kind in kinds() - {type(kernel) for kernel in kernels(named(name))})
    assert not absent, (
        f"no layer in tests/llvm_kernels.py is computed by {', '.join(absent)} on {name}: add a Case to `layers()` "
        "(or a graph to `graphs()`) whose plan has such a call"
    )


@pytest.mark.parametrize("name", NAMES)
def test_kernels_assemble_and_call_nothing(name: str) -> None:
    """No libm behind the back: a fused multiply-add, a power or a rounding is made of the target's instructions."""
    target = named(name)
    text = module([kernel.function(target) for kernel in kernels(target)])
    image = emit_object(text, target)
    assert int.from_bytes(image[18:20], "little") == (183 if name == "aarch64" else 62)  # e_machine of ELF
    calls = re.compile(r"^\s+(?:callq?|bl)\s+\S+", re.MULTILINE)
    assert not [kernel for kernel, assembly in assemblies(name).items() if calls.search(assembly)]


RUN = """
import sys
import numpy as np
from graphsr import ops
from graphsr.ir import Graph, Node, TensorType
from graphsr.models import edsr, wdsr_a
from graphsr.backends.llvm.backend import LlvmBackend
results = {}
x = Node.input("x", TensorType("float32", (97,)))
functions = [ops.Exp(), ops.Log(), ops.Tanh(), ops.Logistic(), ops.Erf(), ops.Gelu(), ops.Sin(), ops.Cos(), ops.Mish()]
y = {op.name: Node(op, (x,)) for op in functions} | {"pow": Node(ops.Pow(), (x, x))}
run = LlvmBackend().compile(Graph((x,), y), threads=1)
results.update(run({"x": np.geomspace(0.01, 8, 97, dtype=np.float32)}))
for name, model in (("edsr", edsr(scale=2, blocks=2, features=32)), ("wdsr", wdsr_a(scale=2, blocks=2))):
    run = LlvmBackend().compile(model.graph, threads=2)
    x = np.random.default_rng(0).random((1, 3, 17, 23), np.float32) * 255
    results[name] = next(iter(run({next(iter(model.graph.inputs)).name: x}).values()))
np.savez(sys.argv[1], **results)
"""


def run_on(folder: Path, level: str, *emulator: str) -> dict[str, Array]:
    """The outputs of two small networks, and elementary functions, computed by a process with this GRAPHSR_TARGET."""
    result = folder / f"{level or 'host'}.npz"
    environment = {**os.environ, "GRAPHSR_TARGET": level, "GRAPHSR_CACHE": "0"}
    subprocess.run([*emulator, sys.executable, "-c", RUN, str(result)], env=environment, check=True, timeout=250)
    with np.load(result) as arrays:
        return dict(arrays)


def assert_close(got: dict[str, Array], want: dict[str, Array]) -> None:
    for name, y in want.items():
        error = np.abs(got[name] - y).max() / y.std()
        assert error <= 2e-4, (name, error)  # 1e-4 of the output's deviation for each of the two


@pytest.mark.skipif(not IS_X86, reason="levels of x86-64")
@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v2"])
def test_lower_levels_compute_the_same(tmp_path: Path, level: str) -> None:
    assert_close(run_on(tmp_path, level), run_on(tmp_path, ""))


@pytest.mark.skipif(not IS_X86, reason="levels of x86-64")
@pytest.mark.parametrize(("level", "processor"), [("x86-64-v3", "Haswell"), ("x86-64-v2", "Nehalem")])
def test_levels_run_on_their_oldest_processors(tmp_path: Path, level: str, processor: str) -> None:
    """R10: without GRAPHSR_TARGET the level is found; another one would die of an illegal instruction."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("qemu-user is not installed")
    emulated = run_on(tmp_path, "", qemu, "-cpu", processor)
    assert_close(emulated, run_on(tmp_path, level))


def test_a_target_that_cannot_be_is_refused() -> None:
    code = "from graphsr.backends.llvm.backend import LlvmBackend; LlvmBackend()"
    environment = {**os.environ, "GRAPHSR_TARGET": "x86-64-v9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "BackendError: GRAPHSR_TARGET=x86-64-v9: this machine runs" in done.stderr
