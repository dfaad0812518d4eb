"""Listing threads: filters, pages, ids of any text, metadata of any JSON."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    EventStoreError,
    SerializationError,
    ThreadInfo,
    ThreadNotFoundError,
)
from tests.eventstore.support import check_whole, data_of, fill, rows_of

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> None:
        self.now += timedelta(**time)


def ids(infos: list[ThreadInfo]) -> list[str]:
    """Their names, in order."""
    return [info.thread_id for info in infos]


def test_what_is_known_of_a_thread(store_url: str) -> None:
    clock = Clock()
    with EventStore(store_url, tenant="acme", clock=clock) as store:
        metadata = {"user": "ann", "n": 1, "nested": {"a": [1, None, True]}}
        store.append("t", [Event(1)], 0, status="running", metadata=metadata)
        clock.pass_(seconds=30)
        store.append("t", [Event(1)], 1, metadata={"ignored": "the thread is there"})
        info = store.thread("t")
        assert (info.thread_id, info.tenant, info.status) == ("t", "acme", "running")
        assert (info.created_at, info.metadata) == (NOON, metadata)
        assert info.active_at == NOON, "to the minute, so that a busy thread's row stays"
        assert (info.ttl, info.pinned) == (None, False)
        assert store.threads() == [info]
        clock.pass_(seconds=31)
        store.append("t", [Event(1)], 2)
        assert store.thread("t").active_at == clock.now
        with pytest.raises(ThreadNotFoundError):
            store.thread("T")


def test_status_follows_the_appends(store: EventStore) -> None:
    head = store.append_after(store.head("t"), [Event(1)])
    assert store.thread("t").status == "idle"
    for status in ("running", "waiting", "failed", "idle"):
        head = store.append_after(head, [Event(1)], status=status)
        assert head.status == store.thread("t").status == status
        head = store.append_after(head, [Event(1)])
        assert store.thread("t").status == status
    store.set_thread("t", status="waiting")
    assert store.thread("t").status == "waiting"


def test_what_writes_a_thread_stays_known(store: EventStore) -> None:
    store.append("t", [Event(1)], 0, metadata={"runtime": "langgraph", "a": 1})
    assert store.set_thread("t", metadata={"b": 2}).metadata == {"runtime": "langgraph", "b": 2}
    assert store.set_thread("t", metadata={}).metadata == {"runtime": "langgraph"}
    assert store.set_thread("t", metadata={"runtime": "x"}).metadata == {"runtime": "x"}


def test_changing_what_is_said(store: EventStore) -> None:
    fill(store, "t", 1)
    info = store.set_thread("t", pinned=True, ttl=60, metadata={"a": 1}, status="failed")
    assert (info.pinned, info.ttl, info.metadata, info.status) == (True, 60, {"a": 1}, "failed")
    assert store.thread("t") == info
    assert store.set_thread("t", ttl=None, pinned=False).ttl is None
    assert store.set_thread("t") == store.thread("t")
    with pytest.raises(ThreadNotFoundError):
        store.set_thread("nobody", pinned=True)
    for name in ("condemned_at", "tenant", "color"):
        with pytest.raises(ConfigurationError):
            store.set_thread("t", **{name: 1})


@pytest.mark.parametrize(
    "values",
    [
        {"status": "asleep"},
        {"status": None},
        {"ttl": "soon"},
        {"ttl": -1},
        {"pinned": None},
        {"pinned": "yes"},
        {"metadata": None},
        {"metadata": {"a": {1}}},
        {"metadata": [1]},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(store: EventStore, values: dict[str, Any]) -> None:
    fill(store, "t", 1)
    before = store.thread("t")
    with pytest.raises((ConfigurationError, SerializationError)):
        store.set_thread("t", **values)
    assert store.thread("t") == before


def test_filters(store: EventStore) -> None:
    for name, status, metadata in (
        ("chat-1", "idle", {"user": "ann", "level": 1}),
        ("chat-2", "waiting", {"user": "bob", "level": 1}),
        ("job-1", "waiting", {"user": "ann", "level": 2}),
        ("job-2", "failed", {}),
    ):
        store.append(name, [Event(1)], 0, status=status, metadata=metadata)  # type: ignore[arg-type]
    assert sorted(ids(store.threads())) == ["chat-1", "chat-2", "job-1", "job-2"]
    assert sorted(ids(store.threads(status="waiting"))) == ["chat-2", "job-1"]
    assert sorted(ids(store.threads(prefix="chat"))) == ["chat-1", "chat-2"]
    assert sorted(ids(store.threads(metadata={"user": "ann"}))) == ["chat-1", "job-1"]
    assert ids(store.threads(metadata={"user": "ann", "level": 2})) == ["job-1"]
    assert ids(store.threads(status="waiting", prefix="job", metadata={"level": 2})) == ["job-1"]
    assert store.threads(metadata={"nothing": "like this"}) == []
    assert store.threads(prefix="Chat") == []


@pytest.mark.parametrize(
    "value",
    ["text", "", "1", "true", 1, 0, -7, 2**53, 1.5, -0.25, True, False, None, "ünï", "a'b\"c", "%"],
    ids=repr,
)
def test_metadata_of_several_types(store: EventStore, value: Any) -> None:
    """Each value finds itself and no other one that merely looks like it."""
    others = ["text", "", "1", "true", 1, 0, 1.5, True, False, None, "None", "0", "false", "ünï"]
    store.append("it", [Event(1)], 0, metadata={"a": value})
    store.append("without", [Event(1)], 0, metadata={"b": value})
    for number, other in enumerate(others):
        if not (other == value and type(other) is type(value)):
            store.append(f"other {number}", [Event(1)], 0, metadata={"a": other})
    assert ids(store.threads(metadata={"a": value})) == ["it"]


@pytest.mark.parametrize("name", ["a.b", "a b", "$", '"', "'", "a[0]", "[0]", "", "ünï", "%", "\\"])
def test_metadata_names_of_any_text(store: EventStore, name: str) -> None:
    store.append("it", [Event(1)], 0, metadata={name: "x"})
    store.append("other", [Event(1)], 0, metadata={name: "y", "a": {"b": "x"}})
    assert store.thread("it").metadata == {name: "x"}
    assert ids(store.threads(metadata={name: "x"})) == ["it"]


@pytest.mark.parametrize("prefix", ["%", "_", "a%", "a_", "\\", "/", "[a]", "ünï", "*", "?"])
def test_prefixes_are_taken_literally(store: EventStore, prefix: str) -> None:
    names = ["%", "_", "a%", "a_", "\\", "/", "[a]", "ünï", "*", "?", "abc", "a", "b"]
    for name in names:
        fill(store, name + "x", 1)
    wanted = sorted(name + "x" for name in names if (name + "x").startswith(prefix))
    assert sorted(ids(store.threads(prefix=prefix))) == wanted
    assert len(store.threads(prefix="")) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [False, True], ids=["at one moment", "one a minute"])
def test_pages_over_250_threads(store_url: str, spread: bool) -> None:
    clock = Clock()
    with EventStore(store_url, clock=clock) as store:
        for number in range(250):
            store.append(f"t{number}", [Event(1)], 0, metadata={"even": number % 2 == 0})
            if spread:
                clock.pass_(minutes=1)
        everything = store.threads(limit=1_000)
        assert len(everything) == 250
        if spread:
            assert ids(everything) == [f"t{number}" for number in reversed(range(250))]
        for size in (1, 7, 100, 250):
            pages, after = [], None
            while page := store.threads(after=after, limit=size):
                assert len(page) <= size
                pages += page
                after = page[-1]
                if size == 1 and len(pages) == 20:
                    break
            assert pages == everything[: len(pages)]
        evens, after = 0, None
        while page := store.threads(metadata={"even": True}, after=after, limit=30):
            evens += len(page)
            after = page[-1]
        assert evens == 125
        store.append("t3", [Event(1)], 1)
        if spread:
            assert store.threads(limit=1)[0].thread_id == "t3"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_has_a_bound(store: EventStore, limit: int) -> None:
    for number in range(3):
        fill(store, f"t{number}", 1)
    with contextlib.suppress(ConfigurationError, ValueError):
        assert store.threads(limit=limit) == []


STRANGE = [
    "",
    " ",
    "ünïcödé",
    "日本語",
    "🙂" * 50,
    "e\u0301",
    "é",
    "x" * 100_000,
    "'; DROP TABLE threads; --",
    "../../etc/passwd",
    "line\nbreak",
    "\ufeff",
    "~0000000000000000~",
]


def test_ids_of_any_text(store: EventStore) -> None:
    """The empty one, too: what the caller names is the caller's."""
    for number, name in enumerate(STRANGE):
        assert store.append(name, [Event(1, number)], 0, metadata={"n": number}) == 1
    for number, name in enumerate(STRANGE):
        assert data_of(store, name) == [number]
        assert store.append(name, [Event(1, number)], 1) == 2
        assert store.thread(name).thread_id == name
        assert name in ids(store.threads(prefix=name))
    assert sorted(ids(store.threads())) == sorted(STRANGE)
    assert check_whole(store) == len(STRANGE)
    for name in STRANGE:
        key = store.thread(name).thread_key
        store.delete_thread(name)
        assert rows_of(store, key) == {}


