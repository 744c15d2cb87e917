"""RNN, LSTM and GRU of ONNX files: onnxruntime and PyTorch are the oracles."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="makes ONNX files")

import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_models import Array, model, node, weight

import graphsr
from graphsr.backends.reference import ReferenceBackend
from graphsr.errors import ModelError
from graphsr.importers import darknet_import  # noqa: F401  # it enters all sections in the table
from graphsr.importers.darknet_file import load
from graphsr.importers.darknet_grammar import parse_cfg
from graphsr.importers.darknet_network import Settings, measure
from graphsr.importers.darknet_weights import write_weights
from graphsr.importers.onnx_backend import Specialised
from graphsr.importers.onnx_export import onnx_model
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source, parse
from graphsr.ops import Gru, Lstm, SimpleRnn
from graphsr.testing import tolerance

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
FUNCTIONS = {"RNN": 1, "LSTM": 3, "GRU": 2}
SCANS = {"RNN": SimpleRnn, "LSTM": Lstm, "GRU": Gru}
ACTIVATIONS = ["Tanh", "Sigmoid", "Relu", "Softsign", "HardSigmoid", "LeakyRelu"]
ALEXEYAB = Settings("alexeyab")
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def inputs_of(op_type: str, t: int, n: int, i: int, h: int, d: int, lengths: Array | None) -> dict[str, Array]:
    """All inputs, named as in the operator's description."""
    rows = GATES[op_type] * h
    named = {
        "X": weight(t, n, i),
        "W": weight(d, rows, i),
        "R": weight(d, rows, h),
        "B": weight(d, 2 * rows),
        "sequence_lens": lengths,
        "initial_h": weight(d, n, h),
    }
    if op_type == "LSTM":
        named |= {"initial_c": weight(d, n, h), "P": weight(d, 3 * h)}
    return {name: array for name, array in named.items() if array is not None}


def layer(op_type: str, arrays: dict[str, Array], opset: int = 17, **attributes: Any) -> Any:
    """A model of one operator: its parameters are weights, the sequence and the rest are inputs."""
    order = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    last = max(order.index(name) for name in arrays)
    names = " ".join(name if name in arrays else "-" for name in order[: last + 1])
    outputs = ("Y", "Y_h", "Y_c") if op_type == "LSTM" else ("Y", "Y_h")
    weights = {name: array for name, array in arrays.items() if name != "X"}
    shape = ("T", *arrays["X"].shape[1:]) if "T" in attributes.pop("open", "") else arrays["X"].shape
    made = node(op_type, names, " ".join(outputs), "cell", hidden_size=arrays["R"].shape[-1], **attributes)
    return model([made], {"X": shape}, outputs, weights, opset)


def assert_close(got: Array, want: Array, terms: int) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float32", terms, scale))


@pytest.mark.parametrize("op_type", GATES)
@FEW
@given(data=st.data())
def test_agrees_with_onnxruntime(op_type: str, data: st.DataObject) -> None:
    ort = pytest.importorskip("onnxruntime")
    t, n, i, h = (data.draw(st.integers(1, 4)) for _ in range(4))
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    lengths = data.draw(st.none() | st.lists(st.integers(1, t), min_size=n, max_size=n))
    arrays = inputs_of(op_type, t, n, i, h, d, None if lengths is None else np.array(lengths, np.int32))
    for name in ("B", "initial_h", "initial_c", "P"):
        if name in arrays and data.draw(st.booleans()):
            del arrays[name]
    attributes: dict[str, Any] = {"direction": direction}
    if data.draw(st.booleans()):
        count = FUNCTIONS[op_type] * d
        names = st.sampled_from(ACTIVATIONS)
        attributes["activations"] = data.draw(st.lists(names, min_size=count, max_size=count))
    if op_type == "GRU":
        attributes["linear_before_reset"] = data.draw(st.sampled_from([0, 1]))
    if data.draw(st.booleans()):
        attributes["clip"] = 0.5
    made = layer(op_type, arrays, data.draw(st.sampled_from([7, 14, 17])), **attributes)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(None, {"X": arrays["X"]})
    got = Specialised(Source(made), "reference")({"X": arrays["X"]})
    for expected, array in zip(want, got.values(), strict=True):
        assert_close(array, expected, 16 * t * (i + h))


