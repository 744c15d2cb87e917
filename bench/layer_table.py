"""Writes docs/layers.md: which layer darknet, NumPyNet, Byron, ONNX and graphsr have, and under which name.

python bench/layer_table.py --write    writes the page
python bench/layer_table.py --check    ends with 1 where the page is not what --write would give

The names of darknet and ONNX are those in the tables of the importers and graphsr's those in `OPS`; what becomes of a
darknet section is seen by loading one. The words of NumPyNet and Byron, which are not here to be asked, stand below.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from graphsr.errors import GraphsrError
from graphsr.importers import darknet_import, onnx_import  # noqa: F401  # they fill the tables of words and operators
from graphsr.importers.darknet_grammar import parse_cfg
from graphsr.importers.darknet_network import SECTIONS, Settings, measure, words
from graphsr.importers.onnx_call import OPERATORS
from graphsr.ir import Graph
from graphsr.op import OPS, Op
from graphsr.ops import Activation

ROOT = Path(__file__).resolve().parent.parent
HERE = "bench/layer_table.py"
PAGE = ROOT / "docs" / "layers.md"
sys.path.append(str(ROOT / "tests"))

from darknet_mutants import ZOO  # noqa: E402  # a cfg with every section

INTRODUCTION = """# Layers

Written by `python bench/layer_table.py --write` from the tables of the program; a test holds it to them. How a layer
is computed stands in its class (`graphsr.op.OPS[name]`): the maths, the type rule, the NumPy forward, the gradient.
Every op is held to an implementation that shares no code with it, and every gradient to finite differences in double
precision (`tests/test_ops.py`). What was wrong in NumPyNet has a test each (`tests/test_numpynet_bugs.py`).

What is said of Byron follows from publications, not from its code.
"""
AFTER_LAYERS = """
"From" names the ops that a darknet section is loaded as, where it is not the layer's own op; options, batch
normalisation and activation come on top. `rnn`, `gru` and `lstm` are unrolled when they are loaded, since darknet
normalises batches within them; the ops of these names are scans, for networks that are built here. The sections and
their options: [darknet](darknet.md).
"""
OTHERS = """## The other ops

