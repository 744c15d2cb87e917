"""Files that appear whole or not at all.

A writer that fails half way (disk full, Ctrl-C) leaves a truncated file that a later run takes for a
finished one. So every output goes to a temporary sibling first and is renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_STEM_KEPT = 40  # characters of the target's stem in the temporary name, so that it cannot grow too long


_ADVICE = {
    errno.ENOENT: "make the folder {folder} first, or name another file",
    errno.ENOTDIR: "a file is in the way where a folder is needed: name another file",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "you may not write there: name another file, or change the permissions",
    errno.EROFS: "name a file on another disk",
    errno.ENOSPC: "free some, or name a file on another disk",
    errno.EDQUOT: "free some of your files, or name a file on another disk",
    errno.EFBIG: "name a file on another disk",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "the symbolic links there point to each other: name another file",
    errno.EINVAL: "only regular files can be replaced: name another file",
}
"""What to do about the system's errors, by number."""


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty temporary file beside `target`; it takes the target's place when the block succeeds.

    The name is `.{stem}.partial-{random}{suffix}`: hidden, and with the suffix by which writers know the
    format. On success the file is flushed to the disk and renamed in one step; on any error, KeyboardInterrupt
    too, it is removed and the target stays as it was. A killed process leaves only the hidden file.

    A new file gets the permissions that `open` would give it (umask), a replaced one keeps its own. A symbolic
    link stays, and the file that it points to is replaced.

    Raises OSError as `open` does, also when the target is write-protected or is no regular file (/dev/null); it names
    the target and says in `strerror` what to do.
    """
    final = Path(os.path.realpath(target))
    partial = final.parent / f".{final.stem[:_STEM_KEPT]}.partial-{secrets.token_hex(8)}{final.suffix}"
    with _in_words_of(target, final, partial):
        mode = _mode_of_replaceable(final)
        try:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            if mode is not None:
                partial.chmod(mode)
            yield partial
            _flush_to_disk(partial)
            partial.replace(final)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
                partial.unlink()
            raise


def check_writable(target: str | os.PathLike[str]) -> None:
    """Raise now the OSError that `atomic_path` would raise after work that is lost then. Nothing is left behind."""
    with contextlib.suppress(_NothingToWriteError), atomic_path(target):
        raise _NothingToWriteError


class _NothingToWriteError(Exception):
    """Ends `atomic_path` with the target as it was."""


@contextlib.contextmanager
def _in_words_of(target: str | os.PathLike[str], *files: Path) -> Iterator[None]:
    """The system's errors about one of these files, or without a name as those of writing, as errors about `target`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE or error.filename not in (None, *map(str, files), *files):
            raise
        folder = files[0].parent
        if error.errno == errno.ENOENT and folder.is_dir():  # such as /proc, which takes no files
            advice = "no file can be made there: name another one"
        else:
            advice = _ADVICE[error.errno].format(folder=folder)
        raise OSError(error.errno, f"{error.strerror}: {advice}", os.fspath(target)) from error


def _mode_of_replaceable(final: Path) -> int | None:
    """The permission bits of the file to be replaced; None where there is none yet."""
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(final))
    if not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(final))
    return stat.S_IMODE(mode) & 0o777


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
