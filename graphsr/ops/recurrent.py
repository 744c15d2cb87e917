"""Recurrent layers as scans: one op runs a whole sequence and gives the state after every step.

Symbols: x[t, n, i] input, h[t, n, j] state (the output), h₋₁ = `state` the one before the first step, w[…, I] weight of
the input, r[…, H] weight of the state, b and q their biases, σ the logistic function, ∘ the product of elements.

As all states are given out, whatever depends on x and h alone is found for all steps at once; only the gradient of h
runs backwards step by step (backpropagation through time: Werbos 1990). The last state is a `Slice` of the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_rank, expect_size, op, same_dtype
from graphsr.ops.activation import Activation, Tanh, logistic

TANH = Tanh()

Gates = dict[str, Array]
"""One array for each gate, by its letter."""


@dataclass(frozen=True, slots=True)
class Recurrent(Op):
    """Base of the recurrent layers."""

    def check(self, gates: int, biases: int, x: TensorType, *rest: TensorType) -> TensorType:
        """The type of h[T, N, H], from those of x[T, N, I], w[G·H, I], r[G·H, H], biases [G·H] and states [N, H].

        G is the number of gates, and `biases` how many of the rest are biases.
        """
        dtype = same_dtype(x, *rest)
        expect_float(x)
        expect_rank("input", x, 3)
        weight, recurrent, *others = rest
        expect_rank("weight", weight, 2)
        expect_rank("weight of the state", recurrent, 2)
        rows, hidden = recurrent.dims
        expect(rows == gates * hidden, f"the weight of the state must be [{gates}·H, H], got {recurrent}")
        expect_size("rows of the weight", weight.shape[0], rows)
        expect_size("size of the last axis", x.shape[2], weight.shape[1])
        for bias in others[:biases]:
            expect(bias.shape == (rows,), f"a bias must have shape ({rows},), got {bias}")
        for state in others[biases:]:
            expect_rank("state", state, 2)
            expect_size("size of the batch", state.shape[0], x.shape[1])
            expect_size("size of the state", state.shape[1], hidden)
        return TensorType(dtype, (*x.shape[:2], hidden))

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        x, weight, recurrent = inputs[:3]
        rows, hidden = recurrent.dims
        return x.shape[0] * x.shape[1] * rows * (weight.shape[1] + hidden)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("simple_rnn")
@dataclass(frozen=True, slots=True)
class SimpleRnn(Recurrent):
    """h[t] = f(w·x[t] + r·h[t−1] + b) (Elman 1990). Inputs: x[T, N, I], w[H, I], r[H, H], b[H], state[N, H].

    With a[t] the argument of f: da[t] = (dh[t] + rᵀ·da[t+1]) ∘ f'(a[t]).

    >>> from graphsr.ops import Linear
    >>> one = np.ones((1, 1))
    >>> SimpleRnn(Linear()).forward(np.ones((3, 1, 1)), one, 2 * one, np.zeros(1), 0 * one).ravel()
    array([1., 3., 7.])
    """

    activation: Activation = TANH

    def infer(
        self, x: TensorType, weight: TensorType, recurrent: TensorType, bias: TensorType, state: TensorType
    ) -> TensorType:
        return self.check(1, 1, x, weight, recurrent, bias, state)

    def forward(self, x: Array, weight: Array, recurrent: Array, bias: Array, state: Array) -> Array:
        from_input, states = x @ weight.T + bias, []
        for a in from_input:
            state = self.activation.forward(a + state @ recurrent.T)
            states.append(state)
        return _stacked(states, from_input)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, weight, recurrent, bias, state = inputs
        before = _before(state, output)
        slope = self.activation.derivative(x @ weight.T + bias + before @ recurrent.T, output)
        da, carry = np.zeros_like(output), np.zeros_like(state)
        for t in reversed(range(len(x))):
            da[t] = (cotangent[t] + carry) * slope[t]
            carry = da[t] @ recurrent
        return da @ weight, _outer(da, x), _outer(da, before), da.sum(axis=(0, 1)), carry


@op("rnn")
@dataclass(frozen=True, slots=True)
class Rnn(Recurrent):
    """h[t] = f(w·x[t] + b) + f(r·h[t−1] + q), with `shortcut` plus h[t−1]: the state of darknet's rnn layer.

    darknet puts a fully connected layer behind it (`Dense`). Inputs: x[T, N, I], w[H, I], r[H, H], b[H], q[H],
    state[N, H].

    With e[t] = dh[t] + rᵀ·dc[t+1] (plus e[t+1] with the shortcut) and a, c the arguments of f: da = e ∘ f'(a),
    dc = e ∘ f'(c).

    >>> from graphsr.ops import Linear
    >>> one, zero = np.ones((1, 1)), np.zeros(1)
    >>> Rnn(Linear(), shortcut=True).forward(np.ones((3, 1, 1)), one, one, zero, zero, 0 * one).ravel()
    array([1., 3., 7.])
    """

    activation: Activation = TANH
    shortcut: bool = False

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        recurrent_bias: TensorType,
        state: TensorType,
    ) -> TensorType:
        return self.check(1, 2, x, weight, recurrent, bias, recurrent_bias, state)

    def forward(
        self, x: Array, weight: Array, recurrent: Array, bias: Array, recurrent_bias: Array, state: Array
    ) -> Array:
        from_input, states = self.activation.forward(x @ weight.T + bias), []
        for y in from_input:
            from_state = self.activation.forward(state @ recurrent.T + recurrent_bias)
            state = y + from_state + state if self.shortcut else y + from_state
            states.append(state)
        return _stacked(states, from_input)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, weight, recurrent, bias, recurrent_bias, state = inputs
        before = _before(state, output)
        slope_a, slope_c = (
            self.activation.derivative(z, self.activation.forward(z))
            for z in (x @ weight.T + bias, before @ recurrent.T + recurrent_bias)
        )
        e, carry = np.zeros_like(output), np.zeros_like(state)
        for t in reversed(range(len(x))):
            e[t] = cotangent[t] + carry
            carry = (e[t] * slope_c[t]) @ recurrent + (e[t] if self.shortcut else 0)
        da, dc = e * slope_a, e * slope_c
        sums = da.sum(axis=(0, 1)), dc.sum(axis=(0, 1))
        return da @ weight, _outer(da, x), _outer(dc, before), *sums, carry


@op("lstm")
@dataclass(frozen=True, slots=True)
class Lstm(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000):

    i, f, o = σ(w·x[t] + r·h[t−1] + b), g = tanh(likewise), each with its rows of w, r and b
    c[t] = f ∘ c[t−1] + i ∘ g,  h[t] = o ∘ tanh c[t]

    `order` names the gates in the order of the rows: "ifgo" in PyTorch, "iofg" in ONNX, "ifog" in pjreddie's and "figo"
    in AlexeyAB's darknet. `output="hidden"` gives h, `"cell"` c: one node for each. Inputs: x[T, N, I], w[4·H, I],
    r[4·H, H], b[4·H], state h₋₁[N, H], cell c₋₁[N, H].

    >>> x, w, r = np.ones((2, 1, 1)), np.zeros((4, 1)), np.zeros((4, 1))
    >>> b = np.array([99.0, 99.0, 99.0, 99.0])
    >>> Lstm(output="cell").forward(x, w, r, b, np.zeros((1, 1)), np.zeros((1, 1))).ravel()
    array([1., 2.])
    """

    order: str = "ifgo"
    output: str = "hidden"

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        state: TensorType,
        cell: TensorType,
    ) -> TensorType:
        expect(sorted(self.order) == sorted("ifgo"), f"order {self.order!r} must name the gates i, f, g and o")
        expect(self.output in ("hidden", "cell"), f"output {self.output!r} is neither 'hidden' nor 'cell'")
        return self.check(4, 1, x, weight, recurrent, bias, state, cell)

    def forward(self, x: Array, weight: Array, recurrent: Array, bias: Array, state: Array, cell: Array) -> Array:
        hidden, cells, _ = self._run(x, weight, recurrent, bias, state, cell)
        return hidden if self.output == "hidden" else cells

    def _run(self, *inputs: Array) -> tuple[Array, Array, list[Gates]]:
        """h, c, and the gates of every step"""
        x, weight, recurrent, bias, h, c = inputs
        hidden: list[Array] = []
        cells: list[Array] = []
        steps: list[Gates] = []
        for a in x @ weight.T + bias:
            gates = _split(a + h @ recurrent.T, self.order)
            gates = {k: np.tanh(z) if k == "g" else logistic(z) for k, z in gates.items()}
            c = gates["f"] * c + gates["i"] * gates["g"]
            h = gates["o"] * np.tanh(c)
            hidden.append(h)
            cells.append(c)
            steps.append(gates)
        empty = np.zeros((0, *inputs[4].shape), x.dtype)
        return _stacked(hidden, empty), _stacked(cells, empty), steps

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """With dh and dc what reaches h[t] and c[t] from later steps and from outside: dc += dh ∘ o ∘ (1 − tanh² c);
        do = dh ∘ tanh c, di = dc ∘ g, df = dc ∘ c[t−1], dg = dc ∘ i, each times the slope of its gate."""
        x, weight, recurrent, _, state, cell = inputs
        hidden, cells, steps = self._run(*inputs)
        before, da = _before(cell, cells), np.zeros((*x.shape[:2], len(weight)), x.dtype)
        dh, dc = np.zeros_like(state), np.zeros_like(cell)
        for t in reversed(range(len(x))):
            gates, squashed = steps[t], np.tanh(cells[t])
            dh, dc = (dh + cotangent[t], dc) if self.output == "hidden" else (dh, dc + cotangent[t])
            dc = dc + dh * gates["o"] * (1 - squashed * squashed)
            d = {"o": dh * squashed, "i": dc * gates["g"], "f": dc * before[t], "g": dc * gates["i"]}
            slope = {k: 1 - y * y if k == "g" else y * (1 - y) for k, y in gates.items()}
            da[t] = np.concatenate([d[k] * slope[k] for k in self.order], axis=-1)
            dh, dc = da[t] @ recurrent, dc * gates["f"]
        return da @ weight, _outer(da, x), _outer(da, _before(state, hidden)), da.sum(axis=(0, 1)), dh, dc


