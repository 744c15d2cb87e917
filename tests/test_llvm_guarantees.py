"""What the llvm backend promises whatever the network: memory stays inside, bits stay the same, runs can be stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphsr.backend import get_backend
from graphsr.testing import CHECKS, check_backend
from graphsr.testing.cases import LAYERS, growth
from graphsr.testing.check import CHECKS_OF_LAYERS, Check, layer_graph

from support import ROOT, pretend_processors

pytest.importorskip("llvmlite")

from llvm_guarded import FAMILIES

from graphsr.backends.llvm.backend import LlvmBackend

EXAMPLES = 10
"""Of each family; `python tests/llvm_guarded.py FAMILY 200` draws more."""


def python(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout)


# --- the suite of all backends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_suite_of_all_backends(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few graphs of each kind, on as many threads as are asked for."""
    pretend_processors(monkeypatch, 3)
    check_backend(get_backend("llvm"), examples=2 if check in CHECKS_OF_LAYERS else EXAMPLES, checks=[check])


# --- special values -----------------------------------------------------------------------------------------------

SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 1e-42, -1e-42, 3e38)
WITHOUT_REALS = {"and", "arange", "eye", "full", "not", "one_hot", "or", "quotient", "xor"}
"""Ops that take truth values or integers only."""


@pytest.mark.parametrize("name", sorted(LAYERS.keys() - WITHOUT_REALS))
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_kernels_have_nan_and_infinities_where_numpy_has_them(name: str, data: st.DataObject) -> None:
    """Special values in the first real input of every op, by algorithms that are plain sums."""
    case = data.draw(LAYERS[name]()).astype("float32")
    inputs = [x.copy() for x in case.inputs]
    real = next((x for x in inputs if x.dtype == np.float32 and x.size), None)
    assume(real is not None and growth(case.op) == 1)
    assert real is not None
    for _ in range(3):
        real.flat[data.draw(st.integers(0, real.size - 1))] = data.draw(st.sampled_from(SPECIAL))
    graph_case = layer_graph(replace(case, inputs=tuple(inputs)), data.draw(st.booleans()))
    backend = LlvmBackend()
    backend.passes = ()  # they choose Winograd
    with np.errstate(all="ignore"):
        want = get_backend("reference").compile(graph_case.graph)(graph_case.inputs)["y"]
        got = backend.compile(graph_case.graph, threads=2)(graph_case.inputs)["y"]
    if want.dtype.kind == "f":
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(kind(got), kind(want), err_msg=f"{kind.__name__}\n{graph_case}")
    else:
        np.testing.assert_array_equal(got, want)


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made by mprotect")
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_the_buffers_is_touched(family: str) -> None:
    """R12: inputs, outputs, weights, values and scratch end at guard pages, or begin at them."""
    done = python(str(ROOT / "tests" / "llvm_guarded.py"), family, str(EXAMPLES))
    died = f"killed by {signal.Signals(-done.returncode).name}\n" if done.returncode < 0 else ""
    last_case = done.stdout.rpartition("---")[2]
    assert done.returncode == 0, f"{died}{last_case}\n{done.stderr}"
