"""Damaged copies of a file: what a bad disk, a broken download or an attacker makes of it. The same seed gives the
same copy on every machine."""

from __future__ import annotations

import random
from collections.abc import Iterator

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 27, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
_LONG_NUMBERS = (*_NUMBERS, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def mutants(data: bytes, count: int, *, seed: int = 0, structure: int | None = None) -> Iterator[bytes]:
    """`count` damaged copies of `data`. Three in four touch only the first or last `structure` bytes, where the
    headers are (by default 512)."""
    for number in range(count):
        yield mutant(data, random.Random(f"{seed}/{number}"), 512 if structure is None else structure)


def mutant(data: bytes, choose: random.Random, structure: int) -> bytes:
    """One damaged copy, with 1 to 8 changes."""
    damaged = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        _change(damaged, _position(len(damaged), choose, structure), choose)
    return bytes(damaged)


def _position(length: int, choose: random.Random, structure: int) -> int:
    near = min(structure, length)
    return choose.choice((
        choose.randrange(length + 1),
        choose.randrange(near + 1),
        choose.randrange(near + 1),
        length - choose.randrange(near + 1),
    ))  # fmt: skip


def _change(damaged: bytearray, at: int, choose: random.Random) -> None:
    match choose.randrange(8):
        case 0:
            del damaged[at:]  # cut off
        case 1:
            del damaged[at : at + choose.choice((1, 4, 8, 64))]
        case 2:
            damaged[at:at] = choose.randbytes(choose.choice((1, 4, 8, 64)))
        case 3:
            damaged[at:at] = damaged[at : at + choose.choice((1, 8, 64, 512))]  # repeat
        case 4:
            _overwrite(damaged, at, choose.randbytes(choose.choice((1, 2, 8))))
        case 5:
            _overwrite(damaged, at, choose.choice(_NUMBERS).to_bytes(8, "little")[: choose.choice((1, 2, 4))])
        case 6:
            _overwrite(damaged, at, choose.choice(_LONG_NUMBERS).to_bytes(8, "little"))
        case _:
            if at < len(damaged):
                damaged[at] ^= 1 << choose.randrange(8)


def _overwrite(damaged: bytearray, at: int, data: bytes) -> None:
    """Like a disk: the length stays."""
    data = data[: max(0, len(damaged) - at)]
    damaged[at : at + len(data)] = data
