"""A graph as a PyTorch module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array, Op
from graphsr.ops import Add, Conv2d, DepthToSpace, Div, MaxPool2d, Mul, PRelu, Relu, Shortcut, Sub, Tanh

ARITHMETIC: dict[type[Op], Callable[..., Tensor]] = {Add: torch.add, Sub: torch.sub, Mul: torch.mul, Div: torch.div}


class GraphModule(nn.Module):
    """Runs the nodes in order, in eager mode; a value is dropped after its last use.

    Raises `NotImplementedError` for an op that no compared network has.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.nodes = [node for node in graph.nodes() if not isinstance(node.op, Const | Input)]
        self.uses: Counter[Node] = graph.uses()
        self.calls = [_call(node) for node in self.nodes]
        self.constants = nn.ParameterList(
            nn.Parameter(torch.from_numpy(np.array(node.value)), requires_grad=False)
            for node in graph.nodes()
            if node.is_const
        )

    def forward(self, x: Tensor) -> Tensor:
        values = dict(zip((node for node in self.graph.nodes() if node.is_const), self.constants, strict=True))
        values[self.graph.inputs[0]] = x
        pending = Counter(self.uses)
        for node, call in zip(self.nodes, self.calls, strict=True):
            values[node] = call(*(values[child] for child in node.inputs))
            for child in node.inputs:
                pending[child] -= 1
                if not pending[child]:
                    del values[child]
        (output,) = self.graph.outputs.values()
        return values[output]

    def runner(self, layout: torch.memory_format) -> Callable[[Array], Array]:
        """NCHW arrays in and out, with this layout of images and weights between."""

        def run(x: Array) -> Array:
            for parameter in self.constants:
                if parameter.dim() == 4 and not parameter.is_contiguous(memory_format=layout):
                    parameter.data = parameter.data.contiguous(memory_format=layout)
            with torch.inference_mode():
                y = self(torch.from_numpy(x).contiguous(memory_format=layout))
                return y.contiguous().numpy()

        return run


def _call(node: Node) -> Callable[..., Tensor]:
    match node.op:
        case Conv2d(stride, (top, left, bottom, right), dilation, groups) if (top, left) == (bottom, right):
            return lambda x, w, b: F.conv2d(x, w, b, stride, (top, left), dilation, groups)
        case MaxPool2d(kernel, stride, (0, 0, 0, 0), (1, 1), False):
            return lambda x: F.max_pool2d(x, kernel, stride)
        case Relu():
            own = not isinstance(node.inputs[0].op, Shortcut | Input)  # nobody else reads it: as in the published code
            return lambda x: F.relu(x, inplace=own)
        case PRelu():
            return F.prelu
        case Tanh():
            return torch.tanh
        case DepthToSpace(block, "crd"):
            return lambda x: F.pixel_shuffle(x, block)
        case Shortcut(1.0, beta):
            return lambda x1, x2: torch.add(x1, x2, alpha=beta)
        case op if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)]
    raise NotImplementedError(f"{node.where()}: not run with PyTorch by the bench")
