"""Native threads that enter a compiled function together.

    team(2).run(entry, context, stop)     # void entry(ptr context, i64 thread, i64 threads), once on every thread

All threads of a team are inside at the same time, so compiled code may meet at barriers. Between runs they wait inside
compiled code, without the interpreter's lock: waking them takes one system call, and no busy Python thread delays them.

    worker: while (sequence == the last one) sleep;  entry(context, thread, threads);  if (--left == 0) wake the caller
    caller: left = threads;  ++sequence;  wake the workers;  while (left) { sleep <= 50 ms;  let Python handle signals }

The caller only waits. Python's signal handlers run while it does, so a KeyboardInterrupt in the main thread writes 1 to
the stop flag, which compiled code polls, and is raised when all threads have left: the memory they work on is never
released under them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from graphsr.errors import BackendError
from graphsr.forksafe import ForkSafeLock
from graphsr.op import Array

from .driver import architecture, pause_of
from .jit import Code, compile_ir
from .target import host

SPINS = 1000
"""Looks at the sequence before a worker sleeps: some ten microseconds, the pause between two parts of one run."""

_TEXT = """
; The words of a team: the sequence at 0, threads left at 64, the last sequence done at 128, entry and context at 192.
{declares}
@slice = private constant {{ i64, i64 }} {{ i64 0, i64 50000000 }}

define void @graphsr_worker(ptr %team, i64 %thread, i64 %threads) nounwind {{
entry:
  %p.left = getelementptr i8, ptr %team, i64 64
  %p.done = getelementptr i8, ptr %team, i64 128
  %p.entry = getelementptr i8, ptr %team, i64 192
  %p.context = getelementptr i8, ptr %team, i64 200
  br label %idle

idle:
  %last = phi i32 [ 0, %entry ], [ %now, %leave ], [ %now, %finish ]
  br label %look

look:
  %tries = phi i64 [ 0, %idle ], [ %tries.next, %pause ], [ {spins}, %sleep ]
  %now = load atomic i32, ptr %team acquire, align 4
  %same = icmp eq i32 %now, %last
  br i1 %same, label %wait, label %work

wait:
  %tries.next = add i64 %tries, 1
  %patient = icmp slt i64 %tries, {spins}
  br i1 %patient, label %pause, label %sleep

pause:
  {pause}
  br label %look

sleep:
  {sleep_worker}
  br label %look

work:
  %function = load ptr, ptr %p.entry, align 8
  %context = load ptr, ptr %p.context, align 8
  %quit = icmp eq ptr %function, null
  br i1 %quit, label %end, label %call

call:
  call void %function(ptr %context, i64 %thread, i64 %threads)
  br label %leave

leave:
  %before = atomicrmw sub ptr %p.left, i64 1 acq_rel, align 8
  %is.last = icmp eq i64 %before, 1
  br i1 %is.last, label %finish, label %idle

finish:
  store atomic i32 %now, ptr %p.done release, align 4
  {wake_caller}
  br label %idle

end:
  ret void
}}

define void @graphsr_begin(ptr %team, ptr %function, ptr %context, i64 %threads) nounwind {{
  %p.left = getelementptr i8, ptr %team, i64 64
  %p.entry = getelementptr i8, ptr %team, i64 192
  %p.context = getelementptr i8, ptr %team, i64 200
  store ptr %function, ptr %p.entry, align 8
  store ptr %context, ptr %p.context, align 8
  store atomic i64 %threads, ptr %p.left monotonic, align 8
  %before = atomicrmw add ptr %team, i32 1 release, align 4
  {wake_workers}
  ret void
}}

define i64 @graphsr_wait(ptr %team) nounwind {{
  %p.done = getelementptr i8, ptr %team, i64 128
  %goal = load atomic i32, ptr %team monotonic, align 4
  %seen = load atomic i32, ptr %p.done acquire, align 4
  %early = icmp eq i32 %goal, %seen
  br i1 %early, label %end, label %sleep

sleep:
  {sleep_caller}
  br label %end

end:
  %late = load atomic i32, ptr %p.done acquire, align 4
  %done = icmp eq i32 %goal, %late
  %result = zext i1 %done to i64
  ret i64 %result
}}

define i64 @graphsr_run(ptr %team, ptr %function, ptr %context, i64 %threads) nounwind {{
  call void @graphsr_begin(ptr %team, ptr %function, ptr %context, i64 %threads)
  %done = call i64 @graphsr_wait(ptr %team)
  ret i64 %done
}}

define void @graphsr_join(ptr %team) nounwind {{
entry:
  br label %look
look:
  %done = call i64 @graphsr_wait(ptr %team)
  %all = icmp ne i64 %done, 0
  br i1 %all, label %end, label %look
end:
  ret void
}}
"""

_FUTEX = {"x86_64": 202, "aarch64": 98}
"""The number of Linux' system call that sleeps while a word has a value, and wakes those who do."""


