"""What the passes make of layers over any number of axes: one node, which every kind of file can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from llvm_layers import several
from test_layers_nd import small, with_epilogue

import graphsr
from graphsr.backends.reference import ReferenceBackend
from graphsr.errors import ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.ops import BatchNorm, ConvNd, ConvTransposeNd, Fused, Relu
from graphsr.passes import DEFAULT, run_passes
from graphsr.testing import GraphCase
from graphsr.testing.check import assert_agrees

VOLUME = Node.input("x", TensorType("float32", (1, 2, 3, 4, 5)))
cases = given(with_epilogue(small()))


def layers_left(graph: Graph) -> list[str]:
    """Names of the ops that compute, a fused one by its base."""
    ops = (node.op.base if isinstance(node.op, Fused) else node.op for node in graph.nodes() if node.inputs)
    return [op.name for op in ops]


@several
@cases
def test_one_layer_is_left(case: GraphCase) -> None:
    assert layers_left(run_passes(case.graph, DEFAULT)) in (["conv_nd"], ["conv_transpose_nd"])


@pytest.mark.parametrize("op", [ConvNd, ConvTransposeNd])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_normalisation_in_front_is_folded(
    op: type[ConvNd] | type[ConvTransposeNd], padding: int, shift: int, groups: int
) -> None:
    """But for a shift, which the zeros around the input do not have, nor those between its elements."""
    constants = np.array([[2, 3], [0, shift], [shift, 0], [1, 4]], np.float32)  # scale, bias, mean, variance
    norm = Node(BatchNorm(0.0), (VOLUME, *map(Node.const, constants)))
    weight = Node.const(np.linspace(-1, 1, 2 * 2 // groups * 8, dtype=np.float32).reshape(2, 2 // groups, 2, 2, 2))
    y = Node(op((1,) * 3, (padding,) * 6, (1,) * 3, groups), (norm, weight), "layer")
    graph = Graph((VOLUME,), {"y": y})
    after = run_passes(graph, DEFAULT)
    folds = not shift or (op is ConvNd and not padding)
    assert layers_left(after) == ([] if folds else ["batch_norm"]) + [y.op.name]
    x = np.linspace(-2, 3, 120, dtype=np.float32).reshape(VOLUME.type.dims)
    assert_agrees(ReferenceBackend().compile(after), GraphCase(graph, {"x": x}))


@several
@cases
def test_fused_layers_are_written_for_onnx(case: GraphCase) -> None:
    pytest.importorskip("onnx", reason="writes ONNX files")
    from graphsr.importers.onnx_export import onnx_model
    from graphsr.importers.onnx_import import build_graph
    from graphsr.importers.onnx_reader import Source

    written = onnx_model(run_passes(case.graph, DEFAULT))
    assert_agrees(ReferenceBackend().compile(build_graph(Source(written), {}, {})), case)


def test_fused_layers_are_saved_and_loaded(tmp_path: Path) -> None:
    """As our own file. darknet has no layers of volumes: they are refused by their names, fused or not."""
    weight = Node.const(np.linspace(-1, 1, 54, dtype=np.float32).reshape(1, 2, 3, 3, 3), "weight")
    conv = Node(ConvNd((1,) * 3, (1,) * 6, (1,) * 3), (VOLUME, weight), "layer")
    graph = Graph((VOLUME,), {"y": Node(Relu(), (conv,), "activation")})
    fused = run_passes(graph, DEFAULT)
    assert isinstance(fused.outputs["y"].op, Fused)
    for written in (graph, fused):
        model = Model(written, "volumes", 1)
        graphsr.save(model, tmp_path / "net.safetensors")
        assert str(graphsr.load(tmp_path / "net.safetensors").graph) == str(written)
        with pytest.raises(ModelError, match="layer"):
            graphsr.save(model, tmp_path / "net.cfg")
