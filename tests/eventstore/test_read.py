"""Reading: bounds, memory, what is counted, and that reading never writes."""

from __future__ import annotations

import gc
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from eventstore import (
    Event,
    EventStore,
    EventStoreError,
    Fork,
    NewSnapshot,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from eventstore.db.sqlite import sqlite_driver
from tests.eventstore.support import (
    FINGERPRINT,
    fill,
    is_sqlite,
    numbers,
    rows_of,
    set_everywhere,
    sql,
    tables_by_thread,
)

pytestmark = pytest.mark.every_backend

# --- reading ----------------------------------------------------------------------------


def test_read_bounds(store: EventStore) -> None:
    fill(store, "t", 600)
    everything = list(range(1, 601))
    for after, upto in [
        (0, None), (0, 600), (0, 10_000), (1, None), (255, 257), (256, 512), (599, None),
        (600, None), (10_000, None), (5, 5), (9, 3), (-7, 2), (0, 0), (0, -1), (2**70, None),
        (0, 2**70),
    ]:  # fmt: skip
        stop = 600 if upto is None else max(upto, 0)
        wanted = everything[max(after, 0) : stop]
        assert numbers(store.read("t", after=after, upto=upto)) == wanted, (after, upto)


def test_reading_a_thread_that_is_not_there_fails_at_the_call(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        store.read("nobody")
    replay = store.replay("nobody")
    assert not replay.head.exists
    assert list(replay.events) == []


def test_a_reader_sees_the_log_as_it_was_when_it_asked(store: EventStore) -> None:
    fill(store, "t", 300)
    reader = store.read("t")
    next(reader)
    fill(store, "t", 300, start=301)
    assert numbers(reader) == list(range(2, 301))


def test_many_half_read_logs_hold_nothing(store: EventStore) -> None:
    """No connection is held between two pages, or a forgotten iterator would block others."""
    fill(store, "t", 600)
    readers = [store.read("t") for _ in range(50)]
    for reader in readers:
        next(reader)
    fill(store, "t", 1, start=601)
    assert all(next(reader).seq == 2 for reader in readers)


@pytest.mark.slow
def test_reading_twenty_thousand_events_takes_bounded_memory(tmp_path: Path) -> None:
    with EventStore(tmp_path / "store.db") as store:
        text = "x" * 300
        for start in range(0, 20_000, 5_000):
            store.append("t", [Event(1, [n, text]) for n in range(start, start + 5_000)], start)
        gc.collect()
        tracemalloc.start()
        try:
            count = sum(1 for _ in store.replay("t").events)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 * 2**20, f"{peak} bytes at the peak"


@pytest.mark.slow
@given(batches=st.lists(st.integers(1, 40), max_size=12), after=st.integers(0, 300))
def test_any_batches_read_back_whole(batches: list[int], after: int) -> None:
    with EventStore() as store:
        seq = 0
        for size in batches:
            seq = fill(store, "t", size, start=seq + 1)
        if batches:
            assert numbers(store.read("t", after=after)) == list(range(after + 1, seq + 1))
            assert store.stats("t").events == seq


# --- reading never writes ---------------------------------------------------------------


def read_everything(store: EventStore) -> None:
    """Every reading call there is."""
    list(store.read("t"))
    store.head("t")
    list(store.replay("t").events)
    list(store.replay("t", fingerprint=FINGERPRINT).events)
    list(store.replay("f", snapshots=False).events)
    store.threads(prefix="t", metadata={"a": 1})
    store.thread("t")
    assert store.verify("t").ok
    store.stats()
    store.stats("t")
    for wrong in (lambda: store.read("nobody"), lambda: store.thread("nobody")):
        with pytest.raises(EventStoreError):
            wrong()


def fill_for_reading(store: EventStore) -> None:
    fill(store, "t", 300)
    fill(store, "t", 3, "child")
    store.append_after(store.head("t"), [Event(1)], snapshot=NewSnapshot(FINGERPRINT, b"s", b"i"))
    store.append("t", [Fork(store.head("t").position._replace(seq=7))], 301)
    store.fork("t", 250, "f")


def test_reading_changes_no_byte_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill_for_reading(store)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(before) == {"store.db"}  # the last to close leaves no other file behind
    with EventStore(path) as store:
        read_everything(store)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert not changed


def test_reading_works_where_writing_is_forbidden(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "ATTEMPTS", 2)  # a standby may be a failover that soon ends
    fill_for_reading(store)

    def forbid(connection: Any, _record: Any, _proxy: Any = None) -> None:
        if is_sqlite(store):
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.cursor().execute("SET default_transaction_read_only = on")
            connection.commit()

    engine: Any = store.database.engine
    event.listen(getattr(engine, "sync_engine", engine), "checkout", forbid)
    read_everything(store)
    with pytest.raises(StoreUnavailableError):
        fill(store, "t", 1)


def test_reading_a_read_only_connection(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        fill_for_reading(store)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        with EventStore(f"sqlite:///file:{path}?mode=ro&immutable=1&uri=true") as store:
            read_everything(store)
            with pytest.raises(StoreUnavailableError):
                fill(store, "t", 1)
    finally:
        tmp_path.chmod(0o755)


# --- counting ---------------------------------------------------------------------------


def test_stats_count_what_is_there(store: EventStore) -> None:
    assert store.stats().events == 0
    fill_for_reading(store)
    of_t, of_f, of_all = store.stats("t"), store.stats("f"), store.stats()
    assert (of_t.threads, of_t.events, of_t.snapshots) == (1, 300 + 3 + 1 + 1, 1)
    assert of_t.snapshot_bytes == 2
    assert (of_f.events, of_f.snapshots) == (1, 0)
    assert of_all.threads == 2
    for name in ("events", "raw_bytes", "stored_bytes", "snapshots", "snapshot_bytes"):
        assert getattr(of_all, name) == getattr(of_t, name) + getattr(of_f, name)
    payloads = sql(store, "SELECT sum(length(payload)) FROM events")[0][0]
    assert of_all.stored_bytes == payloads
    with pytest.raises(ThreadNotFoundError):
        store.stats("nobody")


def file_size(store: EventStore) -> int:
    if is_sqlite(store):
        return int(sql(store, "PRAGMA page_count")[0][0] * sql(store, "PRAGMA page_size")[0][0])
    return sum(
        sql(store, f"SELECT pg_total_relation_size('{table}')")[0][0]
        for table in tables_by_thread(store)
    )


def test_storage_is_linear_in_what_is_new(store: EventStore) -> None:
    """Ten times the events, ten times the bytes, in the log and in the file."""
    sizes = []
    for thread_id, count in (("small", 200), ("large", 2_000)):
        for seq in range(0, count, 20):
            batch = [
                Event(1, {"role": "user", "n": seq + n, "text": "hello " * 20}) for n in range(20)
            ]
            store.append(thread_id, batch, seq)
        sizes.append((store.stats(thread_id).stored_bytes, file_size(store)))
    (small, file_small), (large, file_large) = sizes
    assert 9.5 * small < large < 10.5 * small
    assert file_large - file_small < 11 * file_small


# --- forks as events --------------------------------------------------------------------


def test_the_driver_that_is_used_is_the_one_we_think(tmp_path: Path) -> None:
    with EventStore(tmp_path / "a.db") as store:
        store.setup()
        module: Any = store.engine.dialect.dbapi
        assert module.sqlite_version == sqlite_driver().sqlite_version
        assert issubclass(sqlite3.OperationalError, Exception)
        assert rows_of(store, 1) == {}
