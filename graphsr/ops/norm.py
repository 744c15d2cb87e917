"""Normalisation: batch normalisation in its two forms, and weight normalisation.

Symbols: x[n, c, …] input, γ scale, β bias, μ mean, v variance of each channel, m the number of values per channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, op, same_dtype

FORMS = ("inside", "outside")
"""Where ε is added: inside the root, √(v + ε), as everywhere; or outside, √v + ε, as darknet does on a CPU."""


@op("batch_norm")
@dataclass(frozen=True, slots=True)
class BatchNorm(Op):
    """y = γ·(x − μ)/√(v + ε) + β for each channel, with given statistics (Ioffe & Szegedy 2015, inference form).

    `form="outside"` is darknet's CPU form y = γ·(x − μ)/(√v + ε) + β. Inputs: x[N, C, …], scale γ[C], bias β[C],
    mean μ[C], var v[C].

    >>> one = np.ones(1)
    >>> BatchNorm(eps=0.0).forward(np.array([[5.0]]), 2 * one, one, 3 * one, 4 * one)
    array([[3.]])
    """

    eps: float
    form: str = "inside"

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType, mean: TensorType, var: TensorType
    ) -> TensorType:
        expect(self.form in FORMS, f"form {self.form!r} is not one of {FORMS}")
        return _channel_types(self.eps, x, scale=scale, bias=bias, mean=mean, var=var)

    def deviation(self, var: Array) -> Array:
        """√(v + ε), or √v + ε"""
        eps = var.dtype.type(self.eps)
        return np.sqrt(var + eps) if self.form == "inside" else np.sqrt(var) + eps

    def forward(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
        gamma, beta, mu, sigma = (per_channel(v, x) for v in (scale, bias, mean, self.deviation(var)))
        return gamma * ((x - mu) / sigma) + beta

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """With x̂ = (x − μ)/σ: dx = γ/σ·dy, dγ = Σ dy·x̂, dβ = Σ dy, dμ = −γ/σ·Σ dy, dv = −γ·dσ/dv·Σ dy·x̂/σ where
        dσ/dv = 1/(2√(v + ε)), or 1/(2√v) in the outside form."""
        x, scale, _, mean, var = inputs
        sigma = self.deviation(var)
        normal = (x - per_channel(mean, x)) / per_channel(sigma, x)
        d_scale, d_bias = channel_sum(cotangent * normal), channel_sum(cotangent)
        slope = 0.5 / (sigma if self.form == "inside" else np.sqrt(var))
        return (
            cotangent * per_channel(scale / sigma, x),
            d_scale,
            d_bias,
            -scale / sigma * d_bias,
            -scale * slope / sigma * d_scale,
        )


@op("batch_norm_train")
@dataclass(frozen=True, slots=True)
class BatchNormTrain(Op):
    """y = γ·(x − μ)/√(v + ε) + β with the statistics of the batch itself (Ioffe & Szegedy 2015, algorithm 1).

    μ = Σx/m and v = Σ(x − μ)²/m over the batch and all spatial axes of a channel. Inputs: x[N, C, …], scale γ[C],
    bias β[C].

    >>> BatchNormTrain(eps=0.0).forward(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1))
    array([[-1.],
           [ 1.]])
    """

    eps: float

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        return _channel_types(self.eps, x, scale=scale, bias=bias)

    def _normalise(self, x: Array) -> tuple[Array, Array]:
        """((x − μ)/σ, σ), σ with the axes of x"""
        axes = tuple(a for a in range(x.ndim) if a != 1)
        sigma = np.sqrt(x.var(axis=axes, keepdims=True) + x.dtype.type(self.eps))
        return (x - x.mean(axis=axes, keepdims=True)) / sigma, sigma

    def forward(self, x: Array, scale: Array, bias: Array) -> Array:
        normal, _ = self._normalise(x)
        return per_channel(scale, x) * normal + per_channel(bias, x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """With x̂ = (x − μ)/σ: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ/σ · (dy − dβ/m − x̂·dγ/m)."""
        x, scale, _ = inputs
        normal, sigma = self._normalise(x)
        d_scale, d_bias = channel_sum(cotangent * normal), channel_sum(cotangent)
        m = x.dtype.type(x.size / x.shape[1])
        centred = cotangent - per_channel(d_bias / m, x) - normal * per_channel(d_scale / m, x)
        return per_channel(scale, x) / sigma * centred, d_scale, d_bias

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None  # the statistics are of the whole image


@op("weight_norm")
@dataclass(frozen=True, slots=True)
class WeightNorm(Op):
    """w[o] = g[o] · v[o] / ‖v[o]‖, the Euclidean norm over all axes but the first (Salimans & Kingma 2016).

    Inputs: v[Co, …], g[Co, 1, …]. A row of zeros has no direction: it becomes NaN, as in PyTorch.

    >>> WeightNorm().forward(np.array([[3.0, 4.0]]), np.array([[10.0]]))
    array([[6., 8.]])
    """

    def infer(self, v: TensorType, g: TensorType) -> TensorType:
        same_dtype(v, g)
        expect_float(v)
        expect(v.rank >= 1, f"v must have at least one dimension, got {v}")
        expected = (v.shape[0],) + (1,) * (v.rank - 1)
        expect(g.shape == expected, f"g must have shape {expected}, got {g}")
        return v

    def forward(self, v: Array, g: Array) -> Array:
        with np.errstate(invalid="ignore"):  # 0/0 is the NaN that the docstring promises
            return g * (v / _norm(v))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """With u = v/‖v‖: dg = Σ dw·u and dv = g/‖v‖ · (dw − u·dg)."""
        v, g = inputs
        norm = _norm(v)
        unit = v / norm
        dg = (cotangent * unit).sum(axis=tuple(range(1, v.ndim)), keepdims=True)
        return g / norm * (cotangent - unit * dg), dg

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


def _norm(v: Array) -> Array:
    return np.sqrt((v * v).sum(axis=tuple(range(1, v.ndim)), keepdims=True))


def _channel_types(eps: float, x: TensorType, **parameters: TensorType) -> TensorType:
    expect(eps >= 0, f"eps must not be negative, got {eps}")
    same_dtype(x, *parameters.values())
    expect_float(x)
    expect(x.rank >= 2, f"input must be [N, C, ...], got {x}")
    for name, type_ in parameters.items():
        expect(type_.shape == x.shape[1:2], f"{name} must have shape ({x.shape[1]},), got {type_}")
    return x


def per_channel(v: Array, x: Array) -> Array:
    """v[C] as [C, 1, …], which broadcasts along axis 1 of x[N, C, …]."""
    return v.reshape(-1, *(1,) * (x.ndim - 2))


def channel_sum(x: Array) -> Array:
    """Σ over all axes but the channels."""
    return x.sum(axis=tuple(a for a in range(x.ndim) if a != 1))
