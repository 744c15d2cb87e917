"""The plan of a bound graph: which kernels run in which order, and where every value lies. Pure data.

The planner walks the graph once. Each node is lowered by the family that knows its op (`kernels.LOWER`): it asks for
its inputs in the layout it wants (a conversion is put in where needed), makes a tensor for its output and adds calls.
A node without a kernel becomes a `Fallback` to the `forward` of its op, with the reason. Then halos are final, and
memory is packed: values, and the scratch of all threads, share one arena by their lifetimes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphsr.ir import Const, Graph, Input, Node, TensorType
from graphsr.op import Array

from ..plan import pack
from ..weights import WeightCache
from .kernel import Argument, Call, Kernel
from .memory import LINE
from .target import Target
from .tensor import Blocked, Buffer, Measure, Zeros
from .weight_forms import WeightForm

LEAST_BLOCKED = 8
"""Channels from which an image is worth the blocked layout, of 16."""


class NoKernel(Exception):  # noqa: N818 - a reason, not an error
    """A family cannot compute this node; the reason is for `explain()`."""


@dataclass(frozen=True, eq=False)
class Fallback:
    """One step of the program that runs the `forward` of an op, because `reason`."""

    node: Node
    inputs: tuple[Buffer, ...]
    output: Buffer
    reason: str


@dataclass(frozen=True, eq=False)
class Work:
    """A step of the program and what it is for."""

    step: Call | Fallback
    node: Node
    label: str
    note: str = ""
    covers: tuple[Node, ...] = ()
    """Further nodes that the step computes along with this one."""
    is_conversion: bool = False
    """Whether it only brings the node's value into another layout."""
    prepared: Buffer | None = None
    """What it writes for a later step of the node, in place of the node's value."""


@dataclass(frozen=True)
class Plan:
    """What runs, and where everything lies."""

    graph: Graph
    works: tuple[Work, ...]
    offsets: Mapping[Buffer, int]
    """Places in the arena. Buffers that are missing here are inputs, constants, zeros and outputs."""
    arena_bytes: int
    scratch_offset: int
    scratch_bytes: int
    """Of one thread."""
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    constants: Mapping[Buffer, Array]
    alias: Mapping[Buffer, Buffer]
    """Views, in another shape, of all or some bytes of another buffer: that one, which is not a view itself."""
    zeros: Zeros
    not_finite: Array
    """One integer, which kernels set to 1 where they met NaN or infinities that they have spread to other pixels."""

    @property
    def planned_bytes(self) -> int:
        return self.arena_bytes + self.zeros.nbytes + sum(buffer.nbytes for buffer in set(self.outputs))


@dataclass(eq=False, slots=True)
class _Life:
    """A buffer's size and the first and last step that need it."""

    nbytes: int
    first: int
    last: int


