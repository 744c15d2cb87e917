"""From an image array to a larger one: what surrounds the network.

Pixel range, grey and alpha, clipping and rounding live here; normalisation belongs to the graph of the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphsr.backend import Backend, Executable, get_backend
from graphsr.errors import ImageError, ModelError, ShapeError
from graphsr.ir import Graph, Node, TensorType
from graphsr.loading import load
from graphsr.model import DEFAULT_BACKEND, Model
from graphsr.op import Array
from graphsr.ops import AllFinite, Quantise, Resize
from graphsr.ops.quantise import MAXIMUM

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
    memory, `ModelError` for a model that cannot be loaded or is no image upscaler.
    """
    upscaler = Upscaler(model if isinstance(model, Model) else load(model), backend=backend, threads=threads)
    return upscaler(image)


class Upscaler:
    """A model compiled once, for many images."""

    def __init__(self, model: Model, *, backend: str | Backend = DEFAULT_BACKEND, threads: int | None = None) -> None:
        self.model = model
        self.scale = _checked_scale(model)
        (self.input_name, input_type), *_ = model.inputs.items()
        (self.output_name, _), *_ = model.outputs.items()
        self.channels = input_type.shape[1]
        self._backend, self._threads = get_backend(backend), threads
        self._executables: dict[str, Executable] = {}
        self._makes_pixels = _can_make_pixels(model, self._backend)
        self._executable("uint8" if self._makes_pixels else "float32")  # what cannot be compiled is refused now

    @property
    def executable(self) -> Executable:
        """The network as it is: numbers, neither clipped nor rounded."""
        return self._executable("float32")

    def __call__(self, image: Array) -> Array:
        """See `upscale`."""
        white = _white(image)
        # float32 holds every uint16, and its quotient is the one of float64 rounded once more (53 >= 2 * 24 + 2 bits)
        planes = np.divide(np.atleast_3d(image).transpose(2, 0, 1)[None], np.float32(white), dtype=np.float32)
        _check_values(planes)
        alpha = planes[:, -1:] if planes.shape[1] in (2, 4) else None
        colour = planes if alpha is None else planes[:, :-1]
        if image.dtype.kind == "u" and self._makes_pixels and colour.shape[1] == self.channels:
            pixels = self._pixels(colour, image.dtype.name)
        else:
            pixels = self._rounded(self._colour(colour), image.dtype)
        if alpha is not None:
            pixels = np.concatenate([pixels, self._rounded(self._bicubic(alpha), image.dtype)], axis=2)
        return pixels.reshape(pixels.shape[:2] + image.shape[2:])

    def _pixels(self, colour: Array, dtype: str) -> Array:
        """[1, C, H, W] in 0..1 -> [H, W, C], enlarged: pixels of a picture, made by the last step of the network."""
        outputs = self._outputs(colour, dtype)
        self._check_finite(bool(outputs["finite"]))
        return outputs["pixels"][0]

    def _rounded(self, result: Array, dtype: np.dtype[Any]) -> Array:
        """[1, C, H, W] in 0..1, an array of our own -> [H, W, C], pixels of a picture."""
        self._check_finite(bool(np.isfinite(result).all()))
        np.clip(result, 0, 1, out=result)
        if dtype.kind == "u":
            result *= MAXIMUM[dtype.name]
            np.rint(result, out=result)
        return result[0].astype(dtype).transpose(1, 2, 0)

    def _check_finite(self, is_finite: bool) -> None:
        if not is_finite:
            raise ImageError(f"the network gave NaN or infinite pixels: is {self.model!r} damaged, or wrongly set up?")

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
        return self._outputs(x, "float32")[self.output_name] / np.float32(self.model.input_range)

    def _outputs(self, x: Array, dtype: str) -> dict[str, Array]:
        """What the network makes of numbers in 0..1."""
        executable = self._executable(dtype)
        try:
            executable.bind({self.input_name: x.shape})  # before memory is taken for the scaled image
        except ShapeError as error:
            raise ImageError(f"an image of {x.shape[3]} x {x.shape[2]} pixels cannot be taken: {error}") from error
        return executable({self.input_name: x * np.float32(self.model.input_range)})

    def _executable(self, dtype: str) -> Executable:
        """The network that gives float32, or pixels of a picture and whether all were finite; compiled once."""
        if dtype not in self._executables:
            graph = self.model.graph if dtype == "float32" else _for_pictures(self.model, dtype)
            self._executables[dtype] = self._backend.compile(graph, threads=self._threads)
        return self._executables[dtype]

    def _bicubic(self, x: Array) -> Array:
        return Resize(scale=(float(self.scale),) * 2, mode="cubic").forward(x)


def _can_make_pixels(model: Model, backend: Backend) -> bool:
    """Whether the conversion can be a part of the network on this backend, which may be anybody's."""
    (output_type,) = model.outputs.values()
    return output_type.dtype == "float32" and all(map(backend.supports, _for_pictures(model, "uint8").outputs.values()))


def _for_pictures(model: Model, dtype: str) -> Graph:
    """The network up to the pixels of a picture of this dtype, as image files have them, and whether all numbers that
    they were made of are finite, which pixels cannot say."""
    (y,) = model.graph.outputs.values()
    pixels = Node(Quantise(float(model.input_range), dtype, channels_last=True), (y,), "pixels")
    finite = Node(AllFinite(), (y,), "finite")
    return Graph(model.graph.inputs, {"pixels": pixels, "finite": finite})


def _checked_scale(model: Model) -> int:
    """The scale of a model that takes and gives one image; `ModelError` for another one."""
    if model.scale is None or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"model {model.architecture} is not an image upscaler: it takes {_listed(model.inputs)} and gives "
            f"{_listed(model.outputs)}; name a super-resolution network"
        )
    (input_type,) = model.inputs.values()
    if input_type.rank != 4 or input_type.shape[1] not in (1, 3):
        raise ModelError(f"model {model.architecture} takes {input_type}, an image upscaler takes 1 or 3 channels")
    n, _, h, w = input_type.shape
    (output_type,) = model.outputs.values()
    if output_type.rank != 4 or output_type.shape != (n, input_type.shape[1], model.scale * h, model.scale * w):
        raise ModelError(f"model {model.architecture} says x{model.scale}, but makes {output_type} of {input_type}")
    return model.scale


def _listed(types: Mapping[str, TensorType]) -> str:
    return ", ".join(f"{name} : {type_}" for name, type_ in types.items())


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
