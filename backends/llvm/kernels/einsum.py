"""einsum of two arrays as one product of batches of matrices; of one array whose letters change places, a transpose.

Letters are of four kinds: batch (in both inputs and the result), summed (in both inputs alone), left and right (in one
input and the result). Then:

a -> [batch, left, summed], b -> [batch, summed, right]        transposes, or views where nothing moves
y = a · b                                                      the matrix product of matmul.py
y -> [batch, left, right] -> the letters of the result         a transpose again
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import Einsum, MatMul, Reshape, Transpose

from .parts import part

if TYPE_CHECKING:
    from ..plan import Planner


def lower(plan: Planner, node: Node) -> None:
    """Planar, in float32. The parts are lowered as nodes of their own."""
    from ..plan import NoKernel

    op = node.op
    assert isinstance(op, Einsum)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if any(child.type.size == 0 for child in node.inputs):
        raise NoKernel("nothing to multiply")
    terms, result = letters(op.equation)
    if len(terms) == 1 and set(terms[0]) == set(result):
        whole = _turned(plan, node, node.inputs[0], terms[0], result)
    elif len(terms) == 2 and not any(set(one) - set(other) - set(result) for one, other in (terms, terms[::-1])):
        whole = _product(plan, node, terms[0], terms[1], result)
    else:
        raise NoKernel(f"{op.equation!r} is not a product of two matrices")
    plan.view(node, whole)


def letters(equation: str) -> tuple[list[str], str]:
    """Those of the inputs and of the result. Raises `NoKernel` where they do not name all axes, each once."""
    from ..plan import NoKernel

    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise NoKernel(f"axes without a letter, or a diagonal, in {equation!r}")
    if not arrow:
        result = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    return terms, result


def _product(plan: Planner, node: Node, a: str, b: str, result: str) -> Node:
    """The letters of each array are those of its axes."""
    sizes = {c: n for term, x in zip((a, b), node.inputs, strict=True) for c, n in zip(term, x.type.dims, strict=True)}
    batch, summed = ("".join(c for c in a if c in b and (c in result) is kept) for kept in (True, False))
    left, right = ("".join(c for c in one if c not in other) for one, other in ((a, b), (b, a)))

    def matrices(x: Node, term: str, rows: str, columns: str) -> Node:
        turned = _turned(plan, node, x, term, batch + rows + columns)
        shape = tuple(prod(sizes[c] for c in group) for group in (batch, rows, columns))
        return part(plan, node, Reshape(shape), turned)

    factors = matrices(node.inputs[0], a, left, summed), matrices(node.inputs[1], b, summed, right)
    y = part(plan, node, MatMul(), *factors)
    whole = part(plan, node, Reshape(tuple(sizes[c] for c in batch + left + right)), y)
    return _turned(plan, node, whole, batch + left + right, result)


def _turned(plan: Planner, node: Node, x: Node, term: str, wanted: str) -> Node:
    """x[term] with its axes in the wanted order."""
    return x if term == wanted else part(plan, node, Transpose(tuple(map(term.index, wanted))), x)
