"""Normalisation by PyTorch; darknet's form from its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphsr.op import Array
from graphsr.ops import BatchNorm, BatchNormTrain
from graphsr.testing import Case


def batch_norm(case: Case) -> Array:
    assert isinstance(case.op, BatchNorm)
    if case.op.form == "outside":
        return darknet_batch_norm(case, case.op.eps)
    torch = pytest.importorskip("torch")
    x, scale, bias, mean, var = map(torch.from_numpy, case.inputs)
    return torch.nn.functional.batch_norm(x, mean, var, scale, bias, eps=case.op.eps).numpy()


def darknet_batch_norm(case: Case, eps: float) -> Array:
    """normalize_cpu, scale_bias and add_bias of darknet, channel by channel."""
    x, scale, bias, mean, var = case.inputs
    y = x.copy()
    for c in range(x.shape[1]):
        y[:, c] = (x[:, c] - mean[c]) / (np.sqrt(var[c]) + eps)
        y[:, c] *= scale[c]
        y[:, c] += bias[c]
    return y


def batch_norm_train(case: Case) -> Array:
    assert isinstance(case.op, BatchNormTrain)
    x, scale, bias = case.inputs
    if x.size == x.shape[1]:  # PyTorch refuses one value per channel; it is its own mean
        return np.zeros_like(x) + bias.reshape(-1, *[1] * (x.ndim - 2))
    torch = pytest.importorskip("torch")
    weights = map(torch.from_numpy, (scale, bias))
    return torch.nn.functional.batch_norm(
        torch.from_numpy(x), None, None, *weights, training=True, eps=case.op.eps
    ).numpy()


def weight_norm(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    v, g = map(torch.from_numpy, case.inputs)
    return torch._weight_norm(v, g, 0).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {
    "batch_norm": batch_norm,
    "batch_norm_train": batch_norm_train,
    "weight_norm": weight_norm,
}
