"""Which network a set of weights belongs to: by the names of the parameters, sizes from their shapes.

Each family is one project's way to name the layers of an architecture. Its reader gets the tensors of a file and
returns a `Recognised`: the builder, the sizes that were read, what the file does not say, and the file's layer
name for every canonical one. Nothing here trusts the file; that the weights fit is checked by the builder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt, prod
from typing import Any, TypeAlias

import numpy as np

from graphsr import models
from graphsr.errors import ModelError
from graphsr.model import Model
from graphsr.models import DIV2K_MEAN
from graphsr.op import Array

Tensors: TypeAlias = "Mapping[str, Array]"


@dataclass(frozen=True)
class Assumed:
    """The value of a builder's argument that the file does not hold, and why it is taken."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Recognised:
    """What a file turned out to hold."""

    family: str
    """Such as "BasicSR"."""
    build: Callable[..., Model]
    read: Mapping[str, Any]
    """The builder's arguments that the file gives."""
    assumed: Mapping[str, Assumed]
    """The builder's arguments that it does not give: the options of `load`."""
    tensors: Tensors
    layers: Mapping[str, str] = field(default_factory=dict)
    """The file's name of a layer or parameter by its canonical name, where the two differ."""


REFUSED = (
    (r"\.conv_du\.", "RCAN"),
    (r"RRDB_trunk\.|\.rdb1\.|\.RDB1\.", "ESRGAN (RRDB)"),
    (r"relative_position_bias_table", "SwinIR or another transformer"),
    (r"^(conv_)?upconv1\.|^upconv1\.", "MSRResNet"),
    (r"^RDBs\.|^SFENet1\.", "RDN"),
)
"""Networks that are known and not supported: a pattern of their keys, and the name for the error."""


def recognise(tensors: Tensors, file_name: str = "") -> Recognised:
    """Find the family of a checkpoint by its keys (PyTorch, safetensors); the file's name is only a hint.

    Raises `ModelError` when it is a network that we do not know, or know and do not support.
    """
    for pattern, name in REFUSED:
        if any(re.search(pattern, key) for key in tensors):
            raise ModelError(f"this is a checkpoint of {name}, which is not supported; supported are {SUPPORTED}")
    for reader in (_mdsr, _wdsr_ntire2018, _ychfan_wdsr, _mmagic, _basicsr, _edsr_pytorch, _srresnet, _espcn):
        found = reader(tensors)
        if found is not None:
            is_super_image = found.build is models.edsr and re.fullmatch(r"pytorch_model_[234]x\.(pt|bin)", file_name)
            return _super_image(found) if is_super_image else found
    shown = ", ".join(list(tensors)[:8]) + (" …" if len(tensors) > 8 else "")
    raise ModelError(f"no supported architecture has these parameters: {shown}; supported are {SUPPORTED}")


SUPPORTED = (
    "EDSR and MDSR (EDSR-PyTorch, BasicSR, mmagic, torchSR, super-image, Torch7, Keras), "
    "WDSR-A and WDSR-B (wdsr_ntire2018, ychfan/wdsr, Keras), SRResNet (leftthomas/SRGAN), ESPCN"
)


def _edsr_pytorch(t: Tensors) -> Recognised | None:
    """head.0, body.i.body.{0,2}, body.N, tail.0.{0,2,…}, tail.1: also torchSR and super-image."""
    if not (_any(t, r"head\.0\.") and _any(t, r"tail\.[01]\.")):
        return None
    blocks = _count(t, r"body\.(\d+)\.body\.")
    stages = [f"tail.0.{k}" for k in range(0, _count(t, r"tail\.0\.(\d+)\."), 2)]
    inner = [f"body.{i}.body.{k}" for i in range(blocks) for k in (0, 2)]
    read = _edsr_sizes(t, ["head.0", *inner, f"body.{blocks}"], stages, blocks)
    return Recognised("EDSR-PyTorch", models.edsr, read, edsr_ranges(t.get("sub_mean.bias")) | _common(read), t)


def _super_image(found: Recognised) -> Recognised:
    """super-image (eugenesiow) has EDSR-PyTorch's keys and holds the means, but does not apply them."""
    used = {name: array for name, array in found.tensors.items() if not name.startswith(("sub_mean.", "add_mean."))}
    reason = "the file's name is that of super-image, which computes on 0..1 and subtracts nothing"
    assumed = ranges(1.0, None, (0.0, 0.0, 0.0), reason) | _common(found.read)
    return Recognised("super-image", found.build, found.read, assumed, used)


