"""The parallel region: one compiled function that every thread of the team enters once per run.

    for step in the table:
        for victim in this thread, the next one, ... all of them:
            while (unit = counter of the step and the victim ++) < end of the victim's share, and nobody asked to stop:
                kernel of the step (its arguments, unit, scratch of the thread)
        wait until every thread is here

The network is a table, so the region is compiled once for all of them. The units of a step are shared out in runs of
neighbours, the same from step to step, so that a thread mostly reads what it wrote itself and has in its own cache; who
is done helps the others, but leaves the owner of a single unit the time to come. The result does not depend on who
computes what. Waiting spins first and then yields the processor, so that a team with more threads than processors still
gets on. A stop request empties the remaining steps; the barriers stay in step.
"""

from __future__ import annotations

import numpy as np

from graphsr.op import Array

from .memory import LINE

HEADER = np.dtype(
    [
        ("stop", "i8"),
        ("steps", "i8"),
        ("table", "i8"),
        ("counters", "i8"),
        ("scratch", "i8"),
        ("scratch_bytes", "i8"),
        ("times", "i8"),
    ]
)
"""The context: a stop flag, the number of steps, and the addresses of the step table, of the counters (one line per
step and thread, and one before them for the barrier), of the scratch of thread 0 and of the time stamps
[steps + 1, threads] (0: none are wanted)."""

STEP = np.dtype([("kernel", "i8"), ("arguments", "i8"), ("units", "i8"), ("unused", "i8")])

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}

SPINS = 10_000
"""Pauses before a waiting thread yields: about half a millisecond, longer than threads usually wait for each other. A
yield costs nothing on an idle machine, but a time slice where anybody else wants the processor."""

PEEKS = 64
"""Pauses before a thread takes a unit of a step that has fewer units than threads: some microseconds, so that the owner
of the unit comes first. Whoever computed the step before has in its cache what this one reads."""

