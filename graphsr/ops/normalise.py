"""Normalisation by the statistics of the input itself: of one layer, group or image, by norms, across channels.

Symbols: x input, y output, γ scale, β bias; x̂ = (x − μ)/σ with the mean μ and σ = √(v + ε) of the variance v over some
axes. The gradient of x̂ is the same everywhere: dx = (d − mean d − x̂ · mean(d·x̂)) / σ, the means over those axes
(Ioffe & Szegedy 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_size, op, same_dtype, unbroadcast
from graphsr.ops.norm import channel_sum, per_channel
from graphsr.ops.reduce import normal_axes

Axes = tuple[int, ...]


@op("layer_norm")
@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """y = γ·x̂ + β, the statistics over all axes from `axis` on (Ba et al. 2016). Inputs: x, γ and β (or no β) in the
    shape of these axes.

    >>> LayerNorm(eps=0.0).forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2))
    array([[-1.,  1.]])
    """

    axis: int = -1
    eps: float = 1e-5

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType | None = None) -> TensorType:
        return _tail_types(self.axis, self.eps, x, scale, bias)

    def forward(self, x: Array, scale: Array, bias: Array | None = None) -> Array:
        y = scale * _standard(x, self._axes(x), self.eps)[0]
        return y if bias is None else y + bias

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, scale = inputs[:2]
        normal, sigma = _standard(x, self._axes(x), self.eps)
        dx = _standard_vjp(normal, sigma, cotangent * scale, self._axes(x))
        return (dx, unbroadcast(cotangent * normal, scale.shape), unbroadcast(cotangent, scale.shape))[: len(inputs)]

    def _axes(self, x: Array) -> Axes:
        return tuple(range(self.axis % x.ndim, x.ndim))

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis >= self.axis % types[0].rank else (low, high)


@op("rms_norm")
@dataclass(frozen=True, slots=True)
class RmsNorm(Op):
    """y = γ·x/r, r = √(mean x² + ε) over all axes from `axis` on (Zhang & Sennrich 2019). Inputs: x, γ in the shape of
    these axes. With n = x/r: dx = (d − n · mean(d·n)) / r.

    >>> RmsNorm(eps=0.0).forward(np.array([[3.0, 3.0]]), np.ones(2))
    array([[1., 1.]])
    """

    axis: int = -1
    eps: float = 1e-5

    def infer(self, x: TensorType, scale: TensorType) -> TensorType:
        return _tail_types(self.axis, self.eps, x, scale, None)

    def forward(self, x: Array, scale: Array) -> Array:
        return scale * (x / self._size(x))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x, scale), r = inputs, self._size(inputs[0])
        n, d = x / r, cotangent * scale
        dx = (d - n * (d * n).mean(axis=self._axes(x), keepdims=True)) / r
        return dx, unbroadcast(cotangent * n, scale.shape)

    def _size(self, x: Array) -> Array:
        return np.sqrt((x * x).mean(axis=self._axes(x), keepdims=True) + x.dtype.type(self.eps))

    def _axes(self, x: Array) -> Axes:
        return tuple(range(self.axis % x.ndim, x.ndim))

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis >= self.axis % types[0].rank else (low, high)


@op("group_norm")
@dataclass(frozen=True, slots=True)
class GroupNorm(Op):
    """y = γ·x̂ + β for each channel, the statistics over the pixels of a group of C/groups channels of one image (Wu &
    He 2018). Inputs: x[N, C, …], γ[C], β[C].

    >>> GroupNorm(groups=1, eps=0.0).forward(np.array([[[1.0], [3.0]]]), np.ones(2), np.zeros(2)).ravel()
    array([-1.,  1.])
    """

    groups: int
    eps: float = 1e-5

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        _channel_types(self.eps, x, scale, bias)
        c = x.shape[1]
        divides = self.groups >= 1 and (not isinstance(c, int) or c % self.groups == 0)
        expect(divides, f"{c} channels do not divide into {self.groups} groups")
        return x

    def forward(self, x: Array, scale: Array, bias: Array) -> Array:
        normal, _ = _standard(self._grouped(x), (2,), self.eps)
        return per_channel(scale, x) * normal.reshape(x.shape) + per_channel(bias, x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        x, scale, _ = inputs
        normal, sigma = _standard(self._grouped(x), (2,), self.eps)
        d = self._grouped(cotangent * per_channel(scale, x))
        dx = _standard_vjp(normal, sigma, d, (2,)).reshape(x.shape)
        return dx, channel_sum(cotangent * normal.reshape(x.shape)), channel_sum(cotangent)

    def _grouped(self, x: Array) -> Array:
        """[N, groups, values of a group]"""
        return x.reshape(len(x), self.groups, prod(x.shape[1:]) // self.groups)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("instance_norm")
@dataclass(frozen=True, slots=True)
class InstanceNorm(Op):
    """y = γ·x̂ + β, the statistics over the pixels of each channel of each image (Ulyanov et al. 2016): `GroupNorm` with
    one channel in a group. Inputs: x[N, C, …], γ[C], β[C].

    >>> InstanceNorm(eps=0.0).forward(np.array([[[1.0, 3.0]]]), np.ones(1), np.zeros(1))
    array([[[-1.,  1.]]])
    """

    eps: float = 1e-5

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
        return _channel_types(self.eps, x, scale, bias)

    def forward(self, x: Array, scale: Array, bias: Array) -> Array:
        return GroupNorm(x.shape[1], self.eps).forward(x, scale, bias)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return GroupNorm(inputs[0].shape[1], self.eps).vjp(inputs, output, cotangent)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@dataclass(frozen=True, slots=True)
class Normed(Op):
    """Base of the divisions by a norm over some axes: y = x/n, 0 where n = 0. ε keeps n from zero (NumPyNet: 1e-8;
    darknet and ONNX: 0). The gradient is dx = (dy − n'(x) · Σ dy·y) / n."""

    axes: tuple[int, ...]
    eps: float = 0.0

    def infer(self, x: TensorType) -> TensorType:
        expect(self.eps >= 0, f"eps must not be negative, got {self.eps}")
        expect_float(x)
        normal_axes(self.axes, x.rank)
        return x

    def norm(self, x: Array) -> Array:
        """n, with the axes of x"""
        raise NotImplementedError

    def slope(self, x: Array, y: Array) -> Array:
        """∂n/∂x"""
        raise NotImplementedError

    def divisor(self, x: Array) -> Array:
        n = self.norm(x)
        return np.where(n == 0, x.dtype.type(1), n)

    def forward(self, x: Array) -> Array:
        return x / self.divisor(x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        along = (cotangent * output).sum(axis=self.axes, keepdims=True)
        return ((cotangent - self.slope(x, output) * along) / self.divisor(x),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis in normal_axes(self.axes, types[0].rank) else (low, high)


@op("l1_norm")
@dataclass(frozen=True, slots=True)
class L1Norm(Normed):
    """y = x / (Σ|x| + ε) over `axes`

    >>> L1Norm(axes=(0,)).forward(np.array([1.0, -3.0]))
    array([ 0.25, -0.75])
    """

    def norm(self, x: Array) -> Array:
        return np.abs(x).sum(axis=self.axes, keepdims=True) + x.dtype.type(self.eps)

    def slope(self, x: Array, y: Array) -> Array:
        return np.sign(x)


@op("l2_norm")
@dataclass(frozen=True, slots=True)
class L2Norm(Normed):
    """y = x / √(Σx² + ε) over `axes`

    >>> L2Norm(axes=(0,)).forward(np.array([3.0, -4.0]))
    array([ 0.6, -0.8])
    """

    def norm(self, x: Array) -> Array:
        return np.sqrt((x * x).sum(axis=self.axes, keepdims=True) + x.dtype.type(self.eps))

    def slope(self, x: Array, y: Array) -> Array:
        return y


@op("local_response_norm")
@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Op):
    """y[n,c,…] = x[n,c,…] · s[n,c,…]^−β, s[n,c,…] = κ + α/size · Σ x[n,c',…]² over the `size` channels around c, from
    c − ⌊(size−1)/2⌋ to c + ⌊size/2⌋ (Krizhevsky et al. 2012). darknet has α in the place of α/size.

    With t = dy·x·s^(−β−1): dx[c] = dy[c]·s[c]^−β − 2·α·β/size · x[c] · Σ t[c'] over the c' whose window holds c.

    >>> LocalResponseNorm(size=1, alpha=1.0, beta=1.0).forward(np.array([[[1.0]], [[2.0]]])).ravel()
    array([0.5, 0.4])
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    kappa: float = 1.0

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        expect(x.rank >= 2, f"input must be [N, C, ...], got {x}")
        expect(self.size >= 1, f"size {self.size} must be at least 1")
        return x

    def forward(self, x: Array) -> Array:
        return x * self._scale(x) ** -self.beta

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        (x,) = inputs
        s = self._scale(x)
        t = cotangent * x * s ** (-self.beta - 1)
        around = _window_sum(t, self.size // 2, (self.size - 1) // 2)
        return (cotangent * s**-self.beta - 2 * self.alpha * self.beta / self.size * x * around,)

    def _scale(self, x: Array) -> Array:
        """s"""
        return self.kappa + self.alpha / self.size * _window_sum(x * x, (self.size - 1) // 2, self.size // 2)


@op("log_softmax")
@dataclass(frozen=True, slots=True)
class LogSoftmax(Op):
    """y = x − m − ln Σ e^(x − m) along `axis`, with the maximum m: the logarithm of `Softmax`, without its underflow;
    dx = dy − e^y · Σ dy

    >>> LogSoftmax().forward(np.array([1000.0, 0.0]))
    array([    0., -1000.])
    """

    axis: int = -1

    def infer(self, x: TensorType) -> TensorType:
        expect_float(x)
        normal_axes((self.axis,), x.rank)
        return x

    def forward(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, as in `Softmax`
            z = x - x.max(axis=self.axis, keepdims=True, initial=-np.inf)
            return z - np.log(np.exp(z).sum(axis=self.axis, keepdims=True))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (cotangent - np.exp(output) * cotangent.sum(axis=self.axis, keepdims=True),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None if axis == self.axis % types[0].rank else (low, high)


def _standard(x: Array, axes: Axes, eps: float) -> tuple[Array, Array]:
    """(x̂, σ), σ with the axes of x"""
    centred = x - x.mean(axis=axes, keepdims=True)
    sigma = np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + x.dtype.type(eps))
    return centred / sigma, sigma


def _standard_vjp(normal: Array, sigma: Array, d: Array, axes: Axes) -> Array:
    """The gradient of x̂, as the head of this file has it."""
    mean = d.mean(axis=axes, keepdims=True)
    return (d - mean - normal * (d * normal).mean(axis=axes, keepdims=True)) / sigma


def _window_sum(x: Array, before: int, behind: int) -> Array:
    """Σ x[n, c', …] over c' from c − before to c + behind, as far as there are such channels."""
    channels = x.shape[1]
    padded = np.pad(x, [(0, 0), (before, behind), *[(0, 0)] * (x.ndim - 2)])
    total = np.zeros_like(x)
    for first in range(before + behind + 1):
        total += padded[:, first : first + channels]
    return total


def _channel_types(eps: float, x: TensorType, scale: TensorType, bias: TensorType) -> TensorType:
    expect(eps >= 0, f"eps must not be negative, got {eps}")
    same_dtype(x, scale, bias)
    expect_float(x)
    expect(x.rank >= 2, f"input must be [N, C, ...], got {x}")
    for name, type_ in (("scale", scale), ("bias", bias)):
        expect(type_.shape == x.shape[1:2], f"{name} must have shape ({x.shape[1]},), got {type_}")
    return x


def _tail_types(axis: int, eps: float, x: TensorType, scale: TensorType, bias: TensorType | None) -> TensorType:
    """Parameters have the shape of the axes of x from `axis` on."""
    expect(eps >= 0, f"eps must not be negative, got {eps}")
    (first,) = normal_axes((axis,), x.rank)
    for name, type_ in (("scale", scale), ("bias", bias or scale)):
        same_dtype(x, type_)
        expect(type_.rank == x.rank - first, f"{name} must have {x.rank - first} dimensions, got {type_}")
        for a, (got, size) in enumerate(zip(type_.shape, x.shape[first:], strict=True)):
            expect_size(f"size of axis {a} of {name}", got, size)
    expect_float(x)
    return x
