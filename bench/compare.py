"""Compares graphsr's backends with other CPU engines: speed, load time, memory and accuracy, in one interleaved run.

    python bench/compare.py [--networks edsr-128 ...] [--engines llvm onnxruntime ...] [--threads 1 2] [--rounds 5]
                            [--json out.json] [--markdown out.md] [--plot out.png] [--quick] [--fresh]

Every engine that is installed (`pip install -e '.[bench]'`) runs in a process of its own. In each round every engine
runs once, one at a time while the others are stopped, beside the peak of fused multiply-adds and the copy bandwidth of
the same moment, so that all meet the same neighbours on the machine. Networks have seeded random weights. An engine's
output (of a batch the first image and the last) is compared with graphsr's reference backend in float64 before anything
is timed. llvm-memory-low and its like, the backend with an option, run where they are named.

GFLOP/s are effective: the operations of the direct sum over the time, whatever the algorithm saves, so Winograd may
pass 100 % of the peak. A layer without arithmetic is given in GB/s of its input and output, of the copy bandwidth.
Load is the time from a file on disk to the first result, imports apart: of the first process, and of later ones, which
find what it has left in its cache. "cores" is the mean number of processors that an engine used: much less than its
threads where others used the machine, and then the figures say little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from graphsr.backends.reference import ReferenceBackend
from graphsr.importers.onnx_export import onnx_model
from graphsr.model import Model
from graphsr.op import Array
from graphsr.threads import available_threads

from peers.engines import ENGINES, OWN
from peers.networks import CASES, Case, Work, folded, save_model, work
from peers.process import Worker, WorkerError
from peers.report import Result, Round, host, markdown, plot, save, table

WRONG = 0.05
"""Maximum error, over the standard deviation of the output, beyond which an engine does not compute the network."""
RUN_SECONDS = 0.3
"""For about this long an engine runs in each round."""


class Entrant:
    """One engine on one network and number of threads."""

    def __init__(self, result: Result, folder: Path, resident: bool) -> None:
        self.result = result
        self.folder = folder
        self.resident = resident
        self._worker: Worker | None = None

    def check(self, reference: Array, step: int) -> None:
        """Load in a first process, then in the one that stays, which finds what the first has left on disk; compare
        with the reference. A failure is noted and ends the entrant's part."""
        with self._noted():
            with self._loaded():
                self.close()
            with self._loaded() as worker:
                path = Path(worker.ask("check", step=step)["path"])
            output = np.load(path)
            path.unlink()
            self.result.error = relative_error(output, reference)
            if not self.result.error <= WRONG:
                raise WorkerError(f"wrong output: maximum error {self.result.error:.2g} of its standard deviation")

    def round(self) -> None:
        if not self.result.failure:
            with self._noted(), self._loaded() as worker:
                answer = worker.ask("run", seconds=RUN_SECONDS)
                self.result.seconds.append(median(answer["seconds"]))
                self.result.cores.append(answer["cores"])
                self.result.rss = max(self.result.rss, answer["rss"])

    def close(self) -> None:
        if self._worker:
            self._worker.close()
            self._worker = None

    @contextmanager
    def _loaded(self) -> Iterator[Worker]:
        """The worker with the network in it; it is kept, or ended behind the block."""
        if self._worker is None:
            self._worker = Worker(self.result.engine, self.folder, self.result.threads)
            answer = self._worker.ask("load", variant=self.result.variant)
            self.result.imports.append(answer["import"])
            self.result.loads.append(answer["load"])
            self.result.rss = max(self.result.rss, answer["rss"])
        yield self._worker
        if not self.resident:
            self.close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            self.result.failure = str(error)
            self.close()


def relative_error(output: Array, reference: Array) -> float:
    """max |output − reference| / std(reference); infinite where the shapes differ."""
    if output.shape != reference.shape:
        return float("inf")
    difference = max(float(np.abs(y - r).max()) for y, r in zip(output, reference, strict=True))
    return difference / float(reference.std())


