"""Which instruction set kernels are compiled for, and the shape of the register tile that fits it.

A target is one of a few fixed levels. It is chosen by what the host's processor can do, never by its name: emulators
and virtual machines show names that say nothing. Code for a level is the same on every host, so objects in the cache
can be shared by all machines of that level.

    target      registers  bits  tile (rows x vectors of 16 floats)   fused multiply-add
    x86-64-v4      32       512            12 x 2                            yes
    x86-64-v3      16       256             6 x 1                            yes
    x86-64-v2      16       128             2 x 1                            no
    aarch64        32       128             5 x 1                            yes
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from graphsr.errors import BackendError

_V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
"""The levels of the x86-64 psABI, in LLVM's words."""

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Target:
    """An instruction set, and how convolutions use its registers. Kernels work on 16 floats at a time everywhere; where
    registers are narrower, LLVM splits the vectors."""

    name: str
    """A psABI level such as "x86-64-v4", or "aarch64"."""
    triple: str
    cpu: str
    """In LLVM's words; as generic as the level."""
    features: str
    """LLVM's feature string, sorted."""
    rows: int
    """Rows of the register tile."""
    panels: int
    """Vectors of 16 floats per row of the register tile."""
    registers: int
    """Vector registers."""
    vector_bits: int
    """Of one register."""
    has_fma: bool


def host() -> Target:
    """The highest level that this machine runs, or the one that GRAPHSR_TARGET names.

    Raises `BackendError` when the machine cannot run what is named, or none of the levels, and on Windows.
    """
    if platform.system() == "Windows":  # the driver of the threads calls sched_yield and usleep
        raise BackendError('the llvm backend runs on Linux and macOS, this is Windows: use backend="numpy"')
    wanted = os.environ.get("GRAPHSR_TARGET", "")
    runnable = _runnable()
    if wanted and wanted not in runnable:
        raise BackendError(
            f"GRAPHSR_TARGET={wanted}: this machine runs {', '.join(runnable) or 'no target of the llvm backend'}"
        )
    if not runnable:
        raise BackendError(
            f"the llvm backend needs x86-64-v2 (SSE 4.2) or aarch64, this machine is {platform.machine()}: "
            "use the numpy backend"
        )
    return named(wanted or runnable[0])


def named(name: str) -> Target:
    """A target by name, whether or not this machine runs it. Raises `BackendError` that lists the names."""
    targets = {target.name: target for target in _targets()}
    if name not in targets:
        raise BackendError(f"unknown target {name!r}; there are {', '.join(targets)}")
    return targets[name]


@cache
def _targets() -> tuple[Target, ...]:
    """All targets, the most capable first within an architecture."""
    x86, arm = _triple("x86_64"), _triple("aarch64")
    # Without "-prefer-256-bit" the level v4 splits vectors that the IR does not force to be 512 bits wide.
    v4 = _features(_V4, "-prefer-256-bit")
    return (
        Target("x86-64-v4", x86, "x86-64-v4", v4, 12, 2, 32, 512, True),
        Target("x86-64-v3", x86, "x86-64-v3", _features(_V3), 6, 1, 16, 256, True),
        Target("x86-64-v2", x86, "x86-64-v2", _features(_V2), 2, 1, 16, 128, False),
        Target("aarch64", arm, "generic", _features(("fp-armv8", "neon")), 5, 1, 32, 128, True),
    )


@cache
def _runnable() -> tuple[str, ...]:
    """Names of the targets that this machine runs, the most capable first."""
    machine = _MACHINES.get(platform.machine().lower())
    if machine == "aarch64":
        return ("aarch64",)  # NEON belongs to the architecture
    if machine != "x86_64":
        return ()
    has = llvm.get_host_cpu_features()
    levels = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}
    return tuple(name for name, level in levels.items() if all(has.get(feature, False) for feature in level))


def _features(level: tuple[str, ...], *others: str) -> str:
    return ",".join(sorted([f"+{feature}" for feature in level] + list(others)))


def _triple(machine: str) -> str:
    """The triple of this process, or that of Linux on another architecture."""
    if _MACHINES.get(platform.machine().lower()) == machine:
        return str(llvm.get_process_triple())
    return f"{machine}-unknown-linux-gnu"
