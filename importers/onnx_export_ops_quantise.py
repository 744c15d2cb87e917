"""How the pixels of pictures are written as ONNX."""

from __future__ import annotations

from graphsr.ops import AllFinite, Quantise
from graphsr.ops.quantise import MAXIMUM

from .onnx_export_ops_activation import clip
from .onnx_export_writer import Rules, Site


def _quantise(s: Site, op: Quantise, x: str) -> str:
    """Without NaN first: what Cast makes of it differs between machines."""
    numbers = s("Where", s("IsNaN", x), s.number(0), x)
    part = clip(s, s("Div", numbers, s.number(op.white)), 0, 1)
    pixels = s.cast(s("Round", s("Mul", part, s.number(MAXIMUM[op.dtype]))), op.dtype)
    return s("Transpose", pixels, perm=[0, *range(2, s.x.rank), 1]) if op.channels_last else pixels


def _all_finite(s: Site, op: AllFinite, x: str) -> str:
    """No reduction of ONNX takes bool."""
    wrong = s.cast(s("Or", s("IsNaN", x), s("IsInf", x)), "int32")
    return s("Not", s.cast(s("ReduceMax", wrong, keepdims=0), "bool"))


QUANTISE: Rules = {Quantise: _quantise, AllFinite: _all_finite}
