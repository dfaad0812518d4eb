"""What the explorer asks a store: filters of threads, branches, sizes, and the trail of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    RecordedEvent,
    ThreadNotFoundError,
)
from eventstore.concurrency import run_sync
from eventstore.explain.trail import trail
from eventstore.queries import listing
from tests.eventstore.support import FINGERPRINT, fill

DAY = timedelta(days=1)


def names(found: Any) -> list[str]:
    return sorted(info.thread_id for info in found)


def test_threads_are_filtered_by_pin_and_by_the_time_of_their_last_append(
    store: EventStore,
) -> None:
    for name in ("a", "b", "c"):
        fill(store, name, 1)
    store.pin("b", "a case", "Ann")
    now = datetime.now(UTC)
    assert names(store.threads(pinned=True)) == ["b"]
    assert names(store.threads(pinned=False)) == ["a", "c"]
    assert names(store.threads(active_since=now - DAY)) == ["a", "b", "c"]
    assert names(store.threads(active_since=now + DAY)) == []
    assert names(store.threads(active_until=now - DAY)) == []
    assert names(store.threads(active_until=now + DAY, pinned=True, prefix="b")) == ["b"]
    with pytest.raises(ConfigurationError, match="active_since"):
        store.threads(active_since=datetime(2026, 1, 1))


def test_a_page_of_threads_may_begin_at_a_place_that_was_written_down(store: EventStore) -> None:
    for n in range(5):
        fill(store, f"t{n}", 1)
    first = store.threads(limit=2)
    place = (first[-1].active_at, first[-1].thread_key)
    assert store.threads(after=place) == store.threads(after=first[-1])
    assert len(store.threads(after=place)) == 3
    wrong: Any
    for wrong in ("x", (1, 2), (datetime.now(UTC), "x")):
        with pytest.raises(ConfigurationError):
            store.threads(after=wrong)


def test_branches_are_found_from_both_ends(store: EventStore) -> None:
    fill(store, "a", 4)
    source = store.head("a").position._replace(seq=2)
    store.append("a", [Fork(source), Event(1, {"n": 9})], 4)
    store.append("b", [Fork(source), Event(1, {"n": 9})], 0)
    own, other = store.branches("a")
    assert (own.thread_id, own.at.seq, own.source, own.source_thread_id) == ("a", 5, source, "a")
    assert (other.thread_id, other.at.seq, other.source) == ("b", 1, source)
    (seen,) = store.branches("b")
    assert (seen.thread_id, seen.source_thread_id) == ("b", "a")
    store.delete_thread("a")
    (left,) = store.branches("b")
    assert (left.source, left.source_thread_id) == (source, None)
    with pytest.raises(ThreadNotFoundError):
        store.branches("a")


def test_branches_of_other_tenants_are_not_seen(store: EventStore) -> None:
    fill(store, "a", 1)
    with pytest.raises(ThreadNotFoundError):
        store.with_tenant("other").branches("a")


def test_stored_counts_sealed_events_too(store: EventStore) -> None:
    fill(store, "a", 300)
    fill(store, "b", 2)
    store.seal("a", datetime.now(UTC) + DAY)
    infos = store.threads()
    found = store.stored(infos)
    for info in infos:
        stats = store.stats(info.thread_id)
        assert found[info.thread_key] == (stats.events, stats.stored_bytes)


def test_a_trail_goes_back_through_forks_a_page_at_a_time(blocking_store: EventStore) -> None:
    store = blocking_store
    fill(store, "a", 5)
    store.append("b", [Fork(store.head("a").position._replace(seq=3))], 0)
    fill(store, "b", 4)
    store.append("b", [Fork(store.head("b").position._replace(seq=2)), Event(1, {"n": 9})], 5)
    whole = run_sync(trail(store.core, "b", store.head("b").position, 1_000))
    kinds = [(event.seq, event.kind) for event in whole.events]
    assert kinds == [(7, 1), (6, 0), (2, 1), (1, 0), (3, 1), (2, 1), (1, 1)]
    assert whole.earlier is None
    found: list[RecordedEvent] = []
    here = store.head("b").position
    while True:
        page = run_sync(trail(store.core, "b", here, 2))
        found += page.events
        if page.earlier is None:
            break
        here = page.earlier
    assert found == list(whole.events)


def test_fingerprints_are_those_of_snapshots_up_to_a_position(blocking_store: EventStore) -> None:
    store = blocking_store
    for n, name in enumerate((FINGERPRINT, "other", FINGERPRINT)):
        fill(store, "a", 1)
        store.put_snapshot(store.head("a"), NewSnapshot(name, b"s", b"", None))
        end = store.head("a").position
        assert run_sync(store.core.fingerprints(end))[0] == name
        assert len(run_sync(store.core.fingerprints(end))) == min(n + 1, 2)


def test_filters_of_a_tenant_with_many_threads_find_the_same(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(30):
        fill(store, f"t{n:02}", 1)
    store.with_tenant("other").append("t00", [Event(1, {"n": 1})], 0)
    for n in range(0, 30, 7):
        store.set_thread(f"t{n:02}", status="failed", metadata={"k": n})
    store.pin("t03", "a case", "Ann")

    def found() -> list[Any]:
        first = store.threads(status="failed", limit=3)
        rest = store.threads(status="failed", after=first[-1])
        others = [store.threads(prefix="t1"), store.threads(metadata={"k": 7})]
        return [first, rest, *others, store.threads(pinned=True), store.thread_counts()]

    few = found()
    monkeypatch.setattr(listing, "_MANY", 10)
    assert found() == few
    assert few[-1] == {"failed": 5, "idle": 25} and names(few[-2]) == ["t03"]