def prepare(case: Case, model: Model, folder: Path) -> None:
    """Write the files that the engines read."""
    peers_model = folded(model)
    np.save(folder / "input.npy", case.input(model))
    save_model(model, folder / "model")
    save_model(peers_model, folder / "folded")
    onnx.save(onnx_model(peers_model.graph.bind({"input": case.shape})), folder / "model.onnx")


def new_result(case: Case, done: Work, engine: str, threads: int, folder: Path) -> Result:
    """An empty result. The engine converts what it has to and finds its faster variant; a failure is noted."""
    version = ENGINES[engine].version() or ""
    result = Result(case.name, case.shape, done.flops, done.moved, engine, version, threads)
    try:
        if ENGINES[engine].needs_preparation:
            with Worker(engine, folder, threads) as worker:
                result.variant = worker.ask("prepare")["variant"]
    except WorkerError as error:
        result.failure = f"preparing: {error}"
    return result


def run_case(case: Case, options: argparse.Namespace) -> Iterator[list[Result]]:
    """The results of one network, for each number of threads."""
    model = case.build()
    step = max(1, case.shape[0] - 1)  # the first image of a batch and the last one
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        prepare(case, model, folder)
        x = np.load(folder / "input.npy", mmap_mode="r")[::step]
        reference = ReferenceBackend("float64").compile(model.graph)({"input": x})["output"]
        for threads in options.threads:
            done = work(model, case.shape)
            results = [new_result(case, done, engine, threads, folder) for engine in options.engines]
            entrants = [Entrant(result, folder, case.resident and not options.fresh) for result in results]
            measure(entrants, reference, step, threads, options.rounds, folder)
            yield results


def measure(entrants: list[Entrant], reference: Array, step: int, threads: int, rounds: int, folder: Path) -> None:
    """Check all, then run them by turns; who is first changes from round to round."""
    with ExitStack() as stack:
        machine = stack.enter_context(Worker("machine", folder, threads))
        for entrant in entrants:
            stack.callback(entrant.close)
            if not entrant.result.failure:
                entrant.check(reference, step)
        for number in range(rounds):
            peak = Round(**machine.ask("measure"))
            turn = number % len(entrants)
            for entrant in entrants[turn:] + entrants[:turn]:
                entrant.round()
                entrant.result.rounds.append(peak)


def main() -> int:
    options = parse(sys.argv[1:])
    installed = [name for name in options.engines if ENGINES[name].version() is not None]
    if absent := [name for name in options.engines if name not in installed]:
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
    if not installed:
        return 2
    options.engines = installed
    about = host() | {"rounds": options.rounds, "quick": options.quick, "fresh processes": options.fresh}
    about |= {name: ENGINES[name].version() for name in installed}
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    results: list[Result] = []
    try:
        for case in (case for case in CASES if case.name in options.networks):
            for group in run_case(case.shrunk() if options.quick else case, options):
                results += group
                print(f"\n{table(group, OWN)}", flush=True)
                write(options, about, results)
    except KeyboardInterrupt:
        print("interrupted; what was finished is written", file=sys.stderr)
        return 130
    return 0


def write(options: argparse.Namespace, about: dict[str, Any], results: list[Result]) -> None:
    """The files that were asked for, after each network anew."""
    if options.json:
        save(options.json, about, results)
    if options.markdown:
        options.markdown.write_text(markdown(results, OWN), encoding="utf-8")
    if options.plot:
        plot(results, OWN, options.plot)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--networks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    usual = [name for name, engine in ENGINES.items() if not engine.extra]
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=usual, metavar="NAME", help=", ".join(ENGINES))
    both = sorted({1, min(2, available_threads())})
    parser.add_argument("--threads", nargs="+", type=int, default=both)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write everything that was measured here, after each network")
    parser.add_argument("--markdown", type=Path, help="write the table for the README here")
    parser.add_argument("--plot", type=Path, help="write a bar plot here (PNG)")
    parser.add_argument("--quick", action="store_true", help="one round on images of 32 x 32: does everything run?")
    parser.add_argument(
        "--fresh", action="store_true", help="new processes in each round: some engines are faster in some processes"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    if options.rounds < 1 or min(options.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
