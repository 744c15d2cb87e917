"""Heads of one-stage detectors: from the last convolution's channels to box coordinates and probabilities, as darknet
(Redmon & Farhadi) and its fork by AlexeyAB define them. Boxes in pixels are `graphsr.detection`'s business.

Symbols: A anchors, C classes, S entries per anchor, x[n, a·S + e, h, w] input and y output of the same shape, e the
entry: the box (x, y, w, h), the objectness, one entry per class. σ is the logistic function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TypeAlias

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_rank, expect_size, op
from graphsr.ops.activation import logistic
from graphsr.ops.dense import Softmax

Anchors: TypeAlias = "tuple[tuple[float, float], ...]"

POINTS = ("center", "left_top", "right_bottom")
"""Which point of a box x and y tell."""
SUPPRESSION = ("default", "greedynms", "diounms", "cornersnms")
"""Kinds of non-maximum suppression that a head may ask for."""


@dataclass(frozen=True, slots=True)
class AnchorHead(Op):
    """Base of the heads on anchors. For each entry y = x, y = σ(x) or a softmax over several entries; those that
    `stretched` names then become s·y − (s − 1)/2."""

    anchors: Anchors
    classes: int

    @property
    def entries(self) -> int:
        """S"""
        return 5 + self.classes

    def logistics(self) -> Sequence[slice]:
        """Entries that go through σ."""
        return ()

    def groups(self) -> Sequence[slice]:
        """Entries that go through one softmax each."""
        return ()

    def stretched(self) -> tuple[Sequence[slice], float]:
        """(entries, s)"""
        return (), 1.0

    def infer(self, x: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        expect_float(x)
        expect(len(self.anchors) >= 1, "at least one anchor is needed")
        expect(self.classes >= 0, f"classes must not be negative, got {self.classes}")
        what = f"channels of {len(self.anchors)} anchors with {self.entries} entries"
        expect_size(what, x.shape[1], len(self.anchors) * self.entries)
        return x

    def by_entry(self, x: Array) -> Array:
        """[N, A·S, H, W] as [N, A, S, H, W]"""
        return x.reshape(len(x), len(self.anchors), self.entries, *x.shape[2:])

    def forward(self, x: Array) -> Array:
        y = self._probabilities(x)
        which, s = self.stretched()
        for entries in which:
            y[:, :, entries] = x.dtype.type(s) * y[:, :, entries] - x.dtype.type((s - 1) / 2)
        return y.reshape(x.shape)

    def _probabilities(self, x: Array) -> Array:
        """[N, A, S, H, W]: y before it is stretched."""
        y = self.by_entry(x).copy()
        for entries in self.logistics():
            y[:, :, entries] = logistic(y[:, :, entries])
        for entries in self.groups():
            y[:, :, entries] = SOFTMAX.forward(y[:, :, entries])
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx = s·dy·σ·(1 − σ), p·(dy − Σ dy·p) over a softmax group, or dy."""
        (x,) = inputs
        y, dx = self._probabilities(x), self.by_entry(cotangent).copy()
        which, s = self.stretched()
        for entries in which:
            dx[:, :, entries] *= x.dtype.type(s)
        for entries in self.logistics():
            dx[:, :, entries] *= y[:, :, entries] * (1 - y[:, :, entries])
        for entries in self.groups():
            group = y[:, :, entries]
            (dx[:, :, entries],) = SOFTMAX.vjp((group,), group, dx[:, :, entries])
        return (dx.reshape(x.shape),)


SOFTMAX = Softmax(axis=2)


@op("yolo_head")
@dataclass(frozen=True, slots=True)
class YoloHead(AnchorHead):
    """x, y, objectness, classes: σ(x); w, h: x. Then x, y: s·y − (s − 1)/2 with s = `scale_xy` (Redmon & Farhadi,
    "YOLOv3", 2018; Bochkovskiy et al., "YOLOv4", 2020).

    Anchors are in pixels. With `new_coords` (scaled YOLOv4) σ belongs to the layer before, and w, h are decoded as
    (2·y)²·anchor in place of e^y·anchor. `suppression` and `beta` say how boxes of this head are to be suppressed.

    >>> YoloHead(anchors=((8.0, 8.0),), classes=1).forward(np.zeros((1, 6, 1, 1))).ravel()
    array([0.5, 0.5, 0. , 0. , 0.5, 0.5])
    """

    scale_xy: float = 1.0
    new_coords: bool = False
    suppression: str = "default"
    beta: float = 0.6

    def infer(self, x: TensorType) -> TensorType:
        expect(self.suppression in SUPPRESSION, f"suppression {self.suppression!r} is not one of {SUPPRESSION}")
        return AnchorHead.infer(self, x)

    def logistics(self) -> Sequence[slice]:
        return () if self.new_coords else (slice(0, 2), slice(4, None))

    def stretched(self) -> tuple[Sequence[slice], float]:
        return (slice(0, 2),), self.scale_xy


