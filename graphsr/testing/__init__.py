"""For whoever writes an op or a backend: hypothesis strategies for layers and graphs, and the equivalence suite.

Needs hypothesis (`pip install 'graphsr[test]'`).
"""

from graphsr.testing import conv, elementwise, fused  # each enters its strategies in LAYERS
from graphsr.testing.cases import LAYERS, Case, arrays, distinct_arrays, layer, tolerance

__all__ = ["LAYERS", "Case", "arrays", "conv", "distinct_arrays", "elementwise", "fused", "layer", "tolerance"]
