"""The entries of a zip archive whose members are all stored, not compressed: name -> where its bytes lie.

PyTorch writes such archives. Python's `zipfile` is not used: it raises many kinds of exceptions on damaged files,
inflates what it is given and does not see entries that overlap. Structures after PKWARE's APPNOTE.TXT 6.3.10; the
section numbers are in the comments.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .byte_source import ByteSource

MAX_ENTRIES = 1 << 16
MAX_DIRECTORY_BYTES = 16 << 20
_MAX_COMMENT = 0xFFFF
_ENCRYPTED, _SIZES_FOLLOW = 1 << 0, 1 << 3
_IN_ZIP64 = 0xFFFF_FFFF  # this 32-bit field is in the zip64 structures

_END = struct.Struct("<4s4H2LH")  # 4.3.16 end of central directory record
_END64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12 central directory header
_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7 local file header


@dataclass(frozen=True)
class Entry:
    """One member: `size` bytes at `start` of the file."""

    name: str
    start: int
    size: int
    crc32: int

    def read(self, source: ByteSource) -> npt.NDArray[np.uint8]:
        """The bytes of the member; ModelError when they do not match its checksum.

        A checksum of 0 says that the writer left it out (`torch.serialization.set_crc32_options(False)`).
        """
        place = f"zip entry {self.name!r}"
        data = source.read_array(self.start, self.size, place)
        if self.crc32 and zlib.crc32(data.data) != self.crc32:
            raise source.error(place, "its checksum does not match: the file is damaged, download or copy it again")
        return data


@dataclass(frozen=True)
class _Record:
    """What the central directory says of a member."""

    name: str
    header: int
    size: int
    crc32: int
    flags: int


def read_entries(source: ByteSource) -> Mapping[str, Entry]:
    """All members in the order of the directory. ModelError for damaged archives and compressed, encrypted, duplicate
    or overlapping members, each with its name."""
    directory_at, directory_size, count = _find_directory(source)
    records = _directory(source, source.read(directory_at, directory_size, "zip directory"), count)
    entries: dict[str, Entry] = {}
    end = 0
    for record in sorted(records, key=lambda record: record.header):
        if record.header < end:
            raise source.error(f"zip entry {record.name!r}", "it overlaps the entry before it")
        entry = _locate(source, record, directory_at)
        end = entry.start + entry.size
        entries[record.name] = entry
    return {record.name: entries[record.name] for record in records}


def _find_directory(source: ByteSource) -> tuple[int, int, int]:
    """Offset, size and number of entries of the central directory."""
    place = "zip directory"
    tail_at = max(0, source.size - _END.size - _MAX_COMMENT)
    tail = source.read(tail_at, source.size - tail_at, place)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or len(tail) - found < _END.size:
        raise source.error(place, "the archive has no end: it is cut off, download or copy it again")
    _, disk, first_disk, _, count, size, at, comment = _END.unpack_from(tail, found)
    if found + _END.size + comment != len(tail):
        raise source.error(place, "bytes after the end of the archive")
    end_at = tail_at + found
    if end_at >= _END64_LOCATOR.size:
        locator = source.read(end_at - _END64_LOCATOR.size, _END64_LOCATOR.size, place)
        if locator.startswith(b"PK\x06\x07"):
            end_at = _END64_LOCATOR.unpack(locator)[2]
            signature, _, _, _, disk, first_disk, _, count, size, at = _END64.unpack(
                source.read(end_at, _END64.size, place)
            )
            if signature != b"PK\x06\x06":
                raise source.error(place, "the zip64 end record is missing")
    if disk or first_disk or count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES or at + size > end_at:
        raise source.error(place, f"impossible directory: {count} entries, {size} bytes at offset {at}")
    return at, size, count


def _directory(source: ByteSource, data: bytes, count: int) -> list[_Record]:
    """The records of the central directory, names unique, no data touched yet."""
    records: dict[str, _Record] = {}
    at = 0
    for number in range(count):
        place = f"zip directory, entry {number}"
        if at + _CENTRAL.size > len(data):
            raise source.error(place, "the directory ends too early")
        fields = _CENTRAL.unpack_from(data, at)
        signature, _, _, flags, method, _, _, crc32, packed, size, *lengths, _, _, _, header = fields
        name_length, extra_length, comment_length = lengths
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        if signature != b"PK\x01\x02" or at > len(data):
            raise source.error(place, "not a directory entry")
        name = _decode(source, data[name_at:extra_at], place)
        place = f"zip entry {name!r}"
        extra = data[extra_at : extra_at + extra_length]
        size, packed, header = _zip64_fields(source, extra, size, packed, header, place)
        if method != 0 or packed != size:
            raise source.error(
                place, "it is compressed; PyTorch does not do this, so pack it again without compression"
            )
        if flags & _ENCRYPTED:
            raise source.error(place, "it is encrypted")
        if name in records:
            raise source.error(place, "the archive has two entries of this name")
        records[name] = _Record(name, header, size, crc32, flags)
    if at != len(data):
        raise source.error("zip directory", f"{len(data) - at} bytes after its {count} entries")
    return list(records.values())


def _zip64_fields(
    source: ByteSource, extra: bytes, size: int, packed: int, header: int, place: str
) -> tuple[int, int, int]:
    """4.5.3: the 64-bit values of those fields that are 0xFFFFFFFF in the directory, in this order."""
    wanted = [size, packed, header]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = extra[at + 4 : at + 4 + length]
            for index, value in enumerate(wanted):
                if value == _IN_ZIP64 and len(values) >= 8:
                    (wanted[index],) = struct.unpack_from("<Q", values)
                    values = values[8:]
        at += 4 + length
    if _IN_ZIP64 in wanted:
        raise source.error(place, "its 64-bit size is missing")
    return wanted[0], wanted[1], wanted[2]


def _locate(source: ByteSource, record: _Record, directory_at: int) -> Entry:
    """The entry behind its local header, which must agree with the directory."""
    place = f"zip entry {record.name!r}"
    header = source.read(record.header, _LOCAL.size, place)
    signature, _, flags, method, _, _, _, packed, size, name_length, extra_length = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04":
        raise source.error(place, "its header is not where the directory says")
    name = _decode(source, source.read(record.header + _LOCAL.size, name_length, place), place)
    if name != record.name or method != 0 or flags != record.flags:
        raise source.error(place, f"its header, of {name!r}, does not agree with the directory")
    if not flags & _SIZES_FOLLOW and not {packed, size} <= {record.size, _IN_ZIP64}:
        raise source.error(place, f"its header declares {size} bytes, the directory {record.size}")
    start = record.header + _LOCAL.size + name_length + extra_length
    if start + record.size > directory_at:
        raise source.error(place, "its bytes reach beyond the data of the archive")
    return Entry(record.name, start, record.size, record.crc32)


def _decode(source: ByteSource, name: bytes, place: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise source.error(place, "its name is not UTF-8") from error
