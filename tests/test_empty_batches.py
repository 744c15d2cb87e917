"""Layers of inputs without samples (open sizes are never 0, fixed ones may be): an empty result on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.backend import get_backend
from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.testing import LAYERS


@pytest.mark.filterwarnings("ignore")  # of NumPy, where a layer takes the mean of nothing
@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=5)
@given(data=st.data())
def test_no_samples(name: str, data: st.DataObject) -> None:
    """Those whose rules allow it; what would be read from nothing is refused by `GraphError`."""
    case = data.draw(LAYERS[name]()).astype("float32")
    if not case.inputs or case.inputs[0].ndim < 2:
        return
    empty = case.inputs[0][:0]
    x = Node.input("x", TensorType(empty.dtype.name, empty.shape))
    constants = [Node.const(array, f"c{i}") for i, array in enumerate(case.inputs[1:])]
    try:
        graph = Graph((x,), {"y": Node(case.op, (x, *constants), "layer")})
    except GraphError:
        return
    for backend in ("reference", "numpy", "llvm"):
        try:
            y = get_backend(backend).compile(graph)({"x": np.ascontiguousarray(empty)})["y"]
        except GraphError:
            continue
        assert y.shape == graph.output_types()["y"].dims, backend
