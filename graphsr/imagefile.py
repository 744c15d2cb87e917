"""Image files in and out, without loss: 8- and 16-bit grey and colour, alpha, ICC profile, EXIF.

Reading goes by the content of a file, writing by the suffix of its name. Whatever a format cannot hold is refused,
never cut: libraries that turn 16-bit colour into 8-bit or drop alpha do so without a word.

| format | suffix | samples | read with, written with |
|---|---|---|---|
| PNG | .png | uint8, uint16; grey, grey+alpha, RGB, RGBA | Pillow; pypng for 16 bits |
| TIFF | .tif .tiff | the same and float32 | tifffile; Pillow where tifffile lacks an 8-bit codec |
| WebP | .webp | uint8; RGB, RGBA (grey is written as R = G = B, opaque RGBA as RGB) | Pillow |
| JPEG | .jpg .jpeg | uint8; grey, RGB | Pillow |
| BMP | .bmp | uint8; grey, RGB | Pillow |

Pillow, pypng and tifffile come with `pip install 'graphsr[image]'` and are imported when a file needs them. Pillow
refuses WebP (and TIFF in codecs of libtiff) of more than twice `PIL.Image.MAX_IMAGE_PIXELS`, 179 megapixels.
XMP, IPTC and text are not carried over.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from graphsr import exif
from graphsr.atomic import atomic_path
from graphsr.errors import ImageError, MissingExtraError

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ImageFile:
    """The content of an image file.

    `pixels`: [H, W] grey, [H, W, 2] grey and alpha, [H, W, 3] RGB or [H, W, 4] RGBA, in uint8, uint16 or float32,
    upright; alpha is straight (not multiplied into the colours).
    `icc`: the ICC profile. `exif`: the EXIF block, without the "Exif\\0\\0" that JPEG puts before it; its
    orientation is 1. `dpi`: pixels per inch, horizontal and vertical.
    `format`: "PNG", "TIFF", "JPEG", "WEBP" or "BMP". `lossless`: False when the file's coding had lost something.
    `png_colour`: the chunks cICP, gAMA, cHRM and sRGB of a PNG, each (type, data); no other format has a place
    for them.

    Raises `ImageError` for other pixels.
    """

    pixels: Pixels
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str = "PNG"
    lossless: bool = True
    png_colour: tuple[tuple[bytes, bytes], ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (2, 3, 4))
        if not image or 0 in shape or dtype.name not in ("uint8", "uint16", "float32"):
            raise ImageError(
                "expected pixels [H, W], [H, W, 2], [H, W, 3] or [H, W, 4] in uint8, uint16 or float32, "
                f"got {list(shape)} {dtype}"
            )

    @property
    def channels(self) -> int:
        """1, 2, 3 or 4; even numbers have alpha."""
        return 1 if self.pixels.ndim == 2 else int(self.pixels.shape[2])


@dataclass(frozen=True)
class _Format:
    module: str  # has read_<format>(file, max_pixels) -> ImageFile and write_<format>(file, ImageFile)
    suffixes: tuple[str, ...]
    dtypes: tuple[str, ...]
    channels: tuple[int, ...]


_FORMATS = {
    "PNG": _Format("graphsr.imagefile_png", (".png",), ("uint8", "uint16"), (1, 2, 3, 4)),
    "TIFF": _Format("graphsr.imagefile_tiff", (".tif", ".tiff"), ("uint8", "uint16", "float32"), (1, 2, 3, 4)),
    "JPEG": _Format("graphsr.imagefile_pillow", (".jpg", ".jpeg"), ("uint8",), (1, 3)),
    "WEBP": _Format("graphsr.imagefile_pillow", (".webp",), ("uint8",), (1, 2, 3, 4)),
    "BMP": _Format("graphsr.imagefile_pillow", (".bmp",), ("uint8",), (1, 3)),
}

_BY_SUFFIX = {suffix: name for name, format in _FORMATS.items() for suffix in format.suffixes}

SUFFIXES = frozenset(_BY_SUFFIX)
"""Lower-case suffixes of the files that `read_image` and `write_image` know."""

_MAX_PIXELS = 1 << 28


def read_image(path: str | os.PathLike[str], *, max_pixels: int = _MAX_PIXELS) -> ImageFile:
    """Read a picture. Its format is taken from the content; the name does not matter.

    Palettes become RGB or RGBA, 1-, 2- and 4-bit grey becomes 8-bit, a transparent colour becomes alpha, and the
    EXIF orientation is applied. An EXIF block that does not parse is dropped.

    Raises `ImageError`, naming the file and the reason, when it cannot be opened, is truncated, damaged, of
    another kind (CMYK, several pages, animation, a codec that is not there) or larger than `max_pixels`, which is
    checked in the header, before memory is taken. `MissingExtraError` names what to install.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ImageError("not a regular file")  # opening a pipe would wait for ever
        with path.open("rb") as file:
            return _upright(_decoded(file, max_pixels))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error


