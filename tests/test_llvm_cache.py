"""The object cache of the llvm backend: what is damaged is made anew, what others could write is not used."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_support import answer, entry, names_of_entries, needs_owners, own_cache, run
from mutation import mutants

from graphsr.backends.llvm import backend as backend_module
from graphsr.backends.llvm import cache
from graphsr.backends.llvm.jit import compile_ir
from graphsr.backends.llvm.kernel import Kernel
from graphsr.backends.llvm.library import Library
from graphsr.backends.llvm.loops import Function
from graphsr.backends.llvm.target import Target, host, named
from graphsr.errors import BackendError
from graphsr.models import espcn

pytestmark = needs_owners


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    return own_cache(tmp_path / "cache", monkeypatch)


def test_a_second_compilation_reads_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(7) == 7
    assert names_of_entries(folder) == [entry(folder, 7).name]
    monkeypatch.setattr("graphsr.backends.llvm.jit.emit_object", lambda *_: pytest.fail("compiled again"))
    assert run(7) == 7


def test_uncached_leaves_no_trace(folder: Path) -> None:
    compile_ir(answer(1), host(), cached=False)
    assert not folder.exists()


@pytest.mark.parametrize("off", ["0", "off", "False", "no"])
def test_it_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    monkeypatch.setenv("GRAPHSR_CACHE", off)
    assert run(1) == 1
    assert not folder.exists()


def test_a_switch_that_is_none_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHSR_CACHE", "nope")
    with pytest.raises(BackendError, match="GRAPHSR_CACHE='nope' is neither on nor off"):
        run(1)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_no_entry(folder: Path, make: Callable[[Path], None]) -> None:
    """A pipe would be waited for."""
    run(2)
    make(entry(folder, 1))
    assert cache.load(entry(folder, 1).stem) is None
    assert cache.statistics()[0] == 1
    assert cache.clear() == (1, {})


def test_folder_and_entries_are_private(folder: Path) -> None:
    run(1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry(folder, 1).stat().st_mode & 0o777 == 0o600


def test_every_part_of_the_key_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text, target or version is another entry; the same is the same."""
    keys = [cache.key(answer(n), named(name)) for n in (1, 2) for name in ("x86-64-v2", "x86-64-v3", "aarch64")]
    assert cache.key(answer(1), named("x86-64-v2")) == keys[0]
    monkeypatch.setattr(cache, "ABI", cache.ABI + 1)
    keys.append(cache.key(answer(1), named("x86-64-v2")))
    target = named("x86-64-v2")
    for other in (replace(target, triple="o"), replace(target, cpu="o"), replace(target, features="o")):
        keys.append(cache.key(answer(1), other))
    monkeypatch.setattr("llvmlite.__version__", "0.0")
    keys.append(cache.key(answer(1), named("x86-64-v2")))
    monkeypatch.setattr("llvmlite.binding.llvm_version_info", (0, 0, 0))
    keys.append(cache.key(answer(1), named("x86-64-v2")))
    assert len(set(keys)) == len(keys)


def new_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has compiled."""
    fresh = Library(host())
    monkeypatch.setattr(backend_module, "library", lambda _: fresh)


def output_of_a_network(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """What a small network computes at a few sizes, as if in a new process."""
    new_library(monkeypatch)
    executable = espcn(scale=2).compile("llvm", 2)
    return {n: executable({"input": np.ones((1, 1, n, 2 * n), np.float32)})["output"].tobytes() for n in (1, 9, 40)}


def test_a_known_network_is_neither_planned_for_all_sizes_nor_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = output_of_a_network(monkeypatch)
    for what in ("backend.kernels_of_all_sizes", "library.emit_object", "library.module"):
        monkeypatch.setattr(f"graphsr.backends.llvm.{what}", lambda *_: pytest.fail("once more"))
    assert output_of_a_network(monkeypatch) == first


def test_other_sources_are_another_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the code generator is one of the kernels, whatever their descriptions say."""
    first = output_of_a_network(monkeypatch)
    entries = [len(names_of_entries(folder))]
    for digest in ("other", None):
        monkeypatch.setattr("graphsr.backends.llvm.library.digest_of_sources", lambda digest=digest: digest)
        assert output_of_a_network(monkeypatch) == first
        entries.append(len(names_of_entries(folder)))
    assert entries[1] == entries[0] + 1
    assert entries[2] > entries[1]  # by their IR


@dataclass(frozen=True)
class Nothing(Kernel):
    """A kernel whose source code is here, not in the package."""

    def slots(self) -> Mapping[str, str]:
        return {}

    def body(self, k: Function, target: Target) -> None:
        pass


def test_kernels_of_others_are_known_by_their_ir_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Library(host()).add_network("a network", lambda: [Nothing()])
    asked = []

    def kernels() -> list[Kernel]:
        asked.append(Nothing())
        return [*asked]

    Library(host()).add_network("a network", kernels)
    assert asked
    monkeypatch.setattr("graphsr.backends.llvm.jit.emit_object", lambda *_: pytest.fail("compiled again"))
    Library(host()).add([Nothing()])


