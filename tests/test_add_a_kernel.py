"""docs/add-a-kernel.md does what it says: its blocks are run, in a process of their own, as the op joins the table."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support import ROOT

RUN = """
import sys, types
op, kernel, line, use = BLOCKS
here = {"__name__": "page"}
sys.modules["page"] = types.ModuleType("page")
exec(op, here)
module = types.ModuleType("graphsr.backends.llvm.kernels.mirror")
sys.modules[module.__name__] = module
exec(kernel, module.__dict__)
exec(line, here)
exec(use, here)
for shape in ((1, 1), (1, 16), (3, 17), (2, 1, 15), (1, 3, 40, 129)):
    for dtype in ("float32", "float64"):
        x = here["Node"].input("x", here["TensorType"](dtype, shape))
        run = here["get_backend"]("llvm").compile(here["Graph"]((x,), {"y": here["Node"](here["Mirror"](), (x,))}))
        image = here["np"].random.default_rng(0).random(shape).astype(dtype)
        here["np"].testing.assert_array_equal(run({"x": image})["y"], image[..., ::-1])
        assert ("only float32" in run.explain()) == (dtype == "float64")
"""


def test_the_page_is_true() -> None:
    page = (ROOT / "docs" / "add-a-kernel.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", f"BLOCKS = {blocks!r}\n{RUN}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^turned +mirror +mirror ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.skipif(not (ROOT / "backends").is_dir(), reason="outside the checkout, which the links lead into")
def test_the_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "add-a-kernel.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((\.\./[^)]+)\)", page):
        assert (ROOT / "docs" / link).exists(), link
