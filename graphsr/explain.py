"""Tables of what runs for each node, as `Executable.explain()` and `graphsr profile` print them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Step:
    """What runs for one node."""

    node: str
    op: str
    kernel: str
    macs: int
    nbytes: int
    """Of the result."""
    note: str = ""
    """Steps of a layer are numbered, "step 3", where it goes step by step: tables show equal ones as one line."""
    weight_bytes: int = 0
    """Of the constants in the form that the kernel reads."""
    traffic: int = 0
    """Bytes that are read and written at least once: inputs, constants, result."""


@dataclass(frozen=True)
class Profile:
    """How long each step took, beside what the machine can do, measured in the same run."""

    steps: tuple[Step, ...]
    milliseconds: tuple[float, ...]
    """Of each step: the median over the runs, until the last thread was done."""
    total: float
    """Milliseconds of a whole call, median."""
    threads: int
    flops: float
    """Fused multiply-adds, two operations each, per second on all threads: the peak."""
    bandwidth: float
    """Bytes per second that all threads together read and write when they copy a large array."""

    def __str__(self) -> str:
        header = ("node", "op", "kernel", "ms", "%", "GFLOP/s", "% of peak", "GB/s", "% of copy", "note")
        rows = [header]
        for step, ms in repeated_as_one(self.steps, self.milliseconds):
            seconds = max(ms, 1e-6) / 1e3
            flops, moved = 2 * step.macs / seconds, step.traffic / seconds
            rate = (f"{flops / 1e9:.0f}", f"{100 * flops / self.flops:.0f}") if step.macs else ("", "")
            time = (f"{ms:.3f}", f"{100 * ms / self.total:.1f}")
            memory = (f"{moved / 1e9:.1f}", f"{100 * moved / self.bandwidth:.0f}")
            rows.append((step.node, step.op, step.kernel, *time, *rate, *memory, step.note))
        macs = sum(step.macs for step in self.steps)
        effective = 2e3 * macs / self.total
        team = count_of(self.threads, "thread")
        return (
            f"{aligned(rows)}\n{self.total:.2f} ms a call on {team}: {effective / 1e9:.0f} GFLOP/s, "
            f"counted as direct sums, {100 * effective / self.flops:.0f} % of the peak of {self.flops / 1e9:.0f}; "
            f"copying reaches {self.bandwidth / 1e9:.1f} GB/s"
        )


def steps_table(steps: Sequence[Step]) -> str:
    """One line per step, or for all equal ones of a layer that goes step by step, without times."""
    rows = [("node", "op", "kernel", "MMAC", "KB", "weights KB", "note")]
    for s, _ in repeated_as_one(steps, [0.0] * len(steps)):
        weights = f"{s.weight_bytes / 1e3:.0f}" if s.weight_bytes else ""
        rows.append((s.node, s.op, s.kernel, f"{s.macs / 1e6:.1f}", f"{s.nbytes / 1e3:.0f}", weights, s.note))
    return aligned(rows)


def repeated_as_one(steps: Sequence[Step], milliseconds: Sequence[float]) -> list[tuple[Step, float]]:
    """The steps and their times, where numbered ones that are equal otherwise are one with their totals. All of them
    read the same constants."""
    lines: dict[tuple[int, Step], list[tuple[Step, float]]] = {}
    layer = 0  # a layer begins with what is not numbered
    for step, ms in zip(steps, milliseconds, strict=True):
        is_numbered = re.fullmatch(r"step \d+", step.note) is not None
        layer += not is_numbered
        key = layer, replace(step, note="") if is_numbered else step
        lines.setdefault(key, []).append((step, ms))
    return [line[0] if len(line) == 1 else _total(line) for line in lines.values()]


def _total(line: Sequence[tuple[Step, float]]) -> tuple[Step, float]:
    step, count = line[0][0], len(line)
    macs, nbytes, traffic = step.macs * count, step.nbytes * count, step.traffic * count
    total = replace(step, macs=macs, nbytes=nbytes, traffic=traffic, note=f"x {count} steps")
    return total, sum(ms for _, ms in line)


def count_of(number: int, thing: str) -> str:
    """ "1 thread", "2 threads"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width, with two spaces between them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
