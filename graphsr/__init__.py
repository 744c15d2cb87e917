"""graphsr: super-resolution networks on a CPU.

>>> import graphsr
>>> model = graphsr.load("wdsr-x2")
>>> run = model.compile(backend="reference", threads=1)
>>> out = run({"input": np.zeros((1, 3, 8, 8), dtype=np.float32)})
>>> out["output"].shape
(1, 3, 16, 16)

Names are imported on first use, so that `import graphsr` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphsr.backend import Backend as Backend
    from graphsr.backend import Executable as Executable
    from graphsr.errors import BackendError as BackendError
    from graphsr.errors import GraphError as GraphError
    from graphsr.errors import GraphsrError as GraphsrError
    from graphsr.errors import ImageError as ImageError
    from graphsr.errors import MissingExtraError as MissingExtraError
    from graphsr.errors import ModelError as ModelError
    from graphsr.errors import ShapeError as ShapeError
    from graphsr.ir import Graph as Graph
    from graphsr.ir import Node as Node
    from graphsr.ir import TensorType as TensorType
    from graphsr.loading import load as load
    from graphsr.loading import save as save
    from graphsr.model import Model as Model
    from graphsr.upscaling import Upscaler as Upscaler
    from graphsr.upscaling import upscale as upscale

__version__ = "0.1.0"

_HOME = {
    "Backend": "backend",
    "Executable": "backend",
    "BackendError": "errors",
    "GraphError": "errors",
    "GraphsrError": "errors",
    "ImageError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "ShapeError": "errors",
    "Graph": "ir",
    "Node": "ir",
    "TensorType": "ir",
    "load": "loading",
    "save": "loading",
    "Model": "model",
    "Upscaler": "upscaling",
    "upscale": "upscaling",
}
"""The module of every public name."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphsr' has no attribute {name!r}")
    value = getattr(import_module(f"graphsr.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
