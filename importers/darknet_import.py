"""cfg and weights -> model.

The cfg is built twice: once to learn what the weights file must hold, then with its numbers. See
`darknet_network.SECTIONS` for the words that are known.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphsr.errors import GraphError, ModelError
from graphsr.ir import Graph, Node
from graphsr.model import Model

from . import (  # noqa: F401  # each enters its sections
    darknet_heads,
    darknet_layers,
    darknet_merge,
    darknet_norm,
    darknet_recurrent,
    darknet_spatial,
)
from .byte_source import open_source
from .darknet_grammar import MAX_BYTES, Section, parse_cfg
from .darknet_network import Network, Settings, build, check, measure, unread, words
from .darknet_weights import ALEXEYAB, FORKS, PJREDDIE, WeightsFile

CHOICES = {"fork": FORKS, "batchnorm": ("inside", "outside"), "state": ("zero", "carried")}
OPTIONS = ("weights", "input_range", "time_steps", *CHOICES)
ONLY = {
    PJREDDIE: words("deconvolutional deconv logistic l2norm") | {"shortcut alpha", "shortcut beta"},
    ALEXEYAB: words("scale_channels sam Gaussian_yolo conv_lstm local_avgpool local_avg reorg3d empty silence implicit")
    | {"shortcut weights_type"},
}
"""Sections, and keys of sections, that only one of the forks has."""
RECURRENT = ("rnn", "crnn", "gru", "lstm", "conv_lstm")
DIFFERENT = ("batchnorm", "lstm", "gru")
"""Sections whose parameters the forks store in different order or number."""


def import_network(file: Path, options: Mapping[str, Any]) -> Model:
    """See `darknet_file.load`."""
    _check_options(file, options)
    if file.suffix.lower() == ".weights":
        raise ModelError(f"{file}: this file holds numbers only: load its .cfg, with weights={os.fspath(file)!r}")
    with open_source(file, MAX_BYTES) as source:
        data, digest = source.read(0, source.size, "cfg"), source.sha256()
    try:
        sections = parse_cfg(data)
        check(sections[1:])
        weights = WeightsFile(_weights_path(file, options))
        model = _model(sections, weights, options, file.parent)
    except (ModelError, GraphError) as error:
        raise ModelError(f"{file}: {error}") from error
    told = {"file": file.name, "format": "darknet", "sha256": digest, "weights_sha256": weights.sha256}
    return replace(model, provenance=told)


def _check_options(file: Path, options: Mapping[str, Any]) -> None:
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise ModelError(f"{file}: darknet files have no option {', '.join(unknown)}; there are {', '.join(OPTIONS)}")
    for name, choices in CHOICES.items():
        if options.get(name) not in (None, *choices):
            raise ModelError(f"{name} must be one of {', '.join(choices)}, got {options[name]!r}")
    white = options.get("input_range")
    if white is not None and (
        isinstance(white, bool) or not isinstance(white, int | float) or not 0 < white < math.inf
    ):
        raise ModelError(f"input_range must be a positive number, got {white!r}")
    steps = options.get("time_steps")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ModelError(f"time_steps must be a whole number of at least 1, got {steps!r}")


def _weights_path(file: Path, options: Mapping[str, Any]) -> Path:
    given = options.get("weights")
    path = file.with_suffix(".weights") if given is None else Path(given)
    if given is None and not path.is_file():
        raise ModelError(f"a cfg has no weights in it and there is no {path.name} beside it: give weights=")
    return path


def _model(sections: list[Section], weights: WeightsFile, options: Mapping[str, Any], folder: Path) -> Model:
    fork, reasons = _fork(sections, weights, options)
    state = options.get("state") or "zero"
    settings = Settings(fork, options.get("batchnorm") or "inside", state, options.get("time_steps"), folder)
    planned, requests = measure(sections, settings)
    network = build(sections, settings, weights.parameters(requests, fork), planned.open_sizes)
    graph = Graph((network.input, *network.states), _outputs(network))
    white = options.get("input_range") or network.net.number("input_range", 1.0)
    if white <= 0:
        raise network.net.error("white must be a positive number", "input_range")
    if any(s.name in RECURRENT for s in sections) and "state" not in options:
        reasons.append("state='zero': recurrent layers start anew in every call. Set state='carried' to make their "
                       "states inputs and outputs, as darknet keeps them between calls.")  # fmt: skip
    return Model(
        graph,
        "darknet",
        _scale(graph),
        float(white),
        _read(network, fork),
        (*network.notes, *unread(sections), *reasons),
        fixed=frozenset(network.fixed),
    )


def _read(network: Network, fork: str) -> dict[str, str]:
    """What the files say of the network. `graphsr.detection` asks for height, width and letterbox."""
    net = network.net
    height, width = (net.integer(key, 0) for key in ("height", "width"))
    return {
        "fork": fork,
        "layers": str(len(network.layers)),
        "image size": "any" if network.open_sizes else f"{height} x {width}",
        "height": str(height),
        "width": str(width),
        "letterbox": "yes" if fork == PJREDDIE or net.flag("letter_box") else "no",
    }


def _fork(sections: list[Section], weights: WeightsFile, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(fork, sentences on what was assumed when it matters)"""
    if options.get("fork"):
        return options["fork"], []
    used = {s.name for s in sections}
    used |= {f"{s.name} {key}" for s in sections for key in s.options}
    pj, ab = (sorted(used & ONLY[fork]) for fork in (PJREDDIE, ALEXEYAB))
    if pj and ab:
        both = f"{', '.join(pj)} are pjreddie's words, {', '.join(ab)} AlexeyAB's"
        return PJREDDIE, [f"fork='pjreddie': no darknet knows all of it, {both}. Set fork= to change it."]
    if pj or ab:
        return (PJREDDIE if pj else ALEXEYAB), []
    fork, depends = weights.header.fork, sorted(used & set(DIFFERENT))
    if not depends:
        return fork, []
    revision = f"the header of the weights says revision {weights.header.revision}"
    stored = f"it decides how {', '.join(depends)} are stored"
    return fork, [f"fork={fork!r}: {revision}; {stored}. Set fork= to change it."]


def _outputs(network: Network) -> dict[str, Node]:
    """The last layer and every head: one output is called "output", several by section and layer."""
    if not network.layers:
        raise network.net.error("there is no layer")
    outputs = dict(network.heads)
    if network.x not in outputs.values():
        outputs["output"] = network.x
    return outputs if len(outputs) > 1 else {"output": network.x}


def _scale(graph: Graph) -> int | None:
    """Output size over input size, for networks from images to larger images."""
    y = graph.outputs.get("output")
    if y is None or len(graph.inputs) > 1 or y.type.rank != 4:
        return None
    x = graph.inputs[0].type.shape
    for scale in range(2, 17):
        if y.type.shape == (x[0], x[1], x[2] * scale, x[3] * scale):
            return scale
    return None
