"""Draws the README's picture: the same crop as pixels, by bicubic interpolation, and by graphsr.

python bench/before_after.py docs/example.png docs/before-after.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import graphsr
from graphsr.atomic import atomic_path
from graphsr.imagefile import read_image

SCALE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="image to enlarge")
    parser.add_argument("target", type=Path, help="PNG to write")
    parser.add_argument("--model", default=f"wdsr-x{SCALE}", help="model file or embedded model")
    parser.add_argument("--crop", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of the source to show")
    options = parser.parse_args()
    pixels = read_image(options.source).pixels
    big = graphsr.upscale(pixels, model=options.model)
    scale = big.shape[0] // pixels.shape[0]
    x, y, w, h = options.crop or (0, 0, pixels.shape[1], pixels.shape[0])
    small = Image.fromarray(np.ascontiguousarray(pixels[y : y + h, x : x + w]))
    size = (w * scale, h * scale)
    panels = {
        "pixels": small.resize(size, Image.Resampling.NEAREST),
        "bicubic": small.resize(size, Image.Resampling.BICUBIC),
        f"graphsr, {Path(options.model).stem}": Image.fromarray(
            np.ascontiguousarray(big[y * scale : (y + h) * scale, x * scale : (x + w) * scale])
        ),
    }
    sheet = Image.new("RGB", (3 * size[0] + 16, size[1] + 20), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (label, panel) in enumerate(panels.items()):
        left = column * (size[0] + 8)
        sheet.paste(panel, (left, 20))
        draw.text((left + 2, 4), label, fill="black")
    with atomic_path(options.target) as path:
        sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
