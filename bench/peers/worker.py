"""The process of one engine: `python -m peers.worker`, driven by `peers.process.Worker` with lines of JSON.

The first line is the job: {"engine", "folder", "threads"}; then come requests, {"do": "load" | "run" | "check" |
"prepare" | "measure", …}. Each is answered by one line: a result, or {"failed": reason}.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from graphsr.op import Array

from peers.engines import ENGINES, Run
from peers.machine import Machine

WARM_SECONDS = 0.5
"""A run shorter than this only warms the caches up, which a longer one does not notice."""
MOST_RUNS = 20
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Session:
    """What the requests are asked of."""

    def __init__(self, engine: str, folder: str, threads: int) -> None:
        self.name, self.folder, self.threads = engine, Path(folder), threads
        self.output: Array | None = None

    def prepare(self) -> dict[str, Any]:
        """Make the engine's own files, and find its faster variant."""
        return {"variant": ENGINES[self.name].prepare(self.folder, self.threads, np.load(self.folder / "input.npy"))}

    def load(self, variant: str) -> dict[str, Any]:
        """Import the engine, load the network, run it once: seconds of the first, and of the two others together; and
        the largest memory."""
        self.x: Array = np.load(self.folder / "input.npy")
        start = time.perf_counter()
        import_module(ENGINES[self.name].module)
        imported = time.perf_counter()
        self.network: Run = ENGINES[self.name].load(self.folder, self.threads, variant)
        self._timed()
        return {"import": imported - start, "load": time.perf_counter() - imported, "rss": peak_rss()}

    def run(self, seconds: float) -> dict[str, Any]:
        """Seconds of each run, for about this long; how many processors were at work in the mean; and the largest
        memory of the process so far, in bytes."""
        wall, processor = time.perf_counter(), time.process_time()
        first = self._timed()
        times = [first] if first >= WARM_SECONDS else []
        while not times or (sum(times) < seconds and len(times) < MOST_RUNS):
            times.append(self._timed())
        cores = (time.process_time() - processor) / (time.perf_counter() - wall)
        return {"seconds": times, "cores": cores, "rss": peak_rss()}

    def check(self, step: int) -> dict[str, Any]:
        """Write every `step`-th image of the last output to a file."""
        assert self.output is not None
        path = self.folder / f"output-{os.getpid()}.npy"
        np.save(path, self.output[::step])  # a view: no memory of its own
        return {"path": str(path)}

    def _timed(self) -> float:
        self.output = None  # the last one's memory is free for the next
        start = time.perf_counter()
        self.output = self.network(self.x)
        return time.perf_counter() - start


class MachineSession:
    """The same for the machine itself."""

    def __init__(self, threads: int) -> None:
        self.machine = Machine(threads)

    def measure(self) -> dict[str, Any]:
        flops, bandwidth = self.machine.measure()
        return {"flops": flops, "bandwidth": bandwidth}


def peak_rss() -> int:
    """Largest resident memory of this process, in bytes.

    On Linux from the process' own status: what getrusage says is at least the size of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def answer(request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result, or why there is none: whatever an engine raises is an answer, for it goes into the report."""
    try:
        return request()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def own_output() -> TextIO:
    """The pipe to the driver, taken from standard output: what engines print goes to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def end_with_driver() -> None:
    """On Linux: be killed when the driver is gone, however it went. A stopped process would not notice."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    end_with_driver()
    pipe = own_output()
    job = json.loads(sys.stdin.readline())
    session = MachineSession(job["threads"]) if job["engine"] == "machine" else Session(**job)
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(session, request.pop("do"))
        print(json.dumps(answer(partial(method, **request))), file=pipe)


if __name__ == "__main__":
    main()
