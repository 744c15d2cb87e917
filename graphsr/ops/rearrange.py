"""Depth to space and back: channels become pixels, as at the end of a sub-pixel convolution network.

Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", 2016. Symbols: b block (the upscaling factor), C channels of the larger image, i and j row and column within a
block.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphsr.dim import Size
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_rank, op

MODES = ("crd", "dcr")
"""Where the position in the block stands among the channels: after the channel (column-row-depth), or before it."""


@op("depth_to_space")
@dataclass(frozen=True, slots=True)
class DepthToSpace(Op):
    """[N, C·b², H, W] -> [N, C, b·H, b·W]

    crd: y[n, c, b·h + i, b·w + j] = x[n, c·b² + b·i + j, h, w]   (PyTorch's PixelShuffle)
    dcr: y[n, c, b·h + i, b·w + j] = x[n, (b·i + j)·C + c, h, w]   (TensorFlow; the default of ONNX)

    >>> x = np.arange(4.0).reshape(1, 4, 1, 1)
    >>> DepthToSpace(block=2).forward(x)
    array([[[[0., 1.],
             [2., 3.]]]])
    """

    block: int
    mode: str = "crd"

    def infer(self, x: TensorType) -> TensorType:
        _check(self, x)
        (n, c, h, w), b = x.shape, self.block
        _expect_divides("channels", c, b * b)
        return TensorType(x.dtype, (n, c // (b * b), h * b, w * b))

    def forward(self, x: Array) -> Array:
        (n, c, h, w), b = x.shape, self.block
        c //= b * b
        if self.mode == "crd":
            blocks = x.reshape(n, c, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        else:
            blocks = x.reshape(n, b, b, c, h, w).transpose(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c, h * b, w * b)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        """A permutation: its gradient is its inverse."""
        return (SpaceToDepth(self.block, self.mode).forward(cotangent),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return low // self.block, high // self.block


@op("space_to_depth")
@dataclass(frozen=True, slots=True)
class SpaceToDepth(Op):
    """[N, C, b·H, b·W] -> [N, C·b², H, W], the inverse of `DepthToSpace` with the same block and mode

    crd: y[n, c·b² + b·i + j, h, w] = x[n, c, b·h + i, b·w + j]   (PyTorch's PixelUnshuffle)
    dcr: y[n, (b·i + j)·C + c, h, w] = x[n, c, b·h + i, b·w + j]   (TensorFlow, ONNX)

    >>> SpaceToDepth(block=2).forward(np.array([[[[0.0, 1.0], [2.0, 3.0]]]])).ravel()
    array([0., 1., 2., 3.])
    """

    block: int
    mode: str = "crd"

    def infer(self, x: TensorType) -> TensorType:
        _check(self, x)
        (n, c, h, w), b = x.shape, self.block
        _expect_divides("height", h, b)
        _expect_divides("width", w, b)
        return TensorType(x.dtype, (n, c * b * b, h // b, w // b))

    def forward(self, x: Array) -> Array:
        (n, c, h, w), b = x.shape, self.block
        blocks = x.reshape(n, c, h // b, b, w // b, b)
        order = (0, 1, 3, 5, 2, 4) if self.mode == "crd" else (0, 3, 5, 1, 2, 4)
        return blocks.transpose(order).reshape(n, c * b * b, h // b, w // b)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        return (DepthToSpace(self.block, self.mode).forward(cotangent),)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return low * self.block, (high + 1) * self.block - 1


def _check(op: DepthToSpace | SpaceToDepth, x: TensorType) -> None:
    expect_rank("input", x, 4)
    expect(op.block >= 1, f"block {op.block} must be at least 1")
    expect(op.mode in MODES, f"mode {op.mode!r} is not one of {MODES}")


def _expect_divides(what: str, size: Size, divisor: int) -> None:
    """An open size is checked when it is bound."""
    expect(not isinstance(size, int) or size % divisor == 0, f"{what} {size} must be a multiple of {divisor}")
