"""safetensors: our writer and reader against the format's own library, and headers that lie."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr.errors import ModelError
from graphsr.importers.byte_source import open_source
from graphsr.importers.checkpoint import Checkpoint, read_checkpoint
from graphsr.importers.safetensors_file import MAX_HEADER_BYTES, read_safetensors_header, write_safetensors

from support import costs_little

A = np.arange(6, dtype=np.float32).reshape(2, 3)
KINDS = (
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda s: s != "__metadata__")


def arrays() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)
    return st.sampled_from(KINDS).flatmap(lambda kind: hnp.arrays(kind, shapes))


def file_of(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def read(tmp_path: Path, data: bytes) -> Checkpoint:
    path = tmp_path / "file"
    path.write_bytes(data)
    return read_checkpoint(path)


@settings(deadline=None)
@given(
    tensors=st.dictionaries(NAMES, arrays(), min_size=1, max_size=4),
    metadata=st.dictionaries(NAMES, st.text(max_size=9)),
)
def test_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("file") / "x"
    metadata = {key: text.encode("utf-8", "ignore").decode() for key, text in metadata.items()}
    write_safetensors(path, tensors, metadata)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.format, checkpoint.metadata) == ("safetensors", metadata)
    assert list(checkpoint.tensors) == list(tensors)
    for name, array in tensors.items():
        assert checkpoint.tensors[name].dtype == array.dtype
        assert checkpoint.tensors[name].shape == array.shape
        assert checkpoint.tensors[name].tobytes() == array.tobytes()
        assert not checkpoint.tensors[name].flags.writeable


@settings(deadline=None)
@given(tensors=st.dictionaries(NAMES, arrays(), min_size=1, max_size=4))
def test_the_library_of_the_format_agrees(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]) -> None:
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("file") / "x"
    write_safetensors(path, tensors, {"a": "b"})
    theirs = library.load_file(path)
    assert theirs.keys() == tensors.keys()
    library.save_file({name: np.array(array, order="C") for name, array in tensors.items()}, path)
    ours = read_checkpoint(path).tensors
    for name, array in tensors.items():
        assert theirs[name].tobytes() == array.tobytes() == ours[name].tobytes()
        assert theirs[name].shape == array.shape == ours[name].shape


def test_bfloat16_of_the_library(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    values = torch.tensor([1.5, -3.0e38, 1e-40, float("inf")]).to(torch.bfloat16)
    library.save_file({"x": values}, tmp_path / "file")
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "file").tensors["x"], values.float().numpy())


def test_any_memory_layout_is_written_row_major(tmp_path: Path) -> None:
    given_arrays = {"t": A.T, "step": A[:, ::2], "big": A.astype(">f4"), "scalar": np.float32(3).reshape(())}
    write_safetensors(tmp_path / "x", given_arrays)
    for name, array in read_checkpoint(tmp_path / "x").tensors.items():
        np.testing.assert_array_equal(array, given_arrays[name])


def test_equal_arguments_give_equal_bytes_and_aligned_elements(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_safetensors(tmp_path / name, {"b": A, "a": A + 1}, {"k": "é", "format": "pt"})
    data = (tmp_path / "x").read_bytes()
    assert data == (tmp_path / "y").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0
    with open_source(tmp_path / "x", 1 << 20) as source:
        entries, _ = read_safetensors_header(source)
    assert list(entries) == ["b", "a"]


def test_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": A})
    before = path.read_bytes()
    for bad in ({"a": A, "b": A.astype(complex)}, {"__metadata__": A}, {"a": np.array(["x"])}):
        with pytest.raises(ModelError, match="cannot be stored"):
            write_safetensors(path, bad)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
DATA = bytes(24)

LIES: dict[str, tuple[bytes, str]] = {
    "cut off": (file_of({"a": ENTRY}, DATA[:-1]), "cut off"),
    "bytes behind": (file_of({"a": ENTRY}, DATA + b"x"), "end at byte"),
    "header longer than the file": (file_of({"a": ENTRY}, length=1 << 39), "claims .*cut off"),
    "header of 2**64 - 1 bytes": (file_of({"a": ENTRY}, length=(1 << 64) - 1), "first bytes"),
    "header cut": (file_of({"a": ENTRY}, DATA, length=20), "JSON"),
    "no JSON": (file_of(b"{nonsense}", DATA), "JSON"),
    "no UTF-8": (file_of(b'{"\xff": 1}', DATA), "JSON"),
    "endless digits": (file_of(b'{"a": {"shape": [' + b"9" * 5000 + b"]}}"), "JSON"),
    "not an object": (file_of(b"{}  []"), "JSON"),
    "a name twice": (file_of(b'{"a": %b, "a": %b}' % ((json.dumps(ENTRY).encode(),) * 2), DATA), "twice"),
    "a field twice": (file_of(b'{"a": {"dtype": "F32", "dtype": "F32"}}', DATA), "twice"),
    "no tensors": (file_of({"__metadata__": {}}), "no tensors"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 1}, "a": ENTRY}, DATA), "__metadata__"),
    "metadata list": (file_of({"__metadata__": ["a"], "a": ENTRY}, DATA), "__metadata__"),
    "entry is a number": (file_of({"a": 3}, DATA), "'a'"),
    "entry with more": (file_of({"a": {**ENTRY, "x": 1}}, DATA), "'a'"),
    "float8": (file_of({"a": {**ENTRY, "dtype": "F8_E4M3"}}, DATA), "'F8_E4M3' is not supported"),
    "unknown type": (file_of({"a": {**ENTRY, "dtype": "f" * 99}}, DATA), "is not supported"),
    "shape of floats": (file_of({"a": {**ENTRY, "shape": [2.0, 3]}}, DATA), "'a'"),
    "shape of bools": (file_of({"a": {**ENTRY, "shape": [True, 6]}}, DATA), "'a'"),
    "negative shape": (file_of({"a": {**ENTRY, "shape": [-2, -3]}}, DATA), "'a'"),
    "33 dimensions": (file_of({"a": {**ENTRY, "shape": [1] * 31 + [2, 3]}}, DATA), "'a'"),
    "shape beyond 64 bits": (file_of({"a": {**ENTRY, "shape": [1 << 32, 1 << 32, 1]}}, DATA), "'a'"),
    "empty and huge": (file_of({"a": {"dtype": "F32", "shape": [0, 1 << 40, 1 << 40], "data_offsets": [0, 0]}}), "'a'"),
    "shape too small": (file_of({"a": {**ENTRY, "shape": [2, 2]}}, DATA), "offsets span 24"),
    "offsets reversed": (file_of({"a": {**ENTRY, "data_offsets": [24, 0]}}, DATA), "'a'"),
    "offsets past the end": (file_of({"a": {**ENTRY, "data_offsets": [8, 32]}}, DATA), "'a'"),
    "three offsets": (file_of({"a": {**ENTRY, "data_offsets": [0, 8, 24]}}, DATA), "'a'"),
    "overlap": (file_of({"a": ENTRY, "b": ENTRY}, DATA), "begins at"),
    "gap": (file_of({"a": ENTRY, "b": {**ENTRY, "data_offsets": [32, 56]}}, bytes(56)), "begins at"),
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie_are_refused_with_the_place(name: str, tmp_path: Path) -> None:
    data, message = LIES[name]
    with pytest.raises(ModelError, match=message):
        read(tmp_path, data)


EXPENSIVE: dict[str, bytes] = {
    "nested lists": file_of(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "nested objects": file_of(b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
    "a million values": file_of(b'{"a": [' + b"1," * 1_300_000 + b"1]}"),
    "a header of spaces": file_of(b"{" + b" " * (MAX_HEADER_BYTES - 2) + b"}"),
    "a header beyond the limit": file_of(b"{" + b" " * MAX_HEADER_BYTES + b"}"),
    "a string of 15 MB": file_of(b'{"a": "' + b"x" * (15 << 20) + b'"}'),
    "70000 tensors": file_of(
        {f"{k:050}": {"dtype": "F32", "shape": [], "data_offsets": [4 * k, 4 * k + 4]} for k in range(70_000)},
        bytes(280_000),
    ),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_large_headers_cost_little(name: str, tmp_path: Path) -> None:
    with costs_little(), pytest.raises(ModelError):
        read(tmp_path, EXPENSIVE[name])
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_order_of_data_may_differ_from_the_header(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]},
        "b": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]},
    }
    tensors = read(tmp_path, file_of(header, b"\x07\x08\x09")).tensors
    assert {name: array.tolist() for name, array in tensors.items()} == {"a": [8, 9], "b": 7}
