"""What every rule of the export to darknet asks of a node, and the exception for what it does not have."""

from __future__ import annotations

from graphsr.dim import Dim, Size
from graphsr.ir import Node
from graphsr.op import Array


class UnsupportedError(Exception):
    """A node that darknet has no words for."""


def value(node: Node) -> Array:
    if not node.is_const:
        raise UnsupportedError("its parameters are computed and not constants")
    return node.value


def known(size: Size) -> int:
    if isinstance(size, Dim):
        raise UnsupportedError(f"its size {size} is open")
    return size
