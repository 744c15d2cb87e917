"""Decoding the outputs of detection heads into boxes, and non-maximum suppression, as darknet and its fork do both.

Boxes are arrays [K, 4] of centre x, centre y, width, height, as fractions of the network's input; scores are [K, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsr.errors import GraphError
from graphsr.op import Array, Op
from graphsr.ops.detection import AnchorHead, GaussianYoloHead, GridHead, RegionHead, YoloHead

TREE_THRESHOLD = 0.5
"""A class of a tree is refined as long as the product of probabilities exceeds this (darknet's `hier`)."""
GREEDY_BETA = 0.6
"""The exponent of greedynms, whatever the cfg says."""
KINDS = ("default", "greedynms", "diounms", "cornersnms", "objectness")


@dataclass(frozen=True)
class Candidates:
    """Boxes with their objectness [K] and scores [K, C]."""

    boxes: Array
    objectness: Array
    scores: Array

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """All boxes of several heads; heads may know different numbers of classes."""
        classes = max(part.scores.shape[1] for part in parts)
        scores = [np.pad(part.scores, ((0, 0), (0, classes - part.scores.shape[1]))) for part in parts]
        boxes = np.concatenate([part.boxes for part in parts])
        return Candidates(boxes, np.concatenate([part.objectness for part in parts]), np.concatenate(scores))


def candidates(head: Op, output: Array, size: tuple[int, int], threshold: float) -> Candidates:
    """The boxes of the first image whose objectness exceeds the threshold; their scores that do not are 0.

    `output` is what the head gave, `size` the (height, width) of the network's input.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a box that is not finite is dropped below
        match head:
            case YoloHead():
                found = _yolo(head, output, size)
            case GaussianYoloHead():
                found = _gaussian(head, output, size)
            case RegionHead():
                found = _region(head, output)
            case GridHead():
                found = _grid(head, output)
            case _:
                raise GraphError(f"{head.name!r} is not a detection head")
        kept = (found.objectness > threshold) & np.isfinite(found.boxes).all(axis=1)
    scores = np.where(found.scores > threshold, found.scores, 0)[kept]
    return Candidates(found.boxes[kept], found.objectness[kept], scores)


def _entries(head: AnchorHead, output: Array) -> Array:
    """[1, A·S, H, W] -> [S, H, W, A] in double precision: boxes in darknet's order, by cell and then by anchor."""
    return head.by_entry(output[:1])[0].transpose(1, 2, 3, 0).astype(np.float64)


def _cells(y: Array) -> tuple[Array, Array]:
    """Column and row of every cell, to be added to x and y [H, W, A]."""
    return np.arange(y.shape[2])[None, :, None], np.arange(y.shape[1])[:, None, None]


def _boxes(x: Array, y: Array, w: Array, h: Array) -> Array:
    return np.stack([x, y, w, h], axis=-1).reshape(-1, 4)


def _scores(objectness: Array, classes: Array) -> Array:
    """objectness · class [C, H, W, A] -> [K, C]"""
    return (objectness * classes).reshape(len(classes), -1).T


def _yolo(head: YoloHead, output: Array, size: tuple[int, int]) -> Candidates:
    y = _entries(head, output)
    (columns, rows), anchors = _cells(y), np.array(head.anchors)
    w, h = ((2 * y[2]) ** 2, (2 * y[3]) ** 2) if head.new_coords else (np.exp(y[2]), np.exp(y[3]))
    w, h = w * anchors[:, 0] / size[1], h * anchors[:, 1] / size[0]
    boxes = _boxes((columns + y[0]) / y.shape[2], (rows + y[1]) / y.shape[1], w, h)
    return Candidates(boxes, y[4].ravel(), _scores(y[4], y[5:]))


def _gaussian(head: GaussianYoloHead, output: Array, size: tuple[int, int]) -> Candidates:
    """Scores are reduced by the mean deviation of the four coordinates."""
    y = _entries(head, output)
    (columns, rows), anchors = _cells(y), np.array(head.anchors)
    w, h = np.exp(y[4]) * anchors[:, 0] / size[1], np.exp(y[6]) * anchors[:, 1] / size[0]
    shift = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}[head.point]
    boxes = _boxes((columns + y[0]) / y.shape[2] + shift * w, (rows + y[2]) / y.shape[1] + shift * h, w, h)
    certain = 1 - (y[1] + y[3] + y[5] + y[7]) / 4
    return Candidates(boxes, y[8].ravel(), _scores(y[8] * certain, y[9:]))


