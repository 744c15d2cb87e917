"""Networks written as ONNX files: onnxruntime, and our own importer, give the same answers from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.backends.reference import ReferenceBackend
from graphsr.dim import Dim
from graphsr.errors import ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.models import edsr, espcn, mdsr, srresnet, wdsr_a, wdsr_b
from graphsr.ops import Add, Dropout, PadNd, Relu, Reshape, TopK
from graphsr.passes import DEFAULT, Pass, run_passes
from graphsr.testing import CHECKS, GraphCase, check_backend, graphs, networks, tolerance
from graphsr.testing.check import assert_agrees

onnx = pytest.importorskip("onnx", reason="writes ONNX files")
pytest.importorskip("onnxruntime", reason="the oracle")

from onnx_oracle import OnnxRuntime, session  # noqa: E402

from graphsr.importers.onnx_export import export, onnx_model  # noqa: E402
from graphsr.importers.onnx_import import build_graph  # noqa: E402
from graphsr.importers.onnx_reader import Source  # noqa: E402

MODELS: dict[str, Callable[[], Model]] = {
    "edsr": partial(edsr, scale=2, blocks=1, features=8, res_scale=0.1),
    "mdsr": partial(mdsr, scale=3, blocks=1, features=8),
    "espcn": partial(espcn, scale=3, features=(8, 4)),
    "srresnet": partial(srresnet, scale=4, blocks=1, features=8),
    "wdsr_a": partial(wdsr_a, scale=4, blocks=2, features=4, expanded=12),
    "wdsr_b": partial(wdsr_b, scale=2, blocks=1, features=8),
    "embedded": partial(graphsr.load, "wdsr-x2"),
}
PASSES = pytest.mark.parametrize("passes", [(), DEFAULT], ids=["before the passes", "after the passes"])
ORACLE = {"graphs_agree", "wide_layers_agree", "networks_agree", "new_sizes_need_no_recompiling"}
"""Of the suite for backends; single layers have a file of their own."""


@PASSES
@pytest.mark.parametrize("name", MODELS)
def test_one_file_serves_every_size(name: str, passes: tuple[Pass, ...], tmp_path: Path) -> None:
    model, file = MODELS[name](), tmp_path / "model.onnx"
    graph = run_passes(model.graph, passes)
    export(graph, file)
    written = session(onnx.load(file))
    (given_,), (result,) = graph.inputs, graph.outputs
    truth, again = ReferenceBackend("float64").compile(model.graph), graphsr.load(file).compile("reference")
    for height, width in [(7, 9), (12, 5)]:
        shape = given_.type.substitute({"N": 1, "H": height, "W": width}).dims
        x = {given_.name: np.linspace(0, model.input_range, int(np.prod(shape)), dtype=np.float32).reshape(shape)}
        want = truth(x)[result]
        bound = tolerance("float32", longest_sum(graph), np.abs(want).max() / longest_sum(graph))
        np.testing.assert_allclose(written.run([result], x)[0], want, rtol=0, atol=bound)
        np.testing.assert_allclose(again(x)[result], want, rtol=0, atol=bound)


def longest_sum(graph: Graph) -> int:
    weights = (node.inputs[1].type.dims for node in graph.nodes() if len(node.inputs) > 1 and node.inputs[1].is_const)
    return max(int(np.prod(shape[1:])) for shape in weights if len(shape) == 4)


@PASSES
@pytest.mark.parametrize(
    "check", [check for check in CHECKS if check.__name__ in ORACLE], ids=lambda check: check.__name__
)
def test_onnxruntime_is_an_oracle(check: Callable[..., None], passes: tuple[Pass, ...]) -> None:
    check_backend(OnnxRuntime(passes), examples=15, checks=[check])


@PASSES
@settings(max_examples=25, deadline=None)
@given(case=st.one_of(graphs(), networks()))
def test_graphs_are_read_back(case: GraphCase, passes: tuple[Pass, ...]) -> None:
    model = onnx_model(run_passes(case.graph, passes))
    assert_agrees(ReferenceBackend().compile(build_graph(Source(model), {}, {})), case)


@settings(max_examples=25, deadline=None)
@given(case=graphs())
def test_the_same_graph_gives_the_same_bytes(case: GraphCase) -> None:
    once, again = (onnx_model(case.graph).SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


def test_the_same_model_gives_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    model = graphsr.load("wdsr-x2")
    for name in ("a.onnx", "b.onnx"):
        graphsr.save(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


@pytest.mark.parametrize("name", MODELS)
def test_names_sizes_and_operators(name: str) -> None:
    """Initialisers, operators and open sizes are called as in the graph; only ONNX's own operators are used."""
    graph = MODELS[name]().graph
    model = onnx_model(graph)
    constants = {node.name for node in graph.nodes() if node.is_const}
    assert {tensor.name for tensor in model.graph.initializer} >= constants
    called = {node.name for node in graph.nodes() if node.inputs}
    assert {node.name for node in model.graph.node} >= called
    values = [*model.graph.input, *model.graph.output]
    types = [*graph.input_types().values(), *graph.output_types().values()]
    for value, type_ in zip(values, types, strict=True):
        dims = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        assert dims == tuple(n if isinstance(n, int) else str(n) for n in type_.shape)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert {node.domain for node in model.graph.node} == {""}
    assert model.producer_name == "graphsr"


