"""What is kept in memory of a log saves reading it, and never changes what is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from eventstore import Event, EventStore, Fork, NewSnapshot, queries
from eventstore.cache import LogCache, Marks
from eventstore.concurrency import iterate_sync, run_sync
from eventstore.core.core import Core
from eventstore.models import Head
from tests.eventstore.support import FINGERPRINT, fill, sql

NO_MARKS = Marks(None, None)


def told(core: Core, thread_id: str, cached: bool) -> tuple[Any, ...]:
    """Everything that a replay says; what is cached is remembered, as a graph does it."""
    replay = run_sync(core.replay(thread_id, fingerprint=FINGERPRINT, cached=cached))
    events = [each for page in iterate_sync(replay.events) for each in page]
    if cached:
        core.cache_replay(replay)
    return replay.head, replay.position, replay.snapshot, events


def state(told: tuple[Any, ...]) -> list[Any]:
    """What a replay leads to, whatever snapshot it began with."""
    _, _, snapshot, events = told
    start = [] if snapshot is None else [n for part in snapshot.items for n in eval(part)]
    return [*start, *(each.data["n"] for each in events if each.kind)]


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with EventStore(store_url, tenant="test") as opened:
        yield opened


@pytest.fixture
def reads(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The tables that events or snapshots were read from.

    The statement that finds a thread may read both: what counts is whether it gave any.
    """
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        for table in ("events", "snapshots"):
            if f"{table}.payload" in statement and statement.lstrip().startswith(
                ("SELECT", "WITH RECURSIVE")
            ):
                if " AS what" not in statement:
                    seen.append(table)

    def load(*args: Any) -> queries.loading.Loaded:
        found = loads(*args)
        seen.extend(["events"] * bool(found.page) + ["snapshots"] * bool(found.chain))
        return found

    loads = queries.loading.load
    monkeypatch.setattr(queries.loading, "load", load)
    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def test_what_was_read_or_appended_is_not_read_again(store: EventStore, reads: list[str]) -> None:
    fill(store, "t", 20)
    first = told(store.core, "t", cached=True)
    assert reads == ["events"]
    assert told(store.core, "t", cached=True) == first
    head = store.append_after(store.head("t"), [Event(1, {"n": 21})])
    store.append_after(
        head,
        [Event(1, {"n": 22})],
        snapshot=NewSnapshot(FINGERPRINT, b"s", repr(list(range(1, 23))).encode()),
    )
    store.append_after(store.head("t"), [Event(1, {"n": 23})])
    reads.clear()
    assert state(told(store.core, "t", cached=True)) == list(range(1, 24))
    assert reads == []
    assert told(store.core, "t", cached=True) == told(store.core, "t", cached=False)


def test_what_others_appended_is_read_and_nothing_else(
    store_url: str, store: EventStore, reads: list[str]
) -> None:
    if store_url == "sqlite://":
        pytest.skip("a database in memory has one store")
    with EventStore(store_url, tenant="test") as other:
        fill(store, "t", 300)
        told(store.core, "t", cached=True)
        told(store.core, "t", cached=True)
        fill(other, "t", 3, start=301)
        reads.clear()
        assert state(told(store.core, "t", cached=True)) == list(range(1, 304))
        other.delete_thread("t")
        fill(other, "t", 2, start=7)
        assert state(told(store.core, "t", cached=True)) == [7, 8]


def test_what_is_cached_of_another_database_is_not_used(store_url: str, store: EventStore) -> None:
    """One that was put in place of this one: the same keys, marks and ends, and other events."""
    if store_url == "sqlite://":
        pytest.skip("a database in memory has one store")
    for start in (1, 101):
        with EventStore(store_url, tenant="test") as other:
            other.setup()
            for table in ("events", "snapshots", "threads"):
                sql(other, f"DELETE FROM {table}")
            fill(other, "t", 2, start=start)
            items = repr([start, start + 1, start + 2]).encode()
            taken = NewSnapshot(FINGERPRINT, b"s", items)
            other.append_after(other.head("t"), [Event(1, {"n": start + 2})], snapshot=taken)
            fill(other, "t", 2, start=start + 3)
        for _ in range(2):
            assert state(told(store.core, "t", cached=True)) == list(range(start, start + 5))


