"""Writers of one process on SQLite take turns, and those that wait share a commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event

from eventstore import (
    AsyncEventStore,
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    Head,
    NewSnapshot,
    StoreBusyError,
)
from eventstore.concurrency import run_sync
from eventstore.db import sqlite
from tests import processes
from tests.eventstore.support import FINGERPRINT, data_of, fill
from tests.eventstore.test_append_retry import Lossy

WRITERS: Final = 12


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    with EventStore(str(tmp_path / "store.db")) as opened:
        opened.setup()
        yield opened


def begun(store: EventStore, name: str) -> Head:
    """The end of a thread with one event."""
    fill(store, name, 1)
    return store.head(name)


@contextmanager
def occupied(store: EventStore, waiting: int) -> Iterator[None]:
    """While another thread writes; that ends when the block has, and so many others wait."""
    begins, ends = threading.Event(), threading.Event()

    def write(_conn: Any) -> None:
        begins.set()
        assert ends.wait(10)

    transactions = store.core.transactions
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lambda: run_sync(transactions.run("idempotent_write", write)))
        assert begins.wait(10)
        try:
            yield
            give_up_at = time.monotonic() + 10
            while len(transactions._writers._waiting) < waiting:
                assert time.monotonic() < give_up_at
                time.sleep(0.001)
        finally:
            ends.set()
        job.result(30)


def together(store: EventStore, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What these calls return or raise, when all of them wait for their turn at once."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with occupied(store, len(calls)):
            jobs = [pool.submit(call) for call in calls]
        return [job.exception(60) or job.result() for job in jobs]


def test_they_share_a_commit(store: EventStore) -> None:
    commits: list[Any] = []
    heads = [begun(store, f"t{number}") for number in range(WRITERS)]
    event.listen(store.engine, "commit", commits.append)
    found = together(store, [partial(store.append_after, h, [Event(1, {"n": 2})]) for h in heads])
    assert [head.seq for head in found] == [2] * WRITERS
    assert len(commits) == 2, "that of the writer before them, and theirs"
    for number in range(WRITERS):
        assert data_of(store, f"t{number}") == [{"n": 1}, {"n": 2}]


def test_each_has_a_verdict_of_its_own(store: EventStore) -> None:
    stale = begun(store, "stale")
    store.append("stale", [Event(1)], 1)
    store.append("keyed", [Event(1, key="k")], 0)
    keyed, plain, new = store.head("keyed"), begun(store, "plain"), store.head("new")
    begun(store, "doomed")
    snapshot = NewSnapshot(FINGERPRINT, b"s", b"")
    found = together(
        store,
        [
            lambda: store.append_after(plain, [Event(1, {"n": 2})], snapshot=snapshot),
            lambda: store.append_after(stale, [Event(1)]),
            lambda: store.append_after(keyed, [Event(1), Event(1, key="k")]),
            lambda: store.append_after(new, [Event(1, {"n": 1})]),
            lambda: store.append_after(store.head("other"), [Event(1)], status="failed"),
            lambda: store.delete_thread("doomed"),
        ],
    )
    assert found[0].seq == 2
    assert isinstance(found[1], ConcurrencyError)
    assert (found[1].expected, found[1].actual) == (1, 2)
    assert isinstance(found[2], DuplicateKeyError)
    assert found[3].seq == 1
    assert found[4].status == "failed"
    assert not store.head("doomed").exists
    assert data_of(store, "plain") == [{"n": 1}, {"n": 2}]
    assert data_of(store, "new") == [{"n": 1}]
    for name in ("plain", "stale", "new", "other"):
        assert store.verify(name).ok


def test_of_writers_of_one_log_one_wins(store: EventStore) -> None:
    head = begun(store, "t")
    events = [[Event(1, {"n": number})] for number in range(WRITERS)]
    found = together(store, [partial(store.append_after, head, each) for each in events])
    lost = [each for each in found if isinstance(each, ConcurrencyError)]
    assert len(lost) == WRITERS - 1
    assert {(each.expected, each.actual) for each in lost} == {(1, 2)}
    assert len(data_of(store, "t")) == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_in_doubt_is_looked_up_by_each(tmp_path: Path, moment: str) -> None:
    lossy = Lossy(tmp_path / "lossy.db")
    with EventStore(lossy.engine) as store:
        heads = [begun(store, f"t{number}") for number in range(WRITERS)]
        with ThreadPoolExecutor(WRITERS) as pool:
            with occupied(store, WRITERS):
                jobs = [pool.submit(store.append_after, head, [Event(1)]) for head in heads]
                setattr(lossy, moment, 1)  # that of the writer before them has no effect
            assert [job.result(60).seq for job in jobs] == [2] * WRITERS
        assert (lossy.before, lossy.after) == (0, 0)
        assert all(len(data_of(store, f"t{number}")) == 2 for number in range(WRITERS))
    lossy.engine.dispose()


def test_if_the_transaction_fails_each_is_done_by_itself(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk where one of them is too large."""
    heads = [begun(store, f"t{number}") for number in range(4)]
    size = [10, 10, 3_000_000, 10]
    pages = 200
    store.core.transactions._watch = None
    event.listen(
        store.engine, "checkout", lambda raw, *_: raw.execute(f"PRAGMA max_page_count = {pages}")
    )
    events = [[Event(1, os.urandom(each))] for each in size]
    found = together(store, list(map(partial, repeat(store.append_after), heads, events)))
    assert [type(each).__name__ for each in found] == [
        "Head",
        "Head",
        "StoreUnavailableError",
        "Head",
    ]
    assert "full" in str(found[2])
    assert [len(data_of(store, f"t{number}")) for number in range(4)] == [2, 2, 1, 2]


