"""Batch normalisation as darknet stores it."""

from __future__ import annotations

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import BatchNorm

EPS = 1e-5
"""Of darknet's batch normalisation; another one goes into the variances."""


def normalised(norm: tuple[BatchNorm, tuple[Array, ...], Node] | None, bias: Array) -> tuple[list[Array], Node | None]:
    """([bias] or [bias, scale, mean, var], node of the normalisation), for a layer that adds `bias` itself."""
    if norm is None:
        return [bias], None
    op, (scale, beta, mean, var), node = norm
    return [beta, scale, mean - bias, darknet_variance(op, var)], node


def darknet_variance(op: BatchNorm, var: Array) -> Array:
    """The variance that gives the same deviation with darknet's ε."""
    if op.form == "inside" and op.eps == EPS:
        return var
    return (op.deviation(var.astype(np.float64)) ** 2 - EPS).astype(np.float32)
