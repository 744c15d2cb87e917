"""Winograd's transform of the weights: U = G g Gᵀ in the order in which a kernel will read it.

for panel of 16·`vectors` lanes and 16 input channels of the unit:
    for channel c, vector of lanes:
        g[9] is gathered from weight[Co, Ci, 3, 3]; columns, then rows: U[ξ] = G g Gᵀ to its place

U takes (m + 2)² / 9 times the memory of the weights. As much of it as the planner may keep is made once per network; the
rest is made by a step of every run, just before the convolution, in memory that later steps take over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Conv2d, Fused
from graphsr.ops.winograd import matrices

from ..kernel import Kernel
from ..loops import FLOAT, I64, LANES, PTR, VECTOR, VECTOR_BYTES, Function, Value
from ..memory import pages
from ..tensor import Buffer
from .winograd_transform import apply_matrix

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

TAPS = 9


@dataclass(frozen=True)
class WinogradWeights(Kernel):
    """See the loop nest above. `units` holds for each unit: offset in U, first input channel, first lane."""

    m: int
    vectors: int

    def slots(self) -> Mapping[str, str]:
        return {"w": PTR, "lanes": PTR, "units": PTR, "u": PTR, "channels": I64, "point": I64}

    @property
    def run(self) -> int:
        """Bytes of 16 channels at one ξ; in the scratch, one line more lies between two runs."""
        return LANES * self.vectors * VECTOR_BYTES

    def scratch(self, target: Target) -> int:
        a = self.m + 2
        return a * a * (self.run + VECTOR_BYTES) + a * 3 * VECTOR_BYTES

    def body(self, k: Function, target: Target) -> None:
        a, (_, G, _) = self.m + 2, matrices(self.m)
        place, first, lane = (k.load(k["units"] + k.unit * 24 + 8 * i, I64) for i in range(3))
        columns = k.scratch + a * a * (self.run + VECTOR_BYTES)
        count = k.minimum(k["channels"] - first, LANES)
        with k.loop(count) as c, k.loop(self.vectors) as v, k.pieces() as piece:
            lanes = k["lanes"] + (lane + v * LANES) * 8 + 2 * piece
            rows = [k.load(lanes + 8 * n, I64) for n in range(k.register)]
            source = k["w"] + (first + c) * (4 * TAPS)
            for j in range(3):
                g = [self._gather(k, source + 4 * (3 * i + j), rows) for i in range(3)]
                for n, value in enumerate(apply_matrix(k, G, g)):
                    k.store(value, columns + (3 * n + j) * VECTOR_BYTES)
            staged = k.scratch + (c * self.vectors + v) * VECTOR_BYTES + piece
            with k.loop(a) as i:
                g = [k.load(columns + i * (3 * VECTOR_BYTES) + j * VECTOR_BYTES) for j in range(3)]
                for j, value in enumerate(apply_matrix(k, G, g)):
                    k.store(value, staged + (i * a + j) * (self.run + VECTOR_BYTES))
        with k.loop(a * a) as xi, k.loop(count * (self.vectors * VECTOR_BYTES), step=VECTOR_BYTES) as at:
            value = k.load(k.scratch + xi * (self.run + VECTOR_BYTES) + at)
            k.store(value, k["u"] + place + xi * k["point"] + at)

    def _gather(self, k: Function, source: Value, rows: list[Value]) -> Value:
        """One tap of all lanes of a register; `rows` are their distances in bytes, negative where there is no channel."""
        gathered = k.vector(0.0)
        for n, row in enumerate(rows):
            value = k.load(source + k.maximum(row, 0), FLOAT)
            value = k.select(row < 0, k.literal(0.0, FLOAT), value)
            gathered = k.emit(f"insertelement {VECTOR} {gathered.text}, float {value.text}, i64 {n}", VECTOR)
        return gathered


def transform_weights(
    plan: Planner, conv: Convolution, form: str, m: int, vectors: int, places: Array, point: int
) -> Array | Buffer:
    """U of a convolution's weight[Co, Ci, 3, 3]: kept, or made by a step of the run if the planner may not keep it.

    `form` names all that U depends on but the weights. `places`[panels, Ci/16]: where U[ξ=0] of a panel and 16 input
    channels lies, in bytes; ξ follow at distances of `point` bytes.
    """
    weight = np.ascontiguousarray(conv.weight, np.float32)
    ci, panels = weight.shape[1], len(conv.order) // (LANES * vectors)
    panel, block = np.meshgrid(np.arange(panels), np.arange(-(-ci // LANES)), indexing="ij")
    units = np.stack([places, block * LANES, panel * (vectors * LANES)], axis=-1).reshape(-1, 3).astype(np.int64)
    lanes = np.where(conv.order < 0, -1, conv.order * (4 * TAPS * ci)).astype(np.int64)
    arguments = {"w": weight, "lanes": lanes, "units": units, "channels": ci, "point": point}
    kernel = WinogradWeights(m, vectors)
    last = int(places.max()) + ((m + 2) ** 2 - 1) * point + kernel.run
    nbytes = last + 2 * LANES * kernel.run  # what follows may be prefetched
    if conv.node.inputs[1] not in plan.kept:
        made = Buffer(TensorType("uint8", (nbytes,)))
        label = f"weights of F({m},3)"
        plan.call(conv.node, kernel, {**arguments, "u": made}, len(units), label=label, is_conversion=True)
        return made

    def make(_: Array) -> Array:
        u = pages(nbytes)  # begins with zeros: input channels beyond Ci are not written
        plan.run_now(kernel, {**arguments, "u": u}, len(units))
        return u

    return plan.weight(conv.weight, form, make)


def choose_kept(graph: Graph, keep: float) -> frozenset[Node]:
    """The weights whose transform is kept between runs: `keep` times the bytes of all that have one.

    First those of the convolutions with the fewest tiles, since their products are the least work beside the transform;
    among equals the largest, since the memory for what is made in the run is that of the largest. Besides, all that do
    not fill their blocks of input channels.
    """
    sizes: dict[Node, tuple[int, float]] = {}
    budget = 0.0
    kept = set()
    for node in graph.nodes():
        m = _winograd_tile(node)
        if m and node.inputs[1].is_const and node.inputs[1] not in sizes:
            n, _, height, width = node.type.dims
            weight = node.inputs[1]
            budget += keep * weight.type.nbytes
            sizes[weight] = (n * -(-height // m) * -(-width // m), (m + 2) ** 2 / TAPS * weight.type.nbytes)
            if weight.type.dims[1] % LANES:
                kept.add(weight)
    for weight, (_, nbytes) in sorted(sizes.items(), key=lambda item: (item[1][0], -item[1][1])):
        if nbytes <= budget:
            budget -= nbytes
            kept.add(weight)
    return frozenset(kept)


def _winograd_tile(node: Node) -> int:
    """m of a convolution by Winograd's F(m, 3), 0 of any other node."""
    op = node.op.base if isinstance(node.op, Fused) else node.op
    return int(op.algorithm[-1]) if isinstance(op, Conv2d) and op.algorithm.startswith("winograd") else 0
