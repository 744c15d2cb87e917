"""Strategies for products: vectors, matrices, batches that are broadcast; equations of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import Einsum, MatMul
from graphsr.testing.cases import Case, arrays, layer
from graphsr.testing.elementwise import broadcast_shapes

SIZE = st.integers(1, 3)
EQUATIONS = (
    "ij,jk->ik",
    "ij,jk",
    "bij,bjk->bik",
    "...ij,...jk->...ik",
    "...ii->...i",
    "ij->",
    "ij->ji",
    "i,j->ij",
    "ij,ij,j->i",
    "a...,...->...a",
    "iij,j->i",
)


@layer("matmul")
def matmul(draw: st.DrawFn) -> Case:
    outer_a, outer_b = (shape[:2] for shape in draw(broadcast_shapes()))
    if len(outer_a) != len(outer_b) or any(1 not in (m, n) and m != n for m, n in zip(outer_a, outer_b, strict=True)):
        outer_a = outer_b
    rows, inner, columns = draw(SIZE), draw(SIZE), draw(SIZE)
    a = draw(st.sampled_from([(*outer_a, rows, inner), (rows, inner), (inner,)]))
    b = draw(st.sampled_from([(*outer_b, inner, columns), (inner, columns), (inner,)]))
    return Case(MatMul(), (draw(arrays(a)), draw(arrays(b))))


@layer("einsum")
def einsum(draw: st.DrawFn) -> Case:
    """Sizes for the letters; behind "..." up to two axes, some of size 1."""
    equation = draw(st.sampled_from(EQUATIONS))
    sizes = {letter: draw(SIZE) for letter in sorted(set(equation)) if letter.isalpha()}
    ellipsis = draw(st.lists(SIZE, max_size=2))
    inputs = []
    for term in equation.partition("->")[0].split(","):
        before, dots, behind = term.partition("...")
        outer = [draw(st.sampled_from([n, n, 1])) for n in ellipsis[draw(st.integers(0, len(ellipsis))) :]]
        shape = [*(sizes[c] for c in before), *(outer if dots else ()), *(sizes[c] for c in behind)]
        inputs.append(draw(arrays(tuple(shape))))
    return Case(Einsum(equation), tuple(inputs))
