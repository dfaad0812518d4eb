"""Names, numbers and times that cannot be stored are refused alike on every database.

The error is a ``ConfigurationError``, raised before anything is written, on every path that takes
such a value.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import ConfigurationError, Event, EventStore, EventStoreError, Fork, Position
from eventstore.limits import (
    KEY_BYTES_MAX,
    NS_BYTES_MAX,
    TENANT_BYTES_MAX,
    THREAD_ID_BYTES_MAX,
    TTL_MAX,
)
from retention import RetentionPolicy, plan
from retention.erasing import erase
from tests.eventstore.support import fill, numbers

pytestmark = pytest.mark.every_backend

NO_NAMES: list[Any] = ["a\0b", "\0", "\ud800", "a\udcffb", b"t", 5, True, None, ["t"]]
NAIVE = datetime(2026, 1, 1)
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def noise(size: int) -> str:
    """Text of this length that nothing can compress to a half."""
    return secrets.token_hex(size // 2 + 1)[:size]


BY_THREAD: dict[str, Callable[[EventStore, Any], object]] = {
    "append": lambda store, name: store.append(name, [Event(1)], 0),
    "head": lambda store, name: store.head(name),
    "read": lambda store, name: list(store.read(name)),
    "replay": lambda store, name: store.replay(name),
    "fork": lambda store, name: store.fork("t", 1, name),
    "fork of": lambda store, name: store.fork(name, 1, "new"),
    "thread": lambda store, name: store.thread(name),
    "namespaces": lambda store, name: store.namespaces(name),
    "snapshot_positions": lambda store, name: store.snapshot_positions(name, "f"),
    "set_thread": lambda store, name: store.set_thread(name, status="idle"),
    "pin": lambda store, name: store.pin(name, "a reason", "me"),
    "unpin": lambda store, name: store.unpin(name),
    "set_ttl": lambda store, name: store.set_ttl(name, None),
    "descendants": lambda store, name: store.descendants(name),
    "delete_thread": lambda store, name: store.delete_thread(name),
    "delete_snapshots": lambda store, name: store.delete_snapshots(name),
    "trim_points": lambda store, name: store.trim_points(name),
    "trim": lambda store, name: store.trim(name, 1),
    "seal": lambda store, name: store.seal(name, MOMENT),
    "dump": lambda store, name: store.dump(name),
    "verify": lambda store, name: store.verify(name),
    "prefix": lambda store, name: store.threads(prefix=name if name is not None else 5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("operation", BY_THREAD)
def test_a_thread_id_that_cannot_be_stored(store: EventStore, operation: str) -> None:
    fill(store, "t", 1)
    for name in NO_NAMES:
        with pytest.raises(ConfigurationError):
            BY_THREAD[operation](store, name)
    assert [info.thread_id for info in store.threads()] == ["t"]


OTHER_NAMES: dict[str, Callable[[EventStore, Any], object]] = {
    "namespace of append": lambda store, name: store.append("t", [Event(1)], 0, name),
    "namespace of head": lambda store, name: store.head("t", name),
    "namespace of read": lambda store, name: list(store.read("t", name)),
    "namespace of replay": lambda store, name: store.replay("t", name),
    "namespace of fork": lambda store, name: store.fork("t", 1, "new", ns=name),
    "namespace of snapshots": lambda store, name: store.snapshot_positions("t", "f", name),
    "namespace of trim points": lambda store, name: store.trim_points("t", name),
    "namespace of a position": lambda store, name: store.replay("t", upto=Position(1, name, 1)),
    "namespace of a source": lambda store, name: store.append("t", [Fork(Position(1, name, 1))], 1),
    "tenant": lambda store, name: store.with_tenant(name),
    "tenant of a new store": lambda store, name: EventStore(tenant=name),
    "fingerprint": lambda store, name: store.replay("t", fingerprint=name),
    "reason of a pin": lambda store, name: store.pin("t", name, "me"),
    "who pins": lambda store, name: store.pin("t", "a reason", name),
    "reason of a deletion": lambda store, name: store.delete_thread("t", name),
}


@pytest.mark.parametrize("operation", OTHER_NAMES)
def test_another_name_that_cannot_be_stored(store: EventStore, operation: str) -> None:
    fill(store, "t", 1)
    for name in NO_NAMES:
        if name is not None:
            with pytest.raises(ConfigurationError):
                OTHER_NAMES[operation](store, name)
    assert numbers(store.read("t")) == [1]


@pytest.mark.parametrize("key", [name for name in NO_NAMES if name is not None])
def test_a_key_that_cannot_be_stored(store: EventStore, key: Any) -> None:
    with pytest.raises(ConfigurationError):
        store.append("t", [Event(1, key="good"), Event(1, key=key)], 0)
    assert not store.head("t").exists


def test_metadata_of_any_text(store: EventStore) -> None:
    """Metadata is JSON, in which any text has a form that every database can store."""
    strange = {"nul": "a\0b", "half": "\ud800", "\0": 1}
    store.append("t", [Event(1)], 0, metadata=strange)
    assert store.thread("t").metadata == strange
    assert [info.thread_id for info in store.threads(metadata={"nul": "a\0b"})] == ["t"]
    assert store.threads(metadata={"half": "\udfff"}) == []


# --- lengths ----------------------------------------------------------------------------


def test_names_of_the_greatest_length(store: EventStore) -> None:
    """They need not be compressible: index entries of PostgreSQL hold 2,704 bytes, compressed."""
    roomy = store.with_tenant(noise(TENANT_BYTES_MAX))
    thread_id, ns, key = noise(THREAD_ID_BYTES_MAX), noise(NS_BYTES_MAX), noise(KEY_BYTES_MAX)
    for end in (0, 0):
        assert roomy.append(thread_id, [Event(1, 1, key=key)], end, ns) == 1
    assert [event.key for event in roomy.read(thread_id, ns)] == [key]
    assert [info.thread_id for info in roomy.threads()] == [thread_id]
    roomy.fork(thread_id, 1, "child", ns=ns)  # is given a copy of it under a longer name
    roomy.delete_thread(thread_id)
    assert roomy.verify("child").ok
    roomy.delete_thread("child")
    assert len(roomy.tombstones()) == 2


@pytest.mark.parametrize("more", [1, 2, 3_000, 10**6])
def test_names_beyond_the_greatest_length(store: EventStore, more: int) -> None:
    longer: dict[str, Callable[[Callable[[int], str]], object]] = {
        "a tenant": lambda text: store.with_tenant(text(TENANT_BYTES_MAX)).append(
            "t", [Event(1)], 0
        ),
        "a thread_id": lambda text: store.append(text(THREAD_ID_BYTES_MAX), [Event(1)], 0),
        "a namespace": lambda text: store.append("t", [Event(1)], 0, text(NS_BYTES_MAX)),
        "a key": lambda text: store.append("t", [Event(1, key=text(KEY_BYTES_MAX))], 0),
    }
    for what, attempt in longer.items():
        for text in (lambda size: noise(size + more), lambda size: "x" * (size + more)):
            with pytest.raises(ConfigurationError, match=f"^{what} must not be longer"):
                attempt(text)
    with pytest.raises(ConfigurationError, match="a key must not be longer than"):
        store.append("t", [Event(1, key="é" * (KEY_BYTES_MAX // 2 + 1))], 0)
    assert store.threads() == []


# --- numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [True, False, 1.5, 1.0, "1", None, 0, -1, 2**15, 2**64])
def test_what_is_no_kind(kind: Any) -> None:
    with pytest.raises(ConfigurationError):
        Event(kind)
    with pytest.raises(ConfigurationError):
        Event(10**5000)


NO_NUMBERS: list[Any] = [True, 1.0, "1", b"1", MOMENT]
NUMBERS: dict[str, Callable[[EventStore, Any], object]] = {
    "expected_seq": lambda store, number: store.append("t", [Event(1)], number),
    "after": lambda store, number: list(store.read("t", after=number)),
    "upto": lambda store, number: list(store.read("t", upto=number)),
    "source_seq": lambda store, number: store.fork("t", number, "new"),
    "seq of a position": lambda store, number: store.replay("t", upto=Position(1, "", number)),
    "key of a position": lambda store, number: store.lineage(Position(number, "", 1)),
    "seq of a source": lambda store, number: store.append("t", [Fork(Position(1, "", number))], 1),
    "limit": lambda store, number: store.threads(limit=number),
    "limit of tombstones": lambda store, number: store.tombstones(limit=number),
    "limit of sweeps": lambda store, number: store.sweeps(limit=number),
    "seq of trim": lambda store, number: store.trim("t", number),
    "thread_key": lambda store, number: store.thread_at(number),
    "ttl": lambda store, number: store.set_thread("t", ttl=number),
}
COMPARED = {"expected_seq", "after", "upto", "source_seq"}
"""Numbers that are only compared: any whole number has a meaning there."""


@pytest.mark.parametrize("operation", NUMBERS)
def test_what_is_no_number(store: EventStore, operation: str) -> None:
    fill(store, "t", 1)
    beyond = [] if operation in COMPARED else [2**63, -(2**63) - 1, 10**5000]
    for number in [*NO_NUMBERS, *beyond]:
        with pytest.raises(ConfigurationError):
            NUMBERS[operation](store, number)
    assert numbers(store.read("t")) == [1]


@pytest.mark.parametrize("limit", [0, -1])
def test_an_empty_page(store: EventStore, limit: int) -> None:
    with pytest.raises(ConfigurationError):
        store.threads(limit=limit)


@pytest.mark.parametrize("position", [5, "abc", (1, ""), None])
def test_what_is_no_position(store: EventStore, position: Any) -> None:
    fill(store, "t", 1)
    with pytest.raises(ConfigurationError):
        store.append("t", [Fork(position)], 1)
    with pytest.raises(ConfigurationError):
        store.lineage(position)


@pytest.mark.parametrize("event", [5, "event", None, (1, "data"), {"kind": 1}])
def test_what_is_no_event(store: EventStore, event: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be Event or Fork"):
        store.append("t", [event], 0)
    assert not store.head("t").exists


@pytest.mark.parametrize("status", ["done", "", 5, True, ["idle"]])
def test_what_is_no_status(store: EventStore, status: Any) -> None:
    fill(store, "t", 1)
    for attempt in (
        lambda: store.append("t", [Event(1)], 1, status=status),
        lambda: store.set_thread("t", status=status),
        lambda: store.threads(status=status),
    ):
        with pytest.raises(ConfigurationError):
            attempt()
    assert store.thread("t").status == "idle"


OPTIONS: list[dict[str, Any]] = [
    {"pool_min_size": "5"},
    {"pool_max_size": 2.5},
    {"pool_max_size": True},
    {"pool_timeout": "30"},
    {"pool_timeout": float("nan")},
    {"pool_timeout": 0},
    {"pool_timeout": True},
    {"cache_bytes": -1},
    {"cache_bytes": "1"},
    {"cache_bytes": 1.5},
    {"schema": ""},
    {"schema": 5},
    {"durability": "most"},
    {"tenant": None},
    {"codec": EventStore},
    {"codec": "msgpack"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        EventStore(**options)


# --- times ------------------------------------------------------------------------------


MOMENTS: dict[str, Callable[[EventStore, Any], object]] = {
    "seal": lambda store, moment: store.seal("t", moment),
    "delete_thread": lambda store, moment: store.delete_thread("t", idle_since=moment),
}


@pytest.mark.parametrize("operation", MOMENTS)
def test_what_is_no_moment(store: EventStore, operation: str) -> None:
    fill(store, "t", 1)
    for moment in (NAIVE, NAIVE.date(), 5, "2026-01-01", timedelta(1)):
        with pytest.raises(ConfigurationError):
            MOMENTS[operation](store, moment)
    assert numbers(store.read("t")) == [1]


@pytest.mark.parametrize("told", [NAIVE, 5, None])
def test_a_clock_without_a_time_zone(told: Any) -> None:
    with (
        EventStore(clock=lambda: told) as store,
        pytest.raises(ConfigurationError, match="clock="),
    ):
        store.append("t", [Event(1)], 0)


@pytest.mark.parametrize(
    "ttl",
    [timedelta.max, timedelta.min, TTL_MAX + timedelta(1), -timedelta(1), 5, 1.5, "1d", NAIVE],
)
def test_what_is_no_ttl(store: EventStore, ttl: Any) -> None:
    fill(store, "t", 1)
    with pytest.raises(ConfigurationError):
        store.set_ttl("t", ttl)
    with pytest.raises(ConfigurationError):
        store.append("new", [Event(1)], 0, ttl=ttl)
    assert [(info.thread_id, info.ttl) for info in store.threads()] == [("t", None)]


def test_the_longest_ttl_can_be_judged(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 1)
        store.set_ttl("t", TTL_MAX)
        assert store.thread("t").ttl == TTL_MAX.total_seconds()
        assert plan(store, RetentionPolicy(timedelta.max)).decisions == ()


def test_what_cannot_be_erased_by_name(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 1)
        for name in NO_NAMES:
            if name is not None:
                with pytest.raises(ConfigurationError):
                    erase(store, "a reason", "me", thread_id=name)
                with pytest.raises(ConfigurationError):
                    erase(store, "a reason", "me", tenant=name)
                with pytest.raises(ConfigurationError):
                    erase(store, name, "me", thread_id="t")
        assert numbers(store.read("t")) == [1]


def test_nothing_else_comes_of_wrong_types(store: EventStore) -> None:
    wrong: Any
    for wrong in (Event(1), 5, None, object(), "event", {"a": 1}):
        with pytest.raises((EventStoreError, ValueError)):
            store.append("t", wrong, 0)
        if wrong is not None:
            with pytest.raises(ConfigurationError):
                store.threads(after=wrong)
            with pytest.raises(ConfigurationError):
                store.tombstones(after=wrong)
        if wrong not in (None, {"a": 1}):
            with pytest.raises(ConfigurationError):
                store.threads(metadata=wrong)
    with pytest.raises(ConfigurationError):
        store.append("t", [Event(1)], 10**5000)
    with pytest.raises(ConfigurationError):
        store.delete_thread("t", None)  # type: ignore[arg-type]
    with pytest.raises(EventStoreError):
        store.append("t", [Event(1)], 0, metadata=[("a", 1)])  # type: ignore[arg-type]
    assert not store.head("t").exists
