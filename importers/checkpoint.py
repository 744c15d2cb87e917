"""Checkpoints of any format -> named arrays, without the frameworks that wrote them; safe on untrusted files.

The format is told by the content, never by the suffix. Every failure is a `ModelError` with the file and the place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from graphsr.errors import ModelError
from graphsr.op import Array

from . import keras_hdf5, safetensors_file, torch7, torch_checkpoint
from .byte_source import ByteSource, open_source

_HEAD = 512


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file of weights holds."""

    path: str
    """As given."""
    format: str
    """"PyTorch zip", "PyTorch legacy", "safetensors", "Torch7" or "Keras HDF5"."""
    tensors: Mapping[str, Array] = field(repr=False)
    """Read-only arrays by name, in the order of the file, in its element types; bfloat16 is widened to float32."""
    metadata: Mapping[str, str] = field(repr=False)
    """Numbers and strings beside the tensors, such as {"epoch": "30"}; see the reader of each format."""
    sha256: str
    """Of the whole file, hexadecimal."""
    tree: object | None = field(default=None, repr=False)
    """Torch7: the tree of `Torch7Object`; else None."""


def read_checkpoint(path: str | os.PathLike[str], *, max_bytes: int = 4 << 30) -> Checkpoint:
    """Read the weights in a PyTorch (zip or legacy), safetensors, Torch7 or Keras HDF5 file.

    `max_bytes` bounds the file and, separately, the memory of its tensors. Raises `ModelError` for everything that
    cannot be read: a missing, damaged, hostile or foreign file; `MissingExtraError` for Keras files without h5py.
    """
    with open_source(path, max_bytes) as source:
        head = source.read(0, min(_HEAD, source.size), "first bytes")
        tree: object | None = None
        metadata: dict[str, str] = {}
        name = format_of(head)
        match name:
            case "PyTorch zip":
                tensors, metadata = torch_checkpoint.read_zip(source, max_bytes)
            case "PyTorch legacy":
                tensors, metadata = torch_checkpoint.read_legacy(source, max_bytes)
            case "Keras HDF5":
                tensors, metadata = keras_hdf5.read_keras(source, max_bytes)
            case "safetensors":
                tensors, metadata = safetensors_file.read_safetensors(source)
            case "Torch7":
                tensors, tree = torch7.read_torch7(source, max_bytes)
            case _:
                raise _unknown(source, head)
        return Checkpoint(
            source.path, name, MappingProxyType(tensors), MappingProxyType(metadata), source.sha256(), tree
        )


def format_of(head: bytes) -> str | None:
    """The format of a file that begins with these bytes, as `Checkpoint.format` names it; None for any other."""
    if head.startswith(b"PK\x03\x04"):
        return "PyTorch zip"
    if head.startswith(b"\x80\x02" + torch_checkpoint.LEGACY_MAGIC):
        return "PyTorch legacy"
    if head.startswith(keras_hdf5.SIGNATURE):
        return "Keras HDF5"
    if safetensors_file.looks_like_safetensors(head):
        return "safetensors"
    return "Torch7" if torch7.looks_like_torch7(head) else None


_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x80", "a Python pickle that PyTorch did not write; unpickling could run any code"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"(\xb5/\xfd", "a Zstandard archive: unpack it first"),
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"model_checkpoint_path:", "the index of a TensorFlow checkpoint; save the model as Keras HDF5"),
    (b"[net", "a darknet network (.cfg), which graphsr does not read yet"),
)
"""First bytes of files that users take for checkpoints, and what to say."""


def _unknown(source: ByteSource, head: bytes) -> ModelError:
    """The error for a file of another kind, with what it looks like."""
    return source.error("first bytes", f"not a checkpoint that can be read; it looks like {_guess(source, head)}")


def _guess(source: ByteSource, head: bytes) -> str:
    if not head:
        return "an empty file: the download or copy failed"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: the download needs a login or another address"
    for signature, meaning in _FOREIGN:
        if head.startswith(signature):
            return meaning
    if head[257:262] == b"ustar":
        return "a tar archive; PyTorch 0.1 saved such checkpoints: load it with PyTorch and save it again"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; convert it to Keras HDF5"
    if torch7.looks_like_torch7_text(head):
        return "a Torch7 file in ASCII mode: save it again with torch.save(name, object, 'binary')"
    if source.size > 8 and source.read(source.size - 8, 8, "last bytes") == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return "the index of a TensorFlow checkpoint; save the model as Keras HDF5"
    if head[:1] == b"\x08" and head[1:2] in bytes(range(1, 32)) and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX model, which graphsr does not read yet"
    if head[:1] == b"\x0a":
        return "a TensorFlow graph (.pb); convert it to Keras HDF5"
    return f"nothing known (it begins with {head[:8].hex(' ')})"
