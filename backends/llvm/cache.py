"""Object code on disk, so that a second process compiles nothing.

An entry is found by what determines it: the IR, the versions of llvmlite and LLVM, the target. It is

    MAGIC, SHA-256 of the rest (32 bytes), key (64 bytes), object code

and the digest is checked before LLVM sees a byte, since LLVM ends the process when an object is damaged. A damaged
entry counts as none and is written anew. The digest does not protect against malice: machine code from here is
executed, so the folder must belong to this user alone, and where it does not, the cache is off, with one warning.

To look at thousands of entries takes tens of milliseconds. So the bytes stored are counted in a file beside them, the
ledger, and the entries are looked at when these may be more than the limit, or once a day.

Settings: GRAPHSR_CACHE_DIR=folder, GRAPHSR_CACHE=0 (off).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import llvmlite
import llvmlite.binding as llvm

from graphsr.errors import BackendError, GraphsrError

if TYPE_CHECKING:
    from .target import Target

ABI = 1
"""Raised when the calling convention of kernels, or the way in which they are compiled, changes."""

MAGIC = b"graphsr object 1\n"
SUFFIX = ".object"
LIMIT = 256 << 20
"""Bytes of all entries; above it the ones not used for longest go."""
KEPT = 7 / 8
"""Share of the limit that is kept then: in a cache that is always full, every store would look at all entries."""
LEDGER = ".ledger"
"""Lines `seconds bytes` of all entries at the time when they were looked at, and `bytes` of each one stored since."""
_LONGEST_LEDGER = 16 << 10
"""Bytes after which it is begun anew: it is read at every store."""
_DAY = 86400.0
"""Seconds after which the entries are looked at whatever the ledger says."""
_STALE = 3600.0
"""Seconds after which a temporary file belongs to a process that was killed."""

ON, OFF = {"", "1", "on", "true", "yes"}, {"0", "off", "false", "no"}

_warned: set[str] = set()


class CacheError(GraphsrError):
    """The folder of the cache is not one that code may be taken from."""


def key(text: str, target: Target) -> str:
    """What identifies the object code of a module, as 64 hexadecimal digits."""
    versions = [ABI, llvmlite.__version__, list(llvm.llvm_version_info)]
    content = json.dumps([*versions, target.triple, target.cpu, target.features, text])
    return hashlib.sha256(content.encode()).hexdigest()


def directory() -> Path:
    """Where the cache is, or would be."""
    if chosen := os.environ.get("GRAPHSR_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base) and sys.platform != "darwin":
        return Path(base) / "graphsr"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "graphsr"
    except RuntimeError:  # a user without a home, such as a mere number in a container
        return Path(tempfile.gettempdir()) / f"graphsr-{os.geteuid()}"


def is_on() -> bool:
    """Whether the user wants a cache; a folder that is not safe is not used, either."""
    chosen = os.environ.get("GRAPHSR_CACHE", "")
    if chosen.lower() not in ON | OFF:
        raise BackendError(f"GRAPHSR_CACHE={chosen!r} is neither on nor off: set it to 1 or 0, or unset it")
    return chosen.lower() in ON


def load(key: str) -> bytes | None:
    """The object code of an entry; None where there is none, or it is damaged."""
    with _folder() as folder:
        if folder is None:
            return None
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would be waited for
            descriptor = os.open(key + SUFFIX, flags, dir_fd=folder)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                content = file.read()
                with contextlib.suppress(OSError):  # a file system may be read-only
                    os.utime(descriptor)  # the age of an entry is the time since its last use
        except OSError:
            return None
    return _unwrap(content, key)


def store(key: str, image: bytes) -> None:
    """Add an entry. It appears whole or not at all; where it cannot be written, one warning says why."""
    temporary = f".{secrets.token_hex(8)}.partial"
    content = _wrap(image, key)
    with _folder(make=True) as folder:
        if folder is None:
            return
        try:
            # No fsync, unlike `graphsr.atomic`: an entry that a power cut tears is noticed by its digest.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                file.write(content)
            os.replace(temporary, key + SUFFIX, src_dir_fd=folder, dst_dir_fd=folder)
            _keep_to_limit(folder, len(content))
        except FileNotFoundError:
            pass  # another process cleared the cache meanwhile, as its user wants
        except OSError as error:
            with contextlib.suppress(OSError):  # it may not even exist
                os.unlink(temporary, dir_fd=folder)
            _warn(f"cannot write to the object cache {directory()}: {error.strerror or error}")


def statistics() -> tuple[int, int]:
    """(entries, bytes), also of a cache that is off. Raises `CacheError`."""
    with _closing(_open_folder()) as folder:
        sizes = [entry.st_size for name, entry in _files(folder) if name.endswith(SUFFIX)]
    return len(sizes), sum(sizes)


def clear() -> tuple[int, Counter[str]]:
    """Remove all that is removable, also of a cache that is off: the number of entries that went, and the number of
    files that stay for each reason. Raises `CacheError`."""
    removed, stayed = 0, Counter[str]()
    with _closing(_open_folder()) as folder:
        for name, _ in _files(folder):
            try:
                removed += _remove(folder, name) and name.endswith(SUFFIX)
            except OSError as error:
                stayed[error.strerror or str(error)] += 1
        if not stayed and folder is not None:
            with contextlib.suppress(OSError):  # another process may have been quicker; it takes next to no room
                os.unlink(LEDGER, dir_fd=folder)
    return removed, stayed


def _wrap(image: bytes, key: str) -> bytes:
    body = key.encode() + image
    return MAGIC + hashlib.sha256(body).digest() + body


def _unwrap(content: bytes, key: str) -> bytes | None:
    start = len(MAGIC) + 32
    digest, body = content[len(MAGIC) : start], content[start:]
    intact = content.startswith(MAGIC) and hashlib.sha256(body).digest() == digest and body[:64] == key.encode()
    return body[64:] if intact else None


@contextlib.contextmanager
def _folder(*, make: bool = False) -> Iterator[int | None]:
    """The open folder; None where the cache is off, not there, or not this user's alone, of which a warning tells."""
    descriptor = None
    if is_on():
        try:
            descriptor = _open_folder(make)
        except CacheError as error:
            _warn(f"object cache off: {error}")
    with _closing(descriptor):
        yield descriptor


