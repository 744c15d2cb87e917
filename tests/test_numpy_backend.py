"""The numpy backend: the equivalence suite in blocks of normal and of tiny size, and what it alone promises."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest

from graphsr.backends import blas_conv, blas_winograd, numpy_elementwise, workers
from graphsr.backends.fast_numpy import NumpyBackend, NumpyProgram
from graphsr.backends.reference import ReferenceBackend
from graphsr.backends.workers import Team, one_blas_thread
from graphsr.dim import Dim
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import Conv2d, ConvTranspose2d, DepthToSpace, Fused, Relu, Reshape, Shortcut, Softmax
from graphsr.ops.winograd import ERROR
from graphsr.testing.cases import growth, tolerance
from graphsr.testing.check import CHECKS, Check, check_backend

PAD = (1, 1, 1, 1)


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that the layers of the suite fall into many, down to parts of a row."""
    for module, name, value in (
        (blas_conv, "PIXELS", 5),
        (blas_conv, "SCRATCH", 256),
        (blas_conv, "CACHE", 8),
        (blas_winograd, "TILES", 2),
        (blas_winograd, "CHUNK", 4),
        (numpy_elementwise, "ELEMENTS", 7),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_equivalence_suite(check: Check) -> None:
    check_backend(NumpyBackend(), checks=[check])


@pytest.mark.parametrize("check", CHECKS[:6], ids=lambda check: check.__name__)
@pytest.mark.usefixtures("tiny_blocks")
def test_equivalence_suite_in_tiny_blocks(check: Check) -> None:
    check_backend(NumpyBackend(), checks=[check])


class AsWritten(NumpyBackend):
    """Without passes: each test chooses the algorithms itself."""

    passes = ()


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def image(channels: int) -> Node:
    n, h, w = (Dim.symbol(s) for s in "NHW")
    return Node.input("x", TensorType("float32", (n, channels, h, w)))


def layer(op: Op, ci: int, *weight: int) -> Graph:
    x = image(ci)
    y = Node(op, (x, Node.const(normal(*weight, seed=1) / np.float32(ci**0.5))), "layer")
    return Graph((x,), {"y": y})


LAYERS = {
    "winograd_f2": layer(Conv2d(padding=PAD, algorithm="winograd_f2"), 24, 40, 24, 3, 3),
    "winograd_f4": layer(Conv2d(padding=(0, 2, 1, 0), algorithm="winograd_f4"), 24, 40, 24, 3, 3),
    "winograd_f6": layer(Conv2d(padding=PAD, algorithm="winograd_f6"), 24, 40, 24, 3, 3),
    "im2col": layer(Conv2d(padding=PAD, algorithm="im2col"), 24, 40, 24, 3, 3),
    "im2col strided": layer(Conv2d((2, 3), (1, 0, 2, 1), (2, 1)), 8, 16, 8, 3, 3),
    "gemm 1x1": layer(Conv2d(), 24, 40, 24, 1, 1),
    "im2col grouped": layer(Conv2d(padding=PAD, groups=4), 24, 40, 6, 3, 3),
    "kn2row": layer(Conv2d(padding=(1, 0, 2, 1), dilation=(1, 2)), 40, 3, 40, 3, 3),
    "depthwise": layer(Conv2d(stride=(1, 2), padding=PAD, groups=24), 24, 24, 1, 3, 3),
    "col2im": layer(ConvTranspose2d((2, 2), PAD, output_padding=(1, 1), groups=2), 24, 24, 8, 3, 3),
}
"""By the kernel that computes it."""


@pytest.mark.parametrize("kernel", LAYERS)
@pytest.mark.parametrize("shape", [(2, 67, 93), (1, 5, 3000), (1, 4, 4)], ids=str)
def test_layers_in_blocks_of_normal_size(kernel: str, shape: tuple[int, int, int]) -> None:
    graph = LAYERS[kernel]
    n, h, w = shape
    x = normal(n, graph.inputs[0].type.shape[1], h, w)  # type: ignore[arg-type]  # the channels are known
    run = AsWritten().compile(graph, threads=2)
    y = run({"x": x})["y"]
    assert kernel.split()[0] in run.explain()
    node = graph.outputs["y"]
    exact = Graph(graph.inputs, {"y": Node(_exact(node.op), node.inputs)})
    want = ReferenceBackend("float64").compile(exact)({"x": x})["y"]
    taps = int(np.prod(node.inputs[1].type.dims[1:]))
    magnitude = float(np.abs(x).max() * np.abs(node.inputs[1].value).max())
    np.testing.assert_allclose(y, want, rtol=0, atol=tolerance("float32", taps, magnitude) * growth(node.op))


def _exact(op: Op) -> Op:
    return Conv2d(op.stride, op.padding, op.dilation, op.groups) if isinstance(op, Conv2d) else op


@pytest.mark.parametrize("kernel", LAYERS)
def test_same_bits_for_any_threads_and_place_in_the_batch(kernel: str) -> None:
    graph = LAYERS[kernel]
    x = normal(3, graph.inputs[0].type.shape[1], 61, 70)  # type: ignore[arg-type]  # the channels are known
    x[2] = x[0]
    one = AsWritten().compile(graph, threads=1)({"x": x})["y"]
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(AsWritten().compile(graph, threads=threads)({"x": x})["y"], one)
    np.testing.assert_array_equal(one[2], one[0])
    np.testing.assert_array_equal(AsWritten().compile(graph, threads=2)({"x": x[1:2]})["y"], one[1:2])


@pytest.mark.parametrize("m", ERROR)
def test_winograd_is_as_exact_as_stated(m: int) -> None:
    """`ERROR` is the largest error of one sample of normal data; that of another may be twice as large."""
    graph = layer(Conv2d(padding=PAD, algorithm=f"winograd_f{m}"), 256, 16, 256, 3, 3)
    x = normal(1, 256, 48, 48)
    y = AsWritten().compile(graph)({"x": x})["y"]
    node = graph.outputs["y"]
    want = Conv2d(padding=PAD).forward(x.astype(np.float64), node.inputs[1].value.astype(np.float64))
    assert np.abs(y - want).max() <= 2 * ERROR[m] * want.std()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", LAYERS)
def test_nan_and_infinities_are_where_plain_sums_have_them(kernel: str, value: float) -> None:
    """In a corner and in the middle of blocks, which are cut from 2 tiles to many; around them numbers stay near."""
    graph = LAYERS[kernel]
    x = normal(2, graph.inputs[0].type.shape[1], 61, 70)  # type: ignore[arg-type]  # the channels are known
    x[0, 0, 7, 11] = x[0, 0, 60, 69] = value
    node = graph.outputs["y"]
    plain = Graph(graph.inputs, {"y": Node(_exact(node.op), node.inputs)})
    got, want = AsWritten().compile(graph, threads=2)({"x": x})["y"], ReferenceBackend().compile(plain)({"x": x})["y"]
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(got), kind(want), kind.__name__)
    finite = np.isfinite(want)
    assert finite[1].all()
    assert not finite.all()
    np.testing.assert_allclose(got[finite], want[finite], rtol=0, atol=2e-4 * float(want[1].std()))


