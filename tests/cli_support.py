"""Running the command line as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from graphsr.imagefile import ImageFile, write_image


def graphsr(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphsr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def picture(path: Path, dtype: str = "uint8", shape: tuple[int, ...] = (12, 16, 3)) -> Path:
    top = np.iinfo(dtype).max
    pixels = (np.arange(np.prod(shape)).reshape(shape) * 37 % top).astype(dtype)
    write_image(path, ImageFile(pixels=pixels, icc=None, exif=None, format=path.suffix[1:].upper()))
    return path


def detector_cfg(folder: Path) -> Path:
    """A network that halves its input twice, joins both sizes again, and detects."""
    cfg = folder / "d.cfg"
    cfg.write_text(
        "[net]\nwidth=32\nheight=32\nchannels=3\n[convolutional]\nfilters=6\nsize=1\nstride=2\nactivation=linear\n"
        "[convolutional]\nfilters=6\nsize=1\nstride=2\nactivation=linear\n[upsample]\nstride=2\n[route]\nlayers=-1,-3\n"
        "[convolutional]\nfilters=6\nsize=1\nstride=1\nactivation=linear\n[yolo]\nmask=0\nanchors=4,4\nclasses=1\nnum=1\n"
    )
    floats = 3 * 6 + 6 + 6 * 6 + 6 + 12 * 6 + 6
    header = np.array([0, 2, 0], np.int32).tobytes() + np.int64(0).tobytes()
    (folder / "d.weights").write_bytes(header + np.zeros(floats, np.float32).tobytes())
    return cfg
