"""From an image array to a larger one: what surrounds the network.

Pixel range, grey and alpha, clipping and rounding live here; normalisation belongs to the graph of the model.
"""

from __future__ import annotations

import os

import numpy as np

from graphsr.backend import Backend, Executable
from graphsr.errors import ImageError, ShapeError
from graphsr.loading import load
from graphsr.memory import shortage
from graphsr.model import DEFAULT_BACKEND, Model
from graphsr.op import Array
from graphsr.ops import Resize

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of R, G, B in the luma of ITU-R BT.601, for networks that take one channel."""


def upscale(
    image: Array,
    model: str | os.PathLike[str] | Model = "wdsr-x2",
    *,
    backend: str | Backend = DEFAULT_BACKEND,
    threads: int | None = None,
) -> Array:
    """Enlarge an image with a super-resolution network.

    `image` is HxW (grey), HxWx2 (grey, alpha), HxWx3 (RGB) or HxWx4 (RGBA); uint8, uint16, or float32/float64 with
    white at 1. The result has the same dtype and channels and `scale` times the height and width; `image` is not
    changed. `model` is a `Model`, the name of an embedded model or a model file.

    Alpha is enlarged by bicubic interpolation, so that opaque stays opaque. Grey goes through an RGB network as
    R = G = B and comes back as the mean of its channels; a network for one channel gets the luma, and the chroma is
    enlarged by bicubic interpolation.

    Raises `ImageError` for other arrays, for NaN, infinite or out-of-range pixels and for images that do not fit in
    memory, `ModelError` for a model that cannot be loaded.
    """
    upscaler = Upscaler(model if isinstance(model, Model) else load(model), backend=backend, threads=threads)
    return upscaler(image)


class Upscaler:
    """A model compiled once, for many images."""

    def __init__(self, model: Model, *, backend: str | Backend = DEFAULT_BACKEND, threads: int | None = None) -> None:
        self.model = model
        self.scale = _checked_scale(model)
        self.executable: Executable = model.compile(backend, threads)
        (self.input_name, input_type), *_ = model.inputs.items()
        (self.output_name, _), *_ = model.outputs.items()
        self.channels = input_type.shape[1]

    def __call__(self, image: Array) -> Array:
        """See `upscale`."""
        white = _white(image)
        # float32 holds every uint16, and its quotient is the one of float64 rounded once more (53 >= 2 * 24 + 2 bits)
        planes = np.divide(np.atleast_3d(image).transpose(2, 0, 1)[None], np.float32(white), dtype=np.float32)
        _check_values(planes)
        alpha = planes[:, -1:] if planes.shape[1] in (2, 4) else None
        colour = planes if alpha is None else planes[:, :-1]
        result = self._colour(colour)
        if alpha is not None:
            result = np.concatenate([result, self._bicubic(alpha)], axis=1)
        if not np.isfinite(result).all():
            raise ImageError(f"the network gave NaN or infinite pixels: is {self.model!r} damaged, or wrongly set up?")
        np.clip(result, 0, 1, out=result)  # in place: the network's output was divided into an array of our own
        result *= white
        if image.dtype.kind == "u":
            np.rint(result, out=result)
        pixels = result[0].astype(image.dtype).transpose(1, 2, 0)
        return pixels.reshape(pixels.shape[:2] + image.shape[2:])

    def _colour(self, colour: Array) -> Array:
        """[1, 1 or 3, H, W] in 0..1 -> the same channels, enlarged; not clipped."""
        if colour.shape[1] == self.channels:
            return self._run(colour)
        if self.channels == 3:
            return self._run(np.repeat(colour, 3, axis=1)).mean(axis=1, keepdims=True)
        luma = np.tensordot(LUMA, colour[0], axes=1)[None, None]
        enlarged: Array = self._bicubic(colour - luma) + self._run(luma)
        return enlarged

    def _run(self, x: Array) -> Array:
        self._check_memory(x.shape)
        scaled = x * np.float32(self.model.input_range)
        return self.executable({self.input_name: scaled})[self.output_name] / np.float32(self.model.input_range)

    def _bicubic(self, x: Array) -> Array:
        return Resize(scale=(float(self.scale),) * 2, mode="cubic").forward(x)

    def _check_memory(self, shape: tuple[int, ...]) -> None:
        """Refuse before memory is taken what the machine does not have."""
        try:
            planned = self.executable.bind({self.input_name: shape}).planned_bytes
        except ShapeError as error:
            raise ImageError(f"an image of {shape[3]} x {shape[2]} pixels cannot be taken: {error}") from error
        if lack := shortage(planned):
            raise ImageError(
                f"an image of {shape[3]} x {shape[2]} pixels {lack}: "
                "cut the image into smaller pieces or use a smaller model"
            )


def _checked_scale(model: Model) -> int:
    """The scale of a model that takes and gives one image."""
    if model.scale is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ImageError(
            f"model {model.architecture} is not an image upscaler: it takes {model.inputs} and gives {model.outputs}"
        )
    (input_type,) = model.inputs.values()
    if input_type.rank != 4 or input_type.shape[1] not in (1, 3):
        raise ImageError(f"model {model.architecture} takes {input_type}, an image upscaler takes 1 or 3 channels")
    n, _, h, w = input_type.shape
    (output_type,) = model.outputs.values()
    if output_type.rank != 4 or output_type.shape != (n, input_type.shape[1], model.scale * h, model.scale * w):
        raise ImageError(f"model {model.architecture} says x{model.scale}, but makes {output_type} of {input_type}")
    return model.scale


def _check_values(planes: Array) -> None:
    """Refuse what would be clipped without a word; a trace of overshoot from earlier filters may be."""
    low, high = float(planes.min()), float(planes.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("the image has NaN or infinite pixels; replace them first")
    if low < -0.05 or high > 1.05:
        raise ImageError(
            f"floating-point pixels go from {low:g} to {high:g}, but black is 0 and white is 1: rescale them"
        )


def _white(image: Array) -> float:
    """The pixel value of white, after checking that this is an image."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a NumPy array, got {type(image).__name__}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)) or 0 in image.shape:
        raise ImageError(f"an image is HxW, HxWx2, HxWx3 or HxWx4 (grey, grey+alpha, RGB, RGBA), got {image.shape}")
    match image.dtype.name:
        case "uint8":
            return 255.0
        case "uint16":
            return 65535.0
        case "float32" | "float64":
            return 1.0
    raise ImageError(f"pixels must be uint8, uint16, float32 or float64 (white at 1), got {image.dtype}")
