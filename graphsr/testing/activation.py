"""Strategies for activations. Their kinks are at integers and at multiples of 1/8, where `arrays` has no values."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from hypothesis import strategies as st

from graphsr.op import OPS
from graphsr.ops import Activation, Celu, Clip, Elliot, Elu, Gelu, HardSigmoid, Leaky, PRelu, SymmElliot
from graphsr.testing.cases import Case, arrays, layer

SHAPE = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
SCALE = st.sampled_from([1.0, 4.0, 8.0])
"""Values up to 2, 8 and 16: around the kinks, and where the tails are."""

STEEPNESS = st.sampled_from([1.0, 0.5, 2.0])
ATTRIBUTES: dict[type[Activation], st.SearchStrategy[Activation]] = {
    Celu: st.builds(Celu, st.sampled_from([1.0, 0.5, 2.0])),
    Clip: st.builds(Clip, st.sampled_from([-inf, -1.5, 0.0]), st.sampled_from([inf, 1.0, 6.0])),
    Elliot: st.builds(Elliot, STEEPNESS),
    Elu: st.builds(Elu, st.sampled_from([1.0, 0.5, 2.0])),
    Gelu: st.builds(Gelu, st.sampled_from(["none", "tanh"])),
    HardSigmoid: st.sampled_from([HardSigmoid(), HardSigmoid(0.2, 0.5), HardSigmoid(0.25, 0.25)]),
    Leaky: st.builds(Leaky, st.sampled_from([0.1, 0.01, -0.5, 2.0])),
    SymmElliot: st.builds(SymmElliot, STEEPNESS),
}
ACTIVATIONS: dict[str, st.SearchStrategy[Activation]] = {
    name: ATTRIBUTES.get(kind, st.builds(kind)) for name, kind in OPS.items() if issubclass(kind, Activation)
}
"""Every activation by name, with its attributes drawn."""


def activations() -> st.SearchStrategy[Activation]:
    """Any activation of the table."""
    return st.sampled_from(sorted(ACTIVATIONS)).flatmap(ACTIVATIONS.__getitem__)


def _case_of(op: st.SearchStrategy[Activation]) -> Callable[[st.DrawFn], Case]:
    def draw_case(draw: st.DrawFn) -> Case:
        return Case(draw(op), (draw(arrays(draw(SHAPE), draw(SCALE))),))

    return draw_case


for _name, _op in ACTIVATIONS.items():
    layer(_name)(_case_of(_op))


@layer("prelu")
def prelu(draw: st.DrawFn) -> Case:
    shape = draw(SHAPE)
    slopes = draw(st.sampled_from([1, *shape[1:2]]))
    return Case(PRelu(), (draw(arrays(shape, draw(SCALE))), draw(arrays((slopes,)))))
