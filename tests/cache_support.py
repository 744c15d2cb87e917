"""A cache of compiled code of the test's own, and functions small enough to fill it with."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from graphsr.backends.llvm import cache
from graphsr.backends.llvm.jit import compile_ir
from graphsr.backends.llvm.target import host

needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the cache needs file owners")


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this test, and the processes that it starts, use the cache in this folder."""
    monkeypatch.setenv("GRAPHSR_CACHE_DIR", str(folder))
    monkeypatch.delenv("GRAPHSR_CACHE", raising=False)
    monkeypatch.setattr(cache, "_warned", set())
    return folder


def answer(number: int) -> str:
    """IR of a function that returns a number."""
    return f"define i64 @answer() {{\n  ret i64 {number}\n}}\n"


def run(number: int) -> int:
    code = compile_ir(answer(number), host())
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("answer"))())


def entry(folder: Path, number: int) -> Path:
    return folder / f"{cache.key(answer(number), host())}{cache.SUFFIX}"


def names_of_entries(folder: Path) -> list[str]:
    """The names of all entries, sorted."""
    return sorted(path.name for path in folder.glob(f"*{cache.SUFFIX}"))
