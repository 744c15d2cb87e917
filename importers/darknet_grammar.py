"""The grammar of darknet's .cfg files: sections of `key=value` lines, as darknet's own reader takes them.

White space means nothing anywhere in a line; a line that starts with `#` or `;` is a comment; the first of two equal
keys counts; a key without a value is skipped. Numbers are read as C's atoi and atof do, but where those give 0 for what
is no number, this is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from graphsr.errors import ModelError

MAX_BYTES = 1 << 20
"""Larger files are refused: the largest published one has 30 KB."""
MAX_SECTIONS = 2_000
MAX_INT = (1 << 31) - 1

_HEADER = re.compile(r"\[(\w+)\]")
_INT = re.compile(r"([+-]?\d{1,10})(?:\.\d*)?(?:[#;].*)?")
_FLOAT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)f?(?:[#;].*)?")
_COMMENT = re.compile(r"[#;].*")


@dataclass(frozen=True)
class Option:
    """The value of one key, without white space, and its line."""

    text: str
    line: int


@dataclass
class Section:
    """`[name]` at a line, and its options. It notes which keys were asked for, so that the others can be named."""

    name: str
    line: int
    options: dict[str, Option] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    skipped: dict[str, int] = field(default_factory=dict)
    """The lines of keys without a value."""

    @property
    def origin(self) -> str:
        return f"darknet: [{self.name}] line {self.line}"

    def error(self, problem: str, key: str | None = None) -> ModelError:
        """The exception to raise: it names the section, the line, and the key when there is one."""
        option = self.options.get(key) if key else None
        line = option.line if option else self.line
        what = f": {key}={option.text}" if option else ""
        return ModelError(f"line {line}: [{self.name}]{what}: {problem}")

    def text(self, key: str, default: str = "") -> str:
        """The value as it stands, up to a comment."""
        self.asked.add(key)
        option = self.options.get(key)
        return _COMMENT.sub("", option.text) if option else default

    def integer(self, key: str, default: int, low: int = -MAX_INT, high: int = MAX_INT) -> int:
        """A whole number in low..high."""
        self.asked.add(key)
        option = self.options.get(key)
        value = _integer(option.text) if option else default
        if value is None or not low <= value <= high:
            raise self.error(f"a whole number {_range(low, high)} is expected", key)
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        self.asked.add(key)
        option = self.options.get(key)
        value = _number(option.text) if option else default
        if value is None:
            raise self.error("a number is expected", key)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """0 is no, every other number is yes."""
        return self.number(key, float(default)) != 0

    def integers(self, key: str) -> tuple[int, ...]:
        """Whole numbers between commas; () where the key is absent."""
        parts = self._parts(key)
        values = [_integer(part) for part in parts]
        if None in values:
            raise self.error("whole numbers between commas are expected", key)
        return tuple(value for value in values if value is not None)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Finite numbers between commas; () where the key is absent."""
        parts = self._parts(key)
        values = [_number(part) for part in parts]
        if None in values:
            raise self.error("numbers between commas are expected", key)
        return tuple(value for value in values if value is not None)

    def choice(self, key: str, default: str, choices: Iterable[str]) -> str:
        """One word of several."""
        word = self.text(key, default)
        if word not in choices:
            raise self.error(f"one of {', '.join(choices)} is expected", key)
        return word

    def _parts(self, key: str) -> list[str]:
        text = self.text(key)
        return text.rstrip(",").split(",") if text else []


def parse_cfg(data: bytes) -> list[Section]:
    """The sections of a .cfg file, the first of which is [net].

    Raises `ModelError` with every line that has no meaning.
    """
    sections: list[Section] = []
    faults: list[str] = []
    for number, line in enumerate(data.decode("latin-1").split("\n"), start=1):
        text = "".join(line.split())
        if not text or text[0] in "#;\0":
            continue
        if text[0] == "[":
            match = _HEADER.fullmatch(_COMMENT.sub("", text))
            if match and len(sections) < MAX_SECTIONS:
                sections.append(Section(match[1], number))
            else:
                faults.append(f"line {number}: {text[:80]}: " + (
                    f"more than {MAX_SECTIONS} sections" if match else "a section is named like [convolutional]"
                ))  # fmt: skip
        elif fault := _enter(text, number, sections):
            faults.append(f"line {number}: {text[:80]}: {fault}")
    if not faults and (not sections or sections[0].name not in ("net", "network")):
        line_ = f"line {sections[0].line}: [{sections[0].name}]" if sections else "no section at all"
        faults.append(f"{line_}: the first section must be [net]")
    if faults:
        raise ModelError("this is not a darknet cfg:" + listed(faults))
    return sections


def listed(faults: list[str], most: int = 20) -> str:
    """The faults on a line each, the first of them when they are many."""
    more = [f"… and {len(faults) - most} more"] if len(faults) > most else []
    return "".join(f"\n  {fault}" for fault in [*faults[:most], *more])


def _enter(text: str, number: int, sections: list[Section]) -> str:
    """Put a `key=value` line into the last section; returns what is wrong with it."""
    key, equals, value = text.partition("=")
    if not equals:
        return "neither a section, nor key=value, nor a comment"
    if not key:
        return "the key is missing"
    if not sections:
        return "it stands before the first section"
    if value:
        sections[-1].options.setdefault(key, Option(value, number))
    else:
        sections[-1].skipped[key] = number
    return ""


def _integer(text: str) -> int | None:
    match = _INT.fullmatch(text)
    return int(match[1]) if match else None


def _number(text: str) -> float | None:
    match = _FLOAT.fullmatch(text)
    value = float(match[1]) if match else float("inf")
    return value if abs(value) <= 3.4e38 else None


def _range(low: int, high: int) -> str:
    if low == -MAX_INT:
        return "of 32 bits"
    return f"of at least {low}" if high == MAX_INT else f"in {low}..{high}"