@pytest.mark.parametrize("name", ["\x00", "a\x00b"])
def test_nul_is_refused(store: EventStore, name: str) -> None:
    """PostgreSQL has no text with NUL in it, and SQLite only half."""
    for call in (
        lambda: store.append(name, [Event(1)], 0),
        lambda: store.append("t", [Event(1)], 0, name),
        lambda: store.append("t", [Event(1, key=name)], 0),
        lambda: store.threads(prefix=name),
    ):
        with pytest.raises(ConfigurationError, match="NUL"):
            call()
    assert store.threads() == []


def test_namespaces_of_any_text(store: EventStore) -> None:
    names = [name for name in STRANGE if not name.startswith("~") and len(name) < 1_000]
    names.append("x" * 1_536)
    for number, ns in enumerate(names):
        store.append("t", [Event(1, number)], 0, ns)
    for number, ns in enumerate(names):
        assert data_of(store, "t", ns) == [number]
    report = store.verify("t")
    assert report.ok, report.problems
    assert set(report.namespaces) == set(names)


def test_a_namespace_that_looks_like_a_prefix(store: EventStore) -> None:
    """Names like ~…~ are where forks keep what they were given: not for writers."""
    fill(store, "parent", 3)
    ns = f"~{store.thread('parent').thread_key:016x}~"
    store.fork("parent", 2, "child")
    with contextlib.suppress(EventStoreError, ValueError):
        fill(store, "child", 3, ns, start=900)
    store.delete_thread("parent")
    assert [e.data["n"] for e in store.replay("child").events if e.kind] == [1, 2]
    assert store.verify("child").ok


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_stored_or_refused_in_our_words(store: EventStore, name: str) -> None:
    """No database stores them as text; JSON from a browser may hold them."""
    for call in (
        lambda: store.append(name, [Event(1)], 0),
        lambda: store.append("t", [Event(1)], 0, name),
        lambda: store.append("u", [Event(1, "x", key=name)], 0),
        lambda: store.threads(prefix=name),
        lambda: store.head(name),
    ):
        with contextlib.suppress(EventStoreError):
            call()


