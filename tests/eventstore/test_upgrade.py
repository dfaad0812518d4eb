"""A database that was made by an older version comes to have the tables of today, and keeps all."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect

from eventstore import ConcurrencyError, CorruptEventError, Event, EventStore
from eventstore.db.migrations import MIGRATIONS
from eventstore.db.schema import metadata
from eventstore.format import digests
from tests.eventstore.support import data_of, fill, seal_now, sql

ADDED = {
    "threads": ("pin", "fate", "owner"),
    "snapshots": ("step",),
    "tombstones": ("policy", "asked_by"),
}
NEW_TABLES = (
    "segments dictionaries eventstore_secrets retention_slices retention_sweeps eventstore_renewals"
).split()


@pytest.fixture
def store(blocking_store: EventStore) -> EventStore:
    return blocking_store


def test_a_database_from_before_there_was_retention(store: EventStore, store_url: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("it does not outlive its store")
    fill(store, "old", 3)
    for name in NEW_TABLES:
        sql(store, f"DROP TABLE {name}")
    for name, columns in ADDED.items():
        for column in columns:
            sql(store, f"ALTER TABLE {name} DROP COLUMN {column}")
    sql(store, "DELETE FROM eventstore_migrations WHERE name > '0001_log'")
    store.close()
    with EventStore(store_url, tenant=store.tenant) as again:
        assert data_of(again, "old") == [{"n": 1}, {"n": 2}, {"n": 3}]
        fill(again, "new", 1)
        assert again.thread("old").pin is None
        look = inspect(again.engine)
        for table in metadata.sorted_tables:
            found = {column["name"] for column in look.get_columns(table.name)}
            assert found == {column.name for column in table.columns}
        assert sql(again, "SELECT count(*) FROM eventstore_migrations") == [(len(MIGRATIONS),)]


def test_payloads_from_before_there_were_segments(store: EventStore) -> None:
    """Their digests cover them as they are stored: they are read, verified, and never sealed."""
    fill(store, "old", 40)
    key = store.thread("old").thread_key
    digest = digests.genesis(key, "")
    for seq, kind, at, payload in sql(
        store, "SELECT seq, kind, recorded_at, payload FROM events ORDER BY seq"
    ):
        payload = b"\x01" + bytes(payload)[1:]
        digest = digests.link(digest, seq, kind, None, at, payload)
        sql(
            store, "UPDATE events SET payload = ?, digest = ? WHERE seq = ?", (payload, digest, seq)
        )
    fill(store, "old", 40, start=41)
    numbers = [{"n": number} for number in range(1, 81)]
    assert data_of(store, "old") == numbers
    assert store.verify("old").ok
    assert seal_now(store, "old").events == 0
    with store.dump("old") as dump:
        store.delete_thread("old")
        store.load(dump)
    assert data_of(store, "old") == numbers
    sql(store, "UPDATE events SET payload = ? WHERE seq = 20", (payload,))
    with pytest.raises(CorruptEventError, match="seq 20"):
        data_of(store, "old")


def test_a_later_generation_that_was_restored_where_no_other_had_been(
    store: EventStore, store_url: str
) -> None:
    """Nothing stands under the first key of its name, unless the restore leaves it there."""
    for number in range(3):
        fill(store, "t", number + 1)
        if number < 2:
            store.delete_thread("t")
    with store.dump("t") as dump:
        for table in ("events", "threads", "tombstones"):
            sql(store, f"DELETE FROM {table}")
        store.load(dump)
    assert data_of(store, "t") == [{"n": 1}, {"n": 2}, {"n": 3}]
    with pytest.raises(ConcurrencyError):
        store.append("t", [Event(1)], 0)
    if store_url == "sqlite://":
        return
    first = digests.thread_key(store.tenant, "t", 0)
    sql(store, f"DELETE FROM tombstones WHERE thread_key = {first}")
    sql(store, "DELETE FROM eventstore_migrations WHERE name = '0005_first_keys'")
    store.close()
    with EventStore(store_url, tenant=store.tenant) as again:
        assert data_of(again, "t") == [{"n": 1}, {"n": 2}, {"n": 3}]
        with pytest.raises(ConcurrencyError):
            again.append("t", [Event(1)], 0)
        assert again.append("other", [Event(1)], 0) == 1
