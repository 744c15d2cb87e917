"""When a compiled graph agrees with the reference, and when two results are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphsr.backend import Executable
from graphsr.ir import Graph, Node
from graphsr.op import Array
from graphsr.testing.bounds import error_bounds, evaluate
from graphsr.testing.cases import growth
from graphsr.testing.graphs import GraphCase


@dataclass(frozen=True)
class Reference:
    """A case evaluated in float64 (integers in their own dtype)."""

    graph: Graph
    values: dict[Node, Array]

    @property
    def outputs(self) -> dict[str, Array]:
        return {name: self.values[node] for name, node in self.graph.outputs.items()}


def evaluated(case: GraphCase) -> Reference:
    case = case.astype("float64")
    graph = case.graph.bind(case.shapes)
    return Reference(graph, evaluate(graph, case.inputs))


def assert_agrees(run: Executable, case: GraphCase) -> None:
    """The outputs of a compiled graph have the right types and are within the error bounds of the reference."""
    truth = evaluated(case)
    worst = max(growth(node.op) for node in (*case.graph.nodes(), *run.graph.nodes()))
    dtype = "float64" if any(x.dtype == np.float64 for x in case.inputs.values()) else "float32"
    bounds = error_bounds(truth.values, dtype, worst)
    got = run(case.inputs)
    assert list(got) == list(truth.outputs), f"outputs are named {list(got)}, not {list(truth.outputs)}\n{case}"
    types = case.graph.bind(case.shapes).output_types()
    for name, want in truth.outputs.items():
        type_ = f"{got[name].dtype.name}{list(got[name].shape)}"
        assert type_ == str(types[name]), f"output {name!r} is {type_}, not {types[name]}\n{case}"
        allowed = bounds[truth.graph.outputs[name]]
        report = _difference(got[name], want, allowed)
        assert not report, (
            f"backend {run.backend.name!r}, output {name!r}: {report}\n{case}\n--- compiled as\n{run.graph}"
        )


def _difference(got: Array, want: Array, allowed: float) -> str:
    """What is wrong where `got` is farther from `want` than allowed; "" if nothing is."""
    same = (got == want) | (np.isnan(got) & np.isnan(want)) if want.dtype.kind == "f" else got == want
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(got.astype(np.float64) - want.astype(np.float64)))
    wrong = ~(error <= allowed)
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"{wrong.sum()} of {wrong.size} elements are wrong, the first at {at}: "
        f"expected {want[at]!r}, got {got[at]!r}, allowed difference {allowed:.3g}"
    )


def assert_same_bits(case: GraphCase, want: Mapping[str, Array], got: Mapping[str, Array], message: str) -> None:
    """Two results of a graph have the same types and bits; `message` says in which case they have not."""
    for name, array in want.items():
        other = got[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), f"{message}: type of {name!r}\n{case}"
        if array.tobytes() != other.tobytes():
            with np.errstate(invalid="ignore"):
                largest = np.abs(array.astype(np.float64) - other.astype(np.float64)).max()
            raise AssertionError(f"{message}: {name!r} by up to {largest}\n{case}")
