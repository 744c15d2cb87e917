"""Old forms of operators: onnx's own tests use the newest only, the files of users do not.

Attributes, shapes and operator sets are drawn; the oracle is onnxruntime, whose kernels begin at operator set 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import Array, model, node, weight

from graphsr.importers.onnx_backend import Specialised
from graphsr.importers.onnx_reader import Source
from graphsr.testing import tolerance

ort = pytest.importorskip("onnxruntime")

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21)


@dataclass
class Form:
    """One operator in one form: attributes, and further inputs that are weights."""

    op_type: str
    opset: int
    attributes: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    inputs: str = "x"
    outputs: Sequence[str] = ("y",)


Draw = Callable[[st.DataObject, int, tuple[int, ...]], Form]
FORMS: dict[str, Draw] = {}


def form(function: Draw) -> Draw:
    FORMS[function.__name__] = function
    return function


def longs(values: Sequence[int]) -> Array:
    return np.array(values, np.int64)


def as_attribute_or_input(form: Form, name: str, value: Sequence[int], input_since: int, before: str = "") -> Form:
    """`value` as the attribute `name`, or as an input since some version."""
    if form.opset < input_since:
        form.attributes[name] = list(value)
    else:
        form.weights[name] = longs(value)
        form.inputs += f"{before} {name}"
    return form


@form
def softmax(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    low = -len(shape) if opset >= 11 else 0
    axis = data.draw(st.none() | st.integers(low, len(shape) - 1))
    op_type = data.draw(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]))
    return Form(op_type, opset, {} if axis is None else {"axis": axis})


@form
def clip(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    bounds = {"min": data.draw(st.none() | st.just(-0.5)), "max": data.draw(st.none() | st.just(0.25))}
    given = {name: value for name, value in bounds.items() if value is not None}
    if opset < 11:
        return Form("Clip", opset, given)
    names = [name if name in given else "-" for name in bounds]
    return Form("Clip", opset, {}, {n: np.array(v, np.float32) for n, v in given.items()}, " ".join(["x", *names]))


@form
def slice_(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    far = st.sampled_from([2**31 - 1, 2**63 - 1])
    starts = [data.draw(st.integers(-3, 0)) for _ in axes]
    ends = [data.draw(st.integers(1, 6) | far) for _ in axes]
    if opset < 10:
        return Form("Slice", opset, {"starts": starts, "ends": ends, "axes": axes})
    steps = [data.draw(st.sampled_from([1, 2])) for _ in axes]
    weights = {"starts": longs(starts), "ends": longs(ends), "axes": longs(axes), "steps": longs(steps)}
    return Form("Slice", opset, {}, weights, "x starts ends axes steps")


@form
def pad(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    mode = data.draw(st.sampled_from(["constant", "edge", "reflect"]))
    most = min(shape) - 1 if mode == "reflect" else 2
    pads = [data.draw(st.integers(0, min(most, 2))) for _ in range(2 * len(shape))]
    if opset < 11:
        return Form("Pad", opset, {"mode": mode, "pads": pads, "value": 1.5})
    weights = {"pads": longs(pads), "value": np.array(1.5, np.float32)}
    return Form("Pad", opset, {"mode": mode}, weights, "x pads value")


@form
def split(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    axis = data.draw(st.integers(0, len(shape) - 1))
    first = data.draw(st.integers(0, shape[axis]))
    made = Form("Split", opset, {"axis": axis}, outputs=("y", "z"))
    return as_attribute_or_input(made, "split", [first, shape[axis] - first], 13)


@form
def equal_split(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    made = Form("Split", opset, {"axis": 0}, outputs=("y",))
    if opset >= 18:
        made.attributes["num_outputs"] = 1
    return made


@form
def unsqueeze(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    low = -len(shape) - 2 if opset >= 11 else 0
    first = data.draw(st.integers(low, -2 if low else 1))
    return as_attribute_or_input(Form("Unsqueeze", opset), "axes", [first, first + 1], 13)


@form
def reduce(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    kinds = ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    kind = data.draw(st.sampled_from(kinds))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    made = Form(f"Reduce{kind}", opset, {"keepdims": data.draw(st.sampled_from([0, 1]))})
    since = 13 if kind == "Sum" else 18
    if opset >= since:
        made.attributes["noop_with_empty_axes"] = data.draw(st.sampled_from([0, 1]))
    return as_attribute_or_input(made, "axes", axes, since)


@form
def batch_norm(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    c = shape[1]
    weights = {name: weight(c) for name in ("scale", "bias", "mean")} | {"var": weight(c) ** 2}
    return Form("BatchNormalization", opset, {"epsilon": 1e-3}, weights, "x scale bias mean var")


@form
def group_norm(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    """Scale and bias per group before operator set 21, per channel since."""
    opset = max(opset, 18)
    groups = data.draw(st.sampled_from([g for g in range(1, shape[1] + 1) if shape[1] % g == 0]))
    size = groups if opset < 21 else shape[1]
    weights = {"scale": weight(size), "bias": weight(size)}
    return Form("GroupNormalization", opset, {"num_groups": groups, "epsilon": 1e-3}, weights, "x scale bias")


@form
def prelu(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    slope = data.draw(st.sampled_from([(1,), (shape[1], 1, 1), shape[-1:]]))
    return Form("PRelu", opset, {}, {"slope": weight(*slope)}, "x slope")


@form
def dropout(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    return Form("Dropout", opset, {"ratio": 0.5} if opset < 12 else {})


@form
def upsample(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    opset = min(opset, 9)
    scales = [1.0, 1.0, *(data.draw(st.sampled_from([1.0, 2.0, 3.0])) for _ in (0, 1))]
    mode = data.draw(st.sampled_from(["nearest", "linear"]))
    if opset < 9:
        return Form("Upsample", opset, {"mode": mode, "scales": scales})
    return Form("Upsample", opset, {"mode": mode}, {"scales": np.array(scales, np.float32)}, "x scales")


@form
def resize(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    opset = max(opset, 10)
    scales = [1.0, 1.0, *(data.draw(st.sampled_from([1.0, 2.0, 3.0])) for _ in (0, 1))]
    weights = {"scales": np.array(scales, np.float32)}
    if opset == 10:
        return Form("Resize", opset, {"mode": data.draw(st.sampled_from(["nearest", "linear"]))}, weights, "x scales")
    where = data.draw(st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]))
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    attributes = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        attributes["nearest_mode"] = data.draw(st.sampled_from(["floor", "ceil", "round_prefer_floor"]))
    return Form("Resize", opset, attributes, weights | {"roi": np.zeros(0, np.float32)}, "x roi scales")


@form
def pool(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    op_type = data.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    attributes: dict[str, Any] = {
        "kernel_shape": [2, 3],
        "strides": [data.draw(st.integers(1, 2)) for _ in (0, 1)],
        "pads": [data.draw(st.integers(0, 1)) for _ in range(4)],
    }
    if op_type == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.sampled_from([0, 1]))
    return Form(op_type, opset, attributes)


@form
def flatten(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    return Form("Flatten", opset, {"axis": data.draw(st.integers(0, len(shape)))})


@form
def gemm(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> Form:
    transposed = data.draw(st.sampled_from([0, 1]))
    k = int(np.prod(shape[1:]))
    weights = {"b": weight(5, k) if transposed else weight(k, 5), "c": weight(5)}
    return Form("Gemm", opset, {"transB": transposed, "alpha": 0.5, "beta": 2.0}, weights, "flat b c")


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_agrees_with_onnxruntime(name: str, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(3, 5), st.integers(3, 5)))
    drawn = FORMS[name](data, data.draw(st.sampled_from(OPSETS)), shape)
    nodes = [node(drawn.op_type, drawn.inputs, " ".join(drawn.outputs), **drawn.attributes)]
    if "flat" in drawn.inputs:
        nodes.insert(0, node("Flatten", "x", "flat"))
    made = model(nodes, {"x": shape}, drawn.outputs, drawn.weights, drawn.opset)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    x = weight(*shape)
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})
    got = Specialised(Source(made), "reference")({"x": x})
    terms = x.size if drawn.op_type == "Gemm" or drawn.op_type.startswith("Reduce") else 16  # of a cubic kernel
    for expected, array in zip(want, got.values(), strict=True):
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        magnitude = max(1.0, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(array, expected, rtol=0, atol=tolerance("float32", terms, magnitude))
