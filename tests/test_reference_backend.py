"""The reference backend: forward, node by node, with values dropped after their last use."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from graphsr.backend import Executable, backends, get_backend
from graphsr.dim import Dim
from graphsr.errors import BackendError, GraphError, ShapeError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Conv2d, Relu, Shortcut
from graphsr.testing import GraphCase, graphs
from graphsr.testing.bounds import evaluate

N, H, W = (Dim.symbol(name) for name in "NHW")
IMAGE = TensorType("float32", (N, 3, H, W))
Reference: Any = type(get_backend("reference"))


def chain(length: int) -> Graph:
    x = y = Node.input("x", IMAGE)
    for i in range(length):
        y = Node(Relu(), (y,), f"relu.{i}", "a test")
    return Graph((x,), {"y": y})


def image(*shape: int) -> Array:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=graphs())
def test_outputs_are_those_of_forward(case: GraphCase) -> None:
    got = get_backend("reference").compile(case.graph, threads=1)(case.inputs)
    bound = case.graph.bind(case.shapes)
    values = evaluate(bound, case.inputs)
    for name, node in bound.outputs.items():
        np.testing.assert_array_equal(got[name], values[node])


def test_float64() -> None:
    weight = Node.const(np.full((1, 3, 1, 1), 1 / 3, np.float32))
    x = Node.input("x", IMAGE)
    graph = Graph((x,), {"y": Node(Conv2d(), (x, weight))})
    run = Reference("float64").compile(graph, threads=1)
    out = run({"x": image(1, 3, 2, 2)})["y"]  # float32 in, computed and returned in float64
    exact = image(1, 3, 2, 2).astype(np.float64).sum(axis=1, keepdims=True) * np.float64(np.float32(1 / 3))
    np.testing.assert_allclose(out, exact, rtol=1e-15)
    with pytest.raises(BackendError, match="float32 or float64, not 'float16'"):
        Reference("float16")


def test_memory_is_that_of_the_live_values() -> None:
    """A chain needs two values at a time, however long it is; a value that is needed later stays."""
    run = get_backend("reference").compile(chain(10), threads=1)
    size = 4 * 3 * 8 * 8
    assert run.bind({"x": (1, 3, 8, 8)}).planned_bytes == 2 * size
    x = Node.input("x", IMAGE)
    y: Node = x
    for _ in range(5):
        y = Node(Relu(), (y,))
    graph = Graph((x,), {"y": Node(Shortcut(), (y, x))})
    assert get_backend("reference").compile(graph).bind({"x": (1, 3, 8, 8)}).planned_bytes == 3 * size


def test_steps_and_explain() -> None:
    x = Node.input("x", IMAGE)
    weight = Node.const(np.ones((8, 3, 3, 3), np.float32), "weight")
    y = Node(Conv2d(padding=(1, 1, 1, 1)), (x, weight), "head", "a test")
    run = get_backend("reference").compile(Graph((x,), {"y": y}), threads=2)
    with pytest.raises(ShapeError, match="needs input shapes"):
        run.explain()
    (step,) = run.bind({"x": (1, 3, 10, 10)}).steps()
    assert (step.node, step.op, step.kernel, step.macs, step.nbytes) == ("head", "conv2d", "forward", 21600, 3200)
    for text in (run.explain(), run.explain({"x": (1, 3, 10, 10)})):
        assert "head" in text
        assert "backend reference, 1 thread," in text


class TestExecutable:
    """What all backends share, seen through this one."""

    def test_types_are_open(self) -> None:
        run = get_backend("reference").compile(chain(1))
        assert (run.inputs, run.outputs) == ({"x": IMAGE}, {"y": IMAGE})

    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            ({}, r"inputs are named \['x'\], got \[\]"),
            ({"z": image(1, 3, 2, 2)}, r"inputs are named \['x'\], got \['z'\]"),
            ({"x": image(3, 2, 2)}, r"expected float32\[N, 3, H, W\], got shape \(3, 2, 2\)"),
            ({"x": image(1, 4, 2, 2)}, "3 cannot be 4"),
            ({"x": image(1, 3, 2, 2).astype(np.complex64)}, "must be float32, got complex64: convert it"),
            ({"x": "picture.png"}, "must be float32, got <U11"),
            ({"x": [["a"]]}, "must be float32"),
            (image(1, 3, 2, 2), "call with a dict of arrays by input name"),
            (None, "call with a dict of arrays by input name"),
        ],
    )
    def test_wrong_inputs(self, inputs: object, words: str) -> None:
        with pytest.raises(ShapeError, match=words):
            get_backend("reference").compile(chain(1))(inputs)  # type: ignore[arg-type]  # what a caller may do

    def test_safe_conversions_of_dtype(self) -> None:
        run = get_backend("reference").compile(chain(1))
        want = run({"x": image(1, 3, 2, 2)})["y"]
        np.testing.assert_array_equal(run({"x": image(1, 3, 2, 2).astype(np.float64)})["y"], want)
        pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
        np.testing.assert_array_equal(run({"x": pixels})["y"], pixels)
        np.testing.assert_array_equal(run({"x": pixels.tolist()})["y"], pixels)

    def test_programs_of_recent_sizes_are_kept(self) -> None:
        run = get_backend("reference").compile(chain(1))
        first = run.bind({"x": (1, 3, 1, 1)})
        assert run.bind({"x": (1, 3, 1, 1)}) is first
        forgotten = weakref.ref(run.bind({"x": (1, 3, 2, 2)}))
        for size in range(3, 3 + Executable.CACHED_SIZES - 1):
            run.bind({"x": (1, 3, size, size)})
            assert run.bind({"x": (1, 3, 1, 1)}) is first  # in use, so it is not the one to go
        gc.collect()
        assert forgotten() is None

    def test_shapes_by_any_order_of_names(self) -> None:
        a, b = Node.input("a", IMAGE), Node.input("b", IMAGE)
        run = get_backend("reference").compile(Graph((a, b), {"y": Node(Shortcut(1.0, -1.0), (a, b))}))
        x, y = image(1, 3, 2, 2), image(1, 3, 2, 2)[:, ::-1]
        np.testing.assert_array_equal(run({"b": y, "a": x})["y"], x - y)


class TestFinding:
    def test_by_name_or_object(self) -> None:
        assert "reference" in backends()
        backend = get_backend("reference")
        assert get_backend(backend) is backend
        with pytest.raises(BackendError, match=r"unknown backend 'cuda'; installed are .*reference"):
            get_backend("cuda")

    def test_what_is_not_supported_is_listed_all_at_once(self) -> None:
        backend = get_backend("reference")
        backend.supports = lambda node: not isinstance(node.op, Relu)  # type: ignore[method-assign]
        with pytest.raises(BackendError, match=r"relu 'relu.0' \(a test\) : float32\[N, 3, H, W\]\n.*relu 'relu.1'"):
            backend.compile(chain(2))

    def test_graphs_are_verified(self) -> None:
        with pytest.raises(GraphError, match="at least one output"):
            get_backend("reference").compile(Graph((Node.input("x", IMAGE),), {}))
