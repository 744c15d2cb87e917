"""What the tests of the llvm backend's kernels share: one layer alone, planar or in blocks, beside the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from graphsr.backends.llvm.backend import LlvmBackend
from graphsr.backends.reference import ReferenceBackend
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Conv2d
from graphsr.testing.check import assert_agrees
from graphsr.testing.graphs import GraphCase
from graphsr.testing.wide import repeated

SIZES = (1, 1, 2, 3, 5, 13, 15, 16, 17, 33, 50)
CHANNELS = (1, 3, 7, 8, 15, 16, 17, 25, 33, 100, 192)

Draw: TypeAlias = "Callable[[st.SearchStrategy[Any]], Any]"

several = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))


class AsWritten(LlvmBackend):
    """Without passes: what is tested is what is written."""

    passes = ()


BACKEND = AsWritten()


def layer_case(
    draw: Draw, op: Op, *shapes: tuple[int, ...], constants: tuple[Array, ...] = (), blocked: bool = False
) -> GraphCase:
    """y = op(inputs of these shapes, constants), with drawn values. A blocked input goes through a 1x1 convolution
    that changes nothing but the layout."""
    inputs = tuple(Node.input(f"x{i}", TensorType("float32", shape)) for i, shape in enumerate(shapes))
    arguments = [through_blocks(node) if blocked else node for node in inputs]
    node = Node(op, (*arguments, *map(Node.const, constants)), "layer")
    return GraphCase(Graph(inputs, {"y": node}), {x.name: draw(repeated(x.type.dims)) for x in inputs})


def through_blocks(x: Node) -> Node:
    """The value of x in the blocked layout."""
    channels = x.type.dims[1]
    return Node(Conv2d(), (x, Node.const(np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1))), "id")


def assert_has_kernel(case: GraphCase) -> None:
    """The layer agrees with the reference, also with NaN in its inputs, and for any number of threads; and it does not
    run through `forward`."""
    run = BACKEND.compile(case.graph, threads=1)
    explained = run.explain({name: x.shape for name, x in case.inputs.items()})
    assert "forward" not in explained, explained
    assert_agrees(run, case)
    several_threads = BACKEND.compile(case.graph, threads=3)
    for name, y in run(case.inputs).items():
        assert y.tobytes() == several_threads(case.inputs)[name].tobytes(), "threads change bits"


def with_nans(case: GraphCase, every: int = 23) -> GraphCase:
    """NaN in some places of every input. (Not for blocked inputs: the convolution in front would spread them.)"""
    inputs = {name: x.copy() for name, x in case.inputs.items()}
    for x in inputs.values():
        x.reshape(-1)[:: every if x.size > every else 2] = np.nan
    return GraphCase(case.graph, inputs)


def assert_same_nans(case: GraphCase) -> None:
    """NaN where the reference has it, and nowhere else: where products with NaN leave no bound for the error."""
    got = BACKEND.compile(case.graph)(case.inputs)
    want = ReferenceBackend("float64").compile(case.graph)(case.inputs)
    for name, y in want.items():
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(y))
