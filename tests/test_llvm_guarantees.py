"""What the llvm backend promises whatever the network: memory stays inside, bits stay the same, runs can be stopped."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from graphsr.backend import get_backend
from graphsr.testing import CHECKS, check_backend
from graphsr.testing.check import Check, layers_agree

from support import ROOT

pytest.importorskip("llvmlite")

from llvm_guarded import FAMILIES

EXAMPLES = 10
"""Of each family; `python tests/llvm_guarded.py FAMILY 200` draws more."""


def python(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout)


# --- the suite of all backends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_suite_of_all_backends(check: Check) -> None:
    """A few graphs of each kind; `check_backend(get_backend("llvm"), examples=2000)` passes, too."""
    check_backend(get_backend("llvm"), examples=2 if check is layers_agree else EXAMPLES, checks=[check])


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made by mprotect")
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_the_buffers_is_touched(family: str) -> None:
    """R12: inputs, outputs, weights, values and scratch end at guard pages, or begin at them."""
    done = python(str(ROOT / "tests" / "llvm_guarded.py"), family, str(EXAMPLES))
    died = f"killed by {signal.Signals(-done.returncode).name}\n" if done.returncode < 0 else ""
    last_case = done.stdout.rpartition("---")[2]
    assert done.returncode == 0, f"{died}{last_case}\n{done.stderr}"
