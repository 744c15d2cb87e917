"""What the llvm backend promises whatever the network: memory stays inside, bits stay the same, runs can be stopped."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support import ROOT

pytest.importorskip("llvmlite")

from llvm_guarded import FAMILIES

EXAMPLES = 10
"""Of each family; `python tests/llvm_guarded.py FAMILY 200` draws more."""


def python(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=timeout)


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made by mprotect")
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_the_buffers_is_touched(family: str) -> None:
    """R12: inputs, outputs, weights, values and scratch end at guard pages, or begin at them."""
    done = python(str(ROOT / "tests" / "llvm_guarded.py"), family, str(EXAMPLES))
    died = f"killed by {signal.Signals(-done.returncode).name}\n" if done.returncode < 0 else ""
    last_case = done.stdout.rpartition("---")[2]
    assert done.returncode == 0, f"{died}{last_case}\n{done.stderr}"
