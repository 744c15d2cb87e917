"""All ops, one family per file. Importing this package fills `graphsr.op.OPS`."""

from graphsr.ops.activation import Activation, Relu
from graphsr.ops.conv import Conv2d, ConvTranspose2d
from graphsr.ops.elementwise import Shortcut
from graphsr.ops.fused import Fused

__all__ = ["Activation", "Conv2d", "ConvTranspose2d", "Fused", "Relu", "Shortcut"]
