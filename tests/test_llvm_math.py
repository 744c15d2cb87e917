"""The elementary functions of the llvm backend against float64, with and without fused multiply-add.

Every 2¹⁴-th float or so is tried; with GRAPHSR_EXHAUSTIVE=1 all 2³² of them (minutes per function), which is how the
bounds below were measured.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from graphsr.backends.llvm.jit import compile_ir
from graphsr.backends.llvm.kernels import math as functions
from graphsr.backends.llvm.kernels import trigonometry
from graphsr.backends.llvm.loops import I64, LANES, PTR, Function, Value, module
from graphsr.backends.llvm.target import host
from graphsr.op import Array
from graphsr.ops.activation import logistic, softplus
from graphsr.ops.erf import erfc

STEP = 1 if os.environ.get("GRAPHSR_EXHAUSTIVE") else 16381
"""A prime: all exponents, and mantissas of all kinds."""
CHUNK = 1 << 22

Emitter = Callable[..., Value]
LIMITS = [88.72283, 88.72284, -87.33655, -103.97208, -103.972084, -104, 9.010913]
"""Where exp and tanh reach theirs."""
SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, -0.5, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -3.4028235e38, *LIMITS],
    np.float32,
)


def exact_erf(x: Array) -> Array:
    """1 − erfc(x), but near 0 the function of Python, and nearest to it two terms of the series."""
    y = 1 - erfc(x)
    small = np.abs(x) < 0.5
    tiny = np.abs(x) < 2.0**-12
    y[small & ~tiny] = [math.erf(value) for value in x[small & ~tiny]]
    return np.where(tiny, 2 / math.sqrt(math.pi) * x * (1 - x * x / 3), y)


def exact_gelu(x: Array) -> Array:
    return x * (0.5 * erfc(-x / math.sqrt(2)))


def exact_gelu_tanh(x: Array) -> Array:
    return x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def exact_silu(x: Array) -> Array:
    near = np.maximum(x, -700)
    return near * logistic(near)


def exact_mish(x: Array) -> Array:
    near = np.maximum(x, -700)
    e = np.exp(np.minimum(near, 40))
    return near * (e * (e + 2) / (e * (e + 2) + 2))


FUNCTIONS: dict[str, tuple[Emitter, Callable[[Array], Array], float, float]] = {
    "exp": (functions.exp, np.exp, 1.0, 0.97),
    "expm1": (functions.expm1, np.expm1, 1.43, 1.54),
    "log": (functions.log_, np.log, 0.83, 0.82),
    "log1p": (functions.log1p, np.log1p, 1.39, 1.39),
    "tanh": (functions.tanh, np.tanh, 1.64, 2.43),
    "logistic": (functions.logistic, logistic, 1.5, 2.41),
    "silu": (functions.silu, exact_silu, 2.4, 3.1),
    "mish": (functions.mish, exact_mish, 4.7, 4.7),
    "softplus": (functions.softplus, softplus, 1.66, 1.66),
    "erf": (functions.erf, exact_erf, 1.0, 1.23),
    "erfc": (functions.erfc, erfc, 0.51, 0.51),
    "sin": (trigonometry.sin, np.sin, 0.51, 0.51),
    "cos": (trigonometry.cos, np.cos, 0.51, 0.51),
}
"""The code, its meaning in float64, and the largest error in units in the last place with fused multiply-add and
without."""


def compile_unary(emit: Emitter, fma: bool) -> Callable[[Array], Array]:
    """A function of float32 arrays whose size is a multiple of 16."""
    k = Function("unary", {"x": PTR, "y": PTR, "n": I64}, fma=fma)
    with k.loop(k["n"], step=LANES) as i:
        k.store(emit(k, k.load(k["x"] + i * 4, align=4)), k["y"] + i * 4, align=4)
    code = compile_ir(module([k]), host())
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)(code.address("unary"))

    def run(x: Array) -> Array:
        y = np.empty_like(x)
        arguments = np.array([x.ctypes.data, y.ctypes.data, x.size], np.int64)
        call(arguments.ctypes.data, 0, None)
        return y

    run.code = code  # type: ignore[attr-defined]  # keeps the machine code alive
    return run


def floats() -> Iterator[Array]:
    """Arrays that together hold every STEP-th float and the special ones, in multiples of 16."""
    yield np.resize(SPECIAL, -(-SPECIAL.size // LANES) * LANES)
    for start in range(0, 1 << 32, CHUNK * STEP):
        bits = np.arange(start, min(start + CHUNK * STEP, 1 << 32), STEP, dtype=np.uint64).astype(np.uint32)
        yield np.resize(bits, -(-bits.size // LANES) * LANES).view(np.float32)


def ulp_error(got: Array, exact: Array) -> Array:
    """|got − exact| in units in the last place of the float32 nearest to `exact`; what is beyond the largest float
    counts as the next power of 2."""
    with np.errstate(all="ignore"):
        size, wide = np.abs(exact), got.astype(np.float64)
        unit = np.exp2(np.clip(np.floor(np.log2(size)), -126, 127) - 23)
        limit = 2.0**128
        error = np.abs(np.clip(wide, -limit, limit) - np.clip(exact, -limit, limit)) / np.where(
            size > 0, unit, 2.0**-149
        )
    return np.where(np.isnan(got) & np.isnan(exact), 0, error)


@pytest.mark.timeout(0 if STEP == 1 else 60)
@pytest.mark.parametrize("fma", [True, False], ids=["fma", "no fma"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_stay_within_the_stated_bounds(name: str, fma: bool) -> None:
    if fma and not host().has_fma:
        pytest.skip("this machine has no fused multiply-add")
    emit, exact, with_fma, without = FUNCTIONS[name]
    bound = with_fma if fma else without
    run = compile_unary(emit, fma)
    worst, at = 0.0, 0.0
    for x in floats():
        got = run(x)
        with np.errstate(all="ignore"):
            want = exact(x.astype(np.float64))
        error = ulp_error(got, want)
        assert not np.isnan(error).any(), f"NaN at {x[np.isnan(error)][0]!r}"
        assert (np.signbit(got) == np.signbit(want))[want == 0].all(), "the sign of a zero"
        if error.max() > worst:
            worst, at = float(error.max()), float(x[error.argmax()])
    print(f"{name}, {'fma' if fma else 'no fma'}: {worst:.4f} ulp at {at!r}")
    assert worst <= bound, f"{name} is off by {worst:.3f} ulp at {at!r}"


@pytest.mark.parametrize(("name", "exact"), [("gelu", exact_gelu), ("gelu_tanh", exact_gelu_tanh)])
def test_gelu_is_rounded_once_also_in_its_tail(name: str, exact: Callable[[Array], Array]) -> None:
    x = np.linspace(-16, 16, 1 << 16, dtype=np.float32)
    got = compile_unary(getattr(functions, name), host().has_fma)(x)
    assert ulp_error(got, exact(x.astype(np.float64))).max() <= 0.51


POWERS = np.array([0, -0.0, 0.5, 1, 2, 3, -1, -2, -3, 1 / 3, 1e-3, -7.5, 1e9, 16777217, np.inf, -np.inf, np.nan])
BASES = np.concatenate([POWERS, [-0.5, 1e-45, -1e-45, 3e38, -3e38, 0.999, 1.001, -1.5, 10, 1e-20]])


@pytest.mark.parametrize("power", POWERS)
def test_powers_and_their_special_values(power: float) -> None:
    x = np.resize(BASES, 32).astype(np.float32)
    exponent = float(np.float32(power))
    got = compile_unary(lambda k, x: functions.power(k, x, k.vector(exponent)), host().has_fma)(x)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), np.full(x.shape, exponent))  # a number is treated differently
    error = ulp_error(got, want)
    assert error.max() <= 0.51, f"{x[error.argmax()]!r} to the power of {exponent}"
    assert (np.signbit(got) == np.signbit(want))[want == 0].all(), "the sign of a zero"
