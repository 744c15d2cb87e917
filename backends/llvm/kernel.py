"""What a kernel is: a frozen description from which its code follows, and a call of it.

A `Kernel` is a frozen dataclass. Its fields are all that the code depends on: channels, attributes, epilogue, blocking,
never a height or a width. Those, and every address, come at run time through the slots, so a new image size needs no
new machine code. Equal descriptions are compiled once per process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Union

from graphsr.op import Array

from .loops import I64, PTR, Function

if TYPE_CHECKING:
    from .target import Target
    from .tensor import Buffer, Measure
    from .weight_forms import WeightForm


class Kernel(ABC):
    """Base of all kernels. Subclasses are frozen dataclasses; the docstring states the loop nest."""

    running_pointers: ClassVar[bool] = False
    """Whether LLVM makes running pointers of the addresses in its loops, in two thirds more time. Most loops are as
    fast as they are written."""

    reads_weights_once: ClassVar[bool] = False
    """Whether the units share out the weights, so that each is read by one thread; most kernels share out pixels."""

    @abstractmethod
    def slots(self) -> Mapping[str, str]:
        """Name and type (PTR, I64, FLOAT) of every argument, in the order of the slots."""

    @abstractmethod
    def body(self, k: Function, target: Target) -> None:
        """Write the code for one unit of work."""

    def scratch(self, target: Target) -> int:
        """Bytes of working memory that each thread needs, 64-byte aligned."""
        return 0

    def check(self, arguments: Mapping[str, Argument]) -> None:
        """Raise what `forward` would have raised, when a call with these arguments has run: its code cannot. It keeps
        to its memory whatever its inputs are, and says what it has seen in an array among the arguments."""
        return

    def for_any_width(self, target: Target) -> set[Kernel]:
        """The kernels that compute the same layer in images of other widths."""
        return {self}

    @property
    def blocking(self) -> str:
        """For `explain()`: what is computed at once in registers and in caches, of kernels that say so."""
        return ""

    @property
    def symbol(self) -> str:
        """A name for linking: the same for equal descriptions, in every process."""
        return f"{type(self).__name__}_{sha256(repr(self).encode()).hexdigest()[:16]}"

    def function(self, target: Target) -> Function:
        """The kernel's code for a target."""
        k = Function(
            self.symbol,
            self.slots(),
            fma=target.has_fma,
            register=target.vector_bits // 32,
            as_written=not self.running_pointers,
        )
        self.body(k, target)
        return k


Argument = Union[int, float, Array, "WeightForm", "Buffer", "Measure"]
"""What a slot is given: a number; an array (its address; the program keeps it alive), or a form of weights that becomes
one when the plan is known to fit; a buffer (its address); or a measure of a blocked tensor that is known when planning
is done."""


@dataclass(frozen=True, eq=False)
class Call:
    """One step of the compiled program: `units` pieces of work of a kernel, in any order, on any thread."""

    kernel: Kernel
    arguments: Mapping[str, Argument]
    units: int
    scratch: int = 0
    """Bytes per thread."""


def blocked_slots(name: str) -> dict[str, str]:
    """The slots of a blocked tensor: address of pixel (0, 0) of block 0, then the distances in bytes between rows and
    between blocks of 16 channels, then the pixels of halo left and right of a row."""
    return {name: PTR, f"{name}_row": I64, f"{name}_block": I64, f"{name}_left": I64, f"{name}_right": I64}
