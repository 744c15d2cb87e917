"""Keras weight files of EDSR and WDSR (krasserm/super-resolution and its many copies).

Such a file has no useful layer names ("conv2d_121"), but its layers in order. So the network is recognised by the
sequence of its convolutions. Kernels are HWIO; with weight norm (TensorFlow Addons) a layer has kernel = v,
g [Co], and a flag `initialized` that is false as long as g is to be set to ‖v‖ at the first call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphsr import models
from graphsr.errors import ModelError
from graphsr.models import DIV2K_MEAN
from graphsr.op import Array

from .architectures import WDSR_RES_SCALE, Assumed, Recognised, ranges, residual_scale, shuffle_factor


@dataclass(frozen=True)
class Layer:
    """A convolution: its name in the file, and [Co, Ci, Kh, Kw]."""

    name: str
    shape: tuple[int, int, int, int]

    @property
    def features(self) -> int:
        return self.shape[0]

    @property
    def kernel(self) -> int:
        return self.shape[2]


def recognise_keras(tensors: Mapping[str, Array]) -> Recognised:
    """The network of a Keras file, from its tensors "layer/kernel", … in the order of the layers.

    Raises `ModelError` when there are other layers than convolutions, or their sequence is not EDSR's or WDSR's.
    """
    layers: dict[str, dict[str, Array]] = {}
    for name, array in tensors.items():
        layer, _, weight = name.rpartition("/")
        layers.setdefault(layer, {})[weight] = array
    foreign = [f"{name} ({', '.join(weights)})" for name, weights in layers.items() if not _is_convolution(weights)]
    if foreign:
        raise ModelError(
            f"only convolutions are expected in a Keras file of EDSR or WDSR, got {'; '.join(foreign[:8])}"
        )
    convs: list[Layer] = []
    renamed: dict[str, Array] = {}
    for name, weights in layers.items():
        parameters = _parameters(weights)
        renamed |= {f"{name}.{parameter}": array for parameter, array in parameters.items()}
        convs.append(Layer(name, next(iter(parameters.values())).shape))
    return recognise_layers(convs, renamed)


def _is_convolution(weights: Mapping[str, Array]) -> bool:
    plain, normed = {"kernel", "bias"}, {"kernel", "bias", "g", "initialized"}
    return weights.keys() in (plain, normed, normed - {"initialized"}) and weights["kernel"].ndim == 4


def _parameters(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of a layer as PyTorch would name and lay them out; the one that is shaped like the kernel first."""
    kernel = weights["kernel"].transpose(3, 2, 0, 1)  # HWIO -> OIHW
    if "g" not in weights or not np.all(weights.get("initialized", True)):
        return {"weight": kernel, "bias": weights["bias"]}
    return {"weight_v": kernel, "weight_g": weights["g"].reshape(-1, 1, 1, 1), "bias": weights["bias"]}


def recognise_layers(convs: Sequence[Layer], tensors: Mapping[str, Array]) -> Recognised:
    """The network that a sequence of convolutions makes.

    WDSR has one 5x5 convolution from the image, the skip. Raises `ModelError` when the sequence is neither.
    """
    if len(convs) < 3:
        raise ModelError(f"{len(convs)} convolutions are neither EDSR nor WDSR")
    skips = [layer for layer in convs[1:] if layer.kernel == 5 and layer.shape[1] == convs[0].shape[1]]
    if len(skips) == 1:
        return _wdsr([layer for layer in convs if layer is not skips[0]], skips[0], tensors)
    return _edsr(convs, tensors)


def _wdsr(convs: Sequence[Layer], skip: Layer, tensors: Mapping[str, Array]) -> Recognised:
    """head, N blocks of two (A) or three (B) convolutions, tail; and the skip."""
    head, *inner, _ = convs
    kind_b = bool(inner) and inner[0].kernel == 1
    places = (0, 2, 3) if kind_b else (0, 2)
    blocks = _blocks(inner, len(places))
    read = {
        "scale": shuffle_factor(skip.features, 3, skip.name),
        "blocks": blocks,
        "features": head.features,
        "weight_norm": f"{head.name}.weight_v" in tensors,
    }
    if blocks:
        read["expanded"] = inner[0].features
    if kind_b:
        read["linear"] = inner[1].features
    names = [f"body.{i}.body.{k}" for i in range(blocks) for k in places]
    layers = dict(zip(["head.0", *names, "tail.0", "skip.0"], [layer.name for layer in (*convs, skip)], strict=True))
    build = models.wdsr_b if kind_b else models.wdsr_a
    return Recognised("Keras WDSR", build, read, _assumed(WDSR_RES_SCALE), tensors, layers)


def _edsr(convs: Sequence[Layer], tensors: Mapping[str, Array]) -> Recognised:
    """head, N blocks of two convolutions, end of body, upsampling convolutions (n -> 4n or 9n), tail."""
    head, *inner, tail = convs
    stages: list[Layer] = []
    while inner and inner[-1].features > head.features:
        stages.insert(0, inner.pop())
    if not inner:
        raise ModelError("the convolutions of this Keras file are not those of EDSR: none closes the body")
    *inner, end = inner
    blocks = _blocks(inner, 2)
    factors = [shuffle_factor(stage.features, head.features, stage.name) for stage in stages]
    read = {"scale": prod(factors), "blocks": blocks, "features": head.features}
    names = ["head.0", *(f"body.{i}.body.{k}" for i in range(blocks) for k in (0, 2)), f"body.{blocks}"]
    names += [*(f"tail.0.{2 * i}" for i in range(len(stages))), "tail.1"]
    layers = dict(zip(names, [layer.name for layer in (head, *inner, end, *stages, tail)], strict=True))
    return Recognised("Keras EDSR", models.edsr, read, _assumed(residual_scale(read)), tensors, layers)


def _assumed(res_scale: Assumed) -> dict[str, Assumed]:
    normalisation = ranges(255.0, 2.0, DIV2K_MEAN, "krasserm/super-resolution computes on (x − 255·mean) / 127.5")
    shuffle = Assumed("dcr", "TensorFlow's order of sub-pixel channels")
    return normalisation | {"res_scale": res_scale, "shuffle": shuffle}


def _blocks(inner: Sequence[Layer], per_block: int) -> int:
    blocks, rest = divmod(len(inner), per_block)
    if rest:
        raise ModelError(f"{len(inner)} convolutions do not divide into residual blocks of {per_block}")
    return blocks
