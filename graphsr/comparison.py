"""`graphsr compare`: PSNR and SSIM of two images, or of equal names in two folders."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from graphsr.cli import OK, SOME_FAILED, UsageError, complain
from graphsr.errors import ImageError
from graphsr.imagefile import SUFFIXES, read_image
from graphsr.metrics import PLAIN, Convention, compare_images, paper


def compare(options: argparse.Namespace) -> int:
    """`graphsr compare A B`"""
    a, b = Path(options.a), Path(options.b)
    for path in (a, b):
        try:
            path.stat()
        except OSError as error:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
    if os.path.isdir(a) != os.path.isdir(b):
        raise UsageError(f"compare two images or two folders, not one of each: {a}, {b}")
    convention = _convention(options)
    if os.path.isdir(a):
        return _compare_folders(a, b, convention)
    row, _ = _compare_row(a, b, convention, a.name)
    print(f"convention: {convention}\n{row}")
    return OK


def _convention(options: argparse.Namespace) -> Convention:
    if options.convention == "plain":
        return replace(PLAIN, border=options.border or 0)
    if options.border is None:
        raise UsageError("the paper convention cuts a border: give the scale factor as --border")
    return paper(options.border)


def _compare_folders(a: Path, b: Path, convention: Convention) -> int:
    """A row for each image name that both have, and their means."""
    in_a, in_b = ({p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES} for folder in (a, b))
    if not in_a & in_b:
        raise UsageError(f"folders {a} and {b} have no image name in common")
    for name in sorted(in_a ^ in_b):
        complain("compare", f"{name}: only in {a if name in in_a else b}")
    rows: list[tuple[float, float]] = []
    failed = len(in_a ^ in_b)
    for name in sorted(in_a & in_b):
        try:
            text, figures = _compare_row(a / name, b / name, convention, name)
        except ImageError as error:
            failed += 1
            complain("compare", str(error))
        else:
            print(text if rows else f"convention: {convention}\n{text}")
            rows.append(figures)
    if rows:
        psnr, ssim = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        print(f"{'mean':<24} PSNR {psnr:7.3f} dB  SSIM {ssim:.4f}")
    return SOME_FAILED if failed else OK


def _compare_row(a: Path, b: Path, convention: Convention, name: str) -> tuple[str, tuple[float, float]]:
    images = read_image(a).pixels, read_image(b).pixels
    try:
        result = compare_images(*images, convention)
    except ImageError as error:
        raise ImageError(f"{a}, {b}: {error}") from error
    text = f"{name:<24} PSNR {result.psnr:7.3f} dB  SSIM {result.ssim:.4f}  largest difference {result.max_abs:g}"
    return text, (result.psnr, result.ssim)
