"""Whole darknet networks drawn from the grammar: text of a cfg, and numbers that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from darknet_torch import ACTIVATIONS, ALIASES
from hypothesis import strategies as st

from graphsr.importers.darknet_weights import write_weights

Shape = tuple[int, int, int]
"""Channels, height, width of a layer's output."""


@dataclass
class Draft:
    """A cfg under construction, and the kind and number of the floats that it takes, in the order of the file."""

    draw: st.DrawFn
    fork: str
    input: Shape
    lines: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    floats: list[tuple[str, int, int]] = field(default_factory=list)
    """(kind, count, fan-in)"""
    trees: dict[str, list[int]] = field(default_factory=dict)
    """The parents of classes, by the name of the file."""

    @property
    def shape(self) -> Shape:
        return self.shapes[-1] if self.shapes else self.input

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def between(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def add(self, name: str, shape: Shape, **options: Any) -> None:
        """A section under one of its names; options that are None are left out."""
        spaced = self.pick("{}={}", "{} = {}")
        word = (
            name if name in ALIASES else self.pick(name, *(a for a, of in ALIASES.items() if of == name != "shuffler"))
        )
        self.lines += ["", f"[{word}]", *(spaced.format(k, v) for k, v in options.items() if v is not None)]
        self.shapes.append(shape)

    def activation(self) -> str | None:
        return self.pick(None, *ACTIVATIONS)

    def parameters(self, filters: int, fan_in: int, weights: int, norm: bool, norm_first: bool = True) -> None:
        """Bias, batch normalisation and weights of a layer."""
        stats = [("scale", filters, 1), ("mean", filters, 1), ("var", filters, 1)] if norm else []
        weight = ("weight", weights, fan_in)
        self.floats += [("bias", filters, 1), *([*stats, weight] if norm_first else [weight, *stats])]

    def reference(self, index: int) -> int:
        """An earlier layer by its own index or counted back."""
        return index if self.draw(st.booleans()) else index - len(self.shapes)

    def tree(self, parents: list[int]) -> str:
        """The name of a file that holds this tree."""
        name = f"classes{len(self.trees)}.tree"
        self.trees[name] = parents
        return name

    def layers(self, suits: Callable[[Shape], bool] = lambda shape: True) -> list[int]:
        return [i for i, shape in enumerate(self.shapes) if suits(shape)]


def convolutional(d: Draft) -> None:
    c, h, w = d.shape
    groups = d.pick(*[g for g in (1, 1, 2, c) if c % g == 0])
    filters, size = groups * d.between(1, 3), d.pick(1, 2, 3, 5)
    pad = d.pick(None, 1)
    padding = size // 2 if pad else d.between(0, 2)
    stride, kind = (d.between(1, 2), d.between(1, 2)), d.pick(None, None, None, 1, 2)
    dilation = d.between(1, 2) if 2 * padding == size - 1 else 1
    ho, wo = ((n + 2 * padding - size) // (1 if kind else s) + 1 for n, s in zip((h, w), stride, strict=True))
    if kind:
        ho, wo = ((n - (1 if kind == 1 else 2)) // s + 1 for n, s in zip((ho, wo), stride, strict=True))
    if min(ho, wo) < 1:
        return
    norm = d.draw(st.booleans())
    d.add(
        "convolutional", (filters, ho, wo), filters=filters, size=size, pad=pad, padding=padding if not pad else 7,
        stride_y=stride[0], stride_x=stride[1], dilation=dilation if dilation > 1 else None, antialiasing=kind,
        groups=groups if groups > 1 else None, activation=d.activation(), batch_normalize=1 if norm else None,
        flipped=d.pick(None, 1),
    )  # fmt: skip
    fan_in = c // groups * size * size
    d.parameters(filters, fan_in, filters * fan_in, norm)


def shared(d: Draft) -> None:
    """A convolution, and another one with the same weights."""
    c, h, w = d.shape
    for i in range(2):
        d.add("convolutional", (c, h, w), filters=c, size=3, pad=1, activation="tanh", share_index=-1 if i else None)
    d.parameters(c, 9 * c, 9 * c * c, False)


def deconvolutional(d: Draft) -> None:
    c, h, w = d.shape
    filters, size, stride, padding = d.between(1, 3), d.between(1, 3), d.between(1, 2), d.between(0, 1)
    ho, wo = ((n - 1) * stride + size - 2 * padding for n in (h, w))
    if min(ho, wo) < 1 or max(ho, wo) > 12:
        return
    norm = d.draw(st.booleans())
    d.add(
        "deconvolutional", (filters, ho, wo), filters=filters, size=size, stride=stride, padding=padding,
        activation=d.activation(), batch_normalize=int(norm),
    )  # fmt: skip
    d.parameters(filters, c * size * size, filters * c * size * size, norm)


def local(d: Draft) -> None:
    c, h, w = d.shape
    size, pad = d.pick((1, 0), (2, 0), (3, 0), (3, 1))
    filters, stride = d.between(1, 2), d.between(1, 2)
    if min(h, w) + 2 * pad < size:
        return
    ho, wo = ((n + 2 * pad - size) // stride + 1 for n in (h, w))
    d.add("local", (filters, ho, wo), filters=filters, size=size, stride=stride, pad=pad, activation=d.activation())
    fan_in = c * size * size
    d.floats += [("bias", filters * ho * wo, 1), ("weight", ho * wo * filters * fan_in, fan_in)]


def connected(d: Draft) -> None:
    fan_in, outputs, norm = int(np.prod(d.shape)), d.between(1, 6), d.draw(st.booleans())
    d.add("connected", (outputs, 1, 1), output=outputs, activation=d.activation(), batch_normalize=int(norm))
    d.parameters(outputs, fan_in, outputs * fan_in, norm, norm_first=False)


def batchnorm(d: Draft) -> None:
    c = d.shape[0]
    d.add("batchnorm", d.shape)
    stored = ("bias", "scale", "mean", "var") if d.fork == "alexeyab" else ("scale", "mean", "var")
    d.floats += [(kind, c, 1) for kind in stored]


def pointwise(d: Draft) -> None:
    name = d.pick("activation", "logistic", "dropout", "cost", "empty")
    d.add(name, d.shape, activation=d.activation() if name == "activation" else None)


def pooling(d: Draft) -> None:
    c, h, w = d.shape
    name, size, stride = d.pick("maxpool", "local_avgpool"), d.between(1, 3), (d.between(1, 3), d.between(1, 3))
    kind = d.pick(None, None, 1, 2) if name == "maxpool" else None
    # no window may lie in the padding altogether: darknet divides by 0 there, or gives the lowest float
    padding = d.pick(None, d.between(0, size - 1))
    total = size - 1 if padding is None else padding
    ho, wo = ((n + total - size) // (1 if kind else s) + 1 for n, s in zip((h, w), stride, strict=True))
    if kind:
        ho, wo = ((n - (1 if kind == 1 else 2)) // s + 1 for n, s in zip((ho, wo), stride, strict=True))
    if min(ho, wo) < 1:
        return
    d.add(
        name, (c, ho, wo), size=size, stride=1, stride_y=stride[0], stride_x=stride[1], padding=padding,
        antialiasing=kind,
    )  # fmt: skip


def default_maxpool(d: Draft) -> None:
    """size and stride alone, as in every published cfg."""
    (c, h, w), size, stride = d.shape, d.pick(2, 3, 5), d.between(1, 2)
    d.add("maxpool", (c, (h - 1) // stride + 1, (w - 1) // stride + 1), size=size, stride=stride)


def max_over_channels(d: Draft) -> None:
    c, h, w = d.shape
    out = d.pick(*[n for n in range(1, c + 1) if c % n == 0])
    d.add("maxpool", (out, h, w), maxpool_depth=1, out_channels=out, size=1, stride=1)


def avgpool(d: Draft) -> None:
    d.add("avgpool", (d.shape[0], 1, 1))


def upsample(d: Draft) -> None:
    (c, h, w), scale = d.shape, d.pick(None, 0.5)
    if h % 2 == w % 2 == 0 and d.draw(st.booleans()):
        d.add("upsample", (c, h // 2, w // 2), stride=-2, scale=scale)
    elif max(h, w) <= 6:
        d.add("upsample", (c, 2 * h, 2 * w), stride=d.pick(None, 2), scale=scale)


def reorganise(d: Draft) -> None:
    (c, h, w), name, reverse = d.shape, d.pick("reorg", "reorg3d"), d.draw(st.booleans())
    flatten = d.pick(None, None, 1) if name == "reorg" else None
    if name == "reorg" and not flatten and d.pick(0, 0, 0, 1):
        d.add("reorg", (c * h * w + 3, 1, 1), extra=3)
    elif reverse and c % (16 if name == "reorg3d" else 4) == 0 and max(h, w) <= 6:
        d.add(name, (c // 4, 2 * h, 2 * w), stride=2, reverse=1, flatten=flatten)
    elif h % 2 == w % 2 == 0 and (c % 4 == 0 or name == "reorg3d" or flatten):
        d.add(name, (4 * c, h // 2, w // 2), stride=2, flatten=flatten)


def shuffle(d: Draft) -> None:
    (c, h, w), name = d.shape, d.pick("shuffler", "pixel_shuffle", "depth_to_space")
    if c % 4 == 0 and max(h, w) <= 6:
        d.add(name, (c // 4, 2 * h, 2 * w), scale=2, order=d.pick(None, "torch", "tf"))


def crop(d: Draft) -> None:
    c, h, w = d.shape
    height, width = d.between(1, h), d.between(1, w)
    d.add("crop", (c, height, width), crop_height=height, crop_width=width, noadjust=d.pick(None, 1), angle=7)


def route(d: Draft) -> None:
    if not d.shapes:
        return
    first = d.between(0, len(d.shapes) - 1)
    groups = d.pick(*[g for g in (1, 2, 3) if d.shapes[first][0] % g == 0])
    fits = d.layers(lambda s: s[1:] == d.shapes[first][1:] and s[0] % groups == 0)
    more = d.draw(st.lists(st.sampled_from(fits), max_size=2))
    sources = [first, *more]
    channels = sum(d.shapes[i][0] for i in sources) // groups
    if channels > 24:
        return
    d.add(
        "route", (channels, *d.shapes[first][1:]), layers=",".join(str(d.reference(i)) for i in sources),
        groups=groups if groups > 1 else None, group_id=d.between(0, groups - 1) if groups > 1 else None,
    )  # fmt: skip


def shortcut(d: Draft) -> None:
    c, h, w = d.shape
    fits = d.layers(lambda s: s[1:] == (h, w))
    if not fits:
        return
    many = d.draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3))
    kind = d.pick("plain", "factors", "several", "weighted")
    if kind == "weighted":
        per = d.pick("per_feature", "per_channel")
        how = d.pick("none", "relu", "avg_relu", "softmax")
        text = ",".join(str(d.reference(i)) for i in many)
        d.add("shortcut", d.shape, **{"from": text}, weights_type=per, weights_normalization=how, activation="leaky")
        d.floats.append(("scale", (len(many) + 1) * (c if per == "per_channel" else 1), 1))
    elif kind == "several" and d.fork == "alexeyab":
        d.add("shortcut", d.shape, **{"from": ",".join(str(d.reference(i)) for i in many)}, activation=d.pick("relu"))
    else:
        factors = {"alpha": 0.5, "beta": 2} if kind == "factors" else {}
        d.add("shortcut", d.shape, **{"from": d.reference(many[0])}, **factors, activation=d.activation())


def strided_shortcut(d: Draft) -> None:
    """pjreddie's: the sizes differ by a factor."""
    _, h, w = d.shape

    def suits(shape: Shape) -> bool:
        (big, small) = (shape, d.shape) if shape[1] >= h else (d.shape, shape)
        same = big[1] // small[1] == big[2] // small[2] if min(small[1:]) else False
        return same and (shape[1] <= h) == (shape[2] <= w)

    fits = d.layers(suits)
    if fits and d.fork == "pjreddie":
        source = d.draw(st.sampled_from(fits))
        d.add("shortcut", d.shape, **{"from": d.reference(source)}, alpha=d.pick(None, 0.5), activation="linear")


def squeeze_excite(d: Draft) -> None:
    c, h, w = d.shape
    d.add("avgpool", (c, 1, 1))
    if len(d.shapes) > 1:
        d.add("scale_channels", (c, h, w), **{"from": -2}, activation=d.pick(None, "relu"))


def spatial_attention(d: Draft) -> None:
    fits = d.layers(lambda s: s == d.shape)
    if fits:
        d.add("sam", d.shape, **{"from": d.reference(d.draw(st.sampled_from(fits)))}, activation=d.pick(None, "tanh"))


def pixel_attention(d: Draft) -> None:
    _, h, w = d.shape
    if d.shapes:
        source = len(d.shapes) - 1
        full = d.shapes[source]
        d.add("maxpool", (1, h, w), maxpool_depth=1, out_channels=1, size=1, stride=1)
        d.add("scale_channels", full, **{"from": source}, scale_wh=1)


def implicit(d: Draft) -> None:
    c, h, w = d.shape
    if d.shapes:
        source = len(d.shapes) - 1
        d.add("implicit", (c, 1, 1), filters=c, mean=1, std=0.1)
        d.add("scale_channels", (c, h, w), **{"from": source})
        d.floats.append(("scale", c, 1))


def softmax(d: Draft) -> None:
    values = int(np.prod(d.shape))
    groups = d.pick(*[g for g in (1, 2, 3) if values % g == 0])
    d.add("softmax", d.shape, groups=groups, temperature=d.pick(None, 2.5))


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """The parents of classes, in runs of equal ones, each of an earlier class or of none."""
    parents = [-1] * draw(st.integers(1, 3))
    for _ in range(draw(st.integers(0, 3))):
        others = [p for p in range(-1, len(parents)) if p != parents[-1]]
        parents += [draw(st.sampled_from(others))] * draw(st.integers(1, 3))
    return parents


def tree_softmax(d: Draft) -> None:
    """After a convolution, or a connected layer, that gives a number for each class."""
    parents = d.draw(trees())
    c, h, w = d.shape
    pixels = h * w if len(parents) % (h * w) == 0 else 0
    if pixels:
        linear_layer(d, len(parents) // pixels)
    else:
        inputs = c * h * w
        d.add("connected", (len(parents), 1, 1), output=len(parents), activation="linear")
        d.parameters(len(parents), inputs, len(parents) * inputs, False)
    d.add("softmax", d.shape, tree=d.tree(parents), temperature=d.pick(None, 2.5))


def tree_region(d: Draft) -> None:
    """The head of YOLO9000."""
    parents, num, coords = d.draw(trees()), d.between(1, 2), d.between(4, 5)
    linear_layer(d, (coords + 1 + len(parents)) * num)
    d.add(
        "region", d.shape, num=num, coords=coords, classes=len(parents), softmax=1, tree=d.tree(parents),
        anchors=",".join(["1.5"] * (2 * num)),
    )  # fmt: skip


def linear_layer(d: Draft, filters: int) -> None:
    """The convolution before a head."""
    c, h, w = d.shape
    d.add("convolutional", (filters, h, w), filters=filters, size=1, activation="linear")
    d.parameters(filters, c, filters * c, False)


def anchor_head(d: Draft) -> None:
    name, num, classes = d.pick("yolo", "Gaussian_yolo", "region"), d.between(1, 3), d.between(1, 3)
    mask = d.draw(st.lists(st.integers(0, num - 1), min_size=1, max_size=2)) if name != "region" else range(num)
    each = classes + {"yolo": 5, "Gaussian_yolo": 9, "region": 5}[name]
    linear_layer(d, each * len(mask))
    special = {
        "yolo": lambda: {"new_coords": d.pick(None, 1), "nms_kind": d.pick(None, "greedynms", "diounms")},
        "Gaussian_yolo": lambda: {"yolo_point": d.pick(None, "left_top")},
        "region": lambda: {"softmax": d.pick(0, 1), "background": d.pick(None, 1), "bias_match": 1},
    }[name]()
    anchors = ",".join(str(v) for v in d.draw(st.lists(st.sampled_from([1.5, 10, 33]), min_size=num, max_size=num)) * 2)
    if name != "region":
        special |= {"mask": ",".join(map(str, mask)), "scale_x_y": d.pick(None, 1.05, 2)}
    d.add(name, d.shape, num=num, classes=classes, anchors=anchors, ignore_thresh=0.7, **special)


def grid_head(d: Draft) -> None:
    side, num, classes = d.between(1, 2), d.between(1, 2), d.between(1, 3)
    outputs, fan_in = side * side * (classes + 5 * num), int(np.prod(d.shape))
    d.add("connected", (outputs, 1, 1), output=outputs, activation="linear")
    d.parameters(outputs, fan_in, outputs * fan_in, False)
    d.add(
        "detection", (outputs, 1, 1), side=side, num=num, classes=classes, coords=4, sqrt=1, softmax=d.pick(0, 1)
    )  # fmt: skip


def normalization(d: Draft) -> None:
    size = d.between(1, min(5, 2 * d.shape[0] + 1))
    d.add("normalization", d.shape, size=size, alpha=d.pick(None, 0.1), beta=d.pick(None, 0.5), kappa=d.pick(None, 4))


def l2norm(d: Draft) -> None:
    if d.shape[0] > 1:  # one channel is divided by its own size
        d.add("activation", d.shape, activation="logistic")  # and a pixel of zeros by 0
        d.add("l2norm", d.shape)


def recurrent(d: Draft) -> None:
    name, n, norm = d.pick("rnn", "gru", "lstm"), d.between(1, 4), d.draw(st.booleans())
    inputs, pj = int(np.prod(d.shape)), d.fork == "pjreddie"
    hidden = n if pj else d.between(1, 3)
    special = {
        "rnn": {
            "activation": d.activation(), "hidden": None if pj else hidden, "shortcut": d.pick(None, 1),
            "logistic": None if pj else d.pick(None, 1, 2),
        },
        "gru": {"tanh": d.pick(None, 1)},
        "lstm": {},
    }[name]  # fmt: skip
    u, w = [(inputs, n)], [(n, n)]
    records = {
        "rnn": [(inputs, hidden), (hidden, hidden), (hidden, n)],
        "gru": 3 * w + 3 * u if pj else 3 * u + 3 * w,
        "lstm": 4 * w + 4 * u,
    }[name]
    d.add(name, (n, 1, 1), output=n, batch_normalize=int(norm), **special)
    for i, o in records:
        d.parameters(o, i, i * o, norm, norm_first=False)


def conv_recurrent(d: Draft) -> None:
    (c, h, w), n, hidden, norm = d.shape, d.between(1, 3), d.between(1, 3), d.draw(st.booleans())
    name, peephole, pj = d.pick("crnn", "conv_lstm"), d.pick(None, 1), d.fork == "pjreddie"
    size = 3 if pj and name == "crnn" else d.pick(1, 3)
    options: dict[str, Any] = {"output": n, "size": size, "pad": 1, "batch_normalize": int(norm)}
    if name == "conv_lstm":
        d.add(
            name,
            (n, h, w),
            **options,
            peephole=peephole,
            state_constrain=d.pick(None, 0),
            activation=d.pick(None, "leaky"),
        )
        records = [(n, n)] * (3 if peephole else 0) + [(n, n)] * 4 + [(c, n)] * 4
    else:
        names = {"output_filters": n, "hidden_filters": hidden} if pj else {**options, "hidden": hidden}
        if pj:
            names["batch_normalize"] = int(norm)
        d.add(name, (n, h, w), **names, shortcut=d.pick(None, 1), activation=d.activation())
        records = [(c, hidden), (hidden, hidden), (hidden, n)]
    for i, o in records:
        d.parameters(o, i * size * size, i * o * size * size, norm)


LAYERS: tuple[Callable[[Draft], None], ...] = (
    convolutional, convolutional, shared, deconvolutional, local, connected, batchnorm, pointwise, pooling,
    default_maxpool, max_over_channels, avgpool, upsample, reorganise, shuffle, crop, route, shortcut, strided_shortcut,
    squeeze_excite, spatial_attention, pixel_attention, implicit, softmax, tree_softmax, anchor_head, tree_region,
    grid_head, normalization, l2norm, recurrent, conv_recurrent,
)  # fmt: skip


@dataclass(frozen=True)
class DarknetCase:
    """A network, its numbers and an input."""

    cfg: str
    numbers: np.ndarray[Any, Any]
    x: np.ndarray[Any, Any]
    fork: str
    trees: dict[str, list[int]] = field(default_factory=dict)
    """The parents of classes, by the name of the file."""

    def write(self, folder: str | Path) -> Path:
        """The cfg in a folder, with the weights and the trees beside it."""
        cfg = Path(folder, "net.cfg")
        cfg.write_text(self.cfg)
        cfg.with_suffix(".weights").write_bytes(write_weights([self.numbers]))
        for name, parents in self.trees.items():
            Path(folder, name).write_text("".join(f"label{i} {parent}\n" for i, parent in enumerate(parents)))
        return cfg

    def __repr__(self) -> str:
        return f"DarknetCase({self.fork}, {len(self.numbers)} numbers, input {self.x.shape})\n{self.cfg}"


@st.composite
def darknet_networks(draw: st.DrawFn, layers: tuple[Callable[[Draft], None], ...] = LAYERS) -> DarknetCase:
    shape = (draw(st.sampled_from([1, 3, 4, 16])), draw(st.integers(2, 8)), draw(st.integers(2, 8)))
    d = Draft(draw, draw(st.sampled_from(["alexeyab", "pjreddie"])), shape)
    for _ in range(draw(st.integers(1, 6))):
        draw(st.sampled_from(layers))(d)
    if not d.shapes:
        avgpool(d)
    (c, h, w), steps = shape, draw(st.sampled_from([1, 1, 2, 3]))
    cfg = "\n".join(
        [
            draw(st.sampled_from(["[net]", "[network]"])),
            f"time_steps={steps}",
            f"channels={c}",
            f"height={h}",
            f"width={w}",
            *d.lines,
            "",
        ]
    )
    block = np.frombuffer(draw(st.binary(min_size=64, max_size=64)), np.int8).astype(np.float64)
    return DarknetCase(cfg, numbers(d, block), image(block, (steps * draw(st.integers(1, 2)), *shape)), d.fork, d.trees)


def values(block: np.ndarray[Any, Any], count: int, start: int) -> np.ndarray[Any, Any]:
    """`count` numbers in (-1, 1) made of a drawn block, none of them 0."""
    index = np.arange(start, start + count)
    return (np.roll(block, start)[(index * 29 + index // 64 * 7) % 64] + 0.5) / 128


def numbers(d: Draft, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The content of the weights file: variances are positive, weights sum to about 1."""
    parts, start = [np.empty(0)], 0
    for kind, count, fan_in in d.floats:
        part = values(block, count, start)
        if kind in ("var", "scale"):
            part = 0.5 + np.abs(part)
        parts.append(part * 2 / np.sqrt(fan_in))
        start += count
    return np.concatenate(parts).astype(np.float32)


def image(block: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return values(block, int(np.prod(shape)), 11).reshape(shape).astype(np.float32)
