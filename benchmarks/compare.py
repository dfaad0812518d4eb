"""Prints how this library compares with LangGraph and with the limits, as ratios.

    python -m benchmarks.compare [--quick] [--turns 50 200 1000] [--json FILE] [--plot FILE.png]

Owns the command line, the table, the JSON and the plot; ``measure`` takes the figures. Nothing
printed or written names a path of the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import measure, peers
from benchmarks.measure import Bench, Figure, Figures

TURNS: Final = (50, 200, 1_000)
ROUNDS: Final = 3
LONG_TURNS: Final = 500
"""From this many turns on a conversation is measured once: LangGraph takes minutes for it."""

FSYNCS: Final = 100
WIDTH: Final = 140
"""Columns of the table when it goes to a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 when every aim that was measured is met."""
    options = _options(arguments)
    bench_figures = Figures()
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
        fsync_ms = fsync_cost(Path(folder))
        _measure(options, bench_figures, Path(folder))
    figures = list(bench_figures)
    facts = {**environment(), "one_fsync_ms": round(fsync_ms, 4), "rounds": options.rounds}
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table(figures))
    console.print(*(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()), sep=" · ")
    missed = [figure for figure in figures if figure.met() is False]
    met = sum(figure.met() is True for figure in figures)
    console.print(f"{met} aims met, {len(missed)} missed")
    if options.json:
        options.json.write_text(json.dumps(as_data(figures, facts), indent=2) + "\n")
    if options.plot:
        plot(figures, options.plot)
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare this library with LangGraph + SqliteSaver and with the limits.",
        epilog="Exit status 1 says that an aim was missed.",
    )
    parser.add_argument("--quick", action="store_true", help="one round, up to 200 turns")
    parser.add_argument("--turns", type=int, nargs="+", help="lengths of the conversations")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS}, long chats 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw cost over turns")
    parser.add_argument("--dir", type=Path, help="put the databases here (a real disk, not tmpfs)")
    options = parser.parse_args(arguments)
    options.turns = options.turns or [n for n in TURNS if n < LONG_TURNS or not options.quick]
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    if min(options.turns) < 2 or options.rounds < 1:
        parser.error("at least 2 turns and 1 round, please")
    return options


def _measure(options: argparse.Namespace, figures: Figures, folder: Path) -> None:
    us, them = peers.ours(), peers.langgraph()
    # One peer's collections must not walk through the other's modules.
    gc.collect()
    gc.freeze()
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    jobs: list[tuple[str, Callable[[Bench], None], int]] = [
        *(
            (
                f"chat of {turns:,}",
                lambda bench, turns=turns: measure.chat(bench, turns),
                1 if turns >= LONG_TURNS else options.rounds,
            )
            for turns in sorted(options.turns)
        ),
        ("pipeline", measure.pipeline, options.rounds),
        ("document", measure.document, options.rounds),
        ("fan-out", measure.fanout, options.rounds),
        ("log alone", measure.appends, options.rounds),
    ]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = sum(rounds for _, _, rounds in jobs)
        task = progress.add_task("starting", total=total)
        for number in range(max(rounds for _, _, rounds in jobs)):
            for _name, job, rounds in jobs:
                if number >= rounds:
                    continue
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    job(
                        Bench(
                            us,
                            them,
                            figures,
                            Path(place),
                            lambda text: progress.update(task, description=text),
                        )
                    )
                progress.advance(task)


# --- what is reported -----------------------------------------------------------------------


def environment() -> dict[str, str]:
    """What the figures depend on, without a name or a path of the machine."""
    return {
        "python": platform.python_version(),
        "langgraph": version("langgraph"),
        "langgraph_checkpoint_sqlite": version("langgraph-checkpoint-sqlite"),
        "sqlite_here": peers.sqlite_driver().sqlite_version,
        "sqlite_there": sqlite3.sqlite_version,
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def fsync_cost(folder: Path) -> float:
    """Milliseconds of one fsync of 4 KiB: what durability itself costs here."""
    times = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(FSYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1e3)
    return median(times)


def table(figures: Sequence[Figure]) -> Table:
    """Ratios, with the aims beside them."""
    result = Table(title="This library beside LangGraph + SqliteSaver, and beside the limits")
    result.add_column("workload and measure")
    result.add_column("against")
    for heading in ("ours", "theirs", "ratio", "spread", "aim"):
        result.add_column(heading, justify="right")
    result.add_column("met")
    last = ""
    for figure in figures:
        if figure.workload != last:
            result.add_section()
            result.add_row(f"[bold]{figure.workload}[/bold]")
            last = figure.workload
        result.add_row(
            f"  {figure.measure}",
            figure.against,
            _amount(figure.ours, figure.unit),
            _amount(figure.other, figure.unit) if figure.other else "–",
            _ratio(figure),
            _spread(figure),
            _aim(figure),
            {True: "[green]yes[/green]", False: "[red]no[/red]", None: ""}[figure.met()],
        )
    return result


def _amount(values: Sequence[float], unit: str) -> str:
    value = median(values)
    if unit == "us/event":
        return f"{1e6 / value:,.0f} events/s"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _shown(figure: Figure) -> tuple[list[float], str]:
    """The ratios as people say them, and what to say after the number."""
    ratios, ratio = figure.ratios(), figure.ratio()
    if ratio is None:
        return [], ""
    if figure.unit == "us/event":
        return [1 / each for each in ratios], "× the speed"
    if not figure.less:
        return ratios, "× as much"
    if ratio < 1:
        return [1 / each for each in ratios], "× more"
    return ratios, "× less"


def _ratio(figure: Figure) -> str:
    ratios, unit = _shown(figure)
    return f"{_digits(median(ratios))}{unit}" if ratios else ""


def _spread(figure: Figure) -> str:
    ratios, _ = _shown(figure)
    return f"{_digits(min(ratios))}–{_digits(max(ratios))}" if len(ratios) > 1 else ""


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    if figure.unit == "us/event":  # shown as a speed: as slow at most is as fast at least
        return f"≥ {1 / figure.aim:,g}×"
    return f"{'≥' if figure.less else '≤'} {figure.aim:,g}×"


def as_data(figures: Sequence[Figure], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, as plain data."""
    return {
        "environment": facts,
        "figures": [
            {
                "workload": figure.workload,
                "measure": figure.measure,
                "unit": figure.unit,
                "against": figure.against,
                "ours": figure.ours,
                "other": figure.other,
                "ratios": figure.ratios(),
                "ratio_is": "other / ours" if figure.less else "ours / other",
                "aim": figure.aim,
                "met": figure.met(),
                "note": figure.note,
            }
            for figure in figures
        ],
    }


def plot(figures: Sequence[Figure], path: Path) -> None:
    """Bytes and time per turn over the length of the conversation, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), constrained_layout=True)
    for axis, wanted, label in (
        (axes[0], "bytes on disk per turn", "KiB per turn"),
        (axes[1], "wall time per turn", "ms per turn"),
    ):
        rows = [f for f in figures if f.measure == wanted and f.against == "LangGraph"]
        turns = [_turns(figure) for figure in rows]
        for name, values, marker in (
            ("this library", [median(f.ours) for f in rows], "o"),
            ("LangGraph + SqliteSaver", [median(f.other) for f in rows], "s"),
        ):
            axis.plot(turns, values, marker=marker, label=name)
        axis.set(xscale="log", yscale="log", xlabel="turns in the conversation", ylabel=label)
        axis.set_xticks(turns, [f"{count:,}" for count in turns], minor=False)
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
        axis.legend()
    canvas.suptitle("A conversation, every superstep durable")
    pyplot.close(canvas)
    canvas.savefig(path, dpi=120)


def _turns(figure: Figure) -> int:
    return int("".join(character for character in figure.workload if character.isdigit()))


if __name__ == "__main__":
    sys.exit(main())
