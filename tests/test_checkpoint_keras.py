"""Keras weights in HDF5: names, order and metadata as Keras stores them, and files that reach outside or lie."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphsr.errors import MissingExtraError, ModelError
from graphsr.importers.checkpoint import Checkpoint, read_checkpoint

from support import costs_little, data_path

KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
BIAS = np.array([0.5, -1.0], np.float32)
LAYERS = {
    "conv2d_7": {"conv2d_7/kernel:0": KERNEL, "conv2d_7/bias:0": BIAS},
    "add": {},
    "tail": {"x_1/kernel:0": KERNEL + 1},
}


def names(values: Any) -> np.ndarray[Any, Any]:
    """As Keras writes a list of names; an empty one becomes float64."""
    return np.array([name.encode() for name in values]) if values else np.array([])


def fill(group: Any, layers: dict[str, dict[str, Any]]) -> None:
    group.attrs["layer_names"] = names(list(layers))
    group.attrs["backend"] = "tensorflow"
    group.attrs["keras_version"] = "2.2.4-tf"
    for layer, weights in layers.items():
        member = group.create_group(layer)
        member.attrs["weight_names"] = names(list(weights))
        for name, array in weights.items():
            member.create_dataset(name, data=array)


def keras_bytes(
    change: Callable[[Any], None] = lambda file: None, layers: dict[str, dict[str, Any]] | None = None
) -> bytes:
    """A weight file with LAYERS, after `change(file)`."""
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file, LAYERS if layers is None else layers)
        change(file)
    return buffer.getvalue()


def read(tmp_path: Path, data: bytes) -> Checkpoint:
    path = tmp_path / "file"
    path.write_bytes(data)
    return read_checkpoint(path)


def test_names_order_and_metadata(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, keras_bytes())
    assert checkpoint.format == "Keras HDF5"
    assert list(checkpoint.tensors) == ["conv2d_7/kernel", "conv2d_7/bias", "tail/kernel"]
    np.testing.assert_array_equal(checkpoint.tensors["conv2d_7/kernel"], KERNEL)
    np.testing.assert_array_equal(checkpoint.tensors["tail/kernel"], KERNEL + 1)
    assert checkpoint.metadata == {"layer_names": "conv2d_7\nadd\ntail"}
    assert not any(array.flags.writeable for array in checkpoint.tensors.values())


def test_whole_models(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model"})
        file.attrs["keras_version"] = "2.1.0"
        fill(file.create_group("model_weights"), LAYERS)
        file.create_group("optimizer_weights").attrs["weight_names"] = names(["Adam/m:0"])
    checkpoint = read_checkpoint(tmp_path / "model.h5")
    assert list(checkpoint.tensors) == ["conv2d_7/kernel", "conv2d_7/bias", "tail/kernel"]


def test_weight_norm_and_element_types(tmp_path: Path) -> None:
    weights = {"c/g:0": BIAS.astype(np.float16), "c/kernel:0": KERNEL.astype(">f8"), "c/initialized:0": np.bool_(True)}
    read_back = read(tmp_path, keras_bytes(layers={"c": weights | {"c/n:0": np.int64(3)}})).tensors
    assert list(read_back) == ["c/g", "c/kernel", "c/initialized", "c/n"]
    assert read_back["c/g"].dtype == np.float16
    assert read_back["c/kernel"].dtype == np.float64
    np.testing.assert_array_equal(read_back["c/kernel"], KERNEL)
    assert (read_back["c/initialized"].dtype, read_back["c/initialized"].item()) == (np.dtype(bool), True)
    assert read_back["c/n"].item() == 3


def test_a_model_inside_a_model_keeps_whole_weight_names(tmp_path: Path) -> None:
    layers = {"inner": {"conv_1/kernel:0": KERNEL, "conv_2/kernel:0": KERNEL, "conv_2/bias:0": BIAS}}
    assert list(read(tmp_path, keras_bytes(layers=layers)).tensors) == [
        "inner/conv_1/kernel",
        "inner/conv_2/kernel",
        "inner/conv_2/bias",
    ]


def test_long_attributes_are_split_by_keras(tmp_path: Path) -> None:
    def split(file: Any) -> None:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"] = names(["conv2d_7"])
        file.attrs["layer_names1"] = names(["tail"])

    checkpoint = read(tmp_path, keras_bytes(split))
    assert list(checkpoint.tensors) == ["conv2d_7/kernel", "conv2d_7/bias", "tail/kernel"]
    assert checkpoint.metadata["layer_names"] == "conv2d_7\ntail"


def compact(h5py: Any, group: Any) -> None:
    """A data set whose elements lie in its header."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((2,))
    data = h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space, properties)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, BIAS)


def test_compact_data(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, keras_bytes(replaced(compact))).tensors["tail/kernel"], BIAS)


def replaced(make: Callable[[Any, Any], None]) -> Callable[[Any], None]:
    """A change that puts something else where the kernel of the layer `tail` was: make(h5py, group)."""

    def change(file: Any) -> None:
        import h5py

        del file["tail/x_1/kernel:0"]
        make(h5py, file["tail/x_1"])

    return change


def set_attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def virtual(h5py: Any, group: Any) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    group.create_virtual_dataset("kernel:0", layout)


