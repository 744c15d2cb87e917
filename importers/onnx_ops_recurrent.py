"""RNN, LSTM and GRU of ONNX.

Symbols: T steps, N sequences, D directions (1 or 2), G gates, I inputs, H size of a state; x[T, N, I], w[G·H, I],
r[G·H, H], biases b and q [G·H], states h and c [N, H].

A direction is one scan (`graphsr.ops.recurrent`), whose number of steps may be open. What no scan has is written step
by step from its equations, for a known number of steps: `clip`, peepholes, `input_forget`, other activations.
The reverse direction is the same on the turned sequence. `sequence_lens` needs no more than that: what comes behind the
end of a sequence does not reach back, so that it is set to zero at last; turning knows where each sequence ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from graphsr.dim import Dim, Size
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import (
    Add,
    Arange,
    Cast,
    Clip,
    Concat,
    Dense,
    Elu,
    Expand,
    Full,
    GatherElements,
    Gru,
    HardSigmoid,
    Leaky,
    Less,
    Logistic,
    Lstm,
    Maximum,
    Mul,
    Relu,
    Reshape,
    SimpleRnn,
    Slice,
    SoftPlus,
    SoftSign,
    Split,
    Sub,
    Tanh,
    ThresholdedRelu,
    Transpose,
    Where,
)
from graphsr.ops.activation import Activation

from .onnx_call import Call, operator
from .onnx_values import OpenValueError

MOST_STEPS = 1000
"""So many steps are written one by one: a file of a kilobyte could ask for any number."""

Function: TypeAlias = "tuple[Op | tuple[Op, float], ...]"
"""Ops to apply one after the other; some take a number as their second operand."""
NEEDED = None
"""A parameter of an activation that has no default."""

ACTIVATIONS: dict[str, tuple[Callable[..., Function], tuple[float | None, ...]]] = {
    "Affine": (lambda alpha, beta: ((Mul(), alpha), (Add(), beta)), (NEEDED, NEEDED)),
    "Elu": (lambda alpha: (Elu(alpha),), (1.0,)),
    "HardSigmoid": (lambda alpha, beta: (HardSigmoid(alpha, beta),), (0.2, 0.5)),
    "LeakyRelu": (lambda alpha: (Leaky(alpha),), (0.01,)),
    "Relu": (lambda: (Relu(),), ()),
    "ScaledTanh": (lambda alpha, beta: ((Mul(), beta), Tanh(), (Mul(), alpha)), (NEEDED, NEEDED)),
    "Sigmoid": (lambda: (Logistic(),), ()),
    "Softplus": (lambda: (SoftPlus(),), ()),
    "Softsign": (lambda: (SoftSign(),), ()),
    "Tanh": (lambda: (Tanh(),), ()),
    "ThresholdedRelu": (lambda alpha: (ThresholdedRelu(alpha),), (1.0,)),
}
"""How an activation is made from its parameters, and their defaults: α, or α and β."""
SIGMOID: Function = (Logistic(),)
TANH: Function = (Tanh(),)


@dataclass(frozen=True)
class Direction:
    """What one direction computes with: the sequence in the order of its steps, and its part of all parameters."""

    x: Node
    weight: Node
    recurrent: Node
    bias: Node
    recurrent_bias: Node
    before: tuple[Node, ...]
    """The states before the first step: h or, for an LSTM, h and c."""
    peepholes: Node | None
    functions: tuple[Function, ...]

    @property
    def both_biases(self) -> tuple[Node, Node]:
        return self.bias, self.recurrent_bias


@dataclass(frozen=True)
class Kind:
    """An operator: its gates in the order of the rows, its activations, which inputs are the states before the first
    step, and what gives the states after every step, each [T, N, H]."""

    gates: str
    activations: tuple[str, ...]
    states: tuple[int, ...]
    run: Callable[[Call, Direction], tuple[Node, ...]]
    clipped: int
    """`clip` bounds the arguments of so many of the activations: all but that of the cell itself, as in onnxruntime."""


DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""Which of the directions run backwards."""


