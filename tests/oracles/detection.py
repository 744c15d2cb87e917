"""The heads of detectors in PyTorch, entry by entry; local connections as a product with unfolded patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphsr.op import Array
from graphsr.ops import GaussianYoloHead, GridHead, LocalConv2d, RegionHead, YoloHead
from graphsr.testing import Case


def yolo_head(case: Case) -> Array:
    op = case.op
    assert isinstance(op, YoloHead)

    def entry(e: int, x: Any) -> Any:
        if not op.new_coords and e not in (2, 3):
            x = x.sigmoid()
        return op.scale_xy * x - 0.5 * (op.scale_xy - 1) if e < 2 else x

    return by_entry(case, len(op.anchors), entry)


def gaussian_yolo_head(case: Case) -> Array:
    op = case.op
    assert isinstance(op, GaussianYoloHead)

    def entry(e: int, x: Any) -> Any:
        x = x if e in (4, 6) else x.sigmoid()
        return op.scale_xy * x - 0.5 * (op.scale_xy - 1) if e in (0, 2) else x

    return by_entry(case, len(op.anchors), entry)


def by_entry(case: Case, anchors: int, entry: Callable[[int, Any], Any]) -> Array:
    torch = pytest.importorskip("torch")
    (x,) = case.inputs
    entries = x.shape[1] // anchors
    channels = [entry(i % entries, channel) for i, channel in enumerate(torch.from_numpy(x).unbind(1))]
    return torch.stack(channels, 1).numpy()


def region_head(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op = case.op
    assert isinstance(op, RegionHead)
    parts = []
    for x in torch.from_numpy(case.inputs[0]).chunk(len(op.anchors), 1):
        xy, other, objectness, classes = x.split([2, op.coords - 2, 1, op.classes], 1)
        if op.tree:
            classes = torch.cat([group.softmax(1) for group in classes.split(list(op.tree), 1)], 1)
            objectness = objectness if op.background else objectness.sigmoid()
        elif op.softmax and op.background:
            objectness, classes = torch.cat([objectness, classes], 1).softmax(1).split([1, op.classes], 1)
        else:
            classes = classes.softmax(1) if op.softmax else classes.sigmoid()
            objectness = objectness if op.background else objectness.sigmoid()
        parts += [xy.sigmoid(), other, objectness, classes]
    return torch.cat(parts, 1).numpy()


def grid_head(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op = case.op
    assert isinstance(op, GridHead)
    x = torch.from_numpy(case.inputs[0])
    count = op.side**2 * op.classes
    cells = x[:, :count].unflatten(1, (op.side**2, op.classes))
    cells = cells.softmax(2) if op.softmax else cells
    return torch.cat([cells.flatten(1, 2), x[:, count:]], 1).numpy()


def local_conv2d(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op = case.op
    assert isinstance(op, LocalConv2d)
    x, weight, bias = map(torch.from_numpy, case.inputs)
    top, left, bottom, right = op.padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    ho, wo, co = weight.shape[:3]
    patches = torch.nn.functional.unfold(padded, tuple(weight.shape[4:]), stride=op.stride)
    y = torch.einsum("lok,nkl->nol", weight.reshape(ho * wo, co, -1), patches)
    return (y.reshape(-1, co, ho, wo) + bias).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {
    "gaussian_yolo_head": gaussian_yolo_head,
    "grid_head": grid_head,
    "local_conv2d": local_conv2d,
    "region_head": region_head,
    "yolo_head": yolo_head,
}
