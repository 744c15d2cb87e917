"""PNG of every colour type, depth and interlacing, against pypng and Pillow; broken chunks are refused."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr.errors import ImageError
from graphsr.imagefile import ImageFile, read_image, write_image

Image = pytest.importorskip("PIL.Image")
png = pytest.importorskip("png")

from graphsr.imagefile_png import read_png, write_png  # noqa: E402 (needs both)

Pixels = npt.NDArray[Any]
LIMIT = 1 << 20
SIZES = st.tuples(st.integers(1, 19), st.integers(1, 19))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def decode(data: bytes) -> Pixels:
    return read_png(io.BytesIO(data), LIMIT).pixels


def encoded(pixels: Pixels, **options: Any) -> bytes:
    """pypng's encoding of [H, W, C]."""
    buffer = io.BytesIO()
    png.Writer(pixels.shape[1], pixels.shape[0], **options).write(buffer, pixels.reshape(len(pixels), -1).tolist())
    return buffer.getvalue()


@given(st.data(), st.sampled_from([1, 2, 4, 8, 16]), st.booleans(), st.booleans())
@settings(deadline=None)
def test_grey_of_every_depth(data: st.DataObject, depth: int, interlace: bool, keyed: bool) -> None:
    top = (1 << depth) - 1
    samples = data.draw(hnp.arrays(np.uint16, data.draw(SIZES), elements=st.integers(0, top)))
    key = data.draw(st.integers(0, top)) if keyed else None
    result = decode(encoded(samples, greyscale=True, bitdepth=depth, interlace=interlace, transparent=key))
    white = 65535 if depth == 16 else 255
    expected = samples.astype(np.int64) * white // top
    if keyed:
        expected = np.dstack([expected, np.where(samples == key, 0, white)])
    assert result.dtype == (np.uint16 if depth == 16 else np.uint8)
    np.testing.assert_array_equal(result, expected)


@given(st.data(), st.sampled_from([8, 16]), st.integers(2, 4), st.booleans())
@settings(deadline=None)
def test_colour_and_alpha(data: st.DataObject, depth: int, channels: int, interlace: bool) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    samples = data.draw(hnp.arrays(dtype, (*data.draw(SIZES), channels)))
    kind = {"greyscale": channels == 2, "alpha": channels != 3, "bitdepth": depth, "interlace": interlace}
    np.testing.assert_array_equal(decode(encoded(samples, **kind)), samples)


@given(st.data(), st.sampled_from([8, 16]))
@settings(deadline=None)
def test_a_transparent_colour_becomes_alpha(data: st.DataObject, depth: int) -> None:
    samples = data.draw(hnp.arrays(np.uint16, (*data.draw(SIZES), 3), elements=st.integers(0, 2)))
    result = decode(encoded(samples, greyscale=False, bitdepth=depth, transparent=(1, 0, 2)))
    alpha = np.where((samples == (1, 0, 2)).all(axis=2), 0, (1 << depth) - 1)
    np.testing.assert_array_equal(result, np.dstack([samples, alpha]))


@given(st.data(), st.sampled_from([1, 2, 4, 8]), st.booleans(), st.sampled_from([0, 1, 2]))
@settings(deadline=None)
def test_palettes(data: st.DataObject, depth: int, interlace: bool, opaque: int) -> None:
    """The last `opaque` entries have no alpha of their own; 0 entries with alpha is a palette without tRNS."""
    entries = data.draw(st.integers(1, 1 << depth))
    table = data.draw(hnp.arrays(np.uint8, (entries, 4)))
    translucent = max(0, entries - opaque) if opaque else 0
    table[translucent:, 3] = 255
    palette = [tuple(row if i < translucent else row[:3]) for i, row in enumerate(table.tolist())]
    indices = data.draw(hnp.arrays(np.uint8, data.draw(SIZES), elements=st.integers(0, entries - 1)))
    result = decode(encoded(indices, palette=palette, bitdepth=depth, interlace=interlace))
    np.testing.assert_array_equal(result, table[indices] if translucent else table[indices][..., :3])


@given(st.data(), st.sampled_from(["uint8", "uint16"]), st.integers(1, 4))
@settings(deadline=None)
def test_what_we_write_others_read(data: st.DataObject, dtype: str, channels: int) -> None:
    pixels = data.draw(hnp.arrays(dtype, (*data.draw(SIZES), channels)))
    buffer = io.BytesIO()
    write_png(buffer, ImageFile(pixels[..., 0] if channels == 1 else pixels, icc=b"profile", dpi=(72, 72)))
    width, height, rows, _ = png.Reader(bytes=buffer.getvalue()).read()
    result = np.array([list(row) for row in rows]).reshape(height, width, channels)
    np.testing.assert_array_equal(result, pixels)


def test_what_we_write_pillow_reads(tmp_path: Path) -> None:
    pixels = np.arange(60 * 50 * 3).reshape(60, 50, 3).astype(np.uint8)
    write_image(tmp_path / "a.png", ImageFile(pixels, icc=bytes(range(200)), dpi=(300, 300)))
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
        assert picture.info["icc_profile"] == bytes(range(200))
        assert picture.info["dpi"] == pytest.approx((300, 300), rel=1e-4)


