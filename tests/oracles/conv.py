"""Convolutions by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphsr.op import Array
from graphsr.ops import Conv2d, ConvTranspose2d
from graphsr.testing import Case


def conv2d(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, (x, weight, *bias) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, Conv2d)
    top, left, bottom, right = op.padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    out = torch.nn.functional.conv2d(padded, weight, *bias, stride=op.stride, dilation=op.dilation, groups=op.groups)
    return out.numpy()


def conv_transpose2d(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, (x, weight, *bias) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, ConvTranspose2d)
    full = torch.nn.functional.conv_transpose2d(
        x, weight, *bias, stride=op.stride, output_padding=op.output_padding, dilation=op.dilation, groups=op.groups
    )
    top, left, bottom, right = op.padding
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right].numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {"conv2d": conv2d, "conv_transpose2d": conv_transpose2d}
