"""Keras weights in HDF5 (`model.save_weights("name.h5")`, `model.save("name.h5")` of Keras 1 to 2), read with h5py.

The file, or its group `model_weights`, has an attribute `layer_names`; each layer is a group with an attribute
`weight_names`, and each weight a dataset of that path in the group. Long attributes are split into name0, name1, ….

HDF5 is a C library that follows what the file says, so little is left to it: the file is handed over as a block of
memory, only hard links are followed, and every type, size and layout is looked at before data is read. Strings of
variable length (keras_version, model_config) are not read at all: where the heap that holds them is damaged, HDF5 2.0
allocates the 4 GB that a length can claim, or loops for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphsr.errors import MissingExtraError
from graphsr.op import Array

from .byte_source import ByteSource

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_NAMES = 10_000
MAX_NAMES_BYTES = 1 << 20


def read_keras(source: ByteSource, max_bytes: int) -> tuple[dict[str, Array], dict[str, str]]:
    """(tensors "layer/kernel", "layer/bias", … in the order of the layers; metadata with `layer_names`, one per line).

    A tensor is named by its layer's group and the last part of its weight name without ":0"; where a layer has that
    part twice (a model inside a model), by the whole weight name. ModelError for damaged files, for the .weights.h5 of
    Keras 3 and for compressed or chunked data; MissingExtraError without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"{source.path}: reading Keras files needs h5py; install it with: pip install 'graphsr[keras]'"
        ) from error
    # HDF5 reports damage as any of these, from any call; this is the one place where they are turned into ours.
    try:
        with _open_in_memory(h5py, source) as file:
            return _Reader(h5py, source, min(max_bytes, source.size)).read(file)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        raise source.error("HDF5", f"the file is damaged or not understood: {error}") from error


