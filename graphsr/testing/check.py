"""The equivalence suite: what every backend is held to.

    def test_my_backend() -> None:
        check_backend(MyBackend())

or, for one test per property:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_backend(check) -> None:
        check_backend(MyBackend(), checks=[check])

The truth is every op's `forward` in float64. How far a backend may differ is computed for each case from the dtype,
the lengths of the sums and how errors pass through the graph (`error_bounds`); there is nothing to tune.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from graphsr.backend import Backend, Executable, get_backend
from graphsr.errors import BackendError, ShapeError
from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array
from graphsr.ops import Conv2d
from graphsr.passes.linear import affine_of
from graphsr.testing.bounds import error_bounds, evaluate
from graphsr.testing.cases import LAYERS, Case, growth
from graphsr.testing.graphs import GraphCase, graphs
from graphsr.testing.networks import networks
from graphsr.testing.wide import repeated, wide_layers


@dataclass(frozen=True)
class Suite:
    """What a check needs: the backend, how many examples to draw from which seed, and of which ops alone."""

    backend: Backend
    examples: int
    seed: int
    layers: tuple[str, ...]

    def for_all(self, strategy: st.SearchStrategy[Any], body: Callable[[Any], None]) -> None:
        """Run `body` on drawn cases; the smallest failing one is reported."""

        @seed(self.seed)
        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(case: Any) -> None:
            body(case)

        run()

    def graphs(self) -> st.SearchStrategy[GraphCase]:
        return graphs(supports=self.backend.supports)

    def compile(self, graph: Graph, threads: int = 1) -> Executable:
        return self.backend.compile(graph, threads=threads)


Check: TypeAlias = Callable[[Suite], None]


def check_backend(
    backend: Backend | str,
    *,
    examples: int = 25,
    seed: int = 0,
    checks: Sequence[Check | str] | str | None = None,
    layers: Sequence[str] | str | None = None,
) -> None:
    """Hold a backend, or the one of this name, to the reference.

    Raises `AssertionError` that shows the smallest failing graph.
    `examples` graphs are drawn for each check, from `seed`. Nodes that the backend does not support are left out.
    `checks` are some of `CHECKS`, by name or not, or functions of your own that take a `Suite`. `layers` are names of
    ops: these are checked alone, and nothing else unless `checks` asks for it. One name stands for a list of it.
    Raises `BackendError` for an unknown backend or check, for ops that have no strategy in `LAYERS`, for empty lists,
    and for less than one example.
    """
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise BackendError(f"examples must be a whole number of at least 1, got {examples!r}")
    by_name = {check.__name__: check for check in CHECKS}
    usual = CHECKS if layers is None else (layers_agree,)
    chosen = _chosen("checks", checks, usual, by_name)
    suite = Suite(get_backend(backend), examples, seed, tuple(sorted(_chosen("layers", layers, LAYERS, LAYERS))))
    for check in chosen:
        (by_name[check] if isinstance(check, str) else check)(suite)


def _chosen(what: str, asked: Iterable[Any] | None, usual: Iterable[Any], known: Collection[str]) -> list[Any]:
    """What is asked for, or the usual. Raises `BackendError` where that is nothing, or has a name that is not known."""
    chosen = list(usual if asked is None else [asked] if isinstance(asked, str) else asked)
    if not chosen:
        raise BackendError(f"{what} are none: leave them out for the usual ones, or name some")
    for name in chosen:
        if name not in known and not callable(name):
            near = get_close_matches(str(name), known, 1)
            hint = f", did you mean {near[0]}?" if near else ":"
            raise BackendError(f"{name!r} is none of the {what}{hint} There are {', '.join(sorted(known))}")
    return chosen


def layers_agree(suite: Suite) -> None:
    """Every op of the table that the backend supports, alone, in each dtype it supports; weights constant or given."""
    supported = 0

    def body(drawn: tuple[Case, str, bool]) -> None:
        nonlocal supported
        case, dtype, constant = drawn
        graph_case = layer_graph(case.astype(dtype), constant)
        if _all_supported(suite.backend, graph_case.graph):
            supported += 1
            assert_agrees(suite.compile(graph_case.graph), graph_case)

    for name in suite.layers:
        suite.for_all(st.tuples(LAYERS[name](), st.sampled_from(["float32", "float64"]), st.booleans()), body)
    assert supported, f"backend {suite.backend.name!r} supports none of the ops {', '.join(suite.layers)}"


def graphs_agree(suite: Suite) -> None:
    """Random graphs, compiled with open sizes."""
    suite.for_all(suite.graphs(), lambda case: assert_agrees(suite.compile(case.graph), case))


def wide_layers_agree(suite: Suite) -> None:
    """Convolutions with the channels of real networks, and what follows them: whatever algorithm the passes choose."""

    def body(case: GraphCase) -> None:
        if _all_supported(suite.backend, case.graph):
            assert_agrees(suite.compile(case.graph), case)

    suite.for_all(wide_layers(), body)


def networks_agree(suite: Suite) -> None:
    """Small super-resolution networks."""

    def body(case: GraphCase) -> None:
        if _all_supported(suite.backend, case.graph):
            assert_agrees(suite.compile(case.graph), case)

    suite.for_all(networks(), body)


def threads_give_the_same_bits(suite: Suite) -> None:
    """One thread, two or three: every bit of every output is the same."""

    def body(case: GraphCase) -> None:
        one, *others = (suite.compile(case.graph, threads)(case.inputs) for threads in (1, 2, 3))
        for threads, outputs in enumerate(others, 2):
            _assert_same_bits(case, one, outputs, f"{threads} threads differ from one")

    suite.for_all(suite.graphs(), body)


def runs_are_independent(suite: Suite) -> None:
    """Inputs are not written, outputs are fresh; runs one after the other, or at once, do not disturb each other."""

    def body(case: GraphCase) -> None:
        run = suite.compile(case.graph, threads=2)
        given_ = {name: x.copy() for name, x in case.inputs.items()}
        first = run(given_)
        _assert_same_bits(case, case.inputs, given_, "an input was written to")
        constants = [node.value for node in (*case.graph.nodes(), *run.graph.nodes()) if node.is_const]
        for name, y in first.items():
            others = [*given_.values(), *constants, *(z for other, z in first.items() if other != name)]
            shared = any(np.may_share_memory(y, other) for other in others)
            assert not shared, f"output {name!r} shares memory with an input, a constant or an output\n{case}"
            assert y.flags.writeable, f"output {name!r} is read-only\n{case}"
        want = {name: y.copy() for name, y in first.items()}
        other_case = GraphCase(case.graph, {name: -x for name, x in case.inputs.items()})
        assert_agrees(run, other_case)
        _assert_same_bits(case, want, first, "a later run changed the outputs of an earlier one")
        for y in first.values():
            y.fill(7)
        for x in given_.values():
            x.setflags(write=False)
        _assert_same_bits(case, want, run(given_), "writing to outputs changed a later run")
        other = run(other_case.inputs)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, [given_, other_case.inputs] * 3))
        for i, outputs in enumerate(results):
            _assert_same_bits(case, (want, other)[i % 2], outputs, "runs at the same time disturb each other")

    suite.for_all(suite.graphs(), body)


def layout_of_inputs_is_free(suite: Suite) -> None:
    """Inputs may be views: part of a larger array, reversed, or transposed. (A sum may run in another order then.)"""

    views: tuple[Callable[[Array], Array], ...] = (
        lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        np.asfortranarray,
    )

    def body(case: GraphCase) -> None:
        run = suite.compile(case.graph)
        for view in views:
            assert_agrees(run, GraphCase(case.graph, {name: view(x) for name, x in case.inputs.items()}))

    suite.for_all(suite.graphs(), body)


def new_sizes_need_no_recompiling(suite: Suite) -> None:
    """One executable runs batches and images of several sizes, and returns to the first."""

    def body(drawn: tuple[GraphCase, st.DataObject]) -> None:
        case, data = drawn
        run = suite.compile(case.graph)
        first = run(case.inputs)
        for grow in ((1, 0, 8, 0), (2, 0, 0, 16)):
            inputs = {}
            for name, x in case.inputs.items():
                shape = tuple(n + more for n, more in zip(x.shape, grow, strict=True))
                inputs[name] = data.draw(repeated(shape))
            other = GraphCase(case.graph, inputs)
            if _fits(other):
                assert_agrees(run, other)
        _assert_same_bits(case, first, run(case.inputs), "after other sizes the first gives another result")

    suite.for_all(st.tuples(suite.graphs(), st.data()), body)


def nan_is_never_lost(suite: Suite) -> None:
    """Where the reference has NaN, so has the backend: a broken pixel must not turn into a plausible one.

    Not asked of diagonal convolutions, which passes take as a factor for each channel: there NaN · 0 is left out.
    """

    def body(drawn: tuple[GraphCase, int]) -> None:
        case, position = drawn
        inputs = {name: x.copy() for name, x in case.inputs.items()}
        for x in inputs.values():
            pixels = x.reshape(*x.shape[:2], -1)
            pixels[..., position % pixels.shape[2]] = np.nan
        case = GraphCase(case.graph, inputs)
        got = suite.compile(case.graph)(inputs)
        for name, y in _reference(case).outputs.items():
            lost = np.isnan(y) & ~np.isnan(got[name])
            assert not lost.any(), f"output {name!r}: {lost.sum()} elements should be NaN, and are not\n{case}"

    def is_dense(case: GraphCase) -> bool:
        return not any(isinstance(node.op, Conv2d) and affine_of(node) for node in case.graph.nodes())

    suite.for_all(st.tuples(suite.graphs().filter(is_dense), st.integers(0, 99)), body)


def wrong_inputs_are_refused(suite: Suite) -> None:
    """A name, rank, channel count or dtype that does not fit is a `ShapeError`, never a crash or a guess."""

    def body(case: GraphCase) -> None:
        run = suite.compile(case.graph)
        name, x = next(iter(case.inputs.items()))
        more_channels = np.concatenate([x, x[:, :1]], axis=1)
        for wrong in ({}, {"other": x}, {name: x[0]}, {name: more_channels}, {name: x.astype(complex)}, {name: "x"}):
            try:
                run(wrong)  # type: ignore[arg-type]  # that is the point
            except ShapeError:
                continue
            raise AssertionError(f"no ShapeError for {wrong}\n{case}")

    suite.for_all(suite.graphs(), body)


def programs_explain_themselves(suite: Suite) -> None:
    """`explain()` names a kernel for whatever is computed; the planned memory is known and not negative, and no more
    threads are used than were asked for."""

    def body(case: GraphCase) -> None:
        run = suite.compile(case.graph, threads=2)
        program = run.bind(case.shapes)
        assert 1 <= program.threads <= 2, f"{program.threads} threads where 2 were asked for\n{case}"
        assert program.planned_bytes >= 0, f"planned_bytes is {program.planned_bytes}\n{case}"
        computes = any(not isinstance(node.op, Input | Const) for node in run.graph.nodes())
        assert bool(program.steps()) == computes, f"steps() is {program.steps()}\n{run.graph}"
        assert all(step.kernel and step.op for step in program.steps()), f"a step without a kernel\n{run.graph}"
        assert suite.backend.name in run.explain(case.shapes)

    suite.for_all(suite.graphs(), body)


CHECKS: tuple[Check, ...] = (
    layers_agree,
    wide_layers_agree,
    graphs_agree,
    networks_agree,
    threads_give_the_same_bits,
    runs_are_independent,
    layout_of_inputs_is_free,
    new_sizes_need_no_recompiling,
    nan_is_never_lost,
    wrong_inputs_are_refused,
    programs_explain_themselves,
)
"""All checks, in the order in which they run."""


def layer_graph(case: Case, constant: bool) -> GraphCase:
    """The graph of one layer; all inputs but the first are constants of the graph if `constant`."""
    nodes = [
        Node.const(x, f"x{i}") if constant and i else Node.input(f"x{i}", type_)
        for i, (x, type_) in enumerate(zip(case.inputs, case.types, strict=True))
    ]
    graph = Graph(tuple(node for node in nodes if not node.is_const), {"y": Node(case.op, tuple(nodes), "layer")})
    return GraphCase(graph, {node.name: x for node, x in zip(nodes, case.inputs, strict=True) if not node.is_const})


def assert_agrees(run: Executable, case: GraphCase) -> None:
    """The outputs of a compiled graph have the right types and are within the error bounds of the reference."""
    truth = _reference(case)
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


@dataclass(frozen=True)
class Reference:
    """A case evaluated in float64 (integers in their own dtype)."""

    graph: Graph
    values: dict[Node, Array]

    @property
    def outputs(self) -> dict[str, Array]:
        return {name: self.values[node] for name, node in self.graph.outputs.items()}


def _reference(case: GraphCase) -> Reference:
    case = case.astype("float64")
    graph = case.graph.bind(case.shapes)
    return Reference(graph, evaluate(graph, case.inputs))


def _all_supported(backend: Backend, graph: Graph) -> bool:
    return all(backend.supports(node) for node in graph.nodes())


def _fits(case: GraphCase) -> bool:
    try:
        case.graph.bind(case.shapes)
    except ShapeError:
        return False
    return True


def _assert_same_bits(case: GraphCase, want: Mapping[str, Array], got: Mapping[str, Array], message: str) -> None:
    for name, array in want.items():
        other = got[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), f"{message}: type of {name!r}\n{case}"
        same = array.tobytes() == other.tobytes()
        assert same, f"{message}: {name!r} by up to {np.nanmax(np.abs(array - other))}\n{case}"
