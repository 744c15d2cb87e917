"""The commands of the command line, one function each: parsed options in, exit code out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from graphsr.analysis import macs_per_pixel, receptive_field
from graphsr.atomic import atomic_path
from graphsr.backend import backends as installed_backends
from graphsr.backend import get_backend
from graphsr.cli import OK, SOME_FAILED, UsageError
from graphsr.detection import Detection, Detector, read_names
from graphsr.detection_drawing import detections_json, draw_detections
from graphsr.errors import GraphsrError, ImageError, ModelError, ShapeError
from graphsr.imagefile import SUFFIXES, read_image, write_image
from graphsr.ir import TensorType
from graphsr.loading import embedded, load, save, writers
from graphsr.memory import shortage
from graphsr.metrics import PLAIN, Convention, compare_images, paper
from graphsr.model import DEFAULT_BACKEND, Model
from graphsr.upscaling import Upscaler

OVERRIDES = ("res_scale", "input_range", "network_range", "mean", "shuffle", "activation", "weights", "fork")
_FORMATS = ", ".join(sorted(SUFFIXES))


def upscale(options: argparse.Namespace) -> int:
    """`graphsr upscale INPUT... [-o OUT]`"""
    model = _load(options.model or _default_model(options.scale), options)
    upscaler = Upscaler(model, backend=options.backend or DEFAULT_BACKEND, threads=options.threads)
    jobs = plan_outputs([Path(name) for name in options.input], options.output, upscaler.scale)
    _say_assumptions(model)
    failed = 0
    with progress(len(jobs)) as report:
        for source, target in jobs:
            start = time.perf_counter()
            try:
                if os.path.lexists(target) and options.exists == "skip":
                    report(f"{target}: exists, skipped")
                    continue
                if os.path.lexists(target) and options.exists == "error":
                    raise ImageError(f"the output {target} exists (choose --exists overwrite or skip)")
                upscale_file(upscaler, source, target)
            except (GraphsrError, OSError, MemoryError) as error:
                failed += 1
                report(f"graphsr upscale: {_name_file(error, source)}", failed=True)
            else:
                report(f"{source} -> {target}  {time.perf_counter() - start:.1f} s")
    if failed:
        _complain("upscale", f"{failed} of {len(jobs)} images failed")
    return SOME_FAILED if failed else OK


def upscale_file(upscaler: Upscaler, source: Path, target: Path) -> None:
    """Read, enlarge, write; nothing is left behind when a step fails."""
    image = read_image(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image(target, replace(image, pixels=upscaler(image.pixels)))


def plan_outputs(inputs: list[Path], output: str | None, scale: int) -> list[tuple[Path, Path]]:
    """(source, target) for every image; `UsageError` when an output would fall on an input or on another output."""
    sources: list[Path] = []
    for path in inputs:
        sources += _images_in(path, scale if output is None else None) if os.path.isdir(path) else [path]
    to_file = output is not None and not os.path.isdir(output) and Path(output).suffix != ""
    if to_file and Path(str(output)).suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {output}: images are written as {_FORMATS}; a folder of such a name must exist already")
    if to_file and (len(sources) > 1 or os.path.isdir(inputs[0])):
        raise UsageError(f"-o {output} names one file, but there are {len(sources)} images: give a folder")
    jobs: dict[Path, Path] = {}
    taken = {path.resolve() for path in sources}
    for source in sources:
        if output is None:
            target = _beside(source, scale)
        elif to_file:
            target = Path(output)
        else:
            target = Path(output) / source.name
        if target.resolve() in taken:
            raise UsageError(f"{source} would be written to {target}, which is an input or another image's output")
        taken.add(target.resolve())
        jobs[source] = target
    return list(jobs.items())


def _images_in(folder: Path, scale: int | None) -> list[Path]:
    """The images of a folder, without those that an earlier run at this scale has put beside their originals."""
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    made = {_beside(p, scale) for p in found} if scale else set()
    found = [p for p in found if p not in made]
    if not found:
        raise UsageError(f"folder {folder} holds no images ({_FORMATS})")
    return found


def _beside(source: Path, scale: int) -> Path:
    """Where the result goes when no output is named."""
    return source.with_name(f"{source.stem}_x{scale}{source.suffix}")


def detect(options: argparse.Namespace) -> int:
    """`graphsr detect IMAGE... --cfg FILE`"""
    sources = [Path(name) for name in options.input]
    jobs: dict[Path, Path | None] = dict.fromkeys(_pictures(sources))
    if options.output:
        jobs |= plan_outputs(sources, options.output, 1)
    if options.json:
        weights = options.weights or Path(options.cfg).with_suffix(".weights")
        refuse_overwriting("--json", options.json, *jobs, *jobs.values(), options.cfg, weights, options.names)
    detector = _detector(options)
    found: dict[str, tuple[int, int, list[Detection]]] = {}
    for source, target in jobs.items():
        try:
            image = read_image(source)
            objects = detector(image.pixels)
            if target:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_image(target, replace(image, pixels=draw_detections(image.pixels, objects), png_colour=()))
        except (GraphsrError, OSError, MemoryError) as error:
            _complain("detect", _name_file(error, source))
            continue
        found[str(source)] = (image.pixels.shape[1], image.pixels.shape[0], objects)
        print(f"{source}: {len(objects)} objects" + (f" -> {target}" if target else ""))
        for d in objects:
            print(f"  {d.name:<16} {100 * d.score:5.1f} %  {d.left:.0f} {d.top:.0f} {d.right:.0f} {d.bottom:.0f}")
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(options.json) as path:
            path.write_text(detections_json(found), encoding="utf-8")
    return OK if len(found) == len(jobs) else SOME_FAILED


def refuse_overwriting(option: str, output: str, *others: str | Path | None) -> None:
    """`UsageError` when what an option writes would fall on a file that is read or written besides."""
    if Path(output).resolve() in {Path(other).resolve() for other in others if other}:
        raise UsageError(f"{option} {output}: the file is an input, or another output; name another one")


def _detector(options: argparse.Namespace) -> Detector:
    given = {name: getattr(options, name) for name in ("weights", "fork") if getattr(options, name) is not None}
    model = load(options.cfg, **given)
    _say_assumptions(model)
    try:
        return Detector(
            model,
            names=_names(options.names) if options.names else (),
            threshold=options.threshold,
            overlap=options.overlap,
            letterbox=None if options.letterbox is None else options.letterbox == "yes",
            size=options.size,
            backend=options.backend or DEFAULT_BACKEND,
            threads=options.threads,
        )
    except ShapeError as error:
        raise UsageError(f"--size: {error}") from error


def _names(path: str) -> tuple[str, ...]:
    try:
        return read_names(path)
    except ModelError as error:
        raise UsageError(f"--names {error}") from error


def _pictures(inputs: list[Path]) -> list[Path]:
    """The image files that are named, and those in the folders that are named."""
    found: list[Path] = []
    for path in inputs:
        found += _images_in(path, None) if os.path.isdir(path) else [path]
    return found


def info(options: argparse.Namespace) -> int:
    """`graphsr info MODEL`"""
    if options.svg:
        refuse_overwriting("--svg", options.svg, options.model)
    model = _load(options.model, options)
    if options.svg:
        with atomic_path(Path(options.svg)) as path:
            path.write_text(model.graph._repr_html_(), encoding="utf-8")
    print(model.graph if options.graph else describe(model))
    return OK


def describe(model: Model) -> str:
    """What `graphsr info` prints."""
    field = receptive_field(model.graph)
    macs = macs_per_pixel(model.graph)
    rows = [
        ("architecture", model.architecture),
        ("scale", f"x{model.scale}" if model.scale else "not an upscaler"),
        *((f"input {name}", str(type_)) for name, type_ in model.inputs.items()),
        *((f"output {name}", str(type_)) for name, type_ in model.outputs.items()),
        ("white is", f"{model.input_range:g}"),
        ("parameters", f"{model.parameters:,}"),
        ("receptive field", f"{field[0]} x {field[1]} input pixels" if field else "the whole image"),
        ("MACs per input pixel", f"{macs:,.0f}" if macs is not None else "unknown"),
        *((f"read: {key}", value) for key, value in model.inferred.items()),
        *((f"from: {key}", value) for key, value in model.provenance.items()),
    ]
    width = max(len(key) for key, _ in rows)
    lines = [f"{key.ljust(width)}  {value}" for key, value in rows]
    return "\n".join([*lines, *(f"assumed: {text}" for text in model.assumptions)])


def convert(options: argparse.Namespace) -> int:
    """`graphsr convert IN OUT`"""
    known, suffix = writers(), Path(options.target).suffix.lower()
    if suffix not in known:
        raise UsageError(f"the output is named by its format, {', '.join(sorted(known))}: got {options.target}")
    beside = Path(options.target).with_suffix(".weights")
    if suffix == ".cfg" and os.path.lexists(beside) and not options.overwrite:
        raise UsageError(f"{beside} exists and would be replaced: name another output, or give --overwrite")
    model = _load(options.source, options)
    _say_assumptions(model)
    save(model, options.target, dtype="float16" if options.float16 else "float32")
    return OK


def profile(options: argparse.Namespace) -> int:
    """`graphsr profile MODEL --size HxW`"""
    model = _load(options.model, options)
    chosen = {name: value for name in ("accuracy", "memory") if (value := getattr(options, name))}
    run = model.compile("llvm", options.threads, **chosen)
    shapes = {name: profiled_shape(name, type_, options.size) for name, type_ in model.inputs.items()}
    if lack := shortage(run.bind(shapes).planned_bytes):
        raise UsageError(f"--size {options.size[0]}x{options.size[1]} {lack}: choose a smaller one")
    generator = np.random.default_rng(0)
    inputs = {}
    for name, type_ in model.inputs.items():
        noise = generator.random(shapes[name], np.float32) * np.float32(model.input_range)
        inputs[name] = noise.astype(type_.dtype, copy=False)
    print(run.profile(inputs, options.repeats))
    return OK


def profiled_shape(name: str, type_: TensorType, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of an image input [N, C, H, W] at this size; `UsageError` when the network fixes another one."""
    if type_.rank != 4:
        raise UsageError(f"input {name} : {type_} is not an image: profile it from Python with run.profile(inputs)")
    wanted = (1, *(c if isinstance(c, int) else 1 for c in type_.shape[1:2]), *size)
    fixed = [(given, n) for given, n in zip(type_.shape, wanted, strict=True) if isinstance(given, int) and given != n]
    if fixed:
        raise UsageError(f"input {name} : {type_} cannot be {size[0]}x{size[1]}: its sizes are fixed")
    return wanted


