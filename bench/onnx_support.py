"""Writes docs/onnx.md: which ONNX operators are read, in which forms, and how onnx's own tests of them end.

python bench/onnx_support.py --write    runs the tests on each backend and writes the page (a minute or two)

The operators are those in the importer's table, their forms those that the installed onnx knows, the tests its node
tests: all that consist of one operator, in whatever element type, but for those that it expands into functions.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from graphsr.errors import GraphsrError
from graphsr.importers import onnx_import  # noqa: F401  # it fills the table of operators
from graphsr.importers.onnx_backend import backend_class
from graphsr.importers.onnx_call import OPERATORS
from graphsr.importers.onnx_graph import CONTROL, NEWEST, OLDEST, REVISED
from graphsr.op import Array

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "onnx.md"
READ = {*OPERATORS, *CONTROL}
BACKENDS = ("reference", "numpy", "llvm")

INTRODUCTION = """# ONNX operators

Written by `python bench/onnx_support.py --write`, which runs the node tests of onnx {version} on every backend; a test
holds the list of operators to the importer's table. Operator sets {oldest} to {newest} of the default domain are read,
with external data and model-local functions; of If the branch that is taken, which must follow from constants, sizes or
the values that the network is built for. Sequences, optional values, strings and loops are not read.

- **Since** has the operator sets that brought a new form of the operator. A form that is refused, or an attribute that
  is not supported, is named when a model is loaded, together with all else that is not supported.
- Below each backend stands how many of the operator's tests pass, and the largest difference from the expected values
  of these, in units in the last place of the expected value. A difference that the test's absolute tolerance covers
  ({atol:g}, in most) is none. Expected values are not exact themselves: those of reductions and normalisations come
  from sums in another order, and the one of AveragePool that is 2,980 ulp away is printed in the test with four digits
  (0.1511 for 0.15105554); of its other tests the largest difference is 9 ulp. The same holds for one of GridSample,
  2.9688 for 2.96875, and 14 ulp.
- **float16** and **bfloat16** are held and computed in float32, inputs and outputs of a loaded model too; `graphsr
  info` says so. A Cast to float16 rounds to the nearest float16; one to bfloat16 is refused. What arithmetic gives is
  not rounded in between: it is closer to the exact result, and does not overflow at 65,504. The interface of these
  tests takes and gives the types that a model declares. A CastLike to a value that was computed is refused in such a
  model, as whether to round is not known.
- **Sizes** may stay open as long as shapes follow from them by sums, products and quotients. SwinIR's do not: it
  mirrors an image up to whole windows, and its masks compare sizes. Such a network is refused with the list of what
  needs a size, until it is given: `graphsr.load("swinir.onnx", shapes={{"x": (1, 3, 64, 64)}})` is the network for
  images of 64x64. Load it again for another size, or cut images into tiles of one size.
  `graphsr.importers.onnx_backend.prepare(model)` builds a network for each size that it meets, and keeps eight.
- **RNN, LSTM, GRU** are one op for each direction and, for LSTM, state, whose number of steps may be open. `clip`,
  peepholes, `input_forget` and activations that these ops do not have are written out step by step: their number must
  be known, and at most 1000. `clip` does not bound the argument of an LSTM's last activation, as in onnxruntime.
- **GridSample** samples rows and volumes, too, with the cubic kernel as well. A place halfway between two pixels goes
  to the even one with `mode` nearest, around a mirrored image, too; a place that is NaN gives NaN.
- **Attention** becomes products, a softmax and what is added to the scores. `softmax_precision` changes nothing: the
  sums are held in float32 or float64, whichever the model computes in.
- Inputs that a network is specialised on (shapes, axes, scales, weights of some operators) are arrays at run time in
  these tests. The interface that runs them (`graphsr.importers.onnx_backend`) builds a network for the values of such
  inputs, says so in `explain()`, and builds it again when they change.
"""
MISSED = """
## Tests that do not pass

Why, in the words of the refusal of the first of them; the number counts the tests that no backend passes.