def _mdsr(t: Tensors) -> Recognised | None:
    """EDSR-PyTorch's MDSR: pre_process.s.{0,1}, upsample.s; one file for several scales."""
    if not _any(t, r"pre_process\."):
        return None
    blocks = _count(t, r"body\.(\d+)\.body\.")
    inner = [f"body.{i}.body.{k}" for i in range(blocks) for k in (0, 2)]
    features = _width(t, "head.0", *inner, f"body.{blocks}")
    scales = []
    for s in range(_count(t, r"upsample\.(\d+)\.")):
        stages = [f"upsample.{s}.{k}" for k in range(0, _count(t, rf"upsample\.{s}\.(\d+)\."), 2)]
        scales.append(_scale(t, stages, features))
    pre_blocks = _count(t, r"pre_process\.\d+\.(\d+)\.")
    read = {"blocks": blocks, "features": features, "pre_blocks": pre_blocks, "scales": tuple(scales)}
    assumed = mdsr_scale(scales) | edsr_ranges(t.get("sub_mean.bias")) | _common(read)
    return Recognised("EDSR-PyTorch", models.mdsr, read, assumed, t)


def mdsr_scale(scales: Sequence[int]) -> dict[str, Assumed]:
    """Which scale of an MDSR file is loaded when the caller does not say."""
    if not scales:
        raise ModelError("this MDSR checkpoint holds no upsampler (upsample.0 …): is the file complete?")
    return {"scale": Assumed(min(scales), f"the file holds the scales {', '.join(map(str, scales))}")}


def _basicsr(t: Tensors) -> Recognised | None:
    """conv_first, body.i.conv{1,2}, conv_after_body, upsample.{0,2}, conv_last; (x − mean)·255 inside."""
    if not (_any(t, r"conv_first\.") and _any(t, r"conv_after_body\.")):
        return None
    stages = [f"upsample.{k}" for k in range(0, _count(t, r"upsample\.(\d+)\."), 2)]
    limits = ranges(1.0, 255.0, DIV2K_MEAN, "BasicSR takes 0..1 and computes on 0..255 less the mean")
    return _conv_first("BasicSR", t, stages, limits)


def _mmagic(t: Tensors) -> Recognised | None:
    """As BasicSR, but upsample.i.upsample_conv, and x − mean without a factor."""
    if not (_any(t, r"conv_first\.") and _any(t, r"upsample\.\d+\.upsample_conv\.")):
        return None
    stages = [f"upsample.{i}.upsample_conv" for i in range(_count(t, r"upsample\.(\d+)\.upsample_conv\."))]
    return _conv_first("mmagic", t, stages, ranges(1.0, None, DIV2K_MEAN, "mmagic computes on 0..1 less the mean"))


def _conv_first(family: str, t: Tensors, stages: list[str], limits: Mapping[str, Assumed]) -> Recognised:
    blocks = _count(t, r"body\.(\d+)\.conv")
    layers = {"head.0": "conv_first", f"body.{blocks}": "conv_after_body", "tail.1": "conv_last"}
    for i in range(blocks):
        layers |= {f"body.{i}.body.0": f"body.{i}.conv1", f"body.{i}.body.2": f"body.{i}.conv2"}
    layers |= {f"tail.0.{2 * i}": stage for i, stage in enumerate(stages)}
    wide = [layers[name] for name in layers if not name.startswith("tail.")]
    read = _edsr_sizes(t, wide, stages, blocks)
    return Recognised(family, models.edsr, read, dict(limits) | _common(read), t, layers)


def _wdsr_ntire2018(t: Tensors) -> Recognised | None:
    """head.0, body.i.body.{0,2} (A) or {0,2,3} (B), tail.0, skip.0; with weight norm or fused."""
    if not (_any(t, r"skip\.0\.") and _any(t, r"(head|tail)\.0\.")):
        return None
    blocks = _count(t, r"body\.(\d+)\.body\.")
    layers = {name: name for name in ("head.0", "tail.0", "skip.0")}
    layers |= {f"body.{i}.body.{k}": f"body.{i}.body.{k}" for i in range(blocks) for k in (0, 2, 3)}
    limits = ranges(255.0, 2.0, DIV2K_MEAN, "wdsr_ntire2018 computes on (x − 255·mean) / 127.5")
    return _wdsr("wdsr_ntire2018", t, blocks, layers, limits)


