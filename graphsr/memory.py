"""How much memory there is, so that what does not fit is refused before any is taken."""

from __future__ import annotations


def available_memory() -> int | None:
    """Bytes of memory that can be had now, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def shortage(nbytes: int) -> str | None:
    """What to say where so many bytes are more than there are: "needs 9.1 GB, 4.2 GB are free"; None where they fit."""
    available = available_memory()
    if available is None or nbytes <= available:
        return None
    return f"needs {nbytes / 1e9:.1f} GB, {available / 1e9:.1f} GB are free"
