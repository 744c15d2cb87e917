"""The `onnx.backend.base` interface over our backends, as onnx's own test suite and other tools call it.

`prepare(model, backend="numpy")` gives an object whose `run(inputs)` computes; `backend_class("numpy")` is the class
that onnx's tools want. Inputs that are read while a network is built (shapes, axes, …) may be inputs of the
model: the network is then specialised on their values, and built again when they change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from graphsr.backend import Executable, get_backend
from graphsr.errors import ModelError, ShapeError
from graphsr.model import DEFAULT_BACKEND
from graphsr.op import Array

from .onnx_graph import DEFAULT_DOMAINS
from .onnx_import import WIDENED, build_graph
from .onnx_reader import MAX_MEMORY, NARROW, Source, narrow_floats, widened
from .onnx_values import OpenValueError

MOST_SPECIALISED = 8
"""So many built networks are kept."""
WEIGHTED = (
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "PRelu",
    "RMSNormalization",
)
"""Operators whose inputs behind the first are weights."""


class Specialised:
    """An ONNX model that is built when it is called: for the shapes of its inputs, where it needs to know them, and for
    the values of those that it reads as shapes, axes and the like.

    Which these are is found once, at the first call, and told by `explain`. Inputs that are read as weights alone are
    among them from the start: passes fold and kernels pack what is constant. Arrays of float16 and
    bfloat16 are widened on their way in, and outputs that the model declares so are rounded on their way out.
    """

    def __init__(self, source: Source, backend: str, threads: int | None = None) -> None:
        self.source = source
        self.backend = get_backend(backend)
        self.threads = threads
        weights = {tensor.name for tensor in source.model.graph.initializer}
        self.inputs = [value.name for value in source.model.graph.input if value.name not in weights]
        self.outputs = [value.name for value in source.model.graph.output]
        kinds = {value.name: value.type.tensor_type.elem_type for value in source.model.graph.output}
        self.narrow = {n: onnx.helper.tensor_dtype_to_np_dtype(kind) for n, kind in kinds.items() if kind in NARROW}
        self.fixed = weights_of(source.model) & frozenset(self.inputs)
        self.by_shape = False
        self._built: OrderedDict[Any, Executable] = OrderedDict()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays by input name -> arrays by output name."""
        if set(inputs) != set(self.inputs):
            raise ShapeError(f"inputs are named {self.inputs}, got {sorted(inputs)}")
        arrays = {name: widened(np.asarray(array)) for name, array in inputs.items()}
        run = self._executable(arrays)
        outputs = run({name: array for name, array in arrays.items() if name not in self.fixed})
        with np.errstate(over="ignore"):
            return {name: y.astype(self.narrow.get(name, y.dtype), copy=False) for name, y in outputs.items()}

    def explain(self) -> str:
        """What the network was specialised on in the last call, and what runs for each node."""
        run = next(reversed(self._built.values()), None)
        if run is None:
            raise ShapeError("explain() needs a call before: the network is built then")
        notes = [f"specialised on the value of {name}: built again when it changes" for name in sorted(self.fixed)]
        notes += [f"{name}: {WIDENED[name]}" for name in sorted(narrow_floats(self.source.model))]
        notes += ["specialised on the shapes of the inputs"] if self.by_shape else []
        return "\n".join([*notes, run.explain()])

    def _executable(self, arrays: Mapping[str, Array]) -> Executable:
        while True:
            key = self._key(arrays)
            if key in self._built:
                self._built.move_to_end(key)
                return self._built[key]
            shapes = {name: x.shape for name, x in arrays.items() if name not in self.fixed} if self.by_shape else {}
            try:
                graph = build_graph(
                    Source(self.source.model, self.source.folder, self.source.max_memory),
                    shapes,
                    {name: arrays[name] for name in self.fixed},
                )
            except OpenValueError as error:
                self._learn(error)
                continue
            self._built[key] = self.backend.compile(graph, threads=self.threads)
            if len(self._built) > MOST_SPECIALISED:
                self._built.popitem(last=False)
            return self._built[key]

    def _key(self, arrays: Mapping[str, Array]) -> Any:
        values = tuple(
            (name, arrays[name].dtype.str, arrays[name].shape, arrays[name].tobytes()) for name in sorted(self.fixed)
        )
        return values, tuple((name, arrays[name].shape) for name in self.inputs) if self.by_shape else None

    def _learn(self, error: OpenValueError) -> None:
        """Shapes first: a value that seems to be needed may only be the product of one that is not known yet."""
        if error.shapes and not self.by_shape:
            self.by_shape = True
        elif error.inputs - self.fixed:
            self.fixed |= error.inputs
        else:
            raise error


def weights_of(model: onnx.ModelProto) -> frozenset[str]:
    """The values that the nodes of the model read as weights and as nothing else."""
    weights, data = set[str](), set[str]()
    for node in model.graph.node:
        weighted = node.op_type in WEIGHTED and node.domain in DEFAULT_DOMAINS
        weights.update(node.input[1:] if weighted else ())
        data.update(node.input[:1] if weighted else node.input)
    return frozenset(weights - data)


class GraphsrRep(BackendRep):
    """A prepared model."""

    def __init__(self, specialised: Specialised) -> None:
        self.specialised = specialised

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Array, ...]:
        """Inputs in the order of the model, or by name -> outputs in the order of the model."""
        names = self.specialised.inputs
        if not isinstance(inputs, Mapping):
            given = list(inputs) if isinstance(inputs, Sequence) else [inputs]
            if len(given) != len(names):
                raise ShapeError(f"inputs are {names}, got {len(given)} arrays")
            inputs = dict(zip(names, given, strict=True))
        outputs = self.specialised(inputs)
        return tuple(outputs[name] for name in self.specialised.outputs)

    def explain(self) -> str:
        return self.specialised.explain()


class GraphsrBackend(Backend):
    """graphsr as onnx sees it. The keyword `backend` names one of ours."""

    backend = DEFAULT_BACKEND

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **options: Any) -> GraphsrRep:
        if not cls.supports_device(device):
            raise ModelError(f"device {device!r} is not supported, only CPU")
        backend, threads = options.pop("backend", cls.backend), options.pop("threads", None)
        if options:
            raise ModelError(f"unknown options {', '.join(sorted(options))}; known are backend and threads")
        return GraphsrRep(Specialised(Source(model, None, MAX_MEMORY), backend, threads))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **options: Any) -> tuple[Array, ...]:
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **options: Any
    ) -> tuple[Array, ...]:
        """One operator on arrays, in the newest operator set of onnx."""
        arrays = [np.asarray(x) for x in inputs]
        kinds = [onnx.helper.np_dtype_to_tensor_dtype(x.dtype) for x in arrays]
        used = [name for name in node.input if name]
        given = [
            onnx.helper.make_tensor_value_info(name, kind, x.shape)
            for name, kind, x in zip(used, kinds, arrays, strict=True)
        ]
        results = [onnx.helper.make_tensor_value_info(name, 0, None) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", given, results)
        version = min(options.pop("opset_version", 25), onnx.defs.onnx_opset_version())
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
        return cls.run_model(model, arrays, device, **options)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.split(":")[0] == "CPU"


def backend_class(name: str) -> type[GraphsrBackend]:
    """The interface over the graphsr backend of this name."""
    return type(f"Graphsr{name.title()}Backend", (GraphsrBackend,), {"backend": name})


prepare = GraphsrBackend.prepare
run_model = GraphsrBackend.run_model
run_node = GraphsrBackend.run_node
supports_device = GraphsrBackend.supports_device
