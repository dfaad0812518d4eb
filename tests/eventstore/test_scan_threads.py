"""Going over all threads by their keys, and who would miss a thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    Fork,
)
from tests.awaited import core_of
from tests.eventstore.support import (
    SOON,
    fill,
    sql,
)

# --- going over all threads -------------------------------------------------------------


def test_a_scan_goes_over_all_threads_by_their_keys(store: EventStore) -> None:
    for number in range(25):
        fill(store, f"t{number}", 1)
    found, after = [], None
    while page := core_of(store).scan(after=after, limit=10):
        assert len(page) <= 10
        found += page
        after = page[-1].thread_key
    keys = [thread.thread_key for thread in found]
    assert keys == sorted(keys)
    assert len(set(keys)) == 25
    part = core_of(store).scan(first=keys[5], last=keys[9])
    assert [thread.thread_key for thread in part] == keys[5:10]
    assert found[0] == store.thread(found[0].thread_id)


def test_a_scan_leaves_out_what_is_being_removed_or_damaged(store: EventStore) -> None:
    for name in ("a", "b", "c", "d"):
        fill(store, name, 1)
    first, second, third, _ = (thread.thread_id for thread in core_of(store).scan())
    sql(store, "UPDATE threads SET condemned_at = 1 WHERE thread_id = ?", (third,))
    sql(store, "UPDATE threads SET metadata = '[' WHERE thread_id = ?", (first,))
    # The first page holds nothing but damage: that is not the end.
    assert [thread.thread_id for thread in core_of(store).scan(limit=1)] == [second]
    assert len(core_of(store).scan()) == 2


def test_a_scan_for_what_may_have_expired(
    store: EventStore, clock: Callable[[timedelta], None]
) -> None:
    moments = []
    for name in ("old", "busy", "new"):
        fill(store, name, 1)
        moments.append(store.thread(name).created_at)
        clock(timedelta(days=1))
    fill(store, "busy", 1, start=2)
    store.append("brief", [Event(1)], 0, ttl=SOON)

    def names(**conditions: Any) -> set[str]:
        return {thread.thread_id for thread in core_of(store).scan(**conditions)}

    assert names(idle_before=moments[0]) == {"old"}
    assert names(idle_before=moments[2]) == {"old", "new"}
    assert names(created_before=moments[1]) == {"old", "busy"}
    assert names(with_ttl=True) == {"brief"}
    assert names(idle_before=moments[0], with_ttl=True) == {"old", "brief"}
    with pytest.raises(ConfigurationError):
        core_of(store).scan(limit=0)


def test_another_tenant_on_the_same_database(store: EventStore) -> None:
    assert core_of(store).tenants() == []
    fill(store, "t", 1)
    other = store.with_tenant("other")
    fill(other, "t", 2)
    fill(other, "u", 2)
    assert (store.tenant, other.tenant) == ("test", "other")
    assert core_of(store).tenants() == core_of(other).tenants() == ["other", "test"]
    assert [len(core_of(each).scan()) for each in (store, other)] == [1, 2]
    assert len(core_of(store).scan(all_tenants=True)) == 3
    assert other.delete_thread("t")
    assert store.head("t").exists
    if isinstance(other, EventStore):
        other.close()
    assert store.head("t").exists
    assert other.head("u").exists


# --- descendants ------------------------------------------------------------------------


def test_descendants_are_who_would_miss_something(store: EventStore) -> None:
    fill(store, "root", 4)
    fill(store, "other", 4)
    store.fork("root", 3, "child")
    fill(store, "child", 2)
    store.fork("child", 3, "grandchild")
    store.fork("other", 2, "stranger")
    store.append("stranger", [Event(1)], 1)
    position = store.head("root").position._replace(seq=2)
    store.append("stranger", [Fork(position), Event(1)], 2)
    store.fork("stranger", 2, "before")  # of a moment before the root came in
    store.fork("stranger", 4, "behind")

    def names(thread_id: str) -> set[str]:
        return {thread.thread_id for thread in store.descendants(thread_id)}

    assert names("root") == {"child", "grandchild", "stranger", "behind"}
    assert names("other") == {"stranger", "before"}
    assert names("grandchild") == set()
    root = store.head("root").thread_key
    store.delete_thread("child")  # the grandchild is given what it needs, of the root as well
    assert names("root") == {"grandchild", "stranger", "behind"}
    store.delete_thread("stranger")
    assert "behind" in names("root")
    assert store.thread_at(root) is not None