def compare(options: argparse.Namespace) -> int:
    """`graphsr compare A B`"""
    a, b = Path(options.a), Path(options.b)
    if os.path.isdir(a) != os.path.isdir(b):
        raise UsageError(f"compare two images or two folders, not one of each: {a}, {b}")
    if options.convention == "paper":
        if options.border is None:
            raise UsageError("the paper convention cuts a border: give the scale factor as --border")
        convention = paper(options.border)
    else:
        convention = replace(PLAIN, border=options.border or 0)
    print(f"convention: {convention}")
    if not os.path.isdir(a):
        print(_compare_row(a, b, convention, a.name)[0])
        return OK
    in_a, in_b = ({p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES} for folder in (a, b))
    names = sorted(in_a & in_b)
    if not names:
        raise UsageError(f"folders {a} and {b} have no image name in common")
    rows, failed = [], len(in_a ^ in_b)
    for name in sorted(in_a ^ in_b):
        _complain("compare", f"{name}: only in {a if name in in_a else b}")
    for name in names:
        try:
            text, figures = _compare_row(a / name, b / name, convention, name)
        except ImageError as error:
            failed += 1
            _complain("compare", _name_file(error, a / name))
        else:
            print(text)
            rows.append(figures)
    if rows:
        psnr, ssim = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        print(f"{'mean':<24} PSNR {psnr:7.3f} dB  SSIM {ssim:.4f}")
    return SOME_FAILED if failed else OK