@dataclass
class Planner:
    """Builds a `Plan`; the families of kernels talk to it."""

    graph: Graph
    target: Target
    threads: int
    weights: WeightCache
    execute: Callable[[Call], None]
    """Does a call now, for what is computed once per network."""
    keep: float = math.inf
    """How many times the bytes of the weights their transforms may take between runs."""
    works: list[Work] = field(default_factory=list)
    _planar: dict[Node, Buffer] = field(default_factory=dict)
    _blocked: dict[Node, Blocked] = field(default_factory=dict)
    _constants: dict[Buffer, Array] = field(default_factory=dict)
    _alias: dict[Buffer, Buffer] = field(default_factory=dict)
    zeros: Zeros = field(default_factory=lambda: Zeros(TensorType("uint8", (0,))))
    not_finite: Array = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        from .kernels.winograd_weights import choose_kept

        self.kept = choose_kept(self.graph, self.keep)
        self.uses = self.graph.uses()
        self._left: dict[Node, tuple[object, Callable[[], None]]] = {}
        self._users: dict[Node, list[Node]] = {}
        for node in self.graph.nodes():
            for child in node.inputs:
                self._users.setdefault(child, []).append(node)

    # --- what the families ask ----------------------------------------------------------------------------------

    def is_done(self, node: Node) -> bool:
        return node in self._planar or node in self._blocked

    def is_blocked(self, node: Node) -> bool:
        """Whether the value exists in the blocked layout."""
        return node in self._blocked

    def leave(self, node: Node, part: object, compute: Callable[[], None]) -> None:
        """Leave a node to its only reader: it may `take` the node and compute it along with itself, knowing `part`.
        If anybody asks for the value instead, `compute` makes it."""
        self._left[node] = part, compute

    def left(self, node: Node) -> object:
        """The `part` of a node that was left; None if it was not."""
        return self._left[node][0] if node in self._left else None

    def take(self, node: Node) -> None:
        """From now on the caller computes a node that was left."""
        del self._left[node]

    def demand(self, node: Node) -> None:
        """Have a node computed by itself if it was left."""
        if node in self._left:
            _, compute = self._left.pop(node)
            compute()

    def blocked(self, node: Node, left: int = 0, right: int = 0) -> Blocked:
        """The value as a blocked image with at least this halo, converted if need be."""
        self.demand(node)
        if node not in self._blocked:
            from .kernels.layout import to_blocked

            to_blocked(self, node)
        tensor = self._blocked[node]
        tensor.reach(left, right)
        return tensor

    def planar(self, node: Node) -> Buffer:
        """The value as NumPy has it, converted if need be."""
        self.demand(node)
        if node not in self._planar:
            if node.is_const:
                buffer = Buffer(node.type)
                self._constants[buffer] = np.ascontiguousarray(node.value)
                self._planar[node] = buffer
            else:
                from .kernels.layout import to_planar

                to_planar(self, node)
        return self._planar[node]

    def new_blocked(self, node: Node, left: int = 0, right: int = 0) -> Blocked:
        """Make the node's value a blocked image; the halo is what its writer needs for tiles that stick out."""
        self._blocked[node] = Blocked(node.type, left=left, right=right)
        return self._blocked[node]

    def new_planar(self, node: Node) -> Buffer:
        """Make the node's value planar."""
        self._planar[node] = Buffer(node.type)
        return self._planar[node]

    def view(self, node: Node, source: Node, start: int = 0) -> None:
        """The node's value is the bytes of another one from `start` on, planar, in another shape."""
        original = self.planar(source)
        self._planar[node] = buffer = Buffer(node.type, start=start)
        self._alias[buffer] = original

    def place_inside(self, node: Node, whole: Node, start: int) -> bool:
        """Let the planar value be written to its place in a larger one, `start` bytes from its beginning, so that none
        need copy it. False where it cannot be: it is given, returned, or part of another value already."""
        buffer = self.planar(node)
        if buffer in self._alias or node.is_const or isinstance(node.op, Input) or self.is_returned(node):
            return False
        self._alias[buffer], buffer.start = self._planar[whole], start
        return True

    def is_returned(self, node: Node) -> bool:
        """Whether the value is an output of the graph."""
        return node in self.graph.outputs.values()

    def readers(self, node: Node) -> Sequence[Node]:
        """The nodes that read this value, in the order of the graph; twice where they read it twice."""
        return self._users.get(node, ())

    def only_user(self, node: Node) -> Node | None:
        """The node that alone reads this value, if there is one."""
        users = self._users.get(node, [])
        return users[0] if len(users) == 1 and self.uses[node] == 1 else None

    def zero_row(self, *tensors: Blocked) -> Zeros:
        """A row of zeros of the geometry of these tensors."""
        self.zeros.tensors.extend(tensors)
        return self.zeros

    def weight(self, array: Array, form: str, make: Callable[[Array], Array], nbytes: int | None = None) -> WeightForm:
        """A constant in the form that a kernel wants, made once for all sizes, when the plan is done; `nbytes` where it
        takes more or less than the array."""
        return WeightForm(array, form, make, array.nbytes if nbytes is None else nbytes)

    def rearranged(self, array: Array, form: str, make: Callable[[Array], Array]) -> Array:
        """A constant as that of another layer, made once for all sizes: what is made of it, too, is made once."""
        return self.weights.rearranged(array, form, make)

    def run_now(self, kernel: Kernel, arguments: Mapping[str, Argument], units: int) -> None:
        """Do a call on arrays, outside the runs: it makes a form of weights."""
        self.execute(Call(kernel, arguments, units, kernel.scratch(self.target)))

    def call(
        self,
        node: Node,
        kernel: Kernel,
        arguments: Mapping[str, Argument],
        units: int,
        *,
        label: str,
        note: str = "",
        covers: tuple[Node, ...] = (),
        scratch: int | None = None,
        is_conversion: bool = False,
        prepared: Buffer | None = None,
    ) -> None:
        """Add a step; `scratch` where its size depends on that of the image."""
        if set(arguments) != set(kernel.slots()):
            raise KeyError(f"{type(kernel).__name__} takes {list(kernel.slots())}, got {list(arguments)}")
        call = Call(kernel, arguments, units, kernel.scratch(self.target) if scratch is None else scratch)
        self.works.append(Work(call, node, label, note, covers, is_conversion, prepared))

    # --- making the plan ----------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        for node in self.graph.inputs:
            self.new_planar(node)
        for node in self.graph.nodes():
            if not isinstance(node.op, Input | Const) and not self.is_done(node):
                self._lower(node)
        outputs = tuple(self.planar(node) for node in self.graph.outputs.values())
        return self._place(outputs)

    def _lower(self, node: Node) -> None:
        from .kernels import lower

        try:
            lower(self, node)
        except NoKernel as reason:
            self._fall_back(node, str(reason))

    def _fall_back(self, node: Node, reason: str) -> None:
        inputs = tuple(self.planar(child) for child in node.inputs)
        output = self.new_planar(node)
        step = Fallback(node, inputs, output, reason)
        self.works.append(Work(step, node, "forward", reason))

    def _root(self, buffer: Buffer) -> Buffer:
        while buffer in self._alias:
            buffer = self._alias[buffer]
        return buffer

    def _flatten_views(self) -> None:
        """Views of views become views of the buffer behind them."""
        starts = {view: sum(part.start for part in self._behind(view)) for view in self._alias}
        self._alias = {view: self._root(view) for view in self._alias}
        for view, start in starts.items():
            view.start = start

    def _behind(self, buffer: Buffer) -> Iterator[Buffer]:
        """The buffer, what it is a view of, and so on."""
        yield buffer
        while buffer in self._alias:
            buffer = self._alias[buffer]
            yield buffer

    def _place(self, outputs: tuple[Buffer, ...]) -> Plan:
        lives: dict[Buffer, _Life] = {}
        self._flatten_views()
        inputs = tuple(self._planar[node] for node in self.graph.inputs)
        outside = {*inputs, *self._constants, self.zeros, *map(self._root, outputs)}
        for step, work in enumerate(self.works):
            for buffer in map(self._root, _buffers(work.step)):
                if buffer not in outside:
                    life = lives.setdefault(buffer, _Life(buffer.nbytes, step, step))
                    life.last = step
        scratch = max((-(-w.step.scratch // LINE) * LINE for w in self.works if isinstance(w.step, Call)), default=0)
        everything = _Life(scratch * self.threads, 0, len(self.works))
        places = pack([everything, *lives.values()])
        offsets = {buffer: places[life] for buffer, life in lives.items()}
        offsets.update({view: offsets[root] for view, root in self._alias.items() if root in offsets})
        return Plan(
            graph=self.graph,
            works=tuple(self.works),
            offsets=offsets,
            arena_bytes=max((places[life] + life.nbytes for life in places), default=0),
            scratch_offset=places[everything],
            scratch_bytes=scratch,
            inputs=inputs,
            outputs=outputs,
            constants=dict(self._constants),
            alias=dict(self._alias),
            zeros=self.zeros,
            not_finite=self.not_finite,
        )


def _buffers(step: Call | Fallback) -> list[Buffer]:
    """What a step reads and writes."""
    if isinstance(step, Fallback):
        return [*step.inputs, step.output]
    return [argument for argument in step.arguments.values() if isinstance(argument, Buffer)]


def resolve(argument: Argument) -> Argument:
    """A measure as a number, now that halos are final."""
    return argument.value if isinstance(argument, Measure) else argument