LIES: dict[str, tuple[Callable[[Any], None], str]] = {
    "external link": (
        replaced(lambda h5py, group: group.__setitem__("kernel:0", h5py.ExternalLink("/tmp/other.h5", "/x"))),
        r"kernel:0'.*link to somewhere else",
    ),
    "soft link": (
        replaced(lambda h5py, group: group.__setitem__("kernel:0", h5py.SoftLink("/conv2d_7/conv2d_7/kernel:0"))),
        r"kernel:0'.*link to somewhere else",
    ),
    "external storage": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", (4,), "f4", external=[("/etc/passwd", 0, 16)])),
        r"tail/kernel'.*other files",
    ),
    "virtual dataset": (replaced(virtual), r"tail/kernel'.*h5repack"),
    "variable-length strings": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", data=["a", "b"], dtype=h5py.string_dtype())),
        r"tail/kernel'.*elements of type object",
    ),
    "compound": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", (4,), [("a", "f4"), ("b", "i4")])),
        r"tail/kernel'.*elements of type",
    ),
    "complex": (replaced(lambda h5py, group: group.create_dataset("kernel:0", (4,), "c8")), r"type complex64"),
    "null space": (replaced(lambda h5py, group: group.__setitem__("kernel:0", h5py.Empty("f4"))), r"not an array"),
    "a group": (replaced(lambda h5py, group: group.create_group("kernel:0")), r"not an array"),
    "a type": (replaced(lambda h5py, group: group.__setitem__("kernel:0", np.dtype("f4"))), r"not an array"),
    "missing": (replaced(lambda h5py, group: None), r"kernel:0'.*not in the file"),
    "fill values of 4 TB": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", (1 << 40,), "f4")),
        r"tail/kernel'.*more than the file",
    ),
    "more fill values than the file has bytes": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", (10_000,), "f4")),
        r"tail/kernel'.*more than the file",
    ),
    "a million missing chunks": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", (1 << 20,), "f4", chunks=(1,))),
        r"tail/kernel'.*h5repack",
    ),
    "compressed": (
        replaced(lambda h5py, group: group.create_dataset("kernel:0", data=KERNEL, compression="gzip")),
        r"tail/kernel'.*h5repack",
    ),
    "no names": (lambda file: file.attrs.__delitem__("layer_names"), r"no attribute layer_names"),
    "no weight names": (lambda file: file["tail"].attrs.__delitem__("weight_names"), r"'tail'.*no attribute"),
    "names of variable length": (set_attribute("layer_names", ["tail", "x"]), r"layer_names.*not a list of strings"),
    "names that are numbers": (set_attribute("layer_names", [1, 2]), r"layer_names.*not a list of strings"),
    "one name, no list": (set_attribute("layer_names", np.bytes_("tail")), r"layer_names.*not a list of strings"),
    "a name twice": (set_attribute("layer_names", names(["tail", "tail"])), r"layer_names.*repeated"),
    "a name that is not there": (set_attribute("layer_names", names(["tail", "nose"])), r"'nose'.*not in the file"),
    "a name that is a path upwards": (set_attribute("layer_names", names(["../tail"])), r"not in the file"),
    "an absolute name": (set_attribute("layer_names", names(["/tail"])), r"not in the file"),
    "a name with a line break": (set_attribute("layer_names", names(["ta\nil"])), r"unprintable"),
    "names that are not UTF-8": (set_attribute("layer_names", np.array([b"\xff"])), r"damaged or not understood"),
    "no weights": (set_attribute("layer_names", names(["add"])), r"none of its layers"),
    "a data set as a layer": (set_attribute("layer_names", names(["tail/x_1/kernel:0"])), r"not a group"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie_or_reach_outside_are_refused(name: str, tmp_path: Path) -> None:
    change, message = LIES[name]
    path = tmp_path / "file"
    path.write_bytes(keras_bytes(change))
    with costs_little(), pytest.raises(ModelError, match=message):
        read_checkpoint(path)
    tracemalloc.start()
    with pytest.raises(ModelError):
        read_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_keras_3_is_refused_by_its_name(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", data=KERNEL)
    with pytest.raises(ModelError, match=r"Keras 3.*model\.save"):
        read_checkpoint(tmp_path / "x.weights.h5")


def heap_of(data: bytes) -> int:
    """Where the first object of the heap of variable-length strings begins."""
    return data.index(b"GCOL") + 16


@pytest.mark.parametrize("at", [8, 40])
def test_damaged_heaps_of_strings_are_not_touched(at: int, tmp_path: Path) -> None:
    """An object of size 0 makes HDF5 2.0 loop for ever, a wrong length allocate 4 GB."""
    damaged = bytearray(keras_bytes())
    start = heap_of(bytes(damaged))
    damaged[start + at : start + at + 8] = bytes(8)
    assert len(read(tmp_path, bytes(damaged)).tensors) == 3


def test_one_data_set_under_many_names_is_bounded_by_the_file(tmp_path: Path) -> None:
    """Hard links make a small file claim any number of weights."""

    def repeat(file: Any) -> None:
        file["tail"].create_dataset("big", data=np.zeros(1 << 16, np.float32))
        for number in range(100):
            file["tail"][f"w{number}"] = file["tail/big"]
        file["tail"].attrs["weight_names"] = names([f"w{number}" for number in range(100)])

    with pytest.raises(ModelError, match="more than the file"):
        read(tmp_path, keras_bytes(repeat))


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphsr\[keras\]'"):
        read_checkpoint(path)


KINDS = [f"{kind}-{blocks}" for kind in ("edsr", "wdsr-a", "wdsr-b") for blocks in (1, 3, 5, 8)]


@pytest.mark.parametrize("kind", KINDS)
def test_published_weights(kind: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = data_path(f"weights/sisr/sisr_{kind}-x4.h5")
    checkpoint = read_checkpoint(path)
    expected = {}
    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            for weight in file[layer].attrs["weight_names"]:
                name = weight.decode().rpartition("/")[2].removesuffix(":0")
                expected[f"{layer.decode()}/{name}"] = file[layer][weight][()]
    assert list(checkpoint.tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], array)
        assert checkpoint.tensors[name].dtype == array.dtype
