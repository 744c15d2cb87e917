"""Threads of the llvm backend: all are inside at once, Ctrl-C gets through, forks and crowds do no harm."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from functools import cache

import numpy as np
import pytest

from graphsr.backends.llvm import team as team_module
from graphsr.backends.llvm.jit import Code, compile_ir, emit_assembly
from graphsr.backends.llvm.target import host, named
from graphsr.backends.llvm.team import Team, team, team_text
from graphsr.errors import BackendError

from support import ROOT

ENTRIES = """
declare i32 @sched_yield()

; context: stop, arrived, barriers to pass, then one word per thread for the barriers passed
define void @meet(ptr %context, i64 %thread, i64 %threads) {
entry:
  %p.arrived = getelementptr i64, ptr %context, i64 1
  %p.rounds = getelementptr i64, ptr %context, i64 2
  %rounds = load i64, ptr %p.rounds, align 8
  %mine = add i64 %thread, 3
  %p.mine = getelementptr i64, ptr %context, i64 %mine
  br label %round
round:
  %r = phi i64 [ 1, %entry ], [ %r.next, %passed ]
  %before = atomicrmw add ptr %p.arrived, i64 1 acq_rel
  %goal = mul i64 %r, %threads
  br label %look
look:
  %here = load atomic i64, ptr %p.arrived acquire, align 8
  %all = icmp sge i64 %here, %goal
  br i1 %all, label %passed, label %yield
yield:
  %ignored = call i32 @sched_yield()
  br label %look
passed:
  store i64 %r, ptr %p.mine, align 8
  %r.next = add i64 %r, 1
  %more = icmp sle i64 %r.next, %rounds
  br i1 %more, label %round, label %done
done:
  ret void
}

; context: stop, threads that left
define void @until_stopped(ptr %context, i64 %thread, i64 %threads) {
entry:
  br label %look
look:
  %stop = load atomic i64, ptr %context monotonic, align 8
  %going = icmp eq i64 %stop, 0
  br i1 %going, label %look, label %done
done:
  %p.left = getelementptr i64, ptr %context, i64 1
  %before = atomicrmw add ptr %p.left, i64 1 monotonic
  ret void
}
"""

several = pytest.mark.parametrize("threads", [1, 2, 3, 8])  # 8: more than there are processors


@cache
def entries() -> Code:
    return compile_ir(ENTRIES, host())


def meet(threads: int, rounds: int = 20) -> None:
    """A run whose threads meet at so many barriers; it hangs unless all are inside together."""
    context = np.zeros(3 + threads, np.int64)
    context[2] = rounds
    team(threads).run(entries().address("meet"), context.ctypes.data, context.ctypes.data)
    assert context[1] == rounds * threads
    assert (context[3:] == rounds).all(), "a thread did not take part"


@several
def test_all_threads_are_inside_together(threads: int) -> None:
    for _ in range(20):
        meet(threads)


def test_there_is_one_team_per_number_of_threads() -> None:
    assert team(2) is team(2)
    assert team(2).threads == 2
    assert team(2) is not team(3)


def test_threads_are_started_once() -> None:
    meet(3)
    before = threading.active_count()
    meet(3)
    assert threading.active_count() == before


def test_callers_on_several_threads() -> None:
    """On the same teams and on different ones; none waits for another for ever."""
    errors: list[BaseException] = []

    def call(threads: int) -> None:
        try:
            for _ in range(10):
                meet(threads, 3)
        except BaseException as error:  # handed to the test, which raises it
            errors.append(error)

    callers = [threading.Thread(target=call, args=(1 + index % 3,)) for index in range(9)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    if errors:
        raise errors[0]


def test_an_exception_in_a_signal_handler_stops_the_run() -> None:
    """Whatever the handler raises is raised by the run, when every thread has left; the next run works."""

    class AlarmError(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise AlarmError

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        for threads in (1, 2, 8):
            context = np.zeros(2, np.int64)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(AlarmError):
                team(threads).run(entries().address("until_stopped"), context.ctypes.data, context.ctypes.data)
            assert context.tolist() == [1, threads]
            meet(threads)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_other_signals_do_not_stop_the_run() -> None:
    """A handler that returns, such as that of a window that changes its size, leaves the run alone."""
    seen: list[int] = []
    context = np.zeros(2, np.int64)

    def handler(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) == 5:
            context[0] = 1

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        team(2).run(entries().address("until_stopped"), context.ctypes.data, context.ctypes.data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(seen) >= 5
    assert context[1] == 2


CTRL_C = """
import os, random, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
from test_llvm_team import entries, meet, team
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
threads, seed, signals = map(int, sys.argv[1:])
entry = entries().address("until_stopped")
meet(threads)
sent = 0.0
def interrupt(delay):
    global sent
    time.sleep(delay)
    sent = time.monotonic()
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGINT)
random.seed(seed)
late = []
stopped = 0
for _ in range(4):
    context = np.zeros(2, np.int64)
    killer = threading.Thread(target=interrupt, args=(random.random() / 20,))
    try:
        killer.start()
        team(threads).run(entry, context.ctypes.data, context.ctypes.data)
        raise SystemExit("the run ended by itself")
    except KeyboardInterrupt:
        late.append(time.monotonic() - sent)
    try:
        killer.join()
    except KeyboardInterrupt:  # the second signal, which came when the run was over
        killer.join()
    stopped += int(context[0])
    assert context.tolist() in ([1, threads], [0, 0]), context  # zeros where the signal came before the run began
    meet(threads)
