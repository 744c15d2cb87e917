"""Detections for people and for programs: boxes with labels on the picture, and JSON."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from graphsr.detection import Detection
from graphsr.errors import MissingExtraError
from graphsr.op import Array

GOLDEN = 0.618033988749895
"""Steps of the golden ratio around the circle of hues keep the colours of any two classes apart."""


def draw_detections(pixels: Array, detections: Sequence[Detection]) -> Array:
    """The picture (HxW, HxWx2, HxWx3 or HxWx4; uint8, uint16 or float) with boxes and labels, uint8 [H, W, 3].

    The best boxes are drawn last, on top. Raises `MissingExtraError` without Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ModuleNotFoundError as error:
        raise MissingExtraError("boxes are drawn with Pillow: pip install 'graphsr[image]'") from error
    image = Image.fromarray(_rgb8(pixels))
    line = max(2, round(0.004 * max(image.size)))
    font = ImageFont.load_default(size=max(10, 6 * line))
    canvas = ImageDraw.Draw(image)
    for d in reversed(detections):
        colour = class_colour(d.label)
        canvas.rectangle((d.left, d.top, d.right - 1, d.bottom - 1), outline=colour, width=line)
        text = f"{d.name} {100 * d.score:.0f} %"
        _, _, width, height = canvas.textbbox((0, 0), text, font=font)
        x, y = min(d.left, image.width - width - 2 * line), max(0.0, d.top - height - 2 * line)
        x = max(0.0, x)
        canvas.rectangle((x, y, x + width + 2 * line, y + height + 2 * line), fill=colour)
        canvas.text((x + line, y + line), text, fill=_readable_on(colour), font=font)
    return np.asarray(image)


def class_colour(label: int) -> tuple[int, int, int]:
    """The colour of a class, always the same."""
    red, green, blue = colorsys.hsv_to_rgb((0.08 + GOLDEN * label) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def _rgb8(pixels: Array) -> Array:
    """Any image as uint8 RGB, without alpha."""
    image = np.atleast_3d(pixels)
    colours = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(colours)
    white = np.iinfo(colours.dtype).max if colours.dtype.kind == "u" else 1
    return np.rint(np.clip(colours / white, 0, 1) * 255).astype(np.uint8)


def detections_json(found: Mapping[str, tuple[int, int, Sequence[Detection]]]) -> str:
    """JSON text of the detections of several images: name -> (width, height, detections). Boxes are in pixels.

    Bytes of a file name that are no text are escapes, \\udc80 … \\udcff, of which `os.fsencode` makes the bytes again.
    """
    images: list[dict[str, Any]] = []
    for name, (width, height, detections) in found.items():
        objects = [_plain(detection) for detection in detections]
        images.append({"image": name, "width": width, "height": height, "detections": objects})
    text = json.dumps(images, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # JSON and Python spell these escapes alike


def _plain(detection: Detection) -> dict[str, Any]:
    fields = asdict(detection)
    box = {edge: round(fields.pop(edge), 2) for edge in ("left", "top", "right", "bottom")}
    return {"class": fields["label"], "name": fields["name"], "score": round(fields["score"], 6), "box": box}
