"""Damaged cfg and weights files, and what loading them does: `python darknet_mutants.py 5000` prints it as JSON.

Run as a program of its own, so that the peak of its memory is that of the loads.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from mutation import mutant

from graphsr.errors import ModelError
from graphsr.importers import darknet_import  # noqa: F401  # it enters all sections in the table
from graphsr.importers.darknet_file import load
from graphsr.importers.darknet_grammar import parse_cfg
from graphsr.importers.darknet_network import Settings, measure
from graphsr.importers.darknet_weights import write_weights

from support import costs_little

SECONDS = 2.0  # of a processor, for one file

ZOO = """
[net]
# every word that graphsr knows
batch=1
channels=4
height=8
width=12
time_steps=1
[convolutional]
filters=8
size=3
stride=1
pad=1
batch_normalize=1
activation=mish
[maxpool]
size=2
stride=2
[convolutional]
filters=8
size=3
pad=1
groups=4
activation=leaky
[shortcut]
from=-2
weights_type=per_channel
weights_normalization=softmax
[upsample]
stride=2
[route]
layers=-1,0
groups=2
group_id=1
[reorg]
stride=2
[avgpool]
[convolutional]
filters=32
size=1
activation=normalize_channels_softmax
[scale_channels]
from=-3
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=10,13, 16,30
classes=2
num=2
[route]
layers=-2
[region]
anchors=1,1,2,2
classes=2
num=2
softmax=1
[Gaussian_yolo]
mask=0
anchors=10,13
classes=5
num=1
[route]
layers=1
[local_avgpool]
size=3
stride=1
[local]
filters=2
size=3
stride=1
pad=1
[batchnorm]
[normalization]
size=3
[deconvolutional]
filters=4
size=2
stride=2
[shuffler]
scale=2
order=tf
[crop]
crop_height=6
crop_width=6
[l2norm]
[crnn]
output=4
hidden=3
pad=1
[conv_lstm]
output=4
pad=1
peephole=1
[reorg3d]
stride=2
[activation]
activation=hard_mish
[sam]
from=-1
[implicit]
filters=16
[empty]
[connected]
output=20
batch_normalize=1
activation=relu
[rnn]
output=4
hidden=3
[gru]
output=5
[lstm]
output=6
[dropout]
probability=.5
[logistic]
[softmax]
groups=2
[connected]
output=28
[detection]
classes=2
num=1
side=2
coords=4
[cost]
type=sse
"""


def weights_for(cfg: bytes) -> bytes:
    """A weights file that fits."""
    _, requests = measure(parse_cfg(cfg), Settings("alexeyab"))
    count = sum(request.count for request in requests)
    return write_weights([np.linspace(0.1, 1, count, dtype=np.float32)])


def cfg_mutants(cfg: bytes, count: int) -> Iterator[bytes]:
    """Half of them damaged byte by byte, the others line by line and number by number."""
    for number in range(count):
        choose = random.Random(f"cfg/{number}")
        yield mutant(cfg, choose, len(cfg)) if number % 2 else _by_line(cfg.split(b"\n"), choose)


VALUES = (b"0", b"1", b"-1", b"2", b"7", b"1000", b"65536", b"99999999", b"2147483647", b"-2147483648", b"1e30", b"nan")


def _by_line(lines: list[bytes], choose: random.Random) -> bytes:
    lines = list(lines)
    for _ in range(choose.choice((1, 1, 2, 3, 8))):
        at, other = choose.randrange(len(lines)), choose.randrange(len(lines))
        key, equals, _ = lines[at].partition(b"=")
        match choose.randrange(6):
            case 0:
                del lines[at]
                lines = lines or [b""]
            case 1:
                lines.insert(at, lines[other])
            case 2:
                lines[at:at] = lines[other : other + choose.choice((5, 50))] * choose.choice((1, 1, 20, 400))
            case 3:
                lines.insert(
                    at, choose.choice((b"[maxpool]", b"[route]", b"[upsample]", b"[reorg]", b"[lstm]", b"[x]"))
                )
            case _ if equals:
                lines[at] = key + b"=" + choose.choice((*VALUES, b",".join(choose.choices(VALUES, k=4))))
            case _:
                lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines)


def outcomes(cfg: bytes, weights: bytes, count: int) -> dict[str, float]:
    """Half of the mutants are cfgs, half weights: how many load, the growth of the peak memory."""
    loads, before = 0, peak()
    with tempfile.TemporaryDirectory() as folder:
        cfg_path, weights_path = Path(folder, "net.cfg"), Path(folder, "net.weights")
        damaged_weights = (mutant(weights, random.Random(f"weights/{i}"), 64) for i in range(count // 2))
        pairs = chain(zip(cfg_mutants(cfg, count - count // 2), repeat(weights)), zip(repeat(cfg), damaged_weights))
        for cfg_bytes, weights_bytes in pairs:  # one after the other: all of them together would be the peak
            cfg_path.write_bytes(cfg_bytes)
            weights_path.write_bytes(weights_bytes)
            try:
                with costs_little(SECONDS):
                    load(cfg_path, fork="alexeyab")
                loads += 1
            except ModelError as error:
                if str(cfg_path) not in str(error):
                    raise
    return {"count": count, "loads": loads, "megabytes": (peak() - before) / 1024}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    good = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else ZOO.encode()
    fitting = Path(sys.argv[2]).with_suffix(".weights").read_bytes() if len(sys.argv) > 2 else weights_for(good)
    print(json.dumps(outcomes(good, fitting, int(sys.argv[1]))))
