"""PyTorch checkpoint files written without PyTorch: byte for byte under the test's control, also where PyTorch would
never write them so. The zip form goes through Python's `zipfile`, which the reader under test does not use."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

STORAGE_NAMES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Raw:
    """Opcodes to be put into a pickle as they are."""

    opcodes: bytes


@dataclass(frozen=True)
class Stored:
    """A storage: `data` is what the file holds, `count` what the pickle declares (by default the same)."""

    key: str
    data: np.ndarray[Any, Any]
    kind: str = ""
    count: int | None = None

    def declared(self) -> int:
        return self.data.size if self.count is None else self.count

    def element_kind(self) -> str:
        return self.kind or self.data.dtype.name


@dataclass(frozen=True)
class Tensor:
    """A tensor as PyTorch describes it; `version` 1, 2 or 3 is the rebuild function that it names."""

    storage: Stored
    offset: Any
    size: Any
    stride: Any
    version: int = 2
    kind: str = ""  # of version 3


@dataclass(frozen=True)
class Module:
    """An instance of a class of torch.nn, saved whole."""

    class_name: str
    state: Mapping[str, Any]


def tensor(key: str, array: np.ndarray[Any, Any]) -> Tensor:
    """The tensor that holds `array` in a storage of its own."""
    size = array.shape
    stride = tuple(int(np.prod(size[axis + 1 :])) for axis in range(len(size)))
    return Tensor(Stored(key, np.ascontiguousarray(array).ravel()), 0, size, stride)


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def opcodes(value: Any, *, legacy: bool = False) -> bytes:
    """The opcodes of protocol 2 that push `value`."""
    match value:
        case Raw(code):
            return code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(opcodes(item, legacy=legacy) for item in value) + b"t"
        case list():
            return b"](" + b"".join(opcodes(item, legacy=legacy) for item in value) + b"e"
        case dict():
            items = (opcodes(part, legacy=legacy) for item in value.items() for part in item)
            return global_("collections", "OrderedDict") + b")R(" + b"".join(items) + b"u"
        case Stored():
            view = (None,) if legacy else ()
            kind = STORAGE_NAMES.get(value.element_kind())
            type_ = global_("torch", kind) if kind else global_("torch.storage", "UntypedStorage")
            return opcodes(("storage", Raw(type_), value.key, "cpu", value.declared(), *view)) + b"Q"
        case Tensor():
            extra: tuple[Any, ...] = () if value.version == 1 else (False, {})
            if value.version == 3:
                extra += (Raw(global_("torch", value.kind)),)
            suffix = {1: "", 2: "_v2", 3: "_v3"}[value.version]
            arguments = (value.storage, value.offset, value.size, value.stride, *extra)
            return global_("torch._utils", f"_rebuild_tensor{suffix}") + opcodes(arguments, legacy=legacy) + b"R"
        case Module(class_name, state):
            module, _, name = class_name.rpartition(".")
            return global_(module, name) + b")\x81" + opcodes(dict(state), legacy=legacy) + b"b"
    raise TypeError(f"cannot be pickled here: {value!r}")


def pickled(value: Any, *, legacy: bool = False) -> bytes:
    return b"\x80\x02" + opcodes(value, legacy=legacy) + b"."


def storages_of(value: Any) -> dict[str, Stored]:
    """Every storage below `value`, by key, in the order in which they are met."""
    found: dict[str, Stored] = {}
    match value:
        case Tensor():
            found[value.storage.key] = value.storage
        case Module():
            found.update(storages_of(dict(value.state)))
        case dict():
            for item in value.values():
                found.update(storages_of(item))
        case list() | tuple():
            for item in value:
                found.update(storages_of(item))
    return found


def zip_file(
    value: Any = None,
    *,
    program: bytes | None = None,
    storages: Mapping[str, bytes] | None = None,
    byteorder: str | None = "little",
    root: str = "archive",
    extra: Sequence[tuple[str, bytes, int]] = (),
) -> bytes:
    """The zip form. `program` and `storages` replace what follows from `value`; `extra` adds (name, data, method)."""
    if program is None:
        program = pickled(value)
    if storages is None:
        storages = {key: stored.data.tobytes() for key, stored in storages_of(value).items()}
    members = [("data.pkl", program), *((f"data/{key}", data) for key, data in storages.items()), ("version", b"3\n")]
    if byteorder is not None:
        members.insert(1, ("byteorder", byteorder.encode()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(f"{root}/{name}", data)
        for name, data, method in extra:
            archive.writestr(name, data, method)
    return buffer.getvalue()


def legacy_file(
    value: Any = None,
    *,
    program: bytes | None = None,
    keys: Any = None,
    storages: bytes | None = None,
    little_endian: bool = True,
) -> bytes:
    """The legacy form. `program`, `keys` and `storages` replace what follows from `value`."""
    found = storages_of(value)
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    if program is None:
        program = pickled(value, legacy=True)
    if storages is None:
        order: Literal["little", "big"] = "little" if little_endian else "big"
        blocks = (stored.data.size.to_bytes(8, order) + stored.data.tobytes() for _, stored in sorted(found.items()))
        storages = b"".join(blocks)
    head = pickled(LEGACY_MAGIC) + pickled(1001) + pickled(system)
    return head + program + pickled(sorted(found) if keys is None else keys) + storages
