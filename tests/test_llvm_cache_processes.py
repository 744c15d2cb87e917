"""The object cache of the llvm backend shared by processes: nobody gets a wrong kernel, whatever the others do."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cache_support import entry, needs_owners, own_cache, run

from graphsr.backends.llvm import cache

from support import ROOT

pytestmark = needs_owners


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    return own_cache(tmp_path / "cache", monkeypatch)


RACE = """
import ctypes, sys
sys.path.insert(0, {tests!r})
from cache_support import run
from graphsr.backends.llvm import cache
cache.LIMIT = {limit}
for number in range({count}):
    assert run(number) == number
"""


def test_processes_may_race(folder: Path) -> None:
    """R11: all compile the same functions into the same folder; everybody gets the right ones."""
    code = RACE.format(tests=str(ROOT / "tests"), count=10, limit=cache.LIMIT)
    racers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [racer.wait(120) for racer in racers] == [0] * 4
    assert cache.statistics()[0] == 10
    assert not list(folder.glob("*.partial"))


def test_processes_may_remove_what_others_read(folder: Path) -> None:
    """R11: two processes write, read and evict in a folder that holds two entries at most."""
    run(0)
    limit = 5 * entry(folder, 0).stat().st_size // 2
    code = RACE.format(tests=str(ROOT / "tests"), count=8, limit=limit) * 3
    racers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [racer.wait(120) for racer in racers] == [0] * 2
    assert all(cache.load(path.stem) is not None for path in folder.glob(f"*{cache.SUFFIX}"))
    assert not list(folder.glob("*.partial"))


def test_a_process_killed_while_it_writes_leaves_no_wrong_entry(folder: Path) -> None:
    """R11: kill -9 at random times."""
    code = RACE.format(tests=str(ROOT / "tests"), count=2000, limit=cache.LIMIT)
    rng = random.Random(0)
    for _ in range(5):
        before = cache.statistics()[0]
        writer = subprocess.Popen([sys.executable, "-c", code])
        while cache.statistics()[0] == before and writer.poll() is None:
            time.sleep(0.01)  # until it is at work
        time.sleep(rng.random() / 10)
        writer.kill()
        writer.wait()
        for path in list(folder.glob(f"*{cache.SUFFIX}")):
            assert cache.load(path.stem) is not None
    assert run(0) == 0


MIX = """
import random, sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("error")
from cache_support import run
from graphsr.backends.llvm import cache
cache.LIMIT = {limit}
me = int(sys.argv[1])
rng = random.Random(me)
image = lambda key: int(key, 16).to_bytes(32, "big") * (1 + int(key[-2:], 16))
for step in range(600):
    number = rng.choice([rng.randrange(8), 1000 * (me + 1) + step % 50])  # what all store, and this one's own
    key = f"{{number * 2654435761 % 2**64:064x}}"
    done = rng.random()
    if done < 0.5:
        cache.store(key, image(key))
    elif done < 0.95:
        assert cache.load(key) in (None, image(key))
    elif done < 0.97:
        cache.clear()
    elif done < 0.98:
        cache.statistics()
    else:
        assert run(number) == number
"""


@pytest.mark.parametrize("limit", [30_000, cache.LIMIT], ids=["small", "large"])
def test_processes_may_store_read_and_clear_at_once(folder: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of them, where even a warning would be an error: each reads what was stored under a key, or nothing."""
    code = MIX.format(tests=str(ROOT / "tests"), limit=limit)
    racers = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(8)]
    assert [racer.wait(240) for racer in racers] == [0] * 8
    assert not list(folder.glob("*.partial"))
    monkeypatch.setattr(cache, "LIMIT", limit)
    cache.store("8" * 64, b"")  # the last of the others may have left it to the next store
    assert cache.statistics()[1] <= limit
    assert all(cache.load(path.stem) is not None for path in folder.glob(f"*{cache.SUFFIX}"))


def test_no_store_of_several_processes_is_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stores thirty entries into a folder that holds forty, and they look at all of them at once."""
    limit, nbytes = 40_000, 1000 - 113
    code = RACE.format(tests=str(ROOT / "tests"), count=1, limit=limit)
    code += f"for number in range(30): cache.store(f'{{sys.argv[1]}}{{number:063d}}', bytes({nbytes}))\n"
    for _ in range(3):
        racers = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(8)]
        assert [racer.wait(120) for racer in racers] == [0] * 8
        monkeypatch.setattr(cache, "LIMIT", limit)
        cache.store("8" * 64, bytes(nbytes))
        assert limit / 2 < cache.statistics()[1] <= limit
