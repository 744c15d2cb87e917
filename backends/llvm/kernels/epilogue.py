"""What follows the sum of a layer while it is in registers: y = activation(α·(sum + bias) + β·r), padding lanes
to zero.

Shared by all kernels that write blocked images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphsr.op import Op

from ..loops import FLOAT, IVECTOR, PTR, VECTOR_BYTES, Function, Index, Value
from .activation import emit_activation
from .layout import without_padding


@dataclass(frozen=True)
class Epilogue:
    """Which parts there are. Part of the description of a kernel."""

    bias: bool = False
    residual: bool = False
    alpha: bool = False
    """Whether α differs from 1."""
    beta: bool = False
    activation: Op | None = None
    partial: bool = False
    """Whether the last block has lanes beyond the channels: they are set to zero."""

    def slots(self) -> Mapping[str, str]:
        slots = {"bias": PTR} if self.bias else {}
        if self.alpha:
            slots["alpha"] = FLOAT
        if self.beta:
            slots["beta"] = FLOAT
        if self.partial:
            slots["lanes"] = PTR
        return slots

    def begin(self, k: Function, block: Index, suffix: str = "", piece: Index = 0) -> Channels:
        """Load what depends on the block of output channels only; `suffix` is that of the names of the slots, `piece`
        what `Function.pieces` yields."""
        at = block * VECTOR_BYTES + piece
        return Channels(
            self,
            bias=k.load(k["bias" + suffix] + at) if self.bias else None,
            alpha=k.splat(k["alpha" + suffix]) if self.alpha else None,
            beta=k.splat(k["beta" + suffix]) if self.beta else None,
            lanes=k.load(k["lanes" + suffix] + at, IVECTOR) if self.partial else None,
        )

    def begin_channel(self, k: Function, channel: Index) -> Channels:
        """The same where all lanes are pixels of one channel."""
        return Channels(
            self,
            bias=k.splat(k.load(k["bias"] + channel * 4, FLOAT)) if self.bias else None,
            alpha=k.splat(k["alpha"]) if self.alpha else None,
            beta=k.splat(k["beta"]) if self.beta else None,
            lanes=None,
        )


@dataclass(frozen=True)
class Channels:
    """The epilogue of one block of 16 channels, or of one channel, its operands in registers."""

    epilogue: Epilogue
    bias: Value | None
    alpha: Value | None
    beta: Value | None
    lanes: Value | None

    def apply(self, k: Function, y: Value, residual: Value | None = None) -> Value:
        """The finished vector of one pixel; `residual` is r or its address."""
        if self.bias is not None:
            y = y + self.bias
        if self.alpha is not None:
            y = y * self.alpha
        if residual is not None:
            r = k.load(residual) if residual.type == PTR else residual
            y = y + (r * self.beta if self.beta is not None else r)
        if self.epilogue.activation is not None:
            y = emit_activation(k, self.epilogue.activation, y)
        if self.lanes is not None:
            y = without_padding(k, y, self.lanes)
        return y
