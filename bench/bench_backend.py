"""Whole networks on the numpy backend, beside the sgemm peak of the same minute.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python bench/bench_backend.py [--threads 2] [--rounds 5]

Every round runs sgemm and each variant once, so that all of them meet the same neighbours on the machine; ratios hold
where seconds do not. GFLOP/s are effective: the operations of the direct sum over the time, whatever the algorithm
saves. They are given per second of wall clock (medians of the rounds) and per second of processor time of one thread
(the fastest round), each as a share of the same figure of sgemm; on a machine that others use, the latter is the one
to compare. Memory is what the plan says and the largest sum of NumPy's allocations during one run (tracemalloc),
weights apart.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import numpy as np

from graphsr.backend import Executable
from graphsr.backends.fast_numpy import NumpyBackend, NumpyProgram
from graphsr.backends.workers import one_blas_thread
from graphsr.model import Model
from graphsr.models import edsr, wdsr_a
from graphsr.op import Array
from graphsr.passes import DEFAULT, Pass, choose_conv_algorithm
from graphsr.threads import resolve_threads

SIZE = 128
"""Height and width of the input."""

NETWORKS: dict[str, Callable[[], Model]] = {
    "edsr": lambda: edsr(scale=2, blocks=32, features=256, res_scale=0.1),
    "edsr-baseline": lambda: edsr(scale=2),
    "wdsr": lambda: wdsr_a(scale=4, blocks=32, features=32, expanded=192),
}

VARIANTS: dict[str, Pass] = {
    "direct": partial(choose_conv_algorithm, tiles=()),
    "winograd_f4": partial(choose_conv_algorithm, tiles=(4,), transform_cost=0.0),
    "default": choose_conv_algorithm,
}
"""How the last pass chooses: no Winograd, F(4, 3) wherever it fits, or by cost."""


@dataclass
class Times:
    """What the rounds measured, in seconds."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def measure(self, work: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    def rates(self, gflop: float) -> tuple[float, float]:
        """GFLOP per second of wall clock (median), and of processor time (best)."""
        return gflop / median(self.wall), gflop / min(self.processor)


class Sgemm:
    """Products of 1536 x 1536 matrices, one on each thread at a time, as the backend calls BLAS."""

    size, repeats = 1536, 4

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.a, self.b = np.ones((2, self.size, self.size), np.float32)
        self.products = np.empty((threads, self.size, self.size), np.float32)

    @property
    def gflop(self) -> float:
        return 2e-9 * self.size**3 * self.threads * self.repeats

    def __call__(self) -> None:
        def work(out: Array) -> None:
            for _ in range(self.repeats):
                np.matmul(self.a, self.b, out=out)

        with one_blas_thread(), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, self.products))


def compile_with(model: Model, choose: Pass, threads: int) -> Executable:
    backend = NumpyBackend()
    backend.passes = (*DEFAULT[:-1], choose)
    return backend.compile(model.graph, threads=threads)


def measured_bytes(run: Executable, x: Array) -> int:
    """The largest sum of allocations during one run, when sizes are bound and weights transformed."""
    run.bind({"input": x.shape})
    tracemalloc.start()
    try:
        run({"input": x})
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bench(name: str, threads: int, rounds: int) -> None:
    model = NETWORKS[name]()
    x = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32) * 255
    sgemm = Sgemm(threads)
    runs = {variant: compile_with(model, choose, threads) for variant, choose in VARIANTS.items()}
    memory = {variant: measured_bytes(run, x) for variant, run in runs.items()}  # and warm up
    times = {variant: Times() for variant in ("sgemm", *runs)}
    for _ in range(rounds):
        times["sgemm"].measure(sgemm)
        for variant, run in runs.items():
            times[variant].measure(partial(run, {"input": x}))
    peak = times["sgemm"].rates(sgemm.gflop)
    print(f"\n{name} at {SIZE} x {SIZE}, {threads} threads: sgemm {peak[0]:.0f} GFLOP/s, {peak[1]:.0f} per processor")
    print(f"  {'':12} seconds  GFLOP/s  of sgemm  per processor  of sgemm  planned   live  measured MB")
    for variant, run in runs.items():
        program = run.bind({"input": x.shape})
        assert isinstance(program, NumpyProgram)
        gflop = 2e-9 * sum(step.macs for step in program.steps())
        wall, processor = times[variant].rates(gflop)
        sizes = (program.planned_bytes, program.plan.live_bytes, memory[variant])
        print(
            f"  {variant:12} {median(times[variant].wall):7.3f}  {wall:7.0f}  {wall / peak[0]:8.0%}"
            f"  {processor:13.0f}  {processor / peak[1]:8.0%}" + "".join(f"  {size / 1e6:7.1f}" for size in sizes)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="default: all that are available")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="default: all; may be repeated")
    options = parser.parse_args()
    tuned = {name: os.environ[name] for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ}
    if tuned:
        print(f"BLAS is tuned by the environment, which the figures are not meant for: {tuned}")
    for name in options.network or NETWORKS:
        bench(name, resolve_threads(options.threads), options.rounds)


if __name__ == "__main__":
    main()