@operator("RNN", "LSTM", "GRU")
def recurrent(call: Call) -> list[Node]:
    """y[T, D, N, H] and the last states [D, N, H].

    | since | RNN | LSTM | GRU |
    |---|---|---|---|
    | 1 | `output_sequence`: whether there is y, which its name says as well | the same | the same |
    | 3 | | | `linear_before_reset` |
    | 7 | no `output_sequence` | the same | the same |
    | 14 | `layout`=1: N is the first axis of everything but the parameters | the same | the same |
    """
    call.ignore("output_sequence")
    call.only("direction", *DIRECTIONS)
    call.only("layout", 0, 1)
    backwards = DIRECTIONS[call.attr("direction")]
    x = _swapped(call, call.x(), (1, 0, 2))
    if x.type.rank != 3:
        raise ModelError(f"three axes expected, got {x.type}")
    lengths = _lengths(call, x)
    kind, sequences = KINDS[call.op_type], [_turned(call, x, lengths) if turn else x for turn in backwards]
    outputs, ends = [], []
    for part, turn in zip(_directions(call, kind, sequences), backwards, strict=True):
        states = kind.run(call, part)
        y = _ended(call, _turned(call, states[0], lengths) if turn else states[0], lengths)
        outputs.append(call(Reshape((y.type.shape[0], 1, *y.type.shape[1:])), y))
        ends.append([_last(call, each, lengths) for each in states])
    last = (_joined(call, each, 0) for each in zip(*ends, strict=True))
    return [_swapped(call, _joined(call, outputs, 1), (2, 0, 1, 3)), *(_swapped(call, h, (1, 0, 2)) for h in last)]


def _swapped(call: Call, x: Node, axes: tuple[int, ...]) -> Node:
    """With `layout`=1 the axes in this order, else as they are."""
    return call(Transpose(axes), x) if call.attr("layout", 0) else x


def _joined(call: Call, parts: Sequence[Node], axis: int) -> Node:
    return parts[0] if len(parts) == 1 else call(Concat(axis), *parts)


# Parameters


def _directions(call: Call, kind: Kind, sequences: Sequence[Node]) -> list[Direction]:
    """Each direction with its parameters; the sequences are in the order of its steps."""
    d, h = len(sequences), call.known(call.x(2).type.shape[-1], "the size of the state")
    rows, x = len(kind.gates) * h, sequences[0]
    _, n, inputs = x.type.shape
    if call.attr("hidden_size", h) != h:
        raise ModelError(f"attribute hidden_size={call.attr('hidden_size')} does not fit input 2 (R), {call.x(2).type}")
    weight, recurrent = _shaped(call, call.x(1), 1, (d, rows, inputs)), _shaped(call, call.x(2), 2, (d, rows, h))
    biases = _or_zeros(call, call.opt(3), 3, (d, 2 * rows))
    given = [(call.opt(i), i) for i in kind.states]
    before = [_or_zeros(call, h0 and _swapped(call, h0, (1, 0, 2)), i, (d, n, h)) for h0, i in given]
    looks = None if call.opt(PEEPHOLES) is None else _shaped(call, call.x(PEEPHOLES), PEEPHOLES, (d, 3 * h))
    directions = []
    for k, (functions, sequence) in enumerate(zip(_functions(call, kind, d), sequences, strict=True)):
        w, r, both, *states = (_part(call, parameter, k) for parameter in (weight, recurrent, biases, *before))
        b, q = (call(Split(0, (rows, rows), i), both) for i in range(2))
        p = None if looks is None else _part(call, looks, k)
        directions.append(Direction(sequence, w, r, b, q, tuple(states), p, functions))
    return directions


def _shaped(call: Call, x: Node, i: int, shape: tuple[Size, ...]) -> Node:
    """Input i, which must have this shape. Raises `OpenValueError` where that is not known yet."""
    given = x.type.shape
    if len(given) != len(shape) or any(a != b for a, b in zip(given, shape, strict=True) if _numbers(a, b)):
        expected = ", ".join(map(str, shape))
        raise ModelError(f"input {i} must have shape [{expected}], got {x.type}")
    for a, b in zip(given, shape, strict=True):
        if a != b:
            raise OpenValueError(f"input {i} has the open size {a} where {b} is expected", shapes=True)
    return x


def _or_zeros(call: Call, x: Node | None, i: int, shape: tuple[Size, ...]) -> Node:
    """Input i, of this shape, or zeros where it is left out."""
    return call(Full(shape, 0.0, call.x().type.dtype)) if x is None else _shaped(call, x, i, shape)


def _numbers(*sizes: Size) -> bool:
    return not any(isinstance(size, Dim) for size in sizes)


def _part(call: Call, x: Node, k: int) -> Node:
    """What belongs to the k-th direction, [D, …] -> […]"""
    part = x if x.type.shape[0] == 1 else call(Slice((k,), (k + 1,), (0,), (1,)), x)
    return call(Reshape(x.type.shape[1:]), part)


