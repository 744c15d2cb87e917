"""From an image to named boxes: what surrounds a detector.

The image is brought to the network's size as darknet does it, the outputs of the network's heads are decoded into
boxes, and of boxes that overlap the best is kept. What a head's numbers mean is told by its op
(`graphsr.ops.detection`).

Boxes are arrays [K, 4] of centre x, centre y, width, height, as fractions of the image.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsr.backend import Backend
from graphsr.detection_boxes import Candidates, candidates, suppress
from graphsr.errors import ImageError, ModelError, ShapeError
from graphsr.loading import load
from graphsr.model import DEFAULT_BACKEND, Model
from graphsr.op import Array
from graphsr.ops import Resize
from graphsr.ops.detection import HEADS, GaussianYoloHead, YoloHead
from graphsr.sizes import check_size
from graphsr.upscaling import LUMA

GREY = 0.5
"""What a letterbox fills the rest with."""
MAX_NAMES = 1 << 20
"""Bytes of a file of class names."""


class NamesError(ModelError):
    """Names of classes that cannot be read, or are not those of the model."""


@dataclass(frozen=True)
class Detection:
    """One object: class index and name, score in 0..1, and its box in pixels of the image, clipped to it."""

    label: int
    name: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Placement:
    """Where the image lies in the network's input: size and upper left corner, as fractions of the input."""

    width: float = 1.0
    height: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def undo(self, boxes: Array) -> Array:
        """Boxes relative to the input -> relative to the image."""
        scale = np.array([self.width, self.height, self.width, self.height])
        return (boxes - np.array([self.left, self.top, 0, 0])) / scale


class Detector:
    """A network with detection heads, compiled once, for many images.

    `names` are the classes in order, all of them or none. Boxes below `threshold` (score) are dropped, and of two boxes
    of a class that overlap by more than `overlap` the one with the lower score. `letterbox` keeps the image's
    proportions with grey bars; None takes what the model was trained with. `size` (height, width) is the network's
    input, where it is open.

    Raises `ModelError` when the model has no detection head or cannot take images; `NamesError` for another number of
    names than it has classes; `ShapeError` for a size that the network does not take, and where it needs one.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        names: Sequence[str] = (),
        threshold: float = 0.25,
        overlap: float = 0.45,
        letterbox: bool | None = None,
        size: tuple[int, int] | None = None,
        backend: str | Backend = DEFAULT_BACKEND,
        threads: int | None = None,
    ) -> None:
        self.model = model if isinstance(model, Model) else load(model)
        self.heads = {name: node.op for name, node in self.model.graph.outputs.items() if isinstance(node.op, HEADS)}
        if not self.heads:
            raise ModelError(f"{self.model!r} has no detection head: [yolo], [Gaussian_yolo], [region] or [detection]")
        classes = max(head.classes for head in self.heads.values())
        if names and len(names) != classes:
            raise NamesError(
                f"the network knows {classes} classes, {len(names)} names are given: are they of this network?"
            )
        self.names, self.threshold, self.overlap = tuple(names), threshold, overlap
        self.letterbox = self.model.inferred.get("letterbox") == "yes" if letterbox is None else letterbox
        self.channels, self.size = _input_size(self.model, size)
        (name,) = self.model.inputs
        check_size(self.model.graph, self.size, lambda size: {name: (1, self.channels, *size)})
        self.executable = self.model.compile(backend, threads)

    def __call__(self, image: Array) -> list[Detection]:
        """The objects in an image (HxW, HxWx2, HxWx3 or HxWx4; uint8, uint16, or float with white at 1), best first.

        Raises `ImageError` for other arrays, and when the network gives no numbers; `ShapeError` as `check_memory`.
        """
        planes = image_planes(image, self.channels)
        self.check_memory()
        (name,) = self.model.inputs
        x, placement = place(planes, self.size, self.letterbox)
        outputs = self.executable({name: x * np.float32(self.model.input_range)})
        found = [candidates(head, outputs[name], self.size, self.threshold) for name, head in self.heads.items()]
        return self._named(self._suppressed(Candidates.joined(found), placement), image.shape[0], image.shape[1])

    def check_memory(self) -> None:
        """Raise `ShapeError` when the network, at its size, takes more memory than there is."""
        (name,) = self.model.inputs
        self.executable.bind({name: (1, self.channels, *self.size)})

    def _suppressed(self, found: Candidates, placement: Placement) -> Candidates:
        """What remains; the last head says how, as in darknet."""
        found = Candidates(placement.undo(found.boxes), found.objectness, found.scores)
        head = list(self.heads.values())[-1]
        if isinstance(head, YoloHead | GaussianYoloHead):
            return suppress(found, self.overlap, head.suppression, head.beta)
        return suppress(found, self.overlap)

    def _named(self, found: Candidates, height: int, width: int) -> list[Detection]:
        detections = []
        for i, label in np.argwhere(found.scores > 0).tolist():
            x, y, w, h = found.boxes[i].tolist()
            left, right = (min(max(edge * width, 0.0), float(width)) for edge in (x - w / 2, x + w / 2))
            top, bottom = (min(max(edge * height, 0.0), float(height)) for edge in (y - h / 2, y + h / 2))
            name = self.names[label] if self.names else f"class {label}"
            detections.append(Detection(label, name, float(found.scores[i, label]), left, top, right, bottom))
        return sorted(detections, key=lambda d: (-d.score, d.label, d.left, d.top))


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the classes, one per line. Raises `NamesError`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_NAMES + 1)
    except (OSError, ValueError) as error:
        raise NamesError(f"{os.fspath(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_NAMES:
        raise NamesError(f"{os.fspath(path)}: more than {MAX_NAMES} bytes are no list of class names")
    lines = [line.strip() for line in data.decode("utf-8-sig", "replace").split("\n") if line.strip()]
    if not lines or any(unicodedata.category(char) == "Cc" for line in lines for char in line if char != "\t"):
        raise NamesError(f"{os.fspath(path)}: a line of text for each class is expected, this is no such file")
    return tuple(lines)


def image_planes(image: Array, channels: int) -> Array:
    """An image as [channels, H, W], float32, white at 1. Alpha is dropped; grey is R = G = B, and RGB becomes luma."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)) or 0 in image.shape:
        raise ImageError(f"an image is HxW, HxWx1, HxWx2, HxWx3 or HxWx4, got shape {image.shape}")
    if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise ImageError(f"pixels are uint8, uint16, float32 or float64, got {image.dtype}")
    white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    planes = (np.atleast_3d(image).transpose(2, 0, 1) / white).astype(np.float32)
    if not np.isfinite(planes).all():
        raise ImageError("the image has NaN or infinite pixels")
    planes = planes[:1] if len(planes) < 3 else planes[:3]
    if len(planes) == channels:
        return planes
    return np.repeat(planes, 3, axis=0) if channels == 3 else np.tensordot(LUMA, planes, 1)[None]


