"""How recurrent layers are written as ONNX: by RNN, LSTM and GRU or, where these lack a form, step by step.

Symbols as in `graphsr.ops.recurrent`: x[T, N, I], w[G·H, I], r[G·H, H], biases b and q, state h.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsr.ops import Gru, Logistic, Lstm, Relu, Rnn, SimpleRnn, Tanh
from graphsr.ops.activation import Activation

from .onnx_export_ops_activation import ACTIVATIONS
from .onnx_export_writer import Rules, Site, UnwritableError, integers

NAMED: dict[type[Activation], str] = {Tanh: "Tanh", Logistic: "Sigmoid", Relu: "Relu"}
"""Activations that every engine knows in its recurrent operators."""


def _operator(
    s: Site,
    operator: str,
    x: str,
    parameters: tuple[str, ...],
    states: tuple[str, ...],
    activations: list[str],
    **how: int,
) -> str:
    """RNN, LSTM or GRU in one direction, which has an axis of its own in all parameters, states and results."""
    weight, recurrent, bias = (s("Unsqueeze", value, integers([0])) for value in parameters)
    before = [s("Unsqueeze", state, integers([0])) for state in states]
    hidden = s.types[2].dims[1]
    y = s(operator, x, weight, recurrent, bias, "", *before, hidden_size=hidden, activations=activations, **how)
    return s("Squeeze", y, integers([1]))


def _ordered(s: Site, parameters: tuple[str, ...], order: str, wanted: str) -> tuple[str, ...]:
    """The rows of the gates in the order of ONNX."""
    if order == wanted:
        return parameters
    hidden = s.types[2].dims[1]
    rows = np.concatenate([np.arange(hidden) + hidden * order.index(gate) for gate in wanted]).astype(np.int64)
    return tuple(s("Gather", parameter, rows, axis=0) for parameter in parameters)


def _simple_rnn(s: Site, op: SimpleRnn, x: str, w: str, r: str, b: str, h: str) -> str:
    if name := NAMED.get(type(op.activation)):
        biases = s("Concat", b, np.zeros(s.types[3].dims, s.dtype), axis=0)
        return _operator(s, "RNN", x, (w, r, biases), (h,), [name])
    turned = s("Transpose", r, perm=[1, 0])

    def step(a: str, h: str) -> str:
        return _activated(s, op.activation, s("Add", a, s("MatMul", h, turned)))

    return _unrolled(s, _from_input(s, x, w, b), h, step)


def _rnn(s: Site, op: Rnn, x: str, w: str, r: str, b: str, q: str, h: str) -> str:
    turned = s("Transpose", r, perm=[1, 0])
    from_input = _activated(s, op.activation, _from_input(s, x, w, b))

    def step(y: str, h: str) -> str:
        from_state = _activated(s, op.activation, s("Add", s("MatMul", h, turned), q))
        total = s("Add", y, from_state)
        return s("Add", total, h) if op.shortcut else total

    return _unrolled(s, from_input, h, step)


def _lstm(s: Site, op: Lstm, x: str, w: str, r: str, b: str, h: str, c: str) -> str:
    if op.output == "hidden":
        w, r, b = _ordered(s, (w, r, b), op.order, "iofg")
        biases = s("Concat", b, np.zeros(s.types[3].dims, s.dtype), axis=0)
        return _operator(s, "LSTM", x, (w, r, biases), (h, c), ["Sigmoid", "Tanh", "Tanh"])
    turned = s("Transpose", r, perm=[1, 0])
    cell = s("Unsqueeze", c, integers([0]))
    cells: list[str] = []

    def step(a: str, h: str) -> str:
        gates = _gates(s, s("Add", a, s("MatMul", h, turned)), op.order)
        i, f, o = (s("Sigmoid", gates[name]) for name in "ifo")
        kept = s("Mul", f, cells[-1] if cells else cell)
        cells.append(s("Add", kept, s("Mul", i, s("Tanh", gates["g"]))))
        return s("Mul", o, s("Tanh", cells[-1]))

    _unrolled(s, _from_input(s, x, w, b), h, step)
    return s("Concat", *cells, axis=0)


def _gru(s: Site, op: Gru, x: str, w: str, r: str, b: str, q: str, h: str) -> str:
    if name := NAMED.get(type(op.activation)):
        w, r, b, q = _ordered(s, (w, r, b, q), op.order, "zrh")
        parameters = (w, r, s("Concat", b, q, axis=0))
        return _operator(s, "GRU", x, parameters, (h,), ["Sigmoid", name], linear_before_reset=int(op.reset == "after"))
    rows = [s.types[2].dims[1]] * 3
    recurrent = dict(zip(op.order, s.several("Split", 3, r, integers(rows), axis=0), strict=True))
    biases = dict(zip(op.order, s.several("Split", 3, q, integers(rows), axis=0), strict=True))
    turned = {gate: s("Transpose", part, perm=[1, 0]) for gate, part in recurrent.items()}

    def read(gate: str, h: str) -> str:
        return s("Add", s("MatMul", h, turned[gate]), biases[gate])

    def step(a: str, h: str) -> str:
        gates = _gates(s, a, op.order)
        z, reset = (s("Sigmoid", s("Add", gates[gate], read(gate, h))) for gate in "zr")
        from_state = read("h", s("Mul", reset, h)) if op.reset == "before" else s("Mul", reset, read("h", h))
        k = _activated(s, op.activation, s("Add", gates["h"], from_state))
        return s("Add", s("Mul", z, h), s("Mul", s("Sub", s.number(1), z), k))

    return _unrolled(s, _from_input(s, x, w, b), h, step)


def _activated(s: Site, activation: Activation, x: str) -> str:
    return ACTIVATIONS[type(activation)](s, activation, x)


def _from_input(s: Site, x: str, w: str, b: str) -> str:
    """w·x[t] + b of all steps"""
    return s("Add", s("MatMul", x, s("Transpose", w, perm=[1, 0])), b)


def _gates(s: Site, a: str, order: str) -> dict[str, str]:
    """The parts of the last axis that belong to each gate."""
    sizes = integers([s.types[2].dims[1]] * len(order))
    return dict(zip(order, s.several("Split", len(order), a, sizes, axis=2), strict=True))


def _unrolled(s: Site, from_input: str, state: str, step: Callable[[str, str], str]) -> str:
    """The states after every step; `step(what comes from the input, state)` gives the next state."""
    count = s.x.shape[0]
    if not isinstance(count, int) or count == 0:
        raise UnwritableError("without an operator of its own it is written step by step: their number must be known")
    inputs = [from_input]
    if count > 1:
        inputs = s.several("Split", count, from_input, integers([1] * count), axis=0)
    states = [s("Unsqueeze", state, integers([0]))]
    for a in inputs:
        states.append(step(a, states[-1]))
    return s("Concat", *states[1:], axis=0)


RECURRENT: Rules = {SimpleRnn: _simple_rnn, Rnn: _rnn, Lstm: _lstm, Gru: _gru}
