"""Which checks and layers are asked for, and what is said where a name is not known or no name at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from graphsr.errors import BackendError
from graphsr.op import OPS

Check = TypeVar("Check", bound=Callable[..., Any])


def chosen_checks(asked: object, known: Mapping[str, Check]) -> list[Check]:
    """The checks of these names, and functions as they are. Raises `BackendError` for anything else, and for none."""
    chosen = []
    for item in _listed("checks", "names of checks or functions that take a Suite", asked):
        if isinstance(item, str):
            _expect_known("check", item, known)
            item = known[item]
        elif not callable(item):
            raise BackendError(
                f"checks must be names of checks or functions that take a Suite, got {item!r} among them"
            )
        chosen.append(item)
    return chosen


def chosen_layers(asked: object, known: Collection[str]) -> set[str]:
    """The names of these ops. Raises `BackendError` for those without a strategy, for what is no name, and for none."""
    chosen = set()
    for item in _listed("layers", "names of ops", asked):
        if not isinstance(item, str):
            raise BackendError(f"layers must be names of ops, got {item!r} among them")
        if item in OPS and item not in known:
            raise BackendError(f"op {item!r} has no strategy that draws it: enter one with @layer({item!r})")
        _expect_known("layer", item, known)
        chosen.add(item)
    return chosen


def _listed(what: str, expected: str, asked: object) -> list[Any]:
    """One name or function stands for a list of it."""
    if isinstance(asked, str) or callable(asked):
        return [asked]
    if not isinstance(asked, Iterable):
        raise BackendError(f"{what} must be {expected}, or a list of them, got {asked!r}")
    listed = list(asked)
    if not listed:
        raise BackendError(f"{what} are none: leave them out for the usual ones, or name some")
    return listed


def _expect_known(what: str, name: str, known: Collection[str]) -> None:
    """Raise `BackendError` with the nearest name, if one is near, and all of them, unless `name` is one."""
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise BackendError(f"no {what} is called {name!r}{hint} The {what}s are {', '.join(sorted(known))}")


def expect_integer(what: str, value: object, least: int | None = None) -> None:
    """Raise `BackendError` unless the value is an integer, and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise BackendError(f"{what} must be a whole number{bound}, got {value!r}")
