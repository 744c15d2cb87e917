"""Gradients of recurrent layers, normalisations and costs are those of PyTorch's own layers, for a drawn cotangent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.op import Array, Op
from graphsr.ops import (
    BatchNormTrain,
    Gru,
    L1Norm,
    L2Norm,
    LogCoshCost,
    LogisticCost,
    Lstm,
    MaeCost,
    MseCost,
    SegCost,
    SimpleRnn,
    SmoothCost,
)
from graphsr.testing import arrays, tolerance

pytest.importorskip("torch")

import torch

F = torch.nn.functional
Function = Callable[..., Any]


def agree(op: Op, function: Function, inputs: list[Array], data: st.DataObject) -> None:
    """Each input's gradient, in double precision."""
    output = op.forward(*inputs)
    cotangent = data.draw(arrays(output.shape)).astype("float64")
    leaves = [torch.from_numpy(x).requires_grad_() for x in inputs]
    y = function(*leaves)
    theirs = torch.autograd.grad(y, leaves, torch.from_numpy(cotangent))
    atol = tolerance("float64", max(1, output.size), 1e3)
    np.testing.assert_allclose(output, y.detach().numpy(), rtol=0, atol=atol)
    for ours, their in zip(op.vjp(tuple(inputs), output, cotangent), theirs, strict=True):
        assert ours is not None
        np.testing.assert_allclose(ours, their.numpy(), rtol=0, atol=atol * max(1.0, float(their.abs().max())))


def by_module(kind: type[Any], biases: int) -> Function:
    """x, weight, weight of the state, biases, states -> the outputs of PyTorch's module with these parameters."""

    def function(x: Any, *rest: Any) -> Any:
        parameters, states = rest[: 2 + biases], tuple(state[None] for state in rest[2 + biases :])
        module = kind(x.shape[2], parameters[1].shape[1], dtype=x.dtype)
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
        if biases == 1:
            parameters = (*parameters, torch.zeros_like(parameters[2]))
        given = dict(zip(names, parameters, strict=True))
        start = states if len(states) > 1 else states[0]
        return torch.func.functional_call(module, given, (x, start))[0]

    return function


@pytest.mark.parametrize(
    ("op", "kind", "gates", "biases", "states"),
    [
        (SimpleRnn(), torch.nn.RNN, 1, 1, 1),
        (Lstm("ifgo"), torch.nn.LSTM, 4, 1, 2),
        (Gru("rzh", "after"), torch.nn.GRU, 3, 2, 1),
    ],
    ids=["simple_rnn", "lstm", "gru"],
)
@settings(max_examples=25)
@given(data=st.data())
def test_recurrent_layers(op: Op, kind: type[Any], gates: int, biases: int, states: int, data: st.DataObject) -> None:
    steps, batch, size, hidden = (data.draw(st.integers(1, 3)) for _ in range(4))
    rows = gates * hidden
    shapes = [(steps, batch, size), (rows, size), (rows, hidden), *[(rows,)] * biases, *[(batch, hidden)] * states]
    agree(op, by_module(kind, biases), [data.draw(arrays(shape)).astype("float64") for shape in shapes], data)


def log_cosh(x: Any, t: Any) -> Any:
    return torch.cosh(x - t).log().mean()


COSTS: dict[str, tuple[Op, Function]] = {
    "mse": (MseCost(), F.mse_loss),
    "mae": (MaeCost(), F.l1_loss),
    "smooth": (SmoothCost(), lambda x, t: 2 * F.huber_loss(x, t)),
    "logcosh": (LogCoshCost(), log_cosh),
    "logistic": (LogisticCost(), lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum")),
}


@pytest.mark.parametrize("name", COSTS)
@given(data=st.data())
def test_costs(name: str, data: st.DataObject) -> None:
    op, function = COSTS[name]
    agree(op, function, [data.draw(arrays((2, 3), 3)).astype("float64") for _ in range(2)], data)


@given(data=st.data())
def test_cost_of_probabilities(data: st.DataObject) -> None:
    x, t = (data.draw(arrays((2, 3))).astype("float64") * 0.25 + 0.5 for _ in range(2))
    agree(SegCost(), lambda x, t: -(t * x.log() + (1 - t) * (1 - x).log()).mean(), [x, t], data)


@settings(max_examples=25)
@given(data=st.data())
def test_normalisations(data: st.DataObject) -> None:
    x = data.draw(arrays((2, 3, 2, 2))).astype("float64")
    x += np.where(x < 0, -0.5, 0.5)  # away from 0, where a direction has no gradient
    agree(L1Norm((1,)), lambda x: F.normalize(x, p=1, dim=1), [x], data)
    agree(L2Norm((1,)), lambda x: F.normalize(x, p=2, dim=1), [x], data)
    scale, bias = (data.draw(arrays((3,))).astype("float64") for _ in range(2))
    agree(
        BatchNormTrain(0.5),
        lambda x, s, b: F.batch_norm(x, None, None, s, b, training=True, eps=0.5),
        [x, scale, bias],
        data,
    )