| graphsr | ONNX | |
|---|---|---|
"""


@dataclass(frozen=True)
class Layer:
    """A row. `section` is darknet's word, `ops` graphsr's own ops, none where the layer is made of others."""

    name: str
    section: str = ""
    numpynet: str = ""
    byron: str = ""
    ops: str = ""


ACTIVATIONS = " ".join(sorted(name for name, cls in OPS.items() if issubclass(cls, Activation)))
COSTS = " ".join(sorted(name for name in OPS if name.endswith("_cost") and name != "logistic_cost"))
LAYERS = (
    Layer("input", "net", "input", "input", "input"),
    Layer("activation", "activation", "activation", "activation", f"{ACTIVATIONS} prelu"),
    Layer("convolution", "convolutional", "convolutional", "convolutional", "conv2d conv_nd"),
    Layer("transposed convolution", "deconvolutional", ops="conv_transpose2d conv_transpose_nd"),
    Layer("local connections", "local", ops="local_conv2d"),
    Layer("fully connected", "connected", "connected", "connected", "dense"),
    Layer("maximum of windows", "maxpool", "maxpool", "maxpool", "max_pool2d max_pool_nd"),
    Layer("mean of windows", "local_avgpool", "avgpool", "avgpool", "avg_pool2d avg_pool_nd"),
    Layer("mean of the image", "avgpool", ops="global_avg_pool"),
    Layer("batch normalisation", "batchnorm", "batchnorm", "batchnorm", "batch_norm batch_norm_train"),
    Layer("local response normalisation", "normalization", ops="local_response_norm"),
    Layer("L1 normalisation", "", "l1norm", "l1norm", "l1_norm"),
    Layer("L2 normalisation", "l2norm", "l2norm", "l2norm", "l2_norm"),
    Layer("dropout", "dropout", "dropout", "dropout", "dropout"),
    Layer("sum of layers", "shortcut", "shortcut", "shortcut", "shortcut add"),
    Layer("channels of several layers", "route", "route", "route", "concat split"),
    Layer("pixel shuffle", "shuffler", "shuffler", "shuffler", "depth_to_space"),
    Layer("resize", "upsample", "upsample", "upsample", "resize"),
    Layer("pixels at computed places", ops="grid_sample"),
    Layer("blocks into channels", "reorg3d", ops="space_to_depth"),
    Layer("the same, historical order", "reorg"),
    Layer("crop", "crop"),
    Layer("softmax", "softmax", "softmax", "softmax", "softmax"),
    Layer("logistic, with its cost", "logistic", "logistic", "logistic", "logistic logistic_cost"),
    Layer("cost", "cost", "cost", "cost", COSTS),
    Layer("simple recurrent layer", "", "simplernn", "simple rnn", "simple_rnn"),
    Layer("recurrent layer of three", "rnn", "rnn", "rnn", "rnn"),
    Layer("the same, convolutional", "crnn"),
    Layer("gated recurrent unit", "gru", "gru (not registered)", "", "gru"),
    Layer("long short-term memory", "lstm", "lstm", "lstm", "lstm"),
    Layer("the same, convolutional", "conv_lstm"),
    Layer("squeeze and excitation", "scale_channels", ops="mul"),
    Layer("spatial attention", "sam", ops="mul"),
    Layer("learned constant", "implicit", ops="const"),
    Layer("nothing", "empty", ops="linear"),
    Layer("YOLO v3 to v7", "yolo", "yolo", "yolo", "yolo_head"),
    Layer("YOLO with uncertainty", "Gaussian_yolo", ops="gaussian_yolo_head"),
    Layer("YOLO v2", "region", ops="region_head"),
    Layer("YOLO v1", "detection", ops="grid_head"),
)
HELPERS = words(
    """
    add cast expand full greater logistic matmul maximum minimum mul reciprocal reduce_max reduce_mean reduce_prod
    reshape shape_of slice sqrt sub transpose where
    """
)
"""Ops that operators of ONNX need besides those that they mean."""
WHOLE = {"RNN": "simple_rnn", "GRU": "gru", "LSTM": "lstm"}
"""Operators that are read as one op where it can say all that they do, and else written out in many."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--write", action="store_true", help="write docs/layers.md")
    how.add_argument("--check", action="store_true", help="compare docs/layers.md")
    options = parser.parse_args(arguments)
    try:
        text = page()
    except TableError as error:
        print(f"layer_table: {error}", file=sys.stderr)
        return 1
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE} is not current: python bench/layer_table.py --write", file=sys.stderr)
        return 1
    return 0


class TableError(GraphsrError):
    """The rows of `LAYERS` do not fit the tables of the program."""


def page() -> str:
    """The text of docs/layers.md. Raises `TableError` where rows do not fit the sections and ops that there are."""
    onnx, sections = operators_by_op(), ops_by_section()
    if wrong := list(_what_does_not_fit(LAYERS, set(sections))):
        raise TableError("; ".join(wrong))
    lines = [INTRODUCTION, "| layer | darknet | NumPyNet | Byron | ONNX | graphsr |", "|---|---|---|---|---|---|"]
    for layer in LAYERS:
        operators = sorted({name for op in layer.ops.split() for name in onnx.get(op, ())})
        theirs = (_section(layer.section), layer.numpynet, layer.byron, _code(operators))
        cells = (layer.name, *(cell or "–" for cell in theirs), _graphsr(layer, sections))
        lines.append(f"| {' | '.join(cells)} |")
    named = {op for layer in LAYERS for op in layer.ops.split()}
    rest = [
        f"| `{op}` | {_code(onnx.get(op, [])) or '–'} | {_first_words(OPS[op])} |" for op in sorted(OPS.keys() - named)
    ]
    return "\n".join([*lines, AFTER_LAYERS, OTHERS.rstrip("\n"), *rest, ""])