def test_an_interrupted_one_that_waits_is_not_done(store: EventStore) -> None:
    head, others = begun(store, "t"), [begun(store, f"t{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        with occupied(store, 3):
            here = threading.get_ident()
            timer = threading.Timer(0.2, signal.pthread_kill, [here, signal.SIGINT])
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                store.append_after(head, [Event(1)])
            timer.join()
            jobs = [pool.submit(store.append_after, each, [Event(1)]) for each in others]
        assert [job.result(60).seq for job in jobs] == [2, 2, 2]
    assert len(data_of(store, "t")) == 1
    assert store.append_after(head, [Event(1)]).seq == 2


def test_if_the_thread_that_writes_is_interrupted_the_others_go_on(store: EventStore) -> None:
    heads = [begun(store, f"t{number}") for number in range(4)]
    interrupts = [KeyboardInterrupt()]

    def interrupt(_conn: Any) -> str:
        if interrupts:
            raise interrupts.pop()
        return "went on"

    transactions = store.core.transactions
    calls: list[Callable[[], Any]] = [partial(store.append_after, h, [Event(1)]) for h in heads]
    calls.insert(2, lambda: run_sync(transactions.run("append", interrupt)))
    found = together(store, calls)
    assert [type(each) for each in found].count(KeyboardInterrupt) == 1
    del found[2], calls[2]
    for number, each in enumerate(found):
        assert len(data_of(store, f"t{number}")) == (1 if isinstance(each, BaseException) else 2)


def test_it_does_not_wait_without_end(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    head = begun(store, "t")
    with occupied(store, 0):
        monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
        with pytest.raises(StoreBusyError, match="locked"):
            store.append_after(head, [Event(1)])
    assert store.append_after(head, [Event(1)]).seq == 2


def test_tasks_of_an_event_loop_share_commits(tmp_path: Path) -> None:
    async def run() -> int:
        async with AsyncEventStore(str(tmp_path / "store.db")) as store:
            await store.setup()
            commits: list[Any] = []
            event.listen(store.database.engine, "commit", commits.append)

            async def write(name: str) -> None:
                head = await store.head(name)
                for number in range(5):
                    head = await store.append_after(head, [Event(1, {"n": number})])

            tasks = [asyncio.create_task(write(f"t{number}")) for number in range(100)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [each for each in done if each is not None] == [done[0]]
            assert isinstance(done[0], asyncio.CancelledError)
            for number in range(1, 100):
                assert (await store.head(f"t{number}")).seq == 5
            return len(commits)

    assert asyncio.run(run()) < 99 + 99 + 99 * 5, "reads end with a commit, too"


KILLED: Final = """
import sys, threading
from eventstore import Event, EventStore
store = EventStore(sys.argv[1])
def write(name):
    head = store.head(name)
    while True:
        head = store.append_after(head, [Event(1, {"n": head.seq + 1})])
        sys.stdout.write(f"{name} {head.seq}\\n")
        sys.stdout.flush()
for number in range(8):
    threading.Thread(target=write, args=(f"t{number}",)).start()
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    for _ in range(3):
        with processes.Popen([sys.executable, "-c", KILLED, path], stdout=-1, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(60)]
            process.kill()
            lines += process.stdout.read().splitlines()[:-1]  # the last may be cut off
        acknowledged: dict[str, int] = {}
        for name, seq in map(str.split, filter(None, map(str.strip, lines))):
            acknowledged[name] = int(seq)
        with EventStore(path) as store:
            for name, last in acknowledged.items():
                found = data_of(store, name)
                assert [each["n"] for each in found] == list(range(1, len(found) + 1))
                assert len(found) >= last
                assert store.verify(name).ok
