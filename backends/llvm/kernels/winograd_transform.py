"""One-dimensional Winograd transforms on vectors: y = T·x for a constant matrix T, with few operations."""

from __future__ import annotations

from collections.abc import Sequence

from graphsr.op import Array

from ..loops import Function, Value


def apply_matrix(k: Function, matrix: Array, x: Sequence[Value]) -> list[Value]:
    """matrix[m, n] on x[n] -> m values.

    The points of a transform come as ±p, so that rows (of Bᵀ) or columns (of Aᵀ) come in pairs which agree in one
    half of their entries and are opposite in the other. A pair of rows is even + odd and even − odd; a pair of columns
    acts on the sum and the difference of its two operands. Both halve the multiplications.
    """
    columns = _column_pairs(matrix)
    if columns:
        return _paired_columns(k, matrix, x, columns)
    pairs = _row_pairs(matrix)
    single = [i for i in range(len(matrix)) if all(i not in pair for pair in pairs)]
    done = {i: combine(k, matrix[i], x) for i in single}  # first: in Bᵀ no others read x[0] and x[n−1]
    for i, j in pairs:
        same = matrix[i] == matrix[j]
        even, odd = combine(k, matrix[i] * same, x), combine(k, matrix[i] * ~same, x)
        done[i], done[j] = even + odd, even - odd
    return [done[i] for i in range(len(matrix))]


def combine(k: Function, coefficients: Array, x: Sequence[Value]) -> Value:
    """Σ coefficients[i]·x[i] over the non-zero coefficients; those that are 1 come first and cost no product."""
    terms = sorted(((float(c), v) for c, v in zip(coefficients, x, strict=True) if c), key=lambda term: term[0] != 1)
    (c, first), *rest = terms
    total = first if c == 1 else first * k.vector(c)
    for c, v in rest:
        match c:
            case 1.0:
                total = total + v
            case -1.0:
                total = total - v
            case _:
                total = k.fma(v, k.vector(c), total)
    return total


def _row_pairs(matrix: Array) -> list[tuple[int, int]]:
    """Rows i < j that are equal in some columns and opposite in the others."""
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i in range(len(matrix)):
        for j in range(i + 1, len(matrix)):
            a, b = matrix[i], matrix[j]
            mixed = bool(((a == b) & (a != 0)).any() and ((a == -b) & (a != 0)).any())
            if not {i, j} & taken and mixed and bool(((a == b) | (a == -b)).all()):
                pairs.append((i, j))
                taken |= {i, j}
    return pairs


def _column_pairs(matrix: Array) -> list[tuple[int, int]]:
    """Columns i < j with matrix[r, j] = (−1)^r · matrix[r, i]: powers of a point and of its opposite."""
    sign = [(-1.0) ** r for r in range(len(matrix))]
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i in range(matrix.shape[1]):
        for j in range(i + 1, matrix.shape[1]):
            opposite = bool((matrix[:, j] == matrix[:, i] * sign).all())
            if not {i, j} & taken and opposite and bool(matrix[1::2, i].any()):
                pairs.append((i, j))
                taken |= {i, j}
    return pairs


def _paired_columns(k: Function, matrix: Array, x: Sequence[Value], pairs: list[tuple[int, int]]) -> list[Value]:
    single = [c for c in range(matrix.shape[1]) if all(c not in pair for pair in pairs)]
    sums = [x[i] + x[j] for i, j in pairs]
    differences = [x[i] - x[j] for i, j in pairs]
    first = [i for i, _ in pairs]
    return [
        combine(k, row[[*first, *single]], [*(differences if r % 2 else sums), *(x[c] for c in single)])
        for r, row in enumerate(matrix)
    ]
