"""How much memory there is: of the system, of control groups, of the address space."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from graphsr import memory
from graphsr.memory import available_memory, shortage

GIB = 1 << 30
FILES = {
    "v2": {"memory.max": "1073741824", "memory.current": "900000000", "memory.stat": "file 9\ninactive_file 100\n"},
    "v1": {
        "memory.limit_in_bytes": "1073741824",
        "memory.usage_in_bytes": "900000000",
        "memory.stat": "inactive_file 7\ntotal_inactive_file 100\n",
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_a_control_group_limits_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES[kind].items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_of_system", lambda: 4 * GIB)
    monkeypatch.setattr(memory, "_limited_cgroups", lambda: (tmp_path,))
    assert available_memory() == GIB - 900_000_000 + 100
    assert shortage(GIB) == "needs 1.1 GB, 0.2 GB are free"
    assert shortage(GIB // 8) is None


@pytest.mark.parametrize(("name", "text"), [("memory.max", "max"), ("memory.limit_in_bytes", str((1 << 63) - 4096))])
def test_a_control_group_without_a_limit(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "memory.usage_in_bytes").write_text("5")
    (tmp_path / "memory.stat").write_text("")
    assert memory._of_cgroup(tmp_path) is None


LIMITED = """
import resource
import numpy as np
import graphsr
from graphsr.backends.llvm.memory import pages

run = graphsr.load("wdsr-x2").compile(threads=1)
run({"input": np.zeros((1, 3, 16, 16), np.float32)})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000, resource.RLIM_INFINITY))
for work in (lambda: run.bind({"input": (1, 3, 2000, 2000)}), lambda: pages(1 << 30)):
    try:
        work()
    except (graphsr.ShapeError, MemoryError) as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read as Linux tells them")
def test_a_limit_of_the_address_space() -> None:
    pytest.importorskip("llvmlite")
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    refused, failed = done.stdout.splitlines()
    assert refused.startswith("ShapeError inputs of these sizes are too large: ")
    assert "0.3 GB are free" in refused
    assert failed.startswith("MemoryError 1.1 GB cannot be had: Cannot allocate memory")
