"""Winograd's transform of the weights, once per network: U = G g Gᵀ in the order in which a kernel will read it.

for panel of 16·`vectors` lanes and 16 input channels of the unit:
    for channel c, vector of lanes:
        g[9] is gathered from weight[Co, Ci, 3, 3]; columns, then rows: U[ξ] = G g Gᵀ to its place
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.op import Array
from graphsr.ops.winograd import matrices

from ..kernel import Kernel
from ..loops import FLOAT, I64, LANES, PTR, VECTOR, VECTOR_BYTES, Function, Value
from ..memory import pages
from .winograd_transform import apply_matrix

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

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
        with k.loop(count) as c, k.loop(self.vectors) as v:
            lanes = k["lanes"] + (lane + v * LANES) * 8
            rows = [k.load(lanes + 8 * n, I64) for n in range(LANES)]
            source = k["w"] + (first + c) * (4 * TAPS)
            for j in range(3):
                g = [self._gather(k, source + 4 * (3 * i + j), rows) for i in range(3)]
                for n, value in enumerate(apply_matrix(k, G, g)):
                    k.store(value, columns + (3 * n + j) * VECTOR_BYTES)
            staged = k.scratch + (c * self.vectors + v) * VECTOR_BYTES
            with k.loop(a) as i:
                g = [k.load(columns + i * (3 * VECTOR_BYTES) + j * VECTOR_BYTES) for j in range(3)]
                for j, value in enumerate(apply_matrix(k, G, g)):
                    k.store(value, staged + (i * a + j) * (self.run + VECTOR_BYTES))
        with k.loop(a * a) as xi, k.loop(count * (self.vectors * VECTOR_BYTES), step=VECTOR_BYTES) as at:
            value = k.load(k.scratch + xi * (self.run + VECTOR_BYTES) + at)
            k.store(value, k["u"] + place + xi * k["point"] + at)

    def _gather(self, k: Function, source: Value, rows: list[Value]) -> Value:
        """One tap of 16 lanes; `rows` are their distances in bytes, negative where there is no channel."""
        gathered = k.vector(0.0)
        for n, row in enumerate(rows):
            value = k.load(source + k.maximum(row, 0), FLOAT)
            value = k.select(row < 0, k.literal(0.0, FLOAT), value)
            gathered = k.emit(f"insertelement {VECTOR} {gathered.text}, float {value.text}, i64 {n}", VECTOR)
        return gathered


def transform_weights(
    plan: Planner, weight: Array, order: Array, m: int, vectors: int, places: Array, point: int
) -> Array:
    """U of weight[Co, Ci, 3, 3] in fresh memory that begins with zeros.

    `order`: the output channel of each lane or −1. `places`[panels, Ci/16]: where U[ξ=0] of a panel and 16 input
    channels lies, in bytes; ξ follow at distances of `point` bytes.
    """
    weight = np.ascontiguousarray(weight, np.float32)
    ci, panels = weight.shape[1], len(order) // (LANES * vectors)
    last = int(places.max()) + ((m + 2) ** 2 - 1) * point + LANES * vectors * VECTOR_BYTES
    u = pages(last + 2 * LANES * LANES * vectors * VECTOR_BYTES)  # what follows may be prefetched
    panel, block = np.meshgrid(np.arange(panels), np.arange(-(-ci // LANES)), indexing="ij")
    units = np.stack([places, block * LANES, panel * (vectors * LANES)], axis=-1).reshape(-1, 3).astype(np.int64)
    lanes = np.where(order < 0, -1, order * (4 * TAPS * ci)).astype(np.int64)
    arguments = {"w": weight, "lanes": lanes, "units": units, "u": u, "channels": ci, "point": point}
    plan.run_now(WinogradWeights(m, vectors), arguments, len(units))
    return u
