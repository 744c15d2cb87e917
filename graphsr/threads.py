"""How many threads to use: what the process may really run on, not what the machine has."""

from __future__ import annotations

import math
import os
from operator import index
from pathlib import Path
from typing import SupportsIndex

from graphsr.errors import BackendError

MEMBERSHIP = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """affinity ∩ cgroup quota ∩ the first of GRAPHSR_NUM_THREADS and OMP_NUM_THREADS that is set.

    Raises `BackendError` for a GRAPHSR_NUM_THREADS that is no number of threads; OMP_NUM_THREADS is not ours to judge.
    """
    allowed = processors()
    quota = cgroup_quota()
    if quota is not None:
        allowed = min(allowed, max(1, math.ceil(quota)))
    ours = os.environ.get("GRAPHSR_NUM_THREADS", "").strip()
    if ours and not _is_count(ours):
        raise BackendError(f"GRAPHSR_NUM_THREADS={ours!r} is no number of threads: set it to 1 or more, or unset it")
    wanted = ours or os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(allowed, int(wanted)) if _is_count(wanted) else allowed


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0


def processors() -> int:
    """Processors that this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_threads(threads: SupportsIndex | None) -> int:
    """The thread count of a request: None means all that are available."""
    if threads is None:
        return available_threads()
    if isinstance(threads, bool) or not isinstance(threads, SupportsIndex) or index(threads) < 1:
        raise BackendError(f"threads must be a positive integer or None (all available), got {threads!r}")
    return index(threads)


def cgroup_quota(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float | None:
    """CPUs that the control group may use: the smallest quota up the tree (v2 `cpu.max`, v1 `cpu.cfs_*`)."""
    quotas = map(_folder_quota, cgroup_folders("cpu", root, membership))
    return min((quota for quota in quotas if quota is not None), default=None)


def cgroup_folders(controller: str, root: Path = CGROUP, membership: Path = MEMBERSHIP) -> list[Path]:
    """Where the control groups of this process that a controller belongs to are described, those around them first."""
    try:
        entries = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return []
    folders = []
    for _, controllers, path in (entry for entry in entries if len(entry) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        folder = root / controller if controllers else root
        parts = [p for p in path.split("/") if p and p != ".."]
        folders += [folder.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return folders


def _folder_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        quota = float(limit) / float(period)  # "max" and -1 mean no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return quota if quota > 0 else None