@pytest.mark.parametrize("name", [None, 5, b"bytes"])
def test_ids_that_are_not_text_are_refused(store: EventStore, name: Any) -> None:
    with pytest.raises((TypeError, EventStoreError, AttributeError)):
        store.append(name, [Event(1)], 0)
    assert store.threads() == []


def test_tenants_do_not_see_each_other(store: EventStore) -> None:
    with EventStore(store.engine, tenant="other") as other:
        fill(store, "t", 3)
        fill(other, "t", 5, start=100)
        fill(other, "only other's", 1)
        assert [value["n"] for value in data_of(store, "t")] == [1, 2, 3]
        assert ids(store.threads()) == ["t"]
        assert (store.stats().threads, store.stats().events) == (1, 3)
        assert not store.head("only other's").exists
        for call in (store.thread, store.delete_thread, store.verify, store.delete_snapshots):
            with pytest.raises(ThreadNotFoundError):
                call("only other's")
        assert store.thread_at(other.thread("t").thread_key) is None
        store.delete_thread("t")
        assert store.finish_deletions() == 0
        assert len(data_of(other, "t")) == 5


@pytest.mark.parametrize(("one", "two"), [(("a", "bc"), ("ab", "c")), (("1:a", "b"), ("1", ":ab"))])
def test_tenant_and_id_do_not_run_together(
    store: EventStore, one: tuple[str, str], two: tuple[str, str]
) -> None:
    keys = set()
    for tenant, thread_id in (one, two):
        with EventStore(store.engine, tenant=tenant) as opened:
            fill(opened, thread_id, 1)
            keys.add(opened.thread(thread_id).thread_key)
    assert len(keys) == 2