def write_image(path: str | os.PathLike[str], image: ImageFile) -> None:
    """Write a picture; the format follows from the suffix. The file appears whole or not at all.

    PNG and TIFF are compressed without loss (deflate); of 16 bits TIFF makes the smaller files. JPEG: quality 95
    without chroma subsampling. WebP: lossless when `image.lossless`, else quality 95. ICC profile, EXIF and resolution
    are kept where the format has them: BMP has neither ICC nor EXIF, WebP no resolution; of a TIFF's EXIF the
    thumbnail is left out.

    Raises `ImageError`, naming the file and what to do, when the format cannot hold the depth or the channels, or
    when the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    name = _BY_SUFFIX.get(path.suffix.lower())
    if name is None:
        raise ImageError(f"{path}: no image format is known by this suffix; use one of {' '.join(sorted(SUFFIXES))}")
    _refuse_loss(path, name, image)
    write = cast("Callable[[BinaryIO, ImageFile], None]", _codec(name, "write"))
    try:
        with atomic_path(path) as partial, partial.open("w+b") as file:
            write(file, replace(image, exif=_true_exif(image)))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from error
    except Exception as error:  # what the libraries raise for values out of range, such as infinite dpi
        raise ImageError(f"{path}: cannot be encoded as {name} ({type(error).__name__}: {error})") from error


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Raise `ImageError` for a header that declares more than `max_pixels` or none at all."""
    if width < 1 or height < 1:
        raise ImageError(f"damaged: the header declares {width}x{height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"the header declares {width}x{height} = {width * height} pixels, "
            f"the limit is {max_pixels} (argument max_pixels)"
        )


def _decoded(file: BinaryIO, max_pixels: int) -> ImageFile:
    name = _sniff(file.read(16))
    file.seek(0)
    read = cast("Callable[[BinaryIO, int], ImageFile]", _codec(name, "read"))
    try:
        return read(file, max_pixels)
    except (ImageError, MissingExtraError):
        raise
    except MemoryError as error:
        raise ImageError("not enough memory for its pixels") from error
    except Exception as error:  # on damaged files the libraries raise about every built-in exception
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, not Pillow's
        raise ImageError(f"damaged or unsupported {name} ({type(error).__name__}: {error})") from error


def _sniff(head: bytes) -> str:
    """The format that a file's first 16 bytes announce."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM"):
        return "BMP"
    if not head:
        raise ImageError("the file is empty")
    raise ImageError(f"not a PNG, TIFF, JPEG, WebP or BMP file (it starts with {head!r})")


def _codec(name: str, verb: str) -> Callable[..., Any]:
    """`read_<name>` or `write_<name>` of the format's module, which imports the third-party libraries."""
    try:
        module = import_module(_FORMATS[name].module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{name} files need the module {error.name}, which is not installed: pip install 'graphsr[image]'"
        ) from error
    function: Callable[..., Any] = getattr(module, f"{verb}_{name.lower()}")
    return function


def _upright(image: ImageFile) -> ImageFile:
    """Apply the EXIF orientation to the pixels and say so in the block; drop a block that does not parse."""
    if image.exif is None:
        return image
    try:
        turn = exif.orientation(image.exif)
    except exif.ExifError:
        return replace(image, exif=None)
    pixels = np.ascontiguousarray(_TURNS[turn](image.pixels))
    dpi = image.dpi[::-1] if image.dpi is not None and turn >= 5 else image.dpi
    block = exif.describe_upright(image.exif, pixels.shape[1], pixels.shape[0])
    return replace(image, pixels=pixels, exif=block, dpi=dpi)


_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
"""From the stored to the upright image, by EXIF orientation: where the first stored row and column are seen
(EXIF 2.32, 4.6.4 A: 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top, ...)."""


def _true_exif(image: ImageFile) -> bytes | None:
    """The EXIF block with the size of these pixels, which may have been enlarged since it was read."""
    if image.exif is None:
        return None
    return exif.describe_upright(image.exif, image.pixels.shape[1], image.pixels.shape[0])


def _refuse_loss(path: Path, name: str, image: ImageFile) -> None:
    dtype, format = image.pixels.dtype.name, _FORMATS[name]
    if dtype not in format.dtypes:
        better = [suffix for suffix, other in _BY_SUFFIX.items() if dtype in _FORMATS[other].dtypes]
        raise ImageError(
            f"{path}: {name} holds {' and '.join(format.dtypes)}, the image has {dtype}; "
            f"write {' or '.join(better)}, or convert the pixels to {format.dtypes[-1]} first"
        )
    if image.channels not in format.channels:
        raise ImageError(f"{path}: {name} has no alpha channel; write .png, .tif or .webp, or remove the alpha")
