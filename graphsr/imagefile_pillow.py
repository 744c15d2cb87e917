"""JPEG, WebP and BMP through Pillow.

The plugin classes are called directly, not through `Image.open`: no other decoder can be reached by a file that
lies about its format, and the size limit is the caller's instead of Pillow's process-wide one.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile as PillowFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from graphsr.errors import ImageError
from graphsr.imagefile import ImageFile, refuse_large

Pixels = npt.NDArray[Any]

_EXIF_MARK = b"Exif\0\0"
_QUALITY = 95  # of lossy output
_JPEG_SIDE, _WEBP_SIDE = 65500, 16383  # the largest that the encoders take
_JPEG_EXIF = 65533 - len(_EXIF_MARK)  # what fits in one APP1 segment
_JPEG_ICC = 255 * 65519  # what fits in the 255 APP2 segments that can be numbered


def read_jpeg(file: BinaryIO, max_pixels: int) -> ImageFile:
    """8-bit grey or RGB. Of a multi-picture file (MPO) the first picture is read, which is the full one.

    JPEG has no checksum: bytes changed inside the coded data may go unnoticed; a missing end does not.
    """
    picture = JpegImageFile(file)
    refuse_large(*picture.size, max_pixels)
    if picture.mode not in ("L", "RGB"):
        raise ImageError(
            f"a JPEG in {picture.mode} colours, expected grey or RGB; convert it to RGB with its ICC profile first"
        )
    return _image(picture, np.asarray(picture), "JPEG", lossless=False)


def read_webp(file: BinaryIO, max_pixels: int) -> ImageFile:
    """RGB or RGBA, lossy or lossless; no animation."""
    chunks = list(_webp_chunks(file))
    sizes = {_webp_size(kind, head) for kind, head in chunks if kind in (b"VP8X", b"VP8 ", b"VP8L")}
    if not sizes:
        raise ImageError("damaged: no image in the WebP file")
    for width, height in sizes:
        refuse_large(width, height, max_pixels)
    if any(kind in (b"ANIM", b"ANMF") for kind, _ in chunks):
        raise ImageError("an animated WebP; extract the pictures and process them one by one")
    if len(sizes) > 1:
        raise ImageError(f"damaged: the WebP file declares several sizes: {sorted(sizes)}")
    file.seek(0)
    picture = WebPImageFile(file)
    return _image(picture, np.asarray(picture), "WEBP", lossless=any(kind == b"VP8L" for kind, _ in chunks))


def _webp_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and first 10 bytes of each chunk of the RIFF container (RFC 9649, section 2.4)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(4)
    (declared,) = struct.unpack("<I", file.read(4))
    if declared + 8 > size:
        raise ImageError(f"truncated: {declared + 8} bytes declared, the file has {size}")
    at = 12
    while at + 8 <= declared + 8:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        yield kind, file.read(min(10, length))
        at += 8 + length + length % 2


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    """Width and height that a VP8X, VP8 (lossy) or VP8L (lossless) chunk declares (RFC 9649, 2.7; RFC 6386, 9.1)."""
    if len(head) < (5 if kind == b"VP8L" else 10):
        raise ImageError("truncated: a WebP image without its header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    bits = int.from_bytes(head[1:5], "little")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


def read_bmp(file: BinaryIO, max_pixels: int) -> ImageFile:
    """8-bit grey or RGB, RGBA when the header declares an alpha mask; palettes are expanded."""
    picture = BmpImageFile(file)
    refuse_large(*picture.size, max_pixels)
    codec, _, offset, arguments = picture.tile[0]
    if codec == "raw" and isinstance(arguments, tuple):  # uncompressed: must be there before memory is taken
        need = offset + arguments[1] * picture.size[1]
        size = file.seek(0, io.SEEK_END)
        if size < need:
            raise ImageError(f"truncated: {need} bytes expected, the file has {size}")
    target = {"1": "L", "P": "RGB"}.get(picture.mode, picture.mode)
    pixels = np.asarray(picture if target == picture.mode else picture.convert(target))
    return _image(picture, pixels, "BMP", lossless=True)


def _image(picture: PillowFile, pixels: Pixels, format: str, *, lossless: bool) -> ImageFile:
    info = picture.info
    exif: bytes | None = info.get("exif")
    return ImageFile(
        pixels=pixels,
        icc=info.get("icc_profile") or None,
        exif=exif.removeprefix(_EXIF_MARK) if exif else None,
        dpi=_dpi(info.get("dpi")),
        format=format,
        lossless=lossless,
    )


def _dpi(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    x, y = (float(number) for number in value)
    return (x, y) if math.isfinite(x) and math.isfinite(y) and x > 0 and y > 0 else None


def write_jpeg(file: BinaryIO, image: ImageFile) -> None:
    """Quality 95, 4:4:4: at lower settings the codec visibly undoes what the network has added."""
    _refuse_side(image, "JPEG", _JPEG_SIDE)
    for name, block, limit in (("EXIF block", image.exif, _JPEG_EXIF), ("ICC profile", image.icc, _JPEG_ICC)):
        if block is not None and len(block) > limit:
            raise ImageError(f"the {name} has {len(block)} bytes, JPEG takes {limit}; write .png or .webp")
    options: dict[str, Any] = {"quality": _QUALITY, "subsampling": 0}
    if image.icc is not None:
        options["icc_profile"] = image.icc
    if image.exif is not None:
        options["exif"] = _EXIF_MARK + image.exif
    if image.dpi is not None:
        options["dpi"] = tuple(round(value) for value in image.dpi)
    _save(file, image.pixels, "JPEG", options)


def write_webp(file: BinaryIO, image: ImageFile) -> None:
    """Lossless (the colours under full transparency too) when the image is; else quality 95, which is 4:2:0."""
    _refuse_side(image, "WebP", _WEBP_SIDE)
    if image.channels < 3 and image.icc is not None and image.icc[16:20] == b"GRAY":
        raise ImageError("WebP has no grey images, so the grey ICC profile does not fit; write .png or .tif")
    options: dict[str, Any] = {"lossless": True, "exact": True} if image.lossless else {"quality": _QUALITY}
    if image.icc is not None:
        options["icc_profile"] = image.icc
    if image.exif is not None:
        options["exif"] = image.exif
    _save(file, _coloured(image), "WEBP", options)


def _coloured(image: ImageFile) -> Pixels:
    """Grey as R = G = B; alpha stays."""
    if image.channels >= 3:
        return image.pixels
    pixels = image.pixels.reshape(*image.pixels.shape[:2], image.channels)
    return np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)


def write_bmp(file: BinaryIO, image: ImageFile) -> None:
    """24 bits, or 8 bits of grey; BMP has no place for ICC and EXIF."""
    _save(file, image.pixels, "BMP", {} if image.dpi is None else {"dpi": image.dpi})


def _refuse_side(image: ImageFile, format: str, side: int) -> None:
    height, width = image.pixels.shape[:2]
    if max(height, width) > side:
        raise ImageError(f"{width}x{height} pixels; {format} takes at most {side} a side; write .png or .tif")


def _save(file: BinaryIO, pixels: Pixels, format: str, options: dict[str, Any]) -> None:
    """Encode in memory, then write at once: Pillow hides the system's error (disk full) when it writes itself."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, format=format, **options)
    file.write(encoded.getbuffer())
