"""Symbolic sizes are integer arithmetic, done later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.dim import Dim, Size, larger, product, smaller, substitute, symbols_of
from graphsr.errors import GraphError
from graphsr.ir import TensorType
from graphsr.textform import parse_graph

SYMBOLS = ("H", "W", "batch_1")
SIZES = st.fixed_dictionaries({name: st.integers(1, 50) for name in SYMBOLS})


@dataclass(frozen=True)
class Expression:
    """Arithmetic on sizes as a tree, to be evaluated with open or with known sizes."""

    operator: str
    parts: tuple[Expression, ...] = ()
    number: int = 0
    name: str = ""

    def evaluate(self, sizes: Mapping[str, Size]) -> Size:
        values = [part.evaluate(sizes) for part in self.parts]
        match self.operator, values:
            case "symbol", []:
                return sizes[self.name]
            case "number", []:
                return self.number
            case "+", [a, b]:
                return a + b
            case "-", [a, b]:
                return a - b
            case "*", [a, b]:
                return a * b
            case "//", [a]:
                return a // self.number
            case "%", [a]:
                return a % self.number
            case "min", [a, b]:
                return smaller(a, b)
            case "max", [a, b]:
                return larger(a, b)
        raise AssertionError(self)


def _grow(smaller_ones: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    two = st.builds(Expression, st.sampled_from(["+", "-", "*", "min", "max"]), st.tuples(smaller_ones, smaller_ones))
    one = st.builds(Expression, st.sampled_from(["//", "%"]), st.tuples(smaller_ones), st.integers(1, 7))
    return two | one


LEAVES = st.builds(lambda name: Expression("symbol", name=name), st.sampled_from(SYMBOLS)) | st.builds(
    lambda number: Expression("number", number=number), st.integers(-9, 9)
)
EXPRESSIONS = st.recursive(LEAVES, _grow, max_leaves=6)
OPEN: dict[str, Size] = {name: Dim.symbol(name) for name in SYMBOLS}


@given(EXPRESSIONS, SIZES)
def test_open_arithmetic_then_sizes_is_arithmetic_on_sizes(expression: Expression, sizes: dict[str, int]) -> None:
    size = expression.evaluate(OPEN)
    assert substitute(size, sizes) == expression.evaluate(sizes)
    assert symbols_of(size) <= set(SYMBOLS)


@given(EXPRESSIONS, SIZES, st.sets(st.sampled_from(SYMBOLS)))
def test_sizes_may_come_one_after_the_other(expression: Expression, sizes: dict[str, int], first: set[str]) -> None:
    known = {name: sizes[name] for name in first}
    partly = substitute(expression.evaluate(OPEN), known)
    assert not symbols_of(partly) & first
    assert substitute(partly, sizes) == expression.evaluate(sizes)


@given(EXPRESSIONS)
def test_text_is_read_back_as_the_same_size(expression: Expression) -> None:
    """The text form of graphs holds sizes: `a*(H)//2` must not come back as `(a*H)//2`."""
    size = expression.evaluate(OPEN)
    if isinstance(size, int) and size < 0:
        return  # not a size: `TensorType` refuses it
    type_ = TensorType("float32", (size,))
    graph = parse_graph(f"%x = input() : {type_}\nreturn y=%x")
    assert graph.inputs[0].type == type_


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 6)), min_size=1, max_size=6), st.integers(0, 500))
def test_strides_one_after_the_other_are_one_floor(steps: list[tuple[int, int]], size: int) -> None:
    """Layer after layer n becomes ⌊(n + k)/s⌋: however it was come to, it is written in one way, and read back."""
    n, known = Dim.symbol("H") + 0, size
    for k, stride in steps:
        n, known = (n + k) // stride, (known + k) // stride
    assert substitute(n, {"H": size}) == known
    assert str(n).count("//") <= 1
    type_ = TensorType("float32", (n,))
    assert parse_graph(f"%x = input() : {type_}\nreturn y=%x").inputs[0].type == type_


@given(EXPRESSIONS, EXPRESSIONS)
def test_equal_polynomials_are_equal_objects(a: Expression, b: Expression) -> None:
    x, y = a.evaluate(OPEN), b.evaluate(OPEN)
    assert x + y == y + x
    assert x * y == y * x
    assert x - x == 0
    assert hash(x + y) == hash(y + x)
    assert product([x, y, 2]) == 2 * x * y


def test_exact_division() -> None:
    n, c, h, w = (Dim.symbol(s) for s in "NCHW")
    assert (n * c * h * w) // (h * w) == n * c
    assert (6 * h * w) // (2 * w) == 3 * h
    assert 6 * h // h == 6
    for size, divisor in ((n + h, h), (h, h + 1), (3 * h, 2 * h), (8, h)):
        with pytest.raises(GraphError, match="cannot be divided"):
            size // divisor
    with pytest.raises(GraphError, match="must be positive"):
        h // 0


def test_comparison_is_refused() -> None:
    with pytest.raises(TypeError):
        Dim.symbol("H") < 3  # type: ignore[operator]  # noqa: B015  # that is the point


@pytest.mark.parametrize("name", ["", "min", "max", "nan", "inf", "None", "2H", "batch size", "H*2", "é"])
def test_symbols_are_words(name: str) -> None:
    with pytest.raises(GraphError, match="not a name"):
        Dim.symbol(name)


def test_sums_are_divided_by_sums() -> None:
    """Windows of a padded image are counted so: N·windows·60 // windows."""
    n, h, w = (Dim.symbol(name) for name in "NHW")
    padded = (h + -h % 8) * (w + -w % 8)
    assert n * padded * 60 // padded == 60 * n
    assert (h * h + h * w) // (h + w) == h
    with pytest.raises(GraphError, match="cannot be divided"):
        _ = (h * h + 1) // (h + w)
