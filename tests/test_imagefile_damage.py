"""Damaged image files: only ImageError or a picture, within a second, whatever the bytes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphsr.errors import ImageError
from graphsr.imagefile import ImageFile, read_image, write_image

from support import costs_little

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

PIXELS = (np.arange(16 * 12 * 4).reshape(16, 12, 4) * 37 % 251).astype(np.uint8)
EXIF = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
LIMIT = 1 << 22  # pixels: 50 MB decoded


def through_pillow(format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, format=format, **options)
    return buffer.getvalue()


def through_tifffile(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small file of each kind, with everything in it that is parsed."""
    ours = tmp_path_factory.mktemp("samples") / "a.png"
    write_image(ours, ImageFile(PIXELS.astype(np.uint16) * 257, icc=bytes(500), exif=EXIF, dpi=(72, 72)))
    deep = PIXELS.astype(np.uint16) * 257
    return {
        "PNG8": through_pillow("PNG", "RGBA", icc_profile=bytes(500), exif=EXIF),
        "PNG16": ours.read_bytes(),
        "PNG palette": through_pillow("PNG", "P", transparency=b"\0\x80"),
        "JPEG": through_pillow("JPEG", exif=b"Exif\0\0" + EXIF, icc_profile=bytes(500)),
        "JPEG progressive": through_pillow("JPEG", "L", progressive=True),
        "TIFF": through_tifffile(deep, compression="zlib", predictor=True, rowsperstrip=4, iccprofile=bytes(100)),
        "TIFF raw": through_tifffile(PIXELS, tile=(16, 16), byteorder=">"),
        "TIFF LZW": through_pillow("TIFF", compression="tiff_lzw", exif=b"Exif\0\0" + EXIF),
        "WebP": through_pillow("WEBP", exif=EXIF, icc_profile=bytes(500)),
        "WebP lossless": through_pillow("WEBP", "RGBA", lossless=True, exact=True),
        "BMP": through_pillow("BMP"),
        "BMP palette": through_pillow("BMP", "P"),
    }


MAIN_KINDS = ["PNG8", "PNG16", "JPEG", "TIFF", "WebP", "BMP"]
OTHER_KINDS = ["PNG palette", "JPEG progressive", "TIFF raw", "TIFF LZW", "WebP lossless", "BMP palette"]
KINDS = MAIN_KINDS + OTHER_KINDS


def mutants(count: int) -> settings:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, bytes]]:
    """Positions, as a share of the length, and what is written there; half of them near the header."""
    place = st.one_of(st.floats(0, 0.1), st.floats(0, 1, exclude_max=True))
    interesting = st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0"])
    return draw(st.lists(st.tuples(place, st.one_of(st.binary(min_size=1, max_size=3), interesting)), max_size=4))


def damaged(data: bytes, changes: list[tuple[float, bytes]], kept: float) -> bytes:
    result = bytearray(data)
    for place, value in changes:
        at = int(place * len(data))
        result[at : at + len(value)] = value
    return bytes(result[: round(kept * len(result))])


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    words = ""
    with costs_little():
        try:
            pixels = read_image(path, max_pixels=LIMIT).pixels
        except ImageError as error:
            words = str(error)
    if words:
        assert words.startswith(f"{path}: ")
    else:
        assert pixels.shape[0] * pixels.shape[1] <= LIMIT


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_itself_is_read(tmp_path: Path, samples: dict[str, bytes], kind: str) -> None:
    (tmp_path / "image").write_bytes(samples[kind])
    assert sorted(read_image(tmp_path / "image").pixels.shape[:2]) == [12, 16]


DAMAGE = {"changes": edits(), "kept": st.one_of(st.just(1.0), st.floats(0, 1))}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of the damage that it reads over
@pytest.mark.parametrize("kind", MAIN_KINDS)
@given(**DAMAGE)
@mutants(200)
def test_mutants(
    tmp_path: Path, samples: dict[str, bytes], kind: str, changes: list[tuple[float, bytes]], kept: float
) -> None:
    read_or_refuse(tmp_path / "image", damaged(samples[kind], changes, kept))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", OTHER_KINDS)
@given(**DAMAGE)
@mutants(60)
def test_mutants_of_rarer_kinds(
    tmp_path: Path, samples: dict[str, bytes], kind: str, changes: list[tuple[float, bytes]], kept: float
) -> None:
    read_or_refuse(tmp_path / "image", damaged(samples[kind], changes, kept))


CHUNK_EDITS = st.tuples(
    st.sampled_from(["change", "change inflated", "drop", "double", "move"]),
    st.floats(0, 1, exclude_max=True),  # which chunk
    st.floats(0, 1),  # where to
    edits(),
    st.sampled_from([1.0, 0.9, 0.5]),
)


@pytest.mark.parametrize("kind", ["PNG8", "PNG16", "PNG palette"])
@given(steps=st.lists(CHUNK_EDITS, min_size=1, max_size=3))
@mutants(100)
def test_png_mutants_with_right_checksums(
    tmp_path: Path, samples: dict[str, bytes], kind: str, steps: list[tuple[str, float, float, Any, float]]
) -> None:
    """What a checksum would hide: chunks changed, doubled, dropped or moved, image data inflating to anything."""
    chunks = split(samples[kind])
    for action, which, where, changes, kept in steps:
        if not chunks:
            break
        name, body = chunks.pop(int(which * len(chunks)))
        if action == "change":
            body = damaged(body, changes, kept)
        elif action == "change inflated":
            name, body = b"IDAT", zlib.compress(damaged(scanlines(samples[kind]), changes, kept))
        elif action == "double":
            chunks.insert(round(where * len(chunks)), (name, body))
        if action != "drop":
            at = where if action == "move" else which
            chunks.insert(round(at * len(chunks)), (name, body))
    read_or_refuse(tmp_path / "image", join(chunks))


def scanlines(png: bytes) -> bytes:
    return zlib.decompress(b"".join(body for name, body in split(png) if name == b"IDAT"))


def split(png: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        chunks.append((kind, png[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def join(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "BMP palette"])
def test_every_truncation_is_an_error_or_the_whole_picture(
    tmp_path: Path, samples: dict[str, bytes], kind: str
) -> None:
    """No picture whose lower part is grey: what is read from a cut file equals the original."""
    path, data = tmp_path / "image", samples[kind]
    path.write_bytes(data)
    whole = read_image(path).pixels
    for kept in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:kept])
        try:
            pixels = read_image(path).pixels
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, whole)


def lying(kind: str, data: bytes, side: int) -> bytes:
    """The file with both sides in its header replaced."""
    result = bytearray(data)
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        struct.pack_into(">HH", result, at, side, side)
    elif kind == "BMP":
        struct.pack_into("<ii", result, 18, side, side)
    elif kind == "WebP":
        struct.pack_into("<HH", result, data.index(b"VP8 ") + 14, side, side)
        at = data.index(b"VP8X") + 12
        result[at : at + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(result)


@pytest.mark.parametrize(("kind", "side"), [("JPEG", 65500), ("BMP", 1 << 30), ("WebP", 16383)])
def test_headers_that_lie_are_refused_before_memory_is_taken(
    tmp_path: Path, samples: dict[str, bytes], kind: str, side: int
) -> None:
    (tmp_path / "image").write_bytes(lying(kind, samples[kind], side))
    with pytest.raises(ImageError, match=f"declares {side}x{side} = {side * side} pixels"):
        read_image(tmp_path / "image", max_pixels=1 << 27)
