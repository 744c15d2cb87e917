"""A graph as ncnn's pair of files: .param (one line per layer) and .bin (the weights in order).

What ncnn's own converters do is done here: ReLU behind a convolution becomes its activation, and a value that is read
more than once goes through a Split layer. ncnn has no batches: the files describe the network for one image.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array, Op
from graphsr.ops import Add, Conv2d, DepthToSpace, Div, MaxPool2d, Mul, PRelu, Relu, Shortcut, Sub, Tanh

MAGIC = 7767517
FLOAT32 = b"\0\0\0\0"
"""Stands before the weights of a convolution: they are float32."""
BINARY: dict[type[Op], int] = {Add: 0, Sub: 1, Mul: 2, Div: 3}


@dataclass
class Files:
    """The two files as they grow."""

    lines: list[str] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    blobs: int = 0
    readers: dict[Node, list[str]] = field(default_factory=dict)
    """The blobs of a value that are still to be read, one for each reader."""

    def layer(self, kind: str, inputs: list[str], outputs: list[str], *options: str) -> None:
        counts = f"{len(inputs)} {len(outputs)}"
        self.lines.append(" ".join([kind, f"{kind}_{len(self.lines)}", counts, *inputs, *outputs, *options]))
        self.blobs += len(outputs)

    def give(self, node: Node, blob: str, readers: int) -> None:
        """Blob `blob` holds the value of `node`, which is read so many times."""
        self.readers[node] = [blob]
        if readers > 1:
            self.readers[node] = [f"{blob}_{i}" for i in range(readers)]
            self.layer("Split", [blob], self.readers[node])

    def write(self, stem: Path) -> None:
        text = [str(MAGIC), f"{len(self.lines)} {self.blobs}", *self.lines]
        stem.with_suffix(".param").write_text("\n".join(text) + "\n", encoding="ascii")
        with stem.with_suffix(".bin").open("wb") as file:
            file.writelines(self.weights)


def write_ncnn(graph: Graph, stem: Path) -> None:
    """Write `stem`.param and `stem`.bin; the blobs "input" and "output" are the ends.

    Raises `NotImplementedError` for an op, or an attribute, that no compared network has.
    """
    files, uses = Files(), graph.uses()
    (output,) = graph.outputs.values()
    joined = _activations(graph, uses)
    activations = set(joined.values())
    for number, node in enumerate(graph.nodes()):
        if isinstance(node.op, Const):
            continue
        blob = "output" if node is output else f"b{number}"
        readers = uses[node] - (node is output)
        if isinstance(node.op, Input):
            files.layer("Input", [], ["input"])
            files.give(node, "input", readers)
        elif node in activations:  # the convolution before it has done its work
            files.give(node, files.readers[node.inputs[0]].pop(), readers)
        else:
            inputs = [files.readers[child].pop() for child in node.inputs if not isinstance(child.op, Const)]
            held = "output" if joined.get(node) is output else blob
            _layer(files, node, inputs, held, relu=node in joined)
            files.give(node, held, readers)
    files.write(stem)


def _activations(graph: Graph, uses: Counter[Node]) -> dict[Node, Node]:
    """The ReLU of each convolution that nothing else reads."""
    relus = (node for node in graph.nodes() if isinstance(node.op, Relu))
    return {
        relu.inputs[0]: relu for relu in relus if isinstance(relu.inputs[0].op, Conv2d) and uses[relu.inputs[0]] == 1
    }


def _layer(files: Files, node: Node, inputs: list[str], output: str, *, relu: bool) -> None:
    match node.op:
        case Conv2d(groups=1) as conv:
            weight, bias = (child.value for child in node.inputs[1:])
            files.layer("Convolution", inputs, [output], *_convolution(conv, weight), f"9={int(relu)}")
            files.weights += [FLOAT32, weight.tobytes(), bias.tobytes()]
        case Relu():
            files.layer("ReLU", inputs, [output])
        case PRelu():
            slope = node.inputs[1].value
            files.layer("PReLU", inputs, [output], f"0={slope.size}")
            files.weights.append(slope.tobytes())
        case Tanh():
            files.layer("TanH", inputs, [output])
        case DepthToSpace(block, mode):
            files.layer("PixelShuffle", inputs, [output], f"0={block}", f"1={int(mode == 'dcr')}")
        case MaxPool2d(padding=(0, 0, 0, 0), dilation=(1, 1), ceil_mode=False) as pool:
            (kh, kw), (sh, sw) = pool.kernel, pool.stride
            unpadded = "5=1"
            files.layer("Pooling", inputs, [output], "0=0", f"1={kw}", f"11={kh}", f"2={sw}", f"12={sh}", unpadded)
        case Shortcut(1.0, 1.0):
            files.layer("BinaryOp", inputs, [output], "0=0")
        case Add() | Sub() | Mul() | Div() if node.inputs[1].is_const:
            _arithmetic(files, node, inputs, output)
        case _:
            raise NotImplementedError(f"{node.where()}: not written for ncnn by the bench")


def _convolution(conv: Conv2d, weight: Array) -> list[str]:
    co, _, kh, kw = weight.shape
    top, left, bottom, right = conv.padding
    options = {0: co, 1: kw, 11: kh, 2: conv.dilation[1], 12: conv.dilation[0], 3: conv.stride[1], 13: conv.stride[0]}
    options |= {4: left, 15: right, 14: top, 16: bottom, 5: 1, 6: weight.size}
    return [f"{key}={value}" for key, value in options.items()]


def _arithmetic(files: Files, node: Node, inputs: list[str], output: str) -> None:
    """x ∘ c with a scalar, or with one value per channel as ncnn's Scale: x·s + b."""
    value = node.inputs[1].value
    if value.size == 1:
        files.layer("BinaryOp", inputs, [output], f"0={BINARY[type(node.op)]}", "1=1", f"2={float(value.item())!r}")
        return
    if value.shape != (1, node.type.dims[1], 1, 1):
        raise NotImplementedError(f"{node.where()}: {value.shape} is neither a scalar nor one value per channel")
    c = value.ravel()
    one, zero = np.ones_like(c), np.zeros_like(c)
    forms: dict[type[Op], tuple[Array, Array]] = {Add: (one, c), Sub: (one, -c), Mul: (c, zero), Div: (1 / c, zero)}
    scale, bias = forms[type(node.op)]
    files.layer("Scale", inputs, [output], f"0={c.size}", "1=1")
    files.weights += [scale.tobytes(), bias.tobytes()]
