"""The driver's side of a worker: start it, ask it, stop it while others are measured, end it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BENCH = Path(__file__).resolve().parent.parent
TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables with which a user may have tuned BLAS for another processor; workers run without them."""
LAST_LINES = 300
"""Characters of a dead worker's messages that go into the report."""


class WorkerError(Exception):
    """The engine cannot do what it was asked, for the reason given."""


class Worker:
    """One engine in a process of its own: its threads, its memory and its crashes are its own.

    Between requests it is stopped (SIGSTOP), so that a thread pool that spins while idle disturbs no other engine.
    What it may keep on disk for later processes, it finds in `folder` only.
    """

    def __init__(self, engine: str, folder: Path, threads: int, timeout: float = 600.0) -> None:
        self.timeout = timeout
        caches = folder / f"caches-{engine}-{threads}"
        caches.mkdir(exist_ok=True)
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker"],
            cwd=BENCH,
            env=environment(threads, caches),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._send({"engine": engine, "folder": str(folder), "threads": threads})

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request. Raises `WorkerError` when the engine fails, dies or takes too long."""
        self._process.send_signal(signal.SIGCONT)
        self._send({"do": do, **arguments})
        result = self._receive()
        self._process.send_signal(signal.SIGSTOP)
        if "failed" in result:
            raise WorkerError(result["failed"])
        return result

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._obituary()) from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line, end = b"", time.monotonic() + self.timeout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise WorkerError(f"no answer within {self.timeout:.0f} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise WorkerError(self._obituary())
            line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _obituary(self) -> str:
        """How the process ended, and the end of what it said."""
        code = self._process.wait()
        self._log.seek(0)
        said = " ".join(self._log.read().split())[-LAST_LINES:]
        return f"the process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}: {said}"


def environment(threads: int, caches: Path) -> dict[str, str]:
    """The variables of a worker. OpenMP is told the threads here too: some engines ask only it."""
    kept = {name: value for name, value in os.environ.items() if name not in TUNING}
    return kept | {"OMP_NUM_THREADS": str(threads), "XDG_CACHE_HOME": str(caches)}