@contextlib.contextmanager
def _closing(descriptor: int | None) -> Iterator[int | None]:
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_folder(make: bool = False) -> int | None:
    """The open folder; None where there is none. Raises `CacheError`.

    What is checked here is what is used: files are reached through the descriptor, not again through the path.
    """
    path = directory()
    if os.open not in os.supports_dir_fd or not hasattr(os, "geteuid"):
        return None  # without owners and modes nothing tells whose code it is
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not make:
            return None  # nothing was stored yet
        reason = f"{path} is not a folder that can be used ({error.strerror}); no symbolic link may be"
        raise CacheError(reason) from error
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return descriptor
    os.close(descriptor)
    mode = stat.S_IMODE(found.st_mode)
    raise CacheError(
        f"others can write to {path} (owner {found.st_uid}, mode {mode:o}) and place code there: "
        "make it yours with mode 700, or set GRAPHSR_CACHE_DIR, or GRAPHSR_CACHE=0"
    )


def _files(folder: int | None) -> list[tuple[str, os.stat_result]]:
    """Entries and temporary files with their states. Other files in the folder are none of our business."""
    found = []
    for name in os.listdir(folder) if folder is not None else ():
        if name.endswith((SUFFIX, ".partial")):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                state = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(state.st_mode):
                    found.append((name, state))
    return found


def _keep_to_limit(folder: int, nbytes: int) -> None:
    """Count an entry that was stored, and remove others where they may be too many.

    Several processes lose no count: lines are appended, and the ledger goes before the entries are looked at, so that
    what is stored meanwhile is in the new one. Some may be counted twice, and then the entries are looked at early.
    """
    if _is_due(_note(folder, f"{nbytes}\n")):
        with contextlib.suppress(FileNotFoundError):  # another process is at it
            os.unlink(LEDGER, dir_fd=folder)
        total = _evict(folder)
        _note(folder, f"{int(time.time())} {total}\n")


def _note(folder: int, line: str) -> bytes:
    """Append a line to the ledger; gives all of it, or as much as proves that it is too long."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(LEDGER, flags, 0o600, dir_fd=folder), "r+b", buffering=0) as ledger:
        ledger.write(line.encode())
        ledger.seek(0)
        return ledger.read(_LONGEST_LEDGER + 1)


def _is_due(ledger: bytes) -> bool:
    """Whether the entries are to be looked at: there are too many, or the ledger cannot tell.

    Where several processes have looked, the largest of their figures is at least that of the last one.
    """
    try:
        lines = [[int(word) for word in line.split()] for line in ledger.splitlines()]
        looked, totals = zip(*(line for line in lines if len(line) == 2), strict=True)
    except ValueError:
        return True  # damaged, or nobody has looked yet
    total = max(totals) + sum(line[0] for line in lines if len(line) == 1)
    return total > LIMIT or len(ledger) > _LONGEST_LEDGER or not 0 <= time.time() - min(looked) < _DAY


def _evict(folder: int) -> int:
    """Keep to the limit, and remove what killed processes left; gives the bytes that are still there."""
    files = sorted(_files(folder), key=lambda item: item[1].st_mtime)
    total = sum(entry.st_size for _, entry in files)
    most = KEPT * LIMIT if total > LIMIT else LIMIT
    for name, entry in files:
        left_over = name.endswith(".partial") and time.time() - entry.st_mtime > _STALE
        if left_over or (total > most and name.endswith(SUFFIX)):
            total -= entry.st_size
            _remove(folder, name)
    return total


def _remove(folder: int | None, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:  # another process was quicker
        return False
    return True


def _warn(text: str) -> None:
    """Warn once, of the line that called graphsr: the user knows nothing of those inside.

    Where warnings are errors this raises, and the next call, which has been told, works.
    """
    if text in _warned:
        return
    _warned.add(text)
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(sys._getframe())]
    outermost = max(depth for depth, name in enumerate(names) if name.partition(".")[0] == "graphsr")
    warnings.warn(text, RuntimeWarning, stacklevel=outermost + 2)  # 1 is this line
