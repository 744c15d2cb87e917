"""Torch7 files: trees, tensors and references as LuaTorch writes them, and files that lie."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch7_writer import (
    Cuda,
    Function,
    Nn,
    convolution,
    mul_constant,
    pixel_shuffle,
    relu,
    sequential,
    skip,
    t7_bytes,
)

from graphsr.errors import ModelError
from graphsr.importers.checkpoint import Checkpoint, read_checkpoint
from graphsr.importers.torch7 import LuaFunction, Torch7Object

from support import costs_little

A = np.arange(6, dtype=np.float32).reshape(2, 3)
KINDS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")


def read(tmp_path: Path, data: bytes) -> Checkpoint:
    path = tmp_path / "file"
    path.write_bytes(data)
    return read_checkpoint(path)


def weights(co: int, ci: int, k: int, start: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    count = co * ci * k * k
    return np.arange(start, start + count, dtype=np.float32).reshape(co, ci, k, k), np.full(co, start, np.float32)


def edsr() -> Nn:
    """A small EDSR as LimBee/NTIRE2017 saves it: one block, scale 2."""
    block = skip(convolution(*weights(4, 4, 3, 2.0)), relu(), convolution(*weights(4, 4, 3, 3.0)), mul_constant(0.1))
    body = skip(block, convolution(*weights(4, 4, 3, 4.0)))
    up = sequential(convolution(*weights(16, 4, 3, 5.0)), pixel_shuffle(2))
    return sequential(
        convolution(*weights(3, 3, 1, 0.0), class_name="nn.SpatialConvolution"),
        convolution(*weights(4, 3, 3, 1.0)),
        body,
        up,
        convolution(*weights(3, 4, 3, 6.0)),
        convolution(*weights(3, 3, 1, 7.0), class_name="nn.SpatialConvolution"),
    )


def test_edsr_by_paths_and_as_a_tree(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, t7_bytes(edsr()))
    assert checkpoint.format == "Torch7"
    names = list(checkpoint.tensors)
    assert names[:2] == ["modules.1.weight", "modules.1.bias"]
    block = "modules.3.modules.1.modules.1.modules.1.modules.1.modules.1"
    assert f"{block}.modules.1.weight" in names
    np.testing.assert_array_equal(checkpoint.tensors[f"{block}.modules.3.weight"], weights(4, 4, 3, 3.0)[0])
    assert len(names) == 2 * 8
    assert not any(array.flags.writeable for array in checkpoint.tensors.values())

    tree = checkpoint.tree
    assert isinstance(tree, Torch7Object)
    assert tree.class_name == "nn.Sequential"
    modules: Any = tree.fields["modules"]
    assert [modules[i].class_name for i in (1, 2, 3)] == [
        "nn.SpatialConvolution",
        "cudnn.SpatialConvolution",
        "nn.Sequential",
    ]
    assert modules[4].fields["modules"][2].fields["upscaleFactor"] == 2
    assert tree.fields["train"] is False


@settings(deadline=None)
@given(
    named=st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.sampled_from(KINDS).flatmap(
            lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
        ),
        min_size=1,
        max_size=4,
    ),
    cuda=st.booleans(),
)
def test_every_element_type(tmp_path_factory: pytest.TempPathFactory, named: dict[str, Any], cuda: bool) -> None:
    path = tmp_path_factory.mktemp("file") / "x.t7"
    path.write_bytes(t7_bytes({name: Cuda(array) if cuda else array for name, array in named.items()}))
    read_back = read_checkpoint(path).tensors
    assert list(read_back) == list(named)
    for name, array in named.items():
        assert read_back[name].dtype == array.dtype
        assert read_back[name].tobytes() == array.tobytes()


def test_every_kind_of_value(tmp_path: Path) -> None:
    function = Function(b"\x1bLJ\x02" * 9, [{"name": "x", "value": 3}])
    value = {"none": None, "yes": True, "half": 0.5, "text": "é", 7: "int", 1.5: "float", "f": function, "a": A}
    tree: Any = read(tmp_path, t7_bytes(value)).tree
    assert isinstance(tree.pop("f"), LuaFunction)
    assert tree.pop("a").shape == (2, 3)
    assert tree == {"none": None, "yes": True, "half": 0.5, "text": "é", 7: "int", 1.5: "float"}
    assert all(type(key) is type(expected) for key, expected in zip(tree, ["", "", "", "", 7, 1.5], strict=True))


def test_strings_that_are_not_utf8_are_bytes_of_lua(tmp_path: Path) -> None:
    data = t7_bytes({"name": "xx", "a": A}).replace(b"xx", b"\xe9\xff")
    tree: Any = read(tmp_path, data).tree
    assert tree["name"] == "\xe9\xff"


def test_shared_and_cyclic_objects(tmp_path: Path) -> None:
    shared = Nn("nn.Linear", {"weight": A})
    table: dict[Any, Any] = {"first": shared, "second": shared, "third": A}
    table["itself"] = table
    checkpoint = read(tmp_path, t7_bytes(table))
    assert list(checkpoint.tensors) == ["first.weight", "third"]  # an object that is met again keeps its first path
    tree: Any = checkpoint.tree
    assert tree["first"] is tree["second"]
    assert tree["itself"] is tree
    assert tree["third"] is tree["first"].fields["weight"]


def test_objects_as_keys_are_left_out(tmp_path: Path) -> None:
    header = struct.pack("<3i", 3, 1, 2) + struct.pack("<3i", 3, 7, 0) + struct.pack("<2i", 5, 1)
    tree: Any = read(tmp_path, header + t7_bytes("a") + t7_bytes(A).replace(b"\x01\0\0\0", b"\x09\0\0\0", 1)).tree
    assert list(tree) == ["a"]


def test_classes_of_the_oldest_files_have_no_version(tmp_path: Path) -> None:
    data = t7_bytes(Nn("nn.Linear", {"weight": A})).replace(struct.pack("<i", 3) + b"V 1", b"", 1)
    tree: Any = read(tmp_path, data).tree
    assert tree.class_name == "nn.Linear"


def tensor_bytes(size: list[int], stride: list[int], offset: int, count: int, data: bytes = bytes(24)) -> bytes:
    """A torch.FloatTensor with these numbers, as reference 2, in a table under the key "a"."""
    head = struct.pack("<3i", 3, 1, 1) + t7_bytes("a")
    tensor = struct.pack("<3i", 4, 2, 3) + b"V 1" + struct.pack("<i", 17) + b"torch.FloatTensor"
    numbers = struct.pack(f"<i{len(size) + len(stride) + 1}q", len(size), *size, *stride, offset)
    storage = struct.pack("<3i", 4, 3, 3) + b"V 1" + struct.pack("<i", 18) + b"torch.FloatStorage"
    return head + tensor + numbers + storage + struct.pack("<q", count) + data


def test_views(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32).tobytes()
    np.testing.assert_array_equal(read(tmp_path, tensor_bytes([3, 2], [1, 3], 1, 6, data)).tensors["a"], A.T)
    np.testing.assert_array_equal(read(tmp_path, tensor_bytes([2], [1], 5, 6, data)).tensors["a"], [4.0, 5.0])
    np.testing.assert_array_equal(read(tmp_path, tensor_bytes([2, 2], [0, 1], 1, 6, data)).tensors["a"], [[0, 1]] * 2)


GOOD = t7_bytes(Nn("nn.Linear", {"weight": A, "name": "x"}))
LIES: dict[str, tuple[bytes, str]] = {
    "past the end": (tensor_bytes([2, 3], [3, 1], 2, 6), r"root\.a.*reach element 6"),
    "offset 0": (tensor_bytes([2, 3], [3, 1], 0, 6), r"impossible layout"),
    "negative stride": (tensor_bytes([2], [-1], 6, 6), r"impossible layout"),
    "negative size": (tensor_bytes([-2], [1], 1, 6), r"impossible layout"),
    "expanded to 4 GB": (tensor_bytes([1 << 30], [0], 1, 6), r"more memory"),
    "sizes beyond 64 bits": (tensor_bytes([1 << 39, 1 << 39], [0, 0], 1, 6), r"more memory"),
    "storage larger than the file": (tensor_bytes([2, 3], [3, 1], 1, 1 << 40), r"storage of 1099511627776 elements"),
    "negative storage": (tensor_bytes([2, 3], [3, 1], 1, -1), r"storage of -1 elements"),
    "rank 1000": (tensor_bytes([1] * 40, [1] * 40, 1, 6), r"tensor of 40 dimensions"),
    "bytes behind": (GOOD + b"x", r"the object ends at byte"),
    "cut off": (GOOD[:-1], r"cut off|are wanted"),
    "unknown type": (GOOD.replace(struct.pack("<2i", 2, 1) + b"x", struct.pack("<2i", 99, 1) + b"x"), r"type 99 d"),
    "table longer than the file": (struct.pack("<3i", 3, 1, 1 << 30) + bytes(40), r"length of 1073741824"),
    "negative table": (struct.pack("<4i", 3, 1, 1, 2) + struct.pack("<i", -1), r"length of -1"),
    "a class with a body of its own": (t7_bytes(Nn("tds.Vec", {})).replace(struct.pack("<i", 3) + struct.pack("<i", 2),
                                       struct.pack("<2i", 5, 5)), r"tds\.Vec.*not saved as a table"),
    "no tensors": (t7_bytes({"a": 1}), r"no tensors"),
    "two tensors of one path": (t7_bytes({1: A, "1": A + 1}), r"two tensors"),
    "longs of 4 bytes": (t7_bytes({"a": A}, long_size=4), r"longs of 4 bytes"),
    "ASCII mode": (b"4\n1\n3\nV 1\n13\nnn.Sequential\n3\n2\n0\n", r"ASCII mode"),
    "a storage of another type": (tensor_bytes([2], [1], 1, 6).replace(b"18\0\0torch", b"").replace(
        struct.pack("<i", 18) + b"torch.FloatStorage", struct.pack("<i", 16) + b"torch.IntStorage"), r"something else"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie_are_refused_with_the_place(name: str, tmp_path: Path) -> None:
    data, message = LIES[name]
    with pytest.raises(ModelError, match=message):
        read(tmp_path, data)


def nested_tables(levels: int) -> bytes:
    return b"".join(struct.pack("<3i", 3, level, 1) + t7_bytes(1.0) for level in range(1, levels)) + t7_bytes(A)


EXPENSIVE: dict[str, bytes] = {
    "nested tables": nested_tables(100_000),
    "nested functions": struct.pack("<3i", 3, 1, 1) + t7_bytes("f") + struct.pack("<3i", 8, 2, 0) * 100_000,
    "many numbers": struct.pack("<3i", 3, 1, 600_000) + t7_bytes(1.0) * 1_200_000,
    "a string of 10 MB": t7_bytes({"s": "x" * (10 << 20), "a": A}),
    "long keys": t7_bytes({"k" * 10_000: {"k" * 10_000: {f"{i}": A for i in range(1000)}}}),
    "one storage under many names": t7_bytes({f"n{i}": A for i in range(50_000)}),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_large_claims_cost_little(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(EXPENSIVE[name])
    with costs_little(), contextlib.suppress(ModelError):
        assert len(read_checkpoint(path).tensors) == 50_000
    if name != "many numbers":  # tracing makes it slow, and the count of objects bounds it
        tracemalloc.start()
        with contextlib.suppress(ModelError):
            read_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 << 20
