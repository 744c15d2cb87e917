"""What the commands of the command line write, and where: planned before any work, and never on an input."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphsr.atomic import atomic_path, check_writable
from graphsr.cli import OutputError, UsageError
from graphsr.imagefile import SUFFIXES

FORMATS = ", ".join(sorted(SUFFIXES))


def plan_outputs(inputs: list[Path], output: str | None, scale: int) -> list[tuple[Path, Path]]:
    """(source, target) for every image; `UsageError` when an output would fall on an input or on another output."""
    sources: list[Path] = []
    for path in inputs:
        sources += images_in(path, scale if output is None else None) if os.path.isdir(path) else [path]
    to_file = output is not None and _names_a_file(output)
    if to_file and (len(sources) > 1 or os.path.isdir(inputs[0])):
        raise UsageError(f"-o {output} names one file, but there are {len(sources)} images: give a folder")
    read = {os.path.realpath(path) for path in sources}
    written: dict[str, Path] = {}
    jobs: dict[Path, Path] = {}
    for source in sources:
        if output is None:
            target = _beside(source, scale)
        elif to_file:
            target = Path(output)
        else:
            target = Path(output) / source.name
        place = os.path.realpath(target)
        if place in read:
            raise UsageError(f"{source} would be written over {target}, which is an input: name another place with -o")
        if place in written:
            both = f"{written[place]} and {source} would both be written to {target}"
            raise UsageError(f"{both}: give each image once, and those of one name with different folders, one by one")
        written[place] = source
        jobs[source] = target
    return list(jobs.items())


def _names_a_file(output: str) -> bool:
    """Whether `-o` names an image file, and not a folder; `UsageError` where it can be neither."""
    if os.path.isdir(output):
        return False
    if output.endswith(("/", os.sep)):
        if os.path.lexists(output.rstrip("/" + os.sep)):
            raise UsageError(f"-o {output}: a file is there, and no folder: name a folder, or the file without slash")
        return False
    suffix = Path(output).suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix:
        raise UsageError(f"-o {output}: images are written as {FORMATS}; a folder of such a name must exist already")
    if os.path.lexists(output):
        raise UsageError(f"-o {output}: a file is there, and no folder; images are written as {FORMATS}")
    return False


def images_in(folder: Path, scale: int | None) -> list[Path]:
    """The images of a folder, without those that an earlier run at this scale has put beside their originals."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    made = {_beside(p, scale) for p in found} if scale else set()
    found = [p for p in found if p not in made]
    if not found:
        raise UsageError(f"folder {folder} holds no images ({FORMATS})")
    return found


def _beside(source: Path, scale: int) -> Path:
    """Where the result goes when no output is named."""
    return source.with_name(f"{source.stem}_x{scale}{source.suffix}")


def refuse_overwriting(option: str, output: str, *others: str | Path | None) -> None:
    """`UsageError` when what an option writes would fall on a file that is read or written besides."""
    if os.path.realpath(output) in {os.path.realpath(other) for other in others if other}:
        raise UsageError(f"{option} {output}: the file is an input, or another output; name another one")


def prepare(target: Path, what: str = "") -> None:
    """Make the folder of an output, and raise `OutputError` before the work where the output cannot be written."""
    with _told_as(what, target):
        _make_folder(target.parent)
        check_writable(target)


def write_text(target: Path, text: str, what: str) -> None:
    """Write a text file, whole or not at all. Raises `OutputError`."""
    with _told_as(what, target), atomic_path(target) as path:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{error.filename} is a file, and no folder: name another place") from error
    except OSError as error:
        raise OutputError(f"the folder {error.filename} cannot be made: {error.strerror}") from error


@contextmanager
def _told_as(what: str, target: Path) -> Iterator[None]:
    """Errors of writing in our own type: the option, the file, and what to do."""
    try:
        yield
    except (OSError, OutputError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise OutputError(f"{what} {target}: cannot be written: {reason}".lstrip()) from error
