"""ONNX models as graphs: open sizes, constants in every form, functions, external data, complaints all at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import Array, Shape, model, node, upscaler, weight, with_function

import graphsr
from graphsr.errors import ModelError
from graphsr.importers.onnx_backend import GraphsrBackend, Specialised, backend_class
from graphsr.importers.onnx_call import OPERATORS
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source
from graphsr.ops import Conv2d, ConvNd
from graphsr.passes import fold_constants, run_passes


def save(made: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def refusal(made: onnx.ModelProto, folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        graphsr.load(save(made, folder), **options)
    return str(caught.value)


def run(made: onnx.ModelProto, **inputs: Array) -> dict[str, Array]:
    return Specialised(Source(made), "reference")(inputs)


def test_one_graph_for_all_sizes(tmp_path: Path) -> None:
    """Shape code is followed through: no size is baked in, nothing of it runs."""
    loaded = graphsr.load(save(upscaler(), tmp_path))
    assert loaded.scale == 2
    assert str(loaded.outputs["y"]) == "float32[N, 3, 2*H, 2*W]"
    assert not {"shape_of", "gather", "concat"} & {n.op.name for n in loaded.graph.nodes()}
    executable = loaded.compile("reference")
    for shape in [(1, 3, 4, 5), (2, 3, 7, 3)]:
        x = weight(*shape)
        conv = Conv2d(padding=(1, 1, 1, 1)).forward(x, weight(12, 3, 3, 3), weight(12))
        n, _, h, w = shape
        blocks = np.maximum(conv, 0).reshape(n, 3, 2, 2, h, w).transpose(0, 1, 4, 2, 5, 3)
        np.testing.assert_array_equal(executable({"x": x})["y"], blocks.reshape(n, 3, 2 * h, 2 * w))


def test_reshape_transpose_reshape_is_a_pixel_shuffle(tmp_path: Path) -> None:
    names = [n.op.name for n in graphsr.load(save(upscaler(), tmp_path)).graph.nodes()]
    assert "depth_to_space" in names
    assert "transpose" not in names


def test_functions_are_inlined_with_their_attributes() -> None:
    x = weight(3, 4)
    a = np.where(x > 0, x, np.float32(0.5) * x) + x
    np.testing.assert_array_equal(run(with_function(), x=x)["y"], np.where(a > 0, a, np.float32(0.25) * a) + a)


@pytest.mark.parametrize(
    ("attribute", "value", "dtype"),
    [
        ("value", numpy_helper.from_array(np.array([2.5], np.float32)), "float32"),
        ("value_float", 2.5, "float32"),
        ("value_floats", [2.5, 1.0], "float32"),
        ("value_int", 7, "int64"),
        ("value_ints", [7, 8], "int64"),
    ],
)
def test_constants_of_every_form(attribute: str, value: Any, dtype: str) -> None:
    made = model([node("Constant", "", "y", **{attribute: value})], {"x": [1]})
    got = run(made, x=weight(1))["y"]
    assert got.dtype == dtype
    want = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value, dtype)
    np.testing.assert_array_equal(got, want)


def test_everything_that_is_not_supported_is_listed_at_once(tmp_path: Path) -> None:
    nodes = [
        node("NonMaxSuppression", "x x", "a", "boxes"),
        node("Relu", "x", "b", "fine"),
        node("Relu", "b", "c", "odd", slope=1.0),
        node("Frobnicate", "c", "d", "foreign", domain="com.example"),
        node("Resize", "x - r", "e", "crop", mode="linear", coordinate_transformation_mode="invented"),
        node("Add", "a e", "y", "depends"),
    ]
    text = refusal(model(nodes, {"x": [1, 1, 4, 4]}, weights={"r": np.array([1, 1, 2, 2], np.float32)}), tmp_path)
    for expected in ("boxes", "odd", "slope", "foreign", "com.example", "crop", "invented"):
        assert expected in text
    assert "fine" not in text
    assert "depends" not in text  # only for want of its inputs


def test_values_that_must_be_known_are_asked_for_by_name(tmp_path: Path) -> None:
    made = model([node("Reshape", "x s", "y", "late")], {"x": ["N", 4], "s": [2]}, kinds={"s": TensorProto.INT64})
    text = refusal(made, tmp_path)
    assert "values={'s': array}" in text
    loaded = graphsr.load(tmp_path / "model.onnx", values={"s": np.array([2, -1])})
    assert list(loaded.inputs) == ["x"]
    x = weight(3, 4)
    np.testing.assert_array_equal(loaded.compile("reference")({"x": x})["y"], x.reshape(2, -1))


def test_specialised_on_values_and_built_again_when_they_change() -> None:
    made = model([node("Reshape", "x s", "y", "late")], {"x": ["N", 4], "s": [2]}, kinds={"s": TensorProto.INT64})
    rep = GraphsrBackend.prepare(made)
    x = weight(3, 4)
    for shape in ([2, 6], [6, 2], [2, 6]):
        (y,) = rep.run([x, np.array(shape)])
        assert y.shape == tuple(shape)
    assert "specialised on the value of s" in rep.explain()


def test_shapes_can_be_fixed(tmp_path: Path) -> None:
    made = model(
        [node("Conv", "x w", "y", "same", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"x": [1, 1, "H", "W"]},
        weights={"w": weight(1, 1, 3, 3)},
    )
    assert "shapes=" in refusal(made, tmp_path)
    loaded = graphsr.load(tmp_path / "model.onnx", shapes={"x": (1, 1, 5, 6)})
    assert loaded.outputs["y"].shape == (1, 1, 3, 3)
    with pytest.raises(ModelError, match="does not fit"):
        graphsr.load(tmp_path / "model.onnx", shapes={"x": (1, 2, 5, 6)})


def test_volumes_are_convolved(tmp_path: Path) -> None:
    made = model([node("Conv", "x w", "y")], {"x": [1, 2, "D", 5, 6]}, weights={"w": weight(3, 2, 2, 3, 3)})
    loaded = graphsr.load(save(made, tmp_path))
    assert any(isinstance(n.op, ConvNd) for n in loaded.graph.nodes())
    assert str(loaded.outputs["y"]) == f"float32[1, 3, {loaded.inputs['x'].shape[2]}-1, 3, 4]"


def test_weights_of_one_value_are_constants_before_layers_are_chosen() -> None:
    """The real networks of onnx's suite have weights from ConstantOfShape, too large to be made while they are read."""
    nodes = [node("ConstantOfShape", "s", "w"), node("Conv", "x w", "y")]
    made = model(nodes, {"x": [1, 256, "H", "W"]}, weights={"s": np.array([256, 256, 3, 3])})
    graph = build_graph(Source(made), {}, {})
    (before,) = (n.inputs[1] for n in graph.nodes() if isinstance(n.op, Conv2d))
    (after,) = (n.inputs[1] for n in run_passes(graph, (fold_constants,)).nodes() if isinstance(n.op, Conv2d))
    assert not before.is_const
    assert after.is_const
    np.testing.assert_array_equal(after.value, np.zeros((256, 256, 3, 3), np.float32))


