"""The commands of the command line, one function each: parsed options in, exit code out."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from graphsr.analysis import macs_per_pixel, receptive_field
from graphsr.backend import Backend, get_backend
from graphsr.backend import backends as installed_backends
from graphsr.cli import OK, SOME_FAILED, UsageError, complain, reason_of
from graphsr.comparison import compare as compare  # one of the commands
from graphsr.detection import Detection, Detector, NamesError, read_names
from graphsr.detection_drawing import detections_json, draw_detections
from graphsr.errors import BackendError, GraphsrError, ImageError, ModelError, ShapeError
from graphsr.imagefile import read_image, write_image
from graphsr.ir import TensorType
from graphsr.loading import SUFFIX, embedded, load, save, writers
from graphsr.model import DEFAULT_BACKEND, Model
from graphsr.outputs import images_in, plan_outputs, prepare, refuse_overwriting, write_text
from graphsr.sizes import check_size
from graphsr.upscaling import Upscaler

OVERRIDES = ("res_scale", "input_range", "network_range", "mean", "shuffle", "activation", "weights", "fork")


def _backend(options: argparse.Namespace) -> Backend:
    """The backend that is asked for, with its options."""
    chosen = {name: value for name in ("accuracy", "memory") if (value := getattr(options, name))}
    return get_backend(getattr(options, "backend", None) or DEFAULT_BACKEND, **chosen)


def upscale(options: argparse.Namespace) -> int:
    """`graphsr upscale INPUT... [-o OUT]`"""
    model = _load(options.model or _default_model(options.scale), options)
    upscaler = Upscaler(model, backend=_backend(options), threads=options.threads)
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
            except BackendError:  # of every image
                raise
            except (GraphsrError, OSError, MemoryError) as error:
                failed += 1
                report(f"graphsr upscale: {_name_file(error, source)}", failed=True)
            else:
                report(f"{source} -> {target}  {time.perf_counter() - start:.1f} s")
    if failed:
        complain("upscale", f"{failed} of {len(jobs)} images failed")
    return SOME_FAILED if failed else OK


def upscale_file(upscaler: Upscaler, source: Path, target: Path) -> None:
    """Read, enlarge, write; nothing is left behind when a step fails."""
    image = read_image(source)
    prepare(target)
    write_image(target, replace(image, pixels=upscaler(image.pixels)))


def detect(options: argparse.Namespace) -> int:
    """`graphsr detect IMAGE... --cfg FILE`"""
    sources = [Path(name) for name in options.input]
    jobs: dict[Path, Path | None] = dict.fromkeys(_pictures(sources))
    if options.output:
        jobs |= plan_outputs(sources, options.output, 1)
    if options.json:
        weights = options.weights or Path(options.cfg).with_suffix(".weights")
        refuse_overwriting("--json", options.json, *jobs, *jobs.values(), options.cfg, weights, options.names)
        prepare(Path(options.json), "--json")
    detector = _detector(options)
    found: dict[str, tuple[int, int, list[Detection]]] = {}
    for source, target in jobs.items():
        try:
            image = read_image(source)
            if target:
                prepare(target)
            objects = detector(image.pixels)
            if target:
                write_image(target, replace(image, pixels=draw_detections(image.pixels, objects), png_colour=()))
        except (GraphsrError, OSError, MemoryError) as error:
            complain("detect", _name_file(error, source))
            continue
        found[str(source)] = (image.pixels.shape[1], image.pixels.shape[0], objects)
        print(f"{source}: {len(objects)} objects" + (f" -> {target}" if target else ""))
        for d in objects:
            print(f"  {d.name:<16} {100 * d.score:5.1f} %  {d.left:.0f} {d.top:.0f} {d.right:.0f} {d.bottom:.0f}")
    if options.json:
        write_text(Path(options.json), detections_json(found), "--json")
    return OK if len(found) == len(jobs) else SOME_FAILED


def _detector(options: argparse.Namespace) -> Detector:
    model = _load_with(options.cfg, _overrides(options))
    _say_assumptions(model)
    try:
        detector = Detector(
            model,
            names=read_names(options.names) if options.names else (),
            threshold=options.threshold,
            overlap=options.overlap,
            letterbox=None if options.letterbox is None else options.letterbox == "yes",
            size=options.size,
            backend=_backend(options),
            threads=options.threads,
        )
        detector.check_memory()
    except NamesError as error:
        raise UsageError(f"--names {_name_file(error, options.names)}") from error
    except ShapeError as error:
        raise UsageError(f"--size: {error}") from error
    return detector


def _pictures(inputs: list[Path]) -> list[Path]:
    """The image files that are named, and those in the folders that are named."""
    found: list[Path] = []
    for path in inputs:
        found += images_in(path, None) if os.path.isdir(path) else [path]
    return found


def info(options: argparse.Namespace) -> int:
    """`graphsr info MODEL`"""
    if options.svg:
        refuse_overwriting("--svg", options.svg, options.model)
    model = _load(options.model, options)
    if options.svg:
        write_text(Path(options.svg), model.graph._repr_html_(), "--svg")
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
    if options.float16 and suffix != SUFFIX:
        raise UsageError(f"--float16 is for {SUFFIX} files, {suffix} files hold float32: leave it out")
    if not options.overwrite:
        refuse_overwriting("OUT", options.target, options.source)
    beside = Path(options.target).with_suffix(".weights")
    if suffix == ".cfg" and os.path.lexists(beside) and not options.overwrite:
        raise UsageError(f"{beside} exists and would be replaced: name another output, or give --overwrite")
    model = _load(options.source, options)
    _say_assumptions(model)
    try:
        save(model, options.target, dtype="float16" if options.float16 else "float32", overwrite=options.overwrite)
    except ModelError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise UsageError(f"{error} (--overwrite)") from error
        raise
    return OK


def profile(options: argparse.Namespace) -> int:
    """`graphsr profile MODEL --size HxW`"""
    model = _load(options.model, options)
    shapes = _profiled_shapes(model, options.size)
    run = model.compile(_backend(options), options.threads)
    try:
        run.bind(shapes)
    except ShapeError as error:
        raise UsageError(f"--size: {error}") from error
    generator = np.random.default_rng(0)
    inputs = {}
    for name, type_ in model.inputs.items():
        noise = generator.random(shapes[name], np.float32) * np.float32(model.input_range)
        inputs[name] = noise.astype(type_.dtype, copy=False)
    print(run.profile(inputs, options.repeats))
    return OK


def _profiled_shapes(model: Model, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs at this size; `UsageError` when the network does not take it."""

    def shapes(size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        return {name: profiled_shape(name, type_, size) for name, type_ in model.inputs.items()}

    try:
        check_size(model.graph, size, shapes)
    except ShapeError as error:
        raise UsageError(f"--size: {error}") from error
    return shapes(size)


def profiled_shape(name: str, type_: TensorType, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of an image input [N, C, H, W] at this size; `UsageError` when the network fixes another one."""
    if type_.rank != 4:
        raise UsageError(f"input {name} : {type_} is not an image: profile it from Python with run.profile(inputs)")
    wanted = (1, *(c if isinstance(c, int) else 1 for c in type_.shape[1:2]), *size)
    fixed = [(given, n) for given, n in zip(type_.shape, wanted, strict=True) if isinstance(given, int) and given != n]
    if fixed:
        raise UsageError(f"input {name} : {type_} cannot be {size[0]}x{size[1]}: its sizes are fixed, give those")
    return wanted


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
        removed, stayed = objects.clear()
        print(f"removed {removed} entries from {objects.directory()}")
        if stayed:
            files = "1 file stays" if stayed.total() == 1 else f"{stayed.total()} files stay"
            complain("cache", f"{files} in {objects.directory()}: {', '.join(stayed)}")
        return SOME_FAILED if stayed else OK
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
    """The model of that name at the scale that `-s` asks for; `UsageError` when it has no such scale or option."""
    given = _overrides(options)
    model = _load_with(name, given)
    if options.scale in (None, model.scale):
        return model
    if model.scale is None:
        raise UsageError(f"-s {options.scale}: {name} does not enlarge images: leave out -s")
    try:  # a file that holds several scales takes the option, the others refuse it
        return load(name, **given, scale=options.scale)
    except ModelError as error:
        raise UsageError(
            f"{name} enlarges by {model.scale}, not by {options.scale}: leave out -s, or name another model ({error})"
        ) from error


def _load_with(name: str, given: Mapping[str, Any]) -> Model:
    """The model with these options; `UsageError` when it is one of them that is refused, and not the model."""
    try:
        return load(name, **given)
    except ModelError as error:
        needed = {"weights"} if name.lower().endswith(".cfg") else set()
        asked = given.keys() - needed
        if not asked or not _loads(name, {key: given[key] for key in given.keys() & needed}):
            raise
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in given if key in asked)
        raise UsageError(f"{flags}: change or leave out what does not fit this model: {error}") from error


def _loads(name: str, given: Mapping[str, Any]) -> bool:
    try:
        load(name, **given)
    except ModelError:
        return False
    return True


def _default_model(scale: int | None) -> str:
    name = f"wdsr-x{scale or 2}"
    if name not in embedded():
        raise UsageError(f"no embedded model enlarges by {scale}: there are {', '.join(embedded())}; name one with -m")
    return name


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name, None) for name in OVERRIDES}
    return {name: value for name, value in given.items() if value is not None}


def _name_file(error: BaseException, path: str | Path) -> str:
    """The error's words, with the file named once."""
    text = reason_of(error)
    return text if str(path) in text else f"{path}: {text}"
