"""The installed package: the list of subpackages is complete, and a bare import stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def test_every_subpackage_is_listed() -> None:
    """An editable install hides a forgotten entry; a wheel would lack the folder."""
    if not (ROOT / "graphsr").is_dir():
        pytest.skip("outside a checkout")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for package, folder in settings["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert found == set(settings["packages"])


def test_import_is_light() -> None:
    code = "import graphsr, sys; print([m for m in ('onnx', 'skimage', 'scipy', 'PIL', 'h5py') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
