"""EDSR and MDSR as Torch7 saved them (LimBee/NTIRE2017): a tree of nn and cudnn modules.

The tree is first read as a chain of parts (convolution, ReLU, pixel shuffle, factor, skip connection, branches);
the chain is then matched with the two networks. The residual scale is in the file, as nn.MulConstant.

    EDSR: conv1x1, conv, skip(block…, conv), (conv, shuffle)…, conv, conv1x1      block = skip(conv, ReLU, conv[, ·s])
    MDSR: conv1x1, conv, branches(block, block), skip(block…, conv), branches((conv, shuffle)…, conv),
          branches(conv1x1): one branch per scale; the networks of the NTIRE challenge lack the first branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

from graphsr import models
from graphsr.errors import ModelError
from graphsr.op import Array

from .architectures import SHUFFLE, Recognised, edsr_ranges, mdsr_scale
from .torch7 import Torch7Object

MAX_PARTS = 100_000
"""A file can name one module many times; an EDSR of 32 blocks has 300 parts."""
MAX_DEPTH = 50


@dataclass(frozen=True)
class Conv:
    """A convolution; `path` is its place in the tree and its name in errors."""

    path: str
    features: int


@dataclass(frozen=True)
class Relu:
    """nn.ReLU"""


@dataclass(frozen=True)
class Shuffle:
    """nn.PixelShuffle"""

    factor: int


@dataclass(frozen=True)
class Factor:
    """nn.MulConstant"""

    value: float


@dataclass(frozen=True)
class Skip:
    """x + chain(x): ConcatTable{chain, Identity}, CAddTable"""

    chain: Chain


@dataclass(frozen=True)
class Branches:
    """One chain per scale: ParallelTable, or ConcatTable without a sum."""

    chains: tuple[Chain, ...]


Part: TypeAlias = "Conv | Relu | Shuffle | Factor | Skip | Branches"
Chain: TypeAlias = "tuple[Part, ...]"


def recognise_torch7(tree: object, scale: int | None) -> Recognised:
    """EDSR or MDSR from the tree of a .t7 file; `scale` chooses the branch of an MDSR, by default its smallest.

    Raises `ModelError` that names the module or part which does not belong to these networks.
    """
    walk = _Walk()
    chain = walk.chain(tree, "", 0)
    match chain:
        case (Conv() as sub, Conv() as head, Skip(body), *up, Conv() as tail, Conv() as add):
            layers, read = _edsr(head, body, tuple(up), tail)
            means = {"sub_mean": sub.path, "add_mean": add.path}
            build, choice = models.edsr, {}
        case (Conv() as sub, Conv() as head, *pre, Skip(body), Branches(tails), Branches(adds)) if len(pre) <= 1:
            scales = tuple(prod(part.factor for part in tail if isinstance(part, Shuffle)) for tail in tails)
            choice = mdsr_scale(scales)
            branch = _branch(scales, choice["scale"].value if scale is None else scale)
            layers, read = _mdsr(head, _of(pre, branch), body, tails[branch])
            (add,) = _convs(_of([Branches(adds)], branch), 1)
            means = {"sub_mean": sub.path, "add_mean": add.path}
            read |= {"scales": (scales[branch],)}
            build = models.mdsr
            walk.keep({*layers.values(), *means.values()})
        case _:
            raise ModelError(f"this Torch7 network is neither EDSR nor MDSR: {_outline(chain)}")
    assumed = choice | edsr_ranges(walk.tensors.get(f"{means['sub_mean']}.bias")) | {"shuffle": SHUFFLE}
    return Recognised("Torch7", build, read, assumed, walk.tensors, means | layers)


def _edsr(head: Conv, body: Chain, up: Chain, tail: Conv) -> tuple[dict[str, str], dict[str, Any]]:
    """Canonical layer names -> paths, and the sizes."""
    layers, read = _body(body)
    convs, factors = _upsampling(up)
    layers |= {"head.0": head.path, "tail.1": tail.path}
    layers |= {f"tail.0.{2 * i}": conv.path for i, conv in enumerate(convs)}
    return layers, {"scale": prod(factors), "features": head.features, **read}


def _mdsr(head: Conv, pre: Chain, body: Chain, tail: Chain) -> tuple[dict[str, str], dict[str, Any]]:
    """The same for one branch of an MDSR, which becomes branch 0."""
    layers, read = _body(body)
    last = tail[-1] if tail else None
    if not isinstance(last, Conv):
        raise ModelError(f"a branch of MDSR ends in a convolution, got {_outline(tail)}")
    convs, _ = _upsampling(tail[:-1])
    layers |= {"head.0": head.path, "tail.0": last.path}
    layers |= {f"upsample.0.{2 * i}": conv.path for i, conv in enumerate(convs)}
    for i, block in enumerate(pre):
        first, second, res_scale = _block(block)
        if res_scale != 1:
            raise ModelError(f"{first.path}: a 5x5 block of MDSR with the residual scale {res_scale} is not supported")
        layers |= {f"pre_process.0.{i}.body.0": first.path, f"pre_process.0.{i}.body.2": second.path}
    return layers, {"features": head.features, "pre_blocks": len(pre), **read}


def _body(body: Chain) -> tuple[dict[str, str], dict[str, Any]]:
    """block…, conv"""
    *blocks, end = body or (None,)
    if not isinstance(end, Conv):
        raise ModelError(f"the body ends in a convolution, got {_outline(body)}")
    layers = {f"body.{len(blocks)}": end.path}
    scales = set()
    for i, block in enumerate(blocks):
        first, second, res_scale = _block(block)
        layers |= {f"body.{i}.body.0": first.path, f"body.{i}.body.2": second.path}
        scales.add(res_scale)
    if len(scales) > 1:
        raise ModelError(f"the residual blocks have different scales ({sorted(scales)}), expected one")
    return layers, {"blocks": len(blocks), "res_scale": scales.pop() if scales else 1.0}


def _block(part: Part) -> tuple[Conv, Conv, float]:
    """The two convolutions of a residual block and its scale."""
    match part:
        case Skip((Conv() as first, Relu(), Conv() as second)):
            return first, second, 1.0
        case Skip((Conv() as first, Relu(), Conv() as second, Factor(value))):
            return first, second, value
    raise ModelError(f"a residual block is skip(conv, relu, conv[, factor]), got {_outline((part,))}")


def _upsampling(up: Chain) -> tuple[list[Conv], list[int]]:
    """(conv, shuffle)…"""
    convs, shuffles = _convs(up[::2], (len(up) + 1) // 2), up[1::2]
    factors = [part.factor for part in shuffles if isinstance(part, Shuffle)]
    if len(up) % 2 or len(factors) != len(shuffles):
        raise ModelError(f"the upsampler is (conv, shuffle)…, got {_outline(up)}")
    return convs, factors


def _convs(chain: Chain, count: int) -> list[Conv]:
    convs = [part for part in chain if isinstance(part, Conv)]
    if len(convs) != len(chain) or len(convs) != count:
        raise ModelError(f"{count} convolution(s) expected, got {_outline(chain)}")
    return convs


def _of(parts: Sequence[Part], branch: int) -> Chain:
    """One branch of the optional branches."""
    if not parts:
        return ()
    (part,) = parts
    if not isinstance(part, Branches) or branch >= len(part.chains):
        raise ModelError(f"one branch per scale is expected, got {_outline((part,))}")
    return part.chains[branch]


def _branch(scales: tuple[int, ...], scale: int) -> int:
    if scale not in scales:
        raise ModelError(f"this MDSR has the scales {', '.join(map(str, scales))}, got scale={scale!r}")
    return scales.index(scale)


def _outline(chain: Sequence[Part]) -> str:
    """Such as "conv, skip(conv, relu, conv), shuffle"."""
    names = []
    for part in chain:
        match part:
            case Skip(inner):
                names.append(f"skip({_outline(inner)})")
            case Branches(chains):
                names.append(f"branches({' | '.join(map(_outline, chains))})")
            case _:
                names.append(type(part).__name__.lower())
        if len(names) == 12:
            return ", ".join([*names, "…"])
    return ", ".join(names) or "nothing"


@dataclass
class _Walk:
    """Reads the tree; collects the tensors of the convolutions by path."""

    tensors: dict[str, Array] = field(default_factory=dict)
    visited: int = 0

    def chain(self, module: object, path: str, depth: int) -> Chain:
        """The parts that a module applies one after the other."""
        self.visited += 1
        if self.visited > MAX_PARTS or depth > MAX_DEPTH:
            raise ModelError(f"module {path or 'root'}: the network is nested too deeply or has too many modules")
        if not isinstance(module, Torch7Object):
            raise ModelError(f"module {path or 'root'}: an nn module is expected, got {type(module).__name__}")
        match module.class_name.rpartition(".")[2]:
            case "Sequential":
                return self.sequence(self.children(module, path), depth)
            case "DataParallelTable":
                return self.sequence(self.children(module, path)[:1], depth)
            case "ParallelTable" | "ConcatTable":
                return (Branches(tuple(self.chain(*child, depth + 1) for child in self.children(module, path))),)
            case "SpatialConvolution" | "SpatialConvolutionMM":
                return (self.convolution(module, path),)
            case "ReLU":
                return (Relu(),)
            case "PixelShuffle":
                return (Shuffle(int(_number(module, "upscaleFactor", path))),)
            case "MulConstant":
                return (Factor(_number(module, "constant_scalar", path)),)
            case "Identity":
                return ()
        raise ModelError(f"module {path or 'root'}: class {module.class_name} is not part of EDSR or MDSR")

    def sequence(self, children: Sequence[tuple[object, str]], depth: int) -> Chain:
        """The parts of all children; ConcatTable{chain, Identity} followed by CAddTable is a skip connection."""
        parts: list[Part] = []
        for child, path in children:
            if isinstance(child, Torch7Object) and child.class_name.endswith(".CAddTable"):
                match parts[-1] if parts else None:
                    case Branches((chain, ())) | Branches(((), chain)):
                        parts[-1] = Skip(chain)
                        continue
                raise ModelError(f"module {path}: CAddTable without ConcatTable{{…, Identity}} in front of it")
            parts.extend(self.chain(child, path, depth + 1))
        return tuple(parts)

    def children(self, module: Torch7Object, path: str) -> list[tuple[object, str]]:
        modules = module.fields.get("modules")
        if not isinstance(modules, dict):
            raise ModelError(f"module {path or 'root'}: {module.class_name} has no table of modules")
        prefix = f"{path}.modules" if path else "modules"
        return [(modules.get(i), f"{prefix}.{i}") for i in range(1, len(modules) + 1)]

    def convolution(self, module: Torch7Object, path: str) -> Conv:
        """A convolution of stride 1 that keeps the size."""
        numbers = {
            name: _number(module, name, path) for name in ("nInputPlane", "nOutputPlane", "kW", "kH", "dW", "dH")
        }
        kw, kh = int(numbers["kW"]), int(numbers["kH"])
        padding = [module.fields.get(name, 0.0) for name in ("padW", "padH")]
        if (numbers["dW"], numbers["dH"]) != (1, 1) or padding != [kw // 2, kh // 2]:
            raise ModelError(f"module {path}: a {kw}x{kh} convolution of stride 1 that keeps the size is expected")
        weight, bias = module.fields.get("weight"), module.fields.get("bias")
        if not isinstance(weight, np.ndarray) or not isinstance(bias, np.ndarray):
            raise ModelError(f"module {path}: a convolution has the tensors weight and bias")
        shape = (int(numbers["nOutputPlane"]), int(numbers["nInputPlane"]), kh, kw)
        if weight.size != prod(shape):  # SpatialConvolutionMM keeps the weight as a matrix [Co, Ci·Kh·Kw]
            raise ModelError(f"module {path}: expected a weight {list(shape)}, got {list(weight.shape)}")
        self.tensors |= {f"{path}.weight": weight.reshape(shape), f"{path}.bias": bias}
        return Conv(path, shape[0])

    def keep(self, paths: set[str]) -> None:
        """Forget the convolutions of other branches."""
        self.tensors = {name: array for name, array in self.tensors.items() if name.rpartition(".")[0] in paths}


def _number(module: Torch7Object, name: str, path: str) -> float:
    value: object = module.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**31:
        raise ModelError(f"module {path}: {module.class_name} needs a number {name}, got {value!r}")
    return float(value)
