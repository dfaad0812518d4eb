"""Work on a damaged thread ends, with an error or done; and long work stops when asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import ConfigurationError, CorruptEventError, Event, EventStore, NewSnapshot
from retention import RetentionPolicy
from tests.awaited import core_of
from tests.eventstore.support import FINGERPRINT, fill, is_sqlite, numbers, set_everywhere, sql
from tests.retention.support import swept


def with_trim_points(store: EventStore, thread_id: str, count: int = 12) -> None:
    """Events with a snapshot at every third."""
    head = store.head(thread_id)
    for n in range(1, count + 1):
        state = NewSnapshot(FINGERPRINT, store.codec.encode(n), b"", step=n)
        snapshot = state if n % 3 == 0 else None
        head = store.append_after(head, [Event(1, {"n": n})], snapshot=snapshot)


@contextmanager
def ignoring(store: EventStore, table: str, change: str) -> Iterator[None]:
    """Deletions from, or updates of, a table have no effect meanwhile, as with a damaged index."""
    if is_sqlite(store):
        sql(
            store,
            f"CREATE TRIGGER keep BEFORE {change} ON {table} BEGIN SELECT RAISE(IGNORE); END",
        )
        yield
        sql(store, "DROP TRIGGER keep")
        return
    body = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    sql(store, f"CREATE OR REPLACE FUNCTION keep() {body}")
    each = "FOR EACH ROW EXECUTE FUNCTION keep()"
    sql(store, f"CREATE TRIGGER keep BEFORE {change} ON {table} {each}")
    yield
    sql(store, f"DROP TRIGGER keep ON {table}")


def test_a_cut_without_effect_is_an_error(store: EventStore) -> None:
    with_trim_points(store, "t")
    with ignoring(store, "events", "DELETE"):
        with pytest.raises(CorruptEventError, match="changes nothing") as caught:
            store.trim("t", 12)
        assert caught.value.thread_id == "t"
        assert numbers(store.read("t")) == list(range(1, 13)), "nothing of it was stored"
        report = swept(store, RetentionPolicy(max_events=3))
        assert (report.failed, report.left) == (1, 1)


def test_a_fork_that_cannot_be_detached_is_an_error(store: EventStore) -> None:
    with_trim_points(store, "t")
    store.fork("t", 5, "fork")
    with ignoring(store, "forks", "UPDATE"):
        with pytest.raises(CorruptEventError, match="changes nothing"):
            store.trim("t", 12)
        with pytest.raises(CorruptEventError, match="cannot be detached"):
            store.delete_thread("t")
    assert numbers(store.replay("fork").events) == [1, 2, 3, 4, 5]


def test_rows_that_cannot_be_removed_are_an_error(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "t", 3)
    set_everywhere(monkeypatch, "DELETE_BATCH", 1)
    refused = pytest.raises(CorruptEventError, match="cannot be removed")
    with ignoring(store, "events", "DELETE"), refused:
        store.delete_thread("t")


def test_a_circle_of_forks_is_an_error(store: EventStore) -> None:
    for name in ("a", "b"):
        fill(store, name, 3)
    keys = {name: store.thread(name).thread_key for name in ("a", "b")}
    insert = (
        "INSERT INTO forks (thread_key, ns, seq, source_thread_key, source_ns, source_seq) "
        "VALUES (?, '', 2, ?, '', 3)"
    )
    sql(store, insert, (keys["a"], keys["b"]))
    sql(store, insert, (keys["b"], keys["a"]))
    with pytest.raises(CorruptEventError, match="circle"):
        list(store.replay("a").events)
    assert not store.verify("a").ok


def test_trimming_sealing_and_deleting_stop_when_asked(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "STEP", 3)
    set_everywhere(monkeypatch, "DELETE_BATCH", 2)
    set_everywhere(monkeypatch, "EVENTS_MIN", 2)
    with_trim_points(store, "t")
    asked: list[int] = []

    def after(times: int) -> Any:
        asked.clear()

        def stop() -> bool:
            asked.append(1)
            return len(asked) > times

        monkeypatch.setattr(store.core, "should_stop", stop)
        return core_of(store)

    assert after(1).trim("t", 12).base == 3
    assert store.verify("t").ok
    assert not after(0).seal("t", datetime.now(UTC) + timedelta(days=1)).events
    assert after(1).delete_thread("t")
    assert store.threads() == []
    assert after(0).finish_deletions() == 0
    assert after(10**6).finish_deletions() == 1


@pytest.mark.parametrize("size", [70_000, 101])
def test_metadata_has_limits(store: EventStore, size: int) -> None:
    value: Any = "x" * size
    if size < 1_000:
        value = 1
        for _ in range(size):
            value = [value]
    with pytest.raises(ConfigurationError, match="metadata"):
        store.append("t", [Event(1)], 0, metadata={"from the client": value})
    assert store.threads() == []
    fill(store, "t", 1)
    with pytest.raises(ConfigurationError, match="metadata"):
        store.set_thread("t", metadata={"from the client": value})


def test_a_checksum_protects_what_no_digest_covers(store: EventStore) -> None:
    for name in ("t", "other"):
        store.append(name, [Event(1)], 0, metadata={"n": 1}, ttl=timedelta(days=1))
    for change in ("metadata = '{\"n\": 2}'", "ttl = 5", "created_at = created_at + 1"):
        before = sql(store, "SELECT metadata, ttl, created_at FROM threads WHERE thread_id = 't'")
        sql(store, f"UPDATE threads SET {change} WHERE thread_id = 't'")
        assert not store.verify("t").ok
        assert [info.thread_id for info in store.threads()] == ["other"]
        assert store.stats().damaged == ("t",)
        sql(
            store,
            "UPDATE threads SET metadata = ?, ttl = ?, created_at = ? WHERE thread_id = 't'",
            before[0],
        )
    assert store.pin("t", "case 12", "legal").pinned
    assert store.verify("t").ok
