"""batch_norm_train: y = γ · (x − μ) / √(v + ε) + β with the statistics of the batch, x[N, C, …].

for channel of the unit: μ = Σ x / m over all images; v = Σ (x − μ)² / m; then y. Three passes: what is subtracted from
x before it is squared is the mean itself, so nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import BatchNormTrain

from ..kernel import Argument, Kernel
from ..loops import FLOAT, I64, PTR, Function, Value
from .folding import Folding
from .reduce import fold_run, in_chunks
from .row import load_row, over_row, store_row

if TYPE_CHECKING:
    from ..plan import Planner
    from ..target import Target

SUM = Folding("sum")


@dataclass(frozen=True)
class NormaliseBatch(Kernel):
    """Unit: a channel of all images."""

    def slots(self) -> Mapping[str, str]:
        pointers = dict.fromkeys(("x", "scale", "bias", "y"), PTR)
        return {**pointers, "m": FLOAT, "eps": FLOAT, **dict.fromkeys(("images", "channels", "size"), I64)}

    def body(self, k: Function, target: Target) -> None:
        with k.narrowed():
            self._channel(k)

    def _channel(self, k: Function) -> None:
        size = k["size"]
        scale, bias = (k.splat(k.load(k[name] + k.unit * 4, FLOAT)) for name in ("scale", "bias"))

        def of_image(n: Value) -> Value:
            return (n * k["channels"] + k.unit) * size * 4

        def mean(change: Callable[[Value], Value] | None = None) -> Value:
            """Of `change` of every value of the channel."""
            (total,) = in_chunks(
                k, SUM, k["images"], 1, lambda n: [fold_run(k, SUM, k["x"] + of_image(n), size, change)]
            )
            return SUM.across(k, total) / k.splat(k["m"])

        centre = mean()
        variance = mean(lambda x: (x - centre) * (x - centre))
        deviation = k.intrinsic("sqrt", variance + k.splat(k["eps"]))
        with k.loop(k["images"]) as n:
            x, y = k["x"] + of_image(n), k["y"] + of_image(n)

            def pixels(at: Value, mask: Value | None) -> None:
                normal = (load_row(k, x + at * 4, mask) - centre) / deviation
                store_row(k, scale * normal + bias, y + at * 4, mask)

            over_row(k, size, pixels)


def lower(plan: Planner, node: Node) -> None:
    """Planar."""
    from ..plan import NoKernel

    op = node.op
    assert isinstance(op, BatchNormTrain)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    images, channels, *rest = node.type.dims
    size = prod(rest)
    x, scale, bias = map(plan.planar, node.inputs)
    arguments: dict[str, Argument] = {"x": x, "scale": scale, "bias": bias, "y": plan.new_planar(node), "eps": op.eps}
    arguments |= {"m": float(images * size), "images": images, "channels": channels, "size": size}
    plan.call(node, NormaliseBatch(), arguments, channels, label="normalise channels")
