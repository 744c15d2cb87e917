"""What a backend is: Graph -> Executable.

A backend names its passes, says which nodes it supports, and turns a bound graph (all sizes known) into a
`Program`. Everything else is here, once: checking what the caller gives, binding sizes, keeping the programs of
recent sizes. Backends are found through the entry-point group `graphsr.backends`, the built-in ones too.
"""

from __future__ import annotations

import inspect
import secrets
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from operator import index
from typing import Any, ClassVar, Protocol, SupportsIndex, runtime_checkable

import numpy as np

from graphsr.analysis import padded_bytes
from graphsr.dim import Dim
from graphsr.errors import BackendError, GraphError, ShapeError
from graphsr.explain import Profile, count_of, steps_table
from graphsr.explain import Step as Step
from graphsr.forksafe import ForkSafeLock
from graphsr.ir import Graph, Node
from graphsr.memory import shortage
from graphsr.op import Array
from graphsr.passes import Pass, run_passes
from graphsr.threads import resolve_threads
from graphsr.verify import verify

GROUP = "graphsr.backends"


def node_macs(node: Node) -> int:
    """Multiply-accumulates of a node of a bound graph."""
    macs = node.op.macs(tuple(child.type for child in node.inputs), node.type)
    if isinstance(macs, Dim):
        raise GraphError(f"{node.where()}: sizes are still open, bind the graph first")
    return macs


