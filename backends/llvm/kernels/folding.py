"""Sums, products and extrema on vectors, as pooling and reductions fold them.

A maximum must keep NaN, which no machine's float maximum does in one instruction. So floats become integers in the same
order, with NaN as the greatest: their maximum is one instruction, and the way back is two. A minimum is minus the
maximum of what is negated.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..loops import IVECTOR, VECTOR, Function, Value

NAN_BITS, MOST = 0x7FC00000, 0x7FFFFFFF
LEAST_KEY = -2139095041
"""The key of −∞."""


@dataclass(frozen=True)
class Folding:
    """How values are folded: "sum", "prod", "max" or "min"."""

    kind: str

    @property
    def by_keys(self) -> bool:
        """Whether integers are folded in the place of floats."""
        return self.kind in ("max", "min")

    @property
    def type(self) -> str:
        """Of a vector that is being folded."""
        return IVECTOR if self.by_keys else VECTOR

    def neutral(self, k: Function) -> Value:
        """What changes nothing: 0 or 1, or the key of −∞."""
        return k.literal(LEAST_KEY, IVECTOR) if self.by_keys else k.vector(float(self.kind == "prod"))

    def enter(self, k: Function, x: Value) -> Value:
        """A vector of floats in the form that is folded."""
        if not self.by_keys:
            return x
        x = -x if self.kind == "min" else x
        is_nan = k.compare("uno", x, x)
        bits = k.select(is_nan, k.literal(NAN_BITS, IVECTOR), k.bitcast(x, IVECTOR))
        return _turn(k, bits)

    def leave(self, k: Function, value: Value) -> Value:
        """The float vector of a folded one."""
        if not self.by_keys:
            return value
        x = k.bitcast(_turn(k, value), VECTOR)
        return -x if self.kind == "min" else x

    def join(self, k: Function, a: Value, b: Value) -> Value:
        """Two vectors into one, lane by lane."""
        if self.by_keys:
            return k.intrinsic("smax", a, b)
        return a + b if self.kind == "sum" else a * b

    def across(self, k: Function, value: Value) -> Value:
        """The fold of all lanes, in every lane: halves are folded."""
        for distance in halvings(k.lanes_now):
            value = self.join(k, value, k.shuffle(value, value, [lane ^ distance for lane in range(k.lanes_now)]))
        return value


def halvings(lanes: int) -> list[int]:
    """How far apart the lanes are that a fold of all of them joins, step by step.

    >>> halvings(16)
    [8, 4, 2, 1]
    """
    return [1 << bit for bit in reversed(range(lanes.bit_length() - 1))]


def _turn(k: Function, bits: Value) -> Value:
    """Bits of floats <-> keys in their order: those of negative numbers run backwards."""
    return bits ^ (k.binary("ashr", bits, 31) & MOST)
