"""Sizes that are not known yet.

A network is built once for every image size, so a dimension is either an `int` or a `Dim`: a polynomial with
integer coefficients in symbols such as `H` and `W`. The type rules of the ops are written once, in ordinary
arithmetic, and work on both:

>>> H = Dim.symbol("H")
>>> (H + 2 - 3) // 2 + 1
Dim((H+1)//2)
>>> ((H + 2 - 3) // 2 + 1).substitute({"H": 48})
24
>>> 2 * H // 2 == H and H - H == 0
True

Comparisons such as `<` are not defined on a `Dim`: a type rule checks what it knows (`isinstance(n, int)`), the
rest is checked when the sizes are bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from graphsr.errors import GraphError


@dataclass(frozen=True, slots=True)
class Symbol:
    """An open size, bound by the shape of an input."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """⌊numerator / divisor⌋ that could not be carried out symbolically."""

    numerator: Dim
    divisor: int

    def __str__(self) -> str:
        return f"({self.numerator})//{self.divisor}"


@dataclass(frozen=True, slots=True)
class Extremum:
    """The smaller (`which="min"`) or larger (`"max"`) of two sizes."""

    which: str
    a: Size
    b: Size

    def __str__(self) -> str:
        return f"{self.which}({self.a},{self.b})"


Atom: TypeAlias = "Symbol | FloorDiv | Extremum"
RESERVED = frozenset(("min", "max", "inf", "nan", "True", "False", "None"))
"""Words that mean something else in the text form."""

REMEMBERED = 1024
"""Results of each operation that are remembered: the layers of a network do the same arithmetic on the same sizes."""

MOST_TERMS = 32
"""Of a quotient, and of what is divided by it the square: a file may ask for any, and longer ones take seconds."""

Monomial: TypeAlias = "tuple[Atom, ...]"  # a product of atoms, sorted by their text; () is the constant 1


@dataclass(frozen=True, slots=True)
class Dim:
    """Σ coefficient · monomial, in canonical order, so that equal polynomials are equal objects."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def symbol(name: str) -> Dim:
        """An open size. The name is an ASCII identifier, so that the text form of a size can be read back."""
        if not (name.isascii() and name.isidentifier()) or name in RESERVED:
            raise GraphError(f"{name!r} is not a name for an open size: letters, digits and _, such as 'H' or 'batch'")
        return Dim((((Symbol(name),), 1),))

    def __add__(self, other: Size) -> Size:
        return _sum(self, other)

    def __sub__(self, other: Size) -> Size:
        return _sum(self, -other)

    def __rsub__(self, other: Size) -> Size:
        return _scale(self, -1) + other

    def __mul__(self, other: Size) -> Size:
        return _product(self, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return _scale(self, -1)

    def __floordiv__(self, other: Size) -> Size:
        return _quotient(self, other)

    def __rfloordiv__(self, other: int) -> Size:
        return Dim(((((), other)),)) // self

    def __mod__(self, other: int) -> Size:
        return self - (self // other) * other

    def substitute(self, sizes: Mapping[str, Size]) -> Size:
        """The value once symbols are known; unknown symbols stay."""
        total: Size = 0
        for monomial, coefficient in self.terms:
            product: Size = coefficient
            for atom in monomial:
                product = product * _substitute_atom(atom, sizes)
            total = total + product
        return total

    def symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                match atom:
                    case Symbol(name):
                        found.add(name)
                    case FloorDiv(numerator, _):
                        found |= numerator.symbols()
                    case Extremum(_, a, b):
                        found |= symbols_of(a) | symbols_of(b)
        return frozenset(found)

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            alone = coefficient == 1 and len(monomial) == 1
            factors = "*".join(str(atom) if alone else _factor(atom) for atom in monomial)
            if not monomial:
                term = str(coefficient)
            elif abs(coefficient) == 1:
                term = factors if coefficient == 1 else "-" + factors
            else:
                term = f"{coefficient}*{factors}"
            text += term if not text or term.startswith("-") else "+" + term
        return text

    def __repr__(self) -> str:
        return f"Dim({self})"


Size: TypeAlias = int | Dim
"""A size that is known, or still open."""


def smaller(a: Size, b: Size) -> Size:
    """min(a, b), carried out when both are known."""
    return _extremum("min", a, b)


def larger(a: Size, b: Size) -> Size:
    """max(a, b), carried out when both are known."""
    return _extremum("max", a, b)


def substitute(size: Size, sizes: Mapping[str, Size]) -> Size:
    return size.substitute(sizes) if isinstance(size, Dim) else size


def symbols_of(size: Size) -> frozenset[str]:
    return size.symbols() if isinstance(size, Dim) else frozenset()


def product(sizes: Iterable[Size]) -> Size:
    """Π sizes in Python integers: never wraps, whatever a file declares."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def _factor(atom: Atom) -> str:
    """The atom within a product: a quotient needs parentheses, as 2*(H)//2 would be (2*(H))//2."""
    return f"({atom})" if isinstance(atom, FloorDiv) else str(atom)


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), size),)


