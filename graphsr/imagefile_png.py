"""PNG through Pillow (at most 8 bits per sample) and pypng (16 bits); third edition of the specification.

Pillow cuts 16-bit colour to 8 bits; pypng keeps it, at a second or so per megapixel. Pillow also fills up short
image data with black and passes over wrong checksums and palette indices without a colour; pypng inflates without a
bound. So pypng reads the chunks, header and palette of every file, the image data is measured here, and only what
makes up the pixels is decoded.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import png
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from graphsr.errors import ImageError
from graphsr.imagefile import ImageFile, refuse_large

Pixels = npt.NDArray[Any]
Chunk = tuple[bytes, bytes]  # type and data

_KEPT = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs")
_COLOUR = (b"cICP", b"gAMA", b"cHRM", b"sRGB")  # colour spaces said otherwise than by a profile
_MAX_SIDE = 1_000_000  # libpng's limit too
_MAX_ICC = 16 << 20
_INCH = 0.0254  # metres

_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an image, each (first column, first row, column step, row step); section 8.1."""


def read_png(file: BinaryIO, max_pixels: int) -> ImageFile:
    """See `graphsr.imagefile.read_image`. Every checksum is verified; image data that is short is an error."""
    file.seek(0)
    start = file.read(33)  # signature and IHDR
    if len(start) < 33 or start[8:16] != b"\0\0\0\x0dIHDR":
        raise ImageError("damaged: the file does not begin with an IHDR chunk of 13 bytes")
    width, height, depth, colour_type = struct.unpack_from(">IIBB", start, 16)
    refuse_large(width, height, max_pixels)
    if max(width, height) > _MAX_SIDE:
        raise ImageError(f"{width}x{height} pixels; sides of more than {_MAX_SIDE} are not read")
    whole = start + file.read()  # pypng would take the memory that a chunk declares, whether the file has it or not
    try:
        header, *chunks = png.Reader(bytes=whole).chunks()
        kept, colour, image_data = _sorted(chunks)
        palette = [(b"PLTE", kept.get(b"PLTE", b""))] if colour_type == 3 else []
        transparent = [(b"tRNS", kept[b"tRNS"])] if b"tRNS" in kept and not colour_type & 4 else []  # 4: alpha
        bare = io.BytesIO()
        png.write_chunks(bare, [header, *palette, *transparent, *image_data, (b"IEND", b"")])
        _, _, _, info = png.Reader(bytes=bare.getvalue()).read()
        _refuse_other_size(info, image_data)
        pixels = _by_pypng(bare.getvalue()) if depth == 16 else _by_pillow(bare, info)
    except (png.Error, OSError, SyntaxError) as error:  # the last two are Pillow's
        raise ImageError(f"damaged or truncated: {error}") from error
    return ImageFile(
        pixels=pixels,
        icc=_icc(kept.get(b"iCCP")),
        exif=kept.get(b"eXIf"),
        dpi=_dpi(kept.get(b"pHYs")),
        format="PNG",
        png_colour=tuple(colour),
    )


def _sorted(chunks: list[Chunk]) -> tuple[dict[bytes, bytes], list[Chunk], list[Chunk]]:
    """The chunks of `_KEPT`, of `_COLOUR`, and the image data; animations and unknown essentials are refused."""
    kept: dict[bytes, bytes] = {}
    for kind, data in chunks:
        if kind in _KEPT:
            kept.setdefault(kind, data)
        elif kind == b"acTL":
            raise ImageError("an animated PNG; extract the pictures and process them one by one")
        elif not kind[0] & 0x20 and kind not in (b"IDAT", b"IEND"):  # upper case: no decoder may skip it
            raise ImageError(f"a chunk that this reader does not know is essential: {kind.decode('latin-1')}")
    return kept, [chunk for chunk in chunks if chunk[0] in _COLOUR], [chunk for chunk in chunks if chunk[0] == b"IDAT"]


