"""TIFF through tifffile: 8 and 16 bits and float32, strips and tiles, both planar configurations (TIFF 6.0).

tifffile fills what is missing with zeros and inflates without a bound, so every strip or tile is measured before it
is decoded. 8-bit files in a codec that tifffile has only with imagecodecs (LZW, JPEG, fax) go through Pillow.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile

from graphsr import exif
from graphsr.errors import ImageError, MissingExtraError
from graphsr.imagefile import ImageFile, refuse_large

Pixels = npt.NDArray[Any]

_NONE, _JPEG, _DEFLATE = 1, (6, 7), (8, 32946)  # values of the tag Compression
_LOSSLESS = {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000}  # none, fax, LZW, deflate, PackBits, LZMA, Zstandard
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # values of PhotometricInterpretation
_SAMPLES = {_MIN_IS_WHITE: (1,), _MIN_IS_BLACK: (1, 2), _RGB: (3, 4), _PALETTE: (1,), _YCBCR: (3,)}
_PREMULTIPLIED = 1  # value of ExtraSamples
_REDUCED = 1  # bit of NewSubfileType: a thumbnail
_LONG = 4  # field type
_CLASSIC_LIMIT = (1 << 32) - (1 << 25)  # bytes of pixels that offsets of 32 bits surely reach
_MAX_PAGES = 100
_PIECE = 1 << 16  # bytes inflated at a time while a strip is measured

_DESCRIPTION = 0x010E
_CARRIED = exif.DESCRIPTIVE | {exif.ORIENTATION, exif.EXIF_IFD, exif.GPS_IFD}


def read_tiff(file: BinaryIO, max_pixels: int) -> ImageFile:
    """One page of grey, RGB or palette colours, with alpha or without; thumbnails are passed over.

    Alpha that is multiplied into the colours is divided out, rounded to the nearest value of the dtype.
    """
    with tifffile.TiffFile(file) as tiff:
        page = _only_page(tiff)
        refuse_large(page.imagewidth, page.imagelength, max_pixels)
        _refuse_kind(page)
        block = _exif(file)
        if _within_tifffile(page):
            _refuse_short(page, file)
            pixels = _pixels(page, page.asarray(maxworkers=1))
        else:
            pixels = _pixels_by_pillow(page, file)
            if block is not None:  # Pillow has turned them upright
                block = exif.describe_upright(block, page.imagewidth, page.imagelength)
        icc: bytes | None = page.iccprofile
        return ImageFile(
            pixels=pixels,
            icc=bytes(icc) if icc else None,
            exif=block,
            dpi=_dpi(page),
            format="TIFF",
            lossless=int(page.compression) in _LOSSLESS,
        )


def _only_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The page that is no thumbnail; refuse files with several, as the others would be lost."""
    some = itertools.islice(tiff.pages, _MAX_PAGES)  # a hostile chain of directories can be long
    pages = [page for page in some if isinstance(page, tifffile.TiffPage) and not page.subfiletype & _REDUCED]
    hidden = tiff.is_imagej and (tiff.imagej_metadata or {}).get("images", 1) != 1
    if tiff.is_shaped:  # written by tifffile, which can put several images behind one directory too
        hidden |= any(shape.get("truncated") for shape in tiff.shaped_metadata or ())
    if len(pages) > 1 or hidden:
        raise ImageError("a TIFF of several pages, expected one; split it (tiffsplit, ImageMagick) first")
    if not pages:
        raise ImageError("a TIFF of thumbnails alone, expected one full page")
    return pages[0]


def _refuse_kind(page: tifffile.TiffPage) -> None:
    """Refuse what is no plain picture, in the words of the tags. YCbCr is one in JPEG, whose decoders give RGB."""
    photometric, samples, bits = int(page.photometric), page.samplesperpixel, page.bitspersample
    if samples not in _SAMPLES.get(photometric, ()) or (photometric == _YCBCR and page.compression not in _JPEG):
        name = getattr(page.photometric, "name", str(photometric))
        raise ImageError(
            f"a TIFF with {samples} samples per pixel in {name} colours, expected grey, RGB or a palette with at "
            "most one alpha channel; convert it first"
        )
    if page.imagedepth != 1 or page.dtype is None:
        raise ImageError(f"a TIFF of depth {page.imagedepth} and sample type {page.dtype}, expected a flat picture")
    whole = bits in (1, 2, 4, 8, 16) and page.dtype.kind in "ub"
    if not whole and not (page.dtype == np.float32 and bits == 32 and photometric != _MIN_IS_WHITE):
        raise ImageError(
            f"a TIFF with {bits}-bit samples of type {page.dtype}, expected at most 16 bits unsigned or float32; "
            "convert it first"
        )