def test_damaged_entries_are_made_anew(folder: Path) -> None:
    """R11: LLVM ends the process when an object is damaged, so it never sees one."""
    run(5)
    path = entry(folder, 5)
    intact = path.read_bytes()
    damaged = list(mutants(intact, 480))
    damaged += [intact[: len(intact) * n // 20] for n in range(20)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        if content != intact:
            assert cache.load(path.stem) is None
            refused += 1
    assert refused > 450
    for content in damaged[::25]:
        path.write_bytes(content)
        assert run(5) == 5
        assert path.read_bytes() == intact


def test_an_entry_under_another_name_is_not_used(folder: Path) -> None:
    run(5)
    run(6)
    entry(folder, 5).write_bytes(entry(folder, 6).read_bytes())
    assert run(5) == 5


def test_an_object_that_is_intact_but_empty_of_the_function_is_refused(folder: Path) -> None:
    """Not damage but a bug: said, not crashed on."""
    run(5)
    image = cache.load(entry(folder, 5).stem)
    assert image is not None
    renamed = answer(5).replace("@answer", "@question")
    cache.store(cache.key(renamed, host()), image)
    with pytest.raises(Exception, match="question"):
        compile_ir(renamed, host())


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_folder_that_others_can_write_is_not_used(folder: Path, mode: int) -> None:
    run(5)
    folder.chmod(mode)
    entry(folder, 5).write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="others can write"):
        assert run(5) == 5
    assert entry(folder, 5).read_bytes() == b"", "nothing is written there, either"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(5) == 5  # one warning is enough


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.warns(RuntimeWarning, match="owner 12345"):
        assert run(5) == 5
    assert not list(folder.iterdir())


def test_a_symbolic_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.warns(RuntimeWarning, match="symbolic link"):
        assert run(5) == 5
    assert not list(elsewhere.iterdir())


def test_a_link_in_place_of_an_entry_is_not_followed(folder: Path, tmp_path: Path) -> None:
    run(5)
    entry(folder, 5).rename(tmp_path / "moved")
    entry(folder, 5).symlink_to(tmp_path / "moved")
    assert cache.load(entry(folder, 5).stem) is None
    assert run(5) == 5
    assert not entry(folder, 5).is_symlink(), "the entry was made anew"


def test_a_file_in_place_of_the_folder(folder: Path) -> None:
    folder.write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="object cache off"):
        assert run(5) == 5
    assert folder.read_text() == "not a folder"


def test_a_full_disk_costs_only_the_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert run(5) == 5
    assert not list(folder.iterdir())


def test_a_disk_that_is_full_in_the_middle_of_an_entry(folder: Path) -> None:
    """The system refuses to let any file grow beyond some bytes, so part of the entry is written."""
    resource = pytest.importorskip("resource")
    run(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.warns(RuntimeWarning, match="cannot write to the object cache"):
            assert run(5) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_of_entries(folder) == [entry(folder, 1).name]
    assert run(5) == 5
    assert entry(folder, 5).exists()


def test_a_read_only_file_system_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(5)
    system_open = os.open

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def read_only(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            refuse()
        return system_open(path, flags, *arguments, **options)

    for name in ("utime", "replace", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, read_only})
    with pytest.warns(RuntimeWarning, match="Read-only file system"):
        assert run(6) == 6
    monkeypatch.setattr("graphsr.backends.llvm.jit.emit_object", lambda *_: pytest.fail("compiled again"))
    assert run(5) == 5


def test_a_folder_that_cannot_be_made(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("not a folder")
    monkeypatch.setenv("GRAPHSR_CACHE_DIR", str(folder / "below"))
    with pytest.warns(RuntimeWarning, match="object cache off"):
        assert run(5) == 5


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nothing can be made")
def test_a_folder_whose_making_reports_that_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHSR_CACHE_DIR", "/proc/graphsr")
    with pytest.warns(RuntimeWarning, match="object cache off: /proc/graphsr"):
        assert run(5) == 5


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run under a number: the cache lies in the folder of temporary files."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("GRAPHSR_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.directory() == tmp_path / f"graphsr-{os.geteuid()}"
    assert run(5) == 5
    assert entry(cache.directory(), 5).exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GRAPHSR_CACHE_DIR": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/graphsr"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/graphsr"),
        ({"HOME": "/h"}, "/h/.cache/graphsr"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="the place is another one there")
def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("GRAPHSR_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache.directory()) == expected


# --- warnings -----------------------------------------------------------------------------------------------------


def test_a_warning_names_the_line_that_called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one inside graphsr, of which the user knows nothing."""
    folder.write_text("not a folder")
    new_library(monkeypatch)
    executable, x = espcn(scale=2).compile("llvm", 1), np.ones((1, 1, 9, 18), np.float32)
    with pytest.warns(RuntimeWarning, match="object cache off") as caught:
        executable({"input": x})
    (warning,) = caught
    assert warning.filename == __file__
    assert "executable(" in Path(__file__).read_text(encoding="utf-8").splitlines()[warning.lineno - 1]


def test_a_warning_that_is_an_error_leaves_all_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `python -W error`: it ends the call, and the next one works."""
    want = output_of_a_network(monkeypatch)
    new_library(monkeypatch)
    folder.chmod(0o777)
    executable, x = espcn(scale=2).compile("llvm", 2), np.ones((1, 1, 9, 18), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="others can write"):
            executable({"input": x})
        assert executable({"input": x})["output"].tobytes() == want[9]


def test_a_warning_of_a_store_that_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, warnings.catch_warnings():
        patch.setattr(os, "replace", full)
        warnings.simplefilter("error")
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        with pytest.raises(RuntimeWarning, match="No space left"):
            run(5)
        assert (len(os.listdir("/proc/self/fd")) if before else 0) == before, "the folder was let go of"
        assert run(5) == 5
    assert not list(folder.iterdir())
    assert run(5) == 5
    assert entry(folder, 5).exists()
