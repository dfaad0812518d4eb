"""Appending: batches, refusals, expected heads and keys."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from eventstore import (
    FORK,
    ConcurrencyError,
    DuplicateKeyError,
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    PositionNotFoundError,
    SerializationError,
    ThreadNotFoundError,
)
from tests.eventstore.support import (
    FINGERPRINT,
    data_of,
    fill,
    numbers,
)

pytestmark = pytest.mark.every_backend

# --- appending --------------------------------------------------------------------------


def test_events_come_back_as_they_went_in(store: EventStore) -> None:
    values = [
        None,
        1,
        "text",
        b"bytes",
        [1, [2]],
        {"a": {"b": 1.5}},
        datetime(2024, 1, 1, tzinfo=UTC),
    ]
    batch = [Event(kind, value) for kind, value in enumerate(values, 1)]
    assert store.append("t", batch, 0) == len(values)
    read = list(store.read("t"))
    assert [e.data for e in read] == values
    assert [e.kind for e in read] == list(range(1, len(values) + 1))
    assert [e.seq for e in read] == list(range(1, len(values) + 1))
    assert len({e.digest for e in read}) == len(values)
    assert all(len(e.digest) == 16 and e.ns == "" and e.key is None for e in read)


def test_namespaces_are_logs_of_their_own(store: EventStore) -> None:
    for ns in ("", "child", "child/grandchild", "ns with spaces", "ünï"):
        assert fill(store, "t", 3, ns) == 3
    assert fill(store, "t", 2, "child", start=4) == 5
    assert [e["n"] for e in data_of(store, "t", "child")] == [1, 2, 3, 4, 5]
    assert [e["n"] for e in data_of(store, "t")] == [1, 2, 3]
    assert store.head("t", "never").seq == 0
    assert data_of(store, "t", "never") == []
    assert set(store.verify("t").namespaces) == {
        "",
        "child",
        "child/grandchild",
        "ns with spaces",
        "ünï",
    }


def test_recorded_at_is_the_clocks_time_to_the_microsecond(store_url: str) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, 123457, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: moment) as store:
        store.append("t", [Event(1)], 0)
        (read,) = store.read("t")
        assert read.recorded_at == moment
        assert store.thread("t").created_at == moment


def test_a_clock_that_goes_backwards_harms_nothing(store_url: str) -> None:
    moments = iter(datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=d) for d in range(1000))
    with EventStore(store_url, clock=lambda: next(moments)) as store:
        for seq in range(10):
            store.append("t", [Event(1, seq)], seq)
        assert data_of(store, "t") == list(range(10))
        assert store.verify("t").ok


def test_append_after_saves_the_look_and_returns_the_next_head(store: EventStore) -> None:
    head = store.head("t")
    assert (head.seq, head.exists) == (0, False)
    for number in range(1, 6):
        head = store.append_after(head, [Event(1, number)])
        assert head == store.head("t") or head.seq == store.head("t").seq
        assert head.digest == store.head("t").digest
        assert head.position == store.head("t").position
        assert head.written > 0
    assert data_of(store, "t") == [1, 2, 3, 4, 5]


def test_an_empty_batch_is_refused(store: EventStore) -> None:
    with pytest.raises(ValueError):
        store.append("t", [], 0)
    assert not store.head("t").exists


@pytest.mark.parametrize("kind", [0, -1, 32768, 10**9])
def test_a_kind_out_of_range_is_refused(kind: int) -> None:
    with pytest.raises(ValueError):
        Event(kind)


@pytest.mark.parametrize("expected", [-1, 2, 1_000, 2**62, 2**70])
def test_a_wrong_expected_seq_is_a_concurrency_error(store: EventStore, expected: int) -> None:
    store.append("t", [Event(1)], 0)
    with pytest.raises(ConcurrencyError) as caught:
        store.append("t", [Event(1)], expected, "")
    assert (caught.value.thread_id, caught.value.ns) == ("t", "")
    assert (caught.value.expected, caught.value.actual) == (expected, 1)
    assert store.head("t").seq == 1


def test_expecting_events_of_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError) as caught:
        store.append("t", [Event(1)], 3)
    assert (caught.value.thread_id, caught.value.tenant) == ("t", "test")
    assert not store.head("t").exists


class Opaque:
    """A type that no codec knows."""


def test_what_cannot_be_stored_is_refused_before_anything_is_written(store: EventStore) -> None:
    batch = [Event(1, "fine"), Event(1, {"messages": [1, {"attachment": Opaque()}]})]
    for expected in (0, 1):
        with pytest.raises(SerializationError) as caught:
            store.append("t", batch, expected)
        assert caught.value.path == "messages[1].attachment"
        assert "Opaque" in caught.value.type_name
        assert store.head("t").seq == expected
        if not expected:
            assert not store.head("t").exists
            store.append("t", [Event(1)], 0)


def test_metadata_that_is_not_json_is_a_serialization_error(store: EventStore) -> None:
    with pytest.raises(SerializationError):
        store.append("t", [Event(1)], 0, metadata={"a": Opaque()})
    assert not store.head("t").exists


def test_a_payload_of_a_megabyte(store: EventStore) -> None:
    noise = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(2**15))
    store.append("t", [Event(1, noise), Event(1, "x" * 2**20)], 0)
    assert data_of(store, "t") == [noise, "x" * 2**20]
    stats = store.stats("t")
    assert stats.stored_bytes < 2**20 + 40_000 < stats.raw_bytes


def test_a_batch_of_five_thousand_is_one_transaction(store: EventStore) -> None:
    assert fill(store, "t", 5_000) == 5_000
    assert numbers(store.read("t")) == list(range(1, 5_001))
    batch = [Event(1, n, key=f"k{n}") for n in range(4_999)]
    with pytest.raises(DuplicateKeyError):
        store.append("t", [*batch, Event(1, -1, key="k0")], 5_000)
    assert store.head("t").seq == 5_000


# --- the loser of a race, and keys ------------------------------------------------------


def test_the_losers_batch_leaves_nothing(store: EventStore) -> None:
    stale = store.head("t")
    fill(store, "t", 3)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_after(stale, [Event(1, "lost")])
    assert (caught.value.expected, caught.value.actual) == (0, 3)
    stale = store.head("t")
    fill(store, "t", 2, start=4)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_after(stale, [Event(1, "lost")] * 5)
    assert (caught.value.expected, caught.value.actual) == (3, 5)
    assert numbers(store.read("t")) == [1, 2, 3, 4, 5]


def test_a_snapshot_of_the_loser_is_not_stored(store: EventStore) -> None:
    fill(store, "t", 1)
    stale = store.head("t")
    fill(store, "t", 1, start=2)
    with pytest.raises(ConcurrencyError):
        store.append_after(stale, [Event(1)], snapshot=NewSnapshot(FINGERPRINT, b"", b""))
    assert store.stats("t").snapshots == 0


def test_two_logs_of_a_new_thread_may_be_begun_at_the_same_time(store: EventStore) -> None:
    first, second = store.head("t", "a"), store.head("t", "b")
    assert not first.exists
    assert store.append_after(first, [Event(1, "a")]).seq == 1
    assert store.append_after(second, [Event(1, "b")]).seq == 1
    assert data_of(store, "t", "b") == ["b"]


def test_appending_again_under_the_same_keys_is_harmless(store: EventStore) -> None:
    batch = [Event(1, n, key=f"k{n}") for n in range(3)]
    assert store.append("t", batch, 0) == 3
    assert store.append("t", batch, 0) == 3
    fill(store, "t", 4, start=10)
    assert store.append("t", batch, 0) == 3
    assert store.head("t").seq == 7


def test_a_caller_that_read_the_head_again_may_repeat_its_keys(store: EventStore) -> None:
    """After a crash a caller knows the key of what it wanted to say, and reads the head anew."""
    batch = [Event(1, n, key=f"k{n}") for n in range(3)]
    store.append("t", batch, 0)
    assert store.append("t", batch, 3) == 3
    assert store.head("t").seq == 3


def test_a_key_is_unique_in_its_log_only(store: EventStore) -> None:
    store.append("t", [Event(1, "root", key="k")], 0)
    store.append("t", [Event(1, "child", key="k")], 0, "child")
    store.append("u", [Event(1, "other", key="k")], 0)
    with pytest.raises(DuplicateKeyError) as caught:
        store.append("t", [Event(1, "free", key="free"), Event(1, "other", key="k")], 1)
    error = caught.value
    assert (error.thread_id, error.ns, error.key, error.seq) == ("t", "", "k", 1)
    assert store.head("t").seq == 1


def test_other_content_under_the_same_key_is_an_error_on_retry_too(store: EventStore) -> None:
    store.append("t", [Event(1, "a", key="k")], 0)
    for other in (Event(1, "b", key="k"), Event(2, "a", key="k")):
        with pytest.raises(DuplicateKeyError):
            store.append("t", [other], 0)


def test_a_key_twice_in_one_batch(store: EventStore) -> None:
    with pytest.raises(DuplicateKeyError) as caught:
        store.append("t", [Event(1, 1, key="a"), Event(1, 2, key="a"), Event(1, 3, key="b")], 0)
    assert caught.value.key == "a"
    assert not store.head("t").exists


def test_part_of_a_batch_under_its_keys_is_no_retry(store: EventStore) -> None:
    store.append("t", [Event(1, 1, key="a")], 0)
    with pytest.raises(ConcurrencyError):
        store.append("t", [Event(1, 1, key="a"), Event(1, 2, key="b")], 0)
    assert store.head("t").seq == 1


@pytest.mark.parametrize("key", ["", "ключ", "k" * 1_024, "🔑" * 256, "'; DROP TABLE events; --"])
def test_keys_of_any_text(store: EventStore, key: str) -> None:
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    fill(store, "t", 1)
    assert store.append("t", [Event(1, "x", key=key)], 0) == 1
    assert [e.key for e in store.read("t")] == [key, None]
    assert store.verify("t").ok


# --- forks as events --------------------------------------------------------------------


def test_a_fork_event_names_its_source_and_keeps_its_data(store: EventStore) -> None:
    fill(store, "t", 3)
    source = store.head("t").position._replace(seq=2)
    assert store.append("t", [Fork(source, {"why": "try again"}), Event(1, {"n": 30})], 3) == 5
    fork = next(store.read("t", after=3))
    assert (fork.seq, fork.kind) == (4, FORK)
    assert fork.data["data"] == {"why": "try again"}
    assert list(fork.data["source"]) == list(source)
    assert numbers(store.replay("t").events) == [1, 2, 30]
    assert numbers(store.read("t")) == [1, 2, 3, 30]


def test_unknown_positions_are_refused(store: EventStore) -> None:
    fill(store, "t", 3)
    here = store.head("t").position
    for seq in (0, -1, 4, 2**62):
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=here._replace(seq=seq))
    with pytest.raises(PositionNotFoundError):
        store.replay("t", upto=here._replace(ns="nowhere"))
    with pytest.raises(PositionNotFoundError):
        store.replay("t", upto=here._replace(thread_key=12345))
