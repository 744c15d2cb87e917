"""TIFF variants: strips, tiles, planes, palettes, fax and LZW; several pages and lying strips are refused."""

from __future__ import annotations

import importlib.util
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
tifffile = pytest.importorskip("tifffile")

from graphsr.imagefile_tiff import read_tiff  # noqa: E402 (needs tifffile)

Pixels = npt.NDArray[Any]
LIMIT = 1 << 20


def encoded(pixels: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def decode(data: bytes) -> Pixels:
    return read_tiff(io.BytesIO(data), LIMIT).pixels


def ramp(dtype: str = "uint8", channels: int = 3) -> Pixels:
    pixels = (np.arange(50 * 40 * channels).reshape(50, 40, channels) * 131 % 60000).astype(dtype)
    return pixels[..., 0] if channels == 1 else pixels


LAYOUTS = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"rowsperstrip": 7},
    {"tile": (16, 32)},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
    {"compression": "zlib", "tile": (16, 32), "byteorder": ">"},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_layouts(layout: dict[str, Any], dtype: str, channels: int) -> None:
    if dtype == "float32" and "predictor" in layout:
        layout = {**layout, "predictor": False}
    pixels = ramp(dtype, channels)
    colours: dict[str, Any] = {"photometric": "rgb" if channels >= 3 else "minisblack"}
    if channels in (2, 4):
        colours["extrasamples"] = ["unassalpha"]
    if channels > 1:
        colours["planarconfig"] = "contig"
    result = decode(encoded(pixels, **colours, **layout))
    np.testing.assert_array_equal(result, pixels)
    assert result.dtype == pixels.dtype
    assert result.dtype.isnative


@pytest.mark.parametrize("layout", LAYOUTS)
def test_separate_planes(layout: dict[str, Any]) -> None:
    pixels = ramp("uint16")
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    np.testing.assert_array_equal(decode(encoded(planes, photometric="rgb", planarconfig="separate", **layout)), pixels)


def test_white_is_zero_and_one_bit() -> None:
    grey = ramp("uint16", 1)
    np.testing.assert_array_equal(decode(encoded(grey, photometric="miniswhite")), 65535 - grey)
    mask = grey % 3 == 0
    np.testing.assert_array_equal(decode(encoded(mask, photometric="minisblack")), mask * 255)
    np.testing.assert_array_equal(decode(encoded(mask, photometric="miniswhite")), 255 - mask * 255)


@pytest.mark.parametrize(("step", "dtype"), [(257, "uint8"), (256, "uint8"), (253, "uint16")])
def test_palettes_keep_the_depth_of_their_colours(step: int, dtype: str) -> None:
    table = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * np.uint16(step)
    indices = ramp("uint8", 1)
    result = decode(encoded(indices, photometric="palette", colormap=table))
    expected = table.T[indices] if dtype == "uint16" else (table >> 8).T[indices]
    assert result.dtype.name == dtype
    np.testing.assert_array_equal(result, expected)


@given(hnp.arrays(np.uint16, (3, 5, 4)), st.booleans())
@settings(deadline=None)
def test_premultiplied_alpha_is_divided_out(straight: Pixels, as_float: bool) -> None:
    alpha = straight[..., 3:] / 65535
    stored = np.concatenate([np.rint(straight[..., :3] * alpha), straight[..., 3:]], axis=2).astype(np.uint16)
    if as_float:
        result = decode(encoded((stored / 65535).astype(np.float32), photometric="rgb", extrasamples=["assocalpha"]))
        assert result.dtype == np.float32
        result = result * 65535
    else:
        result = decode(encoded(stored, photometric="rgb", extrasamples=["assocalpha"]))
    # storing rounds by half a step of 1/65535, which the division by alpha enlarges; float32 adds 2^-24 of white
    bound = (0.5 + 65535 * 2**-22) / np.maximum(alpha, 1e-9) + 0.5 + 65535 * 2**-22
    visible = np.broadcast_to(alpha > 0, (3, 5, 3))
    difference = np.abs(result[..., :3].astype(np.float64) - straight[..., :3])
    assert (difference <= bound)[visible].all()
    np.testing.assert_array_equal(result[..., :3][~visible], 0)


