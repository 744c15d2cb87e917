"""How many threads: affinity, control group, environment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from graphsr.errors import BackendError
from graphsr.threads import available_threads, cgroup_quota, resolve_threads


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of what is allowed and what is asked for; our variable goes before the other."""
    monkeypatch.setattr("graphsr.threads.processors", lambda: 4)
    monkeypatch.setattr("graphsr.threads.cgroup_quota", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_threads() == 1
    monkeypatch.setenv("GRAPHSR_NUM_THREADS", "3")
    assert available_threads() == 3
    monkeypatch.setenv("GRAPHSR_NUM_THREADS", "64")
    assert available_threads() == 4
    monkeypatch.setattr("graphsr.threads.cgroup_quota", lambda: 1.5)
    assert available_threads() == 2
    monkeypatch.setenv("GRAPHSR_NUM_THREADS", "")
    for text in ("many", "²", "0", ",2"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert available_threads() == 2


@pytest.mark.parametrize("text", ["many", "²", "0", "-1", "1e3", "4,2", "9" * 5000])
def test_a_variable_of_ours_is_not_ignored_in_silence(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GRAPHSR_NUM_THREADS", text)
    with pytest.raises(BackendError, match=r"GRAPHSR_NUM_THREADS=.* unset"):
        available_threads()


def test_any_integer_is_a_number_of_threads() -> None:
    assert resolve_threads(np.int64(2)) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_NUM_THREADS", "GRAPHSR_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_threads() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "garbage\n"}, None),
        ("4:cpu,cpuacct:/c\n", {"cpu/c/cpu.cfs_quota_us": "50000\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu:/c\n", {"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, None),
        ("4:memory:/c\n", {}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_control_groups(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert cgroup_quota(tmp_path, tmp_path / "membership") == quota


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_wrong_requests(wrong: object) -> None:
    with pytest.raises(BackendError, match="positive integer"):
        resolve_threads(wrong)  # type: ignore[arg-type]  # what a caller may do
