"""Networks that darknet can express come back from its files as they were; the others are refused with a list."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.importers.darknet_weights import write_weights
from graphsr.ir import Graph, Node, TensorType
from graphsr.ops import Add, Conv2d, Exp, Mish, RegionHead, Slice, SoftPlus

pytest.importorskip("torch")

from darknet_round_trip import again, run, same
from darknet_strategies import (
    DarknetCase,
    conv_recurrent,
    convolutional,
    darknet_networks,
    default_maxpool,
    recurrent,
    shortcut,
    strided_shortcut,
    tree_region,
    tree_softmax,
    upsample,
)
from darknet_torch import Darknet

from support import data_path

RECURRENT = re.compile(r"^\[(rnn|crnn|gru|lstm|conv_lstm)\]", re.MULTILINE)


@settings(max_examples=120)
@given(case=darknet_networks())
def test_round_trip(case: DarknetCase) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork)
        try:
            back = again(model, folder)
        except ModelError as error:
            if not any(word in str(error) for word in ("neither fork", "equal groups", "cuts channels only")):
                raise
            assume(False)
    same(run(model, case.x), run(back, case.x))


@settings(max_examples=30)
@given(case=darknet_networks((recurrent, conv_recurrent)))
def test_recurrent_sections_come_back(case: DarknetCase) -> None:
    """Each as its own word with the same numbers, after any number of time steps."""
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork)
        graphsr.save(model, Path(folder, "again.cfg"))
        text = Path(folder, "again.cfg").read_text()
        back = graphsr.load(Path(folder, "again.cfg"))
    assert RECURRENT.findall(text) == RECURRENT.findall(case.cfg)
    same(run(model, case.x), run(back, case.x))


@settings(max_examples=60)
@given(case=darknet_networks((convolutional, upsample, default_maxpool, shortcut, strided_shortcut)))
def test_shortcuts_of_unequal_size_come_back(case: DarknetCase) -> None:
    """With their factors, for any common channels and pixels."""
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork)
        assume("weights_type" not in case.cfg and "stride=-2" not in case.cfg and "stride = -2" not in case.cfg)
        back = again(model, folder)
    same(run(model, case.x), run(back, case.x))


@settings(max_examples=40)
@given(case=darknet_networks((tree_softmax, tree_region, convolutional)))
def test_trees_of_classes_come_back(case: DarknetCase) -> None:
    """In files beside the cfg, which the reconstruction reads as well."""
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork)
        back = again(model, folder)
        text = Path(folder, "again.cfg").read_text()
        numbers = np.frombuffer(Path(folder, "again.weights").read_bytes()[20:], "<f4")
        trees = {
            file.name: [int(line.split()[1]) for line in file.read_text().splitlines()]
            for file in Path(folder).glob("again*.tree")
        }
    outputs = run(model, case.x)
    same(outputs, run(back, case.x))
    heads = [[y.op for y in m.graph.outputs.values() if isinstance(y.op, RegionHead)] for m in (model, back)]
    assert heads[0] == heads[1]
    layers = Darknet(text, numbers, case.fork, trees=trees).run(case.x)
    same(outputs[-1:], layers[-1:])


TREE = "[net]\nchannels=3\nheight=1\nwidth=1\n[activation]\n[softmax]\ntree=mine.tree\n"


def with_tree(folder: Path, lines: str = "cat -1\ndog -1\npug 1\n") -> graphsr.Model:
    Path(folder, "net.cfg").write_text(TREE)
    Path(folder, "net.weights").write_bytes(write_weights([]))
    Path(folder, "mine.tree").write_text(lines)
    return graphsr.load(folder / "net.cfg")


def test_the_file_of_a_tree_has_a_name_that_a_cfg_can_hold(tmp_path: Path) -> None:
    """No white space and no comment, in the same folder."""
    graphsr.save(with_tree(tmp_path), tmp_path / "my net; 2 é.cfg")
    assert (tmp_path / "my_net__2__.tree").read_text() == "class0 -1\nclass1 -1\nclass2 0\n"
    assert graphsr.load(tmp_path / "my net; 2 é.cfg").graph.outputs["output"].type.shape[1] == 3


def test_a_tree_replaces_no_other_file(tmp_path: Path) -> None:
    """Nothing is written then; a second time the same tree is there already."""
    model = with_tree(tmp_path)
    (tmp_path / "again.tree").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match=r"again\.tree.*another file"):
        graphsr.save(model, tmp_path / "again.cfg")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "again.tree").read_text() == "mine"
    graphsr.save(model, tmp_path / "again.cfg", overwrite=True)
    assert (tmp_path / "again.tree").read_text() == "class0 -1\nclass1 -1\nclass2 0\n"
    for _ in range(2):
        graphsr.save(model, tmp_path / "again.cfg")
    assert len(list(tmp_path.iterdir())) == len(before) + 2


SMALL = "[convolutional]\nfilters={}\nsize=2\nstride=2\n", 2
"""A layer of half the size, and the side of its kernel."""
EQUAL = "[convolutional]\nfilters={}\nsize=1\n", 1
LARGE = "[deconvolutional]\nfilters={}\nsize=2\nstride=2\n", 2


@pytest.mark.parametrize(("first", "second"), [(EQUAL, SMALL), (SMALL, LARGE), (EQUAL, EQUAL)])
@pytest.mark.parametrize("filters", [(4, 6), (6, 4)])
def test_an_unequal_shortcut_is_one_section_again(
    first: tuple[str, int], second: tuple[str, int], filters: tuple[int, int], tmp_path: Path
) -> None:
    """The layer that is added may be the larger or the smaller one, and have more or fewer channels."""
    (before, k1), (after, k2), (n1, n2) = first, second, filters
    section = "[shortcut]\nfrom=0\nalpha=0.5\nbeta=3\nactivation=leaky\n"
    cfg = tmp_path / "net.cfg"
    cfg.write_text("[net]\nchannels=2\nheight=8\nwidth=8\n" + before.format(n1) + after.format(n2) + section)
    count = n1 * (1 + 2 * k1 * k1) + n2 * (1 + n1 * k2 * k2)
    cfg.with_suffix(".weights").write_bytes(write_weights([np.linspace(-1, 1, count, dtype=np.float32)], "pjreddie"))
    model = graphsr.load(cfg)
    back = again(model, tmp_path)
    assert section in (tmp_path / "again.cfg").read_text()
    x = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(1, 2, 8, 8)
    same(run(model, x), run(back, x))


@settings(max_examples=40)
@given(case=darknet_networks((recurrent, conv_recurrent)))
def test_states_that_are_carried_come_back(case: DarknetCase) -> None:
    """darknet keeps them from call to call: it is the same cfg, read with state="carried"."""
    with tempfile.TemporaryDirectory() as folder:
        model = graphsr.load(case.write(folder), fork=case.fork, state="carried")
        graphsr.save(model, Path(folder, "again.cfg"))
        text = Path(folder, "again.cfg").read_text()
        back = graphsr.load(Path(folder, "again.cfg"), state="carried")
    assert RECURRENT.findall(text) == RECURRENT.findall(case.cfg)
    steps = int(re.findall(r"time_steps=(\d)", case.cfg)[0])
    values = [case.x.astype(np.float64)]
    for state in model.graph.inputs[1:]:
        shape = (len(case.x) // steps, *(size for size in state.type.shape[1:] if isinstance(size, int)))
        values.append(np.linspace(-0.5, 0.5, int(np.prod(shape))).reshape(shape))
    outputs = []
    for m in (model, back):
        assert len(m.graph.inputs) == len(values)
        named = dict(zip(m.graph.input_types(), values, strict=True))
        outputs.append(list(graphsr.Model(m.graph.astype("float64"), "").compile("reference", 1)(named).values()))
    same(*outputs)


def test_a_second_input_is_refused(tmp_path: Path) -> None:
    a, b = (Node.input(name, TensorType("float32", (1, 2, 4, 4))) for name in ("first", "second"))
    model = graphsr.Model(Graph((a, b), {"output": Node(Add(), (a, b))}), "test")
    with pytest.raises(ModelError, match=r"one input.*first, second"):
        graphsr.save(model, tmp_path / "x.cfg")


def test_yolo_fastest_comes_back_the_same(tmp_path: Path) -> None:
    """Every section is written as it was read: the weights are equal byte by byte."""
    cfg = data_path("darknet/yolo-fastest-1.1.cfg")
    model = graphsr.load(cfg)
    back = again(model, tmp_path)
    assert (tmp_path / "again.weights").read_bytes()[20:] == cfg.with_suffix(".weights").read_bytes()[20:]
    assert back.inferred["height"] == model.inferred["height"]
    x = np.linspace(0, 1, 3 * 64 * 96, dtype=np.float32).reshape(1, 3, 64, 96)
    a, b = (m.compile("reference", 1)({"input": x}).values() for m in (model, back))
    for x1, x2 in zip(a, b, strict=True):
        np.testing.assert_array_equal(x1, x2)


@pytest.mark.parametrize("name", ["wdsr-x2", "wdsr-x4"])
def test_a_super_resolution_network(name: str, tmp_path: Path) -> None:
    """Weight normalisation is folded, means become convolutions of one weight per channel, white is kept."""
    model = graphsr.load(name)
    back = again(model, tmp_path)
    assert (back.scale, back.input_range) == (model.scale, model.input_range)
    x = np.linspace(0, model.input_range, 3 * 9 * 7, dtype=np.float32).reshape(1, 3, 9, 7)
    same(run(model, x), run(back, x))


@settings(max_examples=10)
@given(eps=st.sampled_from([1e-5, 1e-3, 1e-6]), form=st.sampled_from(["inside", "outside"]))
def test_batch_normalisation_with_another_epsilon(eps: float, form: str) -> None:
    from graphsr.ops import BatchNorm

    x = Node.input("input", TensorType("float32", (1, 2, 4, 4)))
    values = [np.array(v, np.float32) for v in ([1, 2], [0.5, -1], [0.25, 3], [0.5, 2])]
    y = Node(BatchNorm(eps, form), (x, *(Node.const(v) for v in values)))
    model = graphsr.Model(Graph((x,), {"output": y}), "test", input_range=1.0)
    image = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 2, 4, 4)
    with tempfile.TemporaryDirectory() as folder:
        same(run(model, image), run(again(model, folder), image))


def test_everything_that_darknet_lacks_is_listed(tmp_path: Path) -> None:
    x = Node.input("input", TensorType("float32", (1, 1, 8, 8)))
    weight = Node.const(np.ones((1, 1, 3, 2), np.float32))
    y = Node(Conv2d(), (x, weight), "wide", "drawn by hand")
    y = Node(Mish(), (y,), "fine")
    y = Node(SoftPlus(), (y,), "steep")
    y = Node(Slice((1,), (4,), (2,), (1,)), (Node(Exp(), (y,), "exp"),), "cut")
    with pytest.raises(ModelError, match="cannot express") as refused:
        graphsr.save(graphsr.Model(Graph((x,), {"output": y}), "test"), tmp_path / "x.cfg")
    text = str(refused.value)
    assert all(word in text for word in ("wide", "drawn by hand", "steep", "exp", "cut"))
    assert "fine" not in text
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    """graphsr convert writes both files; graphsr info reads them, with the weights at another place."""
    from graphsr import cli

    assert cli.main(["convert", "wdsr-x2", str(tmp_path / "wdsr.cfg")]) == 0
    assert cli.main(["info", str(tmp_path / "wdsr.cfg")]) == 0
    weights = (tmp_path / "wdsr.weights").rename(tmp_path / "moved")
    assert cli.main(["info", str(tmp_path / "wdsr.cfg")]) == 3
    assert cli.main(["info", str(tmp_path / "wdsr.cfg"), "--weights", str(weights)]) == 0
    assert cli.main(["convert", "wdsr-x2", str(tmp_path / "wdsr.pt")]) == 2


@pytest.mark.parametrize("cfg_exists", [False, True])
def test_the_command_replaces_weights_only_when_told(cfg_exists: bool, tmp_path: Path) -> None:
    """The output names the cfg alone: nobody has said that the file beside it may go."""
    from graphsr import cli

    weights, cfg = tmp_path / "mine.weights", tmp_path / "mine.cfg"
    weights.write_bytes(b"trained for weeks")
    if cfg_exists:
        cfg.write_text("[net]")
    command = ["convert", "wdsr-x2", str(cfg)]
    assert cli.main(command) == 2
    assert weights.read_bytes() == b"trained for weeks"
    assert cli.main([*command, "--overwrite"]) == 0
    assert weights.read_bytes() != b"trained for weeks"
