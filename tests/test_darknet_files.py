"""What the darknet importer accepts, refuses and says: the grammar, the two headers, what does not fit."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphsr
from graphsr.errors import ModelError
from graphsr.importers import darknet_import  # noqa: F401  # it enters all sections in the table
from graphsr.importers.darknet_file import load, matches
from graphsr.importers.darknet_grammar import parse_cfg
from graphsr.importers.darknet_network import SECTIONS, Settings, measure
from graphsr.importers.darknet_weights import write_weights
from graphsr.ops import DepthToSpace, YoloHead

from support import ROOT

NET = "[net]\nheight=8\nwidth=8\nchannels=2\n"


def files(folder: Path, body: str, count: int | None = None, header: bytes = struct.pack("<3iQ", 0, 2, 5, 0)) -> Path:
    """net.cfg and net.weights with `count` numbers 0.25, 0.5, …"""
    cfg = folder / "net.cfg"
    cfg.write_text(NET + body)
    if count is not None:
        numbers = (np.arange(1, count + 1) / 4).astype("<f4")
        cfg.with_suffix(".weights").write_bytes(header + numbers.tobytes())
    return cfg


def parameters(model: graphsr.Model) -> dict[str, np.ndarray]:
    return {node.name: node.value for node in model.graph.nodes() if node.is_const}


def refusal(cfg: Path, **options: object) -> str:
    with pytest.raises(ModelError) as refused:
        load(cfg, **options)
    assert str(cfg) in str(refused.value)
    return str(refused.value)


# --- the grammar


def test_white_space_comments_and_the_first_of_two_keys() -> None:
    net, conv = parse_cfg(
        b"# a comment\n; another\n [ net ]\r\n\n[convolutional] # why not\nfil ters = 3 2\nfilters=7\n"
    )
    assert (net.name, conv.name, conv.line) == ("net", "convolutional", 5)
    assert conv.integer("filters", 1) == 32


@pytest.mark.parametrize(
    ("text", "value"), [("4", 4), ("4#x", 4), ("4;x", 4), ("+4", 4), ("-3", -3), ("4.0", 4), ("4.", 4)]
)
def test_numbers_are_read_as_by_atoi(text: str, value: int) -> None:
    assert parse_cfg(f"[net]\nx={text}".encode())[0].integer("x", 0) == value


@pytest.mark.parametrize("text", ["x", "4x", "0x10", "99999999999", "--1", "1e3"])
def test_no_number_is_refused_where_atoi_gives_something(text: str) -> None:
    with pytest.raises(ModelError, match=r"line 2: \[net\]: x=.*whole number"):
        parse_cfg(f"[net]\nx={text}".encode())[0].integer("x", 0)


@pytest.mark.parametrize("text", ["nan", "inf", "1e99", "1.2.3", "abc", "1e"])
def test_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="a number is expected"):
        parse_cfg(f"[net]\nx={text}".encode())[0].number("x", 0)


def test_lists_end_at_a_comment_and_may_end_in_a_comma() -> None:
    (net,) = parse_cfg(b"[net]\nanchors = 10,13,  16,30.5, # and so on\nempty = #\nwrong=1,,2")
    assert net.numbers("anchors") == (10, 13, 16, 30.5)
    assert net.integers("empty") == ()
    with pytest.raises(ModelError, match="between commas"):
        net.integers("wrong")


def test_every_line_without_meaning_is_named() -> None:
    with pytest.raises(ModelError) as refused:
        parse_cfg(b"x=1\n[net]\nheight\n=3\nwidth=\n[conv olutional\n[net]]\n")
    assert [f"line {n}:" in str(refused.value) for n in range(1, 8)] == [True, False, True, True, False, True, True]


@pytest.mark.parametrize("text", ["", "# nothing", "[convolutional]\nfilters=1"])
def test_the_first_section_is_net(text: str) -> None:
    with pytest.raises(ModelError, match=r"first section must be \[net\]"):
        parse_cfg(text.encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_sections_or_an_error(data: bytes) -> None:
    with suppress(ModelError):
        assert parse_cfg(data)[0].name in ("net", "network")


# --- what is refused, and what is only said


def test_all_that_is_unknown_or_not_supported_is_listed_at_once(tmp_path: Path) -> None:
    text = refusal(
        files(tmp_path, "[shift_channels]\n[convolutional]\nxnor=1\n[maxpool]\n[iseg]\n[lstm]\ndontload=1\n")
    )
    for words in (
        "line 5: [shift_channels]",
        "line 7: [convolutional] xnor=1",
        "line 9: [iseg]",
        "line 11: [lstm] dontload",
    ):
        assert words in text


def test_a_key_that_means_nothing_is_named(tmp_path: Path) -> None:
    body = "[maxpool]\nsize=2\nstrid=2\n[convolutional]\nxnor=0\nlearning_rate=1\nfliters=3\n"
    model = load(files(tmp_path, body, 3))
    assert [text.split(":")[0] for text in model.assumptions] == ["line 7", "line 11"]
    assert "'strid'" in model.assumptions[0]
    assert "'fliters'" in model.assumptions[1]


def test_a_key_without_a_value_is_skipped_and_named(tmp_path: Path) -> None:
    """As in darknet: a later line may give the value."""
    model = load(files(tmp_path, "[maxpool]\nsize=\nsize=2\nstride=2\nstride= # 3\n[convolutional]\nfilters =\n", 3))
    assert model.assumptions == (
        "line 6: [maxpool] size= has no value: it is ignored",
        "line 11: [convolutional] filters= has no value: it is ignored",
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[convolutional]\nfilters=3\ngroups=2\n", "line 7: [convolutional]: groups=2: 2 channels and 3 filters"),
        ("[convolutional]\nactivation=relux\n", "'relux' is not an activation; there are elu"),
        ("[convolutional]\nsize=9\n", "convolutional"),
        ("[convolutional]\nsize=2\ndilation=2\n", "odd size and pad=1"),
        ("[convolutional]\nshare_index=-1\n", "is not a convolution with weights of shape"),
        ("[route]\nlayers=0\n", "there is no layer 0 before layer 0"),
        ("[maxpool]\n[route]\nlayers=-2\n", "there is no layer -2"),
        ("[maxpool]\n[route]\n", "layers= must name"),
        ("[maxpool]\n[shortcut]\n", "from= must name"),
        ("[maxpool]\nsize=2\npadding=4\n", "in the padding altogether"),
        ("[crop]\ncrop_width=9\n", "cannot be cut from 8 x 8"),
        ("[reorg]\nstride=2\n", "2 channels do not divide by 4"),
        ("[upsample]\nstride=0\n", "must not be 0"),
        ("[softmax]\ngroups=3\n", "do not divide into 3 groups"),
        ("[yolo]\nclasses=1\n", "must have 6 channels, it has 2"),
        ("[yolo]\nmask=3\nnum=2\n", "there are 2 anchors"),
        ("[yolo]\nmask=2\nnum=2\nanchors=1,1,2,2\n", "there are 2 anchors"),
        ("[detection]\n", "boxes have coords=4"),
        ("[softmax]\ntree=/etc/passwd\n", "from the folder of the cfg only"),
        ("[softmax]\ntree=../../x\n", "from the folder of the cfg only"),
        ("[scale_channels]\nfrom=0\n", "there is no layer 0"),
        ("[maxpool]\n[scale_channels]\nfrom=0\n", "must be one per channel"),
        ("[normalization]\nsize=9\n", "does not suit 2 channels"),
        ("[conv_lstm]\nbottleneck=1\n", "bottleneck=1 is not supported"),
        ("[crnn]\nsize=3\nfork=x\n", "keeps the size of the image"),
        ("[local]\nsize=3\npad=2\n", "darknet computes only size=5"),
        ("", "there is no layer"),
    ],
)  # fmt: skip
def test_refusals_say_where_and_why(tmp_path: Path, body: str, words: str) -> None:
    assert words in refusal(files(tmp_path, body, 0))


def test_the_input_must_have_a_size(tmp_path: Path) -> None:
    cfg = tmp_path / "x.cfg"
    cfg.write_text("[net]\nheight=4\n[avgpool]\n")
    cfg.with_suffix(".weights").write_bytes(write_weights([]))
    assert "height, width and channels (or inputs)" in refusal(cfg)
    cfg.write_text("[net]\ninputs=7\n[connected]\noutput=2\n")
    cfg.with_suffix(".weights").write_bytes(write_weights([np.zeros(16)]))
    assert load(cfg).outputs["output"].shape[1:] == (2, 1, 1)


def test_sizes_stay_open_unless_a_layer_needs_them(tmp_path: Path) -> None:
    assert load(files(tmp_path, "[maxpool]\nsize=3\nstride=2\n", 0)).inferred["image size"] == "any"
    fixed = load(files(tmp_path, "[maxpool]\nsize=3\nstride=2\n[connected]\noutput=1\n", 33))
    assert fixed.inferred["image size"] == "8 x 8"


# --- weights

CONV = "[convolutional]\nfilters=3\nbatch_normalize=1\nsize=1\nactivation=linear\n"


def test_the_order_within_a_convolution(tmp_path: Path) -> None:
    found = parameters(load(files(tmp_path, CONV, 18)))
    order = ["bias", "scale", "mean", "var", "weight"]
    numbers = np.concatenate([found[f"0.convolutional.{what}"].ravel() for what in order])
    np.testing.assert_array_equal(numbers, np.arange(1, 19) / 4)


def test_the_order_within_a_connected_layer_and_its_transposed_form(tmp_path: Path) -> None:
    body = "[avgpool]\n[connected]\noutput=3\nbatch_normalize=1\n"
    found = parameters(load(files(tmp_path, body, 18)))
    order = ["bias", "weight", "scale", "mean", "var"]
    np.testing.assert_array_equal(
        np.concatenate([found[f"1.connected.{what}"].ravel() for what in order]), np.arange(1, 19) / 4
    )
    old = struct.pack("<3ii", 1001, 0, 0, 0)  # old files: a short header, and matrices by columns
    turned = parameters(load(files(tmp_path, body, 18, old), fork="pjreddie"))["1.connected.weight"]
    np.testing.assert_array_equal(turned, found["1.connected.weight"].reshape(2, 3).T)


@pytest.mark.parametrize(
    ("header", "fork"),
    [
        (struct.pack("<3iQ", 0, 2, 5, 9), "alexeyab"),
        (struct.pack("<3iQ", 0, 2, 0, 9), "pjreddie"),
        (struct.pack("<3ii", 0, 1, 0, 9), "pjreddie"),
        (struct.pack("<3ii", 925353388, 1063675494, 973279855, 0), "pjreddie"),  # vgg-16.weights
        (struct.pack("<3ii", 0, 2, 5, 9), "alexeyab"),  # against the rule, but it fits
        (struct.pack("<3iQ", 0, 1, 0, 9), "pjreddie"),
    ],
)
def test_both_headers(tmp_path: Path, header: bytes, fork: str) -> None:
    model = load(files(tmp_path, CONV, 18, header))
    assert model.inferred["fork"] == fork
    assert parameters(model)["0.convolutional.bias"][0] == 0.25


def test_batchnorm_has_a_bias_in_one_fork_only(tmp_path: Path) -> None:
    assert "0.batchnorm.bias" not in load(files(tmp_path, "[batchnorm]\n", 8), fork="alexeyab").fixed
    pj = load(files(tmp_path, "[batchnorm]\n", 6), fork="pjreddie")
    assert not parameters(pj)["0.batchnorm.bias"].any()
    assert "0.batchnorm.bias" in pj.fixed
    said = load(files(tmp_path, "[batchnorm]\n", 8)).assumptions
    assert "fork='alexeyab'" in said[0]


@pytest.mark.parametrize("count", [0, 2, 3, 17, 18, 30])
def test_a_file_that_is_too_short_names_the_layer(tmp_path: Path, count: int) -> None:
    text = refusal(files(tmp_path, CONV + "[maxpool]\n" + CONV.replace("size=1", "size=3"), count))
    assert f"the cfg takes 111 floats, the file holds {count}" in text
    first = [("bias", 3), ("scale", 3), ("mean", 3), ("var", 3), ("weight", 6)]
    sizes = [(0, 5, *size) for size in first] + [(2, 11, *size) for size in (*first[:4], ("weight", 81))]
    left = count
    for layer, line, what, size in sizes:
        if left < size:
            assert f"layer {layer} (line {line}: [convolutional]) expects {size} floats for its {what}" in text
            assert f"finds {left}" in text
            return
        left -= size


def test_a_file_that_is_too_long_and_one_that_is_cut_within_a_float(tmp_path: Path) -> None:
    cfg = files(tmp_path, CONV, 20)
    assert "2 too many after the last layer" in refusal(cfg)
    weights = cfg.with_suffix(".weights")
    weights.write_bytes(weights.read_bytes()[:-6])
    assert "holds 18 and 2 bytes" in refusal(cfg)
    weights.write_bytes(b"short")
    assert "at least 16 bytes" in refusal(cfg)


# --- options and the front door


def test_load_finds_the_weights_beside_the_cfg_or_where_it_is_told(tmp_path: Path) -> None:
    cfg = files(tmp_path, CONV, 18)
    other = cfg.with_suffix(".weights").rename(tmp_path / "other.bin")
    assert "no net.weights beside it: give weights=" in refusal(cfg)
    model = graphsr.load(cfg, weights=other)
    assert model.provenance["format"] == "darknet"
    assert model.graph.outputs["output"].origin == "darknet: [convolutional] line 5"


@pytest.mark.parametrize(
    "option",
    [
        {"input_range": 0},
        {"input_range": "x"},
        {"fork": "x"},
        {"batchnorm": "x"},
        {"state": "x"},
        {"time_steps": 0},
        {"scale": 2},
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, option: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        load(files(tmp_path, CONV, 18), **option)


def test_words_of_both_forks_are_told(tmp_path: Path) -> None:
    (said,) = load(files(tmp_path, "[logistic]\n[empty]\n", 0)).assumptions
    assert "logistic are pjreddie's words, empty AlexeyAB's" in said
    assert load(files(tmp_path, "[empty]\n", 0)).inferred["fork"] == "alexeyab"
    assert load(files(tmp_path, "[logistic]\n", 0)).inferred["letterbox"] == "yes"


def test_more_anchors_than_num_says(tmp_path: Path) -> None:
    """As in a published cfg, where darknet would read beyond its array."""
    body = "[convolutional]\nfilters=6\n[yolo]\nmask=2\nnum=2\nanchors=1,1,2,2,3,4\nclasses=1\n"
    model = load(files(tmp_path, body, 18))
    assert "all 3 anchors count" in model.assumptions[0]
    assert model.graph.outputs["output"].op == YoloHead(((3.0, 4.0),), 1)


def test_files_are_recognised_by_their_first_section(tmp_path: Path) -> None:
    assert matches(Path("x.txt"), b"\n# c\n [net]\r\nheight=1")
    assert not matches(Path("x.txt"), b"[other]\n[net]")
    (tmp_path / "a.weights").write_bytes(bytes(40))
    with pytest.raises(ModelError, match=r"load its \.cfg"):
        graphsr.load(tmp_path / "a.weights")


def test_byron_style_networks_enlarge(tmp_path: Path) -> None:
    body = "[convolutional]\nfilters=8\nsize=3\npad=1\nactivation=linear\n[shuffler]\nscale=2\norder={}\n"
    model = load(files(tmp_path, body.format("torch"), 152), input_range=255)
    assert (model.scale, model.input_range) == (2, 255.0)
    assert model.graph.outputs["output"].op == DepthToSpace(2, "crd")
    assert load(files(tmp_path, body.format("tf"), 152)).graph.outputs["output"].op == DepthToSpace(2, "dcr")


def test_a_tree_of_classes(tmp_path: Path) -> None:
    """One softmax per group of classes with the same parent (YOLO9000)."""
    (tmp_path / "my.tree").write_text("a -1\nb -1\na1 0\na2 0\na3 0\nb1 1\n")
    cfg = files(tmp_path, "[avgpool]\n[connected]\noutput=6\nactivation=linear\n[softmax]\ntree=data/my.tree\n", 18)
    y = load(cfg).compile("reference", 1)({"input": np.ones((1, 2, 8, 8), np.float32)})["output"].ravel()
    np.testing.assert_allclose([y[:2].sum(), y[2:5].sum(), y[5]], 1, rtol=1e-6)
    (tmp_path / "my.tree").write_text("a 1\nb -1\n")
    assert "earlier line" in refusal(cfg)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "crnn", "conv_lstm"])
def test_carried_states_continue_a_sequence(tmp_path: Path, name: str) -> None:
    """Two calls of one step each, with the states handed over, are one call of two steps from zero."""
    text = f"{NET}[{name}]\noutput=3\nhidden=3\npad=1\nactivation=tanh\n"
    _, requests = measure(parse_cfg(text.encode()), Settings("alexeyab"))
    count = sum(request.count for request in requests)
    cfg = tmp_path / "net.cfg"
    cfg.write_text(text)
    cfg.with_suffix(".weights").write_bytes(write_weights([np.sin(np.arange(count)) / 4]))
    x = np.cos(np.arange(256, dtype=np.float32)).reshape(2, 2, 8, 8)
    whole = load(cfg, time_steps=2, state="zero").compile("reference", 1)({"input": x})["output"]
    model = load(cfg, state="carried")
    run = model.compile("reference", 1)
    states = {k: np.zeros(t.substitute({"N": 1}).dims, np.float32) for k, t in model.inputs.items() if k != "input"}
    assert states
    for t in range(2):
        out = run({"input": x[t : t + 1], **states})
        np.testing.assert_allclose(out.pop("output")[0], whole[t], rtol=0, atol=1e-6)
        assert out.keys() == states.keys()
        states = out


def test_the_page_names_every_section() -> None:
    page = ROOT / "docs" / "darknet.md"
    if not page.is_file():
        pytest.skip("outside a checkout")
    table = page.read_text(encoding="utf-8").split("## Sections")[1].split("## Detection")[0]
    rows = (line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert sorted(word.strip("`") for row in rows for word in row.split()) == sorted(SECTIONS)