def residual_network(algorithm: str, features: int = 16, blocks: int = 3) -> Graph:
    """A small EDSR, fused as the passes would."""
    x = image(3)

    def conv(x: Node, co: int, act: Relu | None = None, skip: Node | None = None) -> Node:
        ci = x.type.shape[1]
        weight = Node.const(normal(co, ci, 3, 3) / np.float32(10))  # type: ignore[arg-type]  # ci is known
        op = Fused(Conv2d(padding=PAD, algorithm=algorithm), act, Shortcut(0.5) if skip else None)
        bias = Node.const(normal(co))
        return Node(op, (x, weight, bias, *([skip] if skip else [])))

    body = head = conv(x, features)
    for _ in range(blocks):
        body = conv(conv(body, features, act=Relu()), features, skip=body)
    up = Node(DepthToSpace(2), (conv(conv(body, features, skip=head), 4 * features),))
    return Graph((x,), {"y": conv(up, 3)})


@pytest.mark.parametrize("algorithm", ["direct", "winograd_f4"])
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_is_what_was_planned(algorithm: str, threads: int) -> None:
    """A run allocates the plan, 10 % for what NumPy and the threads take beside it, and no more; the plan is
    within 10 % of the largest live set."""
    run = AsWritten().compile(residual_network(algorithm), threads=threads)
    x = normal(1, 3, 128, 128)
    run({"x": x})
    program = run.bind({"x": x.shape})
    assert isinstance(program, NumpyProgram)
    tracemalloc.start()
    try:
        run({"x": x})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert program.planned_bytes <= 1.1 * program.plan.live_bytes
    assert peak <= 1.1 * program.planned_bytes + 100_000


