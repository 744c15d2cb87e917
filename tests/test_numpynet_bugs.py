"""What NumPyNet, the ancestor of this reference, computed wrongly: a test for each, named after it.

Gradients are held to PyTorch's with a drawn upstream gradient. NumPyNet's tests took ones everywhere and a tolerance of
0.1, so that wrong ones went unnoticed.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.detection_boxes import Candidates, suppress
from graphsr.errors import ModelError
from graphsr.importers import darknet_import  # noqa: F401  # it enters all sections in the table
from graphsr.importers.darknet_grammar import parse_cfg
from graphsr.importers.darknet_network import Settings, measure
from graphsr.importers.darknet_weights import write_weights
from graphsr.ir import Graph, Node, TensorType
from graphsr.op import OPS, Array, Op
from graphsr.ops import (
    Activation,
    AvgPool2d,
    BatchNorm,
    BatchNormTrain,
    Concat,
    DepthToSpace,
    Dropout,
    Elliot,
    Elu,
    Gru,
    HardTan,
    LogisticCost,
    Plse,
    Ramp,
    Resize,
    Shortcut,
    SmoothCost,
    Softmax,
    SoftPlus,
    SoftSign,
    Stair,
    SymmElliot,
)
from graphsr.testing import arrays, tolerance

NET = "[net]\nheight=4\nwidth=4\nchannels=4\n"


def slopes(op: Op, *inputs: Array, cotangent: Array) -> list[Array]:
    found = op.vjp(inputs, op.forward(*inputs), cotangent)
    assert all(g is not None for g in found)
    return [g for g in found if g is not None]


def torch_slopes(function: Callable[..., Any], *inputs: Array, cotangent: Array) -> list[Array]:
    torch = pytest.importorskip("torch")
    leaves = [torch.from_numpy(x).requires_grad_() for x in inputs]
    found = torch.autograd.grad(function(torch, *leaves), leaves, torch.from_numpy(cotangent))
    return [g.numpy() for g in found]


def agree(op: Op, function: Callable[..., Any], *inputs: Array, cotangent: Array) -> None:
    """Forward and gradient are PyTorch's, in double precision."""
    torch = pytest.importorskip("torch")
    expected = [function(torch, *map(torch.from_numpy, inputs)).numpy()]
    expected += torch_slopes(function, *inputs, cotangent=cotangent)
    got = [op.forward(*inputs), *slopes(op, *inputs, cotangent=cotangent)]
    for a, b in zip(got, expected, strict=True):
        atol = tolerance("float64", max(1, cotangent.size), max(1.0, float(np.abs(b).max(initial=0))) ** 2 * 100)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def loaded(folder: Path, body: str, count: int = 0) -> graphsr.Model:
    cfg = folder / "net.cfg"
    cfg.write_text(NET + body)
    cfg.with_suffix(".weights").write_bytes(write_weights([np.linspace(0.25, 1, count, dtype=np.float32)]))
    return graphsr.load(cfg)


# --- activations


def between_knots(sizes: int = 32) -> st.SearchStrategy[Array]:
    """Values that are no integers, where the pieces of the activations meet."""
    numbers = st.integers(-800, 799).map(lambda k: (k + 0.5) / 128)
    return st.lists(numbers, min_size=1, max_size=sizes).map(np.array)


GRADIENTS: dict[str, tuple[Activation, Callable[[Any, Any], Any]]] = {
    "stair": (
        Stair(),
        lambda torch, x: torch.where(x.floor() % 2 == 0, 0 * x, x - x.floor()) + (x.floor() / 2).floor(),
    ),
    "hardtan": (HardTan(), lambda torch, x: torch.nn.functional.hardtanh(x)),
    "elliot": (Elliot(), lambda torch, x: 0.5 * x / (1 + x.abs()) + 0.5),
    "symmelliot": (SymmElliot(), lambda torch, x: x / (1 + x.abs())),
    "softplus": (SoftPlus(), lambda torch, x: torch.nn.functional.softplus(x)),
    "softsign": (SoftSign(), lambda torch, x: torch.nn.functional.softsign(x)),
}


@pytest.mark.parametrize("name", GRADIENTS)
@given(data=st.data())
def test_gradient_of_six_activations(name: str, data: st.DataObject) -> None:
    """Stair, HardTan, Elliot, SymmElliot, SoftPlus and SoftSign had a wrong derivative."""
    op, function = GRADIENTS[name]
    x = data.draw(between_knots())
    agree(op, function, x, cotangent=data.draw(arrays(x.shape)).astype("float64"))


