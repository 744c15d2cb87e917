"""The object cache of the llvm backend keeps to its limit, and `graphsr cache` shows and clears it."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from cache_support import entry, names_of_entries, needs_owners, own_cache, run
from hypothesis import given
from hypothesis import strategies as st

from graphsr.backends.llvm import cache
from graphsr.cli import main

pytestmark = needs_owners


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    return own_cache(tmp_path / "cache", monkeypatch)


def test_the_entries_used_least_lately_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        run(number)
        os.utime(entry(folder, number), (number, number))
    run(0)  # used just now
    size = entry(folder, 0).stat().st_size
    monkeypatch.setattr(cache, "LIMIT", 5 * size)
    run(9)
    kept = {number for number in (*range(6), 9) if entry(folder, number).exists()}
    assert kept == {0, 4, 5, 9}


def test_leftovers_of_killed_processes_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the next day at the latest."""
    run(1)
    old, young = folder / ".0123.partial", folder / ".4567.partial"
    old.touch()
    young.touch()
    tomorrow = time.time() + 90_000
    os.utime(young, (tomorrow - 60,) * 2)
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    run(2)
    assert not old.exists()
    assert young.exists(), "it may be another process at work"


def key_of(number: int) -> str:
    return f"{number:064x}"


def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Becomes a list with one element for every time that somebody looks at all entries."""
    seen: list[int] = []
    files = cache._files

    def count(folder: int) -> Any:
        found = files(folder)
        seen.append(len(found))
        return found

    monkeypatch.setattr(cache, "_files", count)
    return seen


def test_a_store_does_not_look_at_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at each of thousands takes milliseconds."""
    seen = looks(monkeypatch)
    for number in range(200):
        cache.store(key_of(number), bytes(100))
    assert len(seen) == 1, "the first one, in a folder that nobody knows"
    assert cache.statistics()[0] == 200


def test_a_full_cache_has_room_after_a_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every store in a full cache would look at all entries again."""
    cache.store(key_of(0), bytes(1000))
    size = cache.statistics()[1]
    monkeypatch.setattr(cache, "LIMIT", 80 * size)
    for number in range(80):
        cache.store(key_of(number), bytes(1000))
    seen = looks(monkeypatch)
    for number in range(80, 160):
        cache.store(key_of(number), bytes(1000))
        assert cache.statistics()[1] <= cache.LIMIT
    assert len(seen) - 80 <= 8


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("store"), st.integers(0, 9), st.integers(0, 3000)),
            st.tuples(st.sampled_from(["clear", "lose the ledger", "damage the ledger"])),
        ),
        max_size=25,
    ),
    noise=st.binary(max_size=30),
)
def test_the_limit_is_kept(steps: list[tuple[Any, ...]], noise: bytes) -> None:
    """After every store, whatever became of the ledger: at the worst, all entries are looked at."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        own_cache(Path(folder), patch)
        patch.setattr(cache, "LIMIT", 6000)
        ledger = Path(folder, cache.LEDGER)
        for what, *arguments in steps:
            if what == "store":
                key, nbytes = arguments
                cache.store(key_of(key), bytes(nbytes))
                assert cache.load(key_of(key)) == bytes(nbytes)
                assert cache.statistics()[1] <= cache.LIMIT
            elif what == "clear":
                cache.clear()
                assert not list(Path(folder).iterdir())
            elif what == "lose the ledger":
                ledger.unlink(missing_ok=True)
            else:
                ledger.write_bytes(noise)


@pytest.mark.parametrize(("totals", "is_late"), [((5000, 100), True), ((100, 5000), True), ((100, 200), False)])
def test_of_several_looks_the_largest_figure_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, totals: tuple[int, int], is_late: bool
) -> None:
    """Processes that look at the same time may end in another order than they began."""
    cache.store(key_of(0), bytes(100))
    monkeypatch.setattr(cache, "LIMIT", 5000)
    (folder / cache.LEDGER).write_text("".join(f"{int(time.time())} {total}\n" for total in totals))
    seen = looks(monkeypatch)
    cache.store(key_of(1), bytes(100))
    assert bool(seen) == is_late


def test_entries_that_others_put_there_are_noticed_within_a_day(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(0)
    size = entry(folder, 0).stat().st_size
    monkeypatch.setattr(cache, "LIMIT", 4 * size)
    for number in range(9):
        (folder / f"{key_of(number)}{cache.SUFFIX}").write_bytes(bytes(size))
    tomorrow = time.time() + 90_000
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    run(1)
    assert cache.statistics()[1] <= cache.LIMIT
    assert entry(folder, 1).exists()


def refuse_to_remove(monkeypatch: pytest.MonkeyPatch, refused: set[str], number: int) -> None:
    """As if these files were another user's, or on a file system that is read-only."""
    unlink = os.unlink

    def remove(path: Any, *arguments: Any, **options: Any) -> None:
        if path in refused:
            raise OSError(number, os.strerror(number), path)
        unlink(path, *arguments, **options)

    monkeypatch.setattr(os, "unlink", remove)


def test_clearing_goes_on_after_what_cannot_be_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        run(number)
    kept = {entry(folder, number).name for number in (1, 3)}
    refuse_to_remove(monkeypatch, kept, errno.EPERM)
    assert main(["cache", "--clear"]) == 1
    out, err = capsys.readouterr()
    assert set(names_of_entries(folder)) == kept
    assert out == f"removed 3 entries from {folder}\n"
    assert err == f"graphsr cache: 2 files stay in {folder}: {os.strerror(errno.EPERM)}\n"


def test_clearing_on_a_read_only_file_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(1)
    refuse_to_remove(monkeypatch, {path.name for path in folder.iterdir()}, errno.EROFS)
    assert main(["cache", "--clear"]) == 1
    out, err = capsys.readouterr()
    assert out == f"removed 0 entries from {folder}\n"
    assert err == f"graphsr cache: 1 file stays in {folder}: {os.strerror(errno.EROFS)}\n"


def test_a_cache_that_is_off_is_shown_and_cleared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Off means that nothing is read or stored; what is there takes room all the same."""
    run(1)
    monkeypatch.setenv("GRAPHSR_CACHE", "0")
    assert main(["cache"]) == 0
    assert "entries    1" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert not list(folder.iterdir())


@pytest.mark.parametrize("words", [["cache"], ["cache", "--clear"]])
def test_a_folder_that_is_not_used_is_not_cleared(
    folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`removed 0 entries` would sound as if there were none."""
    run(1)
    folder.chmod(0o777)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"others can write to {folder}" in err
    assert entry(folder, 1).exists()


def test_the_command_shows_and_clears(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "entries    0"
    run(1)
    run(2)
    mine = folder / "notes.txt"
    mine.write_text("not an entry")
    assert main(["cache"]) == 0
    directory, entries, nbytes = capsys.readouterr().out.splitlines()
    assert directory.split(maxsplit=1) == ["directory", str(folder)]
    assert entries.split() == ["entries", "2"]
    assert nbytes.split() == ["bytes", f"{2 * entry(folder, 1).stat().st_size:,}"]
    assert main(["cache", "--clear"]) == 0
    assert "removed 2" in capsys.readouterr().out
    assert [p.name for p in folder.iterdir()] == [mine.name]


def test_the_command_says_when_the_cache_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHSR_CACHE", "0")
    assert main(["cache"]) == 0
    assert "off" in capsys.readouterr().out
