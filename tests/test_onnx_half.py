"""ONNX models in float16 and bfloat16: held and computed in float32, rounded where the file casts to float16."""

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
from graphsr.importers.onnx_reader import Source, narrow_floats

HALF, BRAIN = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
KINDS = pytest.mark.parametrize("kind", [HALF, BRAIN], ids=["float16", "bfloat16"])


def narrow(array: Array, kind: int) -> Array:
    """The nearest numbers of the type."""
    rounded: Array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    return rounded


def network(kind: int) -> onnx.ModelProto:
    """A convolution in a type, with this type at both ends."""
    weights = {"w": narrow(weight(4, 3, 3, 3), kind), "b": narrow(weight(4), kind)}
    nodes = [node("Conv", "x w b", "a", "conv", pads=[1, 1, 1, 1]), node("Relu", "a", "y", "act")]
    made = model(nodes, {"x": [1, 3, "H", "W"]}, weights=weights, kinds={"x": kind})
    made.graph.output[0].type.tensor_type.elem_type = kind
    return made


@KINDS
def test_a_narrow_network_is_loaded_in_float32(kind: int, tmp_path: Path) -> None:
    onnx.save(network(kind), tmp_path / "half.onnx")
    loaded = graphsr.load(tmp_path / "half.onnx")
    assert "computed in float32" in loaded.inferred[onnx.TensorProto.DataType.Name(kind).lower()]
    assert {t.dtype for t in (*loaded.inputs.values(), *loaded.outputs.values())} == {"float32"}
    weights = [node.value for node in loaded.graph.nodes() if node.is_const]
    np.testing.assert_array_equal(weights[0], narrow(weight(4, 3, 3, 3), kind).astype(np.float32))


@KINDS
def test_the_interface_of_onnx_takes_and_gives_what_is_declared(kind: int) -> None:
    x = narrow(weight(1, 3, 4, 5), kind)
    prepared = prepare(network(kind), backend="reference")
    (y,) = prepared.run([x])
    assert y.dtype == x.dtype
    assert f"{x.dtype.name}: held and computed in float32" in prepared.explain()
    wide = ReferenceBackend().compile(build_graph(Source(network(kind)), {}, {}))({"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(y, narrow(wide, kind))


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


@KINDS
def test_narrow_types_are_found_wherever_they_are_declared(kind: int) -> None:
    plain = model([node("Relu", "x", "y")], {"x": [3]}, weights={"w": weight(2)})
    assert narrow_floats(plain) == set()
    name = {onnx.TensorProto.DataType.Name(kind).lower()}
    assert narrow_floats(model([node("Cast", "x", "y", to=kind)], {"x": [3]})) == name
    assert narrow_floats(model([node("Cast", "x", "y", to=onnx.TensorProto.DataType.Name(kind))], {"x": [3]})) == name
    assert narrow_floats(model([node("Relu", "x", "y")], {"x": [3]}, kinds={"x": kind})) == name
    assert narrow_floats(network(kind)) == name


@KINDS
@settings(max_examples=30, deadline=None)
@given(bits=hnp.arrays(np.uint16, 6), as_ints=st.booleans())
def test_every_number_is_read(kind: int, bits: Array, as_ints: bool) -> None:
    """From raw bytes and from a field, infinities and NaN among them."""
    values = bits.view(onnx.helper.tensor_dtype_to_np_dtype(kind))
    tensor = onnx.numpy_helper.from_array(values, "w")
    if as_ints:
        tensor = onnx.TensorProto(name="w", data_type=kind, dims=bits.shape, int32_data=bits.tolist())
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(Source(model([], {})).array(tensor, "w"), values.astype(np.float32))


def test_rounding_to_bfloat16_is_refused() -> None:
    cast = model([node("Cast", "x", "y", "down", to=BRAIN)], {"x": [3]})
    like = model([node("CastLike", "x w", "y", "down")], {"x": [3]}, weights={"w": narrow(weight(1), BRAIN)})
    for made in (cast, like):
        with pytest.raises(ModelError, match="down: rounding to bfloat16 is not supported"):
            build_graph(Source(made), {}, {})


@KINDS
def test_a_value_given_for_a_narrow_input_is_widened(kind: int) -> None:
    made = model([node("Add", "x w", "y")], {"x": [3], "w": [3]}, kinds={"x": kind, "w": kind})
    graph = build_graph(Source(made), {}, {"w": narrow(np.ones(3, np.float32), kind)})
    assert graph.output_types()["y"].dtype == "float32"