class Program(Protocol):
    """A bound graph, ready to run. Must not keep or change the arrays it is given or has returned."""

    @property
    def threads(self) -> int:
        """Threads that a run uses: at most as many as were asked for."""

    @property
    def planned_bytes(self) -> int:
        """Bytes that a run takes for intermediate values and outputs."""

    def run(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Arrays of the graph's inputs, in order -> fresh arrays of its outputs, in order."""

    def steps(self) -> Sequence[Step]:
        """What runs, in order."""


@runtime_checkable
class Profiled(Protocol):
    """A program that can also say how long its steps take."""

    def profile(self, inputs: Sequence[Array], repeats: int) -> Profile:
        """Run it this often, on arrays as `Program.run` takes them."""


@runtime_checkable
class WithChoices(Protocol):
    """A program of a backend with options that can say what they cost."""

    def choices(self) -> str:
        """Lines that say what each option would take for the same sizes."""


class Backend(ABC):
    """Base of all backends."""

    name: ClassVar[str]
    passes: Sequence[Pass] = ()
    """Run once per network, on open sizes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a new one of its kind; a backend with options says here how it was made."""
        return type(self), ()

    def supports(self, node: Node) -> bool:
        """Whether the backend can run this node."""
        return True

    def prepare(self, graph: Graph, threads: int) -> None:  # noqa: B027  # most have nothing to do
        """Do what serves all sizes of a network whose sizes are still open. Called once, before its first `program`."""

    @abstractmethod
    def program(self, graph: Graph, threads: int) -> Program:
        """Prepare a bound graph. Called once per combination of input shapes."""

    def program_at_most(self, graph: Graph, threads: int) -> Program:
        """The same where nobody asked for a number of threads: `threads`, or fewer where more would be slower."""
        return self.program(graph, threads)

    @property
    def held_bytes(self) -> int:
        """Memory that runs have left for the next ones, whatever their size."""
        return 0

    def compile(self, graph: Graph, *, threads: int | None = None) -> Executable:
        """Optimise the graph and make it callable. `threads=None` uses all that are available, or fewer
        for images so small that more would be slower.

        Raises `BackendError` that lists every node which is not supported.
        """
        verify(graph)
        optimised = run_passes(graph, self.passes)
        refused = [f"  {node.where()} : {node.type}" for node in optimised.nodes() if not self.supports(node)]
        if refused:
            raise BackendError(f"backend {self.name!r} does not support:\n" + "\n".join(refused))
        return Executable(self, optimised, resolve_threads(threads), exactly=threads is not None)


class Executable:
    """A compiled network. Call it with `{"input": array}`; sizes are bound at the call.

    A new size needs no recompilation: programs of the last `CACHED_SIZES` sizes are kept. Safe to call from
    several threads; on llvm such calls wait for each other, also those of executables of the same `Backend` object.
    """

    CACHED_SIZES = 8

    def __init__(self, backend: Backend, graph: Graph, threads: int, exactly: bool = True) -> None:
        """`threads` at most, if not `exactly` so many."""
        self.backend = backend
        self.graph = graph
        self.threads = threads
        self._is_exact = exactly
        self._programs: OrderedDict[tuple[tuple[int, ...], ...], Program] = OrderedDict()
        self._is_prepared = False
        self._lock = ForkSafeLock()
        self._identity = secrets.token_hex(16)
        """The same of all copies, whatever process they are in."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it is made from. Another process compiles, or reloads what was compiled before, and packs the
        weights, and does so once however often it unpickles the same executable: pools pickle it for every task."""
        return _unpickled, (self._identity, self.backend, self.graph, self.threads, self._is_exact)

    @property
    def inputs(self) -> dict[str, Any]:
        """Type of every input by name."""
        return dict(self.graph.input_types())

    @property
    def outputs(self) -> dict[str, Any]:
        """Type of every output by name."""
        return dict(self.graph.output_types())

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network: arrays by input name (NCHW) -> fresh arrays by output name.

        Raises `ShapeError` when names, dtypes or shapes do not fit, or the run would take more memory than there is;
        inputs are never written to.
        """
        arrays = self._check(inputs)
        program = self._program(tuple(array.shape for array in arrays))
        return dict(zip(self.graph.outputs, program.run(arrays), strict=True))

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Program:
        """The program for these input shapes, prepared now if it is not yet known.

        Raises `ShapeError` when the shapes do not fit the network, or a run would take more memory than there is.
        """
        return self._program(self._key(shapes))

    def _program(self, key: tuple[tuple[int, ...], ...]) -> Program:
        """The program for the sizes of all inputs, in their order."""
        with self._lock():
            program = self._programs.get(key)
            if program is None:
                if not self._is_prepared:
                    self.backend.prepare(self.graph, self.threads)
                    self._is_prepared = True
                prepare = self.backend.program if self._is_exact else self.backend.program_at_most
                bound = self.graph.bind(dict(zip(self.inputs, key, strict=True)))
                program = prepare(_that_may_fit(bound), self.threads)
                self._check_memory(program, at_least=0)
                self._programs[key] = program
                if len(self._programs) > self.CACHED_SIZES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(key)
        self._check_memory(program, at_least=MUCH)
        return program

    def _check_memory(self, program: Program, at_least: int) -> None:
        """Raise `ShapeError` where a run takes more than there is, if it takes so many bytes beyond what is held."""
        taken = program.planned_bytes - self.backend.held_bytes
        if taken >= at_least and (lack := shortage(taken)):
            raise ShapeError(
                f"inputs of these sizes are too large: a run {lack}; give smaller ones, such as pieces of an image, "
                "or use a smaller network"
            )

    def _key(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        """The sizes of all inputs. Raises `ShapeError` for what are none."""
        if isinstance(shapes, Mapping):
            self._check_names(shapes)
            sizes = [shapes[name] for name in self.inputs]
            if all(isinstance(shape, Sequence) and all(map(_is_size, shape)) for shape in sizes):
                return tuple(tuple(map(index, shape)) for shape in sizes)
        example = dict.fromkeys(self.inputs, (1, 3, 64, 64))
        raise ShapeError(f"shapes are tuples of integers by input name, such as {example}, got {shapes!r}")

    def explain(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str:
        """A table of what runs for each node at these input shapes (default: those of the last call)."""
        if shapes is None:
            with self._lock():
                if not self._programs:
                    raise ShapeError("explain() needs input shapes, such as {'input': (1, 3, 64, 64)}, before a call")
                program = next(reversed(self._programs.values()))
        else:
            program = self.bind(shapes)
        steps = program.steps()
        weights = sum(step.weight_bytes for step in steps)
        return (
            f"{steps_table(steps)}\n"
            f"backend {self.backend.name}, {count_of(program.threads, 'thread')}, "
            f"{sum(step.macs for step in steps) / 1e9:.3f} GMAC, "
            f"planned memory {program.planned_bytes / 1e6:.1f} MB"
            + (f", weights as the kernels read them {weights / 1e6:.1f} MB" if weights else "")
            + (f"\n{program.choices()}" if isinstance(program, WithChoices) else "")
        )

    def profile(self, inputs: Mapping[str, Array], repeats: int = 5) -> Profile:
        """Run `repeats` times and say what each step took. Raises `BackendError` where the backend cannot tell."""
        if not _is_size(repeats) or repeats < 1:
            raise BackendError(f"repeats must be a whole number of at least 1, got {repeats!r}")
        arrays = self._check(inputs)
        program = self._program(tuple(array.shape for array in arrays))
        if not isinstance(program, Profiled):
            raise BackendError(f"backend {self.backend.name!r} does not measure its steps; llvm does")
        return program.profile(arrays, repeats)

    def _check(self, inputs: Mapping[str, Array]) -> list[Array]:
        if not isinstance(inputs, Mapping):
            raise ShapeError(
                f"call with a dict of arrays by input name, such as {{{next(iter(self.inputs))!r}: x}}, "
                f"got {type(inputs).__name__}"
            )
        self._check_names(inputs)
        arrays = []
        for name, type_ in self.inputs.items():
            try:
                array = np.asarray(inputs[name])
            except ValueError as error:  # rows of different lengths
                raise ShapeError(f"input {name!r} must be an array of {type_}: {error}") from error
            if not np.can_cast(array.dtype, type_.dtype, "same_kind"):
                raise ShapeError(
                    f"input {name!r} must be {type_.dtype}, got {array.dtype}: "
                    f"convert it, e.g. x.astype({type_.dtype!r})"
                )
            arrays.append(array.astype(type_.dtype, copy=False))
        return arrays

    def _check_names(self, given: Mapping[str, object]) -> None:
        if set(given) != set(self.inputs):
            raise ShapeError(f"inputs are named {list(self.inputs)}, got {list(given)}")


_recent: OrderedDict[str, Executable] = OrderedDict()
"""The executables that were unpickled last, kept for the next task of a pool."""
_recent_lock = ForkSafeLock()
KEPT = 2


def _unpickled(identity: str, backend: Backend, graph: Graph, threads: int, is_exact: bool) -> Executable:
    """The executable that was pickled: the one of this process, if it was among the last `KEPT` to be unpickled."""
    with _recent_lock():
        known = _recent.get(identity)
        if known is None:
            known = _recent[identity] = Executable(backend, graph, threads, is_exact)
            known._identity = identity
            if len(_recent) > KEPT:
                _recent.popitem(last=False)
        _recent.move_to_end(identity)
        return known


def _is_size(value: object) -> bool:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


MUCH = 64 << 20
"""Bytes from which each run, not only the first of a size, looks whether the memory is there: that takes 50 µs."""

MOST_TIMES = 8
"""A value this many times as large as the memory there is will not fit, however the network is planned: backends may
compute values piece by piece."""


def _that_may_fit(graph: Graph) -> Graph:
    """The bound graph. Raises `ShapeError` where one of its values alone, or its padded input, is far more than the
    memory there is: before it is planned, which would take time and memory, too."""
    for of, nbytes in (("", lambda node: node.type.nbytes), (", its padded input,", padded_bytes)):
        largest = max(graph.nodes(), key=nbytes)
        if shortage(nbytes(largest) // MOST_TIMES):
            where = f"{largest.where()} : {largest.type}{of}"
            raise ShapeError(f"inputs of these sizes are too large: {where} alone {shortage(nbytes(largest))}")
    return graph


def backends() -> dict[str, EntryPoint]:
    """The installed backends by name, not yet loaded."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def get_backend(backend: str | Backend, **options: object) -> Backend:
    """A backend by name; a `Backend` object is returned as it is. `options` are those of the backend's constructor.

    Raises `BackendError` that lists the installed names, or the options that the backend has.
    """
    if isinstance(backend, Backend):
        if options:
            raise BackendError(f"options {sorted(options)} belong to the making of a backend; this one is made already")
        return backend
    installed = backends()
    if not isinstance(backend, str) or backend not in installed:
        raise BackendError(f"unknown backend {backend!r}; installed are {', '.join(sorted(installed)) or 'none'}")
    try:
        make = installed[backend].load()
        _check_options(backend, make, options)
        made = make(**options)
    except (ImportError, AttributeError) as error:  # the module, or the name in it
        raise BackendError(f"backend {backend!r} cannot be loaded: {error}") from error
    if not isinstance(made, Backend):
        raise BackendError(f"entry point {backend!r} does not give a graphsr Backend, but {type(made).__name__}")
    return made


def _check_options(backend: str, make: Callable[..., object], options: Mapping[str, object]) -> None:
    known = sorted(inspect.signature(make).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BackendError(
            f"backend {backend!r} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
        )
