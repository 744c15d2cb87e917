"""PNG with NumPy and zlib: every colour type and depth, 16 bits included (specification, third edition).

Pillow cuts 16-bit colour to 8 bits and fills up short image data with black; pypng is lossless and takes about
a second per megapixel. What is left to do for oneself is little: zlib does the compression, `graphsr.pngfilter` the
rest. No external package is needed, so PNG works in the smallest installation. Where Pillow is installed, it unpacks
8-bit samples, seven times as fast as NumPy can.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from graphsr.errors import ImageError
from graphsr.imagefile import ImageFile, refuse_large
from graphsr.pngfilter import filter_rows, unfilter_rows

Pixels = npt.NDArray[Any]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)}
_COLOUR_TYPE = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}  # by number of channels

_KEPT = (b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"pHYs")
_COLOUR = (b"cICP", b"gAMA", b"cHRM", b"sRGB")  # colour spaces said otherwise than by a profile
_MAX_SIDE = 1_000_000  # libpng's limit too; unfiltering takes a step per row and column
_MAX_ICC = 16 << 20
_INCH = 0.0254  # metres
_BAND = 1 << 20  # bytes of scanlines that are filtered and compressed at a time

_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an image, each (first column, first row, column step, row step); section 8.1."""


@dataclass(frozen=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    def passes(self) -> Iterator[tuple[slice, slice, int, int]]:
        """Rows, columns, height and width of each pass that has pixels."""
        for x, y, dx, dy in _ADAM7 if self.interlaced else _WHOLE:
            height, width = -(-(self.height - y) // dy), -(-(self.width - x) // dx)
            if height > 0 and width > 0:
                yield slice(y, None, dy), slice(x, None, dx), height, width

    def packed(self) -> bytes:
        """The data of the IHDR chunk; section 11.2.1."""
        return struct.pack(">IIBBBBB", self.width, self.height, self.depth, self.colour, 0, 0, int(self.interlaced))

    def row_bytes(self, width: int) -> int:
        """Bytes of a scanline, without its filter type."""
        return (width * _CHANNELS[self.colour] * self.depth + 7) // 8


def read_png(file: BinaryIO, max_pixels: int) -> ImageFile:
    """See `graphsr.imagefile.read_image`. Every checksum is verified; image data that is short is an error."""
    chunks = _chunks(file)
    header = _header(*next(chunks))
    refuse_large(header.width, header.height, max_pixels)
    if max(header.width, header.height) > _MAX_SIDE:
        raise ImageError(f"{header.width}x{header.height} pixels; sides of more than {_MAX_SIDE} are not read")
    image_data: list[bytes] = []
    kept: dict[bytes, bytes] = {}
    colour = b""
    for kind, data in chunks:
        if kind == b"IDAT":
            image_data.append(data)
        elif kind in _KEPT:
            kept.setdefault(kind, data)
        elif kind in _COLOUR:
            colour += _chunk(kind, data)
        elif kind == b"acTL":
            raise ImageError("an animated PNG; extract the pictures and process them one by one")
        elif not kind[0] & 0x20 and kind != b"IEND":  # upper case: no decoder may skip it
            raise ImageError(f"a chunk that this reader does not know is essential: {kind.decode('latin-1')}")
    scanlines = _inflate(image_data, sum(h * (1 + header.row_bytes(w)) for _, _, h, w in header.passes()))
    samples = _samples_by_pillow(header, image_data) if header.depth == 8 else None
    if samples is None:
        samples = _samples(header, scanlines)
    pixels = _expand(header, samples, kept.get(b"PLTE"), kept.get(b"tRNS"))
    return ImageFile(
        pixels=pixels[..., 0] if pixels.shape[2] == 1 else pixels,
        icc=_icc(kept.get(b"iCCP")),
        exif=kept.get(b"eXIf"),
        dpi=_dpi(kept.get(b"pHYs")),
        format="PNG",
        png_colour=colour,
    )


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of the chunks up to IEND; section 5.3."""
    size = file.seek(0, io.SEEK_END)
    file.seek(len(_SIGNATURE))
    kind = b""
    while kind != b"IEND":
        start = file.tell()
        if size - start < 12:
            raise ImageError("truncated: the file ends before its IEND chunk")
        length, kind = struct.unpack(">I4s", file.read(8))
        name = f"chunk {kind.decode('latin-1')!r} at byte {start}"
        if length > size - start - 12:
            raise ImageError(f"truncated: {name} declares {length} bytes, {size - start - 12} are left")
        data = file.read(length)
        if struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))) != file.read(4):
            raise ImageError(f"damaged: the checksum of {name} is wrong")
        yield kind, data


def _header(kind: bytes, data: bytes) -> _Header:
    if kind != b"IHDR" or len(data) != 13:
        raise ImageError("damaged: the file does not begin with an IHDR chunk of 13 bytes")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if depth not in _DEPTHS.get(colour, ()) or compression != 0 or filtering != 0 or interlace > 1:
        raise ImageError(
            f"damaged: depth {depth}, colour type {colour}, compression {compression}, filter {filtering}, "
            f"interlace {interlace} is not a combination of the PNG standard"
        )
    return _Header(width, height, depth, colour, bool(interlace))


def _inflate(parts: Iterable[bytes], expected: int) -> npt.NDArray[np.uint8]:
    """Decompress one zlib stream that must give exactly `expected` bytes, and never hold more than that."""
    stream, result = zlib.decompressobj(), bytearray()
    try:
        for part in parts:
            result += stream.decompress(part, expected + 1 - len(result))
            if len(result) > expected:
                raise ImageError(f"damaged: more image data than the {expected} bytes that the header announces")
    except zlib.error as error:
        raise ImageError(f"damaged: the image data does not decompress ({error})") from error
    if len(result) < expected or not stream.eof:
        raise ImageError(f"truncated: {len(result)} of {expected} bytes of image data")
    return np.frombuffer(result, dtype=np.uint8)


def _samples(header: _Header, scanlines: npt.NDArray[np.uint8]) -> Pixels:
    """[height, width, channels] of palette indices or unscaled samples; uint16 at depth 16, else uint8."""
    channels = _CHANNELS[header.colour]
    dtype = np.uint16 if header.depth == 16 else np.uint8
    result = np.empty((header.height, header.width, channels), dtype=dtype)
    at = 0
    for rows, columns, height, width in header.passes():
        row_bytes = header.row_bytes(width)
        filtered = scanlines[at : at + height * (1 + row_bytes)].reshape(height, 1 + row_bytes)
        at += filtered.size
        lines = unfilter_rows(filtered, bpp=max(1, channels * header.depth // 8))
        if header.depth < 8:  # leftmost sample in the high bits; one channel
            bits = np.unpackbits(lines, axis=1).reshape(height, -1, header.depth)
            lines = (bits << np.arange(header.depth - 1, -1, -1, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
            lines = lines[:, :width]
        result[rows, columns] = lines.view(">u2" if header.depth == 16 else np.uint8).reshape(height, width, channels)
    return result


def _samples_by_pillow(header: _Header, image_data: list[bytes]) -> Pixels | None:
    """What `_samples` gives at depth 8, or None without Pillow; it sees the image data and nothing else."""
    try:
        from PIL.PngImagePlugin import PngImageFile
    except ImportError:
        return None
    chunks = [(b"IHDR", header.packed()), *((b"IDAT", data) for data in image_data), (b"IEND", b"")]
    bare = _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)
    samples = np.asarray(PngImageFile(io.BytesIO(bare)))
    return samples.reshape(header.height, header.width, _CHANNELS[header.colour])


def _expand(header: _Header, samples: Pixels, palette: bytes | None, transparent: bytes | None) -> Pixels:
    """Palette indices become colours, short grey becomes 8 bits, tRNS becomes alpha; sections 11.2.2, 11.3.1.1."""
    if header.colour == _PALETTE:
        return _colours(palette or b"", transparent or b"", samples[..., 0])
    white = 255 if header.depth <= 8 else 65535
    alpha = None
    if transparent is not None and header.colour in (_GREY, _RGB):
        if len(transparent) != 2 * samples.shape[2]:
            raise ImageError(f"damaged: a tRNS chunk of {len(transparent)} bytes")
        key = np.frombuffer(transparent, dtype=">u2")
        alpha = (samples != key).any(axis=2, keepdims=True).astype(samples.dtype) * samples.dtype.type(white)
    if header.depth < 8:
        samples = samples * np.uint8(255 // ((1 << header.depth) - 1))
    return samples if alpha is None else np.concatenate([samples, alpha], axis=2)


def _colours(palette: bytes, alphas: bytes, indices: Pixels) -> Pixels:
    entries = len(palette) // 3
    if len(palette) % 3 or not 1 <= entries <= 256 or len(alphas) > entries:
        raise ImageError(f"damaged: a palette of {len(palette)} bytes with {len(alphas)} alpha values")
    if indices.max() >= entries:
        raise ImageError(f"damaged: palette index {indices.max()}, the palette has {entries} entries")
    table = np.frombuffer(palette, dtype=np.uint8).reshape(entries, 3)
    if alphas:
        opacity = np.frombuffer(alphas.ljust(entries, b"\xff"), dtype=np.uint8)
        table = np.column_stack([table, opacity])
    return table[indices]


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
    """Write 8 or 16 bits per sample, with adaptive filters and zlib's default compression."""
    height, width = image.pixels.shape[:2]
    depth = 8 * image.pixels.dtype.itemsize
    file.write(_SIGNATURE)
    header = _Header(width, height, depth, _COLOUR_TYPE[image.channels], interlaced=False)
    file.write(_chunk(b"IHDR", header.packed()))
    file.write(image.png_colour)
    if image.icc is not None:
        file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc)))
    if image.dpi is not None:
        file.write(_chunk(b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in image.dpi), 1)))
    if image.exif is not None:
        file.write(_chunk(b"eXIf", image.exif))
    for data in _compressed(image.pixels, image.channels):
        file.write(_chunk(b"IDAT", data))
    file.write(_chunk(b"IEND", b""))


def _compressed(pixels: Pixels, channels: int) -> Iterator[bytes]:
    """The zlib stream of the filtered scanlines, in pieces."""
    bpp = channels * pixels.dtype.itemsize
    row_bytes = pixels.shape[1] * bpp
    step = max(1, _BAND // row_bytes)
    above = np.zeros(row_bytes, dtype=np.uint8)
    stream = zlib.compressobj()
    for start in range(0, len(pixels), step):
        band = np.ascontiguousarray(pixels[start : start + step])
        big_endian = band.astype(band.dtype.newbyteorder(">"), copy=False)
        lines = big_endian.view(np.uint8).reshape(len(band), row_bytes)
        if data := stream.compress(filter_rows(lines, above, bpp).data):
            yield data
        above = lines[-1]
    yield stream.flush()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
