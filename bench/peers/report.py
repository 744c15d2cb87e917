"""What was measured, and how it is shown: a table, Markdown, JSON, a plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

HEADER = (
    *("engine", "threads", "median ms", "GFLOP/s", "% of peak", "x peer", "cores"),
    *("load s, again", "RSS MB", "error / σ"),
)

COLOURS = {
    "llvm": "#c1272d",
    "llvm-memory-low": "#8c1c21",
    "llvm-memory-high": "#e0565b",
    "llvm-accuracy-high": "#f2b134",
    "numpy": "#ea9999",
    "onnxruntime": "#31588a",
    "openvino": "#7aa6c2",
    "ncnn": "#3f7d4e",
    "mnn": "#a3cf9f",
    "torch": "#8c8c8c",
}
"""Reds for graphsr."""


@dataclass(frozen=True)
class Round:
    """The machine in one round, in FLOP/s and bytes/s."""

    flops: float
    bandwidth: float


@dataclass
class Result:
    """One engine on one network and number of threads. Times in seconds, sizes in bytes."""

    network: str
    shape: tuple[int, ...]
    flops: int
    moved: int
    engine: str
    version: str
    threads: int
    variant: str = ""
    """The setting that was faster in a trial, of an engine that has several."""
    failure: str = ""
    error: float | None = None
    """Maximum error against float64, over the standard deviation of the output."""
    imports: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """The median of each round."""
    cores: list[float] = field(default_factory=list)
    """How many processors were at work in each round."""
    rounds: list[Round] = field(default_factory=list)
    rss: int = 0

    @property
    def time(self) -> float:
        return median(self.seconds)

    @property
    def rate(self) -> float:
        """Effective FLOP/s; bytes/s for a layer without arithmetic."""
        return (self.flops or self.moved) / self.time

    @property
    def share(self) -> float:
        """Of the peak in the same round, or of the copy bandwidth: the median over the rounds."""
        pairs = zip(self.seconds, self.rounds, strict=True)
        if self.flops:
            return median(self.flops / seconds / machine.flops for seconds, machine in pairs)
        return median(self.moved / seconds / machine.bandwidth for seconds, machine in pairs)


def fastest_peer(results: Iterable[Result], own: Collection[str]) -> Result | None:
    return min((r for r in results if not r.failure and r.engine not in own), key=lambda r: r.time, default=None)


def rows(results: list[Result], own: Collection[str]) -> list[tuple[str, ...]]:
    """The cells of one network and number of threads, the fastest engine first, then those that failed."""
    best = fastest_peer(results, own)
    ran = sorted((r for r in results if not r.failure), key=lambda r: r.time)
    cells = [
        (
            f"{r.engine} {r.variant}".strip(),
            str(r.threads),
            f"{r.time * 1e3:.2f}",
            f"{r.rate / 1e9:.0f}" + ("" if r.flops else " GB/s"),
            f"{r.share:.0%}" + ("" if r.flops else " of copy"),
            f"{best.time / r.time:.2f}" if best else "",
            f"{median(r.cores):.1f}",
            f"{r.loads[0]:.2f} {median(r.loads[1:] or r.loads):.2f}",
            f"{r.rss / 1e6:.0f}",
            f"{r.error:.1e}",
        )
        for r in ran
    ]
    return cells + [(r.engine, str(r.threads), f"failed: {r.failure}") for r in results if r.failure]


def title(results: list[Result]) -> str:
    """Network, input and what the machine could do meanwhile."""
    first = results[0]
    size = "x".join(map(str, first.shape))
    peak = median(machine.flops for machine in first.rounds) / 1e9
    bandwidth = median(machine.bandwidth for machine in first.rounds) / 1e9
    done = f"{first.flops / 1e9:.1f} GFLOP" if first.flops else f"{first.moved / 1e9:.2f} GB"
    return (
        f"{first.network} ({size}, {done}), {first.threads} thread{'s' * (first.threads > 1)}: "
        f"peak {peak:.0f} GFLOP/s, copy {bandwidth:.0f} GB/s"
    )


def table(results: list[Result], own: Collection[str]) -> str:
    """One network and number of threads, as text."""
    cells = [HEADER, *rows(results, own)]
    widths = [max(len(row[i]) for row in cells if len(row) == len(HEADER)) for i in range(len(HEADER))]
    lines = []
    for row in cells:
        padded = [row[0].ljust(max(widths[0], 12)), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=False))]
        lines.append("  ".join(padded))
    return "\n".join([title(results), *lines])


def groups(results: Iterable[Result]) -> list[list[Result]]:
    """The results by network and number of threads, in order."""
    found: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        found.setdefault((result.network, result.threads), []).append(result)
    return list(found.values())


def markdown(results: list[Result], own: Collection[str]) -> str:
    """All networks in one table for a README."""
    lines = ["| network | " + " | ".join(HEADER) + " |", "|---" * (len(HEADER) + 1) + "|"]
    for group in groups(results):
        for row in rows(group, own):
            cells = [group[0].network, *row, *[""] * (len(HEADER) - len(row))]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def host() -> dict[str, Any]:
    """The machine and the date."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def save(path: Path, about: dict[str, Any], results: list[Result]) -> None:
    path.write_text(json.dumps({"about": about, "results": [asdict(r) for r in results]}, indent=1), encoding="utf-8")


def plot(results: list[Result], own: Collection[str], path: Path) -> None:
    """Bars of speed, the fastest peer being 1: a panel for each number of threads, a group of bars for each network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads = sorted({r.threads for r in results})
    networks = list(dict.fromkeys(r.network for r in results))
    engines = list(dict.fromkeys(r.engine for r in results))
    size = (1.5 + 5 * len(threads), 1.2 + 0.9 * len(networks))
    figure, panels = pyplot.subplots(1, len(threads), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, count in zip(panels[0], threads, strict=True):
        shown = groups(r for r in results if r.threads == count)
        for position, engine in enumerate(engines):
            bars = panel.barh(*_bars(shown, own, networks, engine, position / len(engines)), 0.8 / len(engines))
            bars.set_label(engine)
            for bar in bars:
                bar.set_color(COLOURS[engine])
            if engine in own:
                panel.bar_label(bars, fmt="%.1f", padding=2, fontsize="small")
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xlabel("speed, the fastest peer = 1")
        panel.set_title(f"{count} thread{'s' * (count > 1)}")
        panel.margins(x=0.1)  # for the labels
        panel.set_ylim(len(networks) - 0.5, -0.5)
        panel.set_yticks(range(len(networks)), networks)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=min(len(engines), 4))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(
    shown: list[list[Result]], own: Collection[str], networks: list[str], engine: str, place: float
) -> tuple[list[float], list[float]]:
    """(heights, speeds) of the bars of one engine, which stand at `place` (0 to 1) within their groups."""
    heights, speeds = [], []
    for group in shown:
        best = fastest_peer(group, own)
        for r in group:
            if r.engine == engine and not r.failure and best:
                heights.append(networks.index(r.network) + 0.8 * (place - 0.5) + 0.05)
                speeds.append(best.time / r.time)
    return heights, speeds
