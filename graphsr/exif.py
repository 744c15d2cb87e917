"""EXIF blocks as bytes: read the orientation, keep them true to the pixels, carry them in and out of TIFF.

An EXIF block is a small TIFF structure: a header, then directories (IFDs) of tagged values, some of which point to
further directories. Only what graphsr changes or moves is interpreted; everything else stays as it is, byte for
byte. Tags and types: CIPA DC-008 (EXIF 2.32) section 4.6, TIFF 6.0 section 2.
"""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from graphsr.errors import ImageError

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003

DESCRIPTIVE = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x4746, 0x4749})
"""Tags of a TIFF's main directory that describe the picture, not its storage: ImageDescription, Make, Model,
Software, DateTime, Artist, Copyright, Rating, RatingPercent."""

_MAIN: dict[int, Any] = {EXIF_IFD: {INTEROP_IFD: {}}, GPS_IFD: {}}
"""Which tags point to a further directory, and which tags of that directory do."""

_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by field type."""

_INTEGER = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""`struct` codes of the field types SHORT, LONG, IFD, LONG8 and IFD8."""

_MAX_BYTES = 16 << 20  # of all values of one block: a hostile directory can name the same bytes again and again
_MAX_FIELDS = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One field: `data` holds `count` values of TIFF type `type`, in the byte order of its block."""

    type: int
    count: int
    data: bytes
    at: int  # where the data lies in the block that it was read from


Directory: TypeAlias = "dict[int, Entry | Directory]"
"""Fields by tag; a pointer tag holds the directory that it points to."""


class ExifError(ImageError):
    """A block that does not parse. Readers of images count it as absent: the pixels are what matters."""


def orientation(block: bytes) -> int:
    """The orientation 1..8 (EXIF 2.32, 4.6.4 A), 1 when it is not given or out of range."""
    order, directory = parse(io.BytesIO(block))
    entry = directory.get(ORIENTATION)
    if not isinstance(entry, Entry) or entry.type not in _INTEGER or entry.count != 1:
        return 1
    value = _integer(entry, order)
    return value if 1 <= value <= 8 else 1


def describe_upright(block: bytes, width: int, height: int) -> bytes:
    """The block of an image whose pixels stand upright and count `width` x `height`: these fields, where present,
    are overwritten in place, so that offsets inside maker notes stay right."""
    order, directory = parse(io.BytesIO(block))
    patched = bytearray(block)
    exif = directory.get(EXIF_IFD, {})
    for parent, tag, value in (
        (directory, ORIENTATION, 1),
        (exif, PIXEL_WIDTH, width),
        (exif, PIXEL_HEIGHT, height),
    ):
        entry = parent.get(tag) if isinstance(parent, dict) else None
        if isinstance(entry, Entry) and entry.count == 1 and value < 1 << (8 * len(entry.data)):
            code = _INTEGER.get(entry.type)
            if code is not None:
                struct.pack_into(order + code, patched, entry.at, value)
    return bytes(patched)


def parse(file: BinaryIO, only: frozenset[int] | None = None) -> tuple[str, Directory]:
    """Byte order ("<" or ">") and main directory of a block, or of a whole TIFF or BigTIFF file.

    `only`: the tags of the main directory that are wanted, None for all. Fields that do not parse (a tag copied
    without the bytes it points to is common) are left out. Raises `ExifError` when there is no main directory.
    """
    file.seek(0)
    header = _exactly(file, 8)
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None:
        raise ExifError(f"no TIFF header: {header!r}")
    version, offset = struct.unpack(order + "2xHI", header)
    if version == 43:  # BigTIFF: 8-byte offsets, the first one after the header
        (offset,) = struct.unpack(order + "Q", _exactly(file, 8))
    elif version != 42:
        raise ExifError(f"TIFF version 42 or 43 expected, got {version}")
    return order, _Parser(file, order, version == 43).directory(offset, _MAIN, only)


class _Parser:
    def __init__(self, file: BinaryIO, order: str, big: bool) -> None:
        self.file, self.order = file, order
        self.end = file.seek(0, io.SEEK_END)
        self.word, self.count = ("Q", "Q") if big else ("I", "H")
        self.inline = 8 if big else 4  # bytes of a value that stand in the field itself
        self.budget = _MAX_BYTES

    def directory(self, offset: int, pointers: dict[int, Any], only: frozenset[int] | None = None) -> Directory:
        self.seek(offset)
        count = self.number(self.count)
        field_size = 4 + 2 * self.inline
        fields = _exactly(self.file, field_size * min(count, _MAX_FIELDS))
        first = self.file.tell() - len(fields)
        result: Directory = {}
        for i in range(0, len(fields), field_size):
            tag, kind, n = struct.unpack_from(self.order + "HH" + self.word, fields, i)
            if tag in result or (only is not None and tag not in only):
                continue
            with contextlib.suppress(ExifError):
                entry = self.entry(kind, n, first + i + 4 + self.inline)
                if tag in pointers:
                    result[tag] = self.directory(_integer(entry, self.order), pointers[tag])
                else:
                    result[tag] = entry
        return result

    def entry(self, kind: int, count: int, at: int) -> Entry:
        """The field whose value, or the offset of it when it is too long, lies at `at`."""
        if kind not in _SIZE:
            raise ExifError(f"unknown field type {kind}")
        size = count * _SIZE[kind]
        if size > self.budget:
            raise ExifError(f"more than {_MAX_BYTES} bytes of values")
        self.budget -= size
        self.seek(at)
        if size > self.inline:
            at = self.number(self.word)
            self.seek(at)
        return Entry(kind, count, _exactly(self.file, size), at)

    def seek(self, offset: int) -> None:
        self.file.seek(min(offset, self.end))  # a file system refuses offsets that the format allows

    def number(self, code: str) -> int:
        return int(struct.unpack(self.order + code, _exactly(self.file, struct.calcsize(code)))[0])


def _integer(entry: Entry, order: str) -> int:
    code = _INTEGER.get(entry.type)
    if code is None or entry.count < 1:
        raise ExifError(f"expected an unsigned integer, got {entry.count} of type {entry.type}")
    return int(struct.unpack_from(order + code, entry.data)[0])


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ExifError(f"truncated: {size} bytes expected, {len(data)} left")
    return data


def block(directory: Directory, order: str) -> bytes:
    """A free-standing block with this main directory."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8) + layout(directory, order, 8)


def layout(directory: Directory, order: str, base: int) -> bytes:
    """The bytes of a directory placed at offset `base`: its fields by rising tag, no next directory, then the
    values longer than 4 bytes and the directories pointed to, each on an even offset (TIFF 6.0 section 2)."""
    fields, tail = [], b""
    start = base + 2 + 12 * len(directory) + 4
    for tag, entry in sorted(directory.items()):
        at = start + len(tail)
        if not isinstance(entry, Entry):
            kind, count, inline = 4, 1, struct.pack(order + "I", at)
            tail += layout(entry, order, at)
        elif len(entry.data) > 4:
            kind, count, inline = entry.type, entry.count, struct.pack(order + "I", at)
            tail += entry.data
        else:
            kind, count, inline = entry.type, entry.count, entry.data.ljust(4, b"\0")
        tail += b"\0" * (len(tail) % 2)
        fields.append(struct.pack(order + "HHI", tag, kind, count) + inline)
    return struct.pack(order + "H", len(fields)) + b"".join(fields) + b"\0\0\0\0" + tail
