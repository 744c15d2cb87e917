"""Strategy for local connections."""

from __future__ import annotations

from hypothesis import strategies as st

from graphsr.ops import LocalConv2d
from graphsr.testing.cases import Case, arrays, layer

SMALL = st.integers(1, 2)


@layer("local_conv2d")
def local_conv2d(draw: st.DrawFn) -> Case:
    padding = tuple(draw(st.integers(0, 1)) for _ in range(4))
    stride, kernel = (draw(SMALL), draw(SMALL)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    size, out = [], []
    for a in (0, 1):
        total = padding[a] + padding[a + 2]
        size.append(max(1, kernel[a] - total) + draw(st.integers(0, 2)))
        out.append((size[a] + total - kernel[a]) // stride[a] + 1)
    n, ci, co = draw(SMALL), draw(SMALL), draw(SMALL)
    op = LocalConv2d(stride, (padding[0], padding[1], padding[2], padding[3]))
    weight = draw(arrays((*out, co, ci, *kernel)))
    return Case(op, (draw(arrays((n, ci, *size))), weight, draw(arrays((co, *out)))))
