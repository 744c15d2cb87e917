"""Sampling by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import GridSample
from graphsr.testing import Case


def grid_sample(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, GridSample)
    return np.asarray(by_torch(case.op, *map(torch.tensor, case.inputs)).numpy())


def by_torch(op: GridSample, x: Any, grid: Any) -> Any:
    """Images in every mode, volumes by their pixels or linearly."""
    from torch.nn import functional

    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.mode, op.mode)
    return functional.grid_sample(x, grid, mode, op.padding, align_corners=op.align_corners)


ORACLES: dict[str, Callable[[Case], Array]] = {"grid_sample": grid_sample}