def test_weights_are_transformed_once_and_freed_with_their_graph() -> None:
    backend = AsWritten()
    graph = layer(Conv2d(padding=PAD, algorithm="winograd_f4"), 8, 8, 8, 3, 3)
    run = backend.compile(graph)
    for size in (9, 12, 30):
        run({"x": normal(1, 8, size, size)})
    assert backend.weights.nbytes == 36 * 8 * 8 * 4
    del run, graph
    gc.collect()
    assert backend.weights.nbytes == 0


def test_outputs_of_every_kind_are_fresh() -> None:
    """An input, a constant, a view of either, one value under two names, a view of another output."""
    x = image(2)
    y = Node(Relu(), (x,))
    flat = (Dim.symbol("N") * 2 * Dim.symbol("H") * Dim.symbol("W"),)
    outputs = {
        "input": x,
        "constant": Node.const(np.ones(3, np.float32)),
        "view": Node(Reshape(flat), (x,)),
        "y": y,
        "again": y,
        "flat": Node(Reshape(flat), (y,)),
    }
    given = normal(1, 2, 3, 4)
    got = AsWritten().compile(Graph((x,), outputs))({"x": given})
    want = ReferenceBackend().compile(Graph((x,), outputs))({"x": given})
    arrays = [given, *got.values()]
    for i, a in enumerate(arrays):
        assert not any(np.may_share_memory(a, b) for b in arrays[i + 1 :])
    for name, array in got.items():
        np.testing.assert_array_equal(array, want[name])


def test_explain_names_the_kernels() -> None:
    run = AsWritten().compile(residual_network("winograd_f4"), threads=1)
    text = run.explain({"x": (1, 3, 64, 64)})
    assert "winograd_f4, 4 tile rows x 32 tiles per block" in text
    assert "strided copies" in text
    softmax = Graph((x := image(2),), {"y": Node(Softmax(axis=1), (x,))})
    assert "forward (no kernel)" in AsWritten().compile(softmax).explain({"x": (1, 2, 3, 4)})


def fail(unit: int, worker: int) -> None:
    raise IndexError(unit)


def test_a_team_does_every_unit_once_and_reports_errors() -> None:
    for threads in (1, 2, 5):
        with Team(threads) as team:
            done: Counter[int] = Counter()
            workers: set[int] = set()

            def work(unit: int, worker: int, done: Counter[int] = done, workers: set[int] = workers) -> None:
                done[unit] += 1
                workers.add(worker)

            team.for_each(100, work)
            assert done == Counter(range(100))
            assert workers <= set(range(threads))
            with pytest.raises(IndexError):
                team.for_each(9, fail)


def blas_threads() -> set[int]:
    """Of the libraries that NumPy may call; other tests load BLAS libraries of their own (SciPy's, PyTorch's)."""
    return {library.num_threads for library in workers._blas()}


def test_overlapping_runs_leave_blas_as_it_was() -> None:
    """Also when the run that began first ends first, in another thread."""
    before = blas_threads()
    first_is_in, first_may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with one_blas_thread():
            first_is_in.set()
            first_may_leave.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait(60)
    with one_blas_thread():
        first_may_leave.set()
        thread.join()
        assert blas_threads() <= {1}
    assert blas_threads() == before


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform")
def test_runs_in_a_forked_child() -> None:
    """A pool that a child inherited would hang: there is none between runs."""
    run = AsWritten().compile(residual_network("winograd_f4"), threads=2)
    x = normal(1, 3, 32, 32)
    want = run({"x": x})["y"]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=lambda: results.put(run({"x": x})["y"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of BLAS's own threads
        child.start()
    got = results.get()
    child.join()
    np.testing.assert_array_equal(got, want)
