"""Products with a known matrix become dense layers, with the same bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graphsr.backends.reference import ReferenceBackend
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Add, Dense, Fused, MatMul, Relu
from graphsr.passes import DEFAULT, run_passes
from graphsr.passes.fuse_dense import fuse_dense


def values(shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Graph, Array, bool]:
    """act(x·W + c), an array for x, and whether all of it is one layer: not with a c that differs from row to row, or
    where the product is read twice."""
    x = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4).flatmap(values))
    weight = draw(values((x.shape[-1], draw(st.integers(1, 4)))))
    given_ = Node.input("x", TensorType("float32", x.shape))
    product = Node(MatMul(), (given_, Node.const(weight)), "product", "file: product")
    outputs, rank = weight.shape[1], product.type.rank
    row = [(1,) * k + (n,) for k in range(rank) for n in {1, outputs}]
    column = [(n, 1) for n in product.type.dims[-2:-1] if n > 1]
    shape = draw(st.sampled_from([(), *row, *column]))
    bias = Node.const(draw(values(shape)))
    total = Node(Add(), (product, bias) if draw(st.booleans()) else (bias, product), "sum", "file: sum")
    read_twice = draw(st.booleans())
    outputs_ = {"y": Node(Relu(), (total,)), **({"product": product} if read_twice else {})}
    return Graph((given_,), outputs_), x, not read_twice and shape not in column


def bits(graph: Graph, x: Array) -> dict[str, bytes]:
    run = ReferenceBackend().compile(graph)
    return {name: y.tobytes() for name, y in run({"x": x}).items()}


@settings(max_examples=200, deadline=None)
@given(layers())
def test_a_product_with_a_matrix_is_a_layer(case: tuple[Graph, Array, bool]) -> None:
    graph, x, is_one = case
    after = run_passes(graph, (fuse_dense,))
    assert bits(after, x) == bits(graph, x)
    found = [node for node in after.nodes() if isinstance(node.op, Dense)]
    assert len(found) == 1
    assert not any(isinstance(node.op, MatMul) for node in after.nodes())
    assert any(isinstance(node.op, Add) for node in after.nodes()) is not is_one
    if is_one:
        assert (found[0].name, found[0].origin) == ("product", "file: product + file: sum")
        fused = run_passes(graph, DEFAULT).outputs["y"]
        assert isinstance(fused.op, Fused)
        assert (type(fused.op.base), fused.op.activation) == (Dense, Relu())


def test_other_products_stay() -> None:
    """Of two values, of integers, with several matrices, with none."""
    x = Node.input("x", TensorType("float32", (2, 2)))
    n = Node.input("n", TensorType("int64", (2, 2)))
    e = Node.input("e", TensorType("float32", (2, 0)))
    matrices = Node.const(np.ones((3, 2, 2), np.float32))
    empty = Node.const(np.ones((0, 2), np.float32))
    pairs = [(x, x), (n, Node.const(np.ones((2, 2), np.int64))), (x, matrices), (matrices, x), (e, empty)]
    graph = Graph((x, n, e), {f"y{i}": Node(MatMul(), pair) for i, pair in enumerate(pairs)})
    assert fuse_dense(graph) is graph


def test_the_bias_of_a_layer_whose_weights_are_computed_stays_a_sum() -> None:
    x = Node.input("x", TensorType("float32", (2, 3)))
    weight = Node.input("w", TensorType("float32", (4, 3)))
    layer = Node(Dense(), (x, weight))
    graph = Graph((x, weight), {"y": Node(Add(), (layer, Node.const(np.ones(4, np.float32))))})
    assert fuse_dense(graph) is graph


def test_a_weight_of_several_products_stays_one() -> None:
    x = Node.input("x", TensorType("float32", (2, 3)))
    weight = Node.const(np.arange(9, dtype=np.float32).reshape(3, 3))
    graph = Graph((x,), {"y": Node(MatMul(), (Node(MatMul(), (x, weight)), weight))})
    first, second = (node for node in fuse_dense(graph).nodes() if isinstance(node.op, Dense))
    assert first.inputs[1] is second.inputs[1]
