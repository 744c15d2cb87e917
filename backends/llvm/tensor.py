"""How values lie in memory. Two layouts:

- planar: as NumPy has them, contiguous, of any rank and dtype;
- blocked: float32 images as [N][H][C/16][left + W + right][16]. The 16 channels of a block are the lanes of a vector, a
  row of all channels is one contiguous region, and a halo of zero pixels left and right of every row replaces border
  cases; above and below the image kernels read a shared row of zeros. Whoever writes a row writes its halo. Lanes
  beyond C hold zeros.

The halo grows while the plan is made: every kernel asks for what it reads or writes beyond the row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphsr.ir import TensorType

from .loops import LANES, VECTOR_BYTES


@dataclass(eq=False, slots=True)
class Buffer:
    """A region of memory while it is planned."""

    type: TensorType
    start: int = 0
    """Of a buffer that is part of another one, the bytes before it."""

    @property
    def nbytes(self) -> int:
        return self.type.nbytes

    @property
    def origin(self) -> int:
        """Bytes from the start of the buffer (or of the one that it is part of) to where its address points."""
        return self.start


@dataclass(eq=False, slots=True)
class Blocked(Buffer):
    """A blocked image."""

    left: int = 0
    right: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.type.dims[1] // LANES)

    @property
    def block_bytes(self) -> int:
        return (self.left + self.type.dims[3] + self.right) * VECTOR_BYTES

    @property
    def row_bytes(self) -> int:
        return self.blocks * self.block_bytes

    @property
    def nbytes(self) -> int:
        n, _, h, _ = self.type.dims
        return n * h * self.row_bytes

    @property
    def origin(self) -> int:
        return self.left * VECTOR_BYTES

    def reach(self, left: int, right: int) -> None:
        """Make the halo at least this many pixels wide."""
        self.left = max(self.left, left)
        self.right = max(self.right, right)

    def arguments(self, name: str) -> dict[str, Buffer | Measure]:
        """The values of `blocked_slots(name)`."""
        measures = {f"{name}_{what}": Measure(self, what) for what in ("row", "block", "left", "right")}
        return {name: self, **measures}


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a blocked tensor, read when its halo is final."""

    tensor: Blocked
    what: str

    @property
    def value(self) -> int:
        t = self.tensor
        return {"row": t.row_bytes, "block": t.block_bytes, "left": t.left, "right": t.right}[self.what]


@dataclass(eq=False, slots=True)
class Zeros(Buffer):
    """Zeros that stand for any row above or below an image of these tensors; never written after its creation."""

    tensors: list[Blocked] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return max((t.row_bytes for t in self.tensors), default=0) + VECTOR_BYTES

    @property
    def origin(self) -> int:
        return max((t.origin for t in self.tensors), default=0)
