"""Arithmetic by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import Shortcut
from graphsr.testing import Case


def shortcut(case: Case) -> Array:
    assert isinstance(case.op, Shortcut)
    return np.tensordot([case.op.alpha, case.op.beta], np.stack(case.inputs), axes=1)


def arithmetic(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    return getattr(torch, case.op.name)(*map(torch.tensor, case.inputs)).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {
    "shortcut": shortcut,
    "add": arithmetic,
    "sub": arithmetic,
    "mul": arithmetic,
    "div": arithmetic,
}
