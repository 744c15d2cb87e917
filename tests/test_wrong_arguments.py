"""Arguments of a wrong kind, for everything that is public: an error of ours that says what was expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphsr
from graphsr.backend import Executable, get_backend
from graphsr.errors import GraphsrError

X = np.zeros((1, 3, 8, 8), np.float32)
PICTURE = np.zeros((4, 4, 3), np.uint8)


@cache
def model() -> graphsr.Model:
    return graphsr.load("wdsr-x2")


@cache
def run() -> Executable:
    return model().compile("reference")


WRONG: dict[str, Callable[[Any], object]] = {
    "load": lambda path: graphsr.load(path),
    "load, an option": lambda _: graphsr.load("wdsr-x2", foo=1),
    "save": lambda path: graphsr.save(model(), path),
    "save, another model": lambda _: graphsr.save(3, "m.safetensors"),  # type: ignore[arg-type]  # wrong on purpose
    "save, a dtype": lambda dtype: graphsr.save(model(), "m.safetensors", dtype=dtype),
    "a backend": lambda name: get_backend(name),
    "compile, a backend": lambda name: model().compile(name),
    "compile, threads": lambda n: model().compile("reference", threads=n if n is not None else 0),
    "compile, an option": lambda _: model().compile("reference", foo=1),
    "run": lambda inputs: run()(inputs),
    "run, an array": lambda array: run()({"input": array}),
    "run, a name": lambda _: run()({"foo": X}),
    "bind": lambda shapes: run().bind(shapes),
    "bind, a shape": lambda shape: run().bind({"input": shape}),
    "bind, a size": lambda size: run().bind({"input": (1, 3, 8, size)}),
    "explain": lambda size: run().explain({"input": (1, 3, 8, size)}),
    "profile": lambda repeats: run().profile({"input": X}, repeats),
    "upscale": lambda image: graphsr.upscale(image),
    "upscale, a model": lambda name: graphsr.upscale(PICTURE, model=name),
}


@pytest.mark.parametrize("wrong", [None, True, 2.5, -1, 0, "x", b"x", object()], ids=repr)
@pytest.mark.parametrize("call", WRONG)
def test_wrong_arguments(call: str, wrong: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraphsrError):
        WRONG[call](wrong)
    assert not list(tmp_path.iterdir())


def test_wrong_names_and_ragged_arrays() -> None:
    run: Any = graphsr.load("wdsr-x2").compile("reference")
    compile_: Any = graphsr.load("wdsr-x2").compile
    x = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(graphsr.ShapeError, match=r"inputs are named \['input'\], got \[1, 'a'\]"):
        run({1: x, "a": x})
    with pytest.raises(graphsr.ShapeError, match="input 'input' must be an array of float32"):
        run({"input": [[1, 2], [3]]})
    run.bind({"input": (1, 3, 8, 8)})
    for _ in range(2):
        with pytest.raises(graphsr.ShapeError, match="inputs are named"):
            run.bind({"input": (1, 3, 8, 8), "typo": (1, 2)})
    with pytest.raises(graphsr.BackendError, match=r"unknown backend \['llvm'\]"):
        compile_(backend=["llvm"])
