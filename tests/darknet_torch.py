"""darknet rebuilt in PyTorch, as an oracle: cfg text and numbers in, the output of every layer out.

It shares nothing with graphsr: its own reading of the cfg, of the order of the weights, and of what each layer does,
written after darknet's C sources, with their loops where an index matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # as everywhere

Tensor = torch.Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "logistic": torch.sigmoid,
    "relu": torch.relu,
    "relu6": F.relu6,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "revleaky": lambda x: F.leaky_relu(x, 0.1),
    "relie": lambda x: F.leaky_relu(x, 0.01),
    "tanh": torch.tanh,
    "elu": F.elu,
    "loggy": lambda x: 2 / (1 + torch.exp(-x)) - 1,
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "hardtan": lambda x: x.clamp(-1, 1),
    "lhtan": lambda x: torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x)),
    "stair": lambda x: (x / 2).floor() + torch.where(x.floor() % 2 == 0, torch.zeros_like(x), x - x.floor()),
    "plse": lambda x: torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5)),
    "selu": F.selu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "hard_mish": lambda x: torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x))),
    "normalize_channels": lambda x: x.relu() / (1e-4 + x.relu().sum(1, keepdim=True)),
    "normalize_channels_softmax": lambda x: x.exp() / (1e-4 + x.exp().sum(1, keepdim=True)),
    "normalize_channels_softmax_maxval": lambda x: _softmax_with_eps(x, 1),
}


def _softmax_with_eps(x: Tensor, axis: int) -> Tensor:
    e = (x - x.amax(axis, keepdim=True)).exp()
    return e / (1e-4 + e.sum(axis, keepdim=True))


def split(x: Tensor, parts: int) -> Tensor:
    """[N, C, …] as [N, parts, C / parts, …]"""
    return x.reshape(len(x), parts, -1, *x.shape[2:])


ALIASES = {
    "conv": "convolutional", "deconv": "deconvolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool",
    "local_avg": "local_avgpool", "soft": "softmax", "lrn": "normalization", "silence": "empty",
    "depth_to_space": "shuffler", "pixel_shuffle": "shuffler", "network": "net",
}  # fmt: skip
"""The other names of sections."""


@dataclass
class Block:
    """One section: strings by key."""

    name: str
    options: dict[str, str]

    def get(self, key: str, default: float = 0) -> int:
        return int(float(self.options.get(key, default)))

    def real(self, key: str, default: float) -> float:
        return float(self.options.get(key, default))

    def all(self, key: str) -> list[int]:
        return [int(v) for v in self.options[key].split(",")]

    def reals(self, key: str) -> list[float]:
        return [float(v) for v in self.options[key].split(",")]


def read_cfg(text: str) -> Iterator[Block]:
    block: Block | None = None
    for line in text.replace(" ", "").splitlines():
        if line.startswith("["):
            if block:
                yield block
            block = Block(line[1:-1], {})
        elif line and line[0] not in "#;" and block:
            key, _, value = line.partition("=")
            block.options.setdefault(key, value)
    if block:
        yield block


class Darknet:
    """`run(x)` gives the outputs of all layers. `numbers` is the content of the weights file after its header."""

    def __init__(
        self,
        text: str,
        numbers: np.ndarray[Any, Any],
        fork: str,
        eps_outside: bool = False,
        trees: dict[str, list[int]] | None = None,
    ) -> None:
        self.net, *self.blocks = read_cfg(text)
        self.numbers, self.fork, self.eps_outside = torch.from_numpy(numbers.astype(np.float64)), fork, eps_outside
        self.trees = trees or {}
        self.position = 0
        self.outputs: list[Tensor] = []
        self.weights: dict[int, tuple[Tensor, ...]] = {}

    def run(self, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        self.position, self.outputs = 0, []
        value = torch.from_numpy(x.astype(np.float64))
        for block in self.blocks:
            value = getattr(self, f"do_{ALIASES.get(block.name, block.name)}")(value, block)
            self.outputs.append(value)
        assert self.position == len(self.numbers), "numbers are left over"
        return [output.numpy() for output in self.outputs]

    def floats(self, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        self.position += count
        return self.numbers[self.position - count : self.position].reshape(shape)

    def at(self, index: int) -> Tensor:
        return self.outputs[index if index >= 0 else len(self.outputs) + index]

    def activate(self, x: Tensor, block: Block, default: str = "logistic") -> Tensor:
        return ACTIVATIONS[block.options.get("activation", default)](x)

    def norm(self, x: Tensor, scale: Tensor, mean: Tensor, var: Tensor, bias: Tensor) -> Tensor:
        scale, mean, var, bias = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, mean, var, bias))
        deviation = var.sqrt() + 1e-6 if self.eps_outside else (var + 1e-5).sqrt()
        return scale * (x - mean) / deviation + bias

    def normed_parameters(self, n: int, block: Block) -> tuple[Tensor, ...]:
        """(bias, scale, mean, var) or (bias,)"""
        return tuple(self.floats(n) for _ in range(4 if block.get("batch_normalize") else 1))

    def finish(self, y: Tensor, bias: Tensor, *norm: Tensor) -> Tensor:
        if norm:
            scale, mean, var = norm
            return self.norm(y, scale, mean, var, bias)
        return y + bias.reshape(-1, *[1] * (y.ndim - 2))

    def do_convolutional(self, x: Tensor, block: Block) -> Tensor:
        n, k, groups = block.get("filters", 1), block.get("size", 1), block.get("groups", 1)
        stride = block.get("stride_y", block.get("stride", 1)), block.get("stride_x", block.get("stride", 1))
        pad = k // 2 if block.get("pad") else block.get("padding")
        dilation = 1 if k == 1 else block.get("dilation", 1)
        if "share_index" in block.options:
            index = block.get("share_index")
            parameters = self.weights[index if index >= 0 else len(self.outputs) + index]
        else:
            norm = self.normed_parameters(n, block)
            c = x.shape[1] // groups
            if block.get("flipped"):
                weight = self.floats(c * k * k, n).T.reshape(n, c, k, k)
            else:
                weight = self.floats(n, c, k, k)
            parameters = (weight, *norm)
        self.weights[len(self.outputs)] = parameters
        weight, *rest = parameters
        kind = block.get("antialiasing")
        y = F.conv2d(x, weight, None, (1, 1) if kind else stride, pad * dilation, dilation, groups)
        y = self.activate(self.finish(y, *rest), block)
        return self.blur(y, kind, stride) if kind else y

    def blur(self, x: Tensor, kind: int, stride: tuple[int, int]) -> Tensor:
        row = torch.tensor([1.0, 2, 1] if kind == 1 else [1.0, 1], dtype=torch.float64)
        kernel = torch.outer(row, row) / row.sum() ** 2
        weight = kernel.expand(x.shape[1], 1, *kernel.shape)
        return F.conv2d(x, weight, None, stride, 1 if kind == 1 else 0, 1, x.shape[1])

    def do_deconvolutional(self, x: Tensor, block: Block) -> Tensor:
        n, k = block.get("filters", 1), block.get("size", 1)
        pad = k // 2 if block.get("pad") else block.get("padding")
        norm = self.normed_parameters(n, block)
        weight = self.floats(x.shape[1], n, k, k)
        y = F.conv_transpose2d(x, weight, None, block.get("stride", 1), pad)
        return self.activate(self.finish(y, *norm), block)

    def do_local(self, x: Tensor, block: Block) -> Tensor:
        n, k, s, pad = (block.get(key, d) for key, d in (("filters", 1), ("size", 1), ("stride", 1), ("pad", 0)))
        ho, wo = ((size - (1 if pad else k)) // s + 1 for size in x.shape[2:])
        bias = self.floats(n, ho, wo)
        weight = self.floats(ho, wo, n, x.shape[1], k, k)
        padded = F.pad(x, (pad,) * 4)
        y = torch.empty(len(x), n, ho, wo, dtype=torch.float64)
        for i in range(ho):
            for j in range(wo):
                patch = padded[:, :, i * s : i * s + k, j * s : j * s + k]
                y[:, :, i, j] = torch.einsum("ockl,nckl->no", weight[i, j], patch)
        return self.activate(y + bias, block)

    def do_connected(self, x: Tensor, block: Block) -> Tensor:
        y = self.dense(x.flatten(1), block.get("output", 1), block)
        return self.activate(y, block)[:, :, None, None]

    def dense(self, x: Tensor, outputs: int, block: Block) -> Tensor:
        bias, weight = self.floats(outputs), self.floats(outputs, x.shape[1])
        norm = [self.floats(outputs) for _ in range(3)] if block.get("batch_normalize") else []
        return self.finish(x @ weight.T, bias, *norm)

    def do_batchnorm(self, x: Tensor, block: Block) -> Tensor:
        c = x.shape[1]
        bias = self.floats(c) if self.fork == "alexeyab" else torch.zeros(c, dtype=torch.float64)
        scale, mean, var = (self.floats(c) for _ in range(3))
        return self.norm(x, scale, mean, var, bias)

    def do_activation(self, x: Tensor, block: Block) -> Tensor:
        return self.activate(x, block, "linear")

    def do_logistic(self, x: Tensor, block: Block) -> Tensor:
        return x.sigmoid()

    def do_dropout(self, x: Tensor, block: Block) -> Tensor:
        return x

    do_cost = do_empty = do_dropout

    def do_maxpool(self, x: Tensor, block: Block) -> Tensor:
        if block.get("maxpool_depth"):
            out = block.get("out_channels", 1)
            return torch.stack([x[:, g::out].amax(1) for g in range(out)], 1)
        kind, stride = block.get("antialiasing"), self.strides(block)
        y = F.max_pool2d(self.padded(x, block, -np.inf), self.window(block), (1, 1) if kind else stride)
        return self.blur(y, kind, stride) if kind else y

    def do_local_avgpool(self, x: Tensor, block: Block) -> Tensor:
        k, stride = self.window(block), self.strides(block)
        total = F.avg_pool2d(self.padded(x, block, 0), k, stride, divisor_override=1)
        return total / F.avg_pool2d(self.padded(torch.ones_like(x), block, 0), k, stride, divisor_override=1)

    def strides(self, block: Block) -> tuple[int, int]:
        stride = block.get("stride", 1)
        return block.get("stride_y", stride), block.get("stride_x", stride)

    def window(self, block: Block) -> int:
        return block.get("size", block.get("stride", 1))

    def padded(self, x: Tensor, block: Block, value: float) -> Tensor:
        total = block.get("padding", self.window(block) - 1)
        first = total // 2
        return F.pad(x, (first, total - first, first, total - first), value=value)

    def do_avgpool(self, x: Tensor, block: Block) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def do_upsample(self, x: Tensor, block: Block) -> Tensor:
        stride, scale = block.get("stride", 2), block.real("scale", 1)
        if stride > 0:
            return scale * x.repeat_interleave(stride, 2).repeat_interleave(stride, 3)
        return scale * F.avg_pool2d(x, -stride, divisor_override=1)

    def reorganised(self, x: np.ndarray[Any, Any], c: int, h: int, w: int, s: int, forward: bool) -> Any:
        """darknet's reorg_cpu, loop by loop, for one image given as a flat array."""
        out, out_c = np.empty_like(x), c // (s * s)
        for k, j, i in np.ndindex(c, h, w):
            inner = i + w * (j + h * k)
            w2, h2 = i * s + k // out_c % s, j * s + k // out_c // s
            outer = w2 + w * s * (h2 + h * s * (k % out_c))
            if forward:
                out[outer] = x[inner]
            else:
                out[inner] = x[outer]
        return out

    def do_reorg(self, x: Tensor, block: Block) -> Tensor:
        (n, c, h, w), s, reverse = x.shape, block.get("stride", 1), bool(block.get("reverse"))
        if block.get("extra"):
            return F.pad(x.reshape(n, -1), (0, block.get("extra")))[:, :, None, None]
        if block.get("flatten"):
            layers = x.reshape(n, h * w, c) if reverse else x.reshape(n, c, h * w)
            flat = [image.numpy() for image in layers.transpose(1, 2).reshape(n, -1)]
        else:
            flat = [self.reorganised(image.numpy(), c, h, w, s, reverse) for image in x.reshape(n, -1)]
        shape = (c // s**2, h * s, w * s) if reverse else (c * s**2, h // s, w // s)
        return torch.from_numpy(np.stack(flat)).reshape(n, *shape)

    def do_reorg3d(self, x: Tensor, block: Block) -> Tensor:
        (n, c, h, w), s, reverse = x.shape, block.get("stride", 1), bool(block.get("reverse"))
        shape = (c // s**2, h * s, w * s) if reverse else (c * s**2, h // s, w // s)
        flat = [self.reorganised(image.numpy(), *shape, s, reverse) for image in x.reshape(n, -1)]
        return torch.from_numpy(np.stack(flat)).reshape(n, *shape)

    def do_crop(self, x: Tensor, block: Block) -> Tensor:
        h, w = block.get("crop_height", 1), block.get("crop_width", 1)
        top, left = (x.shape[2] - h) // 2, (x.shape[3] - w) // 2
        y = x[:, :, top : top + h, left : left + w]
        return y if block.get("noadjust") else 2 * y - 1

    def do_shuffler(self, x: Tensor, block: Block) -> Tensor:
        r, order = block.get("scale", 2), block.options.get("order", "torch" if block.name == "pixel_shuffle" else "tf")
        return F.pixel_shuffle(x if order == "torch" else split(x, r * r).transpose(1, 2).flatten(1, 2), r)

    def do_route(self, x: Tensor, block: Block) -> Tensor:
        sources = [self.at(index) for index in block.all("layers")]
        groups = block.get("groups", 1)
        return torch.cat([source.chunk(groups, 1)[block.get("group_id")] for source in sources], 1)

    def do_shortcut(self, x: Tensor, block: Block) -> Tensor:
        others = [self.at(index) for index in block.all("from")]
        if block.options.get("weights_type", "none") != "none":
            y = self.weighted(x, others, block)
        elif self.fork == "alexeyab" and "alpha" not in block.options and x.shape[2:] == others[0].shape[2:]:
            y = x.clone()
            for other in others:
                shared = min(x.shape[1], other.shape[1])
                y[:, :shared] += other[:, :shared]
        else:
            y = self.overlaid(x, others[0], block.real("alpha", 1), block.real("beta", 1))
        return self.activate(y, block, "linear")

    def overlaid(self, x: Tensor, other: Tensor, alpha: float, beta: float) -> Tensor:
        """darknet's shortcut_cpu, index by index."""
        (_, c2, h2, w2), (_, c1, h1, w1) = x.shape, other.shape
        stride, sample = max(1, w1 // w2), max(1, w2 // w1)
        y = x.clone()
        for k, j, i in np.ndindex(min(c1, c2), min(h1, h2), min(w1, w2)):
            place = (slice(None), k, j * sample, i * sample)
            y[place] = alpha * x[place] + beta * other[:, k, j * stride, i * stride]
        return y

    def weighted(self, x: Tensor, others: list[Tensor], block: Block) -> Tensor:
        c, n = x.shape[1], len(others) + 1
        weights = self.floats(n, c if block.options["weights_type"] == "per_channel" else 1).expand(n, c)
        how = block.options.get("weights_normalization", "none")
        if how in ("relu", "avg_relu"):
            weights = weights.relu() / (1e-4 + weights.relu().sum(0))
        elif how == "softmax":
            weights = _softmax_with_eps(weights, 0)
        y = x * weights[0][:, None, None]
        for i, other in enumerate(others, start=1):
            shared = min(c, other.shape[1])
            y[:, :shared] += other[:, :shared] * weights[i, :shared, None, None]
        return y

    def do_scale_channels(self, x: Tensor, block: Block) -> Tensor:
        return self.activate(x * self.at(block.get("from")), block, "linear")

    do_sam = do_scale_channels

    def do_implicit(self, x: Tensor, block: Block) -> Tensor:
        return self.floats(1, block.get("filters", 128), block.get("atoms", 1), 1)

    def softmax_in_groups(self, x: Tensor, parents: list[int], temperature: float = 1) -> Tensor:
        """Over the classes of one parent that stand in a row, on axis 1."""
        y, start = x.clone(), 0
        while start < len(parents):
            stop = start + 1
            while stop < len(parents) and parents[stop] == parents[start]:
                stop += 1
            y[:, start:stop] = (x[:, start:stop] / temperature).softmax(1)
            start = stop
        return y

    def do_softmax(self, x: Tensor, block: Block) -> Tensor:
        if "tree" in block.options:
            parents = self.trees[block.options["tree"]]
            return self.softmax_in_groups(x.flatten(1), parents, block.real("temperature", 1)).reshape(x.shape)
        rows = x.reshape(len(x), block.get("groups", 1), -1)
        return (rows / block.real("temperature", 1)).softmax(2).reshape(x.shape)

    def do_yolo(self, x: Tensor, block: Block) -> Tensor:
        anchors, s = len(block.all("mask")), block.real("scale_x_y", 1)
        y = split(x, anchors).clone()
        if not block.get("new_coords"):
            y[:, :, :2] = y[:, :, :2].sigmoid()
            y[:, :, 4:] = y[:, :, 4:].sigmoid()
        y[:, :, :2] = y[:, :, :2] * s - 0.5 * (s - 1)
        return y.flatten(1, 2)

    def do_Gaussian_yolo(self, x: Tensor, block: Block) -> Tensor:  # noqa: N802  # the name of the section
        y = split(x, len(block.all("mask"))).clone()
        s, raw = block.real("scale_x_y", 1), y.clone()
        y = y.sigmoid()
        y[:, :, [4, 6]] = raw[:, :, [4, 6]]
        y[:, :, [0, 2]] = y[:, :, [0, 2]] * s - 0.5 * (s - 1)
        return y.flatten(1, 2)

    def do_region(self, x: Tensor, block: Block) -> Tensor:
        y = split(x, block.get("num", 1)).clone()
        coords, background = block.get("coords", 4), block.get("background")
        y[:, :, :2] = y[:, :, :2].sigmoid()
        if not background:
            y[:, :, coords] = y[:, :, coords].sigmoid()
        if "tree" in block.options:
            parents = self.trees[block.options["tree"]]
            for anchor in y.unbind(1):
                anchor[:, coords + 1 :] = self.softmax_in_groups(anchor[:, coords + 1 :].clone(), parents)
        elif block.get("softmax"):
            start = coords + (0 if background else 1)
            y[:, :, start:] = y[:, :, start:].softmax(2)
        else:
            y[:, :, coords + 1 :] = y[:, :, coords + 1 :].sigmoid()
        return y.flatten(1, 2)

    def do_detection(self, x: Tensor, block: Block) -> Tensor:
        y, cells, classes = x.flatten(1).clone(), block.get("side", 7) ** 2, block.get("classes", 1)
        if block.get("softmax"):
            for i in range(cells):
                part = slice(i * classes, (i + 1) * classes)
                y[:, part] = y[:, part].softmax(1)
        return y[:, :, None, None]

    def do_normalization(self, x: Tensor, block: Block) -> Tensor:
        """darknet's loop, with its running sum."""
        alpha, beta = block.real("alpha", 1e-4), block.real("beta", 0.75)
        size, square = block.get("size", 5), x * x
        norms = torch.full_like(x, block.real("kappa", 1))
        for k in range(size // 2):
            norms[:, 0] += alpha * square[:, k]
        for k in range(1, x.shape[1]):
            norms[:, k] = norms[:, k - 1]
            before, after = k - (size - 1) // 2 - 1, k + size // 2
            if before >= 0:
                norms[:, k] -= alpha * square[:, before]
            if after < x.shape[1]:
                norms[:, k] += alpha * square[:, after]
        return x * norms**-beta

    def do_l2norm(self, x: Tensor, block: Block) -> Tensor:
        return x / (x * x).sum(1, keepdim=True).sqrt()

    def connected_record(self, inputs: int, outputs: int, block: Block) -> Callable[[Tensor], Tensor]:
        """A connected layer of a recurrent one: its numbers are read now, it is applied at every step."""
        bias, weight = self.floats(outputs), self.floats(outputs, inputs)
        norm = [self.floats(outputs) for _ in range(3)] if block.get("batch_normalize") else []
        return lambda x: self.finish(x @ weight.T, bias, *norm)

    def conv_record(self, inputs: int, outputs: int, block: Block) -> Callable[[Tensor], Tensor]:
        k, groups, dilation = block.get("size", 3), block.get("groups", 1), block.get("dilation", 1)
        norm = self.normed_parameters(outputs, block)
        weight = self.floats(outputs, inputs // groups, k, k)
        return lambda x: self.finish(F.conv2d(x, weight, None, 1, k // 2 * dilation, dilation, groups), *norm)

    def by_step(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.chunk(self.net.get("time_steps", 1))

    def simple(self, block: Block, x: Tensor, layers: list[Callable[[Tensor], Tensor]], state: Tensor) -> Tensor:
        given, own, out = layers
        act = ACTIVATIONS[block.options.get("activation", "logistic")]
        own_act = {0: act, 1: torch.sigmoid, 2: ACTIVATIONS["loggy"]}[block.get("logistic")]
        outputs = []
        for step in self.by_step(x):
            state = act(given(step)) + own_act(own(state)) + (state if block.get("shortcut") else 0)
            outputs.append(act(out(state)))
        return torch.cat(outputs)

    def do_rnn(self, x: Tensor, block: Block) -> Tensor:
        x = x.flatten(1)
        outputs = block.get("output", 1)
        hidden = block.get("hidden", 1) if self.fork == "alexeyab" else outputs
        sizes = ((x.shape[1], hidden), (hidden, hidden), (hidden, outputs))
        layers = [self.connected_record(a, b, block) for a, b in sizes]
        return self.simple(block, x, layers, self.zeros(x, hidden))[:, :, None, None]

    def do_crnn(self, x: Tensor, block: Block) -> Tensor:
        suffix = "" if self.fork == "alexeyab" else "_filters"
        hidden, outputs = block.get(f"hidden{suffix}", 1), block.get(f"output{suffix}", 1)
        sizes = ((x.shape[1], hidden), (hidden, hidden), (hidden, outputs))
        layers = [self.conv_record(a, b, block) for a, b in sizes]
        return self.simple(block, x, layers, self.zeros(x, hidden, *x.shape[2:]))

    def zeros(self, x: Tensor, *shape: int) -> Tensor:
        return torch.zeros(len(x) // self.net.get("time_steps", 1), *shape, dtype=torch.float64)

    def do_gru(self, x: Tensor, block: Block) -> Tensor:
        x = x.flatten(1)
        n = block.get("output", 1)
        first, second = ((x.shape[1], "u"), (n, "w")) if self.fork == "alexeyab" else ((n, "w"), (x.shape[1], "u"))
        layer = {side + gate: self.connected_record(i, n, block) for i, side in (first, second) for gate in "zrh"}
        h, outputs = self.zeros(x, n), []
        for step in self.by_step(x):
            z = (layer["wz"](h) + layer["uz"](step)).sigmoid()
            r = (layer["wr"](h) + layer["ur"](step)).sigmoid()
            c = layer["wh"](r * h) + layer["uh"](step)
            h = z * h + (1 - z) * (c.tanh() if block.get("tanh") else c.sigmoid())
            outputs.append(h)
        return torch.cat(outputs)[:, :, None, None]

    def do_lstm(self, x: Tensor, block: Block) -> Tensor:
        x, n = x.flatten(1), block.get("output", 1)
        gates = "figo" if self.fork == "alexeyab" else "ifog"
        layer = {"w" + gate: self.connected_record(n, n, block) for gate in gates}
        layer |= {"u" + gate: self.connected_record(x.shape[1], n, block) for gate in gates}
        return self.long_short(x, layer, 0.0, self.zeros(x, n))[:, :, None, None]

    def do_conv_lstm(self, x: Tensor, block: Block) -> Tensor:
        n, act = block.get("output", 1), ACTIVATIONS[block.options.get("activation", "linear")]
        names = ["vf", "vi", "vo"] if block.get("peephole") else []
        names += ["wf", "wi", "wg", "wo", "uf", "ui", "ug", "uo"]
        layer = {}
        for name in names:
            record = self.conv_record(x.shape[1] if name[0] == "u" else n, n, block)
            layer[name] = lambda value, record=record: act(record(value))
        limit = block.real("state_constrain", 32 * self.net.get("time_steps", 1))
        return self.long_short(x, layer, limit, self.zeros(x, n, *x.shape[2:]))

    def long_short(self, x: Tensor, layer: dict[str, Any], limit: float, zero: Tensor) -> Tensor:
        c, h, outputs = zero, zero, []
        for step in self.by_step(x):
            f, i, g, o = (layer["w" + gate](h) + layer["u" + gate](step) for gate in "figo")
            if "vf" in layer:
                f, i = f + layer["vf"](c), i + layer["vi"](c)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = (o + (layer["vo"](c) if "vo" in layer else 0)).sigmoid() * c.tanh()
            c = c.clamp(-limit, limit) if limit else c
            outputs.append(h)
        return torch.cat(outputs)
