"""One file per family of kernels; `LOWER` says which family computes which op.

A family's `lower(plan, node)` asks the planner for its inputs, makes its output and adds calls, or raises `NoKernel`
with a reason: the node then runs through the `forward` of its op.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from graphsr.ir import Node
from graphsr.ops import Fused

from .cost import LOSSES
from .elementwise_ops import FORMULAS
from .reduce import FORMULAS as REDUCTIONS

if TYPE_CHECKING:
    from ..plan import Planner

LOWER: dict[str, str] = {
    **{kind.name: "elementwise" for kind in FORMULAS},  # Log1p too, which is a part of costs and in no graph
    "conv2d": "conv",
    "depth_to_space": "rearrange",
    "space_to_depth": "rearrange",
    "max_pool2d": "pool",
    "avg_pool2d": "pool",
    "resize": "resize",
    **{kind.name: "reduce" for kind in REDUCTIONS},
    **dict.fromkeys(("softmax", "log_softmax", "reduce_log_sum_exp"), "softmax"),
    **dict.fromkeys(("arg_max", "arg_min"), "place"),
    "top_k": "top_k",
    "dense": "dense",
    "matmul": "matmul",
    "einsum": "einsum",
    **{kind.name: "cost" for kind in LOSSES},
    "batch_norm_train": "batch_norm",
    **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm", "l1_norm", "l2_norm"), "normalise"),
    "weight_norm": "normalise",
    "local_response_norm": "local_response",
    **dict.fromkeys(("quantise", "all_finite"), "quantise"),
    "cumulative_sum": "cumulate",
    "lp_pool_nd": "lp_pool",
    **dict.fromkeys(("triangle", "one_hot", "hardmax"), "positions"),
    **dict.fromkeys(("reshape", "transpose", "concat", "split", "slice", "pad", "pad_nd"), "shape"),
    **dict.fromkeys(("tile", "roll", "gather"), "repeat"),
    **dict.fromkeys(("gather_elements", "gather_nd", "scatter_elements", "scatter_nd"), "index"),
    **dict.fromkeys(("simple_rnn", "rnn", "lstm", "gru"), "recurrent"),
    **dict.fromkeys(("yolo_head", "gaussian_yolo_head", "region_head", "grid_head"), "detection"),
    "conv_transpose2d": "conv_transpose",
    "local_conv2d": "local_conv",
    "grid_sample": "sample",
    "crop_and_resize": "crop",
    **dict.fromkeys(("conv_nd", "conv_transpose_nd", "max_pool_nd", "avg_pool_nd"), "signals"),
}
"""Name of the op (of the layer at the heart of a fused one) -> module here whose `lower` computes it."""


def lower(plan: Planner, node: Node) -> None:
    """Add the calls that compute a node. Raises `NoKernel`."""
    from ..plan import NoKernel

    base = node.op.base if isinstance(node.op, Fused) else node.op
    family = LOWER.get(base.name)
    if family is None:
        raise NoKernel(f"no kernel for {base.name}")
    if node.type.size == 0:
        raise NoKernel("nothing to compute")
    function: Callable[[Planner, Node], None] = import_module(f".{family}", __name__).lower
    function(plan, node)
