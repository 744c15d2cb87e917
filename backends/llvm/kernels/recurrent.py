"""Recurrent layers: what comes from the input for all time steps as one product (dense.py), then step by step:

for panel of 16 state columns [in pieces of a register], for R samples of the unit:
    for j: R x gates accumulators += h[t − 1][sample, j] · r[panel, j]     [few samples: several accumulators each]
    for each sample: the cell's formula on the gates, to the new state under a mask

A step is a call: all of h[t − 1] is there before h[t] begins. A GRU that resets before the product of its candidate
needs two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphsr.ir import Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Dense, Fused, Gru, Lstm, Rnn, SimpleRnn

from ..kernel import Argument, Kernel
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from ..tensor import Buffer
from .activation import emit_activation, has_activation
from .dense import ROWS_IN_UNIT, layer, product
from .math import logistic, tanh
from .register_tile import LATENCY, UNROLL

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target


@dataclass(frozen=True)
class Cell(ABC):
    """What a step does with its gates. `order` names the gates in the order of the columns of w·x + b."""

    order: str
    reads: ClassVar[tuple[str, ...]] = ()
    """States [N, H] that the formula takes beside the gates."""
    writes: ClassVar[tuple[str, ...]] = ("y",)

    @property
    def gates(self) -> str:
        """Those that this step computes, in the order of `order`."""
        return self.order

    @abstractmethod
    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        """What is written, from a = w·x + b and c = r·h + q of every gate and the states that are read."""


@dataclass(frozen=True)
class SimpleCell(Cell):
    """f(a + c)"""

    activation: Op

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        return [emit_activation(k, self.activation, a["h"] + c["h"])]


@dataclass(frozen=True)
class DarknetCell(Cell):
    """f(a) + f(c)"""

    activation: Op

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        return [sum(states, emit_activation(k, self.activation, a["h"]) + emit_activation(k, self.activation, c["h"]))]


@dataclass(frozen=True)
class DarknetShortcut(DarknetCell):
    """f(a) + f(c) + h"""

    reads: ClassVar[tuple[str, ...]] = ("h",)


@dataclass(frozen=True)
class LstmCell(Cell):
    """c = f ∘ c + i ∘ g, h = o ∘ tanh c"""

    reads: ClassVar[tuple[str, ...]] = ("c",)
    writes: ClassVar[tuple[str, ...]] = ("y", "y_c")

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        i, f, o = (logistic(k, a[g] + c[g]) for g in "ifo")
        cell = f * states[0] + i * tanh(k, a["g"] + c["g"])
        return [o * tanh(k, cell), cell]


@dataclass(frozen=True)
class GruCell(Cell):
    """Reset after the product: h = z ∘ h + (1 − z) ∘ f(a + s ∘ c)"""

    activation: Op
    reads: ClassVar[tuple[str, ...]] = ("h",)

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        z, s = (logistic(k, a[g] + c[g]) for g in "zr")
        candidate = emit_activation(k, self.activation, a["h"] + s * c["h"])
        return [z * states[0] + (k.vector(1.0) - z) * candidate]


@dataclass(frozen=True)
class GruGates(Cell):
    """Reset before the product, first half: z and s ∘ h"""

    reads: ClassVar[tuple[str, ...]] = ("h",)
    writes: ClassVar[tuple[str, ...]] = ("y_z", "y_s")

    @property
    def gates(self) -> str:
        return self.order.replace("h", "")

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        z, s = (logistic(k, a[g] + c[g]) for g in "zr")
        return [z, s * states[0]]


@dataclass(frozen=True)
class GruCandidate(Cell):
    """Second half: h = z ∘ h + (1 − z) ∘ f(a + c), where c is the product with s ∘ h"""

    activation: Op
    reads: ClassVar[tuple[str, ...]] = ("h", "z")

    @property
    def gates(self) -> str:
        return "h"

    def emit(self, k: Function, a: Mapping[str, Value], c: Mapping[str, Value], states: Sequence[Value]) -> list[Value]:
        h, z = states
        return [z * h + (k.vector(1.0) - z) * emit_activation(k, self.activation, a["h"] + c["h"])]


@dataclass(frozen=True)
class RecurrentStep(Kernel):
    """One time step. Unit: a panel of 16 columns of the state, of up to `ROWS_IN_UNIT` samples.

    For every state that is read or written, `…_at` is where in its buffer the step begins, in bytes."""

    cell: Cell
    rows: int
    split: int
    """Sums that each sum is split into, to hide the latency of adding."""
    bias: bool

    def slots(self) -> Mapping[str, str]:
        states = {f"{name}_at": I64 for name in self.states}
        bias = {"q": PTR} if self.bias else {}
        return {
            **dict.fromkeys(("a", "r", *self.states), PTR),
            **bias,
            **states,
            **dict.fromkeys(("a_at", "hidden", "count", "panels"), I64),
        }

    @property
    def states(self) -> tuple[str, ...]:
        """`x` is what the weights are multiplied by."""
        return "x", *self.cell.reads, *self.cell.writes

    def body(self, k: Function, target: Target) -> None:
        panel, group = k.unit % k["panels"], k.unit // k["panels"] * ROWS_IN_UNIT
        hidden, gates = k["hidden"], len(self.cell.gates)
        x, last = k["x"] + k["x_at"], k["count"] - 1
        with k.loop(k.minimum(k["count"], group + ROWS_IN_UNIT), start=group, step=self.rows) as n:
            rows = [x + k.minimum(n + r, last) * hidden * 4 for r in range(self.rows)]
            with k.pieces() as piece:
                r = k["r"] + panel * hidden * (gates * VECTOR_BYTES) + piece
                total = product(k, rows, r, hidden, gates, self.split)
                if self.bias:
                    q = k["q"] + panel * (gates * VECTOR_BYTES) + piece
                    bias = [k.load(q + g * VECTOR_BYTES) for g in range(gates)]
                    total = [c + bias[i % gates] for i, c in enumerate(total)]
                for row in range(self.rows):
                    self._write(k, total[row * gates : (row + 1) * gates], n + row, panel * VECTOR_BYTES + piece)

    def _write(self, k: Function, products: Sequence[Value], sample: Value, column: Value) -> None:
        """16 columns of the state (a register of them), `column` bytes from the first one, of one sample."""
        left = k["hidden"] - (column >> 2)
        mask = k.first_lanes(k.select(sample < k["count"], left, k.literal(0)))
        order, at = self.cell.order, sample * k["hidden"] * 4 + column
        a = k["a"] + k["a_at"] + sample * k["hidden"] * (4 * len(order)) + column
        from_input = {g: k.load_some(a + order.index(g) * k["hidden"] * 4, mask) for g in self.cell.gates}
        states = [k.load_some(k[name] + k[f"{name}_at"] + at, mask) for name in self.cell.reads]
        from_state = dict(zip(self.cell.gates, products, strict=True))
        for name, y in zip(self.cell.writes, self.cell.emit(k, from_input, from_state, states), strict=True):
            k.store_some(y, k[name] + k[f"{name}_at"] + at, mask)


@dataclass(frozen=True)
class States:
    """Where the states of all steps lie: what is given before the first one, and [T, N, H], or the latest one only."""

    given: Buffer
    buffer: Buffer
    step: int
    """Bytes from one time step to the next."""

    def before(self, name: str, t: int) -> dict[str, Argument]:
        """The arguments of the state before step t."""
        return {name: self.buffer if t else self.given, f"{name}_at": max(t - 1, 0) * self.step}

    def after(self, name: str, t: int) -> dict[str, Argument]:
        return {name: self.buffer, f"{name}_at": t * self.step}


@dataclass(frozen=True)
class Scan:
    """The loop over time of one node: what all of its calls share."""

    plan: Planner
    node: Node
    from_input: Buffer

    def call(self, cell: Cell, t: int, states: Mapping[str, Argument], bias: Node | None, label: str) -> None:
        """Add one step of a cell."""
        _, count, hidden = self.node.type.dims
        gates, panels = len(cell.gates), -(-hidden // LANES)
        rows = rows_of(self.plan.target, gates, count)
        sums = LATENCY if self.plan.target.vector_bits == 128 else 2 * LATENCY  # that keep the multiply-adds busy
        split = max(1, min(UNROLL, sums // (rows * gates)))
        form = f"gates {cell.gates} of {cell.order}"

        def pack(parameter: Array) -> Array:
            return _pack(parameter.reshape(len(cell.order), hidden, -1), [cell.order.index(g) for g in cell.gates])

        arguments: dict[str, Argument] = {"a": self.from_input, "hidden": hidden, "count": count, "panels": panels}
        arguments |= {"a_at": t * count * hidden * 4 * len(cell.order), **states}
        arguments["r"] = self.plan.weight(self.node.inputs[2].value, form, pack)
        if bias is not None:
            arguments["q"] = self.plan.weight(bias.value, form, pack)
        kernel = RecurrentStep(cell, rows, split, bias is not None)
        units = panels * -(-count // ROWS_IN_UNIT)
        step = _product_of(self.node, (count, hidden), (gates * hidden, hidden))
        self.plan.call(step, kernel, arguments, units, label=label, note=f"step {t + 1}")


def _product_of(node: Node, x: tuple[int, ...], weight: tuple[int, ...]) -> Node:
    """The product that one call for a node computes: what `explain()` counts."""
    inputs = (Node.input(name, TensorType("float32", shape)) for name, shape in (("x", x), ("w", weight)))
    return Node(Dense(), tuple(inputs), node.name, node.origin)


def lower(plan: Planner, node: Node) -> None:
    """Planar, with constant weights and biases."""
    from ..plan import NoKernel

    op = node.op
    assert isinstance(op, SimpleRnn | Rnn | Lstm | Gru)
    x, weight, recurrent, bias, *rest = node.inputs
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    second_bias = None if isinstance(op, SimpleRnn | Lstm) else rest.pop(0)
    parameters = [weight, recurrent, bias, *([second_bias] if second_bias else [])]
    if not all(parameter.is_const for parameter in parameters):
        raise NoKernel("weights are not constant")
    if weight.type.dims[1] == 0:
        raise NoKernel("an input without elements")
    if not isinstance(op, Lstm) and not has_activation(op.activation):
        raise NoKernel(f"no code for {op.activation.name}")
    steps, count, _ = node.type.dims
    from_input = Buffer(TensorType("float32", (steps, count, weight.type.dims[0])))
    inputs = layer(plan, Fused(Dense()), weight, bias, from_input.nbytes)
    product_node = _product_of(node, x.type.dims, weight.type.dims)
    inputs.call(plan, product_node, {"x": plan.planar(x), "y": from_input}, "product with all inputs")
    match op:
        case Lstm():
            _lstm(plan, node, op, from_input)
        case Gru(reset="before"):
            _gru_before(Scan(plan, node, from_input), op, _states(plan, node, rest[0]), second_bias)
        case _:
            _one_cell(Scan(plan, node, from_input), _cell(op), _states(plan, node, rest[0]), second_bias)


def _cell(op: Op) -> Cell:
    """Of the layers whose only state is h, and that need one product per step."""
    match op:
        case Gru():
            return GruCell(op.order, op.activation)
        case Rnn():
            return (DarknetShortcut if op.shortcut else DarknetCell)("h", op.activation)
        case SimpleRnn():
            return SimpleCell("h", op.activation)
        case _:
            raise TypeError(f"{op.name} has another state")


def _states(plan: Planner, node: Node, given: Node) -> States:
    _, count, hidden = node.type.dims
    return States(plan.planar(given), plan.new_planar(node), count * hidden * 4)


def _one_cell(scan: Scan, cell: Cell, h: States, bias: Node | None) -> None:
    for t in range(scan.node.type.dims[0]):
        reads = h.before("h", t) if cell.reads else {}
        scan.call(cell, t, {**h.before("x", t), **reads, **h.after("y", t)}, bias, "recurrent step")


def _gru_before(scan: Scan, op: Gru, h: States, bias: Node | None) -> None:
    one = TensorType("float32", scan.node.type.dims[1:])
    z, reset = Buffer(one), Buffer(one)
    for t in range(scan.node.type.dims[0]):
        gates: dict[str, Argument] = {"y_z": z, "y_z_at": 0, "y_s": reset, "y_s_at": 0}
        scan.call(GruGates(op.order), t, {**h.before("x", t), **h.before("h", t), **gates}, bias, "gates")
        read: dict[str, Argument] = {"x": reset, "x_at": 0, "z": z, "z_at": 0}
        cell = GruCandidate(op.order, op.activation)
        scan.call(cell, t, {**read, **h.before("h", t), **h.after("y", t)}, bias, "candidate")


def _lstm(plan: Planner, node: Node, op: Lstm, from_input: Buffer) -> None:
    """Hidden states and cells at once, where the graph asks for both; a cell that nobody else reads is overwritten."""
    other = replace(op, output="cell" if op.output == "hidden" else "hidden")
    twins = (n for n in plan.graph.nodes() if n.op == other and n.inputs == node.inputs)
    twin = next((n for n in twins if not plan.is_done(n)), None)
    steps, count, hidden = node.type.dims
    nodes = {op.output: node, **({other.output: twin} if twin else {})}
    given, size = dict(zip(("hidden", "cell"), map(plan.planar, node.inputs[4:]), strict=True)), count * hidden * 4
    every, one = TensorType("float32", (steps, count, hidden)), TensorType("float32", (count, hidden))
    buffers = {name: plan.new_planar(n) for name, n in nodes.items()}
    h = States(given["hidden"], buffers.get("hidden") or Buffer(every), size)
    c = States(given["cell"], buffers.get("cell") or Buffer(one), size if "cell" in buffers else 0)
    scan = Scan(plan, node, from_input)
    for t in range(steps):
        states = {**h.before("x", t), **c.before("c", t), **h.after("y", t), **c.after("y_c", t)}
        scan.call(LstmCell(op.order), t, states, None, "recurrent step")


def rows_of(target: Target, gates: int, count: int) -> int:
    """Samples of a register tile: accumulators leave registers for a line of weights, a state, and a product where it
    is not fused. Where four registers make a vector, more than four rows leave no room to load ahead. Tiles are
    equally high, so that the last one computes little in vain."""
    free = target.registers - (3 if target.has_fma else 7)
    most = min(4 if target.vector_bits == 128 else 8, free // gates - 1)
    return -(-count // -(-count // most))


def _pack(parameter: Array, gates: list[int]) -> Array:
    """[panel][K][gate][16] of parameter[gate, H, K], zeros for columns beyond the last."""
    _, hidden, depth = parameter.shape
    padded = np.zeros((len(gates), -(-hidden // LANES) * LANES, depth), np.float32)
    padded[:, :hidden] = parameter[gates]
    return aligned(padded.reshape(len(gates), -1, LANES, depth).transpose(1, 3, 0, 2))
