"""`Model`: a graph with what is known about it. What users hold between loading and running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from graphsr.backend import Backend, Executable, get_backend
from graphsr.ir import Graph, TensorType

DEFAULT_BACKEND = "llvm"


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A network that was built, loaded or embedded.

    For an image network the graph takes [N, C, H, W] with pixel values in 0..`input_range` (normalisation is part
    of the graph) and gives [N, C, scale·H, scale·W] in the same range, not clipped.
    """

    graph: Graph
    architecture: str
    """Such as "EDSR" or "WDSR-A"."""
    scale: int | None = None
    """Output size over input size, None where the network is not an upscaler."""
    input_range: float = 255.0
    """The value of white at input and output: 255 or 1."""
    inferred: Mapping[str, str] = field(default_factory=dict)
    """What was read from the file, such as {"blocks": "8"}."""
    assumptions: tuple[str, ...] = ()
    """What the file does not say and was assumed, one sentence each, with the option that overrides it."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it came from: file, format, sha256, credits."""
    fixed: frozenset[str] = frozenset()
    """Names of the constants that belong to the method (means, ranges) and were not learned."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "inferred", MappingProxyType(dict(self.inferred)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        scale = f" x{self.scale}" if self.scale else ""
        return f"<Model {self.architecture}{scale}, {self.parameters:,} parameters>"

    @property
    def inputs(self) -> dict[str, TensorType]:
        """Type of every input by name; sizes may be open."""
        return self.graph.input_types()

    @property
    def outputs(self) -> dict[str, TensorType]:
        """Type of every output by name."""
        return self.graph.output_types()

    @property
    def parameters(self) -> int:
        """Number of elements of all floating-point constants that are not `fixed`: weights, biases, statistics."""
        constants = (node for node in self.graph.nodes() if node.is_const and node.name not in self.fixed)
        return sum(node.value.size for node in constants if node.value.dtype.kind == "f")

    def compile(
        self, backend: str | Backend = DEFAULT_BACKEND, threads: int | None = None, **options: object
    ) -> Executable:
        """Make the network callable on a backend; `threads=None` uses all that are available, or fewer for
        images so small that more would be slower.

        `options` are those of the backend; llvm has `accuracy="high"`, and `memory="low"` or `"high"`.
        Raises `BackendError` when the backend or an option is unknown, or a node is not supported.
        """
        return get_backend(backend, **options).compile(self.graph, threads=threads)

    def _repr_html_(self) -> str:
        return self.graph._repr_html_()
