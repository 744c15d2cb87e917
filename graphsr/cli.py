"""The command line: `graphsr upscale | detect | info | convert | compare | profile | backends | cache`.

Exit codes: 0 all is well, 1 files could not be read, computed or written (the others are done), 2 wrong usage (words,
options or sizes that do not fit), 3 the model was refused (damaged, unknown, or unsuitable), 130 interrupted. This
module only parses and prints; each command is one function in `graphsr.commands`, imported when it is called, so that
`graphsr --help` is quick.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from graphsr import __version__
from graphsr.errors import BackendError, GraphsrError, ModelError

OK, SOME_FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = "exit codes: 0 ok, 1 files failed, 2 wrong usage, 3 model refused, 130 interrupted"
SILENT = ("upscale", "convert")
"""The commands that print nothing on standard output."""
MOST_REPEATS = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _prepare_streams()
    options = build_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    """The exit code of a command; errors are told on standard error."""
    try:
        if sys.stdout is None and options.command not in SILENT:
            raise OutputError("standard output is closed: send it to a file, or to /dev/null")
        code: int = getattr(import_module("graphsr.commands"), options.command)(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is an error here
        return code
    except KeyboardInterrupt:
        print("graphsr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `graphsr info … | head`
        return SOME_FAILED
    except GraphsrError as error:
        complain(options.command, str(error))
        return error_code(error)
    except (OSError, MemoryError, Warning) as error:  # under `python -W error` warnings are raised
        complain(options.command, reason_of(error))
        return SOME_FAILED
    finally:
        _end_output()


def complain(command: str, text: str) -> None:
    """Say on standard error what is wrong."""
    print(f"graphsr {command}: {text}", file=sys.stderr)


def reason_of(error: BaseException) -> str:
    """The words of an error, without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    return str(error) or type(error).__name__


def _end_output() -> None:
    """Let go of what cannot be written: Python would try it again at its end, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Let every character out, whatever the encoding, and have an error stream, even if it leads nowhere."""
    codecs.register_error("graphsr", _any_character)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="graphsr")  # standard error never fails for a character
    if sys.stderr is None:  # print() would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives


def _any_character(error: UnicodeError) -> tuple[str | bytes, int]:
    """The bytes of a file name that is no text come out as they came in; other characters are spelled in ASCII."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """For users, who have nothing of the line in the source."""
    print(f"graphsr: warning: {message}", file=sys.stderr)


def error_code(error: GraphsrError) -> int:
    """The exit code for an error that ends the whole command."""
    if isinstance(error, BackendError | UsageError):
        return USAGE
    return REFUSED if isinstance(error, ModelError) and not _is_of_the_system(error) else SOME_FAILED


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether a file or a folder is the reason, not what is in it."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__
    return False


class UsageError(GraphsrError):
    """The words of the command line do not fit together, or do not fit the model."""


class OutputError(GraphsrError):
    """A file, or standard output, cannot be written."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphsr",
        description="Super-resolution networks on a CPU.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"graphsr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_upscale(commands)
    _add_detect(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_compare(commands)
    _add_profile(commands)
    commands.add_parser("backends", help="list the installed backends")
    _add_cache(commands)
    for each in commands.choices.values():
        each.epilog = EXIT_CODES
    return parser


def _add_upscale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "upscale",
        help="enlarge images",
        description="Enlarge images (PNG, TIFF, JPEG, WebP, BMP; 8 and 16 bit; grey, RGB, with alpha). Bit depth, "
        "alpha, colour profile and format are kept. A failed image does not stop the others.",
    )
    p.add_argument("input", nargs="+", type=_name, metavar="INPUT", help="image files, or folders of images")
    p.add_argument(
        "-o",
        "--output",
        type=_name,
        metavar="OUT",
        help="file (for one image) or folder; default: NAME_x2.png beside NAME.png",
    )
    p.add_argument(
        "-m", "--model", type=_name, help="model file or embedded model (default: wdsr-x2, or wdsr-x4 with -s 4)"
    )
    p.add_argument("-s", "--scale", type=_positive, help="scale factor; must be one that the model has")
    _add_running(p)
    p.add_argument("--backend", help="what runs the network (default: llvm; see 'graphsr backends')")
    p.add_argument(
        "--exists",
        choices=("overwrite", "skip", "error"),
        default="overwrite",
        help="what to do when an output file is already there (default: overwrite; an input is never overwritten)",
    )
    _add_overrides(p)