def _ychfan_wdsr(t: Tensors) -> Recognised | None:
    """body.0 (head), body.{1…N}.body.{0,2}, body.{N+1} (tail), skip.0; the residual scale is in weight_g."""
    if not (_any(t, r"skip\.0\.") and _any(t, r"body\.0\.")):
        return None
    blocks = _count(t, r"body\.(\d+)\.body\.", first=1)
    layers = {"head.0": "body.0", "tail.0": f"body.{blocks + 1}", "skip.0": "skip.0"}
    layers |= {f"body.{i}.body.{k}": f"body.{i + 1}.body.{k}" for i in range(blocks) for k in (0, 2)}
    limits = ranges(1.0, 1.0, (0.5, 0.5, 0.5), "ychfan/wdsr computes on 0..1 less 0.5")
    return _wdsr("ychfan/wdsr", t, blocks, layers, limits)


def _wdsr(family: str, t: Tensors, blocks: int, layers: Mapping[str, str], limits: Mapping[str, Assumed]) -> Recognised:
    """Sizes of a WDSR, and its names with the two spellings of weight norm in PyTorch."""
    inner = [[layers[f"body.{i}.body.{k}"] for i in range(blocks) if f"body.{i}.body.{k}" in layers] for k in (0, 2, 3)]
    kind_b = any(_has(t, layer) for layer in inner[2])
    read: dict[str, Any] = {
        "scale": shuffle_factor(_width(t, layers["skip.0"], layers["tail.0"]), 3, layers["skip.0"]),
        "blocks": blocks,
        "features": _width(t, layers["head.0"], *inner[2 if kind_b else 1]),
        "weight_norm": any(key.endswith((".weight_v", NEW_V)) for key in t),
    }
    if blocks:
        read["expanded"] = _width(t, *inner[0])
    if kind_b:
        read["linear"] = _width(t, *inner[1])
    names = dict(layers)
    if any(key.endswith(NEW_V) for key in t):
        for canonical, layer in layers.items():
            names |= {f"{canonical}.weight_g": f"{layer}{NEW_G}", f"{canonical}.weight_v": f"{layer}{NEW_V}"}
    build = models.wdsr_b if kind_b else models.wdsr_a
    return Recognised(family, build, read, dict(limits) | {"res_scale": WDSR_RES_SCALE, "shuffle": SHUFFLE}, t, names)


def _srresnet(t: Tensors) -> Recognised | None:
    """leftthomas/SRGAN: block1.{0,1}, block{i}.{conv1,bn1,prelu,conv2,bn2}, block{N-1}.{0,1}, block{N}."""
    if not (_any(t, r"block1\.0\.") and _any(t, r"block2\.conv1\.")):
        return None
    blocks = _count(t, r"block(\d+)\.conv1\.", first=2)
    end, tail = f"block{blocks + 2}", f"block{blocks + 3}"
    read = {
        "scale": 2 ** min(_count(t, rf"{tail}\.(\d+)\.conv\."), 6),
        "blocks": blocks,
        "features": _width(t, "block1.0", *(f"block{i}.conv1" for i in range(2, blocks + 2)), f"{end}.0"),
        "body_end": "batch_norm" if _any(t, rf"{end}\.1\.running_") else "prelu",
    }
    return Recognised("leftthomas/SRGAN", models.srresnet, read, {"shuffle": SHUFFLE}, t)


def _espcn(t: Tensors) -> Recognised | None:
    """Three spellings of a chain of convolutions that ends in a pixel shuffle."""
    chains = (
        ("yjn870/ESPCN-pytorch", ("first_part.0", "first_part.2", "last_part.0"), "tanh"),
        ("Lornatang/ESPCN-PyTorch", ("feature_maps.0", "feature_maps.2", "sub_pixel.0"), "tanh"),
        ("leftthomas/ESPCN", ("conv1", "conv2", "conv3", "conv4"), "relu"),
    )
    fitting = [chain for chain in chains if _has(t, chain[1][0]) and _has(t, chain[1][-1])]
    if not fitting:
        return None
    family, chain, activation = fitting[0]
    first = t.get(f"{chain[0]}.weight")
    channels = first.shape[1] if first is not None and first.ndim == 4 else 1
    if channels not in (1, 3):
        raise ModelError(f"{chain[0]} takes {channels} channels, expected 1 (luma) or 3 (RGB)")
    features = tuple(_width(t, layer) for layer in chain[:-1])
    read = {
        "scale": shuffle_factor(_width(t, chain[-1]), channels, chain[-1]),
        "channels": channels,
        "features": features,
    }
    layers = {f"first_part.{2 * i}": layer for i, layer in enumerate(chain[:-1])} | {"last_part.0": chain[-1]}
    assumed = {"activation": Assumed(activation, f"{family} uses {activation}"), "shuffle": SHUFFLE}
    return Recognised(family, models.espcn, read, assumed, t, layers)


