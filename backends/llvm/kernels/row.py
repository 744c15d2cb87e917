"""What the kernels that move data share: planar rows, 16 pixels at a time, and vectors made of lanes of others.

for x in 0, 16, … < width:
    whole vectors without a mask; the last, partial one under a mask, so that nothing outside the row is touched
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TypeAlias

import numpy as np

from graphsr.op import Array

from ..loops import I64, LANES, MASK, VECTOR, VECTOR_BYTES, Function, Index, Value
from ..memory import aligned

Pick: TypeAlias = "tuple[int, int] | None"
"""Where a lane comes from: (which vector, which lane of it), or zero."""

STREAM_BYTES = 1 << 25
"""From so many bytes on, what is written has left the caches before anybody reads it. Lines that are written past the
caches need not be read first: of three transfers for a copy, two are left."""

BAND_BYTES = 1 << 15
"""What one unit of work moves, about: far more than the cost of taking it, far less than an image."""


def over_row(k: Function, width: Index, body: Callable[[Value, Value | None], None]) -> None:
    """body(x, mask) for every vector of pixels of a row; the mask is None where all of them are in it."""
    whole = k.literal(width & -k.lanes_now) if isinstance(width, int) else width & -k.lanes_now
    with k.loop(whole, step=k.lanes_now) as x:
        body(x, None)
    with k.when(whole < width):
        body(whole, k.first_lanes(width - whole))


def plane_address(k: Function, blocked: bool, name: str, plane: Value, height: Value) -> Value:
    """The address of row 0 of a plane of `name`, "x" or "y": a channel, or a block of an image that has `planes`."""
    if not blocked:
        return k[name] + plane * height * row_bytes(k, blocked, name)
    n, block = plane // k["planes"], plane % k["planes"]
    return k[name] + n * height * k[f"{name}_row"] + block * k[f"{name}_block"]


def row_bytes(k: Function, blocked: bool, name: str) -> Value:
    """Bytes between two rows of such a plane."""
    if blocked:
        return k[f"{name}_row"]
    return k["width" if name == "x" else "out_width"] * 4


def load_row(k: Function, at: Value, mask: Value | None, type_: str = VECTOR) -> Value:
    """A vector of pixels of a planar row, zeros outside the mask. Any alignment."""
    if mask is None:
        return k.load(at, type_, align=4)
    value = k.load_some(at, mask)
    return value if type_ == VECTOR else k.bitcast(value, type_)


def store_row(k: Function, value: Value, at: Value, mask: Value | None, *, past_caches: bool = False) -> None:
    """A vector of pixels of a planar row, under the mask. Any alignment, but `past_caches` needs whole lines."""
    if mask is None and past_caches:
        k.store(value, at, nontemporal=True)
    elif mask is None:
        k.store(value, at, align=4)
    else:
        k.store_some(value if value.type == VECTOR else k.bitcast(value, VECTOR), at, mask)


def streamed(k: Function, stream: Value, rows: Sequence[Value], write: Callable[[bool], None]) -> None:
    """write(past the caches?): where `stream` is not 0 and all rows begin on cache lines, or not."""
    places = k.literal(0)
    for row in rows:
        places = places | k.convert("ptrtoint", row, I64)
    past = ((places & (VECTOR_BYTES - 1)).equals(0)) & (stream > 0)
    with k.when(past):
        write(True)
    with k.when(past ^ 1):
        write(False)


@contextmanager
def band(k: Function, unit: Value, rows: Value, bands: Value, size: Value) -> Iterator[tuple[Value, Value]]:
    """Rows are given out in `bands` of `size` rows: loops over those of a unit. Yields (image, row in the image)."""
    image, first = unit // bands, unit % bands * size
    with k.loop(k.minimum(size, rows - first)) as i:
        yield image, first + i


def even_parts(count: int, most: int) -> tuple[int, int]:
    """(parts, size of each): `count` things in at most so many parts of one size, but for a smaller last one."""
    size = max(1, -(-count // most))
    return -(-count // size), size


def bands_of(rows: int, row_bytes: int, images: int = 1) -> tuple[int, int]:
    """(bands, rows of each): about `BAND_BYTES` each, but enough of them that threads share even a small image."""
    size = max(1, min(rows, BAND_BYTES // max(row_bytes, 1), -(-rows * images // 16)))
    return -(-rows // size), size


def columns_of(inner: int, column_bytes: int, width: int = LANES) -> tuple[int, int]:
    """(pieces, columns of each) of what lies side by side: about `BAND_BYTES` each, in whole steps of `width`."""
    size = max(width, BAND_BYTES // max(column_bytes, 1) // width * width)
    return -(-inner // size), size


def columns_of_unit(k: Function, each: Value) -> tuple[Value, Value, Value]:
    """x[outer, size, inner], of which a unit takes `each` of the inner positions: (which outer one, first of the inner
    ones, how many)."""
    pieces = (k["inner"] + (each - 1)) // each
    start = k.unit % pieces * each
    return k.unit // pieces, start, k.minimum(each, k["inner"] - start)


def around(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int]:
    """(outer, size, inner): elements before, along and behind neighbouring axes. Raises `NoKernel` for others."""
    from ..plan import NoKernel

    if not axes or axes != tuple(range(axes[0], axes[-1] + 1)):
        raise NoKernel(f"the axes {axes} are not neighbours")
    return prod(shape[: axes[0]]), prod(shape[a] for a in axes), prod(shape[axes[-1] + 1 :])


def permute(k: Function, sources: Sequence[Value], picks: Sequence[Pick]) -> Value:
    """The vector with these lanes, by shuffles of two vectors at a time."""
    used = sorted({pick[0] for pick in picks if pick})
    if not used:
        return k.vector(0.0)
    result = sources[used[0]]
    lanes = [pick[1] if pick and pick[0] == used[0] else 0 for pick in picks]
    for source in used[1:]:
        taken = [
            k.lanes_now + pick[1] if pick and pick[0] == source else lane
            for pick, lane in zip(picks, lanes, strict=True)
        ]
        result, lanes = k.shuffle(result, sources[source], taken), list(range(k.lanes_now))
    if any(pick and lane != i for i, (pick, lane) in enumerate(zip(picks, lanes, strict=True))):
        result = k.shuffle(result, result, lanes)
    if None in picks:
        result = k.select(k.lanes([pick is not None for pick in picks], MASK), result, k.vector(0.0))
    return result


def interleave(k: Function, sources: Sequence[Value], unit: int = 1) -> list[Value]:
    """b vectors as b vectors a[0] b[0] … a[1] b[1] …, of units of so many lanes. Where b is even, first two at a time,
    and then these pairs."""
    b = len(sources)
    if b == 2 or b % 2:
        return [interleaved(k, sources, m, unit) for m in range(b)]
    pairs = [interleave(k, sources[i : i + 2], unit) for i in range(0, b, 2)]
    return [vector for half in zip(*pairs, strict=True) for vector in interleave(k, half, 2 * unit)]


def interleaved(k: Function, sources: Sequence[Value], m: int, unit: int = 1) -> Value:
    """The m-th vector of these alone."""
    picks = []
    for p in range(m * k.lanes_now, (m + 1) * k.lanes_now):
        x, j = divmod(p // unit, len(sources))
        picks.append((j, x * unit + p % unit))
    return permute(k, sources, picks)


def deinterleave(k: Function, sources: Sequence[Value]) -> list[Value]:
    """The inverse of `interleave`."""
    b, lanes = len(sources), k.lanes_now
    return [permute(k, sources, [divmod(x * b + j, lanes) for x in range(lanes)]) for j in range(b)]


def float_table(values: Array) -> Array:
    """Numbers that a kernel loads 16 at a time: aligned, with zeros up to whole vectors."""
    padded = np.zeros(-(-len(values) // LANES) * LANES, np.float32)
    padded[: len(values)] = values
    return aligned(padded)
