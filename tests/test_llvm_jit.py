"""IR text becomes machine code: for this machine and for others, from several threads, with errors that say where."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from guard import guarded

from graphsr.backends.llvm import target as target_module
from graphsr.backends.llvm.jit import Code, compile_ir, emit_assembly, emit_object
from graphsr.backends.llvm.target import Target, host, named
from graphsr.errors import BackendError

NAMES = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "aarch64")

SUM = """
define void @add(ptr %x, ptr %y) {
  %a = load <16 x float>, ptr %x, align 4
  %b = load <16 x float>, ptr %y, align 4
  %c = fadd <16 x float> %a, %b
  store <16 x float> %c, ptr %y, align 4
  ret void
}
"""


def answer(number: int) -> str:
    return f"define i64 @answer() {{\n  ret i64 {number}\n}}\n"


def call(code: Code, symbol: str = "answer") -> int:
    """The result of a function; the code is held meanwhile."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(code.address(symbol))())


# --- targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "register", "tile"),
    [
        ("x86-64-v4", "zmm", (12, 2)),
        ("x86-64-v3", "ymm", (6, 1)),
        ("x86-64-v2", "xmm", (2, 1)),
        ("aarch64", r"v\d+\.4s", (5, 1)),
    ],
)
def test_a_target_uses_its_whole_registers(name: str, register: str, tile: tuple[int, int]) -> None:
    target = named(name)
    assert (target.rows, target.panels) == tile
    used = target.rows * target.panels * 512 // target.vector_bits
    assert used <= target.registers, "the accumulators of the register tile fit the registers"
    assert re.search(register, emit_assembly(SUM, target))
    wider = {"x86-64-v3": "zmm", "x86-64-v2": "ymm"}.get(name)
    assert wider is None or wider not in emit_assembly(SUM, target)


@pytest.mark.parametrize("name", NAMES)
def test_fused_multiply_add_is_one_instruction_where_the_target_has_it(name: str) -> None:
    v = "<16 x float>"
    text = SUM.replace(f"fadd {v} %a, %b", f"call {v} @llvm.fma.v16f32({v} %a, {v} %b, {v} %b)")
    assembly = emit_assembly(f"declare {v} @llvm.fma.v16f32({v}, {v}, {v})\n{text}", named(name))
    assert bool(re.search(r"vfmadd|fmla", assembly)) == named(name).has_fma


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_for_the_machine(name: str) -> None:
    machine = int.from_bytes(emit_object(SUM, named(name))[18:20], "little")  # e_machine of ELF
    assert machine == {"aarch64": 183}.get(name, 62)


def test_the_host_runs_its_target() -> None:
    x, y = np.arange(16, dtype=np.float32), np.ones(16, np.float32)
    add = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    for name in target_module._runnable():
        code = compile_ir(SUM, named(name))
        y[...] = 1
        add(code.address("add"))(x.ctypes.data, y.ctypes.data)
        np.testing.assert_array_equal(y, x + 1)


