"""Convolutions by PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphsr.op import Array
from graphsr.ops import Conv2d, ConvTranspose2d, Fused
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


def fused(case: Case) -> Array:
    """y = act(α·base + β·r) from the oracle of the base and the formula written out."""
    op = case.op
    assert isinstance(op, Fused)
    inputs = case.inputs[:-1] if op.residual else case.inputs
    oracle = conv2d if isinstance(op.base, Conv2d) else conv_transpose2d
    y = oracle(Case(op.base, inputs))
    if op.residual:
        y = op.residual.alpha * y + op.residual.beta * case.inputs[-1]
    return y * (y > 0) if op.activation else y


ORACLES: dict[str, Callable[[Case], Array]] = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "fused": fused,
}
