"""All ops, one family per file. Importing this package fills `graphsr.op.OPS`."""

from graphsr.ops.activation import Activation, Relu
from graphsr.ops.conv import Conv2d, ConvTranspose2d
from graphsr.ops.elementwise import Shortcut
from graphsr.ops.fused import Fused
from graphsr.ops.pool import AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool2d
from graphsr.ops.rearrange import DepthToSpace, SpaceToDepth
from graphsr.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from graphsr.ops.resize import Resize
from graphsr.ops.shape import Concat, Pad, Reshape, Slice, Split, Transpose

__all__ = [
    "Activation",
    "AvgPool2d",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "DepthToSpace",
    "Fused",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool2d",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Shortcut",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Transpose",
]
