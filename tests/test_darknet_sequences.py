"""Recurrent ops that did not come from darknet are its sections where it has them, and refused with the reason else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import Array, Op
from graphsr.ops import (
    Add,
    Dense,
    Gru,
    Leaky,
    Linear,
    Logistic,
    Lstm,
    MatMul,
    Relu,
    Reshape,
    Rnn,
    SimpleRnn,
    Tanh,
    Transpose,
)

pytest.importorskip("torch")

from darknet_round_trip import run, same
from darknet_torch import Darknet

PARAMETERS = {Lstm: (4, 1, 2), Gru: (3, 2, 1), Rnn: (1, 2, 1), SimpleRnn: (1, 1, 1)}
"""Gates, biases and states of each op."""


def drawn(draw: st.DrawFn, *shape: int) -> Array:
    """Small numbers, none of them 0."""
    block = np.frombuffer(draw(st.binary(min_size=16, max_size=16)), np.int8).astype(np.float32)
    return np.resize((block + 0.5) / 128, shape).astype(np.float32)


@st.composite
def sections(draw: st.DrawFn) -> tuple[Op, bool]:
    """An op that darknet has, and whether a layer with its activation must stand behind it."""
    gates, zrh = ("".join(draw(st.permutations(order))) for order in ("ifgo", "zrh"))
    f, shortcut = draw(st.sampled_from([Tanh(), Relu(), Linear(), Leaky()])), draw(st.booleans())
    behind = not isinstance(f, Relu | Linear) or draw(st.booleans())
    return draw(
        st.sampled_from(
            [
                (Lstm(gates), False),
                (Gru(zrh, "before", Tanh()), False),
                (Gru(zrh, "before", Logistic()), False),
                (Rnn(f, shortcut), behind),
                (SimpleRnn(Linear()), draw(st.booleans())),
            ]
        )
    )


def layer(draw: st.DrawFn, x: Node, op: Op, hidden: int) -> Node:
    gates, biases, states = PARAMETERS[type(op)]
    size = x.type.dims[2]
    shapes = [(gates * hidden, size), (gates * hidden, hidden), *[(gates * hidden,)] * biases]
    parameters = [Node.const(drawn(draw, *shape)) for shape in shapes]
    zeros = [Node.const(np.zeros((x.type.dims[1], hidden), np.float32))] * states
    return Node(op, (x, *parameters, *zeros), "recurrent")


def connected(draw: st.DrawFn, x: Node, weight: Node, bias: Node) -> Node:
    """As our op, or as other formats have it: a product and a sum, behind an axis of size 1 that has moved."""
    if draw(st.booleans()):
        return Node(Dense(), (x, weight, bias), "layer")
    steps, batch, size = x.type.shape
    x = Node(Transpose((0, 2, 1, 3)), (Node(Reshape((steps, 1, batch, size)), (x,)),), "moved")
    x = Node(Reshape((steps, batch, size)), (x,))
    return Node(Add(), (bias, Node(MatMul(), (x, Node.const(weight.value.T)), "product")), "sum")


@st.composite
def networks(draw: st.DrawFn) -> tuple[graphsr.Model, Array]:
    """One or two recurrent layers, of sequences or of images with a row for each step; and an input."""
    steps, batch, size = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    if draw(st.booleans()):
        image = Node.input("input", TensorType("float32", (steps, batch, size)))
        y = image
    else:
        image = Node.input("input", TensorType("float32", (steps * batch, size, 1, 1)))
        y = Node(Reshape((steps, batch, size)), (image,))
    for _ in range(draw(st.integers(1, 2))):
        op, behind = draw(sections())
        y = layer(draw, y, op, draw(st.integers(1, 3)))
        if behind or draw(st.booleans()):
            outputs = draw(st.integers(1, 3))
            bias, weight = Node.const(drawn(draw, outputs)), Node.const(drawn(draw, outputs, y.type.dims[2]))
            y = connected(draw, y, weight, bias)
            if isinstance(op, Rnn | SimpleRnn):
                y = Node(op.activation, (y,), "activation")
    return graphsr.Model(Graph((image,), {"output": y}), "test", input_range=1.0), drawn(draw, *image.type.dims)


@settings(max_examples=100)
@given(case=networks())
def test_a_recurrent_op_is_a_section(case: tuple[graphsr.Model, Array]) -> None:
    """Read by us, and by the reconstruction in PyTorch as the fork that wrote it and as the other one would."""
    model, x = case
    with tempfile.TemporaryDirectory() as folder:
        cfg = Path(folder, "net.cfg")
        graphsr.save(model, cfg)
        back = graphsr.load(cfg)
        text, content = cfg.read_text(), cfg.with_suffix(".weights").read_bytes()
    rows = x.reshape(-1, x.shape[-1] if x.ndim == 3 else x.shape[1], 1, 1)
    want, got = run(model, x), run(back, rows)
    same(want, [y.reshape(w.shape) for y, w in zip(got, want, strict=True)])
    layers = Darknet(text, np.frombuffer(content[20:], "<f4"), back.inferred["fork"]).run(rows)
    same(want, [layers[-1].reshape(want[0].shape)])


def refused(op: Op, tmp_path: Path, state: float = 0.0) -> str:
    gates, biases, states = PARAMETERS[type(op)]
    x = Node.input("input", TensorType("float32", (2, 1, 3)))
    shapes = [(gates * 2, 3), (gates * 2, 2), *[(gates * 2,)] * biases]
    parameters: list[Any] = [Node.const(np.ones(shape, np.float32)) for shape in shapes]
    parameters += [Node.const(np.full((1, 2), state, np.float32))] * states
    y = Node(op, (x, *parameters), "mine")
    with pytest.raises(ModelError, match="mine") as error:
        graphsr.save(graphsr.Model(Graph((x,), {"output": y}), "test"), tmp_path / "x.cfg")
    assert not list(tmp_path.iterdir())
    return str(error.value)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (Lstm(output="cell"), "its state and not its cell"),
        (Gru(reset="after"), "resets the state before"),
        (Gru(activation=Relu()), "tanh or the logistic function"),
        (Rnn(Tanh()), "a layer with the same activation behind the states"),
        (SimpleRnn(), "not what goes into one f"),
    ],
)
def test_what_darknet_has_in_another_form_is_refused_with_the_reason(op: Op, reason: str, tmp_path: Path) -> None:
    assert reason in refused(op, tmp_path)


@pytest.mark.parametrize("op", [Lstm(), Gru(), Rnn(Relu())])
def test_another_start_than_zeros_is_refused(op: Op, tmp_path: Path) -> None:
    assert "begin with zeros" in refused(op, tmp_path, state=0.5)
