"""What is special about SQLite: journal modes, durability, locks, one connection in memory."""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from eventstore import (
    ConcurrencyError,
    ConfigurationError,
    Event,
    EventStore,
    Expired,
    StoreBusyError,
    StoreUnavailableError,
    ThreadInfo,
)
from eventstore.concurrency import run_sync
from eventstore.db import sqlite
from eventstore.db.options import Durability
from tests.eventstore.support import check_whole, data_of, fill, numbers, sql

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), True),  # before WAL
        ((3, 7, 0), False),
        ((3, 34, 1), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 44, 9), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_which_versions_have_the_wal_reset_bug(version: tuple[int, ...], safe: bool) -> None:
    assert sqlite.wal_is_safe(version) is safe


def pragma(store: EventStore, name: str) -> Any:
    return sql(store, f"PRAGMA {name}")[0][0]


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_pragmas_of_every_connection(tmp_path: Path, durability: Any, level: int) -> None:
    with EventStore(tmp_path / "a.db", durability=durability) as store:
        store.setup()
        connections = [store.engine.connect() for _ in range(3)]
        for conn in connections:
            for name, wanted in (
                ("journal_mode", "wal"),
                ("synchronous", level),
                ("foreign_keys", 1),
                ("busy_timeout", 30_000),
                ("auto_vacuum", 2),
            ):
                assert conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() == wanted
        for conn in connections:
            conn.close()


def test_a_safe_driver_is_chosen() -> None:
    found = importlib.util.find_spec("pysqlite3")
    assert found is None or sqlite.wal_is_safe(sqlite.sqlite_driver().sqlite_version_info)


def test_an_affected_sqlite_keeps_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "wal_is_safe", lambda version: False)
    with caplog.at_level(logging.WARNING), EventStore(tmp_path / "a.db") as store:
        fill(store, "t", 3)
        assert pragma(store, "journal_mode") != "wal"
        assert pragma(store, "synchronous") == 2
        assert numbers(store.read("t")) == [1, 2, 3]
    assert "WAL-reset" in caplog.text
    with EventStore(tmp_path / "a.db") as one, EventStore(tmp_path / "a.db") as two:
        for number in range(4, 10, 2):
            fill(one, "t", 1, start=number)
            fill(two, "t", 1, start=number + 1)
        assert numbers(one.read("t")) == list(range(1, 10))
        assert pragma(two, "journal_mode") != "wal"
    assert {file.suffix for file in tmp_path.iterdir()} <= {".db", ".db-journal"}