@pytest.mark.parametrize("opset", [14, 22])
@pytest.mark.parametrize("op_type", GATES)
def test_layout_moves_the_batch_to_the_front(op_type: str, opset: int) -> None:
    arrays = inputs_of(op_type, 4, 3, 2, 5, 2, np.array([4, 1, 3], np.int32))
    want = Specialised(Source(layer(op_type, arrays, opset, direction="bidirectional")), "reference")(
        {"X": arrays["X"]}
    )
    moved = {k: a.swapaxes(0, 1) if k in ("X", "initial_h", "initial_c") else a for k, a in arrays.items()}
    run = Specialised(Source(layer(op_type, moved, opset, direction="bidirectional", layout=1)), "reference")
    got = run({"X": moved["X"]})
    axes = {"Y": (2, 0, 1, 3), "Y_h": (1, 0, 2), "Y_c": (1, 0, 2)}
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array.transpose(axes[name]))


@pytest.mark.parametrize("op_type", GATES)
def test_the_number_of_steps_may_be_open(op_type: str) -> None:
    arrays = inputs_of(op_type, 5, 2, 3, 4, 2, None)
    arrays.pop("P", None)
    closed, open_ = (
        build_graph(Source(layer(op_type, arrays, direction="bidirectional", open=o)), {}, {}) for o in ("", "T")
    )
    assert sum(isinstance(node.op, SCANS[op_type]) for node in open_.nodes()) == (4 if op_type == "LSTM" else 2)
    (want, got) = (ReferenceBackend().compile(graph)({"X": arrays["X"]}) for graph in (closed, open_))
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize("op_type", GATES)
def test_written_and_read_back(op_type: str) -> None:
    """import -> export -> import: the scans are there again, and compute the same."""
    arrays = inputs_of(op_type, 4, 2, 3, 5, 2, np.array([2, 4], np.int32))
    arrays.pop("P", None)
    first = build_graph(Source(layer(op_type, arrays, direction="bidirectional")), {}, {})
    second = build_graph(Source(onnx_model(first)), {}, {})
    scans = [sum(isinstance(node.op, SCANS[op_type]) for node in graph.nodes()) for graph in (first, second)]
    assert scans[1] >= scans[0] / 2 > 0  # the cells of an LSTM are written step by step
    want, got = (ReferenceBackend().compile(graph)({"X": arrays["X"]}) for graph in (first, second))
    for name in want:
        assert_close(got[name], want[name], 64)


@pytest.mark.parametrize("op_type", GATES)
def test_lengths_are_known_at_run_time_only(op_type: str) -> None:
    """And the number of steps as well: one graph, and a sequence without steps in it, whose results are zero."""
    ort = pytest.importorskip("onnxruntime")
    arrays = inputs_of(op_type, 4, 3, 2, 3, 2, np.array([4, 0, 2], np.int32))
    arrays.pop("P", None)
    made = layer(op_type, arrays, direction="bidirectional", open="T")
    made.graph.initializer.remove(next(t for t in made.graph.initializer if t.name == "sequence_lens"))
    made.graph.input.append(onnx.helper.make_tensor_value_info("sequence_lens", TensorProto.INT32, [3]))
    given = {name: arrays[name] for name in ("X", "sequence_lens")}
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    run = Specialised(Source(made), "reference")
    for expected, array in zip(session.run(None, given), run(given).values(), strict=True):
        assert_close(array, expected, 64)
    assert not run.fixed
    assert not run.by_shape


def test_parameters_that_are_inputs_take_no_memory_before_they_are_refused() -> None:
    huge = {"X": [1, 1, 1], "W": [1, 1 << 40, 1], "R": [1, 1 << 40, 1 << 40]}
    with pytest.raises(ModelError, match="max_memory"):
        build_graph(Source(model([node("RNN", "X W R", "y", "cell")], huge)), {}, {})