def test_16_bit_photographs_keep_their_low_bytes(tmp_path: Path) -> None:
    """Large enough for several chunks of image data; Pillow writes grey with all filter types."""
    y, x = np.mgrid[:400, :500]
    waves = [32768 + 32000 * np.sin(x / p) * np.cos(y / q) for p, q in ((31, 47), (5, 90), (211, 3))]
    pixels = np.stack(waves, axis=2).astype(np.uint16)
    write_image(tmp_path / "a.png", ImageFile(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png").pixels, pixels[..., 0])


def test_what_pypng_makes_of_other_chunks_changes_no_sample() -> None:
    """With sBIT it would shift the samples; a wrong bKGD it would refuse, and a palette that is a mere suggestion."""
    others = [chunk(b"sBIT", b"\x0c"), chunk(b"PLTE", b"12"), chunk(b"bKGD", b"")]
    data = png_of(header(2, 1, depth=16), *others, chunk(b"IDAT", zlib.compress(b"\0\0\x07\x12\x34")))
    assert decode(data).tolist() == [[0x0007, 0x1234]]


ROW = zlib.compress(b"\0\x07\x08")  # one row of two grey pixels
GOOD = (header(2, 1), chunk(b"IDAT", ROW))


def test_image_data_in_pieces_and_unknown_chunks() -> None:
    pieces = [chunk(b"IDAT", ROW[i : i + 1]) for i in range(len(ROW))]
    data = png_of(header(2, 1), chunk(b"tEXt", b"a\0b"), *pieces[:3], chunk(b"IDAT", b""), *pieces[3:])
    assert decode(data).tolist() == [[7, 8]]
    assert decode(png_of(*GOOD) + b"appended by someone").tolist() == [[7, 8]]


def test_colour_spaces_without_a_profile_are_kept() -> None:
    kinds = ((b"gAMA", struct.pack(">I", 100000)), (b"cICP", b"\x09\x10\0\1"))
    colour = b"".join(chunk(kind, data) for kind, data in kinds)
    image = read_png(io.BytesIO(png_of(header(2, 1), colour, GOOD[1])), LIMIT)
    buffer = io.BytesIO()
    write_png(buffer, image)
    assert colour in buffer.getvalue()
    assert read_png(buffer, LIMIT).png_colour == kinds


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_of(header(2, 2), GOOD[1]), "truncated: 3 of 6 bytes of image data"),
        (png_of(header(2, 1), chunk(b"IDAT", ROW[:-1])), "truncated: 3 of 3"),
        (png_of(header(1, 1), GOOD[1]), "more image data than the 2 bytes"),
        (png_of(header(2, 1)), "truncated: .* no IDAT chunks"),
        (png_of(header(2, 1), chunk(b"IDAT", b"nonsense")), "does not decompress"),
        (png_of(header(1, 1, depth=16), chunk(b"IDAT", zlib.compress(b"\5\0\0"))), "Invalid PNG Filter Type"),
        (png_of(header(2, 1), chunk(b"IDAT", zlib.compress(b"\5\0\0"))), "damaged or truncated: "),
        (png_of(*GOOD)[:-12], "truncated: .*No more chunks"),
        (png_of(*GOOD)[:-1], "truncated: .*'IEND' too short for checksum"),
        (png_of(*GOOD)[:48], "truncated: .*'IDAT' too short for required 11 octets"),
        (png_of(*GOOD).replace(b"IDAT", b"IDAt"), "Checksum error in IDAt chunk"),
        (png_of(GOOD[1]), "does not begin with an IHDR"),
        (png_of(chunk(b"IHDR", b"short")), "does not begin with an IHDR"),
        (png_of(header(2, 1), *GOOD), "essential: IHDR"),
        (png_of(header(2, 1), chunk(b"ABCD", b""), GOOD[1]), "essential: ABCD"),
        (png_of(header(2, 1, depth=3), GOOD[1]), "invalid bit depth 3"),
        (png_of(header(2, 1, colour=5), GOOD[1]), "colour type 5"),
        (png_of(header(2, 1, interlace=2), GOOD[1]), "interlace method 2"),
        (png_of(header(0, 1), GOOD[1]), "declares 0x1 pixels"),
        (png_of(header(2, 1, colour=3), GOOD[1]), "Empty PLTE"),
        (png_of(header(2, 1, colour=3), chunk(b"PLTE", bytes(24)), GOOD[1]), "palette index 8, .* 8 entries"),
        (
            png_of(header(2, 1, colour=3), chunk(b"PLTE", bytes(25)), GOOD[1]),
            "PLTE chunk's length should be a multiple of 3",
        ),
        (png_of(header(2, 1), chunk(b"tRNS", b"\0"), GOOD[1]), "tRNS chunk has incorrect length"),
        (png_of(header(2, 1), chunk(b"iCCP", b"name\0\0zip"), GOOD[1]), "ICC profile does not decompress"),
        (png_of(header(2, 1), chunk(b"iCCP", b"name\0\0" + zlib.compress(b"icc")[:-1]), GOOD[1]), "ICC profile"),
        (png_of(header(2, 1), chunk(b"acTL", bytes(8)), GOOD[1]), "animated PNG"),
    ],
)
def test_broken_files_are_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_png(io.BytesIO(data), LIMIT)


def test_bombs_take_no_memory() -> None:
    """Sides that lie, a profile and image data that inflate a thousandfold: refused at the announced size."""
    bomb = zlib.compress(bytes(1 << 26), 9)
    for data, message in (
        (png_of(header(65000, 65000), chunk(b"IDAT", bomb)), "65000x65000 = 4225000000 pixels"),
        (png_of(header(2, 1), chunk(b"IDAT", bomb)), "more image data than the 3 bytes"),
        (png_of(header(2, 1), chunk(b"iCCP", b"n\0\0" + bomb), GOOD[1]), "longer than 16777216 bytes"),
    ):
        tracemalloc.start()
        with pytest.raises(ImageError, match=message):
            read_png(io.BytesIO(data), 1 << 28)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 << 20
    with pytest.raises(ImageError, match="sides of more than 1000000"):
        read_png(io.BytesIO(png_of(header(1 << 21, 1))), 1 << 28)
