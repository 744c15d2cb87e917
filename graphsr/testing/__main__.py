"""Hold a backend to the reference: `python -m graphsr.testing BACKEND`.

Each check gets a line with its result and time; one that fails shows the smallest graph that does.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import fill
from traceback import StackSummary, TracebackException

from graphsr.backend import GROUP, Backend, backends, get_backend
from graphsr.cli import INTERRUPTED, OK, USAGE, reason_of
from graphsr.errors import BackendError, GraphsrError
from graphsr.testing.check import CHECKS, CHECKS_OF_LAYERS, Check, Suite, prepare

PROGRAM = "python -m graphsr.testing"
A_CHECK_FAILED = 1
EXIT_CODES = "exit codes: 0 ok, 1 a check failed, 2 wrong usage (names, options, a backend that cannot be loaded)"
WIDTH = max(len(check.__name__) for check in CHECKS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        suite, chosen = prepare(
            load_backend(options.backend),
            examples=options.examples,
            seed=options.seed,
            checks=options.checks,
            layers=options.layers,
        )
        return A_CHECK_FAILED if sum([not passes(suite, check) for check in chosen]) else OK
    except GraphsrError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:  # standard output is full, or nobody reads it any more
        if not isinstance(error, BrokenPipeError):
            print(f"{PROGRAM}: {reason_of(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try again at its end
        return A_CHECK_FAILED


def build_parser() -> argparse.ArgumentParser:
    described = "\n".join(map(_described, CHECKS))
    usual = ", ".join(check.__name__ for check in CHECKS_OF_LAYERS)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Hold a backend to the reference: layers, random graphs and small networks are drawn, run, and\n"
        "compared with what the ops mean.",
        epilog=f"checks:\n{described}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "backend",
        metavar="BACKEND",
        help=f"an installed backend ({', '.join(sorted(backends()))}), or module:Class for one that is not",
    )
    parser.add_argument("--checks", nargs="+", metavar="NAME", help=f"only these (default: all; with --layers {usual})")
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="ops that are checked alone (default: all)")
    parser.add_argument("--examples", type=int, default=25, metavar="N", help="cases of each kind (default: 25)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="what they are drawn from (default: 0)")
    return parser


def _described(check: Check) -> str:
    """Name and first sentence of a check, in columns."""
    sentence = " ".join((check.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    return fill(f"{check.__name__:{WIDTH}}  {sentence}", 100, initial_indent="  ", subsequent_indent=" " * (WIDTH + 4))


def load_backend(name: str) -> Backend:
    """An installed backend by its name, or `module:Class` as entry points say it. Raises `BackendError`."""
    if ":" not in name:
        return get_backend(name)
    if not re.fullmatch(r"[\w.]+:[\w.]+", name):
        raise BackendError(f"{name!r} is neither the name of a backend nor of the form module:Class")
    try:
        found = EntryPoint(name, name, GROUP).load()
        made = found if isinstance(found, Backend) else found()
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise BackendError(f"backend {name!r} cannot be loaded as module:Class: {reason}") from error
    if not isinstance(made, Backend):
        raise BackendError(f"{name!r} does not give a graphsr Backend, but {type(made).__name__}")
    return made


def passes(suite: Suite, check: Check) -> bool:
    """Run one check and print its line, with what is wrong below it."""
    start = time.perf_counter()
    try:
        check(suite)
        failure = ""
    except Exception as error:  # the backend may raise anything
        failure = failure_text(error)
    seconds = time.perf_counter() - start
    print(f"{check.__name__:{WIDTH}}  {'FAILED' if failure else 'ok':6}  {seconds:6.1f} s", flush=True)
    if failure:
        print(failure, flush=True)
    return not failure


def failure_text(error: Exception) -> str:
    """What a check says; for what the backend itself raised, where, and for which graph."""
    told = TracebackException.from_exception(error)
    raised_in = Path(told.stack[-1].filename)
    if isinstance(error, AssertionError) and raised_in.parent == Path(__file__).parent:
        return str(error)
    told.stack = StackSummary.from_list(
        [frame for frame in told.stack if "hypothesis" not in Path(frame.filename).parts]
    )
    return "".join(told.format()).rstrip()


if __name__ == "__main__":
    sys.exit(main())