@lru_cache(REMEMBERED)
def _sum(a: Dim, b: Size) -> Size:
    return _collect([*a.terms, *_terms(b)])


@lru_cache(REMEMBERED)
def _product(a: Dim, b: Size) -> Size:
    return _collect((tuple(sorted(m + n, key=str)), x * y) for m, x in a.terms for n, y in _terms(b))


@lru_cache(REMEMBERED)
def _quotient(size: Dim, divisor: Size) -> Size:
    """⌊size / divisor⌋"""
    if isinstance(divisor, Dim):
        return _divide_exactly(size, divisor)
    if divisor <= 0:
        raise GraphError(f"size {size} divided by {divisor}: the divisor must be positive")
    # q·d + r: the terms that d divides leave the floor, the rest stays under it.
    whole = _collect((m, a // divisor) for m, a in size.terms)
    rest = _collect((m, a % divisor) for m, a in size.terms)
    if isinstance(rest, int):
        return whole + rest // divisor
    # One floor instead of two, so that what is equal is written alike: ⌊(⌊a/b⌋ + r)/c⌋ = ⌊(a + r·b)/(b·c)⌋
    match rest.terms:
        case (((FloorDiv(numerator, inner),), 1),):
            return whole + numerator // (inner * divisor)
        case (((FloorDiv(numerator, inner),), 1), ((), r)):
            return whole + (numerator + r * inner) // (inner * divisor)
    return whole + Dim((((FloorDiv(rest, divisor),), 1),))


def _scale(size: Size, factor: int) -> Size:
    return _collect((m, a * factor) for m, a in _terms(size))


def _collect(terms: Iterable[tuple[Monomial, int]]) -> Size:
    """Add up equal monomials; an int when nothing open remains. Longer monomials first, the constant last."""
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = [(m, a) for m, a in total.items() if a]
    if not any(m for m, _ in kept):
        return sum(a for _, a in kept)
    return Dim(tuple(sorted(kept, key=lambda term: (-len(term[0]), [str(atom) for atom in term[0]]))))


def _divide_exactly(size: Dim, divisor: Dim) -> Size:
    """A quotient that is a polynomial again, such as N·C·H·W // (H·W) or (H² + H·W) // (H + W); else it is refused.

    Long division: the first term of what is left, by the first of the divisor, is a term of the quotient. Terms are in
    a monomial order (by degree, then by atoms), so that the first one of a product is the product of the first ones.
    """
    (by, scale), *_ = divisor.terms
    quotient: list[tuple[Monomial, int]] = []
    left: Size = size
    most = MOST_TERMS if len(size.terms) <= MOST_TERMS**2 else 0
    while isinstance(left, Dim) and len(quotient) < most:
        first, coefficient = left.terms[0]
        rest = _without(first, by)
        if rest is None or coefficient % scale:
            break
        quotient.append((rest, coefficient // scale))
        left = left - Dim((quotient[-1],)) * divisor
    if left != 0:
        raise GraphError(f"size {_short(size)} cannot be divided by {_short(divisor)} before the sizes are bound")
    return _collect(quotient)


def _short(size: Size) -> str:
    text = str(size)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _without(monomial: Monomial, factors: Monomial) -> Monomial | None:
    """The monomial without these factors; None if it does not have them."""
    rest = list(monomial)
    for atom in factors:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _substitute_atom(atom: Atom, sizes: Mapping[str, Size]) -> Size:
    match atom:
        case Symbol(name):
            return sizes.get(name, Dim(((((atom,)), 1),)))
        case FloorDiv(numerator, divisor):
            return numerator.substitute(sizes) // divisor
        case Extremum(which, a, b):
            return _extremum(which, substitute(a, sizes), substitute(b, sizes))


def _extremum(which: str, a: Size, b: Size) -> Size:
    if a == b:
        return a
    difference = a - b
    if isinstance(difference, int):
        return a if (difference < 0) == (which == "min") else b
    return Dim((((Extremum(which, a, b),), 1),))