def _refuse_other_size(info: dict[str, Any], image_data: list[Chunk]) -> None:
    """Check that one zlib stream gives the scanlines of all passes exactly, without inflating more than them."""
    (width, height), bits, expected = info["size"], info["planes"] * info["bitdepth"], 0
    for x, y, dx, dy in _ADAM7 if info["interlace"] else _WHOLE:
        rows, columns = -(-(height - y) // dy), -(-(width - x) // dx)
        if rows > 0 and columns > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)  # each scanline is led by its filter type
    stream, held = zlib.decompressobj(), 0
    try:
        for _, data in image_data:
            held += len(stream.decompress(data, expected + 1 - held))
            if held > expected:
                raise ImageError(f"damaged: more image data than the {expected} bytes that the header announces")
    except zlib.error as error:
        raise ImageError(f"damaged: the image data does not decompress ({error})") from error
    if held < expected or not stream.eof:
        raise ImageError(f"truncated: {held} of {expected} bytes of image data")


def _by_pypng(data: bytes) -> Pixels:
    """[H, W] or [H, W, C] in uint16; tRNS becomes alpha."""
    width, height, rows, info = png.Reader(bytes=data).asDirect()
    samples = np.empty((height, width * info["planes"]), dtype=np.uint16)
    for target, row in zip(samples, rows, strict=True):
        target[:] = row
    return samples if info["planes"] == 1 else samples.reshape(height, width, -1)


def _by_pillow(file: BinaryIO, info: dict[str, Any]) -> Pixels:
    """[H, W] or [H, W, C] in uint8; a palette becomes colours, tRNS alpha."""
    file.seek(0)
    picture = PngImageFile(file)
    if "palette" in info and (top := np.asarray(picture).max()) >= (entries := len(info["palette"])):
        raise ImageError(f"damaged: palette index {top}, the palette has {entries} entries")
    if "transparent" in info and info["bitdepth"] in (2, 4):  # Pillow scales the samples, not this colour
        picture.info["transparency"] *= 255 // ((1 << info["bitdepth"]) - 1)
    mode = {"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)
    if "transparency" in picture.info:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.asarray(picture if mode == picture.mode else picture.convert(mode))


def _icc(chunk: bytes | None) -> bytes | None:
    """The profile of an iCCP chunk: name, zero byte, compression method 0, zlib stream; section 11.3.2.3."""
    if chunk is None:
        return None
    _, _, compressed = chunk.partition(b"\0")
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(compressed[1:], _MAX_ICC)
    except zlib.error as error:
        raise ImageError(f"damaged: the ICC profile does not decompress ({error})") from error
    if not stream.eof or compressed[:1] != b"\0":
        raise ImageError(f"damaged: the ICC profile is truncated or longer than {_MAX_ICC} bytes")
    return profile


def _dpi(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", chunk)
    return (x * _INCH, y * _INCH) if unit == 1 and x > 0 and y > 0 else None


def write_png(file: BinaryIO, image: ImageFile) -> None:
    """Write 8 or 16 bits per sample with zlib's default compression; 16 bits unfiltered, as pypng does it."""
    encoded = io.BytesIO()
    if image.pixels.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(image.pixels)).save(encoded, format="PNG")
    else:
        height, width = image.pixels.shape[:2]
        writer = png.Writer(width, height, greyscale=image.channels < 3, alpha=image.channels % 2 == 0, bitdepth=16)
        writer.write_packed(encoded, (row.astype(">u2").tobytes() for row in image.pixels))
    header, *rest = png.Reader(bytes=encoded.getvalue()).chunks()
    png.write_chunks(file, [header, *_described(image), *rest])


def _described(image: ImageFile) -> Iterator[Chunk]:
    """What the libraries do not write both: colour space, profile, resolution and EXIF."""
    yield from image.png_colour
    if image.icc is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc)
    if image.dpi is not None:
        yield b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in image.dpi), 1)
    if image.exif is not None:
        yield b"eXIf", image.exif