@pytest.mark.parametrize("codec", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_8_bit_files_of_other_programs(tmp_path: Path, codec: str, mode: str) -> None:
    picture = Image.fromarray(ramp()).convert(mode)
    picture.save(tmp_path / "a.tif", compression=codec)
    result = read_image(tmp_path / "a.tif")
    target = {"1": "L", "P": "RGB"}.get(mode, mode)
    np.testing.assert_array_equal(result.pixels, np.asarray(picture.convert(target)))
    assert result.lossless


def test_fax_and_jpeg(tmp_path: Path) -> None:
    mask = Image.fromarray(ramp()).convert("1")
    mask.save(tmp_path / "fax.tif", compression="group4")
    np.testing.assert_array_equal(read_image(tmp_path / "fax.tif").pixels, np.asarray(mask.convert("L")))
    colour = np.full((32, 32, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "jpeg.tif", compression="jpeg", quality=95)
    assert np.abs(read_image(tmp_path / "jpeg.tif").pixels.astype(int) - colour).max() <= 2
    grey = np.full((32, 32), 100, dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "jpeg.tif", compression="jpeg")
    result = read_image(tmp_path / "jpeg.tif")
    assert not result.lossless
    assert np.abs(result.pixels.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, options: dict[str, Any]) -> None:
    from PIL import ImageOps

    upright = Image.Exif()
    upright[0x0112] = orientation
    Image.fromarray(ramp()).save(tmp_path / "a.tif", exif=upright, **options)
    plain = Image.fromarray(ramp())
    plain.getexif()[0x0112] = orientation
    result = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(result.pixels, np.asarray(ImageOps.exif_transpose(plain)))


def test_orientation_of_bigtiff() -> None:
    data = encoded(ramp(), photometric="rgb", bigtiff=True, extratags=[(274, "H", 1, 6, True)])
    image = read_tiff(io.BytesIO(data), LIMIT)
    assert image.exif is not None
    assert b"\x12\x01\x03\x00\x01\x00\x00\x00\x06" in image.exif


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs reads it")
def test_16_bit_in_a_codec_that_is_not_there_names_the_package(tmp_path: Path) -> None:
    Image.fromarray(ramp("uint16", 1)).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(ImageError, match=r"a\.tif: .*16-bit.*LZW.*pip install imagecodecs"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((5, 8, 8), "u1"), {}, "a TIFF of several pages"),
        (np.zeros((5, 8, 8), "u1"), {"truncate": True}, "a TIFF of several pages"),
        (np.zeros((3, 8, 8), "u1"), {"imagej": True, "truncate": True}, "a TIFF of several pages"),
        (np.zeros((8, 8), "i2"), {}, "16-bit samples of type int16"),
        (np.zeros((8, 8), "u4"), {}, "32-bit samples of type uint32"),
        (np.zeros((8, 8), "f8"), {}, "64-bit samples of type float64"),
        (np.zeros((8, 8, 3), "u1"), {"photometric": "cielab"}, "CIELAB"),
        (np.zeros((8, 8, 3), "u1"), {"photometric": "ycbcr"}, "YCBCR"),
        (np.zeros((120, 8, 8), "u1"), {"subfiletype": 1}, "thumbnails alone"),
        (np.zeros((8, 8, 6), "u1"), {"photometric": "rgb", "planarconfig": "contig"}, "6 samples"),
        (np.zeros((16, 64, 64), "u1"), {"volumetric": True, "tile": (16, 16, 16)}, "depth 16"),
    ],
)
def test_what_is_no_plain_picture_is_refused(pixels: Pixels, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(encoded(pixels, **options))


def test_thumbnails_are_passed_over() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(ramp(), photometric="rgb", metadata=None)
        writer.write(ramp()[::8, ::8], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(decode(buffer.getvalue()), ramp())


def patched(data: bytes, tag: int, value: int, index: int = 0) -> bytes:
    """The file with one number of a tag overwritten."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        entry = tiff.pages[0].tags[tag]
    code = {3: "<H", 4: "<I"}[int(entry.dtype)]
    changed = bytearray(data)
    struct.pack_into(code, changed, entry.valueoffset + index * struct.calcsize(code), value)
    return bytes(changed)


WIDTH, OFFSETS, COUNTS = 256, 273, 279
RAW = encoded(ramp(), photometric="rgb")
STRIPS = encoded(ramp(), photometric="rgb", compression="zlib", rowsperstrip=7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(RAW, WIDTH, 4000), "truncated"),
        (RAW[:-1], "truncated"),
        (patched(STRIPS, WIDTH, 41), "truncated: strip or tile 0 has 840 of 861 bytes"),
        (patched(STRIPS, WIDTH, 39), "inflates to more than its 819 bytes"),
        (patched(STRIPS, OFFSETS, 0, index=3), "truncated: strip or tile 3"),
        (patched(STRIPS, OFFSETS, 1 << 30, index=3), "truncated: strip or tile 3"),
        (patched(STRIPS, COUNTS, 0, index=3), "truncated: strip or tile 3"),
        (patched(STRIPS, COUNTS, 5, index=3), "truncated: strip or tile 3"),
        (patched(STRIPS, WIDTH, 40000), "2000000 pixels, the limit is 1048576"),
    ],
)
def test_strips_that_are_not_there_are_no_grey_area(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_a_strip_that_inflates_a_thousandfold_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(1 << 26), 9)
    small = encoded(np.zeros((8, 8), "u1"), compression="zlib")
    at = len(small)
    data = patched(patched(small, OFFSETS, at), COUNTS, len(bomb)) + bomb
    tracemalloc.start()
    with pytest.raises(ImageError, match="inflates to more than its 64 bytes"):
        decode(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_what_we_write_pillow_reads(tmp_path: Path) -> None:
    for channels, mode in ((1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")):
        write_image(tmp_path / "a.tif", ImageFile(ramp(channels=channels), dpi=(300, 300)))
        with Image.open(tmp_path / "a.tif") as picture:
            assert picture.mode == mode
            np.testing.assert_array_equal(np.asarray(picture), ramp(channels=channels))
            assert picture.info["dpi"] == (300, 300)
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert [tag.code for tag in tiff.pages[0].tags if tag.code in (270, 305, 306)] == []


def test_a_programs_index_of_the_file_is_not_carried_on(tmp_path: Path) -> None:
    for options in ({}, {"imagej": True}, {"ome": True}):
        tifffile.imwrite(tmp_path / "a.tif", ramp(channels=1), **options)
        image = read_image(tmp_path / "a.tif")
        write_image(tmp_path / "b.tif", image)
        with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
            assert 270 not in tiff.pages[0].tags
    tifffile.imwrite(tmp_path / "a.tif", ramp(channels=1), description="a nice view", metadata=None)
    write_image(tmp_path / "b.tif", read_image(tmp_path / "a.tif"))
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        assert tiff.pages[0].description == "a nice view"