def test_an_affected_sqlite_does_not_enter_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, with a sound SQLite, put the file into WAL mode."""
    with EventStore(tmp_path / "a.db") as store:
        fill(store, "t", 1)
        assert pragma(store, "journal_mode") == "wal"
    monkeypatch.setattr(sqlite, "wal_is_safe", lambda version: False)
    with EventStore(tmp_path / "a.db") as store:
        try:
            fill(store, "t", 1, start=2)
        except ConfigurationError as error:
            assert "pysqlite3" in str(error)  # noqa: PT017
        else:
            assert pragma(store, "journal_mode") != "wal"


def test_memory_needs_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "wal_is_safe", lambda version: False)
    with caplog.at_level(logging.WARNING), EventStore() as store:
        fill(store, "t", 1)
    assert "WAL" not in caplog.text


# --- locks ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_locked_file_is_busy_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "a.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(store, "t", 3)
        head = other.head("t")
        with store.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            for call in (
                lambda: fill(other, "t", 1),
                lambda: other.append_after(head, [Event(1)]),
                lambda: other.delete_thread("t"),
                lambda: other.set_thread("t", pinned=True),
                lambda: other.delete_snapshots("t"),
            ):
                began = time.monotonic()
                with pytest.raises(StoreBusyError):
                    call()
                assert 0.1 < time.monotonic() - began < 5
            assert numbers(other.read("t")) == [1, 2, 3]
            conn.exec_driver_sql("ROLLBACK")
        assert fill(other, "t", 1, start=4) == 4
        assert check_whole(other) == 1


def test_a_writer_that_had_to_wait_waits_as_long_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for the lock more often then, and SQLite's own wait is back afterwards."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "file.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(store, "t", 1)
        lock = other.engine.raw_connection()
        lock.cursor().execute("BEGIN IMMEDIATE")
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(StoreBusyError, match="stayed locked"):
                fill(store, "t", 1, start=2)
            assert 0.19 <= time.monotonic() - begun < 10
            assert pragma(store, "busy_timeout") == 200
        releasing = threading.Timer(0.05, lambda: lock.cursor().execute("ROLLBACK"))
        releasing.start()
        fill(store, "t", 1, start=2)
        releasing.join()
        lock.close()
        assert pragma(store, "busy_timeout") == 200
        assert numbers(store.read("t")) == [1, 2]


def test_work_in_the_background_leaves_its_connection_as_it_was(tmp_path: Path) -> None:
    settings = ("synchronous", "wal_autocheckpoint", "foreign_keys", "busy_timeout")

    def inside(conn: Any) -> list[Any]:
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in settings]

    def fails(conn: Any) -> None:
        raise ValueError

    levels: dict[Durability, int] = {"full": 2, "normal": 1}
    for durability, usual in levels.items():
        with EventStore(tmp_path / f"{durability}.db", durability=durability) as store:
            fill(store, "t", 1)
            before = [pragma(store, name) for name in settings]
            run = store.core.transactions.run
            assert run_sync(run("background_write", inside)) == [1, 800, *before[2:]]
            with pytest.raises(ValueError):
                run_sync(run("background_write", fails))
            assert [pragma(store, name) for name in settings] == before
            assert before[:2] == [usual, 1000]


def test_a_thread_that_grows_while_it_is_judged_is_judged_again(tmp_path: Path) -> None:
    """It is judged before the lock is taken, and again under the lock if somebody has written."""
    path = tmp_path / "file.db"
    with EventStore(path) as store, EventStore(path) as other:
        for name in ("grows", "stays"):
            fill(store, name, 2)
        keys = [store.thread(name).thread_key for name in ("grows", "stays")]
        judged: list[str] = []

        def write(thread: ThreadInfo) -> bool:
            if not judged:
                fill(other, "grows", 1, start=3)
            judged.append(thread.thread_id)
            return False

        batch = [Expired(key, None, "test", unchanged={"": 2}) for key in keys]
        assert run_sync(store.core.prune(batch, keep_if=write)) == ["kept", "pruned"]
        assert judged == ["grows", "stays", "stays"]
        assert numbers(other.read("grows")) == [1, 2, 3]


def test_a_transaction_is_longer_the_longer_nobody_else_has_written(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(other, "a", 1)
        work = store.core.transactions.background

        def quiet_s() -> float:
            run_sync(store.core.prune([Expired(1, None, "test")]))
            return work.quiet_s

        assert quiet_s() >= 5, "nobody was seen to write"
        assert work.lock_s(0.001) == 0.05
        for number, writer in enumerate((other, store)):
            fill(writer, f"t{number}", 1)
            assert quiet_s() == 0
            assert work.lock_s(0.001) == 0.001
            time.sleep(0.3)
            assert quiet_s() >= 0.3
            assert work.lock_s(0.001) >= 0.003
            assert work.lock_s(0.2) == 0.2


def test_only_background_work_moves_the_log_while_it_is_at_it(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(store, "a", 1)
        log = path.with_name("file.db-wal")

        async def work() -> None:
            async with store.core.in_rounds():
                await store.core.prune([Expired(1, None, "test")])
                for number in range(400):
                    fill(other, f"t{number}", 10)
                assert log.stat().st_size > 1_500 * 4096  # writers move it at 1,000 pages
                assert path.stat().st_size < 50 * 4096
            assert path.stat().st_size > 100 * 4096

        run_sync(work())
        size = log.stat().st_size
        for number in range(400):
            fill(other, f"u{number}", 10)
        assert log.stat().st_size == size, "it is used again"
        assert check_whole(other) == 801


def test_an_erasure_empties_the_log_while_background_work_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(store, "a", 1)
        begun, ended = threading.Event(), threading.Event()

        async def work() -> None:
            async with store.core.in_rounds():
                while not ended.is_set():
                    await store.core.prune([Expired(1, None, "test")])
                    begun.set()

        worker = threading.Thread(target=lambda: run_sync(work()))
        worker.start()
        assert begun.wait(10)
        try:
            for _ in range(3):
                assert run_sync(other.core.vacuum(vacuum=False)).log_emptied
        finally:
            ended.set()
            worker.join()


def test_a_process_is_forked_while_background_work_goes_on(tmp_path: Path) -> None:
    """What pins the log lets go of the file for the fork."""
    with EventStore(tmp_path / "file.db") as store:
        fill(store, "a", 1)

        async def work() -> None:
            async with store.core.in_rounds():
                await store.core.prune([Expired(1, None, "test")])
                assert store.core.transactions.lender.pinned
                child = os.fork()
                if child == 0:
                    with suppress(BaseException):
                        os._exit(0 if numbers(store.read("a")) == [1] else 1)
                    os._exit(2)
                assert os.waitpid(child, 0)[1] == 0
                assert not store.core.transactions.lender.pinned
                await store.core.prune([Expired(1, None, "test")])
                assert store.core.transactions.lender.pinned
            assert not store.core.transactions.lender.pinned

        run_sync(work())


def test_a_rollback_journal_always_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def level(conn: Any) -> Any:
        return conn.exec_driver_sql("PRAGMA synchronous").scalar()

    monkeypatch.setattr(sqlite, "wal_is_safe", lambda version: False)
    with EventStore(tmp_path / "file.db") as store:
        fill(store, "t", 1)
        assert run_sync(store.core.transactions.run("background_write", level)) == 2


def test_readers_do_not_wait_for_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even those that open the file, in another store, while the lock is held."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "a.db"
    with EventStore(path) as store:
        fill(store, "t", 3)
        with store.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            with EventStore(path) as reader:
                assert numbers(reader.read("t")) == [1, 2, 3]
                assert len(reader.threads()) == 1
                assert reader.verify("t").ok
            conn.exec_driver_sql("ROLLBACK")


def test_a_writer_waits_for_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with EventStore(path) as store, EventStore(path) as other:
        fill(store, "t", 1)
        conn = store.engine.connect()
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        writer = threading.Thread(target=lambda: fill(other, "t", 1, start=2))
        writer.start()
        time.sleep(0.3)
        assert writer.is_alive()
        conn.exec_driver_sql("ROLLBACK")
        conn.close()
        writer.join(10)
        assert numbers(store.read("t")) == [1, 2]


def test_an_exhausted_pool_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    with EventStore() as store:
        fill(store, "t", 1)
        with store.engine.connect(), pytest.raises(StoreBusyError):
            store.head("t")
        assert store.head("t").seq == 1


def test_a_full_disk_loses_nothing() -> None:
    """SQLite's own limit on pages, which is a connection's, stands for the disk's."""
    noise = random.Random(1)
    with EventStore() as store:
        fill(store, "t", 3)
        pages = pragma(store, "page_count")
        sql(store, f"PRAGMA max_page_count = {pages + 2}")
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                store.append("t", [Event(1, noise.randbytes(1_000)) for _ in range(50)], 3)
            assert numbers(store.read("t")) == [1, 2, 3]
        sql(store, "PRAGMA max_page_count = 1000000")
        assert fill(store, "t", 1, start=4) == 4
        assert store.verify("t").ok