def _add_detect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "detect",
        help="find objects in images with a darknet detector",
        description="Find objects in images with a YOLO network of either darknet fork: a line per object, and on "
        "request the picture with boxes and a JSON file.",
    )
    p.add_argument("input", nargs="+", type=_name, metavar="IMAGE", help="image files, or folders of images")
    p.add_argument(
        "--cfg", required=True, type=_name, metavar="FILE", help="the network (.cfg, or another model with YOLO heads)"
    )
    p.add_argument(
        "--weights", type=_name, metavar="FILE", help="its weights (default: the .weights file beside the .cfg)"
    )
    p.add_argument("--names", type=_name, metavar="FILE", help="names of all its classes, one per line")
    p.add_argument(
        "-o", "--output", type=_name, metavar="OUT", help="picture with boxes: file (for one image) or folder"
    )
    p.add_argument("--json", type=_name, metavar="FILE", help="write the boxes as JSON")
    p.add_argument("--threshold", type=_share, default=0.25, help="least score of a box (default: 0.25)")
    p.add_argument("--overlap", type=_share, default=0.45, help="overlap at which the better box wins (default: 0.45)")
    p.add_argument("--letterbox", choices=("yes", "no"), help="keep proportions, with bars (default: as trained)")
    p.add_argument("--size", type=_size, metavar="HxW", help="size of the network's input (default: as trained)")
    p.add_argument(
        "--fork", choices=("alexeyab", "pjreddie"), help="whose darknet defines what the two take differently"
    )
    _add_running(p)
    p.add_argument("--backend", help="what runs the network (default: llvm; see 'graphsr backends')")


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "info",
        help="describe a model",
        description="Architecture, scale, what was read from the file and what was assumed, parameters, receptive "
        "field and multiply-accumulates per input pixel.",
    )
    p.add_argument("model", type=_name, metavar="MODEL", help="model file or embedded model (wdsr-x2, wdsr-x4)")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    p.add_argument("--graph", action="store_true", help="print the graph as text, one line per node")
    p.add_argument("--svg", type=_name, metavar="FILE", help="write a picture of the graph")
    _add_overrides(p)


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "convert",
        help="write a model in graphsr's own format, as ONNX, or for darknet",
        description="Read any supported model and write it as one safetensors file that holds the graph, the weights "
        "and where they came from: loading it gives the same bits. As .cfg it is written for darknet, with a .weights "
        "file beside it; as .onnx with plain operators of set 17.",
    )
    p.add_argument("source", type=_name, metavar="IN", help="model file or embedded model")
    p.add_argument("target", type=_name, metavar="OUT", help="file to write, NAME.safetensors, NAME.onnx or NAME.cfg")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    p.add_argument("--float16", action="store_true", help="store weights in half precision: half the size, rounded")
    p.add_argument(
        "--overwrite", action="store_true", help="replace the .weights and .tree files beside a .cfg, and IN itself"
    )
    _add_overrides(p)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "compare",
        help="PSNR and SSIM of two images",
        description="PSNR and SSIM (scikit-image) between two images, or between equal names in two folders. The "
        "convention is printed with the figures, since figures of different conventions cannot be compared.",
    )
    p.add_argument("a", type=_name, metavar="A", help="image or folder")
    p.add_argument("b", type=_name, metavar="B", help="image or folder")
    p.add_argument(
        "--convention",
        choices=("paper", "plain"),
        default="plain",
        help="plain: all channels, whole image; paper: luma of BT.601 with a border cut off, Gaussian SSIM window "
        "(default: plain)",
    )
    p.add_argument("--border", type=_natural, help="pixels to cut on each side (paper: the scale factor)")


