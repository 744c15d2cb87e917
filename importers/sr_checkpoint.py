"""Checkpoints of super-resolution networks: PyTorch (.pt, .pth), safetensors, Torch7 (.t7) and Keras (.h5)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphsr.errors import GraphError, ModelError
from graphsr.model import Model
from graphsr.models import Source
from graphsr.op import Array

from . import native
from .architectures import Assumed, Recognised, recognise
from .checkpoint import Checkpoint, format_of, read_checkpoint
from .keras_layers import recognise_keras
from .torch7_network import recognise_torch7

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".t7", ".h5", ".hdf5", ".safetensors")
RANGES = {"input_range", "network_range", "mean"}
NOT_PROVENANCE = {"layer_names", "model_config", "training_config"}
"""Metadata of Keras files that is long and says nothing about their origin."""


def matches(path: Path, head: bytes) -> bool:
    """Whether this is a checkpoint, by its first bytes; by its suffix too, for a word on what is wrong with it."""
    return (format_of(head) is not None or path.suffix.lower() in SUFFIXES) and not native.matches(path, head)


def load(path: str | os.PathLike[str], **options: Any) -> Model:
    """The network of a checkpoint.

    The architecture and its sizes are read from the names and shapes of the parameters. What no file says (the
    residual scale, the pixel range, the mean, the order of sub-pixel channels) is assumed after the project that
    the names belong to, listed in `Model.assumptions`, and set by options of the same name: `res_scale`,
    `input_range`, `mean`, `shuffle` ("crd" or "dcr"), `network_range`; `scale` for MDSR; `activation` for ESPCN.

    Raises `ModelError` when the file is damaged, of another architecture, or has parameters that do not fit.
    """
    checkpoint = read_checkpoint(path)
    try:
        return build(checkpoint, options)
    except (ModelError, GraphError) as error:
        raise ModelError(f"{os.fspath(path)}: {error}") from error


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Model:
    """The network of a checkpoint that has been read; see `load`."""
    found = _recognise(checkpoint, options)
    unknown = sorted(options.keys() - found.assumed.keys())
    if unknown:
        raise ModelError(
            f"this file ({found.family}) has no option {', '.join(unknown)}; its options are {', '.join(found.assumed)}"
        )
    said = _said(checkpoint, found)
    chosen = {name: assumed.value for name, assumed in found.assumed.items()} | said | dict(options)
    tensors = _without_means(found) if RANGES & options.keys() else found.tensors
    model = found.build(**found.read, **chosen, weights=tensors, source=Source(found.family, found.layers))
    left = [name for name in found.assumed if name not in said and name not in options]
    return replace(
        model,
        inferred={name: str(value) for name, value in {"family": found.family, **found.read, **said}.items()},
        assumptions=tuple(_sentence(name, found.assumed[name]) for name in left if chosen[name] is not None),
        provenance=_provenance(checkpoint, found),
    )


def _recognise(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Recognised:
    if checkpoint.format == "Torch7":
        return recognise_torch7(checkpoint.tree, options.get("scale"))
    if checkpoint.format == "Keras HDF5":
        return recognise_keras(checkpoint.tensors)
    counters = ".num_batches_tracked"  # of batch norm in training
    kept = {name: array for name, array in checkpoint.tensors.items() if not name.endswith(counters)}
    return recognise(kept, Path(checkpoint.path).name)


def _without_means(found: Recognised) -> dict[str, Array]:
    """The parameters less EDSR's sub_mean and add_mean, which the caller's ranges replace."""
    source = Source(found.family, found.layers)
    means = tuple(f"{source.name(layer)}." for layer in ("sub_mean", "add_mean"))
    return {name: array for name, array in found.tensors.items() if not name.startswith(means)}


def _said(checkpoint: Checkpoint, found: Recognised) -> dict[str, Any]:
    """The options that a safetensors file gives in its metadata, as JSON or a word: {"res_scale": "0.1"}."""
    if checkpoint.format != "safetensors":
        return {}
    return {name: _parsed(text) for name, text in checkpoint.metadata.items() if name in found.assumed}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _sentence(name: str, assumed: Assumed) -> str:
    return f"{name}={assumed.value!r}: the file does not say; {assumed.reason}. Set {name}= to change it."


def _provenance(checkpoint: Checkpoint, found: Recognised) -> dict[str, str]:
    known = NOT_PROVENANCE | found.assumed.keys() | found.read.keys()
    told = {name: text for name, text in checkpoint.metadata.items() if name not in known}
    return {**told, "file": Path(checkpoint.path).name, "format": checkpoint.format, "sha256": checkpoint.sha256}
