"""For whoever writes an op or a backend: hypothesis strategies for layers and graphs, and the equivalence suite.

Needs hypothesis (`pip install 'graphsr[test]'`); without it the import raises `MissingExtraError`.
`python -m graphsr.testing BACKEND` runs the suite.
"""

from graphsr.errors import MissingExtraError

try:
    import hypothesis as _hypothesis  # noqa: F401  # what all of this rests on
except ModuleNotFoundError as _error:
    if _error.name != "hypothesis":
        raise
    raise MissingExtraError("graphsr.testing needs hypothesis: pip install 'graphsr[test]'") from None

from graphsr.testing import (  # each enters its strategies in LAYERS
    activation,
    arithmetic,
    compare,
    conv,
    conv_nd,
    cost,
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
    quantise,
    rearrange,
    recurrent,
    reduce,
    reduce_kinds,
    resize,
    sample,
    shape,
    unary,
)
from graphsr.testing.cases import LAYERS, Case, arrays, distinct_arrays, growth, layer, tolerance
from graphsr.testing.check import CHECKS, check_backend, graphs_agree, layers_agree, threads_give_the_same_bits
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
    "cost",
    "dense",
    "detection",
    "distinct_arrays",
    "elementwise",
    "expand",
    "fused",
    "generate",
    "graphs",
    "graphs_agree",
    "growth",
    "index",
    "layer",
    "layers_agree",
    "local",
    "matmul",
    "networks",
    "norm",
    "normalise",
    "order",
    "pool",
    "quantise",
    "rearrange",
    "recurrent",
    "reduce",
    "reduce_kinds",
    "resize",
    "sample",
    "shape",
    "threads_give_the_same_bits",
    "tolerance",
    "unary",
]
