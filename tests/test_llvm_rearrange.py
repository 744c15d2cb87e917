"""depth_to_space and space_to_depth of the llvm backend: every block and mode, planar and in blocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsr.ops import DepthToSpace, SpaceToDepth
from graphsr.testing.graphs import GraphCase

pytest.importorskip("llvmlite")

from llvm_layers import CHANNELS, SIZES, assert_has_kernel, layer_case, several, with_nans

from graphsr.backends.llvm.kernels import rearrange

BLOCKS = (1, 2, 3, 4, 5, 6, 8, 9)
MODE = st.sampled_from(["crd", "dcr"])


@st.composite
def rearrangements(draw: st.DrawFn, blocked: bool) -> GraphCase:
    b, back = draw(st.sampled_from(BLOCKS[:4] if blocked else BLOCKS)), draw(st.booleans())
    cells = b * b
    most = max(8, 96 // cells)
    least = 1 if not blocked else 8 if back else -(-8 // cells)
    c = draw(st.sampled_from([c for c in CHANNELS if least <= c <= most] or [least]))
    n, h, w = draw(st.integers(1, 2)), draw(st.sampled_from(SIZES[:5])), draw(st.sampled_from(SIZES))
    op = SpaceToDepth(b, draw(MODE)) if back else DepthToSpace(b, draw(MODE))
    shape = (n, c, h * b, w * b) if back else (n, c * cells, h, w)
    return layer_case(draw, op, shape, blocked=blocked)


@several
@given(rearrangements(blocked=False))
def test_planar(case: GraphCase) -> None:
    assert_has_kernel(case)
    assert_has_kernel(with_nans(case))


@several
@given(rearrangements(blocked=True))
def test_from_blocks(case: GraphCase) -> None:
    assert_has_kernel(case)


@pytest.mark.parametrize("width", [16, 24, 80])
@pytest.mark.parametrize("op", [DepthToSpace(2), DepthToSpace(6), SpaceToDepth(2)], ids=str)
@given(st.data())
@settings(several, max_examples=3)
def test_past_the_caches(op: DepthToSpace | SpaceToDepth, width: int, data: st.DataObject) -> None:
    """As large images are written; rows of 24 pixels begin on a cache line now and then only."""
    channels = 3 if isinstance(op, SpaceToDepth) else 3 * op.block**2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rearrange, "STREAM_BYTES", 1)
        assert_has_kernel(layer_case(data.draw, op, (1, channels, 4, width)))
