"""Far more kernels than networks need, of the families whose code follows from an op's attributes: none of them keeps
a vector on the stack. See test_llvm_targets.py for those that networks and layers need."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

pytest.importorskip("llvmlite")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llvm_assembly import SPILL, innermost_loops
from test_llvm_targets import ADVICE, NAMES

from graphsr import ops
from graphsr.backends.llvm.jit import emit_assembly
from graphsr.backends.llvm.kernel import Kernel
from graphsr.backends.llvm.kernels.activation import EMITTERS
from graphsr.backends.llvm.kernels.crop import CropImages
from graphsr.backends.llvm.kernels.elementwise_blocked import CHANNELS, IMAGE, NUMBER, PIXEL, InBlocks
from graphsr.backends.llvm.kernels.elementwise_ops import Step
from graphsr.backends.llvm.kernels.elementwise_planar import Planar, Stream
from graphsr.backends.llvm.kernels.place import PlaceInColumns, PlaceInRows, Search
from graphsr.backends.llvm.kernels.rearrange import MOST_VECTORS, PlanarRearrange, UnblockPixels
from graphsr.backends.llvm.kernels.sample import SampleImages
from graphsr.backends.llvm.loops import module
from graphsr.backends.llvm.target import Target, named
from graphsr.op import Op
from graphsr.ops.sample import PADDINGS, REACH

KINDS = (IMAGE, PIXEL, CHANNELS, NUMBER)
PAIRS: tuple[Op, ...] = (
    ops.Add(),
    ops.Div(),
    ops.Maximum(),
    ops.Minimum(),
    ops.Mul(),
    ops.Pow(),
    ops.PRelu(),
    ops.Sub(),
)
SINGLE: tuple[Op, ...] = (
    *(kind() for kind in EMITTERS),
    *(ops.Gelu("tanh"), ops.Clip(-0.5, 1.5), ops.Abs(), ops.Ceil(), ops.Cos(), ops.Erf(), ops.Exp(), ops.Floor()),
    *(ops.Log(), ops.Neg(), ops.Reciprocal(), ops.Round(), ops.Shrink(), ops.Sign(), ops.Sin(), ops.Sqrt()),
    ops.ThresholdedRelu(0.3),
)


def spills(kernel: Kernel, target: Target) -> int:
    """Loads and stores of the stack in the innermost loops."""
    assembly = emit_assembly(module([kernel.function(target)]), target)
    return sum(len(SPILL.findall(loop)) for loop in innermost_loops(assembly))


def elementwise(steps: tuple[Step, ...], kinds: tuple[str, ...], partial: bool) -> Iterator[Kernel]:
    """A chain in both layouts."""
    yield InBlocks(steps, kinds, partial)
    yield Planar(steps, tuple(Stream("float32", kind == IMAGE) for kind in kinds), Stream("float32"), 1)


def single_ops() -> Iterator[Kernel]:
    """Every op alone, with every kind of operand."""
    for op, partial in product(SINGLE, (False, True)):
        yield from elementwise((Step(op, (0,)),), (IMAGE,), partial)
    for op, kinds, partial in product(PAIRS, product(KINDS, KINDS), (False, True)):
        if IMAGE in kinds:
            yield from elementwise((Step(op, (0, 1)),), kinds, partial)
    norm = (Step(ops.BatchNorm(1e-5), (0, 1, 2, 3, 4)),)
    yield from elementwise(norm, (IMAGE, CHANNELS, CHANNELS, CHANNELS, CHANNELS), partial=True)


def movements() -> Iterator[Kernel]:
    """Every extreme, and pixel shuffles of every block."""
    for kind, last in product(("max", "min"), (False, True)):
        yield PlaceInColumns(Search(kind, last))
        yield PlaceInRows(Search(kind, last))
    for block in range(2, MOST_VECTORS + 2):
        for back in (False, True):
            yield PlanarRearrange(block, back)
        for channels, mode in ((1, "crd"), (3, "dcr"), (4, "crd")):
            yield UnblockPixels(channels, block, mode)


def samplings() -> Iterator[Kernel]:
    """Every way to read pixels at computed places, and regions."""
    for mode, padding, axes in product(REACH, PADDINGS, (1, 2, 3)):
        for corners, blocked in product((False, True), (False, True) if axes == 2 else (False,)):
            yield SampleImages(ops.GridSample(mode, padding, corners), axes, blocked, blocked)
    yield from map(CropImages, (False, True))


@pytest.mark.parametrize("name", NAMES)
def test_no_single_op_spills(name: str) -> None:
    target = named(name)
    found = {kernel: spills(kernel, target) for kernel in dict.fromkeys((*single_ops(), *movements(), *samplings()))}
    lines = "\n".join(f"{count} times {kernel}" for kernel, count in found.items() if count)
    assert not lines, f"{ADVICE}; on {name}:\n{lines}"


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Two or three ops, each of the one before and perhaps of another operand."""
    chosen = draw(st.lists(st.sampled_from((*SINGLE, *PAIRS, *PAIRS)), min_size=2, max_size=3))
    others = draw(st.lists(st.sampled_from(KINDS), min_size=0, max_size=sum(op in PAIRS for op in chosen)))
    inputs, steps = 1 + len(others), list[Step]()
    left = list(range(1, inputs))
    for op in chosen:
        before = inputs + len(steps) - 1 if steps else 0
        operands = (before, left.pop() if left else 0) if op in PAIRS else (before,)
        steps.append(Step(op, operands))
    return tuple(steps), (IMAGE, *others)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=100,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(chain=chains(), partial=st.booleans())
def test_no_chain_spills(name: str, chain: tuple[tuple[Step, ...], tuple[str, ...]], partial: bool) -> None:
    for kernel in elementwise(*chain, partial):
        assert not spills(kernel, named(name)), f"{ADVICE}; on {name}: {kernel}"
