"""The test suite that comes with onnx, on every installed backend of ours.

Which of its tests these are is derived from the models in onnx's wheel: all of the operators of tiers 1 and 2, of
those of tier 3 that are read and of the recurrent ones, float32 with int64, int32 and bool beside it, and inference;
all models that PyTorch has exported; all real networks.
"""

from __future__ import annotations

import os
import unittest
import warnings
from collections.abc import Iterator

import onnx
import pytest
from onnx.backend.test.case.model import collect_testcases as real_models
from onnx.backend.test.case.node import collect_testcases as node_tests
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from onnx_rule import in_rule

from graphsr.backend import backends
from graphsr.importers.onnx_backend import backend_class

EXPECTED = {"node": 687, "simple": 7, "pytorch-converted": 82, "pytorch-operator": 35, "real": 9}
"""How many tests the rule finds in the wheel of onnx 1.23."""


def wanted() -> dict[str, set[str]]:
    """The names of the tests by kind."""
    stored = {kind: load_model_tests(kind=kind) for kind in ("simple", "pytorch-converted", "pytorch-operator")}
    simple = (case for case in stored["simple"] if in_rule(case.name, onnx.load(f"{case.model_dir}/model.onnx")))
    return {
        "node": {case.name for case in node_tests(None) if case.model and in_rule(case.name, case.model)},
        "simple": {case.name for case in simple},
        "pytorch-converted": {case.name for case in stored["pytorch-converted"]},
        "pytorch-operator": {case.name for case in stored["pytorch-operator"]},
        "real": {case.name for case in real_models() if case.kind == "real"},
    }


def suite(backend: str) -> dict[str, type[unittest.TestCase]]:
    """onnx's test classes, with the wanted tests only."""
    kept = {f"{name}_cpu" for names in WANTED.values() for name in names}
    classes = {}
    for class_name, case in Runner(backend_class(backend), __name__).test_cases.items():
        for name in [name for name in vars(case) if name.startswith("test_") and name not in kept]:
            delattr(case, name)
        if any(name.startswith("test_") for name in vars(case)):
            classes[f"{class_name}_{backend}"] = case
    return classes


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # onnx computes what it expects when it is asked, and overflows on purpose
    WANTED = wanted()
    for installed in sorted(backends()):
        globals().update(suite(installed))


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """onnx writes the inputs of the real networks there."""
    before = os.environ.get("ONNX_HOME")
    os.environ["ONNX_HOME"] = str(tmp_path_factory.mktemp("onnx"))
    yield
    if before is None:
        del os.environ["ONNX_HOME"]
    else:
        os.environ["ONNX_HOME"] = before


def test_the_rule_finds_the_tests() -> None:
    if not onnx.__version__.startswith("1.23."):
        pytest.skip(f"counted for onnx 1.23, this is {onnx.__version__}")
    assert {kind: len(names) for kind, names in WANTED.items()} == EXPECTED
