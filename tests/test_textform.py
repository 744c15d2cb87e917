"""The text form: printed and read back it is the same graph; anything else is a GraphError with the line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from graphsr.dim import Dim
from graphsr.errors import GraphError
from graphsr.ir import DTYPES, Graph, Node, TensorType, replace_node
from graphsr.op import Array
from graphsr.ops import Clip, Conv2d, Fused, Leaky, Relu, Reshape, Shortcut, Slice
from graphsr.passes import DEFAULT, run_passes
from graphsr.testing import GraphCase, graphs, networks
from graphsr.textform import INLINE, node_names, parse_graph, print_op

CASES = graphs() | networks()
NAMES = st.text(max_size=8) | st.sampled_from(["", "12", "a", "a_2", "a.b/c-d", "%", '"', "\\", "x = y", "# no", "²"])
drawn = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def constants(graph: Graph) -> dict[str, Array]:
    """The arrays that the text form leaves out, by the names that it prints."""
    names = node_names(graph)
    return {names[node]: node.value for node in graph.nodes() if node.is_const and node.value.size > INLINE}


def read_back(graph: Graph) -> Graph:
    """print ∘ parse ∘ print = print, and what the text does not show is the same too."""
    again = parse_graph(str(graph), constants(graph))
    assert str(again) == str(graph)
    for a, b in zip(graph.nodes(), again.nodes(), strict=True):
        assert (a.type, " ".join(a.origin.split())) == (b.type, b.origin)
        if a.is_const:
            assert a.value.tobytes() == b.value.tobytes()
        else:
            assert a.op == b.op
    return again


@drawn
@given(case=CASES)
def test_random_graphs(case: GraphCase) -> None:
    read_back(case.graph)
    read_back(run_passes(case.graph, DEFAULT))
    read_back(case.graph.bind(case.shapes))


@drawn
@given(case=graphs(max_steps=2), names=st.lists(NAMES, min_size=1), origins=st.lists(NAMES, min_size=1))
def test_any_names(case: GraphCase, names: list[str], origins: list[str]) -> None:
    """Names and origins come from files: whatever they hold, the text stays one line per node and can be read."""
    count = iter(range(10**6))

    def rename(old: Node, new: Node) -> Node:
        i = next(count)
        return Node(new.op, new.inputs, names[i % len(names)], origins[i % len(origins)])

    graph = case.graph.map(rename)
    graph = Graph(graph.inputs, {names[i % len(names)] + str(i): y for i, y in enumerate(graph.outputs.values())})
    again = read_back(graph)
    assert list(again.outputs) == list(graph.outputs)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_small_constants_carry_every_bit(dtype: str, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, INLINE))
    kind = np.dtype(dtype)
    raw = data.draw(st.binary(min_size=size * kind.itemsize, max_size=size * kind.itemsize))
    array = np.frombuffer(raw, np.uint8) % 2 if dtype == "bool" else np.frombuffer(raw, kind)
    array = array.astype(kind)
    array = np.where(np.isnan(array), np.array(np.nan, kind), array) if kind.kind == "f" else array  # one NaN of many
    shape = data.draw(st.sampled_from([(size,), (1, size, 1)] + ([()] if size == 1 else [])))
    again = read_back(Graph((), {"y": Node.const(array.reshape(shape), "c")}))
    assert (again.outputs["y"].value.dtype, again.outputs["y"].value.shape) == (kind, shape)


def test_attributes_of_every_kind() -> None:
    h = Dim.symbol("H")
    for op, text in (
        (Conv2d(), "conv2d()"),
        (Conv2d(groups=2, algorithm="im2col"), 'conv2d(groups=2, algorithm="im2col")'),
        (Leaky(1e-05), "leaky(slope=1e-05)"),
        (Clip(-1.0, np.inf), "clip(low=-1.0)"),
        (Clip(), "clip()"),
        (Reshape((2 * h - 1, -1)), "reshape(shape=(2*H-1, -1))"),
        (
            Slice((None, -1), (h, None), (0, 1), (1, -1)),
            "slice(starts=(None, -1), stops=(H, None), axes=(0, 1), steps=(1, -1))",
        ),
        (
            Fused(Conv2d(), Relu(), Shortcut(0.5)),
            "fused(base=conv2d(), activation=relu(), residual=shortcut(alpha=0.5))",
        ),
    ):
        assert print_op(op) == text


X = "%x = input() : float32[N, 3, H, W]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must end in a line 'return"),
        (X, "must end in a line 'return"),
        (X + "return", "must end in a line 'return"),
        (X + "return ", "line 2: an output name is missing"),
        (X + "return y=", "line 2: expected 'node'"),
        (X + "return y=%z", "line 2: output 'y' returns the unknown node %z"),
        (X + "return y=%x, y=%x", "line 2: .*two outputs"),
        (X + X + "return y=%x", "line 2: node %x is defined twice"),
        ("%y = relu(%x) : float32[1]\nreturn y=%y", "line 1: node %x is used before it is defined"),
        (X + "%y = relo(%x) : float32[N, 3, H, W]\nreturn y=%y", "line 2: unknown op 'relo'"),
        (X + "%y = relu(%x) : float32[N, 4, H, W]\nreturn y=%y", "line 2: %y is declared"),
        (X + "%y = relu(%x, slope=1) : float32[N, 3, H, W]\nreturn y=%y", "line 2: relu: .*slope"),
        (X + "%y = relu() : float32[N, 3, H, W]\nreturn y=%y", "line 2: relu 'y'"),
        (X + '%y = pad(%x, padding="a") : float32[N, 3, H, W]\nreturn y=%y', "line 2: pad 'y'"),
        (X + "%y = pad(%x, padding=(1, 2)) : float32[N, 3, H, W]\nreturn y=%y", "line 2: pad 'y'"),
        ("%c = const() : float32[9]\nreturn y=%c", "line 1: the array of constant %c .* is missing"),
        ("%c = const(values=(1.0,)) : float32[2]\nreturn y=%c", "line 1: constant %c is .* but has 1 values"),
        ('%c = const(values=("a",)) : float32[1]\nreturn y=%c', "line 1: constant %c"),
        ("%c = const(values=(300,)) : uint8[1]\nreturn y=%c", "line 1: constant %c"),
        ("%c = const(values=(1.0,)) : float32[H]\nreturn y=%c", "line 1: constant %c"),
        ("%x = input() : float99[1]\nreturn y=%x", "line 1: dtype 'float99'"),
        ("%x = input() : float32[-1]\nreturn y=%x", "line 1: negative size"),
        ("%x = input() : float32[1.5]\nreturn y=%x", "line 1: a size must be"),
        ("%x = input() : float32[True]\nreturn y=%x", "line 1: a size must be"),
        ("%x = input() : float32[H//0]\nreturn y=%x", "line 1: .*divides by zero"),
        ("%x = input() : float32[H*1.5]\nreturn y=%x", "line 1: .*mixes a size"),
        ("%x = input() : float32[1]]\nreturn y=%x", "line 1: expected 'end'"),
        ("%x = input() : float32[@]\nreturn y=%x", "line 1: cannot read '@\\]'"),
        (f"%x = input() : float32[{'(' * 99}1{')' * 99}]\nreturn y=%x", "line 1: values are nested too deeply"),
        (f"%x = input() : float32[{'-(' * 99}1{')' * 99}]\nreturn y=%x", "line 1: values are nested too deeply"),
        (f"%x = input() : float32[{'9' * 9999}]\nreturn y=%x", "line 1: the number 9+… is too large"),
        (f"%x = input() : float32[{'*'.join(f'(A{i}+B{i})' for i in range(40))}]\nreturn y=%x", "line 1: .*many terms"),
        (f"%x = input() : float32[{'*'.join(['9' * 19] * 999)}]\nreturn y=%x", "line 1: .*too large"),
    ],
)
def test_faults_are_named_with_their_line(text: str, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        parse_graph(text)


SEEDS = [
    X + '%y = pad(%x, padding=(1, 0, 1, 0), mode="reflect", value=1e-3) : float32[N, 3, H+2, W]  # a\nreturn y=%y',
    X + "%2 = reshape(%x, shape=(N, 3*H*W)) : float32[N, 3*H*W]\n"
    "%y = slice(%2, starts=(None,), stops=(-1,), axes=(1,), steps=(2,)) : float32[N, (3*H*W)//2]\nreturn y=%y",
    X + "%w = const(values=(1.0, -2.0, inf)) : float32[1, 3, 1, 1]\n"
    "%y = fused(%x, %w, base=conv2d(stride=(2, 1)), activation=leaky(slope=0.1)) : float32[N, 1, (H-1)//2+1, W]\n"
    "return y=%y",
    X + "%y = split(%x, axis=1, sizes=(1, 2), index=1) : float32[N, 2, H, W]\n"
    "%z = depth_to_space(%y, block=1) : float32[N, 2, H, W]\nreturn y=%y, z=%z",
    X + '%y = resize(%x, scale=(2.0, 2.0), mode="cubic") : float32[N, 3, 2*H, 2*W]\nreturn "y"=%y',
    X + "%y = reduce_mean(%x, axes=(2, 3)) : float32[N, 3, 1, 1]\n%z = concat(%y, %y, axis=1) : float32[N, 6, 1, 1]\n"
    "%v = avg_pool2d(%z, kernel=(1, 1), padding=(0, 0, 0, 0)) : float32[N, 6, 1, 1]\nreturn y=%v",
]
TOKENS = ["0", "-1", "1.5", "H", "(", ")", "[", "]", ",", "=", "%x", "None", "True", "inf", "nan", '"', "*", "//", "-"]
TOKENS += [
    "conv2d()",
    "relu()",
    "()",
    "(1,)",
    "(1, 1)",
    "99999999999999999999",
    "1e999",
    "min(H, 3)",
    "max",
    "#",
    "\n",
    ":",
]


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A legal text with a few pieces cut out, doubled, exchanged, or replaced by other tokens."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        a, b = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        b = min(b, a + draw(st.integers(0, 12)))
        piece = draw(st.sampled_from(["", text[a:b] * 2, *TOKENS]))
        text = text[:a] + piece + text[b:]
    return text


@settings(max_examples=1000, deadline=None)
@given(text=mutations() | st.text(alphabet='%xyHW=()[]:,."-+*/ \n0123456789acdefnortuv#\\', max_size=80))
@example('%x = input() : float32[1]\nreturn "\\ud800"=%x')
def test_hostile_text_is_a_graph_or_a_graph_error(text: str) -> None:
    try:
        graph = parse_graph(text)
    except GraphError:
        return
    read_back(graph)


def test_given_arrays_are_checked() -> None:
    text = "%c = const() : float32[9]\nreturn y=%c"
    for wrong in (np.zeros(9), np.zeros(8, np.float32), np.zeros((9, 1), np.float32)):
        with pytest.raises(GraphError, match=r"constant %c: expected float32\[9\]"):
            parse_graph(text, {"c": wrong})


def test_unnamed_nodes_stay_unnamed() -> None:
    x = Node.input("x", TensorType("float32", (3,)))
    graph = Graph((x,), {"y": Node(Relu(), (replace_node(Node(Relu(), (x,))),))})
    assert [node.name for node in read_back(graph).nodes()] == ["x", "", ""]
