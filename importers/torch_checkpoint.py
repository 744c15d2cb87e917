"""PyTorch checkpoints, `torch.save` of any version since 0.2, read without PyTorch.

Zip form (1.6 and later): an archive with the entries `root/data.pkl` (a pickle that describes everything but the
elements), `root/data/<key>` (the elements of one storage) and `root/byteorder`.

Legacy form: five pickles one after the other (magic number, protocol, system, the object, list of storage keys),
then for each key the number of elements in 8 bytes and the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from graphsr.op import Array

from .byte_source import ByteSource
from .pickle_vm import MAX_BYTES, load_pickle
from .stored_tensors import Budget, decode, element_size, view
from .stored_zip import Entry, read_entries
from .torch_objects import Storage, Tensor, TorchRules
from .torch_state_dict import state_dict

LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # LONG1 0x1950a86a20f9469cfc6c STOP, after PROTO 2
_PROTOCOL = 1001

Contents = tuple[dict[str, Array], dict[str, str]]
"""Tensors by name, and metadata."""


def read_zip(source: ByteSource, max_bytes: int) -> Contents:
    """Tensors and metadata of a checkpoint in the zip form; ModelError where it is not as PyTorch writes it."""
    entries = read_entries(source)
    root = _root_folder(source, entries)
    program = entries[f"{root}/data.pkl"]
    if program.size > MAX_BYTES:
        raise source.error("data.pkl", f"{program.size} bytes (at most {MAX_BYTES} are allowed)")
    program.read(source)  # for its checksum
    rules = TorchRules()
    value, end = load_pickle(source, program.start, program.start + program.size, rules, "data.pkl")
    if end != program.start + program.size:
        raise source.error("data.pkl", "bytes after the end of the pickle")
    data = _storage_entries(source, entries, root, rules.storages)

    storages = _Storages(
        source,
        rules.storages,
        read=lambda key: data[key].read(source),
        big_endian=_is_big_endian(source, entries.get(f"{root}/byteorder")),
    )
    return _contents(source, value, storages, max_bytes)


def _root_folder(source: ByteSource, entries: Mapping[str, Entry]) -> str:
    """The one folder that everything lies in."""
    roots = {name.partition("/")[0] for name in entries}
    root = min(roots, default="")
    if f"{root}/constants.pkl" in entries:
        raise source.error(
            "archive", "a TorchScript program (torch.jit.save); save the state_dict() of its model instead"
        )
    if "config.json" in entries and "model.weights.h5" in entries:
        raise source.error("archive", "a Keras 3 model (.keras); save it as HDF5 with model.save_weights('name.h5')")
    if entries and all(name.endswith(".npy") for name in entries):
        raise source.error("archive", "a NumPy archive (.npz), not a PyTorch checkpoint")
    if len(roots) != 1 or f"{root}/data.pkl" not in entries:
        raise source.error("archive", f"not a PyTorch checkpoint: no data.pkl in one folder, but {sorted(entries)[:5]}")
    return root


def _storage_entries(
    source: ByteSource, entries: Mapping[str, Entry], root: str, storages: Mapping[str, Storage]
) -> Mapping[str, Entry]:
    """The entry of each storage. Every one must exist, be as long as declared, and be declared."""
    folder = f"{root}/data/"
    found = {name[len(folder) :]: entry for name, entry in entries.items() if name.startswith(folder)}
    for key, storage in storages.items():
        place = f"zip entry {folder + key!r}"
        if key not in found:
            raise source.error(place, "it is missing, though data.pkl names it")
        if found[key].size != storage.size:
            raise source.error(place, f"it has {found[key].size} bytes, data.pkl declares {storage.size}")
    for key in found:
        if key not in storages:
            raise source.error(f"zip entry {folder + key!r}", "data.pkl does not name it")
    return found


def _is_big_endian(source: ByteSource, entry: Entry | None) -> bool:
    if entry is None:  # before 2.1
        return False
    order = entry.read(source).tobytes() if entry.size <= 16 else b""
    if order not in (b"little", b"big"):
        raise source.error("byteorder", f"{order!r} in place of 'little' or 'big'")
    return order == b"big"


def read_legacy(source: ByteSource, max_bytes: int) -> Contents:
    """Tensors and metadata of a checkpoint in the legacy form; ModelError as `read_zip`."""
    rules = TorchRules()
    values = []
    at = 0
    for place in ("magic number", "protocol", "system information", "contents", "storage keys"):
        value, at = load_pickle(source, at, source.size, rules, place)
        values.append(value)
    _, protocol, system, value, keys = values
    if protocol != _PROTOCOL:
        raise source.error("protocol", f"{_PROTOCOL} expected")
    little = system.get("little_endian") if isinstance(system, dict) else None
    if not isinstance(little, bool):
        raise source.error("system information", "it does not say little_endian")
    starts = _storage_starts(source, at, keys, rules.storages, big_endian=not little)

    storages = _Storages(
        source,
        rules.storages,
        read=lambda key: source.read_array(starts[key], rules.storages[key].size, f"storage {key!r}"),
        big_endian=not little,
    )
    return _contents(source, value, storages, max_bytes)


def _storage_starts(
    source: ByteSource, at: int, keys: object, storages: Mapping[str, Storage], *, big_endian: bool
) -> dict[str, int]:
    """Where the elements of each storage begin. Their declared sizes must fill the file exactly."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise source.error("storage keys", "not a list of strings")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise source.error(
            "storage keys", f"{len(keys)} keys that are not those of the {len(storages)} storages declared"
        )
    starts = {}
    for key in keys:
        storage = storages[key]
        place = f"storage {key!r}"
        count = int.from_bytes(source.read(at, 8, place), "big" if big_endian else "little", signed=True)
        if count != storage.count:
            raise source.error(place, f"it has {count} elements, the pickle declares {storage.count}")
        starts[key] = at + 8
        at += 8 + storage.size
    if at != source.size:
        raise source.error("end", f"the storages end at byte {at}, the file at {source.size}: it is damaged")
    return starts


@dataclass
class _Storages:
    """The storages of a file, each read when a tensor first needs it."""

    source: ByteSource
    declared: Mapping[str, Storage]
    read: Callable[[str], npt.NDArray[np.uint8]]
    """key -> its bytes."""
    big_endian: bool
    decoded: dict[str, tuple[str, Array]] = field(default_factory=dict)
    """key -> (element type, elements)."""

    def elements(self, tensor: Tensor, place: str) -> Array:
        """The elements of the tensor's storage."""
        key = tensor.storage.key
        size = element_size(tensor.kind, self.source, place)
        if key not in self.decoded:
            if self.declared[key].size % size:
                raise self.source.error(place, f"its storage of {self.declared[key].size} bytes cuts an element in two")
            self.decoded[key] = tensor.kind, decode(self.read(key), tensor.kind, big_endian=self.big_endian)
        kind, elements = self.decoded[key]
        if kind != tensor.kind:  # torch.save refuses to write such a file
            raise self.source.error(place, f"its storage is read as {kind} and as {tensor.kind}")
        return elements[tensor.storage.first : tensor.storage.first + tensor.storage.count]


def _contents(source: ByteSource, value: object, storages: _Storages, max_bytes: int) -> Contents:
    """The state dict in `value` with its elements."""
    tensors, metadata = state_dict(value, source)
    budget = Budget.of(source, max_bytes)
    arrays = {}
    for name, tensor in tensors.items():
        place = f"tensor {name!r}"
        arrays[name] = view(storages.elements(tensor, place), tensor.layout, budget, place)
    return arrays, metadata
