"""Everything that graphsr raises on purpose derives from `GraphsrError`.

A message says what is wrong, where (file, node name and origin), what was expected, what was found and
what to do about it.
"""

from __future__ import annotations


class GraphsrError(Exception):
    """Base of every error that graphsr raises on purpose."""


class GraphError(GraphsrError):
    """A graph, node or text form that is not well formed or not well typed."""


class ShapeError(GraphsrError):
    """Arrays given to a run do not fit the graph's inputs."""


class ModelError(GraphsrError):
    """A model file that is refused: damaged, hostile, foreign, or of an architecture we do not know."""


class BackendError(GraphsrError):
    """A backend is unknown, cannot be loaded, or cannot run a graph."""


class ImageError(GraphsrError):
    """An image (file or array) that cannot be read, processed or written without loss."""


class MissingExtraError(GraphsrError):
    """An optional dependency is needed and not installed; the message names the extra."""
