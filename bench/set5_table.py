"""PSNR of every trained checkpoint on Set5, against the same table measured with PyTorch.

    python bench/set5_table.py [--backend reference ...] [--threads N] [--data DIR]

DIR (default $GRAPHSR_DATA, else ../shared/data beside the checkout) holds weights/, images/ and the table
set5_reference.tsv. Each file goes through `graphsr.load` and `Upscaler`, each result is compared with the original
under the convention of the papers. Exit code 1 when a value is more than 0.01 dB away from the table.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import graphsr
from graphsr.backend import backends
from graphsr.imagefile import read_image
from graphsr.metrics import paper, psnr

TOLERANCE = 0.01
"""dB: results are rounded to 8 bits, so float rounding moves few pixels by one level."""
IMAGES = ("baby", "bird", "butterfly", "head", "woman")


def main() -> int:
    options = _options()
    failed = 0
    for backend in options.backend:
        print(f"backend {backend}: PSNR in dB on Set5, {paper(4)} (border = scale)")
        start = time.perf_counter()
        worst = 0.0
        for name, expected in _reference(options.data):
            measured = _measure(options.data, name, backend, options.threads)
            gaps = [got - want for got, want in zip(measured, expected, strict=True)]
            worst = max(worst, *map(abs, gaps))
            cells = "  ".join(f"{got:8.4f} ({gap:+.4f})" for got, gap in zip(measured, gaps, strict=True))
            print(f"{name:28} {cells}  mean {np.mean(measured):.4f}", flush=True)
        verdict = "equal" if worst <= TOLERANCE else "DIFFERENT"
        print(f"{verdict}: largest difference {worst:.4f} dB, {time.perf_counter() - start:.0f} s\n")
        failed += worst > TOLERANCE
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--backend", nargs="+", default=["reference", "numpy"], choices=sorted(backends()), metavar="NAME"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GRAPHSR_DATA", beside)))
    return parser.parse_args()


def _reference(data: Path) -> Iterator[tuple[str, list[float]]]:
    """(file, PSNR per image) of the table measured with PyTorch."""
    with (data / "set5_reference.tsv").open(encoding="ascii", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield row["file"], [float(row[image]) for image in IMAGES]


def _measure(data: Path, name: str, backend: str, threads: int | None) -> list[float]:
    (path,) = (data / "weights").rglob(name)
    model = graphsr.load(path)
    upscale = graphsr.Upscaler(model, backend=backend, threads=threads)
    results = []
    for image in IMAGES:
        small = read_image(data / "images" / f"set5_lr_x{upscale.scale}" / f"{image}.png").pixels
        large = upscale(small)
        original = read_image(data / "images" / "set5" / f"{image}.bmp").pixels[: large.shape[0], : large.shape[1]]
        results.append(psnr(large, original, paper(upscale.scale)))
    return results


if __name__ == "__main__":
    sys.exit(main())
