"""Normalisation by PyTorch; the norms from their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphsr.op import Array
from graphsr.ops import GroupNorm, InstanceNorm, L1Norm, L2Norm, LayerNorm, LocalResponseNorm, LogSoftmax, RmsNorm
from graphsr.testing import Case

Oracle = Callable[[Case], Array]


def by_torch(function: Callable[..., Any]) -> Oracle:
    """`function(torch.nn.functional, op, *tensors)`"""

    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        return function(torch.nn.functional, case.op, *map(torch.from_numpy, case.inputs)).numpy()

    return oracle


def layer_norm(f: Any, op: LayerNorm, x: Any, scale: Any, bias: Any = None) -> Any:
    return f.layer_norm(x, scale.shape, scale, bias, op.eps)


def rms_norm(f: Any, op: RmsNorm, x: Any, scale: Any) -> Any:
    return f.rms_norm(x, scale.shape, scale, op.eps)


def group_norm(f: Any, op: GroupNorm, x: Any, scale: Any, bias: Any) -> Any:
    """PyTorch refuses one value per group, which is its own mean; a copy of each image changes no statistics."""
    if x[0].numel() == op.groups:
        return (x * 0).movedim(1, -1).add(bias).movedim(-1, 1)
    return f.group_norm(x, op.groups, scale, bias, op.eps)


def instance_norm(f: Any, op: InstanceNorm, x: Any, scale: Any, bias: Any) -> Any:
    pixels = x.reshape(len(x), x.shape[1], -1)
    if pixels.shape[2] == 1:
        return (x * 0).movedim(1, -1).add(bias).movedim(-1, 1)
    return f.instance_norm(pixels, weight=scale, bias=bias, eps=op.eps).reshape(x.shape)


def l1_norm(f: Any, op: L1Norm, x: Any) -> Any:
    return x / (x.abs().sum(op.axes, keepdim=True) + op.eps) if op.axes else x / (x.abs() + op.eps)


def l2_norm(f: Any, op: L2Norm, x: Any) -> Any:
    square = x.square().sum(op.axes, keepdim=True) if op.axes else x.square()
    return x / (square + op.eps).sqrt()


def local_response_norm(f: Any, op: LocalResponseNorm, x: Any) -> Any:
    """Of windows of an even size PyTorch has the extra channel at the other end."""
    flipped = x.flip(1)
    if x.ndim == 2:
        flipped = flipped[..., None]
    return f.local_response_norm(flipped, op.size, op.alpha, op.beta, op.kappa).reshape(x.shape).flip(1)


def log_softmax(f: Any, op: LogSoftmax, x: Any) -> Any:
    return f.log_softmax(x, op.axis)


ORACLES: dict[str, Oracle] = {
    "layer_norm": by_torch(layer_norm),
    "rms_norm": by_torch(rms_norm),
    "group_norm": by_torch(group_norm),
    "instance_norm": by_torch(instance_norm),
    "l1_norm": by_torch(l1_norm),
    "l2_norm": by_torch(l2_norm),
    "local_response_norm": by_torch(local_response_norm),
    "log_softmax": by_torch(log_softmax),
}
