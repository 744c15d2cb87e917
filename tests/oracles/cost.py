"""Costs by PyTorch; dropout with a Philox generator of our own; cut-out images pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import CropAndResize, Dropout, MaskedCost
from graphsr.ops.cost import Cost
from graphsr.testing import Case

Element = Callable[[Any, Any, Any, Any], Any]
"""(torch, op, x, t) -> the loss of every element"""

ELEMENTS: dict[str, Element] = {
    "mse_cost": lambda torch, op, x, t: torch.nn.functional.mse_loss(x, t, reduction="none"),
    "mae_cost": lambda torch, op, x, t: torch.nn.functional.l1_loss(x, t, reduction="none"),
    "smooth_cost": lambda torch, op, x, t: 2 * torch.nn.functional.huber_loss(x, t, reduction="none"),
    "seg_cost": lambda torch, op, x, t: torch.nn.functional.binary_cross_entropy(x, t, reduction="none"),
    "wgan_cost": lambda torch, op, x, t: torch.where(t.bool(), -x, x),
    "hellinger_cost": lambda torch, op, x, t: x + t - 2 * (x * t).sqrt(),
    "hinge_cost": lambda torch, op, x, t: torch.relu(1 - t * x),
    "logcosh_cost": lambda torch, op, x, t: torch.cosh(x - t).log(),
    "masked_cost": lambda torch, op, x, t: torch.where(t == mark(op), t - t, (x - t).square()),
}


def mark(op: Any) -> float:
    assert isinstance(op, MaskedCost)
    return op.mark


def cost(element: Element) -> Callable[[Case], Array]:
    """Weighted by the rules of the base class, one after the other; the slope is PyTorch's own."""

    def oracle(case: Case) -> Array:
        torch = pytest.importorskip("torch")
        op, (x, t) = case.op, map(torch.from_numpy, case.inputs)
        assert isinstance(op, Cost)
        x = x.clone().requires_grad_()
        smooth = t * (1 - op.smoothing) + op.smoothing / t[0].numel() if op.smoothing else t
        losses = element(torch, op, x, smooth)
        weights = torch.ones_like(t).masked_fill(t == 0, op.noobject_scale)
        (slope,) = torch.autograd.grad(losses.sum(), x)
        if op.threshold:
            weights[(weights * slope).abs() < op.threshold] = 0
        return (op.scale * (weights * losses).sum() / x.numel()).detach().numpy()

    return oracle


def logistic_cost(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    x, t = map(torch.from_numpy, case.inputs)
    return torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="sum").numpy()


def dropout(case: Case) -> Array:
    op, (x, *step) = case.op, case.inputs
    assert isinstance(op, Dropout)
    key = (op.seed, int(step[0]) % 2**64 if step else 0)
    numbers = [u for block in range(1, x.size // 4 + 2) for u in philox(block, key)]
    keep = np.array([u / 2**64 >= op.probability for u in numbers[: x.size]]).reshape(x.shape)
    return np.where(keep, x / (1 - op.probability), 0.0)


def philox(block: int, key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 of Salmon et al. 2011, with the counter (block, 0, 0, 0)."""
    mask, counter = 2**64 - 1, (block, 0, 0, 0)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = (
            (second >> 64) ^ counter[1] ^ key[0],
            second & mask,
            (first >> 64) ^ counter[3] ^ key[1],
            first & mask,
        )
        key = (key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask
    return counter


def crop_and_resize(case: Case) -> Array:
    op, (x,) = case.op, case.inputs
    assert isinstance(op, CropAndResize)
    y = np.full(op.infer(*case.types).dims, op.value)
    top, left, bottom, right = op.region
    for i, j in np.ndindex(*y.shape[2:]):
        u = place(i, top, bottom, x.shape[2], y.shape[2])
        v = place(j, left, right, x.shape[3], y.shape[3])
        if 0 <= u <= x.shape[2] - 1 and 0 <= v <= x.shape[3] - 1:
            y[:, :, i, j] = sum(
                max(0, 1 - abs(u - p)) * max(0, 1 - abs(v - q)) * x[:, :, p, q] for p, q in np.ndindex(*x.shape[2:])
            )
    return y


def place(i: int, start: float, stop: float, n: int, m: int) -> float:
    """The linear function with the border of the region at 0 and m − 1."""
    share = i / (m - 1) if m > 1 else 0.5
    return (n - 1) * ((1 - share) * start + share * stop)


ORACLES: dict[str, Callable[[Case], Array]] = {
    **{name: cost(element) for name, element in ELEMENTS.items()},
    "logistic_cost": logistic_cost,
    "dropout": dropout,
    "crop_and_resize": crop_and_resize,
}
