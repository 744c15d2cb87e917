"""The command line: `graphsr upscale | detect | info | convert | compare | profile | backends | cache`.

Exit codes: 0 all is well, 1 files could not be read, computed or written (the others are done), 2 wrong usage, 3 the
model was refused, 130 interrupted. This module only parses and prints; each command is one function in
`graphsr.commands`, imported when it is called, so that `graphsr --help` is quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from graphsr import __version__
from graphsr.errors import BackendError, GraphsrError, ModelError

OK, SOME_FAILED, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = getattr(import_module("graphsr.commands"), options.command)(options)
        return code
    except KeyboardInterrupt:
        print("graphsr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `graphsr info … | head`
        sys.stderr.close()
        return SOME_FAILED
    except GraphsrError as error:
        print(f"graphsr {options.command}: {error}", file=sys.stderr)
        return error_code(error)
    except (OSError, MemoryError) as error:
        print(f"graphsr {options.command}: {error or 'out of memory'}", file=sys.stderr)
        return SOME_FAILED


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
    """The words of the command line do not fit together."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphsr",
        description="Super-resolution networks on a CPU.",
        epilog="exit codes: 0 ok, 1 files failed, 2 wrong usage, 3 model refused, 130 interrupted",
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
    return parser


def _add_upscale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "upscale",
        help="enlarge images",
        description="Enlarge images (PNG, TIFF, JPEG, WebP, BMP; 8 and 16 bit; grey, RGB, with alpha). Bit depth, "
        "alpha, colour profile and format are kept. A failed image does not stop the others.",
    )
    p.add_argument("input", nargs="+", metavar="INPUT", help="image files, or folders of images")
    p.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file (for one image) or folder; default: NAME_x2.png beside NAME.png",
    )
    p.add_argument("-m", "--model", help="model file or embedded model (default: wdsr-x2, or wdsr-x4 with -s 4)")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor; must be one that the model has")
    p.add_argument("-j", "--threads", type=_positive, help="number of threads (default: all that are of use)")
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
    p.add_argument("input", nargs="+", metavar="IMAGE", help="image files, or folders of images")
    p.add_argument("--cfg", required=True, metavar="FILE", help="the network (.cfg, or another model with YOLO heads)")
    p.add_argument("--weights", metavar="FILE", help="its weights (default: the .weights file beside the .cfg)")
    p.add_argument("--names", metavar="FILE", help="names of the classes, one per line")
    p.add_argument("-o", "--output", metavar="OUT", help="picture with boxes: file (for one image) or folder")
    p.add_argument("--json", metavar="FILE", help="write the boxes as JSON")
    p.add_argument("--threshold", type=_share, default=0.25, help="least score of a box (default: 0.25)")
    p.add_argument("--overlap", type=_share, default=0.45, help="overlap at which the better box wins (default: 0.45)")
    p.add_argument("--letterbox", choices=("yes", "no"), help="keep proportions, with bars (default: as trained)")
    p.add_argument("--size", type=_size, metavar="HxW", help="size of the network's input (default: as trained)")
    p.add_argument(
        "--fork", choices=("alexeyab", "pjreddie"), help="whose darknet defines what the two take differently"
    )
    p.add_argument("-j", "--threads", type=_positive, help="number of threads (default: all that are of use)")
    p.add_argument("--backend", help="what runs the network (default: llvm; see 'graphsr backends')")


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "info",
        help="describe a model",
        description="Architecture, scale, what was read from the file and what was assumed, parameters, receptive "
        "field and multiply-accumulates per input pixel.",
    )
    p.add_argument("model", metavar="MODEL", help="model file or embedded model (wdsr-x2, wdsr-x4)")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    p.add_argument("--graph", action="store_true", help="print the graph as text, one line per node")
    p.add_argument("--svg", metavar="FILE", help="write a picture of the graph")
    _add_overrides(p)


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "convert",
        help="write a model in graphsr's own format, as ONNX, or for darknet",
        description="Read any supported model and write it as one safetensors file that holds the graph, the weights "
        "and where they came from: loading it gives the same bits. As .cfg it is written for darknet, with a .weights "
        "file beside it; as .onnx with plain operators of set 17.",
    )
    p.add_argument("source", metavar="IN", help="model file or embedded model")
    p.add_argument("target", metavar="OUT", help="file to write, NAME.safetensors, NAME.onnx or NAME.cfg")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    p.add_argument("--float16", action="store_true", help="store weights in half precision: half the size, rounded")
    p.add_argument("--overwrite", action="store_true", help="replace the .weights file beside a .cfg")
    _add_overrides(p)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    p = commands.add_parser(
        "compare",
        help="PSNR and SSIM of two images",
        description="PSNR and SSIM (scikit-image) between two images, or between equal names in two folders. The "
        "convention is printed with the figures, since figures of different conventions cannot be compared.",
    )
    p.add_argument("a", metavar="A", help="image or folder")
    p.add_argument("b", metavar="B", help="image or folder")
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
    p.add_argument("model", metavar="MODEL", help="model file or embedded model (wdsr-x2, wdsr-x4)")
    p.add_argument("--size", type=_size, required=True, metavar="HxW", help="size of the input image in pixels")
    p.add_argument("--repeats", type=_positive, default=5, help="runs, of which medians are taken (default: 5)")
    p.add_argument("-s", "--scale", type=_positive, help="scale factor, for a model file that holds several")
    p.add_argument("-j", "--threads", type=_positive, help="number of threads (default: all that are of use)")
    p.add_argument(
        "--accuracy", choices=("default", "high"), help="high: no transform that loses digits, at twice the time"
    )
    p.add_argument(
        "--memory",
        choices=("low", "default", "high"),
        help="transformed weights between runs: none, twice the weights at most (default), all",
    )
    _add_overrides(p)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what a checkpoint does not say (assumed values are shown by 'graphsr info')")
    group.add_argument("--res-scale", type=float, help="factor of the residual branches, e.g. 0.1 for EDSR 32x256")
    group.add_argument("--input-range", type=float, choices=(1.0, 255.0), help="value of white that the network takes")
    group.add_argument("--network-range", type=float, help="width of the range that the first layer computes on")
    group.add_argument("--mean", type=_mean, metavar="R,G,B", help="RGB mean in 0..1 that the network subtracts")
    group.add_argument("--shuffle", choices=("crd", "dcr"), help="pixel shuffle order: crd PyTorch, dcr TensorFlow")
    group.add_argument("--activation", help="activation of an ESPCN: tanh or relu")
    group.add_argument("--weights", metavar="FILE", help="weights of a darknet .cfg (default: those beside it)")
    group.add_argument("--fork", choices=("alexeyab", "pjreddie"), help="the darknet that a .cfg is written for")


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in 0..1, got {text!r}")
    return value


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not x or not height.isdecimal() or not width.isdecimal() or int(height) < 1 or int(width) < 1:
        raise argparse.ArgumentTypeError(f"expected height and width such as 416x416, got {text!r}")
    return int(height), int(width)


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
