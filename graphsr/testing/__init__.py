"""For whoever writes an op or a backend: hypothesis strategies for layers and graphs, and the equivalence suite.

Needs hypothesis (`pip install 'graphsr[test]'`).
"""

from graphsr.testing import (  # each enters its strategies in LAYERS
    activation,
    arithmetic,
    compare,
    conv,
    conv_nd,
    dense,
    detection,
    elementwise,
    expand,
    fused,
    generate,
    index,
    local,
    matmul,
    norm,
    normalise,
    order,
    pool,
    rearrange,
    reduce,
    reduce_kinds,
    resize,
    shape,
    unary,
)
from graphsr.testing.cases import LAYERS, Case, arrays, distinct_arrays, growth, layer, tolerance
from graphsr.testing.check import CHECKS, check_backend
from graphsr.testing.graphs import GraphCase, graphs
from graphsr.testing.networks import networks

__all__ = [
    "CHECKS",
    "LAYERS",
    "Case",
    "GraphCase",
    "activation",
    "arithmetic",
    "arrays",
    "check_backend",
    "compare",
    "conv",
    "conv_nd",
    "dense",
    "detection",
    "distinct_arrays",
    "elementwise",
    "expand",
    "fused",
    "generate",
    "graphs",
    "growth",
    "index",
    "layer",
    "local",
    "matmul",
    "networks",
    "norm",
    "normalise",
    "order",
    "pool",
    "rearrange",
    "reduce",
    "reduce_kinds",
    "resize",
    "shape",
    "tolerance",
    "unary",
]
