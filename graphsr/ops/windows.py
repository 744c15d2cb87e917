"""Sliding windows: what convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Iterator

from graphsr.op import Array

Pair = tuple[int, int]


def taps(padded: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Iterator[tuple[int, int, Array]]:
    """For each position (i, j) in the window, row by row, the view [n, c, ho, wo] of the padded input that it meets:
    padded[n, c, s·h + d·i, s·w + d·j]. Writing to the view writes to the input."""
    (sh, sw), (dh, dw), (ho, wo) = stride, dilation, out
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dh, i * dh + sh * (ho - 1) + 1, sh)
            columns = slice(j * dw, j * dw + sw * (wo - 1) + 1, sw)
            yield i, j, padded[:, :, rows, columns]
