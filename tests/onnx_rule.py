"""Which of onnx's own tests are ours to pass."""

from __future__ import annotations

import re

import onnx

TIER_1 = """Abs Add AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose
DepthToSpace Div Dropout Expand Flatten Gather GlobalAveragePool Identity LeakyRelu MaxPool Mul Neg PRelu Pad Pow
ReduceL2 ReduceMean ReduceSum Relu Reshape Resize Shape Sigmoid Slice SpaceToDepth Split Sqrt Squeeze Sub Tanh
Transpose Unsqueeze Upsample"""
TIER_2 = """And ArgMax ArgMin CastLike Ceil Celu Cos Elu Equal Erf Exp EyeLike Floor Gemm GlobalMaxPool Greater
GreaterOrEqual HardSigmoid HardSwish Hardmax InstanceNormalization LRN Less LessOrEqual Log LogSoftmax LpNormalization
LpPool MatMul Max Mean Min Mish Mod Not Or Range Reciprocal ReduceL1 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin
ReduceProd ReduceSumSquare Round Selu Shrink Sign Sin Size Softmax Softplus Softsign Sum Swish ThresholdedRelu Tile
Where Xor"""
TIER_3 = """Attention CenterCropPad CumSum Einsum GatherElements GatherND Gelu GridSample GroupNormalization IsInf
IsNaN LayerNormalization MeanVarianceNormalization OneHot RMSNormalization Scatter ScatterElements ScatterND SwiGLU Tan
TopK Trilu"""
"""As far as they are read."""
RECURRENT = "GRU LSTM RNN"
OPERATORS = {*TIER_1.split(), *TIER_2.split(), *TIER_3.split(), *RECURRENT.split()}
REFUSED = re.compile(r"scatter.*_(mul|multiply|max|min)(_|$)")
"""Reductions that do not add."""
DTYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
TRAINING = re.compile(r"training_|batchnorm_.*training|bernoulli|random_(normal|uniform)")


def in_rule(name: str, model: onnx.ModelProto) -> bool:
    """Operators as above, dtypes as above with at least one float32, inference, and not an expanded function."""
    graph = model.graph
    if (
        "_expanded" in name
        or TRAINING.search(name)
        or REFUSED.search(name)
        or not {node.op_type for node in graph.node} <= OPERATORS
    ):
        return False
    values = [*graph.input, *graph.output]
    if not all(value.type.HasField("tensor_type") for value in values):
        return False
    used = {value.type.tensor_type.elem_type for value in values} | {tensor.data_type for tensor in graph.initializer}
    return used <= DTYPES and onnx.TensorProto.FLOAT in used
