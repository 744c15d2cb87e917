"""dense: y[m, o] = act(α · (b[o] + Σ_i weight[o, i] · x[m, i]) + β · r[m, o]), one matrix product.

for panel of 16·`vectors` outputs, for R rows of x (of the unit):
    for i: R x `vectors` accumulators += x[m, i] · w[panel, i]             [one row: several accumulators per vector]
    epilogue, to y under a mask
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Node
from graphsr.op import Array, Op
from graphsr.ops import Dense, Fused

from ..kernel import Argument
from ..loops import FLOAT, I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import aligned
from .activation import emit_activation, has_activation
from .register_tile import UNROLL, InRegisters, register_tile_at

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

ROWS_IN_UNIT = 32


@dataclass(frozen=True)
class DensePlanar(InRegisters):
    """Unit: a panel of outputs, of up to `ROWS_IN_UNIT` rows of x. Rows and outputs beyond the last are not written."""

    reads_weights_once = True

    rows: int
    vectors: int
    split: int
    """Sums that each sum is split into, to hide the latency of adding."""
    bias: bool
    residual: bool
    activation: Op | None

    def slots(self) -> Mapping[str, str]:
        optional = {"b": PTR} if self.bias else {}
        if self.residual:
            optional |= {"r": PTR, "alpha": FLOAT, "beta": FLOAT}
        return {
            "x": PTR,
            "w": PTR,
            "y": PTR,
            **optional,
            **dict.fromkeys(("inputs", "outputs", "count", "panels"), I64),
        }

    @property
    def line(self) -> int:
        """Bytes of the weights of one input in a panel."""
        return self.vectors * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        panel, group = k.unit % k["panels"], k.unit // k["panels"] * ROWS_IN_UNIT
        w = k["w"] + panel * k["inputs"] * self.line
        with k.loop(k.minimum(k["count"], group + ROWS_IN_UNIT), start=group, step=self.rows) as m:
            last = k["count"] - 1
            rows = [k["x"] + k.minimum(m + r, last) * k["inputs"] * 4 for r in range(self.rows)]
            total = product(k, rows, w, k["inputs"], self.vectors, self.split)
            for v in range(self.vectors):
                self._write(k, total[v :: self.vectors], m, panel * self.vectors + v)

    def _write(self, k: Function, column: list[Value], m: Value, block: Value) -> None:
        """One vector of outputs of R rows."""
        first = block * LANES
        bias = k.load(k["b"] + first * 4) if self.bias else None
        for r, y in enumerate(column):
            row, left = m + r, k["outputs"] - first
            mask = k.first_lanes(k.select(row < k["count"], left, k.literal(0)))
            at = (row * k["outputs"] + first) * 4
            if bias is not None:
                y = y + bias
            if self.residual:
                y = y * k.splat(k["alpha"]) + k.load_some(k["r"] + at, mask) * k.splat(k["beta"])
            if self.activation is not None:
                y = emit_activation(k, self.activation, y)
            k.store_some(y, k["y"] + at, mask)


def product(k: Function, rows: list[Value], w: Value, inputs: Value, vectors: int, split: int) -> list[Value]:
    """[rows · vectors] sums over all inputs: rows[r][i] · w[i][vector]; each sum in `split` parts."""
    whole = inputs & -UNROLL
    zeros = [k.vector(0.0)] * (len(rows) * vectors)
    line = vectors * VECTOR_BYTES

    @k.fold(whole, zeros * split, step=UNROLL)
    def parts(i: Value, parts: list[Value]) -> list[Value]:
        for u in range(UNROLL):
            at = u % split * len(zeros)
            part = parts[at : at + len(zeros)]
            new = register_tile_at(k, part, [row + i * 4 for row in rows], w + (i + u) * line, [4 * u])
            parts[at : at + len(zeros)] = new
        return parts

    total = parts[: len(zeros)]
    for at in range(len(zeros), len(parts), len(zeros)):
        total = [a + b for a, b in zip(total, parts[at:], strict=False)]

    @k.fold(inputs, total, start=whole)
    def all_of_it(i: Value, total: list[Value]) -> list[Value]:
        return register_tile_at(k, total, [row + i * 4 for row in rows], w + i * line, [0])

    return all_of_it


def lower(plan: Planner, node: Node) -> None:
    """With constant weights; the epilogue of a fused layer is part of it."""
    from ..plan import NoKernel

    fused = node.op if isinstance(node.op, Fused) else Fused(node.op)
    assert isinstance(fused.base, Dense)
    arguments_of_base = len(node.inputs) - (fused.residual is not None)
    x, weight, *bias = node.inputs[:arguments_of_base]
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if not all(parameter.is_const for parameter in (weight, *bias)):
        raise NoKernel("weights are not constant")
    if fused.activation is not None and not has_activation(fused.activation):
        raise NoKernel(f"no code for {fused.activation.name} in an epilogue")
    matrix_product = layer(plan, fused, weight, bias[0] if bias else None, node.type.nbytes)
    values: dict[str, Argument] = {"x": plan.planar(x)}
    if fused.residual is not None:
        values |= {"r": plan.planar(node.inputs[-1]), "alpha": fused.residual.alpha, "beta": fused.residual.beta}
    values["y"] = plan.new_planar(node)
    matrix_product.call(plan, node, values, "matrix product")


@dataclass(frozen=True)
class Layer:
    """A call but for the values that come and go: `x`, `y` and the residual."""

    kernel: DensePlanar
    parameters: Mapping[str, Argument]
    units: int

    def call(self, plan: Planner, node: Node, values: Mapping[str, Argument], label: str) -> None:
        """Add it for these values."""
        plan.call(node, self.kernel, {**self.parameters, **values}, self.units, label=label)


def layer(plan: Planner, fused: Fused, weight: Node, bias: Node | None, y_bytes: int) -> Layer:
    """The kernel for an output of so many bytes, with its parameters."""
    outputs, inputs = weight.type.dims
    count = y_bytes // (4 * outputs)
    widest, rows = _register_tile(plan.target)
    vectors = min(widest, -(-outputs // LANES))
    rows, split = (1, rows) if count == 1 else (rows, 1)
    kernel = DensePlanar(rows, vectors, split, bias is not None, fused.residual is not None, fused.activation)
    panels = -(-outputs // (vectors * LANES))
    arguments: dict[str, Argument] = {"inputs": inputs, "outputs": outputs, "count": count, "panels": panels}
    arguments["w"] = plan.weight(weight.value, f"dense {vectors}", lambda w: _pack(w, vectors))
    if bias is not None:
        arguments["b"] = plan.weight(bias.value, f"dense {vectors}", lambda b: _pack(b[:, None], vectors))
    return Layer(kernel, arguments, panels * -(-count // ROWS_IN_UNIT))


def _register_tile(target: Target) -> tuple[int, int]:
    """(vectors, rows) of accumulators that leave registers for a line of weights and an input."""
    parts = VECTOR_BYTES * 8 // target.vector_bits  # registers of a vector
    tiles = ((4, 4), (2, 4), (2, 2), (1, 2))
    return next((v, r) for v, r in tiles if v * parts * (r + 1) < target.registers)


def _pack(weight: Array, vectors: int) -> Array:
    """[panel][I][16·vectors] of weight[O, I], zeros for outputs beyond the last."""
    outputs, inputs = weight.shape
    width = vectors * LANES
    padded = np.zeros((-(-outputs // width) * width, inputs), np.float32)
    padded[:outputs] = weight
    return aligned(padded.reshape(-1, width, inputs).transpose(0, 2, 1))
