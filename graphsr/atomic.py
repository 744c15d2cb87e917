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


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty temporary file beside `target`; it takes the target's place when the block succeeds.

    The name is `.{stem}.partial-{random}{suffix}`: hidden, and with the suffix by which writers know the
    format. On success the file is flushed to the disk and renamed in one step; on any error, KeyboardInterrupt
    too, it is removed and the target stays as it was. A killed process leaves only the hidden file.

    A new file gets the permissions that `open` would give it (umask), a replaced one keeps its own. A symbolic
    link stays, and the file that it points to is replaced.

    Raises OSError as `open` does, also when the target is write-protected or is no regular file (/dev/null).
    """
    final = Path(os.path.realpath(target))
    mode = _mode_of_replaceable(final)
    partial = final.with_name(f".{final.stem[:_STEM_KEPT]}.partial-{secrets.token_hex(8)}{final.suffix}")
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


def _mode_of_replaceable(final: Path) -> int | None:
    """The permission bits of the file to be replaced; None where there is none yet."""
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file, cannot be replaced", str(final))
    if not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(final))
    return stat.S_IMODE(mode) & 0o777


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
