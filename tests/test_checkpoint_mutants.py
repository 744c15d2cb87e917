"""Damaged files of every format are read or refused, in a moment: nothing crashes, hangs or leaks another exception."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutation import mutants
from torch7_writer import convolution, mul_constant, relu, sequential, skip, t7_bytes
from torch_files import Module, Raw, Stored, Tensor, global_, legacy_file, opcodes, tensor, zip_file

from graphsr.errors import ModelError
from graphsr.importers.checkpoint import read_checkpoint
from graphsr.importers.safetensors_file import write_safetensors

from support import costs_little, data_path

COUNT = 400
A = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3)


def torch_value() -> dict[str, object]:
    """Everything that the reader knows: element types, views, a module, a wrapper, scalars."""
    conv = Module(
        "torch.nn.modules.conv.Conv2d",
        {
            "_parameters": {"weight": tensor("0", A), "bias": None},
            "_buffers": {"half": tensor("1", A.astype(np.float16)), "left": tensor("2", A)},
            "_modules": {},
            "_non_persistent_buffers_set": Raw(global_("__builtin__", "set") + opcodes((["left"],)) + b"R"),
        },
    )
    views = [Tensor(Stored("3", A.ravel()), 4, (3, 2), (2, 6)), Tensor(Stored("3", A.ravel()), 0, (2, 3), (0, 1))]
    bits = Stored("4", np.arange(9, dtype=np.uint16), "bfloat16")
    return {"state_dict": {"net": conv, "views": views, "b": Tensor(bits, 0, (9,), (1,))}, "epoch": 30, "psnr": 31.5}


def torch7_value() -> object:
    bias = np.zeros(2, np.float32)
    block = skip(convolution(A, bias), relu(), convolution(A, bias), mul_constant(0.1))
    return sequential(convolution(A, bias), block, convolution(A, bias))


def safetensors_bytes(folder: Path) -> bytes:
    path = folder / "good"
    write_safetensors(path, {"a.weight": A, "a.bias": A[0, 0], "n": np.arange(3)}, {"format": "pt", "epoch": "3"})
    return path.read_bytes()


def keras_bytes() -> bytes:
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([b"conv", b"tail"])
        file.attrs["keras_version"] = "2.2.4-tf"
        for layer in ("conv", "tail"):
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}/kernel:0".encode(), f"{layer}/bias:0".encode()])
            group.create_dataset(f"{layer}/kernel:0", data=A)
            group.create_dataset(f"{layer}/bias:0", data=A[0, 0])
    return buffer.getvalue()


GOOD: dict[str, Callable[[Path], bytes]] = {
    "PyTorch zip": lambda folder: zip_file(torch_value()),
    "PyTorch legacy": lambda folder: legacy_file(torch_value()),
    "safetensors": safetensors_bytes,
    "Torch7": lambda folder: t7_bytes(torch7_value()),
    "Keras HDF5": lambda folder: keras_bytes(),
}


def outcomes(good: bytes, count: int, folder: Path, structure: int) -> int:
    """How many of the damaged copies are read; each takes less than a second."""
    path = folder / "damaged"
    refusals: list[str] = []
    read = 0
    for data in mutants(good, count, structure=structure):
        path.write_bytes(data)
        try:
            with costs_little():
                checkpoint = read_checkpoint(path)
        except ModelError as error:
            refusals.append(str(error))
        else:
            read += 1
            assert all(
                array.dtype.kind in "fiub" and not array.flags.writeable for array in checkpoint.tensors.values()
            )
    assert all(str(path) in text for text in refusals)
    return read


@pytest.mark.parametrize("name", GOOD)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    good = GOOD[name](tmp_path)
    path = tmp_path / "good"
    path.write_bytes(good)
    assert read_checkpoint(path).format == name
    # HDF5 has its structures all over the file; the others at both ends.
    read = outcomes(good, COUNT, tmp_path, len(good) if name == "Keras HDF5" else 1024)
    assert read < COUNT  # the damage is real


@pytest.mark.parametrize(
    "relative", ["weights/sisr/sisr_wdsr-b-1-x4.h5", "weights/srresnet/leftthomas_srresnet_x2.pth"]
)
def test_damaged_published_files_are_read_or_refused(relative: str, tmp_path: Path) -> None:
    if relative.endswith(".h5"):
        pytest.importorskip("h5py")
    read = outcomes(data_path(relative).read_bytes(), 200, tmp_path, 4096)
    assert read < 200
