"""Prints how this library compares with LangGraph and with the limits, as ratios.

    python -m benchmarks.compare [--backend postgres] [--quick] [--turns 50 200 1000] …

Owns the command line and the order of the work; ``measure`` and ``chat`` take the figures,
``report`` shows them. Nothing printed or written names a path of the machine.
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

from benchmarks import backends, measure, report
from benchmarks.backends import Backend
from benchmarks.chat import chat
from benchmarks.figures import Figures
from benchmarks.measure import Bench

TURNS: Final = (50, 200, 1_000)
ROUNDS: Final = 3
LONG_TURNS: Final = 500
"""From this many turns on a conversation is measured once: LangGraph takes minutes for it."""

OTHERS: Final[dict[str, Callable[[Bench], None]]] = {
    "pipeline": measure.pipeline,
    "document": measure.document,
    "fan-out": measure.fanout,
    "log": measure.appends,
}
FSYNCS: Final = 100
WIDTH: Final = 150
"""Columns of the table when it goes to a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 when every aim that was measured is met."""
    options = _options(arguments)
    figures = Figures(options.backend)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
        fsync_ms = fsync_cost(Path(folder))
        with _backends(options, Path(folder)) as chosen:
            title = chosen[0].title
            facts = environment(chosen[0])
            facts |= {"one_fsync_ms": str(round(fsync_ms, 4)), "rounds": str(options.rounds)}
            for _ in _measure(options, chosen, figures):
                if options.json:  # as it grows, because a long run may not come to its end
                    text = json.dumps(report.as_data(list(figures), facts), indent=2)
                    options.json.write_text(text + "\n")
    taken = list(figures)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(report.table(taken, title))
    console.print(*(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()), sep=" · ")
    missed = [figure for figure in taken if figure.met() is False]
    met = sum(figure.met() is True for figure in taken)
    console.print(f"{met} aims met, {len(missed)} missed")
    if options.page:
        report.put_into(options.page, options.backend, taken, facts)
    if options.plot:
        report.plot(taken, options.plot, title)
    return 1 if missed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Compare this library with LangGraph and its savers, and with the limits.",
        epilog="Exit status 1 says that an aim was missed.",
    )
    parser.add_argument(
        "--backend", choices=("sqlite", "postgres"), default="sqlite", help="(default sqlite)"
    )
    parser.add_argument(
        "--toast",
        choices=backends.TOASTS,
        nargs="+",
        help="how PostgreSQL compresses (default: each way that the server can)",
    )
    parser.add_argument("--quick", action="store_true", help="one round, up to 200 turns")
    parser.add_argument(
        "--only", choices=("chat", *OTHERS), nargs="+", help="leave the other workloads out"
    )
    parser.add_argument("--turns", type=int, nargs="+", help="lengths of the conversations")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS}, long chats 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="put the table into a page")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw cost over turns")
    parser.add_argument("--dir", type=Path, help="put SQLite's files here (a real disk, not tmpfs)")
    options = parser.parse_args(arguments)
    options.turns = options.turns or [n for n in TURNS if n < LONG_TURNS or not options.quick]
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.only = options.only or ["chat", *OTHERS]
    if min(options.turns) < 2 or options.rounds < 1:
        parser.error("at least 2 turns and 1 round, please")
    if options.toast and options.backend != "postgres":
        parser.error("--toast is for --backend postgres")
    return options


@contextmanager
def _backends(options: argparse.Namespace, folder: Path) -> Iterator[Sequence[Backend]]:
    if options.backend == "sqlite":
        yield [backends.Sqlite(folder)]
        return
    with backends.postgres(options.toast) as chosen:
        yield chosen


def _measure(
    options: argparse.Namespace, chosen: Sequence[Backend], figures: Figures
) -> Iterator[None]:
    """Do all the work; yields whenever there are more figures."""
    # One peer's collections must not walk through the other's modules.
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

        def tell(text: str) -> None:
            progress.update(task, description=text)

        for number in range(max(rounds for _, rounds in jobs)):
            for job, rounds in jobs:
                if number >= rounds:
                    continue
                for backend in chosen:
                    with backend.ground() as ground:
                        job(Bench(backend, ground, figures, tell))
                    progress.advance(task)
                    yield


def environment(backend: Backend) -> dict[str, Any]:
    """What the figures depend on, without a name or a path of the machine."""
    return {
        "python": platform.python_version(),
        "langgraph": version("langgraph"),
        **backend.facts(),
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


if __name__ == "__main__":
    sys.exit(main())
