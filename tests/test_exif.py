"""EXIF blocks: what is read, what is changed in place, what survives damage."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr import exif
from graphsr.exif import EXIF_IFD, GPS_IFD, INTEROP_IFD, ORIENTATION, PIXEL_HEIGHT, PIXEL_WIDTH, Directory, Entry

ORDERS = st.sampled_from(["<", ">"])


def short(order: str, *values: int) -> Entry:
    return Entry(3, len(values), struct.pack(f"{order}{len(values)}H", *values), 0)


def directories(order: str) -> st.SearchStrategy[Directory]:
    """Directories with arbitrary fields of bytes and shorts, nested as in cameras' files."""
    tags = st.integers(1, 0x7FFF)
    field = st.one_of(
        st.binary(max_size=12).map(lambda data: Entry(7, len(data), data, 0)),
        st.lists(st.integers(0, 65535), min_size=1, max_size=5).map(lambda values: short(order, *values)),
    )
    fields = st.dictionaries(tags, field, min_size=1, max_size=5)

    def nested(main: Directory, sub: Directory, gps: Directory, interop: Directory) -> Directory:
        return main | {EXIF_IFD: sub | {INTEROP_IFD: interop}, GPS_IFD: gps}

    return st.builds(nested, fields, fields, fields, fields)


def without_places(directory: Directory) -> object:
    return {
        tag: (entry.type, entry.count, entry.data) if isinstance(entry, Entry) else without_places(entry)
        for tag, entry in directory.items()
    }


@given(ORDERS.flatmap(lambda order: st.tuples(st.just(order), directories(order))))
def test_blocks_round_trip(case: tuple[str, Directory]) -> None:
    order, directory = case
    parsed_order, parsed = exif.parse(io.BytesIO(exif.block(directory, order)))
    assert parsed_order == order
    assert without_places(parsed) == without_places(directory)


@given(ORDERS, st.integers(0, 65535), st.integers(1, 65535), st.integers(1, 65535))
def test_orientation_and_size_are_patched_in_place(order: str, turn: int, width: int, height: int) -> None:
    maker_note = Entry(7, 40, bytes(range(40)), 0)
    size: Directory = {PIXEL_WIDTH: short(order, 7), PIXEL_HEIGHT: short(order, 9), 0x927C: maker_note}
    block = exif.block({ORIENTATION: short(order, turn), EXIF_IFD: size}, order)
    assert exif.orientation(block) == (turn if 1 <= turn <= 8 else 1)
    upright = exif.describe_upright(block, width, height)
    assert exif.orientation(upright) == 1
    assert len(upright) == len(block)
    assert bytes(range(40)) in upright
    _, parsed = exif.parse(io.BytesIO(upright))
    inner = parsed[EXIF_IFD]
    assert isinstance(inner, dict)
    width_entry, height_entry = inner[PIXEL_WIDTH], inner[PIXEL_HEIGHT]
    assert isinstance(width_entry, Entry)
    assert isinstance(height_entry, Entry)
    assert struct.unpack(order + "H", width_entry.data) == (width,)
    assert struct.unpack(order + "H", height_entry.data) == (height,)


def test_a_size_that_does_not_fit_its_field_stays() -> None:
    block = exif.block({EXIF_IFD: {PIXEL_WIDTH: short("<", 7)}}, "<")
    assert exif.describe_upright(block, 70000, 1) == block


def test_a_dangling_pointer_costs_only_its_directory() -> None:
    block = bytearray(exif.block({ORIENTATION: short("<", 6), EXIF_IFD: {PIXEL_WIDTH: short("<", 7)}}, "<"))
    struct.pack_into("<I", block, 8 + 2 + 12 + 8, 0xFFFFFFFF)
    assert exif.orientation(bytes(block)) == 6
    _, parsed = exif.parse(io.BytesIO(bytes(block)))
    assert set(parsed) == {ORIENTATION}


def test_a_field_that_names_the_same_bytes_again_and_again_is_bounded() -> None:
    count = 1000
    fields = b"".join(struct.pack("<HHII", tag, 7, 1 << 20, 0) for tag in range(count))
    block = b"II*\0" + struct.pack("<IH", 8, count) + fields + bytes(1 << 20)
    _, parsed = exif.parse(io.BytesIO(block))
    assert len(parsed) == 16  # 16 MiB of them


@pytest.mark.parametrize("block", [b"", b"II*\0", b"Exif\0\0II", b"II\x2b\0" + bytes(4), b"II*\0\xff\xff\xff\xff"])
def test_no_main_directory_is_an_error(block: bytes) -> None:
    with pytest.raises(exif.ExifError):
        exif.parse(io.BytesIO(block))


@given(st.data())
def test_mutants_parse_or_raise_one_error(data: st.DataObject) -> None:
    order = data.draw(ORDERS)
    block = bytearray(exif.block(data.draw(directories(order)), order))
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        upright = exif.describe_upright(bytes(block), 10, 10)
    except exif.ExifError:
        return
    assert len(upright) == len(block)
    assert 1 <= exif.orientation(upright) <= 8