def place(planes: Array, size: tuple[int, int], letterbox: bool) -> tuple[Array, Placement]:
    """[C, H, W] -> the network's input [1, C, *size], and where the image lies in it.

    Bilinear, with the centres of the corner pixels on each other, as darknet's resize_image.
    """
    (h, w), (height, width) = planes.shape[1:], size
    new_h, new_w = height, width
    if letterbox and width * h < height * w:
        new_h = h * width // w
    elif letterbox:
        new_w = w * height // h
    new_h, new_w = max(1, new_h), max(1, new_w)
    resized = Resize(size=(new_h, new_w), mode="linear", coordinates="align_corners").forward(planes[None])
    left, top = (width - new_w) // 2, (height - new_h) // 2
    x = np.full((1, len(planes), height, width), GREY, np.float32)
    x[:, :, top : top + new_h, left : left + new_w] = resized
    placement = Placement(
        new_w / width, new_h / height, (width - new_w) / 2 / width, (height - new_h) / 2 / height
    )  # darknet decodes with the bars halved exactly, even when one is a pixel wider
    return x, placement


def _input_size(model: Model, size: tuple[int, int] | None) -> tuple[int, tuple[int, int]]:
    """(channels, (height, width)) of the network's input."""
    if len(model.inputs) != 1:
        raise ModelError(f"a detector has one input, the image; {model!r} has {', '.join(model.inputs)}")
    (type_,) = model.inputs.values()
    if type_.rank != 4 or type_.shape[1] not in (1, 3):
        raise ModelError(f"a detector takes [N, 1 or 3, H, W], {model!r} takes {type_}")
    _, channels, *sizes = type_.shape
    fixed = tuple(n for n in sizes if isinstance(n, int))
    trained = tuple(int(model.inferred.get(key, "0")) for key in ("height", "width"))
    height, width = fixed if len(fixed) == 2 else size or trained
    if size not in (None, (height, width)):
        raise ShapeError(f"the size of this network is fixed: {height} x {width}")
    if height < 1 or width < 1:
        raise ShapeError("the model does not say for which size it was trained: give the size")
    return 3 if channels == 3 else 1, (height, width)
