"""All ops, one family per file. Importing this package fills `graphsr.op.OPS`."""

from graphsr.ops.activation import (
    Activation,
    Elliot,
    Elu,
    HardTan,
    Leaky,
    LhTan,
    Linear,
    Loggy,
    Logistic,
    Plse,
    Ramp,
    Relie,
    Relu,
    Selu,
    SoftPlus,
    SoftSign,
    Stair,
    SymmElliot,
    Tanh,
)
from graphsr.ops.activation_modern import Clip, Gelu, HardSigmoid, HardSwish, Mish, PRelu, Relu6, Silu
from graphsr.ops.conv import Conv2d, ConvTranspose2d
from graphsr.ops.dense import Dense, Softmax
from graphsr.ops.detection import GaussianYoloHead, GridHead, RegionHead, YoloHead
from graphsr.ops.elementwise import Add, Div, Mul, Shortcut, Sub
from graphsr.ops.fused import Fused
from graphsr.ops.local import LocalConv2d
from graphsr.ops.norm import BatchNorm, BatchNormTrain, WeightNorm
from graphsr.ops.pool import AvgPool2d, GlobalAvgPool, GlobalMaxPool, MaxPool2d
from graphsr.ops.rearrange import DepthToSpace, SpaceToDepth
from graphsr.ops.reduce import ReduceMax, ReduceMean, ReduceSum
from graphsr.ops.resize import Resize
from graphsr.ops.shape import Concat, Pad, Reshape, Slice, Split, Transpose

__all__ = [
    "Activation",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "BatchNormTrain",
    "Clip",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "DepthToSpace",
    "Div",
    "Elliot",
    "Elu",
    "Fused",
    "GaussianYoloHead",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GridHead",
    "HardSigmoid",
    "HardSwish",
    "HardTan",
    "Leaky",
    "LhTan",
    "Linear",
    "LocalConv2d",
    "Loggy",
    "Logistic",
    "MaxPool2d",
    "Mish",
    "Mul",
    "PRelu",
    "Pad",
    "Plse",
    "Ramp",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "RegionHead",
    "Relie",
    "Relu",
    "Relu6",
    "Reshape",
    "Resize",
    "Selu",
    "Shortcut",
    "Silu",
    "Slice",
    "SoftPlus",
    "SoftSign",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Stair",
    "Sub",
    "SymmElliot",
    "Tanh",
    "Transpose",
    "WeightNorm",
    "YoloHead",
]
