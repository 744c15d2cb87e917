"""PSNR and SSIM under named conventions: formulas, independent oracles, and the numbers of the literature."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr.errors import ImageError, MissingExtraError
from graphsr.imagefile import read_image
from graphsr.metrics import PLAIN, Comparison, Convention, compare_images, paper, psnr, ssim

from support import data_path

Pixels = npt.NDArray[Any]

SHAPES = st.one_of(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
)


def images(shape: tuple[int, ...], dtype: str) -> st.SearchStrategy[Pixels]:
    elements = st.floats(0, 1, width=32) if dtype == "float32" else None
    return hnp.arrays(dtype, shape, elements=elements)


@st.composite
def pairs(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> tuple[Pixels, Pixels]:
    shape, dtype = draw(shapes), draw(st.sampled_from(["uint8", "uint16", "float32"]))
    return draw(images(shape, dtype)), draw(images(shape, dtype))


@settings(deadline=None)  # the first example imports scikit-image
@given(pairs())
def test_psnr_agrees_with_scikit_image(pair: tuple[Pixels, Pixels]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair
    if np.array_equal(a, b):
        assert psnr(a, b, PLAIN) == float("inf")
        return
    white = 1.0 if a.dtype == np.float32 else float(np.iinfo(a.dtype).max)
    # scikit-image keeps float32 images in float32; in float64 both compute the same formula
    expected = metrics.peak_signal_noise_ratio(a.astype(np.float64), b.astype(np.float64), data_range=white)
    assert psnr(a, b, PLAIN) == pytest.approx(expected, rel=1e-12)
    assert psnr(a, b, PLAIN) == psnr(b, a, PLAIN)


@given(hnp.arrays(np.uint8, (9, 10, 3)), hnp.arrays(np.uint8, (9, 10, 3)))
def test_depth_does_not_change_the_number(a: Pixels, b: Pixels) -> None:
    for convention in (PLAIN, paper(2)):
        expected = psnr(a, b, convention)
        deep_a, deep_b = (image.astype(np.uint16) * np.uint16(257) for image in (a, b))
        assert psnr(deep_a, deep_b, convention) == pytest.approx(expected, rel=1e-9)
        assert psnr(a / 255, b / 255, convention) == pytest.approx(expected, rel=1e-9)


@given(hnp.arrays(np.uint8, (8, 9, 3)), hnp.arrays(np.uint8, (8, 9, 3)))
def test_luma_is_the_formula_of_the_papers(a: Pixels, b: Pixels) -> None:
    def luma(image: Pixels) -> Pixels:
        r, g, blue = (image[1:-1, 1:-1, i].astype(np.float64) for i in range(3))
        return (65.481 * r + 128.553 * g + 24.966 * blue) / 255 + 16

    mse = np.mean((luma(a) - luma(b)) ** 2)
    expected = float("inf") if mse == 0 else 10 * np.log10(255**2 / mse)
    assert psnr(a, b, paper(1)) == pytest.approx(expected, rel=1e-9)


def test_luma_of_the_primaries() -> None:
    def step(colour: tuple[int, int, int]) -> float:
        image = np.zeros((4, 4, 3), dtype=np.uint8)
        image[:] = colour
        return 255 / 10 ** (psnr(image, np.zeros_like(image), paper(1)) / 20)

    assert step((255, 0, 0)) == pytest.approx(65.481)
    assert step((0, 255, 0)) == pytest.approx(128.553)
    assert step((0, 0, 255)) == pytest.approx(24.966)
    assert step((255, 255, 255)) == pytest.approx(219)


@given(hnp.arrays(np.uint8, (6, 6)), hnp.arrays(np.uint8, (6, 6)))
def test_grey_counts_as_equal_red_green_blue(a: Pixels, b: Pixels) -> None:
    expected = psnr(np.dstack([a, a, a]), np.dstack([b, b, b]), paper(1))
    assert psnr(a, b, paper(1)) == expected
    assert psnr(a[..., None], b[..., None], paper(1)) == expected


@settings(deadline=None)  # the first example imports scikit-image
@given(pairs(st.tuples(st.integers(11, 16), st.integers(11, 16), st.integers(1, 4))))
def test_ssim_is_scikit_image_with_the_parameters_of_the_paper(pair: tuple[Pixels, Pixels]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair
    white = 1.0 if a.dtype == np.float32 else float(np.iinfo(a.dtype).max)
    x, y = a.astype(np.float64), b.astype(np.float64)
    uniform = metrics.structural_similarity(x, y, data_range=white, channel_axis=2)
    assert ssim(a, b, Convention("skimage", window="uniform")) == uniform
    gaussian = metrics.structural_similarity(
        x, y, data_range=white, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b, PLAIN) == gaussian
    assert ssim(a, a, PLAIN) == pytest.approx(1, abs=1e-9)


def test_a_comparison_reports_all_three() -> None:
    pytest.importorskip("skimage.metrics")
    a = np.full((16, 16), 100, dtype=np.uint8)
    b = a.copy()
    b[8, 8] = 90
    result = compare_images(a, b, PLAIN)
    assert result == Comparison(psnr(a, b, PLAIN), ssim(a, b, PLAIN), 10.0)
    assert compare_images(a, b, paper(2)).max_abs == pytest.approx(10 * 219 / 255)
    assert compare_images(a, a, PLAIN).psnr == float("inf")


def test_border_and_data_range_are_used() -> None:
    a = np.zeros((6, 7), dtype=np.uint8)
    b = a.copy()
    b[0, :] = 50
    assert psnr(a, b, Convention("cut", border=1)) == float("inf")
    b[:] = 10
    assert psnr(a, b, Convention("ten", data_range=10)) == 0


@pytest.mark.parametrize(
    ("a", "b", "convention", "message"),
    [
        (np.zeros((4, 4), "u1"), np.zeros((4, 5), "u1"), PLAIN, r"\(4, 4\) uint8.*\(4, 5\) uint8"),
        (np.zeros((4, 4), "u1"), np.zeros((4, 4), "u2"), PLAIN, "uint8.*uint16"),
        (np.zeros((4, 4), "i4"), np.zeros((4, 4), "i4"), PLAIN, "int32"),
        (np.zeros((4, 4, 5), "u1"), np.zeros((4, 4, 5), "u1"), PLAIN, "1 to 4 channels"),
        (np.zeros((4, 9), "u1"), np.zeros((4, 9), "u1"), paper(2), "9x4 image has no pixels left"),
        (np.zeros((9, 9, 4), "u1"), np.zeros((9, 9, 4), "u1"), paper(2), "alpha"),
        (np.full((4, 4), np.nan), np.zeros((4, 4)), PLAIN, "16 samples are NaN"),
    ],
)
def test_images_that_cannot_be_compared(a: Pixels, b: Pixels, convention: Convention, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        psnr(a, b, convention)


def test_images_smaller_than_the_window() -> None:
    pytest.importorskip("skimage.metrics")
    small = np.zeros((10, 30), dtype=np.uint8)
    with pytest.raises(ImageError, match="11x11 pixels after the border cut, got 30x10"):
        ssim(small, small, PLAIN)
    assert ssim(small, small, Convention("skimage", window="uniform")) == 1


def test_conventions_are_checked_and_print_in_full() -> None:
    with pytest.raises(ImageError, match="border"):
        Convention("bad", border=-1)
    with pytest.raises(ImageError, match="data_range"):
        Convention("bad", data_range=0)
    assert str(PLAIN) == (
        "plain: all channels, 0 px of border cut, peak 255 | 65535 | 1 by dtype, SSIM window gaussian"
    )
    assert "peak 4095" in str(Convention("12 bit", data_range=4095))


def test_without_scikit_image_psnr_works_and_ssim_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    image = np.zeros((16, 16), dtype=np.uint8)
    assert psnr(image, image, PLAIN) == float("inf")
    with pytest.raises(MissingExtraError, match=r"pip install 'graphsr\[metrics\]'"):
        ssim(image, image, PLAIN)


def test_the_import_is_cheap() -> None:
    code = "import sys, graphsr.metrics; sys.exit(any(m in sys.modules for m in ('skimage', 'scipy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("scale", "mean"), [(2, 33.97), (4, 28.63)])
def test_bicubic_on_set5_gives_the_known_numbers(scale: int, mean: float) -> None:
    """The means that PyTorch's bicubic (a = -0.75, no antialias) reaches on these low-resolution files."""
    torch = pytest.importorskip("torch")
    results = []
    for low in sorted(data_path(f"images/set5_lr_x{scale}").iterdir()):
        image = read_image(low).pixels
        high = read_image(data_path("images/set5") / f"{low.stem}.bmp").pixels
        planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        big = torch.nn.functional.interpolate(planes, scale_factor=scale, mode="bicubic")
        bicubic = big.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
        high = high[: bicubic.shape[0], : bicubic.shape[1]]
        results.append(psnr(bicubic, high, paper(scale)))
    assert len(results) == 5
    assert np.mean(results) == pytest.approx(mean, abs=0.005)