def test_a_file_that_may_not_be_written_to_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with EventStore(path) as store:
        fill(store, "t", 1)
    with (
        EventStore(f"sqlite:///file:{path}?mode=ro&uri=true") as store,
        pytest.raises(StoreUnavailableError, match=r"readonly database; .* its folder writable"),
    ):
        store.append("t", [Event(1, "x")], 1)


def test_an_error_in_the_middle_gives_the_connection_back(store: EventStore) -> None:
    fill(store, "t", 3)
    stale = store.head("t")
    fill(store, "t", 1)
    for _ in range(40):  # more often than the pool has connections
        with pytest.raises(ConcurrencyError):
            store.append_after(stale, [Event(1)])
    assert fill(store, "t", 1) == 5


# --- memory -----------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_from_many_threads() -> None:
    """One connection, many threads: everybody gets a turn, nothing is lost."""
    errors: list[BaseException] = []
    with EventStore() as store:
        fill(store, "shared", 1)

        def work(number: int) -> None:
            try:
                for seq in range(15):
                    store.append(f"t{number}", [Event(1, [number, seq])], seq)
                    data_of(store, f"t{number}")
                    while True:
                        try:
                            store.append("shared", [Event(1)], store.head("shared").seq)
                            break
                        except ConcurrencyError:
                            continue
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors[0]
        for number in range(8):
            assert data_of(store, f"t{number}") == [[number, seq] for seq in range(15)]
        assert store.head("shared").seq == 1 + 8 * 15
        assert check_whole(store) == 9


def test_a_half_read_log_does_not_hold_the_only_connection() -> None:
    with EventStore() as store:
        fill(store, "t", 600)
        seen = []
        for event in store.read("t"):
            seen.append(event.seq)
            if event.seq % 100 == 0:
                fill(store, "other", 1)
        assert seen == list(range(1, 601))


def test_deleting_gives_pages_back(tmp_path: Path) -> None:
    """Freed pages are there for new events, and incremental vacuum can return them."""
    with EventStore(tmp_path / "a.db") as store:
        noise = [Event(1, bytes(range(256)) * 16) for _ in range(200)]
        store.append("t", noise, 0)
        pages = pragma(store, "page_count")
        store.delete_thread("t")
        store.append("u", noise, 0)
        assert pragma(store, "page_count") < pages * 1.2
        store.delete_thread("u")
        with store.engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA incremental_vacuum")
        assert pragma(store, "page_count") <= pages


@pytest.mark.slow
def test_a_transaction_that_is_interrupted_anywhere_leaves_none_open(tmp_path: Path) -> None:
    """The moment after it began, and that of its commit, included."""
    steps = 0

    def interrupt() -> int:
        nonlocal steps
        steps -= 1
        return steps == 0

    with EventStore(tmp_path / "a.db") as store:
        store.setup()
        event.listen(store.engine, "connect", lambda raw, _: raw.set_progress_handler(interrupt, 1))
        store.engine.dispose()
        fill(store, "t", 1)
        for first in range(1, 400):
            head = store.head("t")
            steps = first
            with suppress(StoreUnavailableError):
                store.append_after(head, [Event(1, {"n": first})])
            steps = 0
            assert store.head("t").seq in (head.seq, head.seq + 1)
        assert store.head("t").seq > 1
