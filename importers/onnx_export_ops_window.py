"""How convolutions and pools, over any number of spatial axes, are written as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import numpy_helper

from graphsr.dim import Size, larger
from graphsr.ops import (
    AvgPool2d,
    AvgPoolNd,
    Conv2d,
    ConvNd,
    ConvTranspose2d,
    ConvTransposeNd,
    LocalConv2d,
    LpPoolNd,
    MaxPool2d,
    MaxPoolNd,
)

from .onnx_export_writer import MOST, Rules, Site, UnwritableError, integers

Pool: TypeAlias = "AvgPool2d | AvgPoolNd | LpPoolNd | MaxPool2d | MaxPoolNd"


def _conv(s: Site, op: Conv2d | ConvNd, *x: str) -> str:
    """Winograd is a way to compute the same convolution: the weights in the graph are the plain ones."""
    return s("Conv", *x, **_convolution(s, op))


def _conv_transpose(s: Site, op: ConvTranspose2d | ConvTransposeNd, *x: str) -> str:
    """Output padding of a stride or more, which engines refuse, becomes zeros behind; then the padding is cut off."""
    axes, how = len(op.stride), _convolution(s, op)
    extra = list(op.output_padding or (0,) * axes)
    if all(more < step for more, step in zip(extra, op.stride, strict=True)):
        return s("ConvTranspose", *x, **how, output_padding=extra)
    whole = s("ConvTranspose", *x[:2], **{**how, "pads": [0] * 2 * axes})
    whole = _padded(s, [0] * axes + extra, whole, 0)
    first, behind = op.padding[:axes], op.padding[axes:]
    last = [-cut if cut else MOST for cut in behind]
    y = s("Slice", whole, integers(first), integers(last), integers(range(2, axes + 2)))
    if len(x) == 2:
        return y
    return s("Add", y, s("Unsqueeze", x[2], integers(range(1, axes + 1))))


def _convolution(s: Site, op: Conv2d | ConvNd | ConvTranspose2d | ConvTransposeNd) -> dict[str, Any]:
    return {
        "kernel_shape": list(s.types[1].dims[2:]),
        "strides": list(op.stride),
        "pads": list(op.padding),
        "dilations": list(op.dilation),
        "group": op.groups,
    }


def _local(s: Site, op: LocalConv2d, x: str, weight: str, bias: str) -> str:
    """What each position of the kernel meets, side by side as channels [n, i·j·c, h, w], times the weights."""
    ho, wo, co, ci, kh, kw = s.types[1].dims
    sh, sw = op.stride
    x = _padded(s, op.padding, x, 0)
    taps = [
        s(
            "Slice",
            x,
            integers([i, j]),
            integers([i + sh * (ho - 1) + 1, j + sw * (wo - 1) + 1]),
            integers([2, 3]),
            integers(op.stride),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    columns = s("Concat", *taps, axis=1)
    rows = s("Transpose", weight, perm=[0, 1, 2, 4, 5, 3])
    rows = s("Reshape", rows, integers([ho, wo, co, kh * kw * ci]))
    return s("Add", s("Einsum", rows, columns, equation="hwok,nkhw->nohw"), bias)


def _max_pool(s: Site, op: MaxPool2d | MaxPoolNd, x: str) -> str:
    """Padding wider than the kernel, which engines refuse, becomes a frame of −∞; but that would shift the indices."""
    how = {**_window(op), "dilations": list(op.dilation), "ceil_mode": int(op.ceil_mode)}
    if isinstance(op, MaxPoolNd) and op.output == "indices":
        order = int(op.column_major)
        return _cut(s, op, s.several("MaxPool", 2, x, **how, pads=list(op.padding), storage_order=order)[1])
    if max(op.padding) < min(op.kernel):
        return _cut(s, op, s("MaxPool", x, **how, pads=list(op.padding)))
    return _cut(s, op, s("MaxPool", _padded(s, op.padding, x, -np.inf), **how))


def _avg_pool(s: Site, op: AvgPool2d | AvgPoolNd, x: str) -> str:
    """What ceil mode adds behind the padding never counts: padding that does is made part of the input before."""
    if set(op.dilation) != {1}:
        return _dilated_average(s, op, x)
    how = {**_window(op), "ceil_mode": int(op.ceil_mode)}
    if op.ceil_mode and op.count_include_pad:
        return _cut(s, op, s("AveragePool", _padded(s, op.padding, x, 0), **how))
    included = int(op.count_include_pad)
    return _cut(s, op, s("AveragePool", x, **how, pads=list(op.padding), count_include_pad=included))


def _dilated_average(s: Site, op: AvgPool2d | AvgPoolNd, x: str) -> str:
    """Σ x / Σ 1, both as convolutions: AveragePool has dilation from set 19 on only."""
    pads = _reach(s, op)
    if op.count_include_pad:
        x = _padded(s, op.padding, x, 0)
        pads = [more - done for more, done in zip(pads, op.padding, strict=True)]
    one = numpy_helper.from_array(np.ones(1, s.dtype))
    ones = s("ConstantOfShape", s("Shape", x), value=one)
    count = s("Max", _window_sum(s, op, ones, pads), s.number(1))
    return s("Div", _window_sum(s, op, x, pads), count)


def _lp_pool(s: Site, op: LpPoolNd, x: str) -> str:
    """LpPool has dilation and ceil mode from set 18 on only."""
    if set(op.dilation) == {1} and not op.ceil_mode:
        return s("LpPool", x, **_window(op), pads=list(op.padding), p=op.p)
    powers = s("Pow", s("Abs", x), s.number(op.p))
    return s("Pow", _window_sum(s, op, powers, _reach(s, op)), s.number(1 / op.p))


def _window_sum(s: Site, op: Pool, x: str, pads: Sequence[Size]) -> str:
    """The sum over each window: a convolution with ones, channel by channel."""
    channels = s.x.shape[1]
    if not isinstance(channels, int):
        raise UnwritableError("the number of channels must be known")
    how = {**_window(op), "dilations": list(op.dilation), "group": channels}
    return s("Conv", _padded(s, pads, x, 0), np.ones((channels, 1, *op.kernel), s.dtype), **how)


def _window(op: Pool) -> dict[str, Any]:
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride)}


def _cut(s: Site, op: Pool, y: str) -> str:
    """Without the windows that start behind the input: in ceil mode the operators before set 19 may have them."""
    axes = len(op.kernel)
    behind = zip(op.padding[axes:], op.stride, _spans(op), strict=True)
    if not op.ceil_mode or all(pad + step <= span for pad, step, span in behind):
        return y
    sizes = s.sizes(s.output.shape[2:])
    return s("Slice", y, integers([0] * axes), sizes, integers(range(2, axes + 2)))


def _reach(s: Site, op: Pool) -> list[Size]:
    """The padding, behind each axis as wide as the windows reach."""
    pads: list[Size] = list(op.padding)
    if op.ceil_mode:
        for a, (n, m) in enumerate(zip(s.x.shape[2:], s.output.shape[2:], strict=True)):
            behind = a + len(op.kernel)
            pads[behind] = larger(pads[behind], op.stride[a] * (m - 1) + _spans(op)[a] - n - op.padding[a])
    return pads


def _spans(op: Pool) -> list[int]:
    """How many elements a window reaches over along each axis."""
    return [step * (size - 1) + 1 for step, size in zip(op.dilation, op.kernel, strict=True)]


def _padded(s: Site, pads: Sequence[Size], x: str, value: float) -> str:
    """x with a frame around its spatial axes."""
    axes = len(pads) // 2
    if all(isinstance(pad, int) and pad == 0 for pad in pads):
        return x
    return s("Pad", x, s.sizes([0, 0, *pads[:axes], 0, 0, *pads[axes:]]), s.number(value))


WINDOW: Rules = {
    Conv2d: _conv,
    ConvNd: _conv,
    ConvTranspose2d: _conv_transpose,
    ConvTransposeNd: _conv_transpose,
    LocalConv2d: _local,
    MaxPool2d: _max_pool,
    MaxPoolNd: _max_pool,
    AvgPool2d: _avg_pool,
    AvgPoolNd: _avg_pool,
    LpPoolNd: _lp_pool,
}
