"""The memory plan: nothing that lives at the same time overlaps, and little is wasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsr.backends.plan import ALIGNMENT, Buffer, Need, Plan, plan_memory
from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import Conv2d, Relu, Shortcut


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[Node, Need]]:
    """A random program of element-wise ops on values of several sizes, with drawn needs."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    inputs = tuple(Node.input(f"x{i}", TensorType("float32", (size,))) for i, size in enumerate(sizes))
    nodes, needs = list(inputs), dict[Node, Need]()
    for _ in range(draw(st.integers(1, 12))):
        a = draw(st.sampled_from(nodes))
        b = draw(st.sampled_from([node for node in nodes if node.type == a.type]))
        node = Node(Shortcut(), (a, b)) if draw(st.booleans()) else Node(Relu(), (a,))
        nodes.append(node)
        overwrites = draw(st.sampled_from([(), tuple(range(len(node.inputs)))]))
        needs[node] = Need(draw(st.sampled_from([0, 8, 100])), overwrites, draw(st.booleans()))
    chosen = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
    return Graph(inputs, {f"y{i}": node for i, node in enumerate(chosen)}), needs


@given(drawn=graphs())
def test_what_lives_together_does_not_overlap(drawn: tuple[Graph, dict[Node, Need]]) -> None:
    graph, needs = drawn
    plan = plan_memory(graph, needs)
    placed = {buffer for buffer in [*plan.value.values(), *plan.scratch.values()] if buffer.offset is not None}
    for a in placed:
        assert a.offset is not None
        assert a.offset % ALIGNMENT == 0
        assert 0 <= a.offset <= a.offset + a.nbytes <= plan.arena_bytes
        for b in placed - {a}:
            assert b.offset is not None
            apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
            assert apart or a.last < b.first or b.last < a.first


@given(drawn=graphs())
def test_every_value_survives_until_it_is_read(drawn: tuple[Graph, dict[Node, Need]]) -> None:
    """Run the plan with the node itself as the value: what a step reads must be what was written there last."""
    graph, needs = drawn
    plan = plan_memory(graph, needs)
    holds: dict[Buffer, Node] = {}
    for step, node in enumerate(plan.order):
        for child in node.inputs:
            if child in plan.value:
                assert plan.value[child].first <= step <= plan.value[child].last
                assert same_value(holds[plan.value[child]], child, needs)
        holds[plan.value[node]] = node
    for node in graph.outputs.values():
        if node in plan.value:
            assert plan.value[node].offset is None, "an output never lies in the arena"
            assert same_value(holds[plan.value[node]], node, needs)


def same_value(held: Node, wanted: Node, needs: dict[Node, Need]) -> bool:
    """A view holds the value of its input."""
    while held is not wanted and needs[held].is_view:
        held = held.inputs[0]
    while wanted is not held and wanted in needs and needs[wanted].is_view:
        wanted = wanted.inputs[0]
    return held is wanted


@given(drawn=graphs())
def test_outputs_are_different_memory(drawn: tuple[Graph, dict[Node, Need]]) -> None:
    graph, needs = drawn
    plan = plan_memory(graph, needs)
    outputs = [plan.value[node] for node in set(graph.outputs.values()) if node in plan.value]
    assert len({id(buffer) for buffer in outputs}) == len(outputs)


@given(drawn=graphs())
def test_the_plan_is_no_smaller_than_what_lives(drawn: tuple[Graph, dict[Node, Need]]) -> None:
    graph, needs = drawn
    plan = plan_memory(graph, needs)
    assert plan.live_bytes <= plan.planned_bytes


def chain(length: int, needs: Need) -> Plan:
    x = Node.input("x", TensorType("float32", (1, 2, 64, 64)))
    node, wanted = x, {}
    for _ in range(length):
        node = Node(Relu(), (node,))
        wanted[node] = needs
    return plan_memory(Graph((x,), {"y": node}), wanted)


@pytest.mark.parametrize("length", [3, 4, 30])
def test_a_chain_takes_two_buffers(length: int) -> None:
    nbytes = 4 * 2 * 64 * 64
    assert chain(length, Need()).planned_bytes == min(2, length - 1) * nbytes + nbytes
    assert chain(length, Need(overwrites=(0,))).planned_bytes == nbytes, "in place, in the array that is returned"


def test_a_residual_network_reaches_its_largest_live_set() -> None:
    """Three buffers: the block's input, which the shortcut reads again, and the two ends of a convolution."""
    x = Node.input("x", TensorType("float32", (1, 16, 32, 32)))
    weight = Node.input("w", TensorType("float32", (16, 16, 3, 3)))

    def conv(node: Node) -> Node:
        return Node(Conv2d(padding=(1, 1, 1, 1)), (node, weight))

    body = head = conv(x)
    needs = {}
    for _ in range(8):
        inner = Node(Relu(), (conv(body),))
        body = Node(Shortcut(), (conv(inner), body))
        needs.update({inner: Need(overwrites=(0,)), body: Need(overwrites=(0, 1))})
    tail = conv(Node(Shortcut(), (conv(body), head)))
    plan = plan_memory(Graph((x, weight), {"y": tail}), needs)
    assert plan.arena_bytes == 4 * head.type.nbytes, "and the head, for the long skip"


def test_sizes_do_not_wrap() -> None:
    """A bound graph may declare far more than any machine has: the plan says so instead of overflowing."""
    x = Node.input("x", TensorType("float32", (1 << 40, 1 << 40)))
    y = Node(Relu(), (x,))
    assert plan_memory(Graph((x,), {"y": Node(Relu(), (y,))}), {}).planned_bytes == 2 * 4 << 80