N, H = Dim.symbol("N"), Dim.symbol("H")
X = Node.input("x", TensorType("float32", (N, 2, H, 4)))


def test_an_output_is_called_as_the_graph_calls_it() -> None:
    """It needs no copy; an inner value of that name gives way, and of two names for a value one is a copy."""
    inner = Node(Relu(), (X,), "y")
    last = Node(Add(), (inner, X), "z")
    model = onnx_model(Graph((X,), {"y": last, "again": last}))
    assert [(node.op_type, node.name, list(node.output)) for node in model.graph.node] == [
        ("Relu", "y", ["y_2"]),
        ("Add", "z", ["y"]),
        ("Identity", "again", ["again"]),
    ]
    x = np.array([-1, 1] * 8, np.float32).reshape(1, 2, 2, 4)
    for y in session(model).run(None, {"x": x}):
        np.testing.assert_array_equal(y, np.maximum(x, 0) + x)


def test_inputs_and_constants_may_be_outputs() -> None:
    constant = Node.const(np.ones(3, np.float32), "c")
    model = onnx_model(Graph((X,), {"copy": X, "c": constant, "d": constant}))
    x = np.zeros((1, 2, 3, 4), np.float32)
    copy, c, d = session(model).run(None, {"x": x})
    assert copy.shape == x.shape
    np.testing.assert_array_equal(c, d)


def test_an_output_with_the_name_of_another_input_is_refused() -> None:
    with pytest.raises(ModelError, match="'x'"):
        onnx_model(Graph((X,), {"x": Node(Relu(), (X,))}))


def test_all_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With the reason; no file is left."""
    dropped = Node(Dropout(0.5), (X,), "drop", "layer 7")
    wrapped = Node(PadNd((0, 0, 1, 0, 0, 0, 1, 0), mode="wrap"), (dropped,), "round")
    with pytest.raises(ModelError) as caught:
        export(Graph((X,), {"y": wrapped}), tmp_path / "model.onnx")
    message = str(caught.value)
    assert "dropout 'drop' (layer 7): its mask" in message
    assert "pad_nd 'round': padding with mode 'wrap' needs known sizes" in message
    assert not list(tmp_path.iterdir())


def test_what_onnx_has_not_for_a_dtype_is_refused(tmp_path: Path) -> None:
    x = Node.input("x", TensorType("bool", (4,)))
    with pytest.raises(ModelError, match="TopK"):
        export(Graph((x,), {"y": Node(TopK(1), (x,), "most")}), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_another_dtype_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="float32"):
        graphsr.save(graphsr.load("wdsr-x2"), tmp_path / "model.onnx", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_sizes_are_computed_once() -> None:
    """Whatever needs a size reads the same value of the file."""
    flat = Node(Reshape((H * 2, N, 4)), (X,))
    back = Node(Reshape((N, H, 2, 4)), (Node(Reshape((4, N, 2 * H)), (flat,)),))
    made = onnx_model(Graph((X,), {"y": back}))
    assert [node.op_type for node in made.graph.node].count("Shape") == 2
    x = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(session(made).run(None, {"x": x})[0], x.reshape(2, 3, 2, 4))
