"""How reductions, running sums, extrema and products of matrices are written as ONNX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphsr.ops import (
    ArgMax,
    ArgMin,
    CumulativeSum,
    Dense,
    Einsum,
    GlobalAvgPool,
    GlobalMaxPool,
    Hardmax,
    LogSoftmax,
    MatMul,
    ReduceL1,
    ReduceL2,
    ReduceLogSum,
    ReduceLogSumExp,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceProd,
    ReduceSum,
    ReduceSumSquare,
    Softmax,
    TopK,
)
from graphsr.ops.order import Place
from graphsr.ops.reduce import Reduction

from .onnx_export_writer import Rule, Rules, Site, integers, plain

NARROW = ("int8", "uint8", "uint16", "bool")
"""What ONNX does not add up: int64 does it, and the cast back wraps around as they would; whatever is not 0 is true."""


def _wide(s: Site, x: str, compute: Callable[[str], str]) -> str:
    return s.cast(compute(s.cast(x, "int64")), s.dtype) if s.dtype in NARROW else compute(x)


def reduce_sum(s: Site, x: str, axes: tuple[int, ...], keepdims: bool = True) -> str:
    return s("ReduceSum", x, integers(axes), keepdims=int(keepdims)) if axes else x


def reduced(s: Site, operator: str, x: str, axes: tuple[int, ...], keepdims: bool = True) -> str:
    """A reduction along at least one axis; in set 17 axes are attributes of all but ReduceSum."""
    return s(operator, x, axes=list(axes), keepdims=int(keepdims))


def _reduction(operator: str, of_one: Callable[[Site, str], str]) -> Rule:
    """`of_one` is what remains where no axis is reduced: without axes the operator would reduce all."""

    def rule(s: Site, op: Reduction, x: str) -> str:
        if not op.axes:
            return of_one(s, x)
        return _wide(s, x, lambda wide: reduced(s, operator, wide, op.axes, op.keepdims))

    return rule


def _same(s: Site, x: str) -> str:
    return x


def _place(operator: str) -> Rule:
    def rule(s: Site, op: Place, x: str) -> str:
        x = s.cast(x, "uint8") if s.dtype == "bool" else x
        return s(operator, x, axis=op.axis, keepdims=int(op.keepdims), select_last_index=int(op.last))

    return rule


def _top_k(s: Site, op: TopK, x: str) -> str:
    how = {"axis": op.axis, "largest": int(op.largest), "sorted": 1}
    values, indices = s.several("TopK", 2, x, integers([op.k]), **how)
    return values if op.output == "values" else indices


def _cumulative_sum(s: Site, op: CumulativeSum, x: str) -> str:
    how = {"exclusive": int(op.exclusive), "reverse": int(op.reverse)}
    return _wide(s, x, lambda wide: s("CumSum", wide, np.array(op.axis, np.int64), **how))


def _softmax(s: Site, op: Softmax, x: str) -> str:
    scaled = x if op.temperature == 1 else s("Div", x, s.number(op.temperature))
    return s("Softmax", scaled, axis=op.axis)


def _dense(s: Site, op: Dense, x: str, weight: str, *bias: str) -> str:
    """Gemm for matrices; ONNX's MatMul has neither a transposed weight nor a bias."""
    if s.x.rank == 2:
        return s("Gemm", x, weight, *bias, transB=1)
    y = s("MatMul", x, s("Transpose", weight, perm=[1, 0]))
    return s("Add", y, *bias) if bias else y


def _matmul(s: Site, op: MatMul, a: str, b: str) -> str:
    if s.dtype not in NARROW:
        return s("MatMul", a, b)
    return s.cast(s("MatMul", s.cast(a, "int64"), s.cast(b, "int64")), s.dtype)


def _einsum(s: Site, op: Einsum, *x: str) -> str:
    """ONNX wants "..." to stand for as many axes in every input that has it: some get axes of size 1."""
    terms = op.equation.replace(" ", "").partition("->")[0].split(",")
    extra = [type_.rank - len(term.replace("...", "")) for term, type_ in zip(terms, s.types, strict=True)]
    inputs = []
    for name, term, axes in zip(x, terms, extra, strict=True):
        first = term.find("...")
        missing = integers(range(first, first + max(extra) - axes))
        inputs.append(s("Unsqueeze", name, missing) if first >= 0 and missing.size else name)
    return s("Einsum", *inputs, equation=op.equation)


REDUCE: Rules = {
    ReduceSum: lambda s, op, x: _wide(s, x, lambda wide: reduce_sum(s, wide, op.axes, op.keepdims)),
    ReduceMean: _reduction("ReduceMean", _same),
    ReduceMax: _reduction("ReduceMax", _same),
    ReduceMin: _reduction("ReduceMin", _same),
    ReduceProd: _reduction("ReduceProd", _same),
    ReduceL1: _reduction("ReduceL1", lambda s, x: s("Abs", x)),
    ReduceL2: _reduction("ReduceL2", lambda s, x: s("Abs", x)),
    ReduceSumSquare: _reduction("ReduceSumSquare", lambda s, x: s("Mul", x, x)),
    ReduceLogSum: _reduction("ReduceLogSum", lambda s, x: s("Log", x)),
    ReduceLogSumExp: _reduction("ReduceLogSumExp", _same),
    GlobalAvgPool: plain("GlobalAveragePool"),
    GlobalMaxPool: plain("GlobalMaxPool"),
    CumulativeSum: _cumulative_sum,
    ArgMax: _place("ArgMax"),
    ArgMin: _place("ArgMin"),
    Hardmax: lambda s, op, x: s("Hardmax", x, axis=op.axis),
    TopK: _top_k,
    Softmax: _softmax,
    LogSoftmax: lambda s, op, x: s("LogSoftmax", x, axis=op.axis),
    Dense: _dense,
    MatMul: _matmul,
    Einsum: _einsum,
}
