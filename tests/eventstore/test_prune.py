"""Pruning many threads at once: judged again, bounded, whole; and the room given back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    Expired,
    Fork,
    NewSnapshot,
    Outcome,
)
from tests.awaited import core_of
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    fill,
    is_sqlite,
    later,
    orphans,
    rows_of,
    sql,
    tables_by_thread,
)

pytestmark = pytest.mark.every_backend

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def expired(store: EventStore, *names: str, **said: Any) -> list[Expired]:
    """These threads, as ones that may go."""
    given = {"idle_since": later(), "reason": "ttl", **said}
    return [Expired(store.thread(name).thread_key, **given) for name in names]


# --- pruning ----------------------------------------------------------------------------


def full_thread(store: EventStore, name: str) -> int:
    """A thread with rows in every table that threads have rows in; its key."""
    fill(store, name, 3)
    fill(store, name, 2, "sub")
    store.put_snapshot(store.head(name), NewSnapshot(FINGERPRINT, b"s", b"i"))
    head = store.head(name)
    store.append(name, [Fork(head.position._replace(seq=2)), Event(1)], head.seq)
    key = head.thread_key
    values = "(?, 'sealed', 1, 256, x'00', x'00', 1, 9, x'0102')"
    columns = "(thread_key, ns, seq, last, link, digest, recorded_at, raw, payload)"
    sql(store, f"INSERT INTO segments {columns} VALUES {values}", (key,))
    assert rows_of(store, key).keys() == set(tables_by_thread(store)) - {"tombstones"}
    return key


def test_pruning_leaves_nothing_but_a_tombstone(store: EventStore) -> None:
    keys = [full_thread(store, name) for name in ("a", "b", "c")]
    fill(store, "other", 3)
    batch = expired(store, "a", "b", "c", policy="chat")
    assert core_of(store).prune(batch) == ["pruned"] * 3
    for key in keys:
        assert rows_of(store, key) == {}
    assert orphans(store) == {}
    assert check_whole(store) == 1
    graves = store.tombstones()
    assert {grave.thread_key for grave in graves} == set(keys)
    assert {(g.reason, g.policy, g.asked_by, g.erased) for g in graves} == {
        ("ttl", "chat", None, False)
    }
    assert {grave.events for grave in graves} == {7 + 256}
    assert core_of(store).prune(batch) == ["gone"] * 3


def test_pruning_says_what_deleting_one_by_one_says(store: EventStore) -> None:
    full_thread(store, "a")
    full_thread(store, "b")
    core_of(store).prune(expired(store, "a"))
    store.delete_thread("b", "ttl")
    one, other = store.tombstones()
    assert (one.events, one.bytes, one.reason) == (other.events, other.bytes, other.reason)


def test_every_thread_is_judged_again(store: EventStore) -> None:
    for name in ("idle", "pinned", "same", "grown", "gone", "source"):
        fill(store, name, 2)
    batch = [
        *expired(store, "idle"),
        *expired(store, "idle", idle_since=LONG_AGO),
        *expired(store, "pinned"),
        *expired(store, "same", unchanged={"": 2}),
        *expired(store, "grown", unchanged={"": 1}),
        *expired(store, "gone"),
        *expired(store, "source"),
    ]
    idle, *batch = batch
    store.delete_thread("gone")
    store.pin("pinned", "why", "who")
    store.fork("source", 2, "fork")
    found = core_of(store).prune(batch, keep_if=lambda thread: thread.pinned)
    assert found == ["kept", "kept", "pruned", "kept", "gone", "large"]
    assert core_of(store).prune([idle]) == ["pruned"]
    assert {t.thread_id for t in store.threads()} == {"pinned", "grown", "source", "fork"}
    assert check_whole(store) == 4


def test_a_log_that_was_not_archived_keeps_a_thread(store: EventStore) -> None:
    fill(store, "t", 2)
    fill(store, "t", 2, "sub")
    for unchanged in ({"": 2}, {"": 2, "sub": 1}, {"": 2, "sub": 2, "more": 1}):
        assert core_of(store).prune(expired(store, "t", unchanged=unchanged)) == ["kept"]
        assert not store.delete_thread("t", unchanged=unchanged)
    assert store.delete_thread("t", unchanged={"": 2, "sub": 2})


def test_a_fork_that_goes_first_lets_its_source_go(store: EventStore) -> None:
    fill(store, "source", 2)
    store.fork("source", 2, "fork")
    batch = expired(store, "source", "fork")
    assert core_of(store).prune(batch) == ["large", "pruned"]
    assert core_of(store).prune(batch[:1]) == ["pruned"]
    assert orphans(store) == {}


def test_pruning_is_bounded_by_rows(store: EventStore) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in names:
        fill(store, name, 9)  # ten rows with its own
    fill(store, names[3], 20, start=10)
    batch = expired(store, *names)
    outcomes: list[list[Outcome]] = []
    while batch:
        outcomes.append(core_of(store).prune(batch, rows=25, seconds=60))
        batch = batch[len(outcomes[-1]) :]
    assert outcomes[0] == ["pruned", "pruned"]
    assert outcomes[1] == ["pruned", "large", "pruned"]
    assert all(1 <= len(each) <= 3 for each in outcomes)
    assert [thread.thread_id for thread in store.threads()] == [names[3]]
    assert orphans(store) == {}


def test_pruning_is_bounded_by_time(store: EventStore) -> None:
    names = [f"t{number:02}" for number in range(20)]
    for name in names:
        fill(store, name, 1)
    batch = expired(store, *names)
    count = len(core_of(store).prune(batch, seconds=0))
    assert 1 <= count < 20
    assert len(store.threads()) == 20 - count
    assert core_of(store).prune(batch[count:], seconds=60) == ["pruned"] * (20 - count)


def test_what_cannot_be_pruned_at_once(store: EventStore) -> None:
    fill(store, "t", 1)
    assert core_of(store).prune([]) == []
    with pytest.raises(ValueError, match="twice"):
        core_of(store).prune(expired(store, "t", "t"))
    with pytest.raises(ConfigurationError):
        core_of(store).prune(expired(store, "t"), rows=0)


def test_a_damaged_thread_is_kept_and_stops_no_other(store: EventStore) -> None:
    fill(store, "bad", 1)
    fill(store, "good", 1)
    batch = expired(store, "bad", "good")
    sql(store, "UPDATE threads SET metadata = '[' WHERE thread_id = 'bad'")
    assert core_of(store).prune(batch, keep_if=lambda thread: thread.pinned) == ["kept", "pruned"]


def test_an_error_of_the_caller_leaves_all_as_it_was(store: EventStore) -> None:
    for name in ("a", "b"):
        fill(store, name, 1)

    def angry(thread: Any) -> bool:
        if thread.thread_id == "b":
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        core_of(store).prune(expired(store, "a", "b"), keep_if=angry)
    assert check_whole(store) == 2


def test_a_pruned_name_is_used_again_and_its_key_never(store: EventStore) -> None:
    keys = set()
    for count in range(6):
        fill(store, "t", 1)
        keys.add(store.head("t").thread_key)
        assert len(keys) == count + 1
        core_of(store).prune(expired(store, "t"))


# --- room -------------------------------------------------------------------------------


def test_a_file_shrinks_step_by_step(store: EventStore) -> None:
    for number in range(20):
        store.append(f"t{number}", [Event(1, "x" * 50 + str(n)) for n in range(100)], 0)
    core_of(store).prune(expired(store, *(f"t{n}" for n in range(20))), rows=10_000, seconds=60)
    if not is_sqlite(store):
        assert store.reclaim(2**20) == 0
        return
    free = sql(store, "PRAGMA freelist_count")[0][0]
    size = sql(store, "PRAGMA page_size")[0][0]
    steps = []
    while step := store.reclaim(10 * size):
        steps.append(step)
    if store.engine.url.database is None:
        return  # memory has no file; what is free is used again
    assert max(steps) == 10 * size
    assert sum(steps) == free * size
    assert check_whole(store) == 0
    with pytest.raises(ConfigurationError):
        store.reclaim(0)


def test_our_large_tables_are_vacuumed_soon(postgresql_url: str) -> None:
    with EventStore(postgresql_url) as store:
        store.setup()
        said = sql(store, "SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL")
        options = {name: set(given) for name, given in said}
    for table in ("threads", "events", "segments", "snapshots"):
        assert "autovacuum_vacuum_scale_factor=0.02" in options[table]
    assert sum(name.startswith("pg_toast") for name in options) == 4
