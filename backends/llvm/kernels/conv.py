"""conv2d: which kernel computes a convolution, and what all of them share: channel order, packing, epilogue.

Output channels are computed in blocks of 16 (a vector) and panels of a few blocks (a register tile). A pixel shuffle
that follows the convolution and reads it alone is taken over: channels are put in the order of its cells, and each
block is written to its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphsr.forksafe import once
from graphsr.ir import Node
from graphsr.op import Array
from graphsr.ops import Conv2d, ConvTranspose2d, DepthToSpace

from ...layer import Epilogue as Layer
from ...layer import layer_of
from ..kernel import Argument
from ..loops import LANES
from ..memory import aligned
from ..tensor import Blocked
from .activation import has_activation
from .epilogue import Epilogue

if TYPE_CHECKING:
    from ..plan import Planner


LEAST_PAIRED = 96
"""Pixels of height and width from which a pair of convolutions is computed as one. In smaller images the wide image
stays in cache anyway, and what strips compute beyond their edges is a larger share."""


@dataclass(frozen=True)
class Convolution:
    """A convolution as the kernels want it."""

    node: Node
    op: Conv2d | ConvTranspose2d
    layer: Layer
    shuffled: Node | None
    """The pixel shuffle that is computed along with it."""

    @property
    def weight(self) -> Array:
        return self.node.inputs[1].value

    @property
    def result(self) -> Node:
        """The node whose value is written."""
        return self.shuffled or self.node

    @property
    def shuffle(self) -> int:
        op = self.shuffled.op if self.shuffled else None
        return op.block if isinstance(op, DepthToSpace) else 1

    @once
    def order(self) -> Array:
        """[blocks · 16] the output channel of every lane, or −1 for lanes beyond the channels."""
        co, cells = self.node.type.dims[1], self.shuffle**2
        channels = np.arange(co)
        crd = isinstance(self.result.op, DepthToSpace) and self.result.op.mode == "crd"
        by_cell = channels.reshape(-1, cells).T if crd else channels.reshape(cells, -1)
        padded = np.full((cells, -(-by_cell.shape[1] // LANES) * LANES), -1)
        padded[:, : by_cell.shape[1]] = by_cell
        return padded.ravel()

    @property
    def epilogue(self) -> Epilogue:
        layer = self.layer
        return Epilogue(
            bias=layer.bias is not None,
            residual=layer.residual is not None,
            alpha=layer.residual is not None and layer.alpha != 1,
            beta=layer.residual is not None and layer.beta != 1,
            activation=layer.activation,
            partial=bool((self.order < 0).any()),
        )

    def epilogue_arguments(self, plan: Planner) -> dict[str, Argument]:
        """The values of `Epilogue.slots()`."""
        epilogue, order = self.epilogue, self.order
        arguments: dict[str, Argument] = {}
        if self.layer.bias is not None:
            bias = self.node.inputs[self.layer.bias].value
            arguments["bias"] = plan.weight(bias, f"lanes{self._key}", lambda b: by_lane(b, order))
        if epilogue.alpha:
            arguments["alpha"] = float(self.layer.alpha)
        if epilogue.beta:
            arguments["beta"] = float(self.layer.beta)
        if epilogue.partial:
            masks = np.where(order < 0, 0, -1).astype(np.int32)
            arguments["lanes"] = plan.weight(self.weight, f"masks{self._key}", lambda _: aligned(masks), masks.nbytes)
        return arguments

    def channel_arguments(self, plan: Planner) -> dict[str, Argument]:
        """The same for kernels whose lanes are pixels: values by channel, in their own order."""
        arguments = {name: value for name, value in self.epilogue_arguments(plan).items() if name in ("alpha", "beta")}
        if self.layer.bias is not None:
            arguments["bias"] = plan.weight(self.node.inputs[self.layer.bias].value, "by channel", aligned)
        return arguments

    @property
    def _key(self) -> str:
        mode = self.result.op.mode if isinstance(self.result.op, DepthToSpace) else ""
        return f" shuffle {self.shuffle}{mode}"

    def form(self, kind: str) -> str:
        """The name of a packed form of the weights: all that it depends on."""
        return kind + self._key

    def residual(self, plan: Planner, right: int = 0) -> Blocked | None:
        if self.layer.residual is None:
            return None
        return plan.blocked(self.node.inputs[self.layer.residual], 0, right)


def by_lane(values: Array, order: Array) -> Array:
    """values[Co] in the order of the lanes, zeros beyond the channels."""
    return aligned(np.where(order < 0, 0, values[order]).astype(np.float32))


def convolution_of(plan: Planner, node: Node) -> Convolution:
    """What a node computes, if kernels can. Raises `NoKernel`."""
    from ..plan import NoKernel

    op, layer = layer_of(node)
    assert isinstance(op, Conv2d | ConvTranspose2d)
    if node.type.dtype != "float32":
        raise NoKernel(f"only float32, not {node.type.dtype}")
    if not node.inputs[1].is_const or (layer.bias is not None and not node.inputs[layer.bias].is_const):
        raise NoKernel("weights are not constant")
    if layer.activation is not None and not has_activation(layer.activation):
        raise NoKernel(f"no code for {layer.activation.name} in an epilogue")
    return Convolution(node, op, layer, _shuffle_of(plan, node, op, layer))


def lower(plan: Planner, node: Node) -> None:
    """Choose the kernel of a convolution."""
    from ..plan import LEAST_BLOCKED
    from .conv_depthwise import is_depthwise, lower_depthwise
    from .conv_direct import lower_direct
    from .conv_head import lower_head
    from .conv_pair import lower_pair
    from .conv_planar import lower_planar, wants_planar
    from .conv_pointwise import is_pointwise, lower_pointwise
    from .conv_tail import MOST_CHANNELS, lower_tail
    from .conv_winograd import lower_winograd
    from .winograd_weights import winograd_tile

    conv = convolution_of(plan, node)
    x, op = node.inputs[0], conv.op
    assert isinstance(op, Conv2d)
    co, ci = conv.weight.shape[:2]
    few = ci * op.groups < LEAST_BLOCKED and not plan.is_blocked(x)
    planar = wants_planar(plan, conv)
    narrow = max(ci * op.groups, co) <= LEAST_BLOCKED and not plan.is_blocked(x)
    whole_blocks = ci % LANES == 0 and co // op.groups % LANES == 0
    if narrow:
        lower_planar(plan, conv)
    elif is_depthwise(conv) and not few:
        lower_depthwise(plan, conv)
    elif (few and planar) or (op.groups > 1 and not whole_blocks):
        lower_planar(plan, conv)
    elif co <= MOST_CHANNELS and op.groups == 1 and not few:
        lower_tail(plan, conv)
    elif few:
        lower_head(plan, conv)
    elif m := winograd_tile(node):
        narrowing = _narrowing(plan, conv)
        if narrowing is not None:
            lower_pair(plan, conv, narrowing, m)
        else:
            lower_winograd(plan, conv, m)
    elif is_pointwise(conv):
        lower_pointwise(plan, conv)
    else:
        lower_direct(plan, conv)


def _shuffle_of(plan: Planner, node: Node, op: Conv2d | ConvTranspose2d, layer: Layer) -> Node | None:
    """The pixel shuffle to take over: not where a residual in the old order is added."""
    user = plan.only_user(node)
    if user is None or op.groups > 1 or isinstance(op, ConvTranspose2d):
        return None
    if not isinstance(user.op, DepthToSpace) or layer.residual is not None:
        return None
    channels = user.type.dims[1]
    return user if channels >= LANES // 2 else None


def _narrowing(plan: Planner, wide: Convolution) -> Convolution | None:
    """The convolution with fewer channels that alone reads this one's many, where both can be computed as a pair."""
    from ..plan import NoKernel

    user = plan.only_user(wide.node)
    if user is None or wide.shuffled or wide.layer.residual is not None or user.inputs[0] is not wide.node:
        return None
    if not isinstance(layer_of(user)[0], Conv2d):
        return None
    try:
        narrow = convolution_of(plan, user)
    except NoKernel:
        return None
    channels, many, few = wide.node.inputs[0].type.dims[1], len(wide.weight), len(narrow.weight)
    same = narrow.op == wide.op and narrow.op.padding == (1, 1, 1, 1) and not narrow.shuffled
    thin = few == channels and channels % (2 * LANES) == 0 and many % (2 * LANES) == 0 and many >= 2 * few
    ready = narrow.layer.residual is None or plan.is_done(user.inputs[narrow.layer.residual])
    large = min(wide.node.type.dims[2:]) >= LEAST_PAIRED
    return narrow if same and thin and ready and large else None
