"""What the machine can do at this moment: the peak of fused multiply-adds, and how fast memory is copied.

An engine's GFLOP/s mean little alone on a machine that others use; measured beside these in the same round they do.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import llvmlite.binding as llvm
import numpy as np

from graphsr.op import Array

ITERATIONS = 1_000_000
REPEATS = 5
PROCESSORS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
"""Those that the process may use, before any thread is pinned."""
COPIED = 1 << 27
"""Bytes that are copied: far more than the caches hold."""


@dataclass(frozen=True)
class Vectors:
    """The widest vectors of the processor, and as many accumulators as leave registers for two operands."""

    lanes: int
    accumulators: int
    fused: bool

    @property
    def flops(self) -> int:
        """Of one iteration."""
        return 2 * self.lanes * self.accumulators


def host_vectors() -> Vectors:
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Vectors(16, 24, True)
    if features.get("avx2") and features.get("fma"):
        return Vectors(8, 12, True)
    if features.get("neon"):
        return Vectors(4, 24, True)
    return Vectors(4, 12, False)


def peak_ir(vectors: Vectors) -> str:
    """LLVM IR of a loop of independent chains a ← a·x + y: each waits only for itself, so every unit stays busy.

    for i in 0 … n:  for each accumulator a:  a = a·x + y
    """
    count, kind = vectors.accumulators, f"<{vectors.lanes} x float>"
    step = f"call {kind} @llvm.{'fma' if vectors.fused else 'fmuladd'}.v{vectors.lanes}f32"
    phis = [f"%a{k} = phi {kind} [ %start, %entry ], [ %n{k}, %loop ]" for k in range(count)]
    steps = [f"%n{k} = {step}({kind} %a{k}, {kind} %x, {kind} %y)" for k in range(count)]
    sums = [f"%s{k + 1} = fadd {kind} {'%n0' if k == 0 else f'%s{k}'}, %n{k + 1}" for k in range(count - 1)]
    return "\n".join(
        [
            f"declare {kind} @{step.split('@')[1]}({kind}, {kind}, {kind})",
            "define void @peak(i64 %n, ptr %data) {",
            "entry:",
            f"%x = load {kind}, ptr %data, align 4",
            f"%y = load {kind}, ptr %data, align 4",
            f"%start = load {kind}, ptr %data, align 4",
            "br label %loop",
            "loop:",
            "%i = phi i64 [ 0, %entry ], [ %j, %loop ]",
            *phis,
            *steps,
            "%j = add i64 %i, 1",
            "%more = icmp ult i64 %j, %n",
            "br i1 %more, label %loop, label %done",
            "done:",
            *sums,
            f"store {kind} %s{count - 1}, ptr %data, align 4",  # or LLVM would find the loop of no use
            "ret void",
            "}",
        ]
    )


def pin(thread: int) -> None:
    """Keep the calling thread on a processor of its own, where the system can: two on one would halve the peak."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(PROCESSORS)
        os.sched_setaffinity(0, {allowed[thread % len(allowed)]})


class Machine:
    """Measures both with this many threads."""

    def __init__(self, threads: int) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.threads = threads
        self.vectors = host_vectors()
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
        )
        self._code = llvm.create_mcjit_compiler(llvm.parse_assembly(peak_ir(self.vectors)), target)
        address = self._code.get_function_address("peak")
        self._peak = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(address)
        self._data = np.zeros((threads, self.vectors.lanes), np.float32)
        self._source, self._target = np.ones((2, threads, COPIED // 4 // threads), np.float32)

    def measure(self) -> tuple[float, float]:
        """(FLOP/s of fused multiply-adds, bytes/s read and written by a copy): the best of a few tries."""
        flops = self.vectors.flops * ITERATIONS * self.threads
        moved = 2 * self._source.nbytes
        with ThreadPoolExecutor(self.threads) as pool:
            return flops / self._best(pool, self._multiply), moved / self._best(pool, self._copy)

    def _best(self, pool: ThreadPoolExecutor, work: Callable[[int], None]) -> float:
        """Seconds from the first start to the last end, when all threads start together."""
        barrier = Barrier(self.threads)

        def timed(thread: int) -> tuple[float, float]:
            pin(thread)
            barrier.wait()
            start = time.perf_counter()
            work(thread)
            return start, time.perf_counter()

        def once() -> float:
            starts, ends = zip(*pool.map(timed, range(self.threads)), strict=True)
            return max(ends) - min(starts)

        return min(once() for _ in range(REPEATS))

    def _multiply(self, thread: int) -> None:
        self._peak(ITERATIONS, self._data[thread].ctypes.data)

    def _copy(self, thread: int) -> None:
        target, source = self._chunk(thread)
        np.copyto(target, source)

    def _chunk(self, thread: int) -> tuple[Array, Array]:
        return self._target[thread], self._source[thread]