def _region(head: RegionHead, output: Array) -> Candidates:
    y = _entries(head, output)
    (columns, rows), anchors = _cells(y), np.array(head.anchors)
    w, h = np.exp(y[2]) * anchors[:, 0] / y.shape[2], np.exp(y[3]) * anchors[:, 1] / y.shape[1]
    boxes = _boxes((columns + y[0]) / y.shape[2], (rows + y[1]) / y.shape[1], w, h)
    objectness = np.ones_like(y[0]) if head.background else y[head.coords]
    classes = y[head.coords + 1 :]
    if not head.tree:
        return Candidates(boxes, objectness.ravel(), _scores(objectness, classes))
    scores = np.zeros((len(boxes), head.classes))
    top = [_top_of_tree(head, column) for column in classes.reshape(head.classes, -1).T]
    scores[np.arange(len(boxes)), top] = objectness.ravel()
    return Candidates(boxes, objectness.ravel(), scores)


def _top_of_tree(head: RegionHead, conditional: Array) -> int:
    """The most specific class of a tree that is still probable. `conditional` [C] holds P(class | its parent)."""
    absolute = conditional.copy()  # of the class itself: the product along its ancestors, as darknet computes it
    for i, parent in enumerate(head.parents):
        if parent >= 0:
            absolute[i] *= absolute[parent]
    starts = np.cumsum((0, *head.tree))
    child = {head.parents[start]: group for group, start in enumerate(starts[:-1].tolist())}
    group, product = 0, 1.0
    while True:
        best = int(starts[group] + np.argmax(absolute[starts[group] : starts[group + 1]]))
        if product * absolute[best] > TREE_THRESHOLD:
            product *= float(absolute[best])
            if best not in child:
                return best
            group = child[best]
        else:
            return best if group == 0 else head.parents[starts[group]]


def _grid(head: GridHead, output: Array) -> Candidates:
    side, cells = head.side, head.side**2
    probabilities, confidences, coordinates = np.split(
        output[0].ravel().astype(np.float64), np.cumsum([cells * head.classes, cells * head.boxes])
    )
    objectness = confidences.reshape(cells, head.boxes)
    x, y, w, h = np.moveaxis(coordinates.reshape(cells, head.boxes, 4), -1, 0)
    row, column = np.divmod(np.arange(cells), side)
    power = 2 if head.squared else 1
    boxes = _boxes((x + column[:, None]) / side, (y + row[:, None]) / side, w**power, h**power)
    scores = objectness[:, :, None] * probabilities.reshape(cells, 1, head.classes)
    return Candidates(boxes, objectness.ravel(), scores.reshape(len(boxes), head.classes))


def suppress(found: Candidates, overlap: float, kind: str = "default", beta: float = 0.6) -> Candidates:
    """Set the scores of boxes to 0 that overlap a better one of their class by more than `overlap`.

    Overlap is the intersection over union (default, cornersnms); for diounms less (d²/c²)^β, d the distance of the
    centres and c the diagonal of the box around both; for greedynms the same with β = 0.6 (Zheng et al., "Distance-IoU
    loss", 2020). With objectness, boxes are compared by that, whatever their class (do_nms_obj).
    """
    if kind not in KINDS:
        raise GraphError(f"suppression {kind!r} is not one of {KINDS}")
    if kind == "objectness":
        kept = _kept(found.boxes, found.objectness, overlap, None)
        return Candidates(found.boxes, found.objectness * kept, found.scores * kept[:, None])
    exponent = {"greedynms": GREEDY_BETA, "diounms": beta}.get(kind)
    scores = found.scores.copy()
    for label in range(scores.shape[1]):
        there = np.flatnonzero(scores[:, label] > 0)
        scores[there, label] *= _kept(found.boxes[there], scores[there, label], overlap, exponent)
    return Candidates(found.boxes, found.objectness, scores)


def _kept(boxes: Array, scores: Array, overlap: float, exponent: float | None) -> Array:
    """[K] of bool: the boxes that no better one which is kept itself overlaps."""
    kept = np.ones(len(boxes), bool)
    order = np.argsort(-scores, kind="stable")
    for place, i in enumerate(order):
        if kept[i]:
            rest = order[place + 1 :]
            kept[rest[overlaps(boxes[i], boxes[rest], exponent) > overlap]] = False
    return kept


def overlaps(box: Array, others: Array, exponent: float | None = None) -> Array:
    """Intersection over union of a box [4] with others [K, 4], less the distance term when there is an exponent."""
    low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    lows, highs = others[:, :2] - others[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2
    inner = (np.minimum(high, highs) - np.maximum(low, lows)).clip(min=0).prod(axis=1)
    union = box[2:].prod() + others[:, 2:].prod(axis=1) - inner
    iou: Array = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    if exponent is None:
        return iou
    diagonal = ((np.maximum(high, highs) - np.minimum(low, lows)) ** 2).sum(axis=1)
    distance = ((box[:2] - others[:, :2]) ** 2).sum(axis=1)
    share = np.divide(distance, diagonal, out=np.zeros_like(distance), where=diagonal > 0)
    return iou - share**exponent