def _within_tifffile(page: tifffile.TiffPage) -> bool:
    """Whether tifffile can decode this page as it is installed here."""
    if importlib.util.find_spec("imagecodecs") is not None:
        return True
    return page.compression in (_NONE, *_DEFLATE) and page.predictor in (1, 2) and page.bitspersample not in (2, 4)


def _refuse_short(page: tifffile.TiffPage, file: BinaryIO) -> None:
    """Check that the strips or tiles are all there and hold neither less nor more than their pixels."""
    size = file.seek(0, io.SEEK_END)
    if page.is_contiguous:
        if not 0 < page.dataoffsets[0] <= size - page.nbytes:
            raise ImageError(f"truncated: {page.nbytes} bytes of pixels expected at {page.dataoffsets[0]} of {size}")
        return
    count = math.prod(page.chunked)
    if len(page.dataoffsets) < count or len(page.databytecounts) < count:
        raise ImageError(f"damaged: {count} strips or tiles expected, {len(page.dataoffsets)} declared")
    full, columns = page.chunks[:2] if page.planarconfig == 1 else page.chunks[-2:]
    per_plane = math.ceil(page.imagelength / full)
    channels = page.samplesperpixel if page.planarconfig == 1 else 1
    row = math.ceil(columns * channels * int(page.bitspersample) / 8)
    for index in range(count):
        rows = full if page.is_tiled else min(full, page.imagelength - index % per_plane * full)
        offset, length = page.dataoffsets[index], page.databytecounts[index]
        held = _held_bytes(file, offset, length, int(page.compression), limit=full * row) if offset > 0 else 0
        if length < 1 or offset + length > size or held < rows * row:
            raise ImageError(f"truncated: strip or tile {index} has {held} of {rows * row} bytes")


def _held_bytes(file: BinaryIO, offset: int, length: int, compression: int, limit: int) -> int:
    """Size of a strip or tile after decompression, which must not exceed `limit`; `limit` for other codecs, which
    imagecodecs bounds itself."""
    if compression == _NONE:
        return length
    if compression not in _DEFLATE:
        return limit
    file.seek(offset)
    data, stream, held = file.read(length), zlib.decompressobj(), 0
    while data and not stream.eof:
        held += len(stream.decompress(data, _PIECE))
        if held > limit:
            raise ImageError(f"damaged: a strip or tile inflates to more than its {limit} bytes")
        data = stream.unconsumed_tail
    return held if stream.eof else 0


