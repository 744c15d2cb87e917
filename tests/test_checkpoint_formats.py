"""Which format a file is: told by its content, with a word to those who bring something else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from torch7_writer import t7_bytes
from torch_files import pickled, tensor, zip_file

from graphsr.errors import ModelError
from graphsr.importers import safetensors_file
from graphsr.importers.byte_source import ByteSource
from graphsr.importers.checkpoint import read_checkpoint
from graphsr.importers.safetensors_file import write_safetensors

A = np.arange(6, dtype=np.float32).reshape(2, 3)


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty file"),
    "one byte": (b"x", "nothing known"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(40), "ONNX"),
    "TensorFlow graph": (b"\x0a\x40\x0a\x05input\x12\x0bPlaceholder" + bytes(40), "TensorFlow graph"),
    "TensorFlow index": (bytes(100) + bytes.fromhex("57fb808b247547db"), "TensorFlow checkpoint"),
    "TensorFlow checkpoint": (b'model_checkpoint_path: "x"\n', "TensorFlow checkpoint"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
    "tar": (b"storages".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), r"PyTorch 0\.1"),
    "other pickle": (pickled({"a": 1}), "pickle that PyTorch did not write"),
    "NumPy": (b"\x93NUMPY\x01\x00" + bytes(90), "NumPy"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "gzip"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
    "darknet": (b"[net]\nwidth=3\n", r"\.cfg"),
    "Torch7 in ASCII": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n", "ASCII mode"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "empty zip"),
    "random": (bytes(range(200, 256)), "nothing known"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named(name: str, tmp_path: Path) -> None:
    data, message = FOREIGN[name]
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)


def test_real_onnx_is_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "x.pt")
    with pytest.raises(ModelError, match="ONNX"):
        read_checkpoint(tmp_path / "x.pt")


def test_numpy_archives_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=A, b=A)
    with pytest.raises(ModelError, match=r"\(\.npz\)"):
        read_checkpoint(tmp_path / "x.npz")


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(zip_file({"a.x": tensor("0", A), "b.x": tensor("1", A)}))
    (tmp_path / "b.h5").write_bytes(t7_bytes({"a": A}))
    write_safetensors(tmp_path / "c.pt", {"a": A})
    formats = [read_checkpoint(tmp_path / name).format for name in ("a.onnx", "b.h5", "c.pt")]
    assert formats == ["PyTorch zip", "Torch7", "safetensors"]


@pytest.mark.parametrize("make", ["missing", "folder", "fifo", "device", "nul", "unreadable"])
def test_what_cannot_be_opened(make: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    if make == "folder":
        os.mkdir(path)
    elif make == "fifo" and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif make == "device":
        path = os.devnull
    elif make == "nul":
        path += "\0"
    elif make == "unreadable":
        Path(path).write_bytes(bytes(100))
        os.chmod(path, 0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    with pytest.raises(ModelError):
        read_checkpoint(path)


def test_max_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_safetensors(path, {"a": A})
    size = path.stat().st_size
    assert read_checkpoint(path, max_bytes=size).tensors
    with pytest.raises(ModelError, match=f"{size} bytes, more than the limit of {size - 1}"):
        read_checkpoint(path, max_bytes=size - 1)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_safetensors(path, {"a": A})
    read_header = safetensors_file.read_safetensors_header

    def cut_meanwhile(source: ByteSource) -> object:
        header = read_header(source)
        os.truncate(path, path.stat().st_size - 4)
        return header

    monkeypatch.setattr(safetensors_file, "read_safetensors_header", cut_meanwhile)
    with pytest.raises(ModelError, match=r"shrank|changed"):
        read_checkpoint(path)
