"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import graphsr

MODULES = sorted(m.name for m in pkgutil.walk_packages(graphsr.__path__, "graphsr."))


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, globs={**vars(module), "np": np})
    assert result.failed == 0
