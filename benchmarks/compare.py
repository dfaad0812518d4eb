"""Prints how this library compares with LangGraph and with the limits, as ratios.

    python -m benchmarks.compare [--backend postgres] [--quick] [--turns 50 200 1000] …

Owns the command line and the order of the work; ``measuring`` takes the figures, ``reporting``
shows them. Nothing printed or written names a path of the machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.backends.backend import Backend
from benchmarks.backends.postgres import TOASTS, postgres_backends
from benchmarks.backends.routes import add_route, check_route
from benchmarks.backends.sqlite import SqliteBackend
from benchmarks.measuring.bench import Bench
from benchmarks.measuring.conversation import chat
from benchmarks.measuring.log import appends
from benchmarks.measuring.runs import document, fanout, pipeline
from benchmarks.reporting.data import as_data
from benchmarks.reporting.figures import Figures
from benchmarks.reporting.page import put_into
from benchmarks.reporting.plot import plot
from benchmarks.reporting.table import table

TURNS: Final = (50, 200, 1_000)
ROUNDS: Final = 3
LONG_TURNS: Final = 500
"""Conversations of at least this many turns run once: LangGraph takes minutes for each."""

OTHERS: Final[dict[str, Callable[[Bench], None]]] = {
    "pipeline": pipeline,
    "document": document,
    "fan-out": fanout,
    "log": appends,
}
FSYNCS: Final = 100
WIDTH: Final = 150
"""Columns of the table when it goes to a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0 when every measured aim is met, else 1."""
    options = _options(arguments)
    figures = Figures(options.backend)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
        fsync_ms = fsync_cost(Path(folder))
        with _backends(options, Path(folder)) as chosen:
            title = chosen[0].title
            facts = environment(chosen[0])
            facts |= {"one_fsync_ms": str(round(fsync_ms, 4)), "rounds": str(options.rounds)}
            for _ in _measure(options, chosen, figures):
                if options.json:  # after each job, because a long run may be interrupted
                    text = json.dumps(as_data(list(figures), facts), indent=2)
                    options.json.write_text(text + "\n")
    taken = list(figures)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table(taken, title))
    console.print(*(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()), sep=" · ")
    missed = [figure for figure in taken if figure.met() is False]
    met = sum(figure.met() is True for figure in taken)
    console.print(f"{met} aims met, {len(missed)} missed")
    if options.page:
        put_into(options.page, options.backend, taken, facts)
    if options.plot:
        plot(taken, options.plot, title)
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare this library with LangGraph and its savers, and with the limits.",
        epilog="The exit status is 1 when an aim is missed.",
    )
    parser.add_argument(
        "--backend", choices=("sqlite", "postgres"), default="sqlite", help="(default sqlite)"
    )
    parser.add_argument(
        "--toast",
        choices=TOASTS,
        nargs="+",
        help="how PostgreSQL compresses large values (default: every way that the server supports)",
    )
    add_route(parser)
    parser.add_argument("--quick", action="store_true", help="one round, up to 200 turns")
    parser.add_argument(
        "--only", choices=("chat", *OTHERS), nargs="+", help="run these workloads only"
    )
    parser.add_argument("--turns", type=int, nargs="+", help="lengths of the conversations")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS}, long chats 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="put the table into this page")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="plot the cost per turn")
    parser.add_argument(
        "--dir", type=Path, help="folder of the SQLite files (on a disk, not tmpfs)"
    )
    options = parser.parse_args(arguments)
    options.turns = options.turns or [n for n in TURNS if n < LONG_TURNS or not options.quick]
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.only = options.only or ["chat", *OTHERS]
    if min(options.turns) < 2 or options.rounds < 1:
        parser.error("--turns must be at least 2, and --rounds at least 1")
    if options.toast and options.backend != "postgres":
        parser.error("--toast needs --backend postgres")
    check_route(parser, options)
    return options


@contextmanager
def _backends(options: argparse.Namespace, folder: Path) -> Iterator[Sequence[Backend]]:
    if options.backend == "sqlite":
        yield [SqliteBackend(folder)]
        return
    way = {"pgbouncer": options.pgbouncer, "network_ms": options.network_ms}
    with postgres_backends(options.toast, **way) as chosen:
        yield chosen


def _measure(
    options: argparse.Namespace, chosen: Sequence[Backend], figures: Figures
) -> Iterator[None]:
    """Run all jobs; yields after each one."""
    # Garbage collection for one peer must not walk through the other's modules.
    gc.collect()
    gc.freeze()
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    jobs: list[tuple[Callable[[Bench], None], int]] = []
    if "chat" in options.only:
        for turns in sorted(options.turns):
            rounds = 1 if turns >= LONG_TURNS else options.rounds
            jobs.append((lambda bench, turns=turns: chat(bench, turns), rounds))  # type: ignore[misc]
    jobs.extend((OTHERS[name], options.rounds) for name in OTHERS if name in options.only)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=sum(n for _, n in jobs) * len(chosen))

        def show(text: str) -> None:
            progress.update(task, description=text)

        for number in range(max(rounds for _, rounds in jobs)):
            for job, rounds in jobs:
                if number >= rounds:
                    continue
                for backend in chosen:
                    with backend.workspace() as workspace:
                        job(Bench(backend, workspace, figures, show))
                    progress.advance(task)
                    yield


def environment(backend: Backend) -> dict[str, Any]:
    """Versions and settings that figures depend on; no names or paths of the machine."""
    return {
        "python": platform.python_version(),
        "langgraph": version("langgraph"),
        **backend.facts(),
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def fsync_cost(folder: Path) -> float:
    """The milliseconds of one fsync of 4 KiB: what durability itself costs here."""
    times = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(FSYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1e3)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