def _open_in_memory(h5py: Any, source: ByteSource) -> Any:
    """The file as an h5py.File. Each copy of its bytes is dropped as soon as HDF5 has made the next one."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(source.read(0, source.size, "whole file"))
    return h5py.File(h5py.h5f.open(b"image in memory", h5py.h5f.ACC_RDONLY, access))


@dataclass
class _Reader:
    """The h5py module and its objects are Any: the package has no type information."""

    h5py: Any
    source: ByteSource
    allowed: int
    """Bytes that the weights may still take."""

    def read(self, file: Any) -> tuple[dict[str, Array], dict[str, str]]:
        root = self.group(file, "model_weights") if file.id.links.exists(b"model_weights") else file
        layers = self.names(root, "layer_names", "root")
        if layers is None:
            raise self.source.error("HDF5", self.without_layer_names(file))
        tensors: dict[str, Array] = {}
        for layer in layers:
            place = f"layer {layer!r}"
            group = self.group(root, layer)
            weights = self.names(group, "weight_names", place)
            if weights is None:
                raise self.source.error(place, "it has no attribute weight_names")
            for name, weight in zip(_tensor_names(layer, weights), weights, strict=True):
                if name in tensors:
                    raise self.source.error(f"weight {name!r}", "two weights have this name")
                tensors[name] = self.array(self.member(group, weight), f"weight {name!r}")
        if not tensors:
            raise self.source.error("HDF5", "none of its layers has weights")
        return tensors, {"layer_names": "\n".join(layers)}

    def without_layer_names(self, file: Any) -> str:
        keras3 = (b"layers", b"_layer_checkpoint_dependencies", b"vars")
        if any(file.id.links.exists(name) for name in keras3):
            return (
                "a .weights.h5 file of Keras 3, which numbers its weights and does not name them; "
                "load it in Keras and save it with model.save('name.h5')"
            )
        return "not a Keras file: there is no attribute layer_names"

    def group(self, parent: Any, path: str) -> Any:
        group = self.member(parent, path)
        if not isinstance(group, self.h5py.Group):
            raise self.source.error(f"{path!r}", "not a group")
        return group

    def member(self, parent: Any, path: str) -> Any:
        """What lies at `path` below `parent`. Soft links are refused, and external ones, which name other files."""
        for part in path.split("/"):
            link = part.encode("utf-8")
            if part in ("", ".") or not isinstance(parent, self.h5py.Group) or not parent.id.links.exists(link):
                raise self.source.error(f"{path!r}", "it is named, but not in the file")
            if parent.id.links.get_info(link).type != self.h5py.h5l.TYPE_HARD:
                raise self.source.error(f"{path!r}", "a link to somewhere else; only data inside the file is read")
            parent = parent[part]
        return parent

    def names(self, owner: Any, attribute: str, place: str) -> list[str] | None:
        """The strings of an attribute, or of its parts attribute0, attribute1, …; None when there is neither."""
        if self.h5py.h5a.exists(owner.id, attribute.encode()):
            return self.strings(owner, attribute, place)
        names: list[str] = []
        part = 0
        while self.h5py.h5a.exists(owner.id, f"{attribute}{part}".encode()) and len(names) <= MAX_NAMES:
            names += self.strings(owner, f"{attribute}{part}", place)
            part += 1
        return names if part else None

    def strings(self, owner: Any, attribute: str, place: str) -> list[str]:
        """A one-dimensional attribute of strings of fixed length, as Keras writes them."""
        info = owner.attrs.get_id(attribute)
        count = prod(info.shape)
        if count == 0:  # an empty list has been written as float64
            return []
        if info.dtype.kind != "S" or len(info.shape) != 1 or count * info.dtype.itemsize > MAX_NAMES_BYTES:
            raise self.source.error(f"{place}, {attribute}", f"{info.shape} of {info.dtype}, not a list of strings")
        names = [name.decode("utf-8") for name in owner.attrs[attribute].tolist()]
        if count > MAX_NAMES or len(set(names)) != count or not all(name.isprintable() for name in names):
            raise self.source.error(f"{place}, {attribute}", "too many, repeated or unprintable names")
        return names

    def array(self, dataset: Any, place: str) -> Array:
        """The elements of a dataset in native byte order, read-only, after everything about it has been checked.

        Only plain layouts are read, as Keras writes them. Chunks can claim a size that the file does not have, and
        HDF5 takes minutes to fill in a million missing ones; a compressed chunk is expanded without a limit.
        """
        if not isinstance(dataset, self.h5py.Dataset) or dataset.shape is None:
            raise self.source.error(place, "not an array")
        properties = dataset.id.get_create_plist()
        if properties.get_layout() not in (self.h5py.h5d.CONTIGUOUS, self.h5py.h5d.COMPACT):
            raise self.source.error(
                place, "it is compressed, chunked or virtual; store it plainly: h5repack -l CONTI -f NONE old.h5 new.h5"
            )
        if properties.get_external_count():
            raise self.source.error(place, "its data lies in other files, which are not read")
        dtype = dataset.dtype
        if dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise self.source.error(place, f"elements of type {dtype}; numbers of at most 64 bits are expected")
        self.allowed -= prod(dataset.shape) * dtype.itemsize
        if self.allowed < 0:
            raise self.source.error(
                place, f"shape {dataset.shape}: the weights take more than the file, or than max_bytes"
            )
        array: Array = np.asarray(dataset[()]).astype(dtype.newbyteorder("="), copy=False)
        if dtype.kind == "b":
            array = np.asarray(array.view(np.uint8) != 0)
        array.flags.writeable = False
        return array


def _tensor_names(layer: str, weights: list[str]) -> list[str]:
    """ "conv/kernel" for weight "conv_3/kernel:0" of layer "conv"."""
    plain = [re.sub(r":\d+$", "", weight) for weight in weights]
    last = [name.rpartition("/")[2] for name in plain]
    return [f"{layer}/{name}" for name in (last if len(set(last)) == len(last) else plain)]
