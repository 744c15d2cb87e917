"""What a layer is for a backend that computes it in one go: an op, and what follows while a block is at hand."""

from __future__ import annotations

from dataclasses import dataclass

from graphsr.ir import Node
from graphsr.op import Op
from graphsr.ops import Fused
from graphsr.ops.conv_nd import CONVOLUTIONS


@dataclass(frozen=True)
class Epilogue:
    """What follows the sum of a convolution: bias, α·y + β·r, activation."""

    bias: int | None = None
    """Which input of the node is the bias [Co]; likewise the residual [N, Co, …]."""
    residual: int | None = None
    alpha: float = 1.0
    beta: float = 1.0
    activation: Op | None = None


def layer_of(node: Node) -> tuple[Op, Epilogue]:
    """The op at the heart of a node, and its epilogue: of a fused op, or just the bias of a convolution."""
    fused = node.op if isinstance(node.op, Fused) else Fused(node.op)
    arguments = len(node.inputs) - (fused.residual is not None)
    has_bias = isinstance(fused.base, CONVOLUTIONS) and arguments == 3
    epilogue = Epilogue(
        bias=2 if has_bias else None,
        residual=arguments if fused.residual else None,
        alpha=fused.residual.alpha if fused.residual else 1.0,
        beta=fused.residual.beta if fused.residual else 1.0,
        activation=fused.activation,
    )
    return fused.base, epilogue