def branches(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """y = x·w where a condition holds, else −x; the condition is computed by the nodes given."""
    yes, no = (onnx.helper.make_empty_tensor_value_info(name) for name in ("yes", "no"))
    w = numpy_helper.from_array(weight(4), "w")
    then = onnx.helper.make_graph([node("Mul", "x w", "yes")], "then", [], [yes], [w])
    other = onnx.helper.make_graph([node("Neg", "x", "no")], "else", [], [no])
    nodes = (*nodes, node("If", "c", "y", "choice", then_branch=then, else_branch=other))
    given: dict[str, Shape] = {"x": ["N", 4], **({} if len(nodes) > 1 else {"c": []})}
    one = {"one": np.array([1]), "first": np.array([0])}
    return model(nodes, given, weights=one, kinds={"c": TensorProto.BOOL})


def test_a_branch_is_taken_by_a_value_that_the_network_is_built_for(tmp_path: Path) -> None:
    """A network for each value."""
    made, x = branches(), weight(3, 4)
    assert "values={'c': array}" in refusal(made, tmp_path)
    rep = GraphsrBackend.prepare(made)
    for condition in (True, False, True):
        (y,) = rep.run([x, np.array(condition)])
        np.testing.assert_array_equal(y, x * weight(4) if condition else -x)
        assert "specialised on the value of c" in rep.explain()


def test_a_branch_is_taken_by_a_size() -> None:
    code = [node("Shape", "x", "s"), node("Gather", "s first", "n"), node("Equal", "n one", "c")]
    specialised = Specialised(Source(branches(*code)), "reference")
    for n in (1, 2):
        x = weight(n, 4)
        np.testing.assert_array_equal(specialised({"x": x})["y"], x * weight(4) if n == 1 else -x)
    assert "shapes of the inputs" in specialised.explain()


def test_a_malformed_branch_is_refused(tmp_path: Path) -> None:
    made = branches()
    (branch,) = (a.g for a in made.graph.node[0].attribute if a.name == "then_branch")
    branch.node[0].op_type = "Frobnicate"
    assert "Frobnicate choice/#0" in refusal(made, tmp_path, values={"c": np.array(True)})
    branch.output.add(name="more")
    assert "1 outputs expected" in refusal(made, tmp_path, values={"c": np.array(True)})
    assert "single bool" in refusal(made, tmp_path, values={"c": np.array([True, False])})


def test_run_node() -> None:
    x = weight(2, 3)
    (y,) = GraphsrBackend.run_node(node("Relu", "x", "y"), [x])
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_only_the_cpu_is_a_device() -> None:
    assert backend_class("reference").supports_device("CPU")
    assert not GraphsrBackend.supports_device("CUDA:0")
    with pytest.raises(ModelError, match="CUDA"):
        GraphsrBackend.prepare(upscaler(), "CUDA")


def test_initializers_that_are_inputs_too_are_weights() -> None:
    """IR version 3 lists them twice."""
    made = model([node("Mul", "x w", "y")], {"x": [2], "w": [2]}, weights={"w": weight(2)})
    assert list(build_graph(Source(made), {}, {}).input_types()) == ["x"]


def test_onnx_is_imported_for_onnx_files_only(tmp_path: Path) -> None:
    code = "import graphsr, sys; graphsr.load('wdsr-x2'); print('onnx' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_operators_are_operators() -> None:
    """Every name in the table is one that onnx knows, and is told which form of it is used."""
    schemas = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(OPERATORS) <= schemas


# External data


def external(folder: Path, location: str = "model.onnx.data", **entries: str) -> onnx.ModelProto:
    """y = x·w with w in another file, behind 8 other bytes."""
    (folder / "model.onnx.data").write_bytes(bytes(8) + weight(2, 2).tobytes())
    made = model([node("Mul", "x w", "y")], {"x": [2, 2]}, weights={"w": weight(2, 2)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location, "offset": "8", "length": "16"} | entries).items():
        tensor.external_data.add(key=key, value=value)
    return made


def test_external_data_is_read_beside_the_model(tmp_path: Path) -> None:
    loaded = graphsr.load(save(external(tmp_path), tmp_path))
    x = weight(2, 2)
    np.testing.assert_array_equal(loaded.compile("reference")({"x": x})["y"], x * x)


@pytest.mark.parametrize(
    "location",
    ["../model.onnx.data", "a/../../secret", "/etc/passwd", "", "C:\\x", "\\\\host\\x", "..\\x", "absent", ".", "a\0b"],
)
def test_external_data_outside_is_refused(location: str, tmp_path: Path) -> None:
    assert "external data" in refusal(external(tmp_path, location), tmp_path)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "12"},
        {"offset": "-1"},
        {"length": "15"},
        {"length": str(1 << 62)},
        {"offset": "1e3"},
        {"__class__": "x"},
    ],
    ids=str,
)
def test_external_data_that_does_not_fit_is_refused(entries: dict[str, str], tmp_path: Path) -> None:
    refusal(external(tmp_path, **entries), tmp_path)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "fifo", "folder symlink"])
def test_external_data_behind_links_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(24))
    location = "linked"
    made = external(folder, "linked/secret" if kind == "folder symlink" else location)
    match kind:
        case "symlink":
            (folder / location).symlink_to(tmp_path / "secret")
        case "hard link":
            (folder / location).hardlink_to(tmp_path / "secret")
        case "folder":
            (folder / location).mkdir()
        case "fifo":
            os.mkfifo(folder / location)
        case _:
            (folder / location).symlink_to(tmp_path)
    assert "external data" in refusal(made, folder)


def test_external_data_of_a_model_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="one file"):
        build_graph(Source(external(tmp_path)), {}, {})


def test_memory_is_bounded(tmp_path: Path) -> None:
    assert "max_memory" in refusal(upscaler(), tmp_path, max_memory=64)


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    assert "options are" in refusal(upscaler(), tmp_path, res_scale=1.0)
