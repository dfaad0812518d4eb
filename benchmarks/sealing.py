"""What sealing saves: sealed logs beside the same logs unsealed, in the same run.

    python -m benchmarks.sealing [--rounds 5] [--turns 300] [--json results.json]

Measures a chat and a log of tool results that repeat: stored bytes of payloads, size of the file
without its snapshots, replay of all events. Rounds alternate between the sealed and the unsealed
log. Exits with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from sqlalchemy import Engine, create_engine, text

from benchmarks.peers.registry import find_peer
from benchmarks.reporting.figures import Figure
from benchmarks.reporting.table import table
from benchmarks.workloads.chat import chat_graph, chat_turns
from benchmarks.workloads.tool_results import tool_messages
from eventstore import Event, EventStore

THREAD: Final = "thread"


def chat(store: EventStore, turns: int) -> None:
    """Write a conversation by running its graph."""
    conversation = chat_turns(turns)
    app = chat_graph(find_peer("ours"), conversation).compile(checkpointer=store)
    for turn in conversation:
        app.invoke({"messages": [turn.question]}, {"configurable": {"thread_id": THREAD}})


def tools(store: EventStore, turns: int) -> None:
    """Append tool results and answers, one event each."""
    head = store.head(THREAD)
    for message in tool_messages(turns):
        head = store.append_after(head, [Event(2, {"writes": {"messages": [message]}})])


WORKLOADS: Final[dict[str, tuple[Callable[[EventStore, int], None], float]]] = {
    "chat": (chat, 0.65),
    "tools": (tools, 0.5),
}
"""What writes the log, and the aim for its bytes when sealed / unsealed."""


def measure(name: str, turns: int, rounds: int, folder: Path) -> list[Figure]:
    """The figures of one workload."""
    run, bytes_aim = WORKLOADS[name]
    workload = f"{name}, {turns:,} turns"
    bytes_ = Figure(workload, "bytes of payloads", "KiB", "unsealed", bytes_aim, gain=False)
    file = Figure(workload, "bytes of the file", "KiB", "unsealed", gain=False)
    replay = Figure(workload, "replay of all events", "ms", "unsealed", 2.0)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    stores = []
    for kind in ("plain", "sealed"):
        path = folder / f"{name}-{kind}.db"
        stores.append(EventStore(path, durability="normal", clock=lambda: now))
        run(stores[-1], turns)
    now += timedelta(days=1)
    plain, sealed = stores
    done = sealed.seal(THREAD, now)
    bytes_.ours.append(sealed.stats(THREAD).stored_bytes / 1024)
    bytes_.other.append(plain.stats(THREAD).stored_bytes / 1024)
    bytes_.note = f"{done.events} events in {done.segments} segments"
    for each in stores:
        each.delete_snapshots(THREAD)
    for store, values in ((sealed, file.ours), (plain, file.other)):
        values.append(_packed(store.engine, folder) / 1024)
    for _ in range(rounds):
        for store, values in ((sealed, replay.ours), (plain, replay.other)):
            begun = time.perf_counter()
            count = sum(1 for _ in store.replay(THREAD, snapshots=False).events)
            values.append((time.perf_counter() - begun) * 1e3)
            assert count == sealed.head(THREAD).seq
    for store in stores:
        store.close()
    return [bytes_, file, replay]


def _packed(engine: Engine, folder: Path) -> int:
    """Bytes of the file without its free pages."""
    target = folder / "packed.db"
    target.unlink(missing_ok=True)
    with create_engine(engine.url).connect() as conn:
        conn.execute(text("VACUUM INTO :path"), {"path": str(target)})
    return target.stat().st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns 0 when the aims are met, else 1."""
    parser = argparse.ArgumentParser("python -m benchmarks.sealing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        figures = [
            figure
            for name in WORKLOADS
            for figure in measure(name, options.turns, options.rounds, Path(folder))
        ]
    Console().print(table(figures, "itself, unsealed"))
    if options.json:
        rows = [
            {"workload": f.workload, "measure": f.measure, "ours": f.ours, "other": f.other,
             "ratio": f.ratio(), "aim": f.aim, "met": f.met()}
            for f in figures
        ]  # fmt: skip
        options.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(figure.met() is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