def _what_does_not_fit(layers: Sequence[Layer], sections: set[str]) -> Iterator[str]:
    """Sections and ops without a row, rows without either, and what is to be done in this file or in the cfg."""
    listed = {layer.section for layer in layers} - {"", "net"}
    for section in sorted(sections - listed):
        yield f"no row has darknet's [{section}]: add Layer(what it is, {section!r}, ops=its ops) to LAYERS in {HERE}"
    for section in sorted(listed - sections):
        yield f"darknet has no section [{section}]: remove it from LAYERS in {HERE}"
    for section in sorted(sections - _sections_of_the_zoo()):
        yield f"ZOO has no [{section}], so it is not known what it is loaded as: add one to tests/darknet_mutants.py"
    for layer in layers:
        for op in sorted(set(layer.ops.split()) - OPS.keys()):
            yield f"graphsr has no op {op!r}: remove it from the row {layer.name!r} of LAYERS in {HERE}, or correct it"
        if not layer.ops and not layer.section:
            yield f"the row {layer.name!r} of LAYERS has neither section nor ops: name what graphsr has for it"


def _sections_of_the_zoo() -> set[str]:
    """By the first of their names."""
    kinds = {SECTIONS[section.name].build for section in parse_cfg(ZOO.encode()) if section.name in SECTIONS}
    return {name for kind, name in _first_names().items() if kind in kinds}


def _first_names() -> dict[Callable[..., Any], str]:
    """Each kind of section under the first of its names."""
    return {kind.build: name for name, kind in reversed(SECTIONS.items())}


def _section(word: str) -> str:
    """A section under all its names."""
    if word not in SECTIONS:
        return "`net` `network`" if word else ""
    return _code([name for name, kind in SECTIONS.items() if kind.build is SECTIONS[word].build])


def _graphsr(layer: Layer, sections: dict[str, list[str]]) -> str:
    own, made = layer.ops.split(), sections.get(layer.section)
    if made is None or set(own) & set(made):
        return _code(own)
    source = f"from {_code(made)}" if made else "nothing at inference"
    return f"{_code(own)}; {source}" if own else source


def _code(words: list[str]) -> str:
    return " ".join(f"`{word}`" for word in words)


def _first_words(cls: type[Op]) -> str:
    """The first paragraph of the docstring, up to its first full stop."""
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<!al)\. ", text)[0].rstrip(".:").replace("|", "\\|")


def ops_by_section() -> dict[str, list[str]]:
    """What each section of a network that has them all is loaded as, by its first name."""
    network, _ = measure(parse_cfg(ZOO.encode()), Settings("alexeyab"))
    graph = Graph((network.input,), {str(i): node for i, node in enumerate(network.layers)})
    first = _first_names()
    found: dict[str, list[str]] = {name: [] for name in first.values()}
    for node in graph.nodes():
        word = node.origin.partition("[")[2].partition("]")[0]
        made = found.get(first[SECTIONS[word].build] if word in SECTIONS else "", [])
        if node.op.name not in ("const", *made) or (word == "implicit" and not made):
            made.append(node.op.name)
    return {word: sorted(made) for word, made in found.items()}


def operators_by_op() -> dict[str, list[str]]:
    """The operators of ONNX that are read as each op, as the functions that read them name it."""
    found: dict[str, list[str]] = {}
    for operator in sorted(OPERATORS):
        if operator in WHOLE:
            found.setdefault(WHOLE[operator], []).append(operator)
            continue
        named = {cls.name for cls in _named(OPERATORS[operator], set())}
        same = {op for op in named if op.replace("_", "") == operator.lower()}
        for op in (named - HELPERS) | same or named:
            found.setdefault(op, []).append(operator)
    return found


def _named(value: object, seen: set[object]) -> Iterator[type[Op]]:
    """The ops that a function, or a function that it calls, has the names of."""
    if isinstance(value, type) and issubclass(value, Op):
        if value in OPS.values():
            yield value
    elif isinstance(value, Op):
        yield type(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _named(item, seen)
    elif isinstance(value, dict):
        yield from _named(list(value.values()), seen)
    elif isinstance(value, FunctionType) and value not in seen:
        seen.add(value)
        names = {name for code in _codes(value.__code__) for name in code.co_names} & value.__globals__.keys()
        for name in sorted(names):
            yield from _named(value.__globals__[name], seen)
        for cell in value.__closure__ or ():
            yield from _named(cell.cell_contents, seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


if __name__ == "__main__":
    sys.exit(main())
