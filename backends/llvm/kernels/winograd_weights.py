"""Winograd's transform of the weights: U = G g Gᵀ in the order in which a kernel will read it.

for panel of 16·`vectors` lanes and 16 input channels of the unit:
    the taps of these channels are gathered to scratch
    for 8 channels of them: for channel, vector of lanes: G g to scratch
        for row i of α: for channel, vector of lanes: row i of G g Gᵀ to its places

The rows are the outer loop of the second half, so that U is written in α runs at a time instead of α² lines.

U takes (m + 2)² / 9 times the memory of the weights. Where it is large, the convolution makes it itself, row by row in
the second cache, which takes less time than to write and to read it. Else, what the planner may keep is made once per
network, and the rest by a step of every run, in memory that later steps take over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphsr.ir import Graph, Node
from graphsr.op import Array
from graphsr.ops import Conv2d, ConvNd, Fused
from graphsr.ops.winograd import matrices

from ..kernel import Kernel
from ..loops import I64, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import pages
from ..tensor import Buffer
from .winograd_taps import TAPS, gather_taps, prepare
from .winograd_transform import apply_matrix

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..weight_forms import WeightForm
    from .conv import Convolution

LEAST_TILES = (32, 48)
"""Tiles that take as long to multiply as it takes to make and to read the transformed weights: where these are at most
`CACHED_WEIGHTS`, and where they are more."""
CHANNELS = 8
"""Input channels between the two halves of the transform: what lies between stays in the first cache."""
LARGE = 2 << 20
"""Bytes of transformed weights that fill the second cache."""
MANY_CHANNELS = 128
"""Input channels from which V of a few tiles fills it, too."""
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

    @property
    def taps(self) -> int:
        """Bytes of the taps of 16 channels."""
        return LANES * TAPS * self.line

    @property
    def columns(self) -> int:
        """Bytes of one channel between the two products: α rows of three values."""
        return (self.m + 2) * 3 * self.line

    def scratch(self, target: Target) -> int:
        return self.taps + CHANNELS * self.columns

    def body(self, k: Function, target: Target) -> None:
        place, first, lane = (k.load(k["units"] + k.unit * 24 + 8 * i, I64) for i in range(3))
        taps, columns = k.scratch, k.scratch + self.taps
        gather_taps(k, first, lane, taps, self.vectors)
        with k.loop(LANES, step=CHANNELS) as some:
            with k.loop(CHANNELS) as c:
                self._columns(k, taps + (some + c) * (TAPS * self.line), columns + c * self.columns)
            u = k["u"] + place + some * self.line
            with k.loop(self.m + 2) as i, k.loop(CHANNELS) as c:
                self._row(k, columns + c * self.columns + i * (3 * self.line), u + c * self.line, i)

    def _columns(self, k: Function, taps: Value, columns: Value) -> None:
        """G g of one channel."""
        _, G, _ = matrices(self.m)
        with k.loop(3) as j, k.loop(self.vectors) as v, k.pieces() as piece:
            at = j * self.line + v * VECTOR_BYTES + piece
            g = [k.load(taps + (3 * i * self.line) + at) for i in range(3)]
            for n, value in enumerate(apply_matrix(k, G, g)):
                k.store(value, columns + (3 * n * self.line) + at)

    def _row(self, k: Function, columns: Value, u: Value, i: Value) -> None:
        """Row i of U of one channel: α values at distances of a point."""
        a, (_, G, _) = self.m + 2, matrices(self.m)
        with k.loop(self.vectors) as v, k.pieces() as piece:
            at = v * VECTOR_BYTES + piece
            out = u + i * a * k["point"] + at
            for j, value in enumerate(apply_matrix(k, G, [k.load(columns + j * self.line + at) for j in range(3)])):
                k.store(value, out + j * k["point"])


def transform_weights(
    plan: Planner, conv: Convolution, form: str, m: int, vectors: int, places: Array, point: int
) -> WeightForm | Buffer:
    """U of a convolution's weight[Co, Ci, 3, 3]: kept, or made by a step of the run if the planner may not keep it.

    `form` names all that U depends on but the weights. `places`[panels, Ci/16]: where U[ξ=0] of a panel and 16 input
    channels lies, in bytes; ξ follow at distances of `point` bytes.
    """
    kernel = WinogradWeights(m, vectors)
    last = int(places.max()) + ((m + 2) ** 2 - 1) * point + LANES * kernel.line
    nbytes = last + 2 * LANES**2 * kernel.line  # what follows may be prefetched
    memory = pages if conv.node.inputs[1] in plan.kept else None
    note = f"{nbytes / 1e6:.1f} MB in every run that memory='high' keeps"
    label = f"weights of F({m},3)"
    return prepare(plan, conv, kernel, "u", places, nbytes, form, memory, label=label, note=note, point=point)


def choose_kept(graph: Graph, keep: float) -> dict[Node, int]:
    """The weights whose transform is kept between runs, and its bytes: `keep` times the bytes of all that have one.

    First those of the convolutions with the fewest tiles, since their products are the least work beside the transform;
    among equals the largest, since the memory for what is made in the run is that of the largest. None that is large,
    unless all are kept.
    """
    sizes: dict[Node, tuple[int, int]] = {}
    budget = 0.0
    kept = {}
    for node in graph.nodes():
        m = winograd_tile(node)
        if m and node.inputs[1].is_const and node.inputs[1] not in sizes:
            weight = node.inputs[1]
            budget += keep * weight.type.nbytes
            if keep == math.inf or not is_large(weight.type.dims, m):
                sizes[weight] = tiles_of(node, m), (m + 2) ** 2 * weight.type.nbytes // TAPS
    for weight, (_, nbytes) in sorted(sizes.items(), key=lambda item: (item[1][0], -item[1][1])):
        if nbytes <= budget:
            budget -= nbytes
            kept[weight] = nbytes
    return kept


def is_large(shape: tuple[int, ...], m: int) -> bool:
    """Whether U of weights[Co, Ci, 3, 3] is better made where it is used than read from beyond the second cache."""
    co, ci = shape[:2]
    return ci >= MANY_CHANNELS and (m + 2) ** 2 * co * ci * 4 > LARGE


def winograd_tile(node: Node) -> int:
    """m of the F(m, 3) by which a convolution of images or volumes is computed, 0 of any other node.

    In a small image with many channels Winograd would wait for its weights: they are many for what is multiplied by
    them, and a plain sum of 9 products per pixel is done sooner. The time of so few tiles is that of `LEAST_TILES`.
    """
    m = wanted_tile(node)
    if not m:
        return 0
    pixels, (co, ci, *kernel) = math.prod(node.type.dims) // node.type.dims[1], node.inputs[1].type.dims
    points = (m + 2) ** 2
    many = points * co * ci * math.prod(kernel[:-2]) * 4 > CACHED_WEIGHTS
    return 0 if TAPS * pixels < points * max(tiles_of(node, m), LEAST_TILES[many]) else m


def tiles_of(node: Node, m: int) -> int:
    """Tiles of a convolution's output."""
    n, _, *outer, height, width = node.type.dims
    return n * math.prod(outer) * -(-height // m) * -(-width // m)


def wanted_tile(node: Node) -> int:
    """m of the F(m, 3) that the graph says of a convolution, 0 of any other node."""
    op = node.op.base if isinstance(node.op, Fused) else node.op
    return int(op.algorithm[-1]) if isinstance(op, Conv2d | ConvNd) and op.algorithm.startswith("winograd") else 0
