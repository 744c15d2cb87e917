"""The weights of a 3x3 convolution as vectors of output channels: what a convolution that keeps no U makes it of.

for panel of 16·`vectors` lanes and 16 input channels of the unit:
    for vector of lanes, for 16 of the 144 floats that a lane has of these channels:
        a square of 16 lanes by 16 floats is transposed, and written to t[panel][Ci][9][16·vectors]

They take the memory of the weights themselves, where U takes (m + 2)² / 9 times as much. Kept between runs if the
planner may keep anything, else made by a step of every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array

from ..kernel import Argument, Kernel
from ..loops import I32, I64, IVECTOR, LANES, PTR, VECTOR_BYTES, Function, Value
from ..memory import lines
from ..tensor import Buffer
from .layout import transpose

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target
    from ..weight_forms import WeightForm
    from .conv import Convolution
    from .winograd_weights import WinogradWeights

TAPS = 9


@dataclass(frozen=True)
class WinogradTaps(Kernel):
    """See the loop nest above. `units` holds for each unit: offset in t, first input channel, first lane."""

    vectors: int

    def slots(self) -> Mapping[str, str]:
        return {"w": PTR, "lanes": PTR, "units": PTR, "t": PTR, "channels": I64}

    def body(self, k: Function, target: Target) -> None:
        place, first, lane = (k.load(k["units"] + k.unit * 24 + 8 * i, I64) for i in range(3))
        gather_taps(k, first, lane, k["t"] + place, self.vectors)


def gather_taps(k: Function, first: Value, lane: Value, taps: Value, vectors: int) -> None:
    """Write the taps of 16 input channels from `first` on, of the panel whose lanes begin at `lane`; zeros where there
    is no such channel. `w` are the weights[Co, Ci, 3, 3], `lanes` the place of each lane's floats there or −1."""
    source, count = k["w"] + first * (4 * TAPS), (k["channels"] - first) * TAPS
    with k.loop(vectors) as v, k.pieces() as piece:
        lanes = k["lanes"] + (lane + v * LANES) * 4 + piece
        absent = k.load(lanes, IVECTOR, align=4) < k.lanes([0] * k.lanes_now, IVECTOR)
        places = [k.convert("sext", k.load(lanes + 4 * i, I32), I64) for i in range(k.lanes_now)]
        sources = [source + k.maximum(place, 0) * 4 for place in places]
        with k.loop(LANES * TAPS, step=k.lanes_now) as q:
            mask = k.first_lanes(count - q)
            square = transpose(k, [k.load_some(source + q * 4, mask) for source in sources])
            for i, vector in enumerate(square):
                out = taps + (q + i) * (vectors * VECTOR_BYTES) + v * VECTOR_BYTES + piece
                k.store(k.select(absent, k.vector(0.0), vector), out)


def places_in_weights(conv: Convolution) -> Array:
    """Where in weight[Co, Ci, 3, 3] the floats of every lane begin, −1 for lanes that are no channel."""
    return np.where(conv.order < 0, -1, conv.order * (TAPS * conv.weight.shape[1])).astype(np.int32)


def units_of(places: Array, vectors: int) -> Array:
    """[units, 3] of places[panels, Ci/16]: place, first input channel, first lane."""
    panel, block = np.indices(places.shape)
    return np.stack([places, block * LANES, panel * (vectors * LANES)], axis=-1).reshape(-1, 3).astype(np.int64)


def taps_of(plan: Planner, conv: Convolution, vectors: int) -> WeightForm | Buffer:
    """t[panel][Ci][9][16·vectors] of a convolution's weights."""
    shape = len(conv.order) // (LANES * vectors), -(-conv.weight.shape[1] // LANES)
    block = LANES * TAPS * vectors * VECTOR_BYTES
    places = np.arange(math.prod(shape)).reshape(shape) * block
    memory = lines if plan.keep else None  # of huge pages half would be empty, in layer after layer
    form = conv.form(f"taps {vectors}")
    return prepare(plan, conv, WinogradTaps(vectors), "t", places, places.size * block, form, memory, label="taps")


def prepare(
    plan: Planner,
    conv: Convolution,
    kernel: WinogradTaps | WinogradWeights,
    slot: str,
    places: Array,
    nbytes: int,
    form: str,
    memory: Callable[[int], Array] | None,
    *,
    label: str,
    note: str = "",
    **more: Argument,
) -> WeightForm | Buffer:
    """What a kernel makes of weight[Co, Ci, 3, 3] in `slot`: `nbytes` in all, `places`[panels, Ci/16] of its units.

    Made once for all sizes, in this memory and under the name `form`; in every run where there is no memory for it.
    """
    arguments: dict[str, Argument] = {
        "w": np.ascontiguousarray(conv.weight, np.float32),
        "lanes": places_in_weights(conv),
        "units": units_of(places, kernel.vectors),
        "channels": conv.weight.shape[1],
        **more,
    }
    if memory is None:
        made = Buffer(TensorType("uint8", (nbytes,)))
        plan.call(conv.node, kernel, {**arguments, slot: made}, places.size, label=label, note=note, prepared=made)
        return made

    def make(_: Array) -> Array:
        kept = memory(nbytes)[:nbytes]
        plan.run_now(kernel, {**arguments, slot: kept}, places.size)
        return kept

    return plan.weight(conv.weight, form, make, nbytes)
