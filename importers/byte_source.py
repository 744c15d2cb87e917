"""Reading binary files that are not trusted: every read is bounded by the file, every failure is a `ModelError`.

The readers of checkpoint formats take sizes and offsets from the file. Python's own `read(n)` reserves n bytes
before it looks whether they exist, so a 20-byte file that claims 2**40 would end in a MemoryError; here the
claim is compared with the file's length first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader

import numpy as np
import numpy.typing as npt

from graphsr.errors import ModelError

_HASH_BLOCK = 1 << 20


class ByteSource:
    """A regular file, read by position. `path` is used in messages only."""

    def __init__(self, file: BufferedReader, path: str) -> None:
        self._file = file
        self._opened = os.fstat(file.fileno())
        self.path = path
        self.size = self._opened.st_size

    def error(self, place: str, problem: str) -> ModelError:
        """The exception to raise: it names the file, the place in it and what is wrong there."""
        return ModelError(f"{self.path}: {place}: {problem}")

    def is_at(self, path: str | os.PathLike[str]) -> bool:
        """Whether the opened file is the one that lies there now, and no link to it."""
        now = os.lstat(path)
        return (now.st_dev, now.st_ino) == (self._opened.st_dev, self._opened.st_ino)

    def read(self, offset: int, count: int, place: str) -> bytes:
        """Exactly `count` bytes at `offset`; ModelError when the file does not have them."""
        self._check_range(offset, count, place)
        self._file.seek(offset)
        data = self._file.read(count)
        if len(data) != count:
            raise self.error(place, f"the file shrank while it was read ({len(data)} of {count} bytes left)")
        return data

    def read_array(self, offset: int, count: int, place: str) -> npt.NDArray[np.uint8]:
        """Like `read`, into a new array that is aligned for any element type."""
        self._check_range(offset, count, place)
        array = np.empty(count, np.uint8)
        self._file.seek(offset)
        done = 0
        while done < count:
            step = self._file.readinto(array.data[done:])
            if not step:
                raise self.error(place, f"the file shrank while it was read ({done} of {count} bytes left)")
            done += step
        return array

    def sha256(self) -> str:
        """Hex digest of the whole file, read in blocks; ModelError when the file changed since it was opened."""
        digest = hashlib.sha256()
        self._file.seek(0)
        while block := self._file.read(_HASH_BLOCK):
            digest.update(block)
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            raise self.error("whole file", "it changed while it was read; try again when nothing writes to it")
        return digest.hexdigest()

    def _check_range(self, offset: int, count: int, place: str) -> None:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.error(place, f"bytes {offset} to {offset + count} are wanted, the file has {self.size}")


@contextlib.contextmanager
def open_source(path: str | os.PathLike[str], max_bytes: int) -> Iterator[ByteSource]:
    """Open `path` for reading; ModelError when it is absent, unreadable, no regular file or over `max_bytes`.

    Failing I/O and lack of memory inside the block become ModelError here, so that no reader needs to.
    """
    name = os.fsdecode(path)
    with _open_regular(name) as file:
        source = ByteSource(file, name)
        if source.size > max_bytes:
            raise source.error("whole file", f"{source.size} bytes, more than the limit of {max_bytes} (max_bytes)")
        try:
            yield source
        except OSError as error:
            raise ModelError(f"{name}: cannot be read: {error.strerror or error}") from error
        except MemoryError as error:
            raise ModelError(f"{name}: not enough memory to load it") from error


def _open_regular(name: str) -> BufferedReader:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # opening a FIFO would wait for a writer for ever
            raise ModelError(f"{name}: not a regular file, so no checkpoint")
        return open(name, "rb")
    except OSError as error:
        raise ModelError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # such as a NUL byte in the name
        raise ModelError(f"{name!r}: not a usable path: {error}") from error