_TEXT = """
{declare_pause}
declare i32 @sched_yield()
declare i64 @llvm.readcyclecounter()

define void @graphsr_run(ptr %context, i64 %thread, i64 %threads) {{
entry:
  %p.steps = getelementptr i8, ptr %context, i64 8
  %steps = load i64, ptr %p.steps
  %p.table = getelementptr i8, ptr %context, i64 16
  %table = load ptr, ptr %p.table
  %p.counters = getelementptr i8, ptr %context, i64 24
  %barrier = load ptr, ptr %p.counters
  %p.scratch = getelementptr i8, ptr %context, i64 32
  %scratch0 = load ptr, ptr %p.scratch
  %p.bytes = getelementptr i8, ptr %context, i64 40
  %bytes = load i64, ptr %p.bytes
  %p.times = getelementptr i8, ptr %context, i64 48
  %times = load ptr, ptr %p.times
  %timed = icmp ne ptr %times, null
  %mine = mul i64 %thread, %bytes
  %scratch = getelementptr i8, ptr %scratch0, i64 %mine
  br i1 %timed, label %begin, label %first

begin:
  %start = call i64 @llvm.readcyclecounter()
  %b.at = mul i64 %thread, 8
  %b.place = getelementptr i8, ptr %times, i64 %b.at
  store i64 %start, ptr %b.place, align 8
  br label %first

first:
  %empty = icmp eq i64 %steps, 0
  br i1 %empty, label %done, label %step

step:
  %s = phi i64 [ 0, %first ], [ %s.next, %arrived ]
  %s.next = add i64 %s, 1
  %r.at = mul i64 %s, 32
  %record = getelementptr i8, ptr %table, i64 %r.at
  %kernel = load ptr, ptr %record
  %p.args = getelementptr i8, ptr %record, i64 8
  %args = load ptr, ptr %p.args
  %p.units = getelementptr i8, ptr %record, i64 16
  %units = load i64, ptr %p.units
  %c.row = mul i64 %s, %threads
  br label %share

share:
  %helped = phi i64 [ 0, %step ], [ %helped.next, %emptied ]
  %v.sum = add i64 %thread, %helped
  %victim = urem i64 %v.sum, %threads
  %v.next = add i64 %victim, 1
  %lo.sum = mul i64 %units, %victim
  %low = udiv i64 %lo.sum, %threads
  %hi.sum = mul i64 %units, %v.next
  %high = udiv i64 %hi.sum, %threads
  %c.index = add i64 %c.row, %v.next
  %c.at = mul i64 %c.index, 64
  %counter = getelementptr i8, ptr %barrier, i64 %c.at
  %own = icmp eq i64 %helped, 0
  br i1 %own, label %take, label %peek

peek:
  %peeks = phi i64 [ 0, %share ], [ %peeks.next, %linger ]
  %seen = load atomic i64, ptr %counter monotonic, align 8
  %s.unit = add i64 %low, %seen
  %left = icmp slt i64 %s.unit, %high
  br i1 %left, label %tempted, label %emptied

tempted:
  %scarce = icmp slt i64 %units, %threads
  %early = icmp slt i64 %peeks, {peeks}
  %holds = and i1 %scarce, %early
  br i1 %holds, label %linger, label %take

linger:
  %peeks.next = add i64 %peeks, 1
  {pause}
  br label %peek

take:
  %stop = load atomic i64, ptr %context monotonic, align 8
  %going = icmp eq i64 %stop, 0
  br i1 %going, label %next, label %arrive

next:
  %taken = atomicrmw add ptr %counter, i64 1 monotonic, align 8
  %unit = add i64 %low, %taken
  %some = icmp slt i64 %unit, %high
  br i1 %some, label %work, label %emptied

work:
  call void %kernel(ptr %args, i64 %unit, ptr %scratch)
  br label %take

emptied:
  %helped.next = add i64 %helped, 1
  %others = icmp slt i64 %helped.next, %threads
  br i1 %others, label %share, label %arrive

arrive:
  br i1 %timed, label %stamp, label %meet

stamp:
  %now = call i64 @llvm.readcyclecounter()
  %t.row = mul i64 %s.next, %threads
  %t.index = add i64 %t.row, %thread
  %t.at = mul i64 %t.index, 8
  %t.place = getelementptr i8, ptr %times, i64 %t.at
  store i64 %now, ptr %t.place, align 8
  br label %meet

meet:
  %before = atomicrmw add ptr %barrier, i64 1 acq_rel, align 8
  %goal = mul i64 %s.next, %threads
  br label %look

look:
  %tries = phi i64 [ 0, %meet ], [ %tries.next, %again ]
  %here = load atomic i64, ptr %barrier acquire, align 8
  %all = icmp sge i64 %here, %goal
  br i1 %all, label %arrived, label %wait

wait:
  %tries.next = add i64 %tries, 1
  %patient = icmp slt i64 %tries, {spins}
  br i1 %patient, label %pause, label %yield

pause:
  {pause}
  br label %again

yield:
  call i32 @sched_yield()
  br label %again

again:
  br label %look

arrived:
  %more = icmp slt i64 %s.next, %steps
  br i1 %more, label %step, label %done

done:
  ret void
}}
"""

ENTRY = "graphsr_run"


def driver_text(triple: str) -> str:
    """The IR of the parallel region for the architecture of a target triple."""
    declare, pause = pause_of(triple)
    return _TEXT.format(pause=pause, declare_pause=declare, spins=SPINS, peeks=PEEKS)


def architecture(triple: str) -> str:
    """ "x86_64" or "aarch64"."""
    return "aarch64" if triple.startswith(("aarch64", "arm64")) else "x86_64"


def pause_of(triple: str) -> tuple[str, str]:
    """The declaration and the call of the instruction that a spinning thread executes between two looks."""
    return _PAUSE[architecture(triple)]


def counters(steps: int, threads: int) -> Array:
    """Room for the barrier and one counter per step and thread, each on a line of its own; zero before every run."""
    return np.zeros(((steps * threads + 1) * LINE // 8,), np.int64)
