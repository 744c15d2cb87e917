"""Winograd's minimal filtering F(m, 3): the meaning of `conv2d(algorithm="winograd_fm")`.

F(m, r) computes m outputs of a correlation with r taps from α = m + r − 1 inputs with α instead of m·r
multiplications; in two dimensions with r = 3 that is α² instead of 9·m² per tile and channel pair:

    Y = Aᵀ [ Σ_c (G g Gᵀ) ⊙ (Bᵀ d B) ] A

(Winograd 1980; Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015, eq. 8). The matrices
come from evaluating polynomials at α − 1 points and at infinity (Toom-Cook); the points decide the rounding
error, and the ones below are the best measured for each m.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
    6: tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")),
}
"""Interpolation points of F(m, 3), beside the one at infinity."""

ERROR: dict[int, float] = {2: 2.2e-6, 4: 1.0e-5, 6: 6.8e-5}
"""Largest error seen in one large sample, in units of the output's standard deviation: float32, 256 channels, normal
data, against a float64 direct sum, where a plain float32 sum is off by 7e-6. Other samples reach 1.7 times as much.
`choose_conv_algorithm` compares the algorithms by it."""

R = 3
"""Taps of the kernel."""


@cache
def matrices(m: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Aᵀ [m, α], G [α, 3] and Bᵀ [α, α] of F(m, 3) in float64, correctly rounded from exact fractions.

    With points p_k: Aᵀ[i, k] = p_k^i; G[k, j] = p_k^j / N_k with N_k = Π_{l≠k} (p_k − p_l); row k of Bᵀ holds
    the coefficients of Π_{l≠k} (x − p_l), and the last row those of Π_l (x − p_l).
    """
    points = POINTS[m]
    a = m + R - 1
    at = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    g, bt = [], []
    for k, p in enumerate(points):
        others = points[:k] + points[k + 1 :]
        norm = Fraction(1)
        for q in others:
            norm *= p - q
        g.append([p**j / norm for j in range(R)])
        bt.append([*_coefficients(others), Fraction(0)])
    g.append([Fraction(0), Fraction(0), Fraction(1)])
    bt.append(_coefficients(points))
    shapes = ((at, (m, a)), (g, (a, R)), (bt, (a, a)))
    AT, G, BT = (np.array(rows, dtype=np.float64).reshape(shape) for rows, shape in shapes)
    for matrix in (AT, G, BT):
        matrix.setflags(write=False)
    return AT, G, BT


def _coefficients(roots: tuple[Fraction, ...]) -> list[Fraction]:
    """Coefficients, lowest first, of Π (x − root)."""
    poly = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *poly]
        poly = [s - root * c for s, c in zip(shifted, [*poly, Fraction(0)], strict=True)]
    return poly


def transform_weight(weight: npt.NDArray[Any], m: int) -> npt.NDArray[Any]:
    """U = G g Gᵀ for every pair of channels: weight[Co, Ci, 3, 3] -> U[α, α, Co, Ci], rounded once."""
    _, G, _ = matrices(m)
    u = np.einsum("xi,ocij,yj->xyoc", G, weight.astype(np.float64), G, optimize=True)
    return np.ascontiguousarray(u, dtype=weight.dtype)


def winograd_conv2d(
    x: npt.NDArray[Any], weight: npt.NDArray[Any], padding: tuple[int, int, int, int], m: int
) -> npt.NDArray[Any]:
    """A 3x3 convolution with stride 1 by F(m, 3) in the dtype of x: x[N,Ci,H,W], weight[Co,Ci,3,3] -> [N,Co,Ho,Wo]."""
    top, left, bottom, right = padding
    (n, ci, h, w), co = x.shape, len(weight)
    ho, wo = h + top + bottom - 2, w + left + right - 2
    rows, columns = -(-ho // m), -(-wo // m)  # tiles, the last ones padded with zeros
    more = ((0, 0), (0, 0), (top, rows * m + 2 - h - top), (left, columns * m + 2 - w - left))
    a = m + R - 1
    tiles = np.lib.stride_tricks.sliding_window_view(np.pad(x, more), (a, a), axis=(2, 3))[:, :, ::m, ::m]
    AT, _, BT = (matrix.astype(x.dtype) for matrix in matrices(m))
    V = np.einsum("xi,nctuij,yj->xycntu", BT, tiles, BT, optimize=True).reshape(a, a, ci, n * rows * columns)
    M = (transform_weight(weight, m) @ V).reshape(a, a, co, n, rows, columns)
    y = np.einsum("ix,xyontu,jy->notiuj", AT, M, AT, optimize=True)
    return np.ascontiguousarray(y.reshape(n, co, rows * m, columns * m)[:, :, :ho, :wo])
