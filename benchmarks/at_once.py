"""Prints how many supersteps a second many runs at once take, on this machine.

    python -m benchmarks.at_once [--backend postgres] [--sync-ms 0 5] [--at-once 200] …

A pipeline of three nodes on a thread of its own each time: this library beside LangGraph and, on
PostgreSQL, beside DBOS (a workflow of three steps). Every peer runs in a process of its own, the
peers in turns, sync ones in threads and async ones in tasks of one event loop; every step is
durable before the next begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.backends.postgres import SETTINGS
from benchmarks.backends.routes import add_route, check_route, route
from benchmarks.backends.slow_disk import slow_disk
from benchmarks.workloads.pipeline import PIPELINE_SUPERSTEPS
from tests.postgres import server

PEERS: Final = ("ours", "ours-async", "langgraph", "langgraph-async", "dbos", "dbos-async")
SERVERS_ONLY: Final = ("dbos", "dbos-async")
RUN_S_MAX: Final = 300

Databases = Callable[[], AbstractContextManager[str]]
"""Makes an empty database; its path or URL."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0."""
    options = _options(arguments)
    rows: list[dict[str, Any]] = []
    for sync_ms in options.sync_ms:
        with slow_disk(sync_ms), _databases(options) as (databases, way):
            found = _measure(options, databases)
        for peer, figures in found.items():
            rows.append(_row(sync_ms, peer, figures, options.runs * PIPELINE_SUPERSTEPS))
        report = {"environment": _environment(options, way), "rows": rows}
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(rows, f"{options.at_once} runs at once, {options.backend}{way}"))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.at_once",
        description="Measure supersteps per second of many runs at once.",
    )
    parser.add_argument("--backend", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=list(PEERS))
    parser.add_argument("--runs", type=int, default=400, help="runs of each peer (default 400)")
    parser.add_argument("--at-once", type=int, default=200, help="(default 200)")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument(
        "--sync-ms",
        type=float,
        nargs="+",
        default=[0.0],
        metavar="MS",
        help="milliseconds that each sync of the disk takes longer (default 0)",
    )
    add_route(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--dir", type=Path, help="folder of the SQLite files, on a disk")
    options = parser.parse_args(arguments)
    check_route(parser, options)
    if options.backend == "sqlite":
        options.peers = [peer for peer in options.peers if peer not in SERVERS_ONLY]
    elif importlib.util.find_spec("dbos") is None:
        options.peers = [peer for peer in options.peers if peer not in SERVERS_ONLY]
        print("dbos is not installed and left out: pip install dbos", file=sys.stderr)
    return options


@contextmanager
def _databases(options: argparse.Namespace) -> Iterator[tuple[Databases, str]]:
    """What makes databases, and the name of the way to them."""
    with ExitStack() as stack:
        if options.backend == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.dir)))

            @contextmanager
            def file() -> Iterator[str]:
                with tempfile.TemporaryDirectory(dir=folder) as new:
                    yield str(Path(new) / "state.db")

            yield file, ""
            return
        started = stack.enter_context(server(fsync=True, settings=SETTINGS))
        way = stack.enter_context(
            route(started, pgbouncer=options.pgbouncer, network_ms=options.network_ms)
        )

        @contextmanager
        def database() -> Iterator[str]:
            with started.database() as url:
                yield way.url(url)

        yield database, way.name


def _measure(
    options: argparse.Namespace, databases: Databases
) -> dict[str, list[dict[str, float]]]:
    """All rounds of all peers, which change places each round."""
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in options.peers}
    for number in range(options.rounds):
        first = number % len(options.peers)
        for peer in options.peers[first:] + options.peers[:first]:
            print(f"round {number + 1}: {peer}", file=sys.stderr)
            with databases() as target:
                found[peer].append(_run(peer, target, options.runs, options.at_once))
    return found


def _run(peer: str, target: str, runs: int, at_once: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peers.crowd"]
    done = subprocess.run(
        [*command, peer, target, str(runs), str(at_once)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=RUN_S_MAX,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _row(
    sync_ms: float, peer: str, figures: Sequence[dict[str, float]], steps: int
) -> dict[str, Any]:
    return {
        "sync_ms": sync_ms,
        "peer": peer,
        "supersteps_per_s": [round(steps / each["seconds"], 1) for each in figures],
        "client_cpu_us_per_superstep": [
            round(each["cpu_seconds"] / steps * 1e6, 1) for each in figures
        ],
    }


def _environment(options: argparse.Namespace, way: str) -> dict[str, Any]:
    libraries = ["langgraph", *(["dbos"] if importlib.util.find_spec("dbos") else [])]
    return {
        "backend": options.backend + way,
        "at_once": options.at_once,
        "runs": options.runs,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    for heading in ("sync + ms", "peer", "supersteps/s", "min–max", "client CPU us", "ours/theirs"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    by_place = {(row["sync_ms"], row["peer"]): row for row in rows}
    for row in rows:
        rates, peer = row["supersteps_per_s"], row["peer"]
        ours = by_place.get((row["sync_ms"], "ours-async" if "async" in peer else "ours"))
        compared = ours is not None and not peer.startswith("ours")
        ratio = f"{median(ours['supersteps_per_s']) / median(rates):.1f}" if compared else ""  # type: ignore[index]
        table.add_row(
            f"{row['sync_ms']:g}",
            peer,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f}–{max(rates):,.0f}",
            f"{median(row['client_cpu_us_per_superstep']):,.0f}",
            ratio,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
