"""What a sweep costs: planning, pruning, and what live writers notice of it.

    python -m benchmarks.retention [--threads 100000] [--turns 10] [--peer-threads 300]

The workload is a file with many conversations of a few turns each (two events per turn), half of
them expired. Pruning is compared with deleting thread by thread with LangGraph's saver for SQLite,
with the same conversations, in the same run and with the same durability (WAL, synchronous=FULL).
A writer in another process keeps appending; its times are compared with those before the sweep.
Our threads are appended directly and theirs by running the graph, so there are fewer of theirs.
Exits with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
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
from rich.console import Console

from benchmarks.peers.langgraph import opened_sqlite
from benchmarks.peers.registry import find_peer
from benchmarks.reporting.figures import Figure
from benchmarks.reporting.table import table
from benchmarks.workloads.chat import chat_graph, chat_turns
from eventstore import Event, EventStore
from retention import Pace, RetentionPolicy, plan, sweep

TURNS: Final = 211
"""Different turns, from which all conversations are made."""

POLICY: Final = RetentionPolicy(ttl=timedelta(days=30))
WRITES_BEFORE_S: Final = 8.0

WRITER: Final = """
import json, sys, time
from eventstore import Event, EventStore
path, out = sys.argv[1:]
with EventStore(path) as store, open(out, "w", buffering=1) as times:
    heads = [store.head(f"live-{number}") for number in range(50)]
    print("ready", flush=True)
    turn = 0
    while True:
        begun = time.perf_counter()
        number = turn % len(heads)
        heads[number] = store.append_after(heads[number], [Event(1, {"turn": turn})])
        times.write(json.dumps([time.time(), time.perf_counter() - begun]) + chr(10))
        turn += 1
        time.sleep(0.005)
"""


def fill(path: Path, threads: int, turns: int) -> None:
    """Append the threads, oldest first; the first half is expired."""
    now = datetime.now(UTC) - timedelta(days=60)
    conversation = chat_turns(TURNS)
    with EventStore(path, durability="normal", clock=lambda: now) as store:
        for number in range(threads):
            if number == threads // 2:
                now = datetime.now(UTC) - timedelta(days=1)
            batch = []
            for turn in range(turns):
                each = conversation[(number * 7 + turn) % TURNS]
                batch.append(Event(1, {"writes": {"messages": [each.question]}}))
                batch.append(Event(2, {"writes": {"messages": [each.answer]}}))
            store.append(f"thread-{number}", batch, 0)


def fill_peer(path: Path, threads: int, turns: int) -> None:
    """Store the same conversations with LangGraph."""
    conversation = chat_turns(turns)
    with opened_sqlite(str(path)) as saver:
        saver.conn.execute("PRAGMA synchronous = OFF")
        app = chat_graph(find_peer("langgraph"), conversation).compile(checkpointer=saver)
        for number in range(threads):
            for turn in conversation:
                config: Any = {"configurable": {"thread_id": f"thread-{number}"}}
                app.invoke({"messages": [turn.question]}, config)


def delete_peer(path: Path, threads: int) -> float:
    """Threads per second that LangGraph's saver deletes."""
    with opened_sqlite(str(path)) as saver:
        begun = time.perf_counter()
        for number in range(threads):
            saver.delete_thread(f"thread-{number}")
        return threads / (time.perf_counter() - begun)


@contextmanager
def writing(path: Path, times: Path) -> Iterator[None]:
    """Append to live threads in another process, which writes its times to a file."""
    command = [sys.executable, "-c", WRITER, str(path), str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def p99_ms(file: Path, since: float, until: float) -> float:
    """The 99th percentile of the appends that ended in this period."""
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("]")]
    times = sorted(took for at, took in lines if since <= at <= until)
    return float(times[int(len(times) * 0.99)]) * 1e3


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Returns the figures, and the facts to print with them."""
    workload = f"{options.threads:,} threads of {2 * options.turns} events, half of them expired"
    rate = Figure(workload, "pruning", "ms", "LangGraph", 20.0, note="ms per thread")
    alone = Figure(workload, "pruning without pauses", "ms", "LangGraph", note="ms per thread")
    waits = Figure(workload, "p99 of live appends", "ms", "no sweep", 2.0, gain=False)
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
        times = folder / "times"
        process = psutil.Process()
        with writing(path, times):
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
        waits.ours.append(p99_ms(times, quiet, ended))
        waits.other.append(p99_ms(times, began, quiet))
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
    """Measure and report; returns 0 when the aims are met, else 1."""
    parser = argparse.ArgumentParser("python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--peer-threads", type=int, default=300)
    parser.add_argument(
        "--seconds", type=float, default=Pace().seconds, help="length of a transaction"
    )
    parser.add_argument(
        "--rest",
        type=float,
        default=Pace().rest,
        help="pause after each transaction, as a multiple of its length",
    )
    parser.add_argument("--dir", type=Path, help="folder of the files (on a disk, not tmpfs)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.dir) as folder:
        figures, facts = measure(options, Path(folder))
    Console().print(table(figures, "LangGraph"))
    Console().print(facts)
    if options.json:
        rows = [{**vars(f), "ratio": f.ratio(), "met": f.met()} for f in figures]
        options.json.write_text(json.dumps({"facts": facts, "figures": rows}, indent=2))
    return 0 if all(figure.met() is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