@op("gaussian_yolo_head")
@dataclass(frozen=True, slots=True)
class GaussianYoloHead(AnchorHead):
    """Each coordinate with its deviation, objectness, classes: all but w and h through the logistic function, then
    x, y: s·y − (s − 1)/2 with s = `scale_xy` (Choi et al., "Gaussian YOLOv3", 2019).

    The entries are x, its deviation, y, its deviation, w, …, h, …. `point` says which point of the box x and y tell.

    >>> GaussianYoloHead(anchors=((8.0, 8.0),), classes=1, scale_xy=2.0).forward(np.zeros((1, 10, 1, 1))).ravel()
    array([0.5, 0.5, 0.5, 0.5, 0. , 0.5, 0. , 0.5, 0.5, 0.5])
    """

    scale_xy: float = 1.0
    point: str = "center"
    suppression: str = "default"
    beta: float = 0.6

    @property
    def entries(self) -> int:
        return 9 + self.classes

    def infer(self, x: TensorType) -> TensorType:
        expect(self.point in POINTS, f"point {self.point!r} is not one of {POINTS}")
        expect(self.suppression in SUPPRESSION, f"suppression {self.suppression!r} is not one of {SUPPRESSION}")
        return AnchorHead.infer(self, x)

    def logistics(self) -> Sequence[slice]:
        return slice(0, 4), slice(5, 6), slice(7, None)

    def stretched(self) -> tuple[Sequence[slice], float]:
        return (slice(0, 1), slice(2, 3)), self.scale_xy


@op("region_head")
@dataclass(frozen=True, slots=True)
class RegionHead(AnchorHead):
    """x, y: σ(x); the other `coords` − 2 coordinates: x; objectness: σ(x), but x with `background`; classes: σ(x), or a
    softmax over all of them, or one per group of sizes `tree` (Redmon & Farhadi, "YOLO9000", 2017).

    Anchors are in cells of the grid. `parents` has for each class of a tree the class above it, or −1. With
    `background` the softmax takes the objectness in as the probability of no object.

    >>> RegionHead(anchors=((1.0, 1.0),), classes=2, softmax=True).forward(np.zeros((1, 7, 1, 1))).ravel()
    array([0.5, 0.5, 0. , 0. , 0.5, 0.5, 0.5])
    """

    coords: int = 4
    softmax: bool = False
    background: bool = False
    tree: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()

    @property
    def entries(self) -> int:
        return self.coords + 1 + self.classes

    def infer(self, x: TensorType) -> TensorType:
        expect(self.coords >= 4, f"a box has at least 4 coordinates, got {self.coords}")
        whole = not self.tree or (min(self.tree) >= 1 and sum(self.tree) == self.classes)
        expect(whole, f"groups of {self.tree} are not a partition of {self.classes} classes")
        expect(len(self.parents) == (self.classes if self.tree else 0), f"{len(self.parents)} parents for {self.tree}")
        lower = all(-1 <= parent < i for i, parent in enumerate(self.parents))
        expect(lower, "the class above another one must come before it")
        return AnchorHead.infer(self, x)

    def logistics(self) -> Sequence[slice]:
        objectness = () if self.background else (slice(self.coords, self.coords + 1),)
        classes = () if self.softmax or self.tree else (slice(self.coords + 1, None),)
        return (slice(0, 2), *objectness, *classes)

    def groups(self) -> Sequence[slice]:
        if self.tree:
            ends = np.cumsum((self.coords + 1, *self.tree)).tolist()
            return [slice(a, b) for a, b in pairwise(ends)]
        return (slice(self.coords + (not self.background), None),) if self.softmax else ()


@op("grid_head")
@dataclass(frozen=True, slots=True)
class GridHead(Op):
    """YOLOv1's head (Redmon et al., "You only look once", 2016): y = x, with `softmax` over the classes of each cell.

    The vector x[n, d, 0, 0] holds side²·classes probabilities, side²·boxes confidences, then side²·boxes·4 coordinates;
    cells follow each other row by row. `squared` says that width and height are stored as their roots.

    >>> GridHead(side=1, boxes=1, classes=2, softmax=True).forward(np.zeros((1, 7, 1, 1))).ravel()
    array([0.5, 0.5, 0. , 0. , 0. , 0. , 0. ])
    """

    side: int
    boxes: int
    classes: int
    squared: bool = False
    softmax: bool = False

    def infer(self, x: TensorType) -> TensorType:
        expect_rank("input", x, 4)
        expect_float(x)
        expect(min(self.side, self.boxes, self.classes) >= 1, f"side, boxes and classes must be positive in {self}")
        expect_size("values per image", x.shape[1], self.side**2 * (self.classes + 5 * self.boxes))
        for size in x.shape[2:]:
            expect_size("height and width", size, 1)
        return x

    def forward(self, x: Array) -> Array:
        y = x.copy()
        for cells in self._cells(y):
            cells[...] = SOFTMAX.forward(cells)
        return y

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dx = p·(dy − Σ dy·p) over the classes of a cell, else dy."""
        dx = cotangent.copy()
        for p, cells in zip(self._cells(output), self._cells(dx), strict=True):
            (cells[...],) = SOFTMAX.vjp((p,), p, cells)
        return (dx,)

    def _cells(self, y: Array) -> Iterator[Array]:
        """The view [N, cells, classes] of the probabilities, when there is a softmax."""
        if self.softmax:
            cells = self.side**2
            yield y.reshape(len(y), prod(y.shape[1:]))[:, : cells * self.classes].reshape(len(y), cells, self.classes)


HEADS = (YoloHead, GaussianYoloHead, RegionHead, GridHead)
