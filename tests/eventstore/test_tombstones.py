"""Tombstones: what is kept of a deleted thread, and what an erasure leaves out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from eventstore import Addition, Event, EventStore, queries
from eventstore.format import digests
from tests.effort import effort
from tests.eventstore.support import (
    fill,
    orphans,
    rows_of,
    set_everywhere,
    sql,
    tables_by_thread,
)

# --- tombstones -------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had ended here."""


def test_who_ends_a_deletion_writes_the_tombstone_that_was_meant(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store_url == "sqlite://":
        pytest.skip("it does not outlive its store")
    set_everywhere(monkeypatch, "DELETE_BATCH", 3)
    with EventStore(store_url) as store:
        fill(store, "t", 10)
        size = store.stats("t").stored_bytes
        removed = store.core._remove

        async def cut_short(*_: Any) -> None:
            raise Killed

        monkeypatch.setattr(store.core, "_remove", cut_short)
        with pytest.raises(Killed):
            store.delete_thread("t", "court", policy="p", asked_by="dpo", erase=True)
        monkeypatch.setattr(store.core, "_remove", removed)
        key = sql(store, "SELECT thread_key FROM threads")[0][0]
        sql(store, "DELETE FROM events WHERE seq < 5")  # it had got that far
    with EventStore(store_url) as store:
        assert store.finish_deletions("another reason") == 1
        (grave,) = store.tombstones()
        assert (grave.reason, grave.policy, grave.asked_by) == ("court", "p", "dpo")
        assert (grave.events, grave.bytes, grave.erased) == (10, size, True)
        assert rows_of(store, key) == {}


def test_tombstones_come_in_pages_the_last_first(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    for number in range(7):
        fill(store, "t", 1)
        store.delete_thread("t", f"{number}")
        clock(timedelta(seconds=number % 2))  # some at the same moment
    fill(store.with_tenant("other"), "t", 1)
    store.with_tenant("other").delete_thread("t")
    found, after = [], None
    while page := store.tombstones(3, after):
        found += page
        after = page[-1]
    assert sorted(grave.reason for grave in found) == [f"{number}" for number in range(7)]
    moments = [grave.deleted_at for grave in found]
    assert moments == sorted(moments, reverse=True)


# --- erasure ----------------------------------------------------------------------------


def everything(store: EventStore) -> list[Any]:
    """Every value in every table."""
    tables = [*tables_by_thread(store), "eventstore_secrets", "retention_sweeps"]
    rows = [row for table in tables for row in sql(store, f"SELECT * FROM {table}")]
    return [bytes(v) if isinstance(v, memoryview) else v for row in rows for v in row]


def test_what_is_left_of_an_erased_thread_tells_nothing_of_its_name(store: EventStore) -> None:
    fill(store, "person@example.org", 5)
    assert store.delete_thread("person@example.org", "art. 17", asked_by="dpo", erase=True)
    (grave,) = store.tombstones()
    assert (grave.erased, grave.events, grave.reason, grave.asked_by) == (
        True,
        5,
        "art. 17",
        "dpo",
    )
    left = everything(store)
    name = ("test", "person@example.org")
    assert name[1] not in left
    assert digests.name_digest(*name) not in left
    for life in range(10):
        assert digests.thread_key(*name, life) not in left
    # With the secret it can still be told that this is the one.
    ((secret,),) = sql(store, "SELECT value FROM eventstore_secrets")
    secret = bytes(secret)
    assert len(secret) == 32
    assert grave.name_digest == digests.keyed_name_digest(secret, *name)
    assert grave.thread_key == digests.tombstone_key(secret, digests.thread_key(*name, 0))


BEGINNINGS: dict[str, Callable[[EventStore], Any]] = {
    "append": lambda store: store.append("t", [Event(1)], 0),
    "several": lambda store: store.append("t", [Event(1)] * 3, 0),
    "together": lambda store: store.append_together(
        [Addition(store.head("t", ns), [Event(1)]) for ns in ("", "sub")]
    ),
    "fork": lambda store: store.fork("source", 1, "t"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BEGINNINGS)
@pytest.mark.parametrize(
    "erase", effort(["yyy", "nyny", "ynny"], ["yyyyyyy", "nynynny", "ynnnnny"])
)
def test_an_erased_name_is_used_again_and_its_key_never(
    store: EventStore, how: str, erase: str
) -> None:
    fill(store, "source", 1)
    keys = set()
    for count, each in enumerate(erase, 1):
        BEGINNINGS[how](store)
        head = store.head("t")
        keys.add(head.thread_key)
        assert len(keys) == count
        store.append("t", [Event(1)], 0, "another log")
        store.append("t", [Event(1)], head.seq)
        assert store.verify("t").ok
        assert store.delete_thread("t", erase=each == "y")
        assert not store.head("t").exists
    assert orphans(store) == {}


def test_a_thread_that_is_erased_behind_the_back_of_its_maker(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looked at the tombstones before the first erasure has to look again."""
    fill(store, "source", 1)
    fill(store, "t", 1)
    key = store.head("t").thread_key
    store.delete_thread("t", erase=True)
    real, looked = queries.tombstones.former_threads, 0

    def former(*args: Any) -> Any:
        nonlocal looked
        looked += 1
        return queries.tombstones.FormerThreads(0, set(), None) if looked == 1 else real(*args)

    monkeypatch.setattr(queries.threads, "former_threads", former)
    store.append_together([Addition(store.head("t", ns), [Event(1)]) for ns in ("", "sub")])
    assert looked > 1
    assert store.head("t").thread_key != key


def test_of_two_who_make_the_secret_one_wins(store_url: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("it has one connection")
    with EventStore(store_url) as one, EventStore(store_url) as other:
        stores = [one, other]
        for number, store in enumerate(stores):
            fill(store, f"t{number}", 1)
        meet = threading.Barrier(2)

        def erase(number: int) -> None:
            meet.wait()
            stores[number].delete_thread(f"t{number}", erase=True)

        threads = [threading.Thread(target=erase, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((value,),) = sql(one, "SELECT value FROM eventstore_secrets")
        expected = {digests.keyed_name_digest(bytes(value), "default", f"t{n}") for n in range(2)}
        assert {grave.name_digest for grave in one.tombstones()} == expected