def test_hardtan_is_no_hard_sigmoid() -> None:
    assert HardTan().forward(np.array([-3.0, -0.5, 0.0, 0.5, 3.0])).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_stair_is_flat_on_even_steps() -> None:
    """The gradient was set in place between two tests, so that the flat parts got 1."""
    x = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert slopes(Stair(), x, cotangent=np.ones(6))[0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_ramp_does_not_read_what_it_has_written() -> None:
    """In place it gave 1.1·x above zero, and 0 below."""
    x = np.array([-2.0, 2.0])
    np.testing.assert_allclose(Ramp().forward(x), [-0.2, 2.2], rtol=1e-15)
    assert x.tolist() == [-2.0, 2.0]


def test_elu_is_x_above_zero() -> None:
    """The thesis has max(e^x − 1, x), which is e^x − 1 there."""
    assert Elu().forward(np.array([2.0])).tolist() == [2.0]


def test_plse_has_one_and_no_five() -> None:
    """The thesis adds 5 above 4, where the pieces then do not meet."""
    np.testing.assert_allclose(Plse().forward(np.array([4.0, 5.0])), [1.0, 1.01], rtol=1e-15)


# --- layers


@settings(max_examples=25)
@given(data=st.data())
def test_batch_normalisation_over_pixels_too(data: st.DataObject) -> None:
    """It took its statistics over the batch alone, and its gradient disagreed with autograd."""
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 4), st.integers(2, 4)))
    x, cotangent = (data.draw(arrays(shape)).astype("float64") for _ in range(2))
    scale, bias = (data.draw(arrays(shape[1:2])).astype("float64") for _ in range(2))

    def function(torch: Any, x: Any, scale: Any, bias: Any) -> Any:
        return torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True, eps=0.5)

    agree(BatchNormTrain(0.5), function, x, scale, bias, cotangent=cotangent)


def test_batch_normalisation_of_one_image_is_not_zero() -> None:
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    assert BatchNormTrain(1e-5).forward(x, np.ones(2), np.zeros(2)).any()


def test_batch_normalisation_has_running_statistics() -> None:
    x = np.full((1, 1, 1, 1), 5.0)
    y = BatchNorm(eps=0.0).forward(x, np.array([3.0]), np.array([1.0]), np.array([1.0]), np.array([4.0]))
    assert y.tolist() == [[[[7.0]]]]


def test_batch_normalisation_is_loaded_for_any_batch(tmp_path: Path) -> None:
    """The weights were given a shape with the batch in it."""
    run = loaded(tmp_path, "[batchnorm]\n", 16).compile("reference", 1)
    x = np.linspace(0, 1, 192, dtype=np.float32).reshape(3, 4, 4, 4)
    np.testing.assert_array_equal(run({"input": x})["output"][:1], run({"input": x[:1]})["output"])


def test_batch_normalize_of_a_convolution_is_read(tmp_path: Path) -> None:
    """The key was ignored, and there were no groups."""
    body = "[convolutional]\nfilters=4\ngroups=2\nbatch_normalize=1\nactivation=linear\n"
    ops = [node.op.name for node in loaded(tmp_path, body, 24).graph.nodes()]
    assert "batch_norm" in ops
    assert "conv2d" in ops


@given(st.data())
def test_mean_of_windows_with_and_without_the_padding(data: st.DataObject) -> None:
    """Padding was always left out of the mean, unlike in what it was tested against."""
    x = data.draw(arrays((1, 1, 4, 5))).astype("float64")
    for counted in (False, True):

        def function(torch: Any, x: Any, counted: bool = counted) -> Any:
            return torch.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=counted)

        op = AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=counted)
        agree(op, function, x, cotangent=data.draw(arrays((1, 1, 2, 3))).astype("float64"))


def test_dropout_has_an_inference_mode(tmp_path: Path) -> None:
    """A loaded network drops nothing; the op, which does, is for training."""
    model = loaded(tmp_path, "[dropout]\nprobability=.9\n[activation]\nactivation=relu\n")
    assert not any(isinstance(node.op, Dropout) for node in model.graph.nodes())


def test_a_shortcut_is_added_to_a_network(tmp_path: Path) -> None:
    """`Network.add(shortcut)` was a TypeError."""
    body = "[activation]\nactivation=relu\n[activation]\nactivation=tanh\n[shortcut]\nfrom=-2\nalpha=0.5\nbeta=2\n"
    assert loaded(tmp_path, body).graph.outputs["output"].op == Shortcut(0.5, 2.0)


def test_a_route_of_a_single_layer(tmp_path: Path) -> None:
    """One number that is no list was broken."""
    model = loaded(tmp_path, "[activation]\nactivation=relu\n[activation]\nactivation=tanh\n[route]\nlayers=0\n")
    assert model.graph.outputs["output"].op.name == "relu"


def test_gradient_of_a_route_along_the_batch() -> None:
    """It was an AttributeError."""
    a, b, cotangent = np.ones((1, 2)), np.ones((2, 2)), np.arange(6.0).reshape(3, 2)
    da, db = slopes(Concat(0), a, b, cotangent=cotangent)
    np.testing.assert_array_equal(np.concatenate([da, db]), cotangent)


@given(st.data())
def test_gradient_of_upsampling_is_the_sum_over_the_block(data: st.DataObject) -> None:
    """It divided by the scale and averaged."""
    x, cotangent = (data.draw(arrays(shape)).astype("float64") for shape in ((1, 2, 2, 3), (1, 2, 4, 6)))

    def function(torch: Any, x: Any) -> Any:
        return torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")

    op = Resize(scale=(2.0, 2.0), mode="nearest", coordinates="asymmetric", rounding="floor")
    agree(op, function, x, cotangent=cotangent)