def _pixels(page: tifffile.TiffPage, samples: Pixels) -> Pixels:
    """Stored samples -> [H, W] or [H, W, C]."""
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if page.photometric == _PALETTE:
        return _colours(page, samples)
    if page.bitspersample in (1, 2, 4):
        samples = samples.astype(np.uint8) * np.uint8(255 // ((1 << int(page.bitspersample)) - 1))
    if page.photometric == _MIN_IS_WHITE:
        samples = ~samples
    if page.extrasamples and int(page.extrasamples[0]) == _PREMULTIPLIED:
        samples = _straight(samples)
    return np.ascontiguousarray(samples)


def _colours(page: tifffile.TiffPage, indices: Pixels) -> Pixels:
    table = page.colormap
    if table is None or table.shape != (3, 1 << int(page.bitspersample)):
        raise ImageError("damaged: the palette is missing or has the wrong size")
    if (table % 257 == 0).all() or (table % 256 == 0).all():  # 8-bit colours, spread over 16 bits in one way or other
        return np.ascontiguousarray((table >> 8).astype(np.uint8).T[indices.astype(np.intp)])
    return np.ascontiguousarray(table.T[indices.astype(np.intp)])


def _straight(samples: Pixels) -> Pixels:
    """Colour x alpha -> colour, by rows; black where alpha is 0."""
    result = samples.copy()
    white = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    for row in result:
        alpha = row[:, -1:].astype(np.float64)
        colour = np.divide(row[:, :-1] * float(white), alpha, out=np.zeros(row[:, :-1].shape), where=alpha > 0)
        row[:, :-1] = np.rint(np.minimum(colour, white)) if samples.dtype.kind == "u" else colour
    return result


def _pixels_by_pillow(page: tifffile.TiffPage, file: BinaryIO) -> Pixels:
    """At most 8 bits per sample in a codec that libtiff has; upright."""
    name = getattr(page.compression, "name", str(page.compression))
    bits = page.bitspersample
    if not isinstance(bits, int) or bits > 8:
        raise ImageError(
            f"a TIFF with {bits}-bit samples in {name} compression with predictor {int(page.predictor)}, which needs "
            "imagecodecs: pip install imagecodecs, or save the file without compression or with deflate"
        )
    try:
        from PIL.TiffImagePlugin import TiffImageFile
    except ImportError as error:
        raise MissingExtraError(f"TIFF in {name} compression needs Pillow: pip install 'graphsr[image]'") from error
    file.seek(0)
    picture = TiffImageFile(file)
    target = {"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(picture.mode, picture.mode)
    pixels = np.asarray(picture if target == picture.mode else picture.convert(target))
    channels = 3 if page.photometric == _PALETTE else page.samplesperpixel
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (() if channels == 1 else (channels,)):
        raise ImageError(
            f"a TIFF with {page.samplesperpixel} samples in {name} compression, which Pillow reads as {picture.mode}; "
            "pip install imagecodecs, or save the file without compression or with deflate"
        )
    return pixels


def _exif(file: BinaryIO) -> bytes | None:
    """What the file says about the picture, as an EXIF block of its own."""
    try:
        order, directory = exif.parse(file, only=frozenset(_CARRIED))
    except exif.ExifError:
        return None
    description = directory.get(_DESCRIPTION)
    if isinstance(description, exif.Entry) and description.data.startswith((b'{"shape"', b"ImageJ=", b"<?xml")):
        del directory[_DESCRIPTION]  # a program's index of this very file, not true of the next
    return exif.block(directory, order) if directory else None


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit = int(page.tags.valueof(296, default=2))
    if 282 not in page.tags or 283 not in page.tags or unit not in (2, 3):  # XResolution, YResolution; inch, cm
        return None
    x, y = (value * (2.54 if unit == 3 else 1) for value in page.get_resolution())
    return (x, y) if 0 < x < math.inf and 0 < y < math.inf else None


def write_tiff(file: BinaryIO, image: ImageFile) -> None:
    """One page, deflate, whole numbers with horizontal prediction.

    EXIF and GPS data are kept (not in files of 4 GB and more), but not what only describes the storage elsewhere.
    """
    order, directory = _carried(image.exif)
    big = image.pixels.nbytes >= _CLASSIC_LIMIT
    nested = {tag: entry for tag, entry in directory.items() if not isinstance(entry, exif.Entry) and not big}
    extra_tags = [
        (tag, entry.type, entry.count, entry.data, True)
        for tag, entry in directory.items()
        if isinstance(entry, exif.Entry)
    ]
    tifffile.imwrite(
        file,
        np.ascontiguousarray(image.pixels),
        bigtiff=big,
        byteorder="<" if order == "<" else ">",
        photometric="rgb" if image.channels >= 3 else "minisblack",
        planarconfig="contig" if image.channels > 1 else None,
        extrasamples=["unassalpha"] if image.channels in (2, 4) else None,
        compression="zlib",
        predictor=image.pixels.dtype.kind == "u",
        iccprofile=image.icc,
        resolution=image.dpi,
        resolutionunit=None if image.dpi is None else "INCH",
        metadata=None,
        software=False,
        extratags=extra_tags,
        maxworkers=1,
    )
    if nested:
        _append(file, order, nested)


def _carried(block: bytes | None) -> tuple[str, exif.Directory]:
    """Byte order and those fields of an EXIF block that have a place in an upright TIFF."""
    if block is None:
        return "<", {}
    return exif.parse(io.BytesIO(block), only=frozenset(_CARRIED - {exif.ORIENTATION}))


def _append(file: BinaryIO, order: str, nested: dict[int, exif.Directory]) -> None:
    """Make directories reachable from the main one of a classic TIFF, which tifffile does not do.

    A new main directory with their pointers goes to the end of the file, they follow, and the header points to it.
    """
    file.seek(4)
    (start,) = struct.unpack(order + "I", file.read(4))
    file.seek(start)
    (count,) = struct.unpack(order + "H", file.read(2))
    fields = [file.read(12) for _ in range(count)]
    end = file.seek(0, io.SEEK_END)
    end += end % 2
    after = end + 2 + 12 * (count + len(nested)) + 4
    tail = b""
    for tag, directory in nested.items():
        fields.append(struct.pack(order + "HHII", tag, _LONG, 1, after + len(tail)))
        tail += exif.layout(directory, order, after + len(tail))
    fields.sort(key=lambda field: int(struct.unpack_from(order + "H", field)[0]))
    file.seek(end)
    file.write(struct.pack(order + "H", len(fields)) + b"".join(fields) + b"\0\0\0\0" + tail)
    file.seek(4)
    file.write(struct.pack(order + "I", end))
