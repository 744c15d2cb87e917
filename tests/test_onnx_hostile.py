"""ONNX files that lie: each ends in a load or in our own error, in a moment and in little memory.

`GRAPHSR_MUTANTS=5000 pytest tests/test_onnx_hostile.py` damages that many files.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mutation import mutants
from onnx import TensorProto, helper
from onnx_models import model, node, upscaler, weight, with_function

import graphsr
from graphsr.errors import GraphsrError, ModelError

from support import costs_little

COUNT = int(os.environ.get("GRAPHSR_MUTANTS", "300"))
SECONDS = 2.0
KILOBYTES = 512 * 1024
INT = TensorProto.INT64


def loads(path: Path) -> str:
    """ "" when the file is read, else why it is refused; anything but our own error is a failure of the test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reason = ""
    with costs_little(SECONDS):
        try:
            graphsr.load(path)
        except ModelError as error:
            reason = str(error)
            assert str(path) in reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES
    return reason


def longs(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def one(op_type: str, inputs: str = "x", opset: int = 18, **rest: Any) -> onnx.ModelProto:
    """A model of one node; keywords that are arrays are initializers, all others attributes."""
    weights = {name: value for name, value in rest.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in rest.items() if name not in weights}
    return model([node(op_type, inputs, "y", "bad", **attributes)], {"x": [1, 2, 4, 4]}, weights=weights, opset=opset)


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    made = upscaler()
    change(made)
    return made


def function_bomb() -> onnx.ModelProto:
    """Each function calls the one before ten times: 10¹² nodes."""
    functions = []
    for level in range(12):
        inner = ("", "Relu") if level == 0 else ("local", f"f{level - 1}")
        names = ["v", *(f"t{i}" for i in range(9)), "out"]
        body = [helper.make_node(inner[1], [a], [b], domain=inner[0]) for a, b in pairwise(names)]
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        functions.append(helper.make_function("local", f"f{level}", ["v"], ["out"], body, imports))
    return model([node("f11", "x", "y", domain="local")], {"x": [1]}, functions=functions)


def recursion() -> onnx.ModelProto:
    body = [helper.make_node("f", ["v"], ["out"], domain="local")]
    f = helper.make_function("local", "f", ["v"], ["out"], body, [helper.make_opsetid("local", 1)])
    return model([node("f", "x", "y", domain="local")], {"x": [1]}, functions=[f])


def doubling(op_type: str, steps: int) -> onnx.ModelProto:
    """A constant that is doubled again and again."""
    nodes = [node(op_type, f"c{i} two" if op_type == "Tile" else f"c{i} c{i}", f"c{i + 1}") for i in range(steps)]
    if op_type == "Concat":
        for made in nodes:
            made.attribute.append(helper.make_attribute("axis", 0))
    nodes.append(node("Add", f"x c{steps}", "y"))
    return model(nodes, {"x": [1]}, weights={"c0": weight(1024), "two": longs(2)})


def long_chain() -> onnx.ModelProto:
    nodes = [node("Relu", f"v{i}" if i else "x", f"v{i + 1}") for i in range(20_000)]
    return model([*nodes, node("Relu", "v20000", "y")], {"x": [1]})


def set_dims(made: onnx.ModelProto, *dims: int) -> None:
    made.graph.initializer[0].dims[:] = dims


HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    "operator set of the future": lambda: changed(lambda m: setattr(m.opset_import[0], "version", 9999)),
    "no operator set": lambda: changed(lambda m: setattr(m.opset_import[0], "domain", "other")),
    "no outputs": lambda: changed(lambda m: m.graph.ClearField("output")),
    "an output that nothing computes": lambda: changed(lambda m: setattr(m.graph.output[0], "name", "z")),
    "a cycle": lambda: model([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")], {"x": [1]}),
    "a value defined twice": lambda: model([node("Relu", "x", "y"), node("Tanh", "x", "y")], {"x": [1]}),
    "two initializers of one name": lambda: changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "raw and typed data": lambda: changed(lambda m: m.graph.initializer[0].float_data.append(1.0)),
    "raw data too short": lambda: changed(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234")),
    "negative size": lambda: changed(lambda m: set_dims(m, -1, 3, 3, 3)),
    "a size of 2**62": lambda: changed(lambda m: set_dims(m, 1 << 62, 4)),
    "sizes whose product wraps to the right one": lambda: changed(lambda m: set_dims(m, 1 << 32, 1 << 32, 324)),
    "element type 99": lambda: changed(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    "strings": lambda: changed(lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING)),
    "groups of 0": lambda: one("Conv", "x w", w=weight(2, 2, 3, 3), group=0),
    "groups that do not divide": lambda: one("Conv", "x w", w=weight(3, 1, 3, 3), group=2),
    "channels that do not fit": lambda: one("Conv", "x w", w=weight(3, 5, 3, 3)),
    "a bias of another length": lambda: one("Conv", "x w b", w=weight(3, 2, 3, 3), b=weight(4)),
    "kernel_shape beside the weight": lambda: one("Conv", "x w", w=weight(3, 2, 3, 3), kernel_shape=[5, 5]),
    "stride 0": lambda: one("Conv", "x w", w=weight(3, 2, 3, 3), strides=[0, 1]),
    "stride -1": lambda: one("MaxPool", kernel_shape=[2, 2], strides=[-1, 1]),
    "too few strides": lambda: one("Conv", "x w", w=weight(3, 2, 3, 3), strides=[1]),
    "pads of 2**40": lambda: one("Conv", "x w", w=weight(3, 2, 3, 3), pads=[-5, 0, 0, 0]),
    "a kernel of 2**40": lambda: one("MaxPool", kernel_shape=[1 << 40, 2]),
    "auto_pad by another name": lambda: one("Conv", "x w", w=weight(3, 2, 3, 3), auto_pad="SAME"),
    "statistics of another length": lambda: one("BatchNormalization", "x a a a b", a=weight(2), b=weight(3)),
    "a slope of another length": lambda: one("PRelu", "x a", a=weight(3, 1, 1)),
    "an index out of range": lambda: one("Gather", "c i", c=weight(3), i=longs(5)),
    "an unknown shuffle": lambda: one("DepthToSpace", blocksize=1, mode="XYZ"),
    "a block of 0": lambda: one("DepthToSpace", blocksize=0),
    "clip to a vector": lambda: one("Clip", "x a", a=weight(2)),
    "an axis that is not there": lambda: one("Concat", "x x", axis=7),
    "an attribute of another type": lambda: one("Concat", "x x", axis=1.5),
    "an attribute that is missing": lambda: one("Concat", "x x"),
    "an attribute of another version": lambda: one("Softmax", spatial=1),
    "too many inputs": lambda: one("Relu", "x x x"),
    "no inputs": lambda: one("Relu", ""),
    "reshape to another size": lambda: one("Reshape", "x s", s=longs(3, 5)),
    "reshape with two open sizes": lambda: one("Reshape", "x s", s=longs(-1, -1)),
    "reshape to negative sizes": lambda: one("Reshape", "x s", s=longs(-4, -8)),
    "transpose of an axis twice": lambda: one("Transpose", perm=[0, 0, 1, 2]),
    "slice with step 0": lambda: one("Slice", "x a a a a", a=longs(0)),
    "pieces that do not add up": lambda: one("Split", "x s", s=longs(1, 7), axis=1),
    "a window of 2**30": lambda: one("MaxPool", kernel_shape=[1 << 30, 1], pads=[(1 << 30) - 4, 0, (1 << 30) - 4, 0]),
    "a window of 2**30 in a file of open sizes": lambda: model(
        [node("AveragePool", "x", "y", kernel_shape=[1 << 15] * 2, pads=[(1 << 15) - 1] * 4)], {"x": [1, 1, "h", "w"]}
    ),
    "a dilation of 2**30": lambda: one(
        "Conv", "x w", w=weight(3, 2, 3, 3), dilations=[1 << 30, 1], pads=[1 << 30, 1, 1 << 30, 1]
    ),
    "a stride of 2**30": lambda: one(
        "ConvTranspose", "x w", w=weight(2, 3, 3, 3), strides=[1 << 30, 1], pads=[1 << 30, 0, 1 << 30, 0]
    ),
    "a constant under a large window": lambda: model(
        [node("LpPool", "c", "p", kernel_shape=[1024, 1024], pads=[1023] * 4), node("Add", "x p", "y")],
        {"x": [1]},
        weights={"c": weight(1, 1, 4, 4)},
    ),
    "resize to 2**40": lambda: one("Resize", "x - - s", s=longs(1, 2, 1 << 40, 1 << 40)),
    "resize by infinity": lambda: one("Resize", "x - s", s=np.array([1, 1, np.inf, np.nan], np.float32)),
    "resize by 0": lambda: one("Resize", "x - s", s=np.array([1, 1, 0, 0], np.float32)),
    "a dtype that does not fit": lambda: one("Add", "x a", a=longs(1)),
    "shapes that do not fit": lambda: one("Add", "x a", a=weight(3)),
    "a range of 2**60": lambda: one("Range", "a b c", a=longs(0)[0], b=longs(1 << 60)[0], c=longs(1)[0]),
    "a range without a step": lambda: one("Range", "a b a", a=longs(0)[0], b=longs(9)[0]),
    "a real range of 1e30": lambda: one(
        "Range", "a b c", a=np.zeros((), np.float32), b=np.full((), 1e30, np.float32), c=np.ones((), np.float32)
    ),
    "2**60 zeros": lambda: one("ConstantOfShape", "s", s=longs(1 << 30, 1 << 30)),
    "expanded to 2**60": lambda: one("Expand", "c s", c=weight(1), s=longs(1 << 30, 1 << 30)),
    "tiled to 2**60": lambda: one("Tile", "c s", c=weight(1, 1), s=longs(1 << 30, 1 << 30)),
    "padded to 2**60": lambda: one("Pad", "c s", c=weight(1, 1), s=longs(0, 0, 1 << 30, 1 << 30)),
    "a unit matrix of 2**60": lambda: model(
        [node("ConstantOfShape", "s", "z"), node("EyeLike", "z", "y")],
        {"x": [1]},
        weights={"s": longs(1 << 30, 1 << 30)},
    ),
    "tiled again and again": lambda: doubling("Tile", 50),
    "doubled again and again": lambda: doubling("Concat", 50),
    "a product of large constants": lambda: one("MatMul", "a a", a=weight(1500, 1500)),
    "a depth of infinity": lambda: one("OneHot", "i d v", i=longs(0), d=np.array(np.inf, np.float32), v=weight(2)),
    "two axes where one is expected": lambda: one("CumSum", "x a", a=longs(0, 1)),
    "resize of an axis that is not there": lambda: one("Resize", "x - s", s=weight(1) + 3, axes=[7]),
    "functions of functions": function_bomb,
    "a function that calls itself": recursion,
    "20,000 nodes": long_chain,
    "a loop": lambda: one(
        "Loop", "a b x", a=longs(1 << 60)[0], b=np.array(True), body=helper.make_graph([], "g", [], [])
    ),
    "training": lambda: one("Dropout", "x r t", r=weight(1)[0], t=np.array(True)),
    "a name that is no text": lambda: changed(lambda m: setattr(m.graph.node[1], "name", "\0\n" * 100)),
}

HARMLESS = {"a constant under a large window", "20,000 nodes", "a product of large constants", "a name that is no text"}
"""What is read: unusual, but nothing is taken or computed for it at load."""


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_lie(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.onnx"
    path.write_bytes(HOSTILE[name]().SerializeToString())
    reason = loads(path)
    assert reason or name in HARMLESS
    assert len(reason) < 10_000


@pytest.mark.parametrize("seed", [upscaler, with_function, "external"], ids=str)
def test_damaged_files(seed: Callable[[], onnx.ModelProto] | str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    if callable(seed):
        good = seed().SerializeToString()
    else:
        (tmp_path / "w").write_bytes(weight(2, 2).tobytes())
        made = model([node("Mul", "x w", "y")], {"x": [2, 2]}, weights={"w": weight(2, 2)})
        made.graph.initializer[0].ClearField("raw_data")
        made.graph.initializer[0].data_location = TensorProto.EXTERNAL
        made.graph.initializer[0].external_data.add(key="location", value="w")
        good = made.SerializeToString()
    path.write_bytes(good)
    assert not loads(path)
    read = 0
    for data in mutants(good, COUNT // 3, structure=len(good)):
        path.write_bytes(data)
        read += not loads(path)
    assert read < COUNT // 3


def test_what_is_read_can_be_compiled_or_is_refused(tmp_path: Path) -> None:
    """A damaged network that is still a network runs, or ends in our own error."""
    path = tmp_path / "damaged.onnx"
    good = upscaler().SerializeToString()
    ran = 0
    for data in mutants(good, 100, seed=1, structure=len(good)):
        path.write_bytes(data)
        try:
            loaded = graphsr.load(path)
            run = loaded.compile("reference")
            with np.errstate(all="ignore"):
                run(
                    {
                        name: np.ones([n if isinstance(n, int) else 4 for n in t.shape], t.dtype)
                        for name, t in loaded.inputs.items()
                    }
                )
            ran += 1
        except GraphsrError:
            continue
    assert ran


def test_constants_that_blow_up_are_not_all_computed(tmp_path: Path) -> None:
    """A kilobyte may name many large constants; compiling takes no more than a few of them."""
    nodes = [node("Expand", f"c{i} s", f"e{i}") for i in range(60)]
    nodes += [node("ReduceMax", f"e{i}", f"m{i}", keepdims=0) for i in range(60)]
    nodes += [node("Add", f"m{i} {f't{i - 1}' if i else 'x'}", f"t{i}") for i in range(60)]
    nodes.append(node("Relu", "t59", "y"))
    weights = {f"c{i}": weight(1) + np.float32(i) for i in range(60)}
    made = model(nodes, {"x": [1]}, weights={**weights, "s": longs(10 << 20)})
    path = tmp_path / "large.onnx"
    path.write_bytes(made.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graphsr.load(path).compile("reference")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


def test_folding_keeps_to_max_memory(tmp_path: Path) -> None:
    nodes = [node("Expand", f"c{i} s", f"e{i}") for i in range(8)]
    nodes.append(node("Sum", "x " + " ".join(f"e{i}" for i in range(8)), "y"))
    made = model(nodes, {"x": [1]}, weights={**{f"c{i}": weight(1) for i in range(8)}, "s": longs(1 << 15)})
    path = tmp_path / "folds.onnx"
    path.write_bytes(made.SerializeToString())
    few, all_ = (len(list(graphsr.load(path, max_memory=n).graph.nodes())) for n in (1 << 18, 1 << 30))
    assert few > all_  # some are left as they are
