"""Recurrent layers by PyTorch's modules where it has them, else one step after the other by PyTorch's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphsr.op import Array
from graphsr.ops import Activation, Gru, Lstm, Rnn, SimpleRnn, Tanh
from graphsr.testing import Case


def function(torch: Any, activation: Activation) -> Any:
    return torch.tanh if isinstance(activation, Tanh) else torch.sigmoid


def simple_rnn(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, (x, w, r, b, state) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, SimpleRnn)
    if isinstance(op.activation, Tanh):
        return by_module(torch, torch.nn.RNN, x, (w, r, b, torch.zeros_like(b)), state[None])[0].numpy()
    states = []
    for step in x:
        state = torch.sigmoid(torch.cat([step, state], 1) @ torch.cat([w, r], 1).T + b)
        states.append(state)
    return torch.stack(states).numpy()


def by_module(torch: Any, module: Any, x: Any, parameters: tuple[Any, ...], state: Any) -> Any:
    """The outputs of a module of PyTorch with these parameters in its own order of gates."""
    made = module(x.shape[2], parameters[1].shape[1], dtype=x.dtype)
    with torch.no_grad():
        for slot, value in zip(made.parameters(), parameters, strict=True):
            slot.copy_(value)
        return made(x, state)


def reordered(torch: Any, parameter: Any, order: str, wanted: str) -> Any:
    """The rows of the gates in another order."""
    rows = dict(zip(order, parameter.chunk(len(order)), strict=True))
    return torch.cat([rows[gate] for gate in wanted])


def rnn(case: Case) -> Array:
    """forward_rnn_layer of darknet: the sum of the outputs of two connected layers."""
    torch = pytest.importorskip("torch")
    op, (x, w, r, b, q, state) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, Rnn)
    f, linear, states = function(torch, op.activation), torch.nn.functional.linear, []
    for step in x:
        new = state.clone() if op.shortcut else torch.zeros_like(state)
        state = new + f(linear(step, w, b)) + f(linear(state, r, q))
        states.append(state)
    return torch.stack(states).numpy()


def lstm(case: Case) -> Array:
    """The cells after every step: those after one step, as often as there are steps."""
    torch = pytest.importorskip("torch")
    op, (x, w, r, b, h, c) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, Lstm)
    parameters = tuple(reordered(torch, p, op.order, "ifgo") for p in (w, r, b))
    parameters = (*parameters, torch.zeros_like(b))
    outputs, cells, state = [], [], (h[None], c[None])
    for step in x:
        y, state = by_module(torch, torch.nn.LSTM, step[None], parameters, state)
        outputs.append(y[0])
        cells.append(state[1][0])
    return torch.stack(outputs if op.output == "hidden" else cells).numpy()


def gru(case: Case) -> Array:
    torch = pytest.importorskip("torch")
    op, (x, w, r, b, q, h) = case.op, map(torch.from_numpy, case.inputs)
    assert isinstance(op, Gru)
    parameters = tuple(reordered(torch, p, op.order, "rzh") for p in (w, r, b, q))
    if op.reset == "after" and isinstance(op.activation, Tanh):
        return by_module(torch, torch.nn.GRU, x, parameters, h[None])[0].numpy()
    f, linear, states = function(torch, op.activation), torch.nn.functional.linear, []
    (wr, wz, wh), (rr, rz, rh), (br, bz, bh), (qr, qz, qh) = (p.chunk(3) for p in parameters)
    for step in x:
        reset = torch.sigmoid(linear(step, wr, br) + linear(h, rr, qr))
        update = torch.sigmoid(linear(step, wz, bz) + linear(h, rz, qz))
        from_state = linear(reset * h, rh, qh) if op.reset == "before" else reset * linear(h, rh, qh)
        h = torch.lerp(f(linear(step, wh, bh) + from_state), h, update)
        states.append(h)
    return torch.stack(states).numpy()


ORACLES: dict[str, Callable[[Case], Array]] = {"simple_rnn": simple_rnn, "rnn": rnn, "lstm": lstm, "gru": gru}
