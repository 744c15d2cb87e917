"""Which sizes of an image a network takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphsr.errors import ShapeError
from graphsr.ir import Graph

Shapes = Mapping[str, tuple[int, ...]]
STEPS = tuple(2**n for n in range(1, 8))
"""Most networks halve the image a few times, and take multiples of one of these."""


def check_size(graph: Graph, size: tuple[int, int], shapes: Callable[[tuple[int, int]], Shapes]) -> None:
    """Raise `ShapeError` that names the sizes nearby, where the network does not take this (height, width).

    `shapes` gives the shapes of the inputs at a size.
    """
    refusal = _refusal(graph, shapes(size))
    if refusal is None:
        return
    for step in STEPS:
        below = tuple(max(step, n // step * step) for n in size)
        above = tuple(-(-n // step) * step for n in size)
        near = dict.fromkeys([(below[0], below[1]), (above[0], above[1])])
        if all(_refusal(graph, shapes(each)) is None for each in near):
            named = " or ".join(f"{height} x {width}" for height, width in near)
            raise ShapeError(f"the network does not take {size[0]} x {size[1]} pixels: give the size {named}")
    raise ShapeError(f"the network does not take {size[0]} x {size[1]} pixels: {refusal}") from refusal


def _refusal(graph: Graph, shapes: Shapes) -> ShapeError | None:
    try:
        graph.bind(shapes)
    except ShapeError as error:
        return error
    return None
