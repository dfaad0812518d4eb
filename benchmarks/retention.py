"""What a sweep costs: planning, pruning, and what live writers notice of it.

    python -m benchmarks.retention [--threads 100000] [--turns 10] [--peer-threads 300]

Owns one workload: many conversations of a few turns each (two events a turn), half of them
expired, in a file. Pruning is held against deleting threads one by one with LangGraph's saver for
SQLite, which had the same conversations, in the same run and with the same durability (WAL,
synchronous=FULL); a writer in another process appends all the while, and its times are held
against those before the sweep. Ours are appended directly, theirs by running the graph: so there
are fewer of theirs. Ends with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from rich.console import Console

from benchmarks import report
from benchmarks.figures import Figure
from benchmarks.workloads import chat_graph, chat_turns
from eventstore import Event, EventStore
from retention import Pace, RetentionPolicy, plan, sweep

TURNS: Final = 211
"""Different turns, of which every conversation has some."""

POLICY: Final = RetentionPolicy(ttl=timedelta(days=30))
WRITES_BEFORE_S: Final = 8.0

WRITER: Final = """
import json, sys, time
from eventstore import Event, EventStore
path, out = sys.argv[1:]
with EventStore(path) as store, open(out, "w", buffering=1) as told:
    heads = [store.head(f"live-{number}") for number in range(50)]
    print("ready", flush=True)
    turn = 0
    while True:
        begun = time.perf_counter()
        number = turn % len(heads)
        heads[number] = store.append_after(heads[number], [Event(1, {"turn": turn})])
        told.write(json.dumps([time.time(), time.perf_counter() - begun]) + chr(10))
        turn += 1
        time.sleep(0.005)
"""


def fill(path: Path, threads: int, turns: int) -> None:
    """Threads in the order of their age, the first half of them expired."""
    now = datetime.now(UTC) - timedelta(days=60)
    told = chat_turns(TURNS)
    with EventStore(path, durability="normal", clock=lambda: now) as store:
        for number in range(threads):
            if number == threads // 2:
                now = datetime.now(UTC) - timedelta(days=1)
            batch = []
            for turn in range(turns):
                each = told[(number * 7 + turn) % TURNS]
                batch.append(Event(1, {"writes": {"messages": [each.question]}}))
                batch.append(Event(2, {"writes": {"messages": [each.answer]}}))
            store.append(f"thread-{number}", batch, 0)


def fill_peer(path: Path, threads: int, turns: int) -> None:
    """The same conversations, held by LangGraph."""
    told = chat_turns(turns)
    with _peer(path) as saver:
        saver.setup()
        saver.conn.execute("PRAGMA synchronous = OFF")
        app = chat_graph(_Api(), told).compile(checkpointer=saver)
        for number in range(threads):
            for turn in told:
                config: Any = {"configurable": {"thread_id": f"thread-{number}"}}
                app.invoke({"messages": [turn.question]}, config)


class _Api:
    state_graph: Any = StateGraph
    start = START
    end = END


@contextmanager
def _peer(path: Path) -> Iterator[SqliteSaver]:
    conn = sqlite3.connect(str(path), check_same_thread=False)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    try:
        yield SqliteSaver(conn)
    finally:
        conn.close()


def delete_peer(path: Path, threads: int) -> float:
    """Threads a second that LangGraph's saver deletes."""
    with _peer(path) as saver:
        begun = time.perf_counter()
        for number in range(threads):
            saver.delete_thread(f"thread-{number}")
        return threads / (time.perf_counter() - begun)


@contextmanager
def writing(path: Path, told: Path) -> Iterator[None]:
    """A process that appends to live threads all the while."""
    command = [sys.executable, "-c", WRITER, str(path), str(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def p99_ms(told: Path, since: float, until: float) -> float:
    """Of the appends that ended in this time."""
    lines = [json.loads(line) for line in told.read_text().splitlines() if line.endswith("]")]
    times = sorted(took for at, took in lines if since <= at <= until)
    return float(times[int(len(times) * 0.99)]) * 1e3


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """The figures, and what else there is to say."""
    workload = f"{options.threads:,} threads of {2 * options.turns} events, half of them expired"
    rate = Figure(workload, "pruning", "ms", "LangGraph", 20.0, note="ms a thread")
    alone = Figure(workload, "pruning without pauses", "ms", "LangGraph", note="ms a thread")
    waits = Figure(workload, "p99 of live appends", "ms", "no sweep", 2.0, less=False)
    facts: dict[str, Any] = {"threads": options.threads, "expired": options.threads // 2}
    path = folder / "ours.db"
    fill(path, options.threads, options.turns)
    fill_peer(folder / "theirs.db", options.peer_threads, options.turns)
    facts["file_mib"] = round(path.stat().st_size / 2**20)
    with EventStore(path) as store:
        plans = []
        for _ in range(3):
            begun = time.perf_counter()
            found = plan(store, POLICY)
            plans.append(time.perf_counter() - begun)
        assert len(found.decisions) == options.threads // 2
        facts["plan_s"] = [round(each, 2) for each in plans]
        del found
        told = folder / "told"
        process = psutil.Process()
        with writing(path, told):
            began = time.time()
            time.sleep(WRITES_BEFORE_S)
            quiet = time.time()
            rss, peak = process.memory_info().rss, 0
            half = options.threads // 4
            counted = 0

            def counts(*_: object) -> None:
                nonlocal peak, counted
                counted += 1
                if counted % 500 == 0:
                    peak = max(peak, process.memory_info().rss - rss)

            start = time.perf_counter()
            pace = Pace(seconds=options.seconds, rest=options.rest)
            done = sweep(
                store, POLICY, None, counts, should_stop=lambda: counted >= half, pace=pace
            )
            took = time.perf_counter() - start
            ended = time.time()
        facts |= {
            "pruned_beside_a_writer": done.pruned,
            "threads_a_second_beside_a_writer": round(done.pruned / took),
            "growth_of_memory_mib": round(peak / 2**20, 1),
        }
        theirs = [delete_peer(folder / "theirs.db", options.peer_threads)]
        rate.ours.append(1e3 * took / done.pruned)
        rate.other.append(1e3 / theirs[0])
        waits.ours.append(p99_ms(told, quiet, ended))
        waits.other.append(p99_ms(told, began, quiet))
        start = time.perf_counter()
        rest = sweep(store, POLICY, pace=Pace(rest=0))
        took = time.perf_counter() - start
        facts["threads_a_second_alone"] = round(rest.pruned / took)
        facts["reclaimed_mib"] = round((done.reclaimed + rest.reclaimed) / 2**20)
        alone.ours.append(1e3 * took / rest.pruned)
        alone.other.append(1e3 / median(theirs))
        assert done.pruned + rest.pruned == options.threads // 2
    return [rate, alone, waits], facts


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 when the aims are met."""
    parser = argparse.ArgumentParser("python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--peer-threads", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=Pace().seconds, help="of a transaction")
    parser.add_argument("--rest", type=float, default=Pace().rest, help="after each, times its own")
    parser.add_argument("--dir", type=Path, help="where the files go: not in memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
        figures, facts = measure(options, Path(folder))
    Console().print(report.table(figures, "LangGraph"))
    Console().print(facts)
    if options.json:
        rows = [{**vars(f), "ratio": f.ratio(), "met": f.met()} for f in figures]
        options.json.write_text(json.dumps({"facts": facts, "figures": rows}, indent=2))
    return 0 if all(figure.met() is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
