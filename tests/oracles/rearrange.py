"""Depth to space and back by PyTorch; its other channel order element by element from the definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import DepthToSpace, SpaceToDepth
from graphsr.testing import Case


def depth_to_space(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, DepthToSpace)
    if op.mode == "crd":
        torch = pytest.importorskip("torch")
        return torch.nn.functional.pixel_shuffle(torch.from_numpy(x), op.block).numpy()
    (n, c, h, w), b = x.shape, op.block
    y = np.empty((n, c // b**2, h * b, w * b))
    for _, channel, row, column in np.ndindex(*y.shape):
        depth = (b * (row % b) + column % b) * y.shape[1] + channel
        y[:, channel, row, column] = x[:, depth, row // b, column // b]
    return y


def space_to_depth(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, SpaceToDepth)
    if op.mode == "crd":
        torch = pytest.importorskip("torch")
        return torch.nn.functional.pixel_unshuffle(torch.from_numpy(x), op.block).numpy()
    b = op.block  # TensorFlow's order: one whole copy of the channels for each position in the block
    return np.concatenate([x[:, :, i::b, j::b] for i in range(b) for j in range(b)], axis=1)


ORACLES: dict[str, Callable[[Case], Array]] = {"depth_to_space": depth_to_space, "space_to_depth": space_to_depth}
