"""Compares graphsr with onnxruntime and OpenVINO on networks as users bring them, in one interleaved run.

    python bench/imported.py [--darknet folder] [--networks resnet18 ...] [--threads 1 2] [--rounds 5]
                             [--engines llvm onnxruntime openvino] [--json out.json] [--markdown out.md] [--explain]

All engines run the same ONNX file (graphsr as it imported it, from its own format): ResNet18, MobileNetV2 and a U-Net
as PyTorch's exporter writes them, and YOLO-Fastest up to its heads, made of the cfg and the weights in the folder
`--darknet`. Every engine's output is compared with graphsr's reference backend in float64 before anything is timed.
How the rounds go is told in compare.py, as is the meaning of the columns; "x peer" is the time of the faster of the
two others over that of the line.
`--explain` adds, for each network, what graphsr runs for each node and how long it takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import graphsr
from graphsr.backends.reference import ReferenceBackend
from graphsr.model import Model
from graphsr.threads import available_threads

from compare import Entrant, measure, new_result
from peers.engines import ENGINES, OWN
from peers.imported_networks import IMPORTED, Imported
from peers.networks import Case, save_model, work
from peers.report import Result, host, markdown, save, table

COMPARED = ("llvm", "onnxruntime", "openvino")


def prepare(network: Imported, folder: Path, darknet: Path | None) -> Model:
    """Write the files that the engines read; what graphsr makes of the ONNX file."""
    network.write(folder / "model.onnx", darknet)
    model = graphsr.load(folder / "model.onnx")
    save_model(model, folder / "model")
    noise = np.random.default_rng(1).random(network.shape, np.float32)
    np.save(folder / "input.npy", noise)
    return model


def run_network(network: Imported, options: argparse.Namespace) -> Iterator[list[Result]]:
    """The results of one network, for each number of threads."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        model = prepare(network, folder, options.darknet)
        x = np.load(folder / "input.npy")
        reference = ReferenceBackend("float64").compile(model.graph)({"input": x})["output"]
        case, done = Case(network.name, lambda: model, network.shape), work(model, network.shape)
        for threads in options.threads:
            results = [new_result(case, done, engine, threads, folder) for engine in options.engines]
            measure([Entrant(r, folder, resident=True) for r in results], reference, 1, threads, options.rounds, folder)
            yield results
            if options.explain:
                print(f"\n{model.compile('llvm', threads=threads).profile({'input': x})}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    options.engines = [name for name in options.engines if ENGINES[name].version() is not None]
    about = host() | {"rounds": options.rounds} | {name: ENGINES[name].version() for name in options.engines}
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    results: list[Result] = []
    for network in (network for network in IMPORTED if network.name in options.networks):
        for group in run_network(network, options):
            results += group
            print(f"\n{table(group, OWN)}", flush=True)
            if options.json:
                save(options.json, about, results)
            if options.markdown:
                options.markdown.write_text(markdown(results, OWN), encoding="utf-8")
    return 1 if any(result.failure for result in results) else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("GRAPHSR_DATA")
    parser.add_argument(
        "--darknet",
        type=Path,
        default=Path(data, "darknet") if data else None,
        help="folder with yolo-fastest-1.1.cfg and .weights (default: $GRAPHSR_DATA/darknet)",
    )
    names = [network.name for network in IMPORTED]
    parser.add_argument("--networks", nargs="+", choices=names, default=None, metavar="NAME", help=", ".join(names))
    parser.add_argument("--engines", nargs="+", choices=COMPARED, default=list(COMPARED), metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, available_threads())}))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write everything that was measured here, after each network")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--explain", action="store_true", help="show what each step of graphsr takes")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or min(options.threads) < 1:
        parser.error("--rounds and --threads must be at least 1")
    if options.networks is None:
        options.networks = names if options.darknet else [name for name in names if name != "yolo-fastest"]
    elif "yolo-fastest" in options.networks and not options.darknet:
        parser.error("yolo-fastest needs --darknet")
    return options


if __name__ == "__main__":
    sys.exit(main())
