"""The scanline filters of PNG (specification, third edition, section 9), over whole images in NumPy.

A filtered byte is the byte minus a prediction from its neighbours, mod 256, `bpp` bytes being one pixel:

    c b     type 0 none: 0        1 sub: a        2 up: b        3 average: floor((a + b) / 2)
    a x     type 4 Paeth: whichever of a, b, c is nearest to a + b - c (ties in this order)

Neighbours outside the image are 0, and each row chooses its own type.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphsr.errors import ImageError

Bytes = npt.NDArray[np.uint8]


def unfilter_rows(filtered: Bytes, bpp: int) -> Bytes:
    """[rows, 1 + row bytes], each row led by its filter type -> [rows, row bytes].

    A pixel needs its left neighbour, so rows cannot be undone at once; but the pixels of one anti-diagonal need
    only the two diagonals before it. Going by diagonals takes rows + columns steps, each one vector operation.
    Raises `ImageError` for an unknown filter type.
    """
    kinds = filtered[:, :1]
    if kinds.max() > 4:
        raise ImageError(f"damaged: filter type {kinds.max()}, expected 0 to 4")
    rows, columns = len(filtered), (filtered.shape[1] - 1) // bpp
    framed = np.zeros((rows + 1, columns + 1, bpp), dtype=np.uint8)  # one zero pixel above and to the left
    framed[1:, 1:] = filtered[:, 1:].reshape(rows, columns, bpp)
    pixels = framed.reshape(-1, bpp)
    used = [kind for kind in (1, 2, 3, 4) if (kinds == kind).any()]
    masks = {kind: np.where(kinds == kind, 255, 0).astype(np.uint8) for kind in used}
    up = columns + 1  # distance of a pixel to the one above; the next of the diagonal is up - 1 further
    for step in range(rows + columns - 1 if used else 0):
        first, last = max(0, step - columns + 1), min(rows - 1, step)
        start = (first + 1) * up + step - first + 1
        stop = start + (last - first) * columns + 1
        a = np.ascontiguousarray(pixels[start - 1 : stop - 1 : columns])
        b = np.ascontiguousarray(pixels[start - up : stop - up : columns])
        c = pixels[start - up - 1 : stop - up - 1 : columns]
        x = pixels[start:stop:columns]
        for kind in used:
            x += _predict(kind, a, b, c) & masks[kind][first : last + 1]
    return np.ascontiguousarray(framed[1:, 1:]).reshape(rows, columns * bpp)


def filter_rows(rows: Bytes, above: Bytes, bpp: int) -> Bytes:
    """[rows, row bytes] -> [rows, 1 + row bytes]; `above` is the row before the first, zeros at the top.

    Each row gets the type with the smallest sum of |byte as signed|, the usual heuristic (section 12.7).
    """
    b = np.vstack([above[None], rows[:-1]])
    a, c = (np.pad(x, ((0, 0), (bpp, 0)))[:, : rows.shape[1]] for x in (rows, b))
    candidates = [rows - _predict(kind, a, b, c) for kind in range(5)]
    costs = [np.abs(candidate.view(np.int8).astype(np.int16)).sum(axis=1) for candidate in candidates]
    best = np.argmin(costs, axis=0)
    result = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    result[:, 0] = best
    for kind, candidate in enumerate(candidates):
        result[best == kind, 1:] = candidate[best == kind]
    return result


def _predict(kind: int, a: Bytes, b: Bytes, c: Bytes) -> Bytes:
    if kind == 0:
        return np.zeros_like(a)
    if kind == 1:
        return a
    if kind == 2:
        return b
    if kind == 3:
        return (a >> 1) + (b >> 1) + (a & b & 1)  # floor((a + b) / 2) in 8 bits
    from_a, from_b = b.astype(np.int16) - c, a.astype(np.int16) - c  # p - a and p - b, for p = a + b - c
    to_a, to_b, to_c = np.abs(from_a), np.abs(from_b), np.abs(from_a + from_b)
    nearest_of_two = np.where(to_b <= to_c, b, c)
    return np.where((to_a <= to_b) & (to_a <= to_c), a, nearest_of_two)