assert stopped
print(max(late))
"""


@pytest.mark.parametrize(("threads", "signals"), [(1, 1), (2, 1), (2, 2), (8, 1)])
def test_ctrl_c_at_any_time(threads: int, signals: int) -> None:
    """R14: a run ends within 0.3 s of the signal, and the next one works."""
    code = CTRL_C.format(tests=str(ROOT / "tests"))
    arguments = [sys.executable, "-c", code, str(threads), "7", str(signals)]
    out = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    if threads <= 2:  # with more threads than processors it depends on who else wants them
        assert float(out.stdout) < 0.3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "during a run"])
def test_a_forked_child_has_teams_of_its_own(busy: bool) -> None:
    """R15: after a fork, also while a run goes on on another thread, both processes go on."""
    meet(2)
    held = team(2)
    context = np.zeros(2, np.int64)
    runner = threading.Thread(
        target=held.run, args=(entries().address("until_stopped"), context.ctypes.data, context.ctypes.data)
    )
    if busy:
        runner.start()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a child that hangs dies
            status = 1
            try:
                meet(2)
                meet(3)
                status = 0 if team(2) is held else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if busy:
        context[0] = 1
        runner.join(20)
    meet(2)


def test_the_process_ends_with_threads_waiting_and_with_a_run_going_on() -> None:
    code = f"""
import sys, threading, time
sys.path.insert(0, {str(ROOT / "tests")!r})
import numpy as np
from test_llvm_team import entries, meet, team
meet(2)
context = np.zeros(2, np.int64)
arguments = (entries().address("until_stopped"), context.ctypes.data, context.ctypes.data)
threading.Thread(target=team(3).run, args=arguments, daemon=True).start()
time.sleep(0.1)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (out.returncode, out.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_workers_are_pinned_only_where_they_fill_the_processors() -> None:
    allowed = os.sched_getaffinity(0)

    def places(threads: int) -> list[set[int]]:
        crew = Team(threads)
        context = np.zeros(3 + threads, np.int64)
        crew.run(entries().address("meet"), context.ctypes.data, context.ctypes.data)
        tids = [worker.native_id for worker in crew._workers]
        return [os.sched_getaffinity(tid) for tid in tids if tid is not None]

    assert places(len(allowed)) == [{cpu} for cpu in sorted(allowed)]
    assert places(len(allowed) + 1) == [allowed] * (len(allowed) + 1)
    assert os.sched_getaffinity(0) == allowed, "the caller is never pinned"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_workers_follow_the_processors_of_the_caller() -> None:
    """A team that was started on one processor uses all of them when the process may."""
    allowed = os.sched_getaffinity(0)
    crew = Team(len(allowed) + 1)
    context = np.zeros(4 + len(allowed), np.int64)
    try:
        for cpus in ({min(allowed)}, allowed):
            os.sched_setaffinity(0, cpus)
            crew.run(entries().address("meet"), context.ctypes.data, context.ctypes.data)
            assert {frozenset(os.sched_getaffinity(w.native_id or 0)) for w in crew._workers} == {frozenset(cpus)}
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_team_whose_threads_cannot_start_can_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Team(3)
    context = np.zeros(6, np.int64)
    context[2] = 5
    arguments = (entries().address("meet"), context.ctypes.data, context.ctypes.data)
    start = team_module._worker
    monkeypatch.setattr(
        team_module, "_worker", lambda n, w, index, t: start(n, w, index, t) if index < 2 else _refuse()
    )
    with pytest.raises(BackendError, match="cannot start 3 threads"):
        crew.run(*arguments)
    monkeypatch.undo()
    crew.run(*arguments)
    assert context[3:].tolist() == [5, 5, 5]


def _refuse() -> threading.Thread:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_is_not_the_main_one_does_single_threaded_work_itself() -> None:
    """No signal is handled there, so the hand-over would cost and bring nothing."""
    before = threading.active_count()
    crew = Team(1)
    context = np.zeros(4, np.int64)
    arguments = (entries().address("meet"), context.ctypes.data, context.ctypes.data)
    caller = threading.Thread(target=crew.run, args=arguments)
    caller.start()
    caller.join()
    assert context[1] == 1
    assert threading.active_count() == before


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-darwin"])
def test_the_waiting_can_be_written_for_other_systems(triple: str) -> None:
    target = named("aarch64" if triple.startswith("a") else "x86-64-v2")
    assembly = emit_assembly(team_text(triple), target)
    assert ("usleep" if "darwin" in triple else "syscall") in assembly


def test_contexts_are_passed_whole() -> None:
    """Addresses take 64 bits on their way."""
    word = ctypes.c_int64(1 << 40)
    code = compile_ir(
        "define void @double(ptr %c, i64 %t, i64 %n) {\n %x = load i64, ptr %c\n %y = mul i64 %x, 2\n"
        " store i64 %y, ptr %c\n ret void\n}\n",
        host(),
    )
    team(1).run(code.address("double"), ctypes.addressof(word), ctypes.addressof(word))
    assert word.value == 1 << 41
