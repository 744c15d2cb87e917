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

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from graphsr.backend import Backend, Executable, get_backend
from graphsr.errors import ShapeError
from graphsr.ir import Const, Graph, Input, Node
from graphsr.op import Array
from graphsr.ops import Conv2d
from graphsr.passes.linear import affine_of
from graphsr.testing.agreement import assert_agrees as assert_agrees
from graphsr.testing.agreement import assert_same_bits, evaluated
from graphsr.testing.cases import LAYERS, Case
from graphsr.testing.choice import chosen_checks, chosen_layers, expect_integer
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
            report_multiple_bugs=False,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(case: Any) -> None:
            body(case)

        run()

    def for_all_layers(self, body: Callable[[GraphCase], None]) -> None:
        """Run `body` on each op alone, as far as the backend supports it, in float32 and float64."""
        supported = 0

        def if_supported(case: GraphCase) -> None:
            nonlocal supported
            if _all_supported(self.backend, case.graph):
                supported += 1
                body(case)

        for name in self.layers:
            self.for_all(_layer_graphs(name), if_supported)
        assert supported, f"backend {self.backend.name!r} supports none of the ops {', '.join(self.layers)}"

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
    checks: Sequence[Check | str] | Check | str | None = None,
    layers: Sequence[str] | str | None = None,
) -> None:
    """Hold a backend, or the one of this name, to the reference.

    Raises `AssertionError` that shows the smallest failing graph, or what the backend itself raised for it.
    `examples` graphs are drawn for each check, from `seed`. Nodes that the backend does not support are left out.
    `checks` are some of `CHECKS`, by name or not, or functions of your own that take a `Suite`. `layers` are names of
    ops: these are checked alone (`CHECKS_OF_LAYERS`), and nothing else unless `checks` asks for it. One name or
    function stands for a list of it.
    Raises `BackendError` for an unknown backend or check, for ops that have no strategy in `LAYERS`, for empty lists,
    for what is neither a name nor, among checks, a function, and for less than one example.
    """
    suite, chosen = prepare(backend, examples=examples, seed=seed, checks=checks, layers=layers)
    for check in chosen:
        check(suite)


def prepare(
    backend: Backend | str,
    *,
    examples: int,
    seed: int,
    checks: Sequence[Check | str] | Check | str | None,
    layers: Sequence[str] | str | None,
) -> tuple[Suite, list[Check]]:
    """What `check_backend` runs: each check is called with the suite."""
    usual = CHECKS if layers is None else CHECKS_OF_LAYERS
    chosen = list(usual) if checks is None else chosen_checks(checks, {check.__name__: check for check in CHECKS})
    named = LAYERS if layers is None else chosen_layers(layers, LAYERS)
    expect_integer("examples", examples, least=1)
    expect_integer("seed", seed)
    return Suite(get_backend(backend), examples, seed, tuple(sorted(named))), chosen


def layers_agree(suite: Suite) -> None:
    """Every op of the table that the backend supports, alone, in each dtype it supports; weights constant or given."""
    suite.for_all_layers(lambda case: assert_agrees(suite.compile(case.graph), case))


def layers_give_the_same_bits(suite: Suite) -> None:
    """Every op alone on one thread, two or three: every bit of its output is the same."""
    suite.for_all_layers(lambda case: _assert_same_bits_on_threads(suite, case))


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
    """Random graphs on one thread, two or three: every bit of every output is the same."""
    suite.for_all(suite.graphs(), lambda case: _assert_same_bits_on_threads(suite, case))


def runs_are_independent(suite: Suite) -> None:
    """Inputs are not written, outputs are fresh; runs one after the other, or at once, do not disturb each other."""

    def body(case: GraphCase) -> None:
        run = suite.compile(case.graph, threads=2)
        given_ = {name: x.copy() for name, x in case.inputs.items()}
        first = run(given_)
        assert_same_bits(case, case.inputs, given_, "an input was written to")
        constants = [node.value for node in (*case.graph.nodes(), *run.graph.nodes()) if node.is_const]
        for name, y in first.items():
            others = [*given_.values(), *constants, *(z for other, z in first.items() if other != name)]
            shared = any(np.may_share_memory(y, other) for other in others)
            assert not shared, f"output {name!r} shares memory with an input, a constant or an output\n{case}"
            assert y.flags.writeable, f"output {name!r} is read-only\n{case}"
        want = {name: y.copy() for name, y in first.items()}
        other_case = GraphCase(case.graph, {name: -x for name, x in case.inputs.items()})
        assert_agrees(run, other_case)
        assert_same_bits(case, want, first, "a later run changed the outputs of an earlier one")
        for y in first.values():
            y.fill(7)
        for x in given_.values():
            x.setflags(write=False)
        assert_same_bits(case, want, run(given_), "writing to outputs changed a later run")
        other = run(other_case.inputs)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(run, [given_, other_case.inputs] * 3))
        for i, outputs in enumerate(results):
            assert_same_bits(case, (want, other)[i % 2], outputs, "runs at the same time disturb each other")

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
        assert_same_bits(case, first, run(case.inputs), "after other sizes the first gives another result")

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
        for name, y in evaluated(case).outputs.items():
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
    layers_give_the_same_bits,
    runs_are_independent,
    layout_of_inputs_is_free,
    new_sizes_need_no_recompiling,
    nan_is_never_lost,
    wrong_inputs_are_refused,
    programs_explain_themselves,
)
"""All checks, in the order in which they run."""
CHECKS_OF_LAYERS: tuple[Check, ...] = (layers_agree, layers_give_the_same_bits)
"""Those that `layers` are held to where nothing else is asked for."""


@st.composite
def _layer_graphs(draw: st.DrawFn, name: str) -> GraphCase:
    """An op alone, in either dtype, with weights that are constant or given."""
    case = draw(LAYERS[name]()).astype(draw(st.sampled_from(["float32", "float64"])))
    return layer_graph(case, constant=draw(st.booleans()))


def layer_graph(case: Case, constant: bool) -> GraphCase:
    """The graph of one layer; all inputs but the first are constants of the graph if `constant`."""
    nodes = [
        Node.const(x, f"x{i}") if constant and i else Node.input(f"x{i}", type_)
        for i, (x, type_) in enumerate(zip(case.inputs, case.types, strict=True))
    ]
    graph = Graph(tuple(node for node in nodes if not node.is_const), {"y": Node(case.op, tuple(nodes), "layer")})
    return GraphCase(graph, {node.name: x for node, x in zip(nodes, case.inputs, strict=True) if not node.is_const})


def _all_supported(backend: Backend, graph: Graph) -> bool:
    return all(backend.supports(node) for node in graph.nodes())


def _fits(case: GraphCase) -> bool:
    try:
        case.graph.bind(case.shapes)
    except ShapeError:
        return False
    return True


def _assert_same_bits_on_threads(suite: Suite, case: GraphCase) -> None:
    one, *others = (suite.compile(case.graph, threads)(case.inputs) for threads in (1, 2, 3))
    for threads, outputs in enumerate(others, 2):
        assert_same_bits(case, one, outputs, f"{threads} threads differ from one")
