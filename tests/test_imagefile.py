"""Image files keep depth, alpha, profile and orientation, or are refused in words."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr import exif
from graphsr.errors import ImageError, MissingExtraError
from graphsr.imagefile import SUFFIXES, ImageFile, read_image, write_image

from support import data_path

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

Pixels = npt.NDArray[Any]

PROFILE = bytes(range(256)) * 40
KINDS = {
    "L8": ("uint8", ()),
    "L16": ("uint16", ()),
    "LA8": ("uint8", (2,)),
    "LA16": ("uint16", (2,)),
    "RGB8": ("uint8", (3,)),
    "RGB16": ("uint16", (3,)),
    "RGBA8": ("uint8", (4,)),
    "RGBA16": ("uint16", (4,)),
}
LOSSLESS = [
    *((kind, suffix) for kind in KINDS for suffix in (".png", ".tif")),
    ("L8", ".bmp"),
    ("RGB8", ".bmp"),
    ("RGB8", ".webp"),
    ("RGBA8", ".webp"),
]
SIZES = st.tuples(st.integers(1, 20), st.integers(1, 20))

reuse_tmp_path = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def images(kind: str) -> st.SearchStrategy[Pixels]:
    dtype, channels = KINDS[kind]
    return SIZES.flatmap(lambda size: hnp.arrays(dtype, (*size, *channels)))


def ramp(height: int = 24, width: int = 36, channels: int = 3, dtype: str = "uint8") -> Pixels:
    """An image without symmetry."""
    values = np.arange(height * width * channels).reshape(height, width, channels)
    pixels = (values * 7 % (np.iinfo(dtype).max - 4)).astype(dtype)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize(("kind", "suffix"), LOSSLESS)
@given(data=st.data())
@reuse_tmp_path
def test_round_trip_without_loss(tmp_path: Path, kind: str, suffix: str, data: st.DataObject) -> None:
    pixels = data.draw(images(kind))
    path = tmp_path / f"image{suffix}"
    write_image(path, ImageFile(pixels))
    result = read_image(path)
    assert result.pixels.dtype == pixels.dtype
    if suffix == ".webp" and pixels.shape[-1] == 4 and (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]  # libwebp stores no alpha that is opaque everywhere
    np.testing.assert_array_equal(result.pixels, pixels)
    assert result.lossless
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@given(hnp.arrays(np.float32, (5, 7, 3)))
@reuse_tmp_path
def test_float_tiff_keeps_every_bit(tmp_path: Path, pixels: Pixels) -> None:
    write_image(tmp_path / "image.tiff", ImageFile(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / "image.tiff").pixels.view("u4"), pixels.view("u4"))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_dark_16_bit_image_stays_16_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    dark = ramp(channels=channels).astype(np.uint16)
    assert dark.max() <= 255
    write_image(tmp_path / f"dark{suffix}", ImageFile(dark))
    result = read_image(tmp_path / f"dark{suffix}").pixels
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, dark)


def test_views_and_foreign_byte_order_are_written_right(tmp_path: Path) -> None:
    pixels = ramp(dtype="uint16")
    for suffix in (".png", ".tif"):
        write_image(tmp_path / f"view{suffix}", ImageFile(pixels[::-2, ::3]))
        np.testing.assert_array_equal(read_image(tmp_path / f"view{suffix}").pixels, pixels[::-2, ::3])
        write_image(tmp_path / f"order{suffix}", ImageFile(pixels.astype(">u2")))
        result = read_image(tmp_path / f"order{suffix}").pixels
        np.testing.assert_array_equal(result, pixels)
        assert result.dtype.isnative


@pytest.mark.parametrize(("kind", "suffix"), [*LOSSLESS, ("L8", ".jpg"), ("RGB8", ".jpg"), ("L8", ".webp")])
def test_profile_and_resolution_are_kept(tmp_path: Path, kind: str, suffix: str) -> None:
    dtype, channels = KINDS[kind]
    image = ImageFile(np.zeros((3, 4, *channels), dtype=dtype), icc=PROFILE, dpi=(300, 150))
    write_image(tmp_path / f"image{suffix}", image)
    result = read_image(tmp_path / f"image{suffix}")
    assert result.icc == (None if suffix == ".bmp" else PROFILE)
    if suffix != ".webp":
        assert result.dpi == pytest.approx((300, 150), rel=1e-4)


def camera_block(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010F] = orientation, "Maker"
    block.get_ifd(exif.EXIF_IFD).update({exif.PIXEL_WIDTH: 36, exif.PIXEL_HEIGHT: 24, 0x829A: 0.5})
    block.get_ifd(exif.GPS_IFD)[1] = "N"
    return bytes(block.tobytes()[6:])


def exif_of(image: ImageFile) -> Any:
    assert image.exif is not None
    block = Image.Exif()
    block.load(b"Exif\0\0" + image.exif)
    return block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_orientation_is_applied_and_reset(tmp_path: Path, suffix: str, orientation: int) -> None:
    from PIL import ImageOps

    path = tmp_path / f"camera{suffix}"
    exact = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(ramp()).save(path, exif=b"Exif\0\0" + camera_block(orientation), **exact)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    result = read_image(path)
    np.testing.assert_array_equal(result.pixels, expected)
    assert exif.orientation(result.exif or b"") == 1
    assert exif_of(result).get(0x010F) == "Maker"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_exif_is_carried_and_tells_the_new_size(tmp_path: Path, suffix: str, order: str) -> None:
    block = Image.Exif()
    block.endian = "<" if order == "II" else ">"
    block.load(b"Exif\0\0" + camera_block(1))
    source = ImageFile(ramp(48, 72), exif=bytes(block.tobytes()[6:]))
    for step in (1, 2):  # written from what a program made, then from what we read
        path = tmp_path / f"{step}{suffix}"
        write_image(path, source)
        source = read_image(path)
        tags = exif_of(source)
        camera = tags.get_ifd(exif.EXIF_IFD)
        assert (tags[0x010F], camera[0x829A], tags.get_ifd(exif.GPS_IFD)[1]) == ("Maker", 0.5, "N")
        assert (camera[exif.PIXEL_WIDTH], camera[exif.PIXEL_HEIGHT]) == (72, 48)


def test_exif_that_does_not_parse_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense", quality=95)
    assert read_image(tmp_path / "a.jpg").exif is None


def test_jpeg_is_written_at_quality_95_without_subsampling(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([2 * x + 60, 2 * y + 60, 240 - x - y], axis=2).astype(np.uint8)
    write_image(tmp_path / "a.jpg", ImageFile(smooth))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert [component[1:3] for component in picture.layer] == [(1, 1)] * 3
        assert picture.quantization[0][0] == 2  # 16 at quality 50, times 2 - 95/50
    result = read_image(tmp_path / "a.jpg")
    assert not result.lossless
    assert np.abs(result.pixels.astype(int) - smooth).max() <= 4


def test_webp_is_lossless_when_the_source_was(tmp_path: Path) -> None:
    pixels = ramp(channels=4)
    pixels[:5, :, 3] = 0  # colours under full transparency are kept as well
    write_image(tmp_path / "exact.webp", ImageFile(pixels))
    np.testing.assert_array_equal(read_image(tmp_path / "exact.webp").pixels, pixels)
    write_image(tmp_path / "lossy.webp", ImageFile(pixels, lossless=False))
    assert not read_image(tmp_path / "lossy.webp").lossless
    write_image(tmp_path / "grey.webp", ImageFile(pixels[..., 0]))
    np.testing.assert_array_equal(read_image(tmp_path / "grey.webp").pixels, np.dstack([pixels[..., 0]] * 3))


@pytest.mark.parametrize(
    ("suffix", "dtype", "channels", "message"),
    [
        (".jpg", "uint16", 3, r"JPEG holds uint8, the image has uint16; write \.png or \.tif or \.tiff"),
        (".webp", "uint16", 4, "WEBP holds uint8"),
        (".bmp", "uint16", 1, "BMP holds uint8"),
        (".png", "float32", 3, r"PNG holds uint8 and uint16, the image has float32; write \.tif or \.tiff"),
        (".jpeg", "uint8", 4, "no alpha channel"),
        (".bmp", "uint8", 2, "no alpha channel"),
        (".gif", "uint8", 3, "no image format is known by this suffix"),
    ],
)
def test_loss_is_refused(tmp_path: Path, suffix: str, dtype: str, channels: int, message: str) -> None:
    pixels = np.zeros((4, 4, channels), dtype=dtype)
    image = ImageFile(pixels[..., 0] if channels == 1 else pixels)
    with pytest.raises(ImageError, match=f"out{suffix}: .*{message}"):
        write_image(tmp_path / f"out{suffix}", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "suffix", "message"),
    [
        (ImageFile(np.zeros((1, 16384), "u1")), ".webp", "16383 a side"),
        (ImageFile(np.zeros((65501, 1), "u1")), ".jpg", "65500 a side"),
        (ImageFile(np.zeros((2, 2), "u1"), exif=camera_block(1) + bytes(1 << 16)), ".jpg", "EXIF block has"),
        (ImageFile(np.zeros((2, 2), "u1"), icc=bytes(16) + b"GRAY"), ".webp", "grey ICC profile"),
        (ImageFile(np.zeros((2, 2), "u1"), exif=b"nonsense"), ".png", "no TIFF header"),
        (ImageFile(np.zeros((2, 2), "u1"), dpi=(float("inf"), 1)), ".png", "cannot be encoded as PNG"),
        (ImageFile(np.zeros((2, 2), "u1"), icc=bytes(17 << 20)), ".jpg", "ICC profile has 17825792 bytes"),
    ],
)
def test_limits_of_the_formats_are_named(tmp_path: Path, image: ImageFile, suffix: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        write_image(tmp_path / f"out{suffix}", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 1), "u1"), np.zeros((2, 2, 5), "u1"), np.zeros((2, 2), "f8")])
def test_pixels_of_another_kind_are_refused(pixels: Pixels) -> None:
    with pytest.raises(ImageError, match="expected pixels"):
        ImageFile(pixels)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As if the disk were full: writes beyond `size` bytes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    noise = np.frombuffer(np.random.default_rng(0).bytes(200 * 200 * 3), np.uint8).reshape(200, 200, 3)
    with files_of_at_most(4096), pytest.raises(ImageError, match=f"out{suffix}: cannot be written: File too large"):
        write_image(path, ImageFile(noise))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    image = ImageFile(ramp())
    (tmp_path / "folder.png").mkdir()
    for name in ("absent/out.png", "folder.png", "x" * 300 + ".png"):
        with pytest.raises(ImageError, match="cannot be written"):
            write_image(tmp_path / name, image)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match=r"out\.png: cannot be written: Permission denied"):
        write_image(tmp_path / "out.png", ImageFile(ramp()))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (
        ("absent.png", "No such file"),
        ("pipe.png", "not a regular file"),
        ("", "not a regular"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(ImageError, match=message):
            read_image(tmp_path / name)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    for format in ("PNG", "TIFF", "JPEG", "WEBP", "BMP"):
        Image.fromarray(ramp()).save(tmp_path / "image.dat", format=format)
        assert read_image(tmp_path / "image.dat").format == format
    for content, message in ((b"", "empty"), (b"GIF89a", "not a PNG, TIFF, JPEG, WebP or BMP file.*GIF89a")):
        (tmp_path / "image.png").write_bytes(content)
        with pytest.raises(ImageError, match=message):
            read_image(tmp_path / "image.png")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_max_pixels_is_checked_in_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    write_image(path, ImageFile(ramp(24, 36)))
    assert read_image(path, max_pixels=24 * 36).pixels.shape == (24, 36, 3)
    with pytest.raises(ImageError, match=r"image\.\w+: the header declares 36x24 = 864 pixels, the limit is 863"):
        read_image(path, max_pixels=24 * 36 - 1)


def test_set5_is_read_as_pillow_reads_it() -> None:
    for path in sorted(data_path("images/set5").iterdir()):
        image = read_image(path)
        with Image.open(path) as picture:
            np.testing.assert_array_equal(image.pixels, np.asarray(picture.convert("RGB")))
        assert (image.format, image.lossless) == ("BMP", True)


@pytest.mark.parametrize(
    ("package", "suffix"), [("PIL", ".jpg"), ("PIL", ".png"), ("png", ".png"), ("tifffile", ".tif")]
)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, suffix: str) -> None:
    write_image(tmp_path / f"image{suffix}", ImageFile(ramp()))
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    for name in ("graphsr.imagefile_pillow", "graphsr.imagefile_png", "graphsr.imagefile_tiff"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pip install 'graphsr\[image\]'"):
        read_image(tmp_path / f"image{suffix}")
    with pytest.raises(MissingExtraError, match=r"pip install 'graphsr\[image\]'"):
        write_image(tmp_path / f"out{suffix}", ImageFile(ramp()))


def test_the_import_needs_numpy_alone() -> None:
    code = "import sys, graphsr.imagefile; print(*(m for m in ('PIL', 'tifffile', 'png', 'onnx') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_bmp_kinds(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "RGB"):
        picture = Image.fromarray(ramp()).convert(mode)
        picture.save(tmp_path / "a.bmp")
        expected = np.asarray(picture.convert("RGB"))
        result = read_image(tmp_path / "a.bmp").pixels
        np.testing.assert_array_equal(result if result.ndim == 3 else np.dstack([result] * 3), expected)


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(ramp(channels=4)).convert("CMYK").save(tmp_path / name)
        with pytest.raises(ImageError, match=r"CMYK|SEPARATED"):
            read_image(tmp_path / name)


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(ramp()), Image.fromarray(ramp()[::-1].copy())]
    for name in ("a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
        with pytest.raises(ImageError, match="animated"):
            read_image(tmp_path / name)


def test_the_first_picture_of_a_phone_file_is_read(tmp_path: Path) -> None:
    main, extra = Image.fromarray(ramp()), Image.fromarray(ramp(8, 8))
    buffer = io.BytesIO()
    main.save(buffer, format="MPO", save_all=True, append_images=[extra], quality=95)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.jpg").pixels.shape == (24, 36, 3)
