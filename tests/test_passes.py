"""Every pass does what its golden file shows, keeps the meaning of every graph, and has nothing left to do after.

`tests/golden/<pass>.txt` holds cases: a title, the graph before, the graph after. With GRAPHSR_UPDATE_GOLDEN=1 the
graphs after are written anew. Constants of more than eight elements are filled with 1/8, 2/8, 3/8, …
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from graphsr.analysis import macs
from graphsr.dim import substitute
from graphsr.errors import GraphError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array
from graphsr.ops import Add, BatchNorm, Conv2d, Div, Mul, Relu
from graphsr.passes import (
    DEFAULT,
    Pass,
    choose_conv_algorithm,
    fold_batchnorm,
    fold_constants,
    fold_scale,
    fuse_activation,
    fuse_residual,
    remove_dead,
    run_passes,
)
from graphsr.passes.choose_conv_algorithm import tile_waste, winograd_cost
from graphsr.passes.rewrite import merge, rewrite
from graphsr.testing import GraphCase, graphs, growth, networks
from graphsr.testing.bounds import error_bounds, evaluate
from graphsr.textform import parse_graph

from support import ROOT

GOLDEN = ROOT / "tests" / "golden"
CASES = graphs() | networks()
drawn = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
each_pass = pytest.mark.parametrize("apply", DEFAULT, ids=lambda apply: apply.__name__)


def constants(text: str) -> dict[str, Array]:
    """Arrays for the constants of a text form that carry no values."""
    found = re.findall(r"^%(\S+) = const\(\) : float32\[(.*?)\]", text, re.MULTILINE)
    shapes = {name: [int(n) for n in sizes.split(",")] for name, sizes in found}
    return {n: (np.arange(1, prod(s) + 1) / 8).astype(np.float32).reshape(s) for n, s in shapes.items()}


@each_pass
def test_golden(apply: Pass) -> None:
    path = GOLDEN / f"{apply.__name__}.txt"
    written = []
    for case in path.read_text(encoding="utf-8").split("\n\n\n"):
        title, before, after = case.strip().split("\n\n")
        got = str(run_passes(parse_graph(before, constants(before)), (apply,)))
        written.append(f"{title}\n\n{before}\n\n{got}\n")
        if not os.environ.get("GRAPHSR_UPDATE_GOLDEN"):
            assert got == after.strip(), title
    if os.environ.get("GRAPHSR_UPDATE_GOLDEN"):
        path.write_text("\n\n".join(written), encoding="utf-8")


@each_pass
@drawn
@given(case=CASES)
def test_the_meaning_stays(apply: Pass, case: GraphCase) -> None:
    """In float64 the outputs differ by no more than two evaluations of one graph may, and names and types stay."""
    case = case.astype("float64")
    after = run_passes(case.graph, (apply,))
    assert list(after.inputs) == list(case.graph.inputs)
    assert after.output_types() == case.graph.output_types()
    assert_same_meaning(case, after)


@drawn
@given(case=CASES)
def test_the_meaning_stays_through_the_pipeline(case: GraphCase) -> None:
    case = case.astype("float64")
    assert_same_meaning(case, run_passes(case.graph, DEFAULT))


def assert_same_meaning(case: GraphCase, after: Graph) -> None:
    bound, bound_after = case.graph.bind(case.shapes), after.bind(case.shapes)
    values, got = evaluate(bound, case.inputs), evaluate(bound_after, case.inputs)
    bounds = error_bounds(values, "float64", max(growth(node.op) for node in after.nodes()))
    for name, node in bound.outputs.items():
        np.testing.assert_allclose(got[bound_after.outputs[name]], values[node], rtol=0, atol=bounds[node])


@each_pass
@drawn
@given(case=CASES)
def test_nothing_is_left_to_do(apply: Pass, case: GraphCase) -> None:
    once = apply(case.graph)
    assert apply(once) is once


@each_pass
@drawn
@given(case=CASES)
def test_nothing_is_computed_twice(apply: Pass, case: GraphCase) -> None:
    sizes = case.graph.solve(case.shapes)
    before, after = (substitute(macs(graph), sizes) for graph in (case.graph, apply(case.graph)))
    assert isinstance(before, int) and isinstance(after, int)  # noqa: PT018  # narrows the types
    assert after <= before


RULES = (
    "fold_batchnorm",
    "fold_constants",
    "fold_scale",
    "fuse_activation",
    "fuse_dense",
    "fuse_residual",
    "remove_dead",
)


@pytest.mark.parametrize("name", RULES)
@drawn
@given(case=CASES)
def test_reads_are_counted_right_while_nodes_are_replaced(name: str, case: GraphCase) -> None:
    module = import_module(f"graphsr.passes.{name}")
    rule = module._new_rule() if hasattr(module, "_new_rule") else module._rule
    counts: list[Mapping[Node, int]] = []

    def spy(node: Node, uses: Mapping[Node, int]) -> Node:
        counts.append(uses)
        return rule(node, uses)

    after = rewrite(case.graph, spy)
    uses = after.uses()
    assert {node: counts[-1][node] for node in after.nodes()} == {node: uses[node] for node in after.nodes()}


IMAGE = TensorType("float32", (1, 2, 8, 8))


def const(*shape: int, value: float = 0.5) -> Node:
    return Node.const(np.full(shape, value, np.float32))


def layer(x: Node, name: str = "conv", padding: int = 0) -> Node:
    return Node(Conv2d(padding=(padding,) * 4), (x, const(2, 2, 3, 3), const(2)), name, f"file: {name}")


def count(graph: Graph, op: type) -> int:
    return sum(isinstance(node.op, op) for node in graph.nodes())


class TestConditions:
    def test_what_is_not_finite_is_not_folded(self) -> None:
        x = Node.input("x", IMAGE)
        conv = layer(x)
        for y in (
            Node(BatchNorm(0.0), (conv, const(2), const(2), const(2), const(2, value=0.0))),
            Node(BatchNorm(0.0), (conv, const(2), const(2), const(2), const(2, value=-1.0))),
            Node(Div(), (conv, const(1, value=0.0))),
            Node(Mul(), (conv, const(1, value=np.nan))),
            Node(Mul(), (Node(Conv2d(), (x, const(2, 2, 1, 1, value=3e38))), const(1, value=100.0))),
        ):
            graph = Graph((x,), {"y": y})
            assert run_passes(graph, (fold_batchnorm, fold_scale)) is graph

    def test_weights_that_are_not_constant_stay(self) -> None:
        x, weight = Node.input("x", IMAGE), Node.input("w", TensorType("float32", (2, 2, 3, 3)))
        y = Node(Mul(), (Node(Conv2d(), (x, weight)), const(1)))
        graph = Graph((x, weight), {"y": y})
        assert run_passes(graph, (fold_scale, fold_batchnorm)) is graph

    def test_constants_that_an_op_blows_up_stay_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(import_module("graphsr.passes.fold_constants"), "LIMIT", 64)
        grown, kept = Node(Add(), (const(4, 1), const(1, 5))), Node(Add(), (const(4, 4), const(4, 4)))
        graph = fold_constants(Graph((), {"grown": grown, "kept": kept}))
        assert graph.outputs["grown"] is grown
        assert graph.outputs["kept"].value.tolist() == np.ones((4, 4)).tolist()

    def test_of_two_layers_the_later_takes_the_sum(self) -> None:
        x = Node.input("x", IMAGE)
        graph = fuse_residual(Graph((x,), {"y": Node(Add(), (layer(x, "first"), layer(x, "second")))}))
        assert [node.name for node in graph.nodes() if node.inputs] == ["first", "second"]
        assert graph.outputs["y"].name == "second"

    def test_a_value_that_is_an_output_is_not_fused_away(self) -> None:
        x = Node.input("x", IMAGE)
        conv = layer(x)
        graph = Graph((x,), {"y": Node(Relu(), (conv,)), "inner": conv})
        assert run_passes(graph, (fuse_activation, fuse_residual, fold_scale)) is graph

    def test_names_and_origins_are_merged(self) -> None:
        x = Node.input("x", IMAGE)
        y = Node(Relu(), (layer(x),), "act", "file: act")
        fused = fuse_activation(Graph((x,), {"y": y})).outputs["y"]
        assert (fused.name, fused.origin) == ("conv", "file: conv + file: act")
        assert merge(Relu(), (x,), fused, y).origin == "file: conv + file: act"

    def test_removed_nodes_keep_every_bit(self) -> None:
        """x + 0 turns −0 into 0, so it stays; x − 0 and x + (−0) go."""
        x = Node.input("x", IMAGE)
        for value, op_count in ((0.0, 1), (-0.0, 0)):
            graph = remove_dead(Graph((x,), {"y": Node(Add(), (x, const(1, value=value)))}))
            assert count(graph, Add) == op_count


class TestChoice:
    def test_the_error_bound_decides_on_the_tile(self) -> None:
        x = Node.input("x", TensorType("float32", (1, 256, 96, 96)))
        graph = Graph((x,), {"y": Node(Conv2d(padding=(1, 1, 1, 1)), (x, const(256, 256, 3, 3)))})
        chosen = []
        for max_error in (0.0, 3e-6, 1.1e-5, 1e-4):
            y = run_passes(graph, (partial(choose_conv_algorithm, max_error=max_error),)).outputs["y"].op
            assert isinstance(y, Conv2d)
            chosen.append(y.algorithm)
        assert chosen == ["im2col", "winograd_f2", "winograd_f4", "winograd_f6"]

    def test_float64_has_digits_to_spare(self) -> None:
        x = Node.input("x", TensorType("float32", (1, 256, 96, 96)))
        graph = Graph((x,), {"y": Node(Conv2d(), (x, const(256, 256, 3, 3)))}).astype("float64")
        assert 'algorithm="winograd_f6"' in str(choose_conv_algorithm(graph))

    @pytest.mark.parametrize(
        ("ci", "co", "size", "algorithm"),
        [
            (3, 64, 96, "im2col"),
            (64, 3, 96, "im2col"),
            (64, 64, 96, "winograd_f4"),
            (64, 64, 2, "winograd_f2"),  # F(4, 3) would compute 16 pixels for 4
        ],
    )
    def test_few_channels_and_small_images_do_not_pay(self, ci: int, co: int, size: int, algorithm: str) -> None:
        x = Node.input("x", TensorType("float32", (1, ci, size, size)))
        graph = Graph((x,), {"y": Node(Conv2d(padding=(1, 1, 1, 1)), (x, const(co, ci, 3, 3)))})
        assert f'algorithm="{algorithm}"' in str(choose_conv_algorithm(graph))

    def test_costs(self) -> None:
        assert winograd_cost(2, 1000, 1000, transform_cost=0) == 4 * 10**6
        assert winograd_cost(4, 1000, 1000, transform_cost=0) == 2.25 * 10**6
        assert tile_waste(4, TensorType("float32", (1, 1, 5, 8))) == 8 / 5
        assert tile_waste(4, IMAGE) == 1


class TestDriver:
    def test_a_broken_pass_is_named_and_shown(self) -> None:
        def break_it(graph: Graph) -> Graph:
            return Graph(graph.inputs, {})

        x = Node.input("x", IMAGE)
        with pytest.raises(GraphError, match=r"pass break_it failed: .*\n--- before break_it\n(.|\n)*return y=%x"):
            run_passes(Graph((x,), {"y": x}), (break_it,))

    def test_debug_and_dump(
        self, tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("GRAPHSR_DEBUG", "1")
        monkeypatch.setenv("GRAPHSR_DUMP", str(tmp_path))
        x = Node.input("x", IMAGE)
        run_passes(Graph((x,), {"y": layer(x)}), (remove_dead, partial(choose_conv_algorithm, max_error=0)))
        lines = capsys.readouterr().err.splitlines()
        assert lines == ["graphsr: pass remove_dead: no change", "graphsr: pass choose_conv_algorithm: 4 nodes"]
        files = sorted(os.listdir(str(tmp_path)))
        assert files == ["00_remove_dead.txt", "01_choose_conv_algorithm.txt"]


def test_every_golden_file_has_a_pass() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {apply.__name__ for apply in DEFAULT}
