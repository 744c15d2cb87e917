"""How much memory there is, so that what does not fit is refused before any is taken."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from graphsr.threads import cgroup_folders

UNLIMITED = 1 << 60
"""Limits of control groups from here on are none."""

V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")
"""Of the two kinds of control groups: the files of the limit and of the usage, and a word of memory.stat."""


def available_memory() -> int | None:
    """Bytes of memory that can be had now: of the system, of the control groups that the process is in (containers) and
    of its address space (`ulimit -v`). None where the system does not tell."""
    found = [_of_system(), _of_address_space(), *map(_of_cgroup, _limited_cgroups())]
    return min((free for free in found if free is not None), default=None)


def _of_system() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _of_address_space() -> int | None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm", encoding="ascii") as line:
            return max(0, limit - int(line.read().split()[0]) * resource.getpagesize())
    except (ImportError, OSError, ValueError):
        return None


@cache
def _limited_cgroups() -> tuple[Path, ...]:
    """The folders of those that have a limit: they are looked for once."""
    return tuple(folder for folder in cgroup_folders("memory") if _of_cgroup(folder) is not None)


def _of_cgroup(folder: Path) -> int | None:
    """What a control group has left, with the cached files that are not in use: they give way."""
    limit_file, usage_file, word = V2 if (folder / V2[0]).exists() else V1
    try:
        limit, usage = (int((folder / name).read_text()) for name in (limit_file, usage_file))  # "max" is no number
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    idle = sum(int(line.split()[1]) for line in lines if line.startswith(f"{word} "))
    return max(0, limit - usage + idle) if limit < UNLIMITED else None


def shortage(nbytes: int) -> str | None:
    """What to say where so many bytes are more than there are: "needs 9.1 GB, 4.2 GB are free"; None where they fit."""
    available = available_memory()
    if available is None or nbytes <= available:
        return None
    return f"needs {nbytes / 1e9:.1f} GB, {available / 1e9:.1f} GB are free"