def _functions(call: Call, kind: Kind, count: int) -> list[tuple[Function, ...]]:
    """The activations of each direction, each behind the clipping of its argument."""
    names = call.given.get("activations", kind.activations * count)
    call.ignore("activations")
    each = len(kind.activations)
    if len(names) != count * each:
        raise ModelError(f"attribute activations must name {count * each}, got {', '.join(names)}")
    given = {what: list(call.attr(f"activation_{what}") or ()) for what in ("alpha", "beta")}
    made = [_activation(name, given) for name in names]
    if left := [f"activation_{what}" for what, values in given.items() if values]:
        raise ModelError(f"attribute {', '.join(left)} has more values than the activations {', '.join(names)} take")
    if (bound := call.attr("clip")) is not None:
        if not bound > 0:
            raise ModelError(f"attribute clip={bound:g} must be positive")
        clip = Clip(-bound, bound)
        made = [(clip, *function) if k % each < kind.clipped else function for k, function in enumerate(made)]
    return [tuple(made[k * each : (k + 1) * each]) for k in range(count)]


def _activation(name: str, given: dict[str, list[float]]) -> Function:
    """The activation of this name, in whatever case; it takes its parameters from the front of the given ones."""
    known = {each.lower(): row for each, row in ACTIVATIONS.items()}
    if name.lower() not in known:
        raise ModelError(f"activation {name!r} is none of {', '.join(ACTIVATIONS)}")
    make, defaults = known[name.lower()]
    values = []
    for what, default in zip(given, defaults, strict=False):
        value = given[what].pop(0) if given[what] else default
        if value is None:
            raise ModelError(f"activation {name!r} has no default for its activation_{what}, which is missing")
        values.append(value)
    return make(*values)


# Sequences


def _lengths(call: Call, x: Node) -> Node | None:
    """The length of every sequence, int64[1, N]; None where all are as long as the array."""
    given, (steps, n, _) = call.opt(4), x.type.shape
    if given is None:
        return None
    _shaped(call, given, 4, (n,))
    if given.is_const and isinstance(steps, int):
        outside = [int(length) for length in given.value if not 0 <= length <= steps]
        if outside:
            raise ModelError(f"input 4 (sequence_lens) has {outside[0]}, where there are {steps} steps")
        if (given.value == steps).all():
            return None
    return call(Reshape((1, n)), call(Cast("int64"), given))


def _steps(call: Call, x: Node) -> Node:
    """0, 1, … T − 1, int64[T, 1]"""
    return call(Reshape((x.type.shape[0], 1)), call(Arange(x.type.shape[0])))


def _turned(call: Call, x: Node, lengths: Node | None) -> Node:
    """The sequences from their ends to their beginnings: step t is what was at length − 1 − t."""
    if lengths is None:
        return call(Slice((None,), (None,), (0,), (-1,)), x)
    places = call(Sub(), call(Sub(), lengths, call.const(np.int64(1))), _steps(call, x))
    return _picked(call, x, places)


def _picked(call: Call, x: Node, places: Node) -> Node:
    """x[places[t, n], n], int64[T, N] and [T', N, …] -> [T, N, …]; the first step for negative places."""
    t, n = places.type.shape
    places = call(Reshape((t, n, 1)), call(Maximum(), places, call.const(np.int64(0))))
    return call(GatherElements(0), x, call(Expand((t, *x.type.shape[1:])), places))


def _ended(call: Call, y: Node, lengths: Node | None) -> Node:
    """Zeros behind the end of each sequence."""
    if lengths is None:
        return y
    inside = call(Less(), _steps(call, y), lengths)
    return call(Where(), call(Reshape((*inside.type.shape, 1)), inside), y, call.like(0, y))


def _last(call: Call, y: Node, lengths: Node | None) -> Node:
    """The state after the last step [1, N, H], zero for a sequence without steps. y is in the order of the steps."""
    steps, n, _ = y.type.shape
    if lengths is None:
        return call(Slice((steps - 1,), (steps,), (0,), (1,)), y)
    any_ = call(Reshape((1, n, 1)), call(Less(), call.const(np.int64(0)), lengths))
    last = _picked(call, y, call(Sub(), lengths, call.const(np.int64(1))))
    return call(Where(), any_, last, call.like(0, y))


# The three operators


def _rnn(call: Call, d: Direction) -> tuple[Node, ...]:
    """h = f(w·x + b + r·h + q)"""
    (f,) = d.functions
    bias = call(Add(), *d.both_biases)
    match f:
        case (Activation() as activation,):
            return (call(SimpleRnn(activation), d.x, d.weight, d.recurrent, bias, *d.before),)

    def step(a: Node, h: Node) -> tuple[Node, ...]:
        return (_applied(call, f, call(Add(), a, call(Dense(), h, d.recurrent))),)

    return _unrolled(call, d, bias, step)


