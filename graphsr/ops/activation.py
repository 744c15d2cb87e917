"""Activations: element-wise functions y = f(x) with their derivative f'. Here those of Table 2.1 of Curti's thesis
(darknet's and NumPyNet's), in corrected forms; those that came later are in `activation_modern`.

Every class states f in its docstring, `forward`, and `derivative`, so that vjp = dy · f'(x). At a kink the derivative
is the one-sided value that the docstring's cases give. NaN goes in, NaN comes out; −∞ and ∞ give the limits. A Python
number in a formula takes the dtype of the array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.op import Array, op
from graphsr.ops.elementary import Elementary


class Activation(Elementary):
    """Base of the activations: what `Fused` takes as its last part."""

    __slots__ = ()


@op("linear")
@dataclass(frozen=True, slots=True)
class Linear(Activation):
    """f(x) = x; f' = 1

    >>> Linear().forward(np.array([-1.0, 2.0]))
    array([-1.,  2.])
    """

    def forward(self, x: Array) -> Array:
        return np.positive(x)  # a copy: an output never shares memory with an input

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(x)


@op("logistic")
@dataclass(frozen=True, slots=True)
class Logistic(Activation):
    """f(x) = 1 / (1 + e^−x); f' = y·(1 − y)

    >>> Logistic().forward(np.array([-1e4, 0.0, np.log(3)]))
    array([0.  , 0.5 , 0.75])
    """

    def forward(self, x: Array) -> Array:
        return logistic(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return y * (1 - y)


@op("loggy")
@dataclass(frozen=True, slots=True)
class Loggy(Activation):
    """f(x) = 2 / (1 + e^−x) − 1 = tanh(x/2); f' = (1 − y²) / 2

    >>> Loggy().forward(np.array([0.0, np.log(3)]))
    array([0. , 0.5])
    """

    def forward(self, x: Array) -> Array:
        return np.tanh(0.5 * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 0.5 * (1 - y * y)


@op("relu")
@dataclass(frozen=True, slots=True)
class Relu(Activation):
    """f(x) = max(0, x); f' = 1 for x > 0, else 0.

    >>> Relu().forward(np.array([-1.0, 2.0, np.nan]))
    array([ 0.,  2., nan])
    """

    def forward(self, x: Array) -> Array:
        return np.maximum(x, x.dtype.type(0))

    def derivative(self, x: Array, y: Array) -> Array:
        return step(x > 0, 1, 0, x)


@op("elu")
@dataclass(frozen=True, slots=True)
class Elu(Activation):
    """f(x) = x for x > 0, else α·(e^x − 1); f' = 1 for x > 0, else y + α (Clevert et al. 2016)

    >>> Elu().forward(np.array([-np.inf, -np.log(2), 3.0]))
    array([-1. , -0.5,  3. ])
    """

    alpha: float = 1.0

    def forward(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, x.dtype.type(1), y + self.alpha)


@op("relie")
@dataclass(frozen=True, slots=True)
class Relie(Activation):
    """f(x) = x for x > 0, else 0.01·x; f' = 1 or 0.01

    >>> Relie().forward(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """

    def forward(self, x: Array) -> Array:
        return np.where(x > 0, x, 0.01 * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return step(x > 0, 1, 0.01, x)


@op("ramp")
@dataclass(frozen=True, slots=True)
class Ramp(Activation):
    """f(x) = max(0, x) + 0.1·x; f' = 1.1 for x > 0, else 0.1. The thesis prints x² in place of x.

    >>> Ramp().forward(np.array([-1.0, 2.0]))
    array([-0.1,  2.2])
    """

    def forward(self, x: Array) -> Array:
        return np.maximum(x, 0) + 0.1 * x

    def derivative(self, x: Array, y: Array) -> Array:
        return step(x > 0, 1.1, 0.1, x)


@op("tanh")
@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    """f(x) = tanh x; f' = 1 − y²

    >>> Tanh().forward(np.array([-np.inf, 0.0, np.log(3) / 2]))
    array([-1. ,  0. ,  0.5])
    """

    def forward(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - y * y


@op("plse")
@dataclass(frozen=True, slots=True)
class Plse(Activation):
    """f(x) = 0.01·(x + 4) for x < −4, 0.01·(x − 4) + 1 for x > 4, else 0.125·x + 0.5: a logistic of three lines;
    f' = 0.125 for |x| ≤ 4, else 0.01. The thesis prints + 5 in place of + 0.5.

    >>> Plse().forward(np.array([-14.0, 2.0, 14.0]))
    array([-0.1 ,  0.75,  1.1 ])
    """

    def forward(self, x: Array) -> Array:
        middle = 0.125 * x + 0.5
        return np.where(x < -4, 0.01 * (x + 4), np.where(x > 4, 0.01 * (x - 4) + 1, middle))

    def derivative(self, x: Array, y: Array) -> Array:
        return step(np.abs(x) <= 4, 0.125, 0.01, x)


@op("leaky")
@dataclass(frozen=True, slots=True)
class Leaky(Activation):
    """f(x) = x for x > 0, else slope·x; f' = 1 or slope (Maas et al. 2013; 0.1 is darknet's slope)

    >>> Leaky().forward(np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    slope: float = 0.1

    def forward(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slope * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return step(x > 0, 1, self.slope, x)


@op("hardtan")
@dataclass(frozen=True, slots=True)
class HardTan(Activation):
    """f(x) = min(max(x, −1), 1); f' = 1 for −1 < x < 1, else 0

    >>> HardTan().forward(np.array([-2.0, 0.5, 2.0]))
    array([-1. ,  0.5,  1. ])
    """

    def forward(self, x: Array) -> Array:
        return np.clip(x, -1, 1)

    def derivative(self, x: Array, y: Array) -> Array:
        return step(np.abs(x) < 1, 1, 0, x)


@op("lhtan")
@dataclass(frozen=True, slots=True)
class LhTan(Activation):
    """f(x) = 0.001·x for x < 0, 0.001·(x − 1) + 1 for x > 1, else x; f' = 1 for 0 < x < 1, else 0.001

    >>> LhTan().forward(np.array([-100.0, 0.5, 101.0]))
    array([-0.1,  0.5,  1.1])
    """

    def forward(self, x: Array) -> Array:
        return np.where(x < 0, 0.001 * x, np.where(x > 1, 0.001 * (x - 1) + 1, x))

    def derivative(self, x: Array, y: Array) -> Array:
        return step((x > 0) & (x < 1), 1, 0.001, x)


SELU_LAMBDA, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""The fixed point for mean 0 and variance 1 of Klambauer et al. 2017, to double precision as in PyTorch. The thesis
and darknet round to 1.0507 and 1.6732, which moves f by at most 4·10⁻⁵ of its value."""


@op("selu")
@dataclass(frozen=True, slots=True)
class Selu(Activation):
    """f(x) = λ·x for x > 0, else λ·α·(e^x − 1); f' = λ for x > 0, else y + λ·α (Klambauer et al. 2017)

    >>> Selu().forward(np.array([-np.inf, 0.0, 1.0]))
    array([-1.75809934,  0.        ,  1.05070099])
    """

    def forward(self, x: Array) -> Array:
        return np.where(x > 0, SELU_LAMBDA * x, SELU_LAMBDA * SELU_ALPHA * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(x > 0, x.dtype.type(SELU_LAMBDA), y + SELU_LAMBDA * SELU_ALPHA)


@op("softplus")
@dataclass(frozen=True, slots=True)
class SoftPlus(Activation):
    """f(x) = ln(1 + e^x); f' = 1 / (1 + e^−x) = 1 − e^−y. The thesis applies the logistic function to y.

    >>> SoftPlus().forward(np.array([-np.inf, 0.0, 1e4]))
    array([0.00000000e+00, 6.93147181e-01, 1.00000000e+04])
    """

    def forward(self, x: Array) -> Array:
        return softplus(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return -np.expm1(-y)


@op("softsign")
@dataclass(frozen=True, slots=True)
class SoftSign(Activation):
    """f(x) = x / (1 + |x|); f' = 1 / (1 + |x|)² = (1 − |y|)². The thesis has 1 / (1 + |y|)².

    >>> SoftSign().forward(np.array([-np.inf, 1.0, 3.0]))
    array([-1.  ,  0.5 ,  0.75])
    """

    def forward(self, x: Array) -> Array:
        return softsign(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.square(1 - np.abs(y))


@op("elliot")
@dataclass(frozen=True, slots=True)
class Elliot(Activation):
    """f(x) = S·x / (2·(1 + |S·x|)) + 1/2 with the steepness S; f' = S/2 · (1 − |2·y − 1|)² (Elliott 1993). The thesis
    has |x + S| in place of |S·x|.

    >>> Elliot().forward(np.array([-np.inf, 0.0, 1.0]))
    array([0.  , 0.5 , 0.75])
    """

    steepness: float = 1.0

    def forward(self, x: Array) -> Array:
        return 0.5 * softsign(self.steepness * x) + 0.5

    def derivative(self, x: Array, y: Array) -> Array:
        return 0.5 * self.steepness * np.square(1 - np.abs(2 * y - 1))


@op("symmelliot")
@dataclass(frozen=True, slots=True)
class SymmElliot(Activation):
    """f(x) = S·x / (1 + |S·x|) with the steepness S; f' = S·(1 − |y|)². The thesis has S / (1 + |S·y|)².

    >>> SymmElliot(steepness=3.0).forward(np.array([-np.inf, 0.0, 1.0]))
    array([-1.  ,  0.  ,  0.75])
    """

    steepness: float = 1.0

    def forward(self, x: Array) -> Array:
        return softsign(self.steepness * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return self.steepness * np.square(1 - np.abs(y))


@op("stair")
@dataclass(frozen=True, slots=True)
class Stair(Activation):
    """f(x) = ⌊x/2⌋ where ⌊x⌋ is even, ⌊x/2⌋ + x − ⌊x⌋ where it is odd: flat and rising stretches by turns;
    f' = 1 where ⌊x⌋ is odd and x is no integer, else 0

    With x = 2·h + r, 0 ≤ r < 2, both cases are h + max(0, r − 1). h = ⌊⌊x⌋/2⌋ is ⌊x/2⌋ also where x/2 underflows.

    >>> Stair().forward(np.array([0.5, 1.5, 2.5, 3.25]))
    array([0.  , 0.5 , 1.  , 1.25])
    """

    def forward(self, x: Array) -> Array:
        return np.floor(0.5 * np.floor(x)) + np.maximum(np.mod(finite(x), 2) - 1, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return step(np.mod(finite(x), 2) > 1, 1, 0, x)


def logistic(x: Array) -> Array:
    """1 / (1 + e^−x), by the exponential of −|x|, which cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x > 0, 1, e) / (1 + e)


def softplus(x: Array) -> Array:
    """ln(1 + e^x) = max(x, 0) + ln(1 + e^−|x|), where the exponential cannot overflow. (NumPy's logaddexp is the same,
    but warns of NaN.)"""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softsign(x: Array) -> Array:
    """x / (1 + |x|)"""
    x = finite(x)
    return x / (1 + np.abs(x))


def finite(x: Array) -> Array:
    """x with the largest finite numbers in place of ±∞, where a formula would become ∞/∞ or 0·∞."""
    limits = np.finfo(x.dtype)
    return np.clip(x, limits.min, limits.max)


def step(condition: Array, a: float, b: float, x: Array) -> Array:
    """a where the condition holds, else b, in the dtype of x."""
    return np.where(condition, x.dtype.type(a), x.dtype.type(b))