@op("gru")
@dataclass(frozen=True, slots=True)
class Gru(Recurrent):
    """Gated recurrent unit (Cho et al. 2014):

    z, s = σ(w·x[t] + b + r·h[t−1] + q), each with its rows of w, r, b and q
    reset="before": k = f(w·x[t] + b + r·(s ∘ h[t−1]) + q);  reset="after": k = f(w·x[t] + b + s ∘ (r·h[t−1] + q))
    h[t] = z ∘ h[t−1] + (1 − z) ∘ k

    `order` names the gates in the order of the rows: z update, r reset (s above), h candidate (k): "rzh" in PyTorch,
    which resets after, "zrh" in ONNX and darknet, which resets before (ONNX has both). The activation f is tanh, in
    darknet by default the logistic function. Inputs: x[T, N, I], w[3·H, I], r[3·H, H], b[3·H], q[3·H], state[N, H].

    >>> from graphsr.ops import Linear
    >>> x, w, r, b = np.ones((2, 1, 1)), np.array([[0.0], [0.0], [1.0]]), np.zeros((3, 1)), np.zeros(3)
    >>> Gru(activation=Linear()).forward(x, w, r, b, b, np.zeros((1, 1))).ravel()
    array([0.5 , 0.75])
    """

    order: str = "zrh"
    reset: str = "before"
    activation: Activation = TANH

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        recurrent: TensorType,
        bias: TensorType,
        recurrent_bias: TensorType,
        state: TensorType,
    ) -> TensorType:
        expect(sorted(self.order) == sorted("zrh"), f"order {self.order!r} must name the gates z, r and h")
        expect(self.reset in ("before", "after"), f"reset {self.reset!r} is neither 'before' nor 'after'")
        return self.check(3, 2, x, weight, recurrent, bias, recurrent_bias, state)

    def forward(
        self, x: Array, weight: Array, recurrent: Array, bias: Array, recurrent_bias: Array, state: Array
    ) -> Array:
        states = []
        for a in x @ weight.T + bias:
            z, _, k, _ = self._step(a, recurrent, recurrent_bias, state)
            state = z * state + (1 - z) * k
            states.append(state)
        return _stacked(states, np.zeros((0, *state.shape), x.dtype))

    def _step(self, a: Array, recurrent: Array, recurrent_bias: Array, h: Array) -> tuple[Array, Array, Array, Array]:
        """z, s, k and the argument of f, for one step or for all of them: a = w·x + b and h the states before."""
        from_input, r, q = _split(a, self.order), self._rows(recurrent), self._rows(recurrent_bias)
        z, s = (logistic(from_input[g] + h @ r[g].T + q[g]) for g in "zr")
        if self.reset == "before":
            argument = from_input["h"] + (s * h) @ r["h"].T + q["h"]
        else:
            argument = from_input["h"] + s * (h @ r["h"].T + q["h"])
        return z, s, self.activation.forward(argument), argument

    def _rows(self, parameter: Array) -> Gates:
        """The rows of each gate."""
        return dict(zip(self.order, np.split(parameter, 3), strict=True))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """dz = dh ∘ (h[t−1] − k), dk = dh ∘ (1 − z), each times the slope of its gate. What reaches s and h[t−1]
        through the candidate depends on `reset`."""
        x, weight, recurrent, bias, recurrent_bias, state = inputs
        before, r, q = _before(state, output), self._rows(recurrent), self._rows(recurrent_bias)
        z, s, k, argument = self._step(x @ weight.T + bias, recurrent, recurrent_bias, before)
        slope = self.activation.derivative(argument, k)
        d: Gates = {g: np.zeros_like(output) for g in "zrhu"}  # u: of r·h + q in the candidate
        carry = np.zeros_like(state)
        for t in reversed(range(len(x))):
            dh, h = cotangent[t] + carry, before[t]
            d["z"][t] = dh * (h - k[t]) * z[t] * (1 - z[t])
            d["h"][t] = dh * (1 - z[t]) * slope[t]
            if self.reset == "before":
                d["u"][t] = d["h"][t]
                d_reset = d["h"][t] @ r["h"]  # of s ∘ h[t−1]
                ds, dh_candidate = d_reset * h, d_reset * s[t]
            else:
                d["u"][t] = d["h"][t] * s[t]
                ds, dh_candidate = d["h"][t] * (h @ r["h"].T + q["h"]), d["u"][t] @ r["h"]
            d["r"][t] = ds * s[t] * (1 - s[t])
            carry = dh * z[t] + dh_candidate + d["z"][t] @ r["z"] + d["r"][t] @ r["r"]
        return *self._parameters(d, x, weight, before, s), carry

    def _parameters(self, d: Gates, x: Array, weight: Array, before: Array, s: Array) -> tuple[Array, ...]:
        """The gradients of x, w, r, b and q from those of the gates."""
        da = np.concatenate([d[g] for g in self.order], axis=-1)
        read = {"z": before, "r": before, "h": s * before if self.reset == "before" else before}
        of_state = {"z": d["z"], "r": d["r"], "h": d["u"]}
        d_recurrent = np.concatenate([_outer(of_state[g], read[g]) for g in self.order])
        d_bias = np.concatenate([of_state[g].sum(axis=(0, 1)) for g in self.order])
        return da @ weight, _outer(da, x), d_recurrent, da.sum(axis=(0, 1)), d_bias


def _split(a: Array, order: str) -> Gates:
    """The parts of the last axis that belong to each gate."""
    return dict(zip(order, np.split(a, len(order), axis=-1), strict=True))


def _before(state: Array, states: Array) -> Array:
    """The state before every step."""
    return np.concatenate([state[None], states])[: len(states)]


def _stacked(steps: list[Array], empty: Array) -> Array:
    """[T, N, H]; `empty` for a sequence without steps."""
    return np.stack(steps) if steps else empty


def _outer(d: Array, x: Array) -> Array:
    """Σ_t Σ_n d[t, n, j] · x[t, n, i]: the gradient of a weight."""
    return np.tensordot(d, x, axes=((0, 1), (0, 1)))
