"""Prints where the time of an append, of a superstep and of a chat turn goes, by layer.

    python -m benchmarks.profile [--backend postgres] [--async] [--only append chat pipeline] …

Each function's own time is counted for the layer that its file belongs to, and that of a built-in
for the layer that calls it, but for the driver's and the codec's. The profiler (cProfile) slows
Python down and C hardly at all; so the total is measured without it, in process time, and the
shares are the profiler's. Waiting is no time of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import graph
from benchmarks.backends.postgres import SETTINGS
from benchmarks.peers.registry import find_peer
from benchmarks.workloads.chat import chat_graph, chat_turns
from benchmarks.workloads.pipeline import PIPELINE_SUPERSTEPS, pipeline_graph, pipeline_inputs
from eventstore import AsyncEventStore, Event, EventStore
from tests.postgres import server

LAYERS: Final = (
    ("SQLAlchemy", ("sqlalchemy", "greenlet")),
    ("driver", ("sqlite3", "psycopg")),
    ("event loop", ("asyncio", "selectors", "select.epoll", "concurrent/futures")),
    ("codec", ("eventstore/codec", "eventstore/format", "zstandard", "msgpack", "ormsgpack",
               "blake2", "hashlib")),
    ("store", ("eventstore/",)),
    ("graph", ("graph/",)),
    ("workload", ("benchmarks/",)),
)  # fmt: skip
"""Layers, and what files or C functions of each have in their names; the first that fits."""

REST: Final = "Python"
TURNS: Final = 200
RUNS: Final = 60
ROUNDS: Final = 7
APPENDS: Final = 100

Job = Callable[[int], Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0."""
    options = _options(arguments)
    jobs = {"append": _append, "pipeline": _pipeline, "chat": _chat}
    report: dict[str, dict[str, float]] = {}
    with _target(options.backend) as new:
        for name in options.only:
            with asyncio.Runner() as runner:
                wait: Callable[[Any], Any] = runner.run if options.asynchronous else lambda x: x
                saver = _saver(options, new())
                job, per, unit = jobs[name](saver, options.asynchronous, wait)
                report[f"{name}, per {unit}"] = _profiled(job, per)
                wait(saver.close())
    title = f"CPU us by layer, {options.backend}{', async' if options.asynchronous else ''}"
    Console(width=None if sys.stdout.isatty() else 120).print(_table(report, title))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description="Print CPU time by layer."
    )
    parser.add_argument("--backend", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--async", action="store_true", dest="asynchronous", help="the async API")
    names = ("append", "pipeline", "chat")
    parser.add_argument("--only", choices=names, nargs="+", default=list(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables to this file")
    return parser.parse_args(arguments)


@contextmanager
def _target(backend: str) -> Iterator[Callable[[], str]]:
    """What makes a new database; its path or URL."""
    if backend == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            numbers = iter(range(1_000))
            yield lambda: str(Path(folder) / f"{next(numbers)}.db")
        return
    with server(fsync=True, settings=SETTINGS) as started:
        opened: list[Any] = []

        def make() -> str:
            opened.append(started.database())
            return str(opened[-1].__enter__())

        try:
            yield make
        finally:
            for each in reversed(opened):
                each.__exit__(None, None, None)


def _saver(options: argparse.Namespace, target: str) -> Any:
    kinds = {
        ("sqlite", False): graph.SqliteSaver,
        ("sqlite", True): graph.AsyncSqliteSaver,
        ("postgres", False): graph.PostgresSaver,
        ("postgres", True): graph.AsyncPostgresSaver,
    }
    return kinds[options.backend, options.asynchronous](target)


# --- what is profiled -------------------------------------------------------------------


def _append(saver: Any, asynchronous: bool, wait: Callable[[Any], Any]) -> tuple[Job, int, str]:
    """Appends of one event each to one log."""
    store: EventStore | AsyncEventStore = saver.store
    turns = chat_turns(APPENDS)
    seq = 0

    def events() -> Iterator[tuple[int, list[Event]]]:
        nonlocal seq
        for turn in turns:
            yield seq, [Event(1, {"step": seq, "writes": {"messages": [turn.answer]}})]
            seq += 1

    async def append_all() -> None:
        for at, each in events():
            await store.append("log", each, expected_seq=at)  # type: ignore[misc]

    def append_in_turn() -> None:
        for at, each in events():
            store.append("log", each, expected_seq=at)

    job = (lambda _: wait(append_all())) if asynchronous else (lambda _: append_in_turn())
    return job, APPENDS, "append"


def _pipeline(saver: Any, asynchronous: bool, wait: Callable[[Any], Any]) -> tuple[Job, int, str]:
    """Runs of a pipeline of three nodes, each on a new thread."""
    app = pipeline_graph(find_peer("ours")).compile(checkpointer=saver)
    inputs = pipeline_inputs(RUNS)

    def run(number: int) -> Any:
        calls = ((values, _config(f"{number}-{at}")) for at, values in enumerate(inputs))
        return (
            wait(_all(app.ainvoke, calls))
            if asynchronous
            else [app.invoke(*call) for call in calls]
        )

    return run, RUNS * PIPELINE_SUPERSTEPS, "superstep"


def _chat(saver: Any, asynchronous: bool, wait: Callable[[Any], Any]) -> tuple[Job, int, str]:
    """Turns of a chat that has had 200 turns."""
    turns = chat_turns(TURNS + (2 * ROUNDS + 1) * 10)
    app = chat_graph(find_peer("ours"), turns).compile(checkpointer=saver)

    def run_from(first: int, count: int) -> Any:
        calls = (
            ({"messages": [turn.question]}, _config("chat"))
            for turn in turns[first : first + count]
        )
        return (
            wait(_all(app.ainvoke, calls))
            if asynchronous
            else [app.invoke(*call) for call in calls]
        )

    run_from(0, TURNS)
    return (lambda number: run_from(TURNS + number * 10, 10)), 10, "turn"


async def _all(call: Callable[..., Awaitable[Any]], calls: Iterator[tuple[Any, ...]]) -> None:
    for each in calls:
        await call(*each)


def _config(thread_id: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id}}


# --- the profile ------------------------------------------------------------------------


def _profiled(job: Job, per: int) -> dict[str, float]:
    """CPU microseconds of each layer, for one of ``per`` units of a job."""
    numbers = iter(range(2 * ROUNDS + 1))
    job(next(numbers))
    gc.collect()
    gc.freeze()
    plain = []
    profiler = cProfile.Profile(time.process_time)
    for _ in range(ROUNDS):  # in turns, so that a slow moment meets both
        began = time.process_time()
        job(next(numbers))
        plain.append((time.process_time() - began) / per * 1e6)
        profiler.enable()
        job(next(numbers))
        profiler.disable()
    shares = _shares(pstats.Stats(profiler))
    total = median(plain)
    rows = {name: total * shares.get(name, 0.0) for name, _ in LAYERS}
    return {**rows, REST: total * shares.get(REST, 0.0), "all": total}


def _shares(stats: pstats.Stats) -> dict[str, float]:
    """The part of the time that each layer takes itself."""
    spent: defaultdict[str, float] = defaultdict(float)
    for (file, _, function), (_, _, own, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        layer = _layer(f"{file} {function}")
        if layer != REST or file != "~":
            spent[layer] += own
            continue
        for (caller, _, name), (_, _, part, _) in callers.items():  # a built-in
            spent[_layer(f"{caller} {name}")] += part
    whole = sum(spent.values())
    return {name: part / whole for name, part in spent.items()}


def _layer(place: str) -> str:
    known = place.replace("graph-eventstore", "")
    return next((name for name, marks in LAYERS if any(mark in known for mark in marks)), REST)


def _table(report: dict[str, dict[str, float]], title: str) -> Table:
    table = Table(title=title)
    table.add_column("layer")
    for name in report:
        table.add_column(name, justify="right")
    for layer in (*(name for name, _ in LAYERS), REST, "all"):
        table.add_row(layer, *(f"{rows[layer]:,.0f}" for rows in report.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
