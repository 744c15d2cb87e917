"""ONNX models in float16: held and computed in float32, rounded where the file casts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="makes ONNX files")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx_models import Array, model, node, weight

import graphsr
from graphsr.backends.reference import ReferenceBackend
from graphsr.errors import ModelError
from graphsr.importers.onnx_backend import Specialised, prepare
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source, holds_half

HALF = onnx.TensorProto.FLOAT16


def half_network() -> onnx.ModelProto:
    """A convolution in float16, with float16 at both ends."""
    weights = {"w": weight(4, 3, 3, 3).astype(np.float16), "b": weight(4).astype(np.float16)}
    nodes = [node("Conv", "x w b", "a", "conv", pads=[1, 1, 1, 1]), node("Relu", "a", "y", "act")]
    made = model(nodes, {"x": [1, 3, "H", "W"]}, weights=weights, kinds={"x": HALF})
    made.graph.output[0].type.tensor_type.elem_type = HALF
    return made


def test_a_network_in_float16_is_loaded_in_float32(tmp_path: Path) -> None:
    onnx.save(half_network(), tmp_path / "half.onnx")
    loaded = graphsr.load(tmp_path / "half.onnx")
    assert "computed in float32" in loaded.inferred["float16"]
    assert {t.dtype for t in (*loaded.inputs.values(), *loaded.outputs.values())} == {"float32"}
    weights = [node.value for node in loaded.graph.nodes() if node.is_const]
    np.testing.assert_array_equal(weights[0], weight(4, 3, 3, 3).astype(np.float16).astype(np.float32))


def test_the_interface_of_onnx_takes_and_gives_float16() -> None:
    x = weight(1, 3, 4, 5).astype(np.float16)
    prepared = prepare(half_network(), backend="reference")
    (y,) = prepared.run([x])
    assert y.dtype == np.float16
    assert "float16: held and computed in float32" in prepared.explain()
    wide = ReferenceBackend().compile(build_graph(Source(half_network()), {}, {}))({"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(y, wide.astype(np.float16))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, 5, elements=st.floats(width=32)))
def test_a_cast_to_float16_rounds(x: Array) -> None:
    """In a float32 model too: the rounding is kept, with its overflow and its NaN."""
    casts = [node("Cast", "x", "h", "down", to=HALF), node("Cast", "h", "y", "up", to=onnx.TensorProto.FLOAT)]
    (y,) = Specialised(Source(model(casts, {"x": [5]})), "reference")({"x": x}).values()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float16).astype(np.float32))


def test_cast_like_rounds_where_the_type_is_known() -> None:
    x = weight(3)
    like = node("CastLike", "x w", "y", "like")
    made = model([like], {"x": [3]}, weights={"w": np.zeros(1, np.float16)})
    (y,) = Specialised(Source(made), "reference")({"x": x}).values()
    np.testing.assert_array_equal(y, x.astype(np.float16).astype(np.float32))
    computed = model([node("Neg", "w", "v"), node("CastLike", "x v", "y", "like")], {"x": [3]}, weights={"w": x})
    computed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(x.astype(np.float16), "w"))
    with pytest.raises(ModelError, match=r"CastLike like: .*use Cast"):
        build_graph(Source(computed), {}, {})


def test_float16_is_found_wherever_it_is_declared() -> None:
    plain = model([node("Relu", "x", "y")], {"x": [3]}, weights={"w": weight(2)})
    assert not holds_half(plain)
    assert holds_half(model([node("Cast", "x", "y", to=HALF)], {"x": [3]}))
    assert holds_half(model([node("Relu", "x", "y")], {"x": [3]}, kinds={"x": HALF}))
    assert holds_half(half_network())


def test_a_value_given_for_a_float16_input_is_widened() -> None:
    made = model([node("Add", "x w", "y")], {"x": [3], "w": [3]}, kinds={"x": HALF, "w": HALF})
    graph = build_graph(Source(made), {}, {"w": np.ones(3, np.float16)})
    assert graph.output_types()["y"].dtype == "float32"
