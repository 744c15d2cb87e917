"""Winograd's transform of the weights: U = G g Gᵀ in the order in which a kernel will read it.

for panel of 16·`vectors` lanes and 16 input channels of the unit:
    for channel c, vector of lanes:
        g[9] is gathered from weight[Co, Ci, 3, 3]; columns, then rows: U[ξ] = G g Gᵀ to its place

U takes (m + 2)² / 9 times the memory of the weights. What of it the planner may keep is made once per network; the
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
from ..loops import I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import pages
from ..tensor import Buffer
from .winograd_transform import apply_matrix

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from .conv import Convolution

TAPS = 9
LEAST_TILES = (32, 72)
"""Tiles that take as long to multiply as it takes to make and to read the transformed weights: where these are at most
`CACHED_WEIGHTS`, and where they are more."""
CACHED_WEIGHTS = 1 << 20
"""Bytes of transformed weights that stay in the second cache."""


@dataclass(frozen=True)
class WinogradWeights(Kernel):
    """See the loop nest above. `units` holds for each unit: offset in U, first input channel, first lane."""

    m: int
    vectors: int

    def slots(self) -> Mapping[str, str]:
        return {"w": PTR, "lanes": PTR, "units": PTR, "u": PTR, "channels": I64, "point": I64}

    @property
    def line(self) -> int:
        """Bytes of one channel at one ξ."""
        return self.vectors * VECTOR_BYTES

    def scratch(self, target: Target) -> int:
        return (self.m + 2) * 3 * self.line

    def body(self, k: Function, target: Target) -> None:
        a, (_, G, _) = self.m + 2, matrices(self.m)
        place, first, lane = (k.load(k["units"] + k.unit * 24 + 8 * i, I64) for i in range(3))
        u = k["u"] + place
        with k.loop(k.minimum(k["channels"] - first, LANES)) as c:
            source = k["w"] + (first + c) * (4 * TAPS)
            with k.loop(self.vectors) as v, k.pieces() as piece:
                rows = k.load(k["lanes"] + (lane + v * LANES) * 4 + piece, IVECTOR, align=4)
                columns = k.scratch + v * VECTOR_BYTES + piece
                for j in range(3):
                    taps = [(source + 4 * (3 * i + j), columns + (3 * i + j) * self.line) for i in range(3)]
                    g = [self._gather(k, tap, rows, place) for tap, place in taps]
                    for n, value in enumerate(apply_matrix(k, G, g)):
                        k.store(value, columns + (3 * n + j) * self.line)
            with k.loop(a) as i, k.loop(self.vectors) as v, k.pieces() as piece:
                columns = k.scratch + i * (3 * self.line) + v * VECTOR_BYTES + piece
                g = [k.load(columns + j * self.line) for j in range(3)]
                out = u + i * a * k["point"] + c * self.line + v * VECTOR_BYTES + piece
                for j, value in enumerate(apply_matrix(k, G, g)):
                    k.store(value, out + j * k["point"])

    def _gather(self, k: Function, source: Value, rows: Value, place: Value) -> Value:
        """One tap of all lanes; `rows` are their distances in floats, negative where there is no channel. Where lanes
        are loaded one by one, taps are stored at `place` so that LLVM does not load those of several at a time."""
        zero = k.lanes([0] * k.lanes_now, IVECTOR)
        absent = rows < zero
        tap = k.select(absent, k.vector(0.0), k.gather(source, k.select(absent, zero, rows)))
        if k.register < LANES:
            k.store(tap, place)
        return tap


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
    lanes = np.where(conv.order < 0, -1, conv.order * (TAPS * ci)).astype(np.int32)
    arguments = {"w": weight, "lanes": lanes, "units": units, "channels": ci, "point": point}
    kernel = WinogradWeights(m, vectors)
    last = int(places.max()) + ((m + 2) ** 2 - 1) * point + LANES * kernel.line
    nbytes = last + 2 * LANES**2 * kernel.line  # what follows may be prefetched
    if conv.node.inputs[1] not in plan.kept:
        made = Buffer(TensorType("uint8", (nbytes,)))
        note = f"{nbytes / 1e6:.1f} MB in every run, which memory='high' would keep"
        label = f"weights of F({m},3)"
        plan.call(conv.node, kernel, {**arguments, "u": made}, len(units), label=label, note=note, is_conversion=True)
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
        m = winograd_tile(node)
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


def winograd_tile(node: Node) -> int:
    """m of the F(m, 3) by which a convolution is computed, 0 of any other node.

    In a small image with many channels Winograd would wait for its weights: they are many for what is multiplied by
    them, and a plain sum of 9 products per pixel is done sooner. The time of so few tiles is that of `LEAST_TILES`.
    """
    op = node.op.base if isinstance(node.op, Fused) else node.op
    if not isinstance(op, Conv2d) or not op.algorithm.startswith("winograd"):
        return 0
    m = int(op.algorithm[-1])
    (n, co, height, width), ci = node.type.dims, node.inputs[1].type.dims[1]
    tiles, points = n * -(-height // m) * -(-width // m), (m + 2) ** 2
    many = points * co * ci * 4 > CACHED_WEIGHTS
    return 0 if TAPS * n * height * width < points * max(tiles, LEAST_TILES[many]) else m
