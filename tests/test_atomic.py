"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from graphsr.atomic import atomic_path, check_writable


def test_writes_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    with atomic_path(target) as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith(".out.partial-")
        assert partial.suffix == ".png"
        partial.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_path(target) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_flush_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "out.png"
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"), atomic_path(target) as partial:
        partial.write_bytes(b"new")
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask_or_the_replaced_file(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    before = os.umask(0o027)
    try:
        with atomic_path(target) as partial:
            partial.write_bytes(b"1")
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o600)
        with atomic_path(target) as partial:
            partial.write_bytes(b"2")
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    real = tmp_path / "store" / "real.png"
    real.write_bytes(b"old")
    link = tmp_path / "link.png"
    link.symlink_to(real)
    with atomic_path(link) as partial:
        partial.write_bytes(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_long_names_fit(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 125 + ".png")  # 254 bytes of at most 255
    with atomic_path(target) as partial:
        partial.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="not a regular file"), atomic_path(fifo):
        pass
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "folder"):
        pass
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "absent" / "out.png"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent/x.svg", "No such file or directory: make the folder .*absent first"),
        ("file/x.svg", "Not a directory: a file is in the way"),
        ("folder", "Is a directory: name a file in it"),
        ("pipe", "not a regular file: only regular files can be replaced"),
        ("n" * 300, "File name too long: name a shorter one"),
        ("loop", "symbolic links"),
    ],
)
def test_errors_name_the_target_and_say_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    for begin in (atomic_path(tmp_path / name).__enter__, lambda: check_writable(tmp_path / name)):
        with pytest.raises(OSError, match=words) as caught:
            begin()
        assert caught.value.filename == str(tmp_path / name)
        assert "partial" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the system has no folder that takes no files")
def test_a_folder_that_takes_no_files_is_not_to_be_made() -> None:
    with pytest.raises(FileNotFoundError, match="no file can be made there"):
        check_writable("/proc/x.png")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_full_disk_is_told_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    with pytest.raises(OSError, match="No space left on device: free some") as caught, atomic_path(target):
        Path("/dev/full").write_bytes(b"x")
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == []


def test_errors_about_other_files_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "a"), atomic_path(tmp_path / "b"):
        (tmp_path / "absent").read_bytes()
    assert caught.value.filename == str(tmp_path / "absent")


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    check_writable(target)
    assert list(tmp_path.iterdir()) == []
    target.write_bytes(b"old")
    check_writable(target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(PermissionError), atomic_path(target):
        pass
    assert target.read_bytes() == b"old"
