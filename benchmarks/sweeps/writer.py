"""A process that appends to live threads, and writes down how long each append took.

    python -m benchmarks.sweeps.writer {ours|theirs} TARGET TIMES

Takes up a thread after the other, with a pause in between, as users of a service do.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver

from benchmarks.peers.langgraph import opened_sqlite
from benchmarks.peers.pools import documented_pool
from benchmarks.workloads.chat import chat_turns
from eventstore import Event, EventStore

THREADS: Final = 50
PAUSE_S: Final = 0.003
TURNS: Final = 40


@contextmanager
def ours(target: str) -> Iterator[Callable[[int], object]]:
    """Appends the nth event."""
    turns = chat_turns(TURNS)
    with EventStore(target) as store:
        heads = [store.head(f"live-{number}") for number in range(THREADS)]

        def append(number: int) -> None:
            at = number % THREADS
            event = Event(2, {"writes": {"messages": [turns[number % TURNS].answer]}})
            heads[at] = store.append_after(heads[at], [event])

        yield append


@contextmanager
def theirs(target: str) -> Iterator[Callable[[int], object]]:
    """Puts the nth checkpoint, with a state of one message."""
    turns = chat_turns(TURNS)
    with opened_peer(target) as saver:

        def put(number: int) -> None:
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": [turns[number % TURNS].answer]}
            config: Any = {
                "configurable": {"thread_id": f"live-{number % THREADS}", "checkpoint_ns": ""}
            }
            saver.put(config, checkpoint, {"source": "loop", "step": number}, {"messages": number})

        yield put


@contextmanager
def opened_peer(target: str) -> Iterator[Any]:
    """A saver of LangGraph that commits durably."""
    if "://" not in target:
        with opened_sqlite(target) as saver:
            saver.conn.execute("PRAGMA busy_timeout = 30000")
            yield saver
        return
    with documented_pool(target) as pool:
        postgres = PostgresSaver(pool)
        postgres.setup()
        yield postgres


@contextmanager
def writing(whose: str, target: str, times: Path) -> Iterator[None]:
    """Let such a process run."""
    command = [sys.executable, "-m", __name__, whose, target, str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def took_ms(file: Path, since: float, until: float) -> list[float]:
    """How long the appends took that ended in this period, in order of length."""
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("]")]
    return sorted(took * 1e3 for at, took in lines if since <= at <= until)


def main(whose: str, target: str, times: str) -> None:
    """Write until killed."""
    opened = {"ours": ours, "theirs": theirs}[whose]
    with opened(target) as append, Path(times).open("w", buffering=1) as out:
        for number in range(THREADS):
            append(number)
        print("ready", flush=True)
        number = THREADS
        while True:
            begun = time.perf_counter()
            try:
                append(number)
            except sqlite3.OperationalError as error:  # locked for half a minute
                print(error, file=sys.stderr)
            out.write(json.dumps([time.time(), time.perf_counter() - begun]) + "\n")
            number += 1
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