| operator | tests | why |
|---|---|---|
"""


@dataclass
class Tally:
    """The tests of one operator: how many there are, and per backend how many pass and their largest error."""

    total: int = 0
    passed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ulp: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    missed: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="write docs/onnx.md")
    parser.parse_args()
    PAGE.write_text(page(BACKENDS), encoding="utf-8")
    return 0


def page(names: Sequence[str]) -> str:
    """The text of docs/onnx.md, after running the tests on the backends of these names."""
    tallies = {operator: Tally() for operator in sorted(READ)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes what it expects when it is asked, and overflows on purpose
        for case in node_tests():
            count(tallies[case.operator], case, names)
    head = INTRODUCTION.format(version=onnx.__version__, oldest=OLDEST, newest=NEWEST, atol=1e-7)
    table = [f"| operator | since | {' | '.join(names)} |", f"|{'---|' * (2 + len(names))}"]
    table += [row(operator, tally, names) for operator, tally in tallies.items()]
    rest = [f"| {o} | {len(t.missed)} | {_cell(t.missed[0])} |" for o, t in tallies.items() if t.missed]
    return "\n".join([head, *table, MISSED.rstrip("\n"), *rest, ""])


@dataclass(frozen=True)
class NodeTest:
    """One operator, and what it makes of which arrays."""

    model: onnx.ModelProto
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        return self.model.graph.node[0].op_type


def node_tests() -> Iterator[NodeTest]:
    """onnx's tests of one operator that the importer knows."""
    for case in collect_testcases(None):
        if case.model is None or len(case.model.graph.node) != 1 or "_expanded" in case.name:
            continue
        (node,) = case.model.graph.node
        if not node.domain and node.op_type in READ:
            yield NodeTest(case.model, case.data_sets or (), case.rtol, case.atol)


def count(tally: Tally, case: NodeTest, names: Sequence[str]) -> None:
    """Run one test on each backend and note how it ends."""
    tally.total += 1
    reasons = []
    for name in names:
        try:
            ulp = max(run(case, name), default=0.0)
        except (GraphsrError, AssertionError) as error:
            reasons.append(str(error))
        else:
            tally.passed[name] += 1
            tally.ulp[name] = max(tally.ulp[name], ulp)
    if len(reasons) == len(names):
        tally.missed.append(reasons[0])


def run(case: NodeTest, backend: str) -> list[float]:
    """The error of each output. Raises what the backend raises, and `AssertionError` for a wrong answer."""
    prepared = backend_class(backend).prepare(case.model)
    errors = []
    for inputs, outputs in case.data:
        results = prepared.run([_array(x) for x in inputs])
        for got, expected in zip(results, map(_array, outputs), strict=True):
            if got.dtype != expected.dtype:
                raise AssertionError(f"expected {expected.dtype}, got {got.dtype}")
            np.testing.assert_allclose(got, expected, case.rtol, case.atol)
            errors.append(last_places(got, expected, case.atol))
    return errors


def _array(value: Any) -> Array:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def last_places(got: Array, expected: Array, atol: float) -> float:
    """The largest difference in units in the last place of the expected value; one within atol is none."""
    if expected.dtype.kind != "f" or not expected.size:
        return 0.0
    finite = np.isfinite(expected)
    wide = np.abs(got[finite].astype(np.float64) - expected[finite])
    unit = np.spacing(np.abs(expected[finite])).astype(np.float64)
    return float(np.max(np.where(wide <= atol, 0, wide / unit), initial=0))


def row(operator: str, tally: Tally, names: Sequence[str]) -> str:
    """A line of the table."""
    forms = (s for s in onnx.defs.get_all_schemas_with_history() if s.name == operator and not s.domain)
    read = (s for s in forms if (not s.deprecated or s.name in REVISED) and s.since_version <= NEWEST)
    since = sorted(s.since_version for s in read)
    cells = [_result(tally, name) for name in names]
    return f"| {operator} | {' '.join(map(str, since))} | {' | '.join(cells)} |"


def _result(tally: Tally, name: str) -> str:
    if not tally.total:
        return "–"
    ulp = tally.ulp[name]
    return f"{tally.passed[name]}/{tally.total}" + (f", {ulp:.3g} ulp" if ulp else "")


def _cell(reason: str) -> str:
    """The first complaint of a refusal, or the first line of a difference."""
    lines = [line.strip() for line in reason.strip().splitlines()]
    text = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return text.partition(";")[0].replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
