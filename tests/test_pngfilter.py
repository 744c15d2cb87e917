"""PNG scanline filters against the specification, byte by byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr.errors import ImageError
from graphsr.pngfilter import filter_rows, unfilter_rows

Bytes = npt.NDArray[Any]


def prediction(kind: int, a: int, b: int, c: int) -> int:
    """Section 9.2 and 9.4 of the PNG specification, word by word."""
    if kind == 4:
        p = a + b - c
        pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
        if pa <= pb and pa <= pc:
            return a
        return b if pb <= pc else c
    return (0, a, b, (a + b) // 2)[kind]


def reconstruct(filtered: Bytes, bpp: int) -> Bytes:
    rows, columns = filtered.shape[0], filtered.shape[1] - 1
    result = np.zeros((rows, columns), dtype=np.uint8)
    for y in range(rows):
        for x in range(columns):
            a = int(result[y, x - bpp]) if x >= bpp else 0
            b = int(result[y - 1, x]) if y else 0
            c = int(result[y - 1, x - bpp]) if y and x >= bpp else 0
            value = int(filtered[y, 1 + x]) + prediction(int(filtered[y, 0]), a, b, c)
            result[y, x] = value % 256
    return result


@st.composite
def filtered_images(draw: st.DrawFn) -> tuple[Bytes, int]:
    bpp = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    kinds = draw(hnp.arrays(np.uint8, (rows, 1), elements=st.integers(0, 4)))
    data = draw(hnp.arrays(np.uint8, (rows, columns * bpp)))
    return np.hstack([kinds, data]), bpp


@given(filtered_images())
def test_unfilter_is_the_specification(case: tuple[Bytes, int]) -> None:
    filtered, bpp = case
    np.testing.assert_array_equal(unfilter_rows(filtered, bpp), reconstruct(filtered, bpp))


@given(filtered_images(), st.integers(0, 6))
def test_filter_and_unfilter_are_inverse_in_bands(case: tuple[Bytes, int], split: int) -> None:
    rows, bpp = case[0][:, 1:], case[1]
    split = min(split, len(rows) - 1)
    above = rows[split - 1] if split else np.zeros_like(rows[0])
    bands = [filter_rows(rows[:split], np.zeros_like(rows[0]), bpp)] if split else []
    filtered = np.vstack([*bands, filter_rows(rows[split:], above, bpp)])
    np.testing.assert_array_equal(unfilter_rows(filtered, bpp), rows)


def test_filter_chooses_what_compresses() -> None:
    ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
    filtered = filter_rows(ramp, np.zeros_like(ramp[0]), bpp=1)
    assert filtered[0, 0] == 1  # sub: constant steps
    assert (filtered[1:, 0] == 2).all()  # up: equal rows
    assert not filtered[1:, 1:].any()


def test_unknown_filter_type_is_refused() -> None:
    with pytest.raises(ImageError, match="filter type 5"):
        unfilter_rows(np.array([[0, 1], [5, 1]], dtype=np.uint8), bpp=1)