def test_a_deleted_thread_leaves_memory(store: EventStore) -> None:
    fill(store, "t", 3)
    told(store.core, "t", cached=True)
    head = store.head("t")
    assert store.core.cache.get(head, FINGERPRINT, NO_MARKS) is not None
    store.delete_thread("t")
    assert store.core.cache.get(head, FINGERPRINT, NO_MARKS) is None


def test_it_is_bounded_and_lets_go_of_the_oldest() -> None:
    with EventStore(cache_bytes=40_000) as store:
        for n in range(20):
            store.append(f"t{n}", [Event(1, {"n": 1, "text": "x" * n})], 0)
            told(store.core, f"t{n}", cached=True)
        kept = [
            n for n in range(20)
            if store.core.cache.get(store.head(f"t{n}"), FINGERPRINT, NO_MARKS) is not None
        ]  # fmt: skip
        assert kept == list(range(20 - len(kept), 20))
        assert 5 < len(kept) <= 40
        noise = [Event(1, {"n": n, "b": bytes(range(256)) * 10}) for n in range(40)]
        store.append("large", noise, 0)
        told(store.core, "large", cached=True)
        assert store.core.cache.get(store.head("large"), FINGERPRINT, NO_MARKS) is None


def test_none_at_all() -> None:
    cache = LogCache(0)
    with EventStore(cache_bytes=0) as store:
        fill(store, "t", 3)
        told(store.core, "t", cached=True)
        assert store.core.cache.get(store.head("t"), FINGERPRINT, NO_MARKS) is None
    assert cache.get(Head("t", 1, "", 1, b"", True), "", NO_MARKS) is None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4), st.sampled_from([0, 1])),
        st.tuples(st.just("snapshot"), st.integers(1, 2), st.sampled_from([0, 1])),
        st.tuples(st.just("fork"), st.integers(1, 9), st.sampled_from([0, 1])),
        st.tuples(st.just("look"), st.integers(0, 1), st.sampled_from([0, 1])),
        st.tuples(st.just("drop"), st.just(0), st.sampled_from([0, 1])),
        st.tuples(st.just("delete"), st.just(0), st.sampled_from([0, 1])),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25)
@given(steps)
def test_two_stores_write_and_neither_is_misled(
    tmp_path_factory: pytest.TempPathFactory, life: list[tuple[str, int, int]]
) -> None:
    path: Path = tmp_path_factory.mktemp("cached") / "store.db"
    with EventStore(path) as one, EventStore(path) as other:
        stores, count = (one, other), 0
        fill(one, "t", 1, start=0)
        for what, number, who in life:
            store = stores[who]
            head = store.head("t")
            if what == "append" or not head.exists:
                fill(store, "t", number or 1, start=count + 1)
                count += number or 1
            elif what == "snapshot":
                numbers = state(told(store.core, "t", cached=False))
                count += 1
                items = repr([*numbers, count]).encode()
                taken = NewSnapshot(FINGERPRINT, b"s", items)
                store.append_after(head, [Event(1, {"n": count})], snapshot=taken)
            elif what == "fork":
                source = head.position._replace(seq=min(number, head.seq))
                store.append_after(head, [Fork(source)])
            elif what == "drop":
                store.delete_snapshots("t")
            elif what == "delete":
                store.delete_thread("t")
                fill(store, "t", 1, start=count)
            for each in stores if what == "look" else (store,):
                cached, fresh = told(each.core, "t", True), told(each.core, "t", False)
                assert state(cached) == state(fresh)
                assert cached[:2] == fresh[:2]
        for store in stores:
            assert state(told(store.core, "t", True)) == state(told(store.core, "t", False))