def _lstm(call: Call, d: Direction) -> tuple[Node, ...]:
    """i, o, l = f(w·x + b + r·h + q + p ∘ c), g = g(w·x + b + r·h + q), c' = l ∘ c + i ∘ g, h' = o ∘ h(c'): the forget
    gate is l here; o sees c'. With `input_forget` l = 1 − i."""
    f, squash, squash_cell = d.functions
    coupled, bias = bool(call.attr("input_forget")), call(Add(), *d.both_biases)
    if (f, squash, squash_cell) == (SIGMOID, TANH, TANH) and d.peepholes is None and not coupled:
        inputs = d.x, d.weight, d.recurrent, bias, *d.before
        hidden, cells = (call(Lstm("iofg", output), *inputs) for output in ("hidden", "cell"))
        return hidden, cells
    looks = {} if d.peepholes is None else _gates(call, d.peepholes, "iof", 0)

    def gate(name: str, a: dict[str, Node], c: Node) -> Node:
        seen = call(Add(), a[name], call(Mul(), looks[name], c)) if looks else a[name]
        return _applied(call, f, seen)

    def step(a: Node, h: Node, c: Node) -> tuple[Node, ...]:
        gates = _gates(call, call(Add(), a, call(Dense(), h, d.recurrent)), "iofg", 2)
        i = gate("i", gates, c)
        forget = call(Sub(), call.like(1, i), i) if coupled else gate("f", gates, c)
        g = _applied(call, squash, gates["g"])
        c = call(Add(), call(Mul(), forget, c), call(Mul(), i, g))
        return call(Mul(), gate("o", gates, c), _applied(call, squash_cell, c)), c

    return _unrolled(call, d, bias, step)


def _gru(call: Call, d: Direction) -> tuple[Node, ...]:
    """z, s = f(w·x + b + r·h + q), h' = z ∘ h + (1 − z) ∘ k with k = g(w·x + b + r·(s ∘ h) + q) or, with
    `linear_before_reset`, k = g(w·x + b + s ∘ (r·h + q))."""
    f, squash = d.functions
    after = bool(call.attr("linear_before_reset", 0))
    match f, squash:
        case (Logistic(),), (Activation() as activation,):
            op = Gru("zrh", "after" if after else "before", activation)
            return (call(op, d.x, d.weight, d.recurrent, *d.both_biases, *d.before),)
    r, q = (_gates(call, parameter, "zrh", 0) for parameter in (d.recurrent, d.recurrent_bias))

    def step(a: Node, h: Node) -> tuple[Node, ...]:
        gates = _gates(call, a, "zrh", 2)
        z, s = (_applied(call, f, call(Add(), gates[g], call(Dense(), h, r[g], q[g]))) for g in "zr")
        if after:
            from_state = call(Mul(), s, call(Dense(), h, r["h"], q["h"]))
        else:
            from_state = call(Dense(), call(Mul(), s, h), r["h"], q["h"])
        k = _applied(call, squash, call(Add(), gates["h"], from_state))
        return (call(Add(), call(Mul(), z, h), call(Mul(), call(Sub(), call.like(1, z), z), k)),)

    return _unrolled(call, d, d.bias, step)


PEEPHOLES = 7
KINDS = {
    "RNN": Kind("h", ("Tanh",), (5,), _rnn, 1),
    "LSTM": Kind("iofg", ("Sigmoid", "Tanh", "Tanh"), (5, 6), _lstm, 2),
    "GRU": Kind("zrh", ("Sigmoid", "Tanh"), (5,), _gru, 2),
}


def _unrolled(call: Call, d: Direction, bias: Node, step: Callable[..., tuple[Node, ...]]) -> tuple[Node, ...]:
    """Each state after every step; `step(w·x[t] + bias, *states)` gives the next states, all with an axis for t."""
    count = call.known(d.x.type.shape[0], "the number of steps, which this form is written out for,")
    if not 1 <= count <= MOST_STEPS:
        raise ModelError(
            f"{count} steps are not supported with clip, peepholes, input_forget or these activations, "
            f"which are written out step by step: only 1 to {MOST_STEPS}"
        )
    from_input = call(Dense(), d.x, d.weight, bias)
    states = tuple(call(Reshape((1, *state.type.shape)), state) for state in d.before)
    reached = []
    for t in range(count):
        states = step(call(Split(0, (1,) * count, t), from_input), *states)
        reached.append(states)
    return tuple(_joined(call, each, 0) for each in zip(*reached, strict=True))


def _gates(call: Call, a: Node, names: str, axis: int) -> dict[str, Node]:
    """The parts of an axis that belong to each gate."""
    size = call.known(a.type.shape[axis], "the number of rows") // len(names)
    return {name: call(Split(axis, (size,) * len(names), i), a) for i, name in enumerate(names)}


def _applied(call: Call, function: Function, x: Node) -> Node:
    for part in function:
        x = call(part[0], x, call.like(part[1], x)) if isinstance(part, tuple) else call(part, x)
    return x