def test_pixel_shuffle_in_both_orders() -> None:
    """There was TensorFlow's order only; EDSR and WDSR are in PyTorch's."""
    x = np.arange(8.0).reshape(1, 8, 1, 1)
    assert DepthToSpace(2, "dcr").forward(x)[0, 0].ravel().tolist() == [0.0, 2.0, 4.0, 6.0]
    assert DepthToSpace(2, "crd").forward(x)[0, 0].ravel().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_groups_of_a_softmax_are_heeded(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    y = loaded(tmp_path, "[softmax]\ngroups=2\n").compile("reference", 1)({"input": x})["output"]
    np.testing.assert_allclose(y.reshape(2, 32).sum(axis=1), 1, rtol=0, atol=tolerance("float32", 32))


def test_temperature_of_a_softmax_along_channels() -> None:
    x = np.arange(4.0).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(Softmax(1, 2.0).forward(x), Softmax(1).forward(x / 2), rtol=0, atol=tolerance("float64"))


@given(st.data())
def test_gradient_of_the_logistic_cost(data: st.DataObject) -> None:
    """Its δ was (t − o)·max(o·(1 − o), 1e-8): that of the squares, for a cross-entropy."""
    x, t = (data.draw(arrays((2, 3))).astype("float64") for _ in range(2))

    def function(torch: Any, x: Any, t: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="sum")

    agree(LogisticCost(), function, x, t, cotangent=np.array(data.draw(st.floats(-2, 2))))


@given(st.data())
def test_gradient_of_the_smooth_cost_in_its_outer_zone(data: st.DataObject) -> None:
    """It had the wrong sign where |x − t| > 1."""
    x, t = (data.draw(arrays((6,), 3)).astype("float64") for _ in range(2))

    def function(torch: Any, x: Any, t: Any) -> Any:
        return 2 * torch.nn.functional.huber_loss(x, t)

    agree(SmoothCost(), function, x, t, cotangent=np.array(data.draw(st.floats(-2, 2))))


def test_the_gru_has_a_gradient_and_a_name() -> None:
    """It ran forward only, and no cfg could name it."""
    assert OPS["gru"] is Gru
    assert Gru.vjp is not Op.vjp
    _, requests = measure(parse_cfg(f"{NET}[gru]\noutput=2\n".encode()), Settings("pjreddie"))
    assert sum(request.count for request in requests) == 3 * (2 * 2 + 2) + 3 * (64 * 2 + 2)


def test_a_cfg_with_yolo_is_loaded(tmp_path: Path) -> None:
    """yolov3.cfg ended in a TypeError at the first [yolo]."""
    body = "[convolutional]\nfilters=12\nactivation=linear\n[yolo]\nmask=0,1\nanchors=1,2, 3,4\nclasses=1\nnum=2\n"
    assert loaded(tmp_path, body, 60).graph.outputs["output"].op.name == "yolo_head"


def test_layers_are_counted_from_zero_without_the_input(tmp_path: Path) -> None:
    """An input layer at index 0 moved every absolute index by one."""
    model = loaded(tmp_path, "[activation]\nactivation=relu\n[activation]\nactivation=tanh\n[route]\nlayers=1\n")
    assert model.graph.outputs["output"].op.name == "tanh"


@pytest.mark.parametrize("kind", ["default", "greedynms", "diounms", "objectness"])
def test_suppression_suppresses(kind: str) -> None:
    """`do_nms_obj` and `do_nms_sort` sorted, and returned nothing."""
    boxes = np.array([[0.5, 0.5, 0.4, 0.4], [0.51, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]])
    found = Candidates(boxes, np.array([0.9, 0.8, 0.7]), np.array([[0.9], [0.8], [0.7]]))
    assert (suppress(found, 0.45, kind).scores > 0).sum() == 2


# --- all of it


def test_steepness_is_one() -> None:
    """It stood in wrong places: |x + S| for |S·x|."""
    x = np.array([1.0])
    assert Elliot().forward(x).tolist() == [0.75]
    assert SymmElliot().forward(x).tolist() == [0.5]


def test_a_model_file_runs_nothing(tmp_path: Path) -> None:
    """`load_model` unpickled whatever the file said."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    (tmp_path / "model.pt").write_bytes(pickle.dumps({"layers": Trap()}, 2))
    with pytest.raises(ModelError):
        graphsr.load(tmp_path / "model.pt")
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_is_refused() -> None:
    """Sections were passed on as keyword arguments, whatever their keys."""
    kinds = (parameter.kind for parameter in inspect.signature(Shortcut).parameters.values())
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    x = Node.input("x", TensorType("float32", (1,)))
    with pytest.raises(TypeError):
        Graph((x,), {"y": Node(Shortcut(gamma=1), (x, x))})  # type: ignore[call-arg]  # that is the test
