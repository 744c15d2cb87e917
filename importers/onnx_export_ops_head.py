"""How the heads of detectors are written as ONNX: cut into the channels that go one way together, and put back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from graphsr.ops import GaussianYoloHead, GridHead, RegionHead, YoloHead
from graphsr.ops.detection import AnchorHead

from .onnx_export_ops_activation import affine
from .onnx_export_writer import Rules, Site, integers


def _anchor_head(s: Site, op: AnchorHead, x: str) -> str:
    """Entries of every anchor between two cuts are treated alike."""
    logistic, softmax = _ranges(op, op.logistics()), _ranges(op, op.groups())
    which, factor = op.stretched()
    stretched = _ranges(op, which)
    cuts = sorted({0, op.entries, *(end for found in (logistic, softmax, stretched) for part in found for end in part)})
    parts = list(pairwise(cuts))
    lengths = [end - start for start, end in parts] * len(op.anchors)
    pieces = s.several("Split", len(lengths), x, integers(lengths), axis=1) if len(lengths) > 1 else [x]

    def treated(piece: str, part: tuple[int, int]) -> str:
        if _within(part, logistic):
            piece = s("Sigmoid", piece)
        elif _within(part, softmax):
            piece = s("Softmax", piece, axis=1)
        if factor != 1 and _within(part, stretched):
            piece = affine(s, piece, factor, (1 - factor) / 2)
        return piece

    done = [treated(piece, part) for piece, part in zip(pieces, parts * len(op.anchors), strict=True)]
    return s("Concat", *done, axis=1)


def _ranges(op: AnchorHead, slices: Iterable[slice]) -> list[tuple[int, int]]:
    """(start, end) of what is not empty."""
    ends = (part.indices(op.entries)[:2] for part in slices)
    return [(start, end) for start, end in ends if start < end]


def _within(part: tuple[int, int], ranges: list[tuple[int, int]]) -> bool:
    return any(start <= part[0] and part[1] <= end for start, end in ranges)


def _grid_head(s: Site, op: GridHead, x: str) -> str:
    if not op.softmax:
        return x
    cells = op.side**2
    sizes = [cells * op.classes, 5 * cells * op.boxes]
    classes, rest = s.several("Split", 2, x, integers(sizes), axis=1)
    probabilities = s("Softmax", s("Reshape", classes, integers([0, cells, op.classes])), axis=2)
    return s("Concat", s("Reshape", probabilities, integers([0, sizes[0], 1, 1])), rest, axis=1)


HEAD: Rules = {
    YoloHead: _anchor_head,
    GaussianYoloHead: _anchor_head,
    RegionHead: _anchor_head,
    GridHead: _grid_head,
}