def team_text(triple: str) -> str:
    """The IR of the waiting, for the architecture and the system of a target triple.

    Where there is no futex, waiting looks at the word every 0.1 ms.
    """
    declare_pause, pause = pause_of(triple)
    if "linux" in triple:
        declare = "declare i64 @syscall(i64, ...)"
        futex = f"call i64 (i64, ...) @syscall(i64 {_FUTEX[architecture(triple)]}, "
        wait, wake = "i32 128", "i32 129"  # FUTEX_WAIT and FUTEX_WAKE within one process
        sleep_worker = f"{futex}ptr %team, {wait}, i32 %last, ptr null)"
        sleep_caller = f"{futex}ptr %p.done, {wait}, i32 %seen, ptr @slice)"
        wake_workers = f"{futex}ptr %team, {wake}, i32 {2**31 - 1})"
        wake_caller = f"{futex}ptr %p.done, {wake}, i32 1)"
    else:
        declare = "declare i32 @usleep(i32)"
        sleep_worker = sleep_caller = "call i32 @usleep(i32 100)"
        wake_workers = wake_caller = ""
    return _TEXT.format(
        declares=f"{declare}\n{declare_pause}",
        spins=SPINS,
        pause=pause,
        sleep_worker=sleep_worker,
        sleep_caller=sleep_caller,
        wake_workers=wake_workers,
        wake_caller=wake_caller,
    )


@dataclass(frozen=True)
class _Native:
    """The compiled functions of `_TEXT`. Calling one releases the interpreter's lock."""

    code: Code
    worker: Callable[[int, int, int], None]
    run: Callable[[int, int, int, int], int]
    wait: Callable[[int], int]
    join: Callable[[int], None]
    enter: Callable[[int], Callable[[int, int, int], None]]
    """An entry by its address, to be called on this thread."""


@cache
def _native() -> _Native:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    target = host()
    code = compile_ir(team_text(target.triple), target)
    entry = ctypes.CFUNCTYPE(None, pointer, integer, integer)
    return _Native(
        code,
        worker=entry(code.address("graphsr_worker")),
        run=ctypes.CFUNCTYPE(integer, pointer, pointer, pointer, integer)(code.address("graphsr_run")),
        wait=ctypes.CFUNCTYPE(integer, pointer)(code.address("graphsr_wait")),
        join=ctypes.CFUNCTYPE(None, pointer)(code.address("graphsr_join")),
        enter=entry,
    )


ALREADY_RUNNING = (
    "the thread is running a network already, and cannot run one before that is done (from a signal handler, or a "
    "finaliser?): note in the handler that it was called, and run the network afterwards"
)


class Team:
    """The worker threads for a number of threads. They start with the first run and end with the process."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.reset()

    def reset(self) -> None:
        """Forget the threads: in a forked child there are none."""
        self._gate = ForkSafeLock()
        self._words = np.zeros(256 // 8, np.int64)  # see `_TEXT`
        self._workers: list[threading.Thread] = []
        self._cpus: set[int] | None = None

    def run(self, entry: int, context: int, stop: int) -> None:
        """Call `void entry(ptr context, i64 thread, i64 threads)` on all threads; returns when all have left it.

        `stop` is the address of an int64 that the entry polls: where Python raises while this waits, such as a
        KeyboardInterrupt, 1 is written there. Runs of one team wait for each other, whichever threads they come from.
        """
        native = _native()
        if self.threads == 1 and threading.current_thread() is not threading.main_thread():
            native.enter(entry)(context, 0, 1)  # no signal is handled here, so nothing is gained by another thread
            return
        if self._gate.is_mine():
            raise BackendError(ALREADY_RUNNING)
        flag = ctypes.c_int64.from_address(stop)
        with self._gate():
            self._prepare(native)
            words = self._words
            address, join = int(words.ctypes.data), native.join
            try:
                done = native.run(address, entry, context, self.threads)
                while not done:
                    done = native.wait(address)
            except BaseException:
                flag.value = 1
                raise
            finally:
                # From the error to here the interpreter looks for no further signal: a second Ctrl-C cannot cut in.
                join(address)

    def _prepare(self, native: _Native) -> None:
        """Start the threads if there are none, and place them."""
        if not self._workers:
            workers: list[threading.Thread] = []
            words, threads = self._words, self.threads
            try:
                for index in range(threads):
                    workers.append(_worker(native, words, index, threads))
            except BaseException as error:
                self._dismiss(native)
                if isinstance(error, RuntimeError):
                    raise BackendError(f"cannot start {threads} threads ({error}): ask for fewer") from error
                raise
            self._workers = workers
        if hasattr(os, "sched_getaffinity"):
            self._place(os.sched_getaffinity(0))

    def _dismiss(self, native: _Native) -> None:
        """Let the threads that were started end, and go on without them."""
        native.run(int(self._words.ctypes.data), 0, 0, 0)
        self._words = np.zeros_like(self._words)

    def _place(self, cpus: set[int]) -> None:
        """One worker per processor of the caller where the team fills them all, or else any of them for each.

        A team that leaves processors free is not pinned: several processes would all pin to the first ones.
        """
        if cpus == self._cpus:
            return
        self._cpus = cpus
        places = [{cpu} for cpu in sorted(cpus)] if len(cpus) == self.threads else [cpus] * self.threads
        for worker, place in zip(self._workers, places, strict=True):
            with contextlib.suppress(OSError):  # where it is not allowed, the system places the threads
                os.sched_setaffinity(worker.native_id or 0, place)


def _worker(native: _Native, words: Array, index: int, threads: int) -> threading.Thread:
    def work() -> None:
        native.worker(int(words.ctypes.data), index, threads)

    thread = threading.Thread(target=work, name=f"graphsr-{index}", daemon=True)
    thread.start()
    return thread


_teams: dict[int, Team] = {}
_lock = ForkSafeLock()


def team(threads: int) -> Team:
    """The team of that many threads, shared by the whole process."""
    with _lock():
        if threads not in _teams:
            _teams[threads] = Team(threads)
        return _teams[threads]


def _after_fork() -> None:
    """A child has no other threads: the teams begin anew."""
    for each in _teams.values():
        each.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
