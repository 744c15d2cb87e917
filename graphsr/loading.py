"""`load` and `save`: from a file or the name of an embedded model to a `Model`, and back.

Importers are found through the entry-point group `graphsr.importers`. An importer is a module (or object) with
`matches(path, head) -> bool`, which looks at the suffix and the first bytes only, and `load(path, **options)
-> Model`; the first line of its docstring says what it reads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol, cast

from graphsr.errors import ModelError
from graphsr.model import Model

GROUP = "graphsr.importers"
SUFFIX = ".safetensors"
"""Of the embedded models' files."""
HEAD = 4096
"""So many bytes of a file are shown to the importers."""


class Importer(Protocol):
    """What an entry point of the group gives."""

    def matches(self, path: Path, head: bytes) -> bool:
        """Whether this importer reads the file that starts with `head`."""

    def load(self, path: str | os.PathLike[str], **options: Any) -> Model:
        """The model in the file. Raises `ModelError`."""


class Format(Importer, Protocol):
    """An importer that can save as well, to files with one of the suffixes SAVES."""

    SAVES: tuple[str, ...]

    def save(self, model: Model, path: str | os.PathLike[str], *, dtype: str, overwrite: bool) -> None:
        """Write the model to a file that `load` reads. Raises `ModelError`."""


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """Load a network from a file, or an embedded one by name ("wdsr-x2", "wdsr-x4").

    The kind of file is recognised by its content and suffix; importers are asked in the order of their names, and those
    after the first that reads the file are not even imported. Options belong to the importer: for checkpoints
    `res_scale`, `input_range`, `mean`, `shuffle`, `scale`.

    Raises `ModelError` when there is no such file or model, when no importer reads it, and when the importer
    refuses it or an option.
    """
    with _model_file(path) as file:
        head = _head(file)
        found = next((importer for _, importer in _in_turn() if importer.matches(file, head)), None)
        if found is None:
            raise ModelError(f"{path}: not a model file that graphsr reads.\n{supported()}")
        try:
            return found.load(file, **options)
        except ModelError as error:
            if file == Path(path):
                raise
            raise ModelError(str(error).replace(os.fspath(file), f"embedded model {path}")) from error


def save(model: Model, path: str | os.PathLike[str], *, dtype: str = "float32", overwrite: bool = False) -> None:
    """Save a model: as .safetensors in graphsr's own format, of which `load` gives the same model, bit for bit; as
    .onnx with plain operators; as .cfg with a .weights file beside it, for darknet.

    With `dtype="float16"` weights are stored in half precision and widened when they are loaded (.safetensors only).
    The file, and the .weights file, are replaced; the .tree files of a .cfg replace others only with `overwrite`.
    Raises `ModelError` for another suffix, for weights beyond half precision's range, and for a network that the format
    cannot express.
    """
    _check_path(path)
    if not isinstance(model, Model):
        raise ModelError(f"what is saved is a Model, got {type(model).__name__}")
    known = writers()
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise ModelError(f"{os.fspath(path)}: models are saved as {', '.join(sorted(known))} files")
    known[suffix].save(model, path, dtype=dtype, overwrite=overwrite)


def writers() -> dict[str, Format]:
    """The importers that can save, by suffix."""
    return {suffix: cast(Format, found) for found in importers().values() for suffix in getattr(found, "SAVES", ())}


def importers() -> dict[str, Importer]:
    """The installed importers by name. Raises `ModelError` when one cannot be imported."""
    return dict(_in_turn())


def _in_turn() -> Iterator[tuple[str, Importer]]:
    """The installed importers, each imported when it is asked for."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            importer: Importer = entry.load()
        except (ImportError, AttributeError) as error:  # the module, or the name in it
            raise ModelError(f"importer {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
        yield entry.name, importer


def embedded() -> list[str]:
    """The names of the models that come with the package."""
    names = (entry.name for entry in files("graphsr.weights").iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def supported() -> str:
    """What `load` takes, for messages."""
    kinds = [f"  {(importer.__doc__ or name).splitlines()[0]}" for name, importer in importers().items()]
    return "\n".join(["Files:", *kinds, f"Embedded models: {', '.join(embedded()) or 'none'}"])


@contextmanager
def _model_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The file of a path or of an embedded model's name."""
    _check_path(path)
    if os.fspath(path) in embedded():
        with as_file(files("graphsr.weights") / f"{os.fspath(path)}{SUFFIX}") as file:
            yield file
        return
    file = Path(path)
    try:
        regular = stat.S_ISREG(os.stat(file).st_mode)
    except PermissionError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    except (OSError, ValueError):  # ValueError: a name that no file can have
        raise ModelError(f"{os.fspath(path)!r} is neither a file nor an embedded model.\n{supported()}") from None
    if not regular:
        raise ModelError(f"{os.fspath(path)!r} is a folder or a device, and no model file.\n{supported()}")
    yield file


def _check_path(path: object) -> None:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise ModelError(f"a model file is named by a str or a pathlib.Path, got {path!r}")


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(HEAD)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
