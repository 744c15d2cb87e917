"""For whoever writes an op or a backend: hypothesis strategies for layers and graphs, and the equivalence suite.

Needs hypothesis (`pip install 'graphsr[test]'`).
"""

from graphsr.testing import (  # each enters its strategies in LAYERS
    conv,
    elementwise,
    fused,
    pool,
    rearrange,
    reduce,
    resize,
    shape,
)
from graphsr.testing.cases import LAYERS, Case, arrays, distinct_arrays, layer, tolerance

__all__ = [
    "LAYERS",
    "Case",
    "arrays",
    "conv",
    "distinct_arrays",
    "elementwise",
    "fused",
    "layer",
    "pool",
    "rearrange",
    "reduce",
    "resize",
    "shape",
    "tolerance",
]
