"""The fully connected layer and softmax by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphsr.op import Array
from graphsr.ops import Softmax
from graphsr.testing import Case


def dense(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    return torch.nn.functional.linear(*map(torch.from_numpy, case.inputs)).numpy()


def softmax(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    assert isinstance(case.op, Softmax)
    return torch.softmax(torch.from_numpy(case.inputs[0]) / case.op.temperature, case.op.axis).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {"dense": dense, "softmax": softmax}