def test_what_is_refused_is_named() -> None:
    arrays = inputs_of("LSTM", 2, 1, 2, 3, 1, None)
    cases: dict[str, dict[str, Any]] = {
        "activation 'Swish' is none of": {"activations": ["Swish", "Tanh", "Tanh"]},
        "must name 3": {"activations": ["Tanh"]},
        "clip=-1 must be positive": {"clip": -1.0},
        "direction='sideways'": {"direction": "sideways"},
        "no default for its activation_beta": {"activations": ["Affine", "Tanh", "Tanh"], "activation_alpha": [1.0]},
        "more values than the activations": {"activation_alpha": [1.0]},
    }
    for reason, attributes in cases.items():
        with pytest.raises(ModelError, match=f"LSTM cell: .*{reason}"):
            build_graph(Source(layer("LSTM", arrays, **attributes)), {}, {})


def test_wrong_shapes_are_refused() -> None:
    for name, wrong in {"W": (1, 12, 3), "B": (1, 12), "P": (1, 4), "initial_c": (1, 2, 3)}.items():
        arrays = inputs_of("LSTM", 2, 1, 2, 3, 1, None) | {name: weight(*wrong)}
        with pytest.raises(ModelError, match="must have shape"):
            build_graph(Source(layer("LSTM", arrays)), {}, {})


def test_steps_that_are_written_out_have_a_limit() -> None:
    arrays = inputs_of("RNN", 1001, 1, 1, 1, 1, None)
    with pytest.raises(ModelError, match="1001 steps are not supported with clip"):
        build_graph(Source(layer("RNN", arrays, clip=1.0)), {}, {})
    arrays["X"] = weight(3, 1, 1)
    with pytest.raises(ModelError, match="the number of steps"):
        build_graph(Source(layer("RNN", arrays, clip=1.0, open="T")), {}, {})


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("op_type", GATES)
def test_exported_by_pytorch(op_type: str, batch_first: bool, bidirectional: bool, dynamo: bool) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript", reason="the newer exporter writes with it")
    torch.manual_seed(0)
    make = getattr(torch.nn, op_type)
    net = make(3, 4, num_layers=2, batch_first=batch_first, bidirectional=bidirectional).eval()
    stream, x = io.BytesIO(), torch.randn(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(net, (x,), stream, input_names=["x"], opset_version=18, dynamo=dynamo)
    source = Source(parse(stream.getvalue(), "exported"))
    unrolled = dynamo and op_type == "RNN"  # the newer exporter writes every step
    assert sum(node.op_type == op_type for node in source.model.graph.node) == (0 if unrolled else 2)
    with torch.no_grad():
        y, state = net(x)
    want = [y, *(state if isinstance(state, tuple) else (state,))]
    for got, expected in zip(Specialised(source, "reference")({"x": x.numpy()}).values(), want, strict=True):
        assert_close(got, expected.numpy(), 256)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "crnn", "conv_lstm"])
def test_recurrent_networks_of_darknet_are_read_back(tmp_path: Path, name: str) -> None:
    text = "[net]\nheight=4\nwidth=4\nchannels=2\ntime_steps=3\n"
    (tmp_path / "net.cfg").write_text(f"{text}[{name}]\noutput=3\nhidden=3\npad=1\nactivation=tanh\n")
    count = sum(request.count for request in measure(parse_cfg((tmp_path / "net.cfg").read_bytes()), ALEXEYAB)[1])
    (tmp_path / "net.weights").write_bytes(write_weights([weight(count) / 4]))
    loaded = load(tmp_path / "net.cfg")
    graphsr.save(loaded, tmp_path / "net.onnx")
    read_back = graphsr.load(tmp_path / "net.onnx")
    x = weight(3, 2, 4, 4)
    want, got = (each.compile("reference", 1)({"input": x})["output"] for each in (loaded, read_back))
    assert_close(got, want, 256)
