"""darknet's .weights files: a header of three or four integers, then every parameter as float32 in the order of the
layers, without names or shapes. Only the cfg says what a number means, and their count is the only check.

Layout, little-endian: int32 major, minor, revision; images seen, as 8 or 4 bytes; float32 to the end.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from graphsr.errors import ModelError
from graphsr.op import Array

from .byte_source import open_source

MAX_BYTES = 1 << 34
SHORT, LONG = 16, 20
"""Bytes of the header with a count of images in 4 and in 8 bytes."""
ALEXEYAB, PJREDDIE = "alexeyab", "pjreddie"
FORKS = (ALEXEYAB, PJREDDIE)
REVISION = {ALEXEYAB: 5, PJREDDIE: 0}
"""What each fork writes as the revision."""


@dataclass(frozen=True)
class Request:
    """What one parameter of a layer takes from the file."""

    layer: str
    """Such as "layer 12 (line 140: [convolutional])"."""
    what: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return prod(self.shape)


class Parameters(Protocol):
    """Where a network under construction takes its parameters from, in the order of the file."""

    transposed: bool
    """Whether matrices of connected layers are stored [inputs, outputs]."""

    def take(self, request: Request) -> Array:
        """The next parameter, float32."""


class Measure:
    """Gives zeros that take no memory, and notes what was asked for: the first of the two times a cfg is built."""

    transposed = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def take(self, request: Request) -> Array:
        self.requests.append(request)
        if request.count > MAX_BYTES // 4:
            raise ModelError(f"{request.layer}: its {request.what} {list(request.shape)} are beyond any file")
        return np.broadcast_to(np.float32(0), request.shape)


@dataclass(frozen=True)
class Header:
    """The beginning of a .weights file."""

    major: int
    minor: int
    revision: int

    @property
    def fork(self) -> str:
        """Who wrote the file, as far as the header tells."""
        return ALEXEYAB if self.revision >= REVISION[ALEXEYAB] and not self.is_garbage else PJREDDIE

    @property
    def is_garbage(self) -> bool:
        """Some published files (vgg-16.weights) start with arbitrary numbers; darknet has a rule for them."""
        return not (0 <= self.major < 1000 and 0 <= self.minor < 1000)

    @property
    def transposed(self) -> bool:
        return self.major > 1000 or self.minor > 1000

    def size(self, fork: str) -> int:
        """Bytes of the header by the rule of a fork."""
        long = self.major * 10 + self.minor >= 2 and (fork == ALEXEYAB or not self.is_garbage)
        return LONG if long else SHORT


class WeightsFile:
    """A .weights file: its header, and its numbers once their count is known to fit."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with open_source(path, MAX_BYTES) as source:
            if source.size < SHORT:
                raise source.error("header", f"at least {SHORT} bytes are expected, the file has {source.size}")
            self.header = Header(*struct.unpack("<3i", source.read(0, 12, "header")))
            self.sha256 = source.sha256()
        self.path, self.size = source.path, source.size

    def parameters(self, requests: list[Request], fork: str) -> Floats:
        """The numbers for these requests: after the header that the fork's rule gives, or the other one where only
        that fits the count.

        Raises `ModelError` that names the first layer for which the file is too short, or says how much is left over.
        """
        wanted = sum(request.count for request in requests)
        first = self.header.size(fork)
        for header in (first, SHORT + LONG - first):
            if self.size - header == 4 * wanted:
                with open_source(self.path, MAX_BYTES) as source:
                    numbers = source.read_array(header, 4 * wanted, "weights")
                return Floats(numbers.view("<f4"), self.header.transposed)
        raise ModelError(f"{self.path}: {_misfit(requests, max(0, self.size - first), wanted)}")


class Floats:
    """Hands out the numbers of a file, one parameter after the other."""

    def __init__(self, values: Array, transposed: bool) -> None:
        self.values = values
        self.transposed = transposed
        self.position = 0

    def take(self, request: Request) -> Array:
        start, self.position = self.position, self.position + request.count
        return self.values[start : self.position].reshape(request.shape).astype(np.float32, copy=False)


def _misfit(requests: list[Request], held: int, wanted: int) -> str:
    """Why a file with `held` bytes after its header does not fit."""
    floats, rest = divmod(held, 4)
    total = f"the cfg takes {wanted} floats, the file holds {floats}" + (f" and {rest} bytes" if rest else "")
    if floats >= wanted:
        return f"{total}: {floats - wanted} too many after the last layer; is it the file of this cfg?"
    position = 0
    for request in requests:
        if position + request.count > floats:
            break
        position += request.count
    return (
        f"{total}: {request.layer} expects {request.count} floats for its {request.what} {list(request.shape)} "
        f"and finds {floats - position}; is it the file of this cfg, and complete?"
    )


def write_weights(parameters: list[Array], fork: str = ALEXEYAB) -> bytes:
    """The bytes of a .weights file with these arrays, as the fork would write it."""
    header = struct.pack("<3iQ", 0, 2, REVISION[fork], 0)
    return header + b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in parameters)