NEW_G, NEW_V = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
WDSR_RES_SCALE = Assumed(1.0, "the published networks were trained without one")
SHUFFLE = Assumed("crd", "PyTorch's order of sub-pixel channels")


def edsr_ranges(bias: Array | None) -> dict[str, Assumed]:
    """EDSR-PyTorch's range, from sub_mean.bias = −range·mean; torchSR's and super-image's files say 255 as well."""
    if bias is None or bias.shape != (3,) or bias.dtype.kind != "f" or not np.isfinite(bias).all():
        return ranges(255.0, None, DIV2K_MEAN, "EDSR-PyTorch computes on 0..255 less the mean")
    white = 255.0 if np.abs(bias).max() > 1 else 1.0
    reason = (
        "it fits sub_mean.bias in EDSR-PyTorch and torchSR; only super-image, whose files look the same, "
        "needs input_range=1, mean=(0, 0, 0)"
    )
    return ranges(white, None, [round(-float(value) / white, 6) for value in bias], reason)


def ranges(white: float, network: float | None, mean: Iterable[float], reason: str) -> dict[str, Assumed]:
    """Arguments of the builders' normalisation; network None is the same as white."""
    values = {"input_range": white, "network_range": network, "mean": tuple(mean)}
    return {name: Assumed(value, reason) for name, value in values.items()}


def _common(read: Mapping[str, Any]) -> dict[str, Assumed]:
    """The residual scale and the order of sub-pixel channels."""
    return {"res_scale": residual_scale(read), "shuffle": SHUFFLE}


def residual_scale(read: Mapping[str, Any]) -> Assumed:
    """The published rule: 0.1 for the large EDSR, else none (EDSR-PyTorch's option --res_scale)."""
    if (read["features"], read["blocks"]) == (256, 32):
        return Assumed(0.1, "the published network with 32 blocks of 256 features uses it")
    return Assumed(1.0, "only the published network with 32 blocks of 256 features uses another one")


def _edsr_sizes(t: Tensors, wide: Iterable[str], stages: list[str], blocks: int) -> dict[str, Any]:
    features = _width(t, *wide)
    return {"scale": _scale(t, stages, features), "blocks": blocks, "features": features}


def _scale(t: Tensors, stages: Iterable[str], features: int) -> int:
    """Π √(Co/features) over the convolutions in front of the pixel shuffles."""
    return prod(shuffle_factor(_width(t, stage), features, stage) for stage in stages)


def shuffle_factor(channels: int, per_pixel: int, layer: str) -> int:
    """r, where a layer has per_pixel·r² channels."""
    r = isqrt(channels // per_pixel) if per_pixel else 0
    if not r or per_pixel * r * r != channels:
        raise ModelError(f"{layer} has {channels} output channels, expected {per_pixel}·r² for a pixel shuffle by r")
    return r


def _width(t: Tensors, *layers: str) -> int:
    """The number of output channels that most of these layers have: one damaged layer does not decide."""
    widths = Counter(_channels(t, layer) for layer in layers)
    del widths[0]
    if not widths:
        raise ModelError(f"the parameters of {' and '.join(layers[:2])} are missing: is the file complete?")
    return widths.most_common(1)[0][0]


def _channels(t: Tensors, layer: str) -> int:
    """Output channels of a convolution by its weight or bias; 0 when the file holds neither."""
    for suffix in (".weight", ".weight_v", NEW_V, ".bias"):
        array = t.get(layer + suffix)
        if array is not None and array.size and array.ndim == (1 if suffix == ".bias" else 4):
            return array.shape[0]
    return 0


def _has(t: Tensors, layer: str) -> bool:
    return any(f"{layer}{suffix}" in t for suffix in (".weight", ".weight_v", NEW_V, ".bias"))


def _any(t: Tensors, pattern: str) -> bool:
    return any(re.match(pattern, key) for key in t)


def _count(t: Tensors, pattern: str, first: int = 0) -> int:
    """How many from `first` to the largest number at the pattern's group; never more than there are tensors."""
    found = [int(match[1]) for key in t if (match := re.match(pattern, key)) and len(match[1]) < 9]
    return max(min(max(found, default=first - 1) + 1 - first, len(t)), 0)
