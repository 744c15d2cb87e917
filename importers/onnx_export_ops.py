"""How every op is written as ONNX: `RULES`, from op class to a small function. The page to read.

What has no rule stands in `REFUSED`, with the reason.
"""

from __future__ import annotations

from graphsr.op import Op
from graphsr.ops import Dropout

from .onnx_export_ops_activation import ACTIVATIONS
from .onnx_export_ops_cost import COST
from .onnx_export_ops_elementwise import ELEMENTWISE
from .onnx_export_ops_head import HEAD
from .onnx_export_ops_norm import NORM
from .onnx_export_ops_quantise import QUANTISE
from .onnx_export_ops_recurrent import RECURRENT
from .onnx_export_ops_reduce import REDUCE
from .onnx_export_ops_resize import RESIZE
from .onnx_export_ops_shape import SHAPE
from .onnx_export_ops_window import WINDOW
from .onnx_export_writer import Rules

RULES: Rules = {
    **ACTIVATIONS,
    **ELEMENTWISE,
    **SHAPE,
    **WINDOW,
    **RESIZE,
    **REDUCE,
    **QUANTISE,
    **NORM,
    **RECURRENT,
    **HEAD,
    **COST,
}

REFUSED: dict[type[Op], str] = {
    Dropout: "its mask comes of a generator that ONNX lacks; for inference leave the op out",
}