def _add_cache(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "cache",
        help="show or clear the cache of compiled code",
        description="Where the llvm backend keeps compiled code, how many entries there are, and their bytes. "
        "GRAPHSR_CACHE_DIR chooses another folder, GRAPHSR_CACHE=0 switches the cache off.",
    )
    p.add_argument("--clear", action="store_true", help="remove all entries")


def _add_profile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "profile",
        help="say where the time of a network goes",
        description="Run a network on random input and print for every node: kernel, milliseconds, effective GFLOP/s "
        "and bytes per second, and their share of the peak of multiply-adds and of the speed of copying, which are "
        "measured in the same run.",
    )
    p.add_argument("model", type=_name, metavar="MODEL", help="model file or embedded model (wdsr-x2, wdsr-x4)")
    p.add_argument("--size", type=_size, required=True, metavar="HxW", help="size of the input image in pixels")
    p.add_argument(
        "--repeats",
        type=_repeats,
        default=5,
        help=f"runs, of which medians are taken (default: 5, most: {MOST_REPEATS})",
    )
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    _add_running(p)
    _add_overrides(p)


def _add_running(p: argparse.ArgumentParser) -> None:
    """How the network is run."""
    p.add_argument("-j", "--threads", type=_positive, help="number of threads (default: all that are of use)")
    p.add_argument(
        "--accuracy", choices=("default", "high"), help="high: no transform that loses digits, at twice the time"
    )
    p.add_argument(
        "--memory",
        choices=("low", "default", "high"),
        help="transformed weights between runs: none, twice the weights at most (default), all",
    )


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what a checkpoint does not say (assumed values are shown by 'graphsr info')")
    group.add_argument("--res-scale", type=float, help="factor of the residual branches, e.g. 0.1 for EDSR 32x256")
    group.add_argument("--input-range", type=float, choices=(1.0, 255.0), help="value of white that the network takes")
    group.add_argument("--network-range", type=float, help="width of the range that the first layer computes on")
    group.add_argument("--mean", type=_mean, metavar="R,G,B", help="RGB mean in 0..1 that the network subtracts")
    group.add_argument("--shuffle", choices=("crd", "dcr"), help="pixel shuffle order: crd PyTorch, dcr TensorFlow")
    group.add_argument("--activation", help="activation of an ESPCN: tanh or relu")
    group.add_argument(
        "--weights", type=_name, metavar="FILE", help="weights of a darknet .cfg (default: those beside it)"
    )
    group.add_argument("--fork", choices=("alexeyab", "pjreddie"), help="the darknet that a .cfg is written for")


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file or folder, got an empty one")
    return text


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _repeats(text: str) -> int:
    return _whole(text, 1, MOST_REPEATS)


def _whole(text: str, least: int, most: int | None = None) -> int:
    value = _count(text)
    if value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number {bounds}, got {text!r}")
    return value


def _count(text: str) -> int:
    """The number that plain digits spell, else -1; no count has more digits than 18."""
    return int(text) if text.isdecimal() and len(text) <= 18 else -1


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in 0..1, got {text!r}")
    return value


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if _count(height) < 1 or _count(width) < 1:
        raise argparse.ArgumentTypeError(f"expected height and width such as 416x416, got {text!r}")
    return _count(height), _count(width)


def _mean(text: str) -> tuple[float, ...]:
    try:
        mean = tuple(float(part) for part in text.split(","))
    except ValueError:
        mean = ()
    if len(mean) != 3:
        raise argparse.ArgumentTypeError(f"expected three numbers such as 0.4488,0.4371,0.4040, got {text!r}")
    return mean


if __name__ == "__main__":
    sys.exit(main())
