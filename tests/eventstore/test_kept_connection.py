"""The connection to a SQLite file that a store keeps for its next transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from eventstore import ConcurrencyError, Event, EventStore
from eventstore.concurrency import run_sync


def lent(store: EventStore) -> int:
    """How many connections the pool has lent."""
    count: Callable[[], int] = store.database.engine.pool.checkedout  # type: ignore[attr-defined]
    return count()


def numbers(store: EventStore, thread_id: str) -> list[int]:
    """The data of a thread's events."""
    return [each.data for each in store.replay(thread_id).events]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def test_one_connection_does_everything(file: Path) -> None:
    opened: list[Any] = []
    with EventStore(file) as store:
        event.listen(store.engine.pool, "connect", lambda conn, _record: opened.append(conn))
        for seq in range(5):
            store.append("t", [Event(1, seq)], seq)
            assert numbers(store, "t") == list(range(seq + 1))
        assert (len(opened), lent(store)) == (1, 1)


def test_it_is_given_back_when_the_store_is_closed(file: Path) -> None:
    with EventStore(file) as store:
        store.append("t", [Event(1)], 0)
        assert file.with_name("a.db-wal").exists()
    assert lent(store) == 0
    assert not file.with_name("a.db-wal").exists()  # as the last connection leaves it


def test_it_is_given_back_when_the_store_is_closed_during_a_transaction(file: Path) -> None:
    inside, goes_on = threading.Event(), threading.Event()

    def wait(_conn: Connection) -> None:
        inside.set()
        goes_on.wait(10)

    store = EventStore(file)
    store.setup()
    thread = threading.Thread(target=lambda: run_sync(store.database.run("read", wait)))
    thread.start()
    inside.wait(10)
    store.close()
    goes_on.set()
    thread.join(10)
    assert not store.database.lender.kept


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_none_is_kept_after_an_error(file: Path, error: type[BaseException]) -> None:
    def fail(conn: Connection) -> None:
        conn.exec_driver_sql("DELETE FROM events")
        raise error

    with EventStore(file) as store:
        store.append("t", [Event(1, 0)], 0)
        with pytest.raises(error):
            run_sync(store.database.run("append", fail))
        assert lent(store) == 0
        assert numbers(store, "t") == [0]


def test_a_refused_append_leaves_no_transaction_open(file: Path) -> None:
    with EventStore(file) as store, EventStore(file) as other:
        store.append("t", [Event(1, 0)], 0)
        other.append("t", [Event(1, 1)], 1)
        for _ in range(3):
            with pytest.raises(ConcurrencyError):
                store.append("t", [Event(1, 2)], 1)
        other.append("t", [Event(1, 2)], 2)
        assert numbers(store, "t") == [0, 1, 2]


def test_who_listens_sees_each_statement_and_transaction(file: Path) -> None:
    began: list[Connection] = []
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    with EventStore(file) as store:
        store.append("t", [Event(1, 0)], 0)
        event.listen(store.engine, "begin", lambda conn: began.append(conn))
        event.listen(store.engine, "before_cursor_execute", note)
        store.append("t", [Event(1, 1)], 1)
        store.append("t", [Event(1, 2)], 2)
        assert len(began) == 2
        assert sum(each.startswith("INSERT INTO events") for each in statements) == 2


def test_who_listens_to_the_pool_sees_each_checkout(file: Path) -> None:
    lendings: list[Any] = []
    with EventStore(file) as store:
        store.append("t", [Event(1, 0)], 0)
        event.listen(store.engine, "checkout", lambda *found: lendings.append(found))
        for seq in (1, 2, 3):
            store.append("t", [Event(1, seq)], seq)
        assert len(lendings) == 3


def test_who_uses_the_engine_gets_the_connection_that_was_kept(file: Path) -> None:
    """And so may do what needs the file for itself alone."""
    with EventStore(file) as store:
        store.append("t", [Event(1, 0)], 0)
        with store.engine.connect() as conn:
            mode = conn.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar_one()
        assert mode == "delete"


def test_none_is_kept_of_a_callers_engine_and_of_a_database_in_memory(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    for target in (engine, ":memory:"):
        with EventStore(target) as store:
            store.append("t", [Event(1)], 0)
            assert lent(store) == 0
    engine.dispose()


def test_many_threads_share_what_there_is(file: Path) -> None:
    def append(name: str) -> None:
        for seq in range(20):
            store.append(name, [Event(1, seq)], seq)

    with EventStore(file) as store:
        store.setup()
        threads = [threading.Thread(target=append, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(numbers(store, f"t{number}") == list(range(20)) for number in range(8))
        store.database.lender.pause()
        assert lent(store) == 0
