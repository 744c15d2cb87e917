"""How close two images are: PSNR and SSIM, always under a named convention.

The same pair of images gives numbers that differ by a decibel or more with the channel, the border and the
window that are used, so no function here has a default convention: say which one, and print it beside the number.

    PSNR = 10 log10(MAX² / MSE) dB
    SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
          similarity", IEEE TIP 13 (2004), computed by scikit-image (extra `[metrics]`).

>>> a = np.full((16, 16, 3), 100, dtype=np.uint8)
>>> b = a + np.uint8(5)
>>> round(psnr(a, b, PLAIN), 3)  # 20 log10(255 / 5)
34.151
>>> print(paper(4))
paper x4: luma (BT.601, 16..235), 4 px of border cut, peak 255 | 65535 | 1 by dtype, SSIM window gaussian
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphsr.errors import ImageError, MissingExtraError

Pixels = npt.NDArray[Any]
"""HxW (grey), HxWx2 (grey, alpha), HxWx3 (RGB) or HxWx4 (RGBA); uint8, uint16, float32 or float64."""

_PEAK = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
"""White, by dtype."""

_LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""Share of R, G, B in the luma of ITU-R BT.601 with studio swing, in units of white."""

_BLACK = 16 / 255
"""The luma of black in the same units: Y runs from 16 to 235 of 255."""

_WINDOW = {
    "gaussian": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform": {},
}
"""Arguments of `skimage.metrics.structural_similarity`: Wang et al. (2004), and the library's default 7x7."""


@dataclass(frozen=True)
class Convention:
    """What exactly is compared.

    `channel`: "y" compares the luma that most super-resolution papers use,
    Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16 on the 8-bit scale (scaled alike for other depths), not
    rounded; a grey image counts as R = G = B, so its contrast shrinks by 219/255 and its PSNR grows by 1.32 dB.
    "rgb" compares all channels as they are, alpha included.
    `border`: pixels cut from each side first.
    `data_range`: MAX of the formulas; None takes 255, 65535 or 1 by dtype.
    `window`: of SSIM; "gaussian" is 11x11 with sigma 1.5 as in the paper, "uniform" 7x7.
    """

    name: str
    channel: Literal["y", "rgb"] = "rgb"
    border: int = 0
    data_range: float | None = None
    window: Literal["gaussian", "uniform"] = "gaussian"

    def __post_init__(self) -> None:
        if self.border < 0:
            raise ImageError(f"convention {self.name!r}: border must be 0 or more pixels, got {self.border}")
        if self.data_range is not None and not self.data_range > 0:
            raise ImageError(f"convention {self.name!r}: data_range must be positive, got {self.data_range}")

    def __str__(self) -> str:
        channel = {"y": "luma (BT.601, 16..235)", "rgb": "all channels"}[self.channel]
        peak = "255 | 65535 | 1 by dtype" if self.data_range is None else f"{self.data_range:g}"
        return f"{self.name}: {channel}, {self.border} px of border cut, peak {peak}, SSIM window {self.window}"


def paper(scale: int) -> Convention:
    """What super-resolution papers report for an upscaling by `scale`: luma, `scale` pixels of border cut."""
    return Convention(f"paper x{scale}", channel="y", border=scale)


PLAIN = Convention("plain")
"""All channels, the whole image."""


@dataclass(frozen=True)
class Comparison:
    """`psnr` in dB (inf when equal), `ssim` in -1..1, `max_abs`: the largest difference of two compared samples
    in units of the dtype (the luma's when the convention compares the luma)."""

    psnr: float
    ssim: float
    max_abs: float


def psnr(a: Pixels, b: Pixels, convention: Convention) -> float:
    """Peak signal-to-noise ratio in dB, in float64; inf for equal images.

    Raises `ImageError` unless both are finite images of the same shape and dtype, larger than the border cut.
    """
    return _psnr(*_compared(a, b, convention))


def ssim(a: Pixels, b: Pixels, convention: Convention) -> float:
    """Mean structural similarity over the image, then over the channels; 1 for equal images.

    Raises `ImageError` as `psnr` does and for images smaller than the window, `MissingExtraError` without
    scikit-image.
    """
    return _ssim(*_compared(a, b, convention), convention.window)


def compare_images(a: Pixels, b: Pixels, convention: Convention) -> Comparison:
    """PSNR, SSIM and the largest difference; raises as `psnr` and `ssim` do."""
    x, y, peak = _compared(a, b, convention)
    return Comparison(_psnr(x, y, peak), _ssim(x, y, peak, convention.window), float(np.abs(x - y).max()))


def _psnr(x: Pixels, y: Pixels, peak: float) -> float:
    mse = float(np.mean((x - y) ** 2))
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))


def _ssim(x: Pixels, y: Pixels, peak: float, window: str) -> float:
    try:
        from skimage import metrics as reference
    except ImportError as error:
        raise MissingExtraError("SSIM needs scikit-image: pip install 'graphsr[metrics]'") from error
    side = 11 if window == "gaussian" else 7
    if min(x.shape[:2]) < side:
        height, width = x.shape[:2]
        raise ImageError(
            f"SSIM with the {window} window needs at least {side}x{side} pixels after the border cut, "
            f"got {width}x{height}"
        )
    structural_similarity: Callable[..., float] = reference.structural_similarity
    channel_axis = 2 if x.ndim == 3 else None
    return float(structural_similarity(x, y, data_range=peak, channel_axis=channel_axis, **_WINDOW[window]))


def _compared(a: Pixels, b: Pixels, convention: Convention) -> tuple[Pixels, Pixels, float]:
    """The samples to compare, float64 [H, W] or [H, W, C] on the scale of the dtype, and MAX."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ImageError(
            "two images are compared that differ in shape or dtype: "
            f"expected {a.shape} {a.dtype} as in the first, got {b.shape} {b.dtype}; crop or convert one of them"
        )
    if a.dtype.name not in _PEAK or not (a.ndim == 2 or (a.ndim == 3 and a.shape[2] in (1, 2, 3, 4))):
        raise ImageError(
            "cannot compare: expected HxW or HxWxC with 1 to 4 channels in uint8, uint16, float32 or float64, "
            f"got {a.shape} {a.dtype}"
        )
    white = _PEAK[a.dtype.name]
    x, y = (_samples(image, white, convention) for image in (a, b))
    return x, y, white if convention.data_range is None else convention.data_range


def _samples(image: Pixels, white: float, convention: Convention) -> Pixels:
    height, width = image.shape[:2]
    cut = convention.border
    if min(height, width) <= 2 * cut:
        raise ImageError(
            f"a {width}x{height} image has no pixels left when {cut} are cut from each side ({convention.name})"
        )
    samples = image[cut : height - cut, cut : width - cut].astype(np.float64)
    if not np.isfinite(samples).all():
        count = np.count_nonzero(~np.isfinite(samples))
        raise ImageError(f"cannot compare: {count} samples are NaN or infinite; replace them first")
    return _luma(samples, white) if convention.channel == "y" else samples


def _luma(samples: Pixels, white: float) -> Pixels:
    """[H, W], [H, W, 1] or [H, W, 3] -> [H, W]; white and black as in `Convention`."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if channels in (2, 4):
        raise ImageError("luma is not defined for an image with alpha; remove the alpha or compare all channels")
    if channels == 1:
        samples = np.repeat(samples.reshape(*samples.shape[:2], 1), 3, axis=2)
    return np.asarray(samples @ _LUMA + _BLACK * white)
