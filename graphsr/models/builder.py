"""What the model builders share: layers that ask for their arrays by name and shape.

A network is written once, as the calls that build its graph. Each layer asks for its parameters by canonical name
and shape; they come from a mapping (a checkpoint) or from the He initialisation. What the mapping lacks, holds
in another shape or holds too much is collected and reported in one error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from graphsr.dim import Dim
from graphsr.errors import GraphError, ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.op import Array, Op
from graphsr.ops import Conv2d, DepthToSpace, PRelu, Relu, Shortcut, WeightNorm

MAX_FAULTS = 100
"""At most so many faults are listed in one error."""

MAX_ELEMENTS = 1 << 48
"""Of one parameter: NumPy counts bytes in 63 bits."""


@dataclass(frozen=True)
class Source:
    """Where the weights of a network come from: named in the origin of every node and in errors."""

    family: str = "graphsr"
    """Such as "BasicSR"."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """The name in `weights` of a layer or parameter by its canonical name, where the two differ."""

    def name(self, canonical: str) -> str:
        """The name in `weights` of a layer ("head.0") or of one of its parameters ("head.0.weight")."""
        layer, dot, parameter = canonical.rpartition(".")
        if canonical in self.layers:
            return self.layers[canonical]
        return self.layers.get(layer, layer) + dot + parameter

    def origin(self, canonical: str) -> str:
        return f"{self.family}: {self.name(canonical)}"


class Builder:
    """Builds the graph of one network, layer by layer, and takes its parameters from `weights`.

    Without `weights` parameters are drawn: convolutions from N(0, 2/fan_in) (He et al. 2015), biases 0.
    """

    def __init__(
        self, weights: Mapping[str, Array] | None, seed: int, source: Source, weight_norm: bool = False
    ) -> None:
        self.source = source
        self.weights = weights
        self.weight_norm = weight_norm
        self.random = np.random.default_rng(seed)
        self.taken: set[str] = set()
        self.faults: list[str] = []
        self.fixed: set[str] = set()
        """Constants that belong to pre- and post-processing and that the file does not hold."""

    def input(self, channels: int) -> Node:
        """The image, [N, channels, H, W] with open N, H, W."""
        n, h, w = (Dim.symbol(s) for s in "NHW")
        return Node.input("input", TensorType("float32", (n, channels, h, w)))

    def node(self, op: Op, inputs: tuple[Node, ...], name: str) -> Node:
        return Node(op, inputs, name, self.source.origin(name))

    def parameter(self, name: str, initial: Array) -> Node:
        """A learned constant shaped like `initial`, which is its value when there are no weights."""
        return Node.const(self._take(name, initial), name, self.source.origin(name))

    def constant(self, name: str, value: Array) -> Node:
        """A constant that is part of the method and not in any file."""
        self.fixed.add(name)
        return Node.const(np.asarray(value, np.float32), name, self.source.origin(name))

    def channels(self, x: Node) -> int:
        channels = x.type.shape[1]
        if isinstance(channels, Dim):
            raise GraphError(f"{x.where()} has an open number of channels: {x.type}")
        return channels

    def conv(self, x: Node, name: str, features: int, kernel: int) -> Node:
        """A convolution that keeps height and width: `name`.weight [features, Ci, kernel, kernel], `name`.bias.

        With weight norm the weight is g·v/‖v‖ of `name`.weight_v and `name`.weight_g [features, 1, 1, 1].
        """
        initial = self._he((features, self.channels(x), kernel, kernel))
        if self.weight_norm:
            v = self.parameter(f"{name}.weight_v", initial)
            g = self.parameter(f"{name}.weight_g", self._norm(initial))
            weight = self.node(WeightNorm(), (v, g), f"{name}.weight")
        else:
            weight = self.parameter(f"{name}.weight", initial)
        bias = self.parameter(f"{name}.bias", self.filled(features, 0.0))
        return self.node(Conv2d(padding=(kernel // 2,) * 4), (x, weight, bias), name)

    def pointwise(self, x: Node, name: str, weight: Array, bias: Array) -> Node:
        """A 1x1 convolution with known parameters that the file may hold all the same: EDSR's MeanShift."""
        names = (f"{name}.weight", f"{name}.bias")
        held = self.weights is None or any(self.source.name(full) in self.weights for full in names)
        make = self.parameter if held else self.constant
        return self.node(Conv2d(), (x, make(names[0], weight), make(names[1], bias)), name)

    def relu(self, x: Node, name: str) -> Node:
        return self.node(Relu(), (x,), name)

    def prelu(self, x: Node, name: str) -> Node:
        """max(0, x) + slope·min(0, x) with one slope for all channels, `name`.weight [1]."""
        slope = self.parameter(f"{name}.weight", self.filled(1, 0.25))
        return self.node(PRelu(), (x, slope), name)

    def residual(self, branch: Node, x: Node, name: str, scale: float = 1.0) -> Node:
        """scale · branch + x"""
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ModelError(f"the residual scale must be a number, such as 0.1, got {scale!r}")
        return self.node(Shortcut(alpha=float(scale)), (branch, x), name)

    def pixel_shuffle(self, x: Node, factor: int, mode: str, name: str) -> Node:
        """[N, C·factor², H, W] -> [N, C, factor·H, factor·W]; mode "crd" is PyTorch's order, "dcr" TensorFlow's."""
        if mode not in ("crd", "dcr"):
            raise ModelError(f"shuffle must be 'crd' (PyTorch) or 'dcr' (TensorFlow), got {mode!r}")
        return self.node(DepthToSpace(factor, mode), (x,), name)

    def arithmetic(self, op: Op, x: Node, value: Array | float, name: str) -> Node:
        """`op` (Add, Sub, Mul, Div) of x and a constant that is broadcast to it."""
        return self.node(op, (x, self.constant(f"{name}.value", np.atleast_1d(value))), name)

    def model(self, x: Node, output: Node, architecture: str, scale: int, input_range: float) -> Model:
        """The finished model. Raises `ModelError` with everything in which the weights do not fit."""
        if self.weights is not None:
            for name in self.weights.keys() - self.taken:
                self.faults.append(f"unexpected: {name} {list(self.weights[name].shape)}")
        if self.faults:
            shown = sorted(self.faults)[:MAX_FAULTS]
            more = len(self.faults) - len(shown)
            lines = "".join(f"\n  {fault}" for fault in shown) + (f"\n  … and {more} more" if more else "")
            raise ModelError(
                f"these weights ({self.source.family}) do not fit {architecture} x{scale}: is the file complete, and "
                f"of this architecture?{lines}"
            )
        graph = Graph((x,), {"output": output})
        return Model(graph, architecture, scale, input_range, fixed=frozenset(self.fixed))

    def filled(self, size: int, value: float) -> Array:
        """The initial value of a bias, slope or statistic."""
        return np.full(size, value, np.float32) if self.weights is None else _unset((size,))

    def _he(self, shape: tuple[int, ...]) -> Array:
        """The initial value of a convolution's weight; not drawn where weights are given."""
        if self.weights is not None:
            return _unset(shape)
        deviation = math.sqrt(2 / prod(shape[1:]))
        return self.random.standard_normal(shape, np.float32) * np.float32(deviation)

    def _norm(self, v: Array) -> Array:
        """‖v‖ of every filter, [Co, 1, 1, 1]: the gain with which a new weight norm changes nothing."""
        if self.weights is not None:
            return _unset((len(v), 1, 1, 1))
        return np.sqrt(np.square(v).sum(axis=(1, 2, 3), keepdims=True))

    def _take(self, name: str, initial: Array) -> Array:
        if self.weights is None:
            return initial
        held = self.source.name(name)
        self.taken.add(held)
        array = self.weights.get(held)
        expected = f"expected {list(initial.shape)}"
        if array is None:
            self.faults.append(f"missing: {held}, {expected}")
        elif array.shape != initial.shape:
            self.faults.append(f"wrong shape: {held}, {expected}, got {list(array.shape)}")
        elif array.dtype.kind != "f":
            self.faults.append(f"wrong dtype: {held}, expected floating point, got {array.dtype}")
        else:
            return np.ascontiguousarray(array, np.float32)
        return _unset(initial.shape)


def check_at_least(low: int, **values: int) -> None:
    """Hyper-parameters must be integers of at least `low`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ModelError(f"{name} must be an integer of at least {low}, got {value!r}")


def _unset(shape: tuple[int, ...]) -> Array:
    """An array that takes no memory, whatever its shape: the place of a parameter that is not known."""
    if prod(shape) > MAX_ELEMENTS:
        raise ModelError(f"a parameter of shape {list(shape)} is beyond any network: the file is damaged")
    return np.broadcast_to(np.float32(0), shape)