def _compare_row(a: Path, b: Path, convention: Convention, name: str) -> tuple[str, tuple[float, float]]:
    result = compare_images(read_image(a).pixels, read_image(b).pixels, convention)
    text = f"{name:<24} PSNR {result.psnr:7.3f} dB  SSIM {result.ssim:.4f}  largest difference {result.max_abs:g}"
    return text, (result.psnr, result.ssim)


def backends(options: argparse.Namespace) -> int:
    """`graphsr backends`"""
    for name in sorted(installed_backends()):
        default = "  (default)" if name == DEFAULT_BACKEND else ""
        try:
            summary = (type(get_backend(name)).__doc__ or "").strip().partition("\n")[0]
            print(f"{name:<12} {summary}{default}")
        except GraphsrError as error:
            print(f"{name:<12} not available: {error}")
    return OK


def cache(options: argparse.Namespace) -> int:
    """`graphsr cache`"""
    objects = import_module("graphsr.backends.llvm.cache")  # the core names no backend on import
    if options.clear:
        print(f"removed {objects.clear()} entries from {objects.directory()}")
        return OK
    off = "" if objects.is_on() else "  (off: GRAPHSR_CACHE=0)"
    entries, nbytes = objects.statistics()
    print(f"directory  {objects.directory()}{off}\nentries    {entries}\nbytes      {nbytes:,}")
    return OK


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """A counter on standard error: one line that is rewritten on a terminal; elsewhere only failures are printed."""
    done = 0
    terminal = sys.stderr.isatty()

    def report(text: str, *, failed: bool = False) -> None:
        nonlocal done
        done += 1
        if terminal:
            end = "\n" if failed or done == total else ""
            print(f"\r\x1b[K[{done}/{total}] {text}", end=end, file=sys.stderr, flush=True)
        elif failed:
            print(text, file=sys.stderr)

    try:
        yield report
    finally:
        if terminal and 0 < done < total:
            print(file=sys.stderr)


def _say_assumptions(model: Model) -> None:
    for text in model.assumptions:
        print(f"assumed: {text}", file=sys.stderr)


def _load(name: str, options: argparse.Namespace) -> Model:
    """The model of that name at the scale that `-s` asks for; `UsageError` when it has no such scale."""
    model = load(name, **_overrides(options))
    if options.scale in (None, model.scale):
        return model
    try:  # a file that holds several scales takes the option, the others refuse it
        return load(name, **_overrides(options), scale=options.scale)
    except ModelError as error:
        raise UsageError(f"{name} enlarges by {model.scale}, not by {options.scale}: {error}") from error


def _default_model(scale: int | None) -> str:
    name = f"wdsr-x{scale or 2}"
    if name not in embedded():
        raise UsageError(f"no embedded model enlarges by {scale}: there are {', '.join(embedded())}; name one with -m")
    return name


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name, None) for name in OVERRIDES}
    return {name: value for name, value in given.items() if value is not None}


def _name_file(error: BaseException, path: Path) -> str:
    """The error's words, with the file named once."""
    text = str(error) or type(error).__name__
    return text if str(path) in text else f"{path}: {text}"


def _complain(command: str, text: str) -> None:
    print(f"graphsr {command}: {text}", file=sys.stderr)