def test_an_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(BackendError, match="x86-64-v4, x86-64-v3, x86-64-v2, aarch64"):
        named("znver5")


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="levels of x86-64")
def test_the_target_follows_the_features_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator shows an odd processor name; what it can do is what counts."""
    monkeypatch.delenv("GRAPHSR_TARGET", raising=False)
    v4 = dict.fromkeys(target_module._V4, True)
    for features, expected in (
        (v4, "x86-64-v4"),
        (v4 | {"avx512vl": False}, "x86-64-v3"),
        (v4 | {"fma": False}, "x86-64-v2"),
    ):
        assert pretend(monkeypatch, features) == expected
    with pytest.raises(BackendError, match="needs x86-64-v2"):
        pretend(monkeypatch, {"sse2": True})


def test_windows_is_refused_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(BackendError, match=r'Linux and macOS.*backend="numpy"'):
        host()


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="levels of x86-64")
def test_a_lower_target_can_be_asked_for_and_a_higher_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    v3 = dict.fromkeys(target_module._V3, True)
    monkeypatch.setenv("GRAPHSR_TARGET", "x86-64-v2")
    assert pretend(monkeypatch, v3) == "x86-64-v2"
    for name in ("x86-64-v4", "aarch64", "nonsense"):
        monkeypatch.setenv("GRAPHSR_TARGET", name)
        with pytest.raises(BackendError, match=f"{name}: this machine runs x86-64-v3, x86-64-v2"):
            pretend(monkeypatch, v3)


def pretend(monkeypatch: pytest.MonkeyPatch, features: dict[str, bool]) -> str:
    """The name of the target that a host with these features gets."""
    with monkeypatch.context() as patch:
        patch.setattr("llvmlite.binding.get_host_cpu_features", lambda: features)
        target_module._runnable.cache_clear()
        try:
            return host().name
        finally:
            target_module._runnable.cache_clear()


# --- code ---------------------------------------------------------------------------------------------------------


def test_code_lives_as_long_as_it_is_held() -> None:
    kept = compile_ir(answer(41), host())
    for number in range(50):  # engines that come and go around it
        compile_ir(answer(number), host())
    gc.collect()
    assert call(kept) == 41


def test_functions_by_name() -> None:
    hidden = "define internal void @hidden() {\n ret void\n}\n"
    code = compile_ir(answer(1) + answer(2).replace("answer", "other") + hidden, host())
    assert call(code) == 1
    assert call(code, "other") == 2
    with pytest.raises(BackendError, match="no function 'hidden'; it has answer, other"):
        code.address("hidden")


def test_equal_names_in_different_modules_do_not_meet() -> None:
    codes = [compile_ir(answer(number), host()) for number in range(5)]
    assert [call(code) for code in codes] == list(range(5))


def test_functions_of_the_process_can_be_called() -> None:
    text = "declare i32 @sched_yield()\ndefine i64 @answer() {\n %x = call i32 @sched_yield()\n ret i64 3\n}\n"
    assert call(compile_ir(text, host())) == 3


@pytest.mark.parametrize("cached", [False, True])
def test_bad_ir_is_told_with_function_and_line(cached: bool) -> None:
    text = answer(1) + "define void @wrong() {\n  %x = add i32 %y, 1\n  ret void\n}\n"
    with pytest.raises(BackendError, match=r"function wrong, line 5: %x = add i32 %y, 1"):
        compile_ir(text, host(), cached=cached)


def test_ir_that_does_not_verify_is_refused() -> None:
    text = "define i64 @answer() {\n %x = add i64 %z, 1\n %z = add i64 %x, 1\n ret i64 %z\n}\n"
    with pytest.raises(BackendError, match="dominate"):
        compile_ir(text, host())


def test_a_missing_function_is_named() -> None:
    text = "declare void @no_such_thing()\ndefine void @f() {\n call void @no_such_thing()\n ret void\n}\n"
    with pytest.raises(BackendError, match="not in this process: no_such_thing"):
        compile_ir(text, host())


def test_compilation_from_several_threads() -> None:
    """R16, in small: each thread gets its own code, while others compile and run."""
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 25):
            code = compile_ir(answer(number), host(), cached=number % 2 == 0)
            if call(code) != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_during_a_compilation_can_compile() -> None:
    ended = threading.Event()

    def compile_on() -> None:
        number = 0
        while not ended.is_set():
            compile_ir(answer(number), host(), cached=False)
            number += 1

    compiler = threading.Thread(target=compile_on)
    compiler.start()
    try:
        for number in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs dies
                status = 1
                try:
                    status = 0 if call(compile_ir(answer(number), host())) == number else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        ended.set()
        compiler.join()


def test_compiling_for_long_takes_no_more_memory() -> None:
    """R17: code that is dropped is unloaded."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def compile_many(count: int) -> None:
        for number in range(count):
            compile_ir(answer(number), host(), cached=False)

    compile_many(30)
    before = resident()
    compile_many(100)
    assert resident() - before < 100 * 70_000


# --- looking at it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "ir", "assembly"), [("2", False, False), ("3", True, False), ("4", True, True)])
def test_debug_levels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, ir: bool, assembly: bool
) -> None:
    monkeypatch.setenv("GRAPHSR_DEBUG", level)
    compile_ir(answer(5), host())
    seen = capsys.readouterr().err
    assert ("ret i64 5" in seen) == ir
    assert (".text" in seen) == assembly


def test_dump_writes_ir_and_assembly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHSR_DUMP", str(tmp_path / "dump"))
    for _ in range(2):  # the second comes from the cache, and is dumped, too
        compile_ir(answer(6), host())
        ir, assembly = sorted((tmp_path / "dump").iterdir())
        assert ir.name.startswith("answer_")
        assert ir.suffix == ".ll"
        assert ir.read_text() == answer(6)
        assert "answer:" in assembly.read_text()
        ir.unlink()
        assembly.unlink()


# --- guard pages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("misaligned", [0, 4, 28, 60])
@pytest.mark.parametrize("side", ["before", "behind"])
def test_what_stays_inside_passes_the_guards(side: Literal["before", "behind"], misaligned: int) -> None:
    x = guarded((16,), np.float32, side=side, misaligned=misaligned, fill=np.arange(16, dtype=np.float32))
    y = guarded((16,), np.float32, fill=np.zeros(16, np.float32))
    add = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    code = compile_ir(SUM, host())
    add(code.address("add"))(x.ctypes.data, y.ctypes.data)
    np.testing.assert_array_equal(y, np.arange(16, dtype=np.float32))


OVERRUN = """
import ctypes, sys
sys.path.insert(0, {tests!r})
import numpy as np
from guard import guarded
from test_llvm_jit import SUM, compile_ir, host
x = guarded(({count},), np.float32, side={side!r})
y = np.zeros(32, np.float32)
code = compile_ir(SUM, host())
ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("add"))(x.ctypes.data + {shift}, y.ctypes.data)
"""


@pytest.mark.parametrize(("count", "side", "shift"), [(15, "behind", 0), (16, "behind", 4), (16, "before", -4)])
def test_what_goes_outside_dies_at_the_guards(count: int, side: str, shift: int) -> None:
    code = OVERRUN.format(tests=os.path.dirname(__file__), count=count, side=side, shift=shift)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert out.returncode == -11, out.stderr


def test_targets_are_plain_data() -> None:
    assert named("aarch64") == named("aarch64")
    assert isinstance(host(), Target)
    assert len({named(name) for name in NAMES}) == len(NAMES)
    assert named("x86-64-v3").features.split(",") == sorted(named("x86-64-v3").features.split(","))
