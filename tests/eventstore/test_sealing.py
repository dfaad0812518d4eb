"""Sealing: whatever is packed into segments reads as it did before, and takes less room."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import (
    Codec,
    CorruptEventError,
    DuplicateKeyError,
    Event,
    EventStore,
    Fork,
    Head,
    NewSnapshot,
    Position,
    RecordedEvent,
    ThreadNotFoundError,
)
from eventstore.core import seal
from eventstore.format import digests, segments
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    data_of,
    fill,
    is_sqlite,
    numbers,
    orphans,
    rows_of,
    seal_now,
    set_everywhere,
    sql,
)


def rows(store: EventStore, thread_id: str) -> tuple[int, int]:
    """Rows of events, and of segments."""
    key = store.thread(thread_id).thread_key
    found = rows_of(store, key)
    return found.get("events", 0), found.get("segments", 0)


def without_sizes(events: Iterator[RecordedEvent]) -> list[RecordedEvent]:
    """Events but for the room that they take."""
    return [event._replace(size=0) for event in events]


def everything(store: EventStore, thread_id: str, ns: str = "") -> list[RecordedEvent]:
    return without_sizes(store.read(thread_id, ns))


def test_what_is_sealed_reads_as_before(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    set_everywhere(monkeypatch, "EVENTS_MAX", 10)
    fill(store, "t", 35)
    fill(store, "t", 5, "inner")
    before = everything(store, "t"), everything(store, "t", "inner"), store.head("t")
    stats = store.stats("t")
    sealed = seal_now(store, "t")
    assert (sealed.events, sealed.segments) == (34 + 4, 5)
    assert rows(store, "t") == (2, 5)
    assert (everything(store, "t"), everything(store, "t", "inner"), store.head("t")) == before
    for after in range(0, 35, 3):
        for upto in range(after + 1, 36, 4):
            read = list(store.read("t", after=after, upto=upto))
            assert numbers(read) == list(range(after + 1, upto + 1))
    assert store.verify("t").ok
    now = store.stats("t")
    assert (now.events, now.raw_bytes, now.sealed_events) == (40, stats.raw_bytes, 38)
    assert seal_now(store, "t").events == 0
    fill(store, "t", 20, start=36)
    assert numbers(store.replay("t").events) == list(range(1, 56))
    assert seal_now(store, "t").events == 20
    assert numbers(store.replay("t").events) == list(range(1, 56))
    assert check_whole(store) == 1


def test_what_goes_is_what_a_dry_run_says(store: EventStore) -> None:
    fill(store, "t", 100)
    before = everything(store, "t")
    said = seal_now(store, "t", dry_run=True)
    assert rows(store, "t") == (100, 0)
    assert seal_now(store, "t") == said
    assert everything(store, "t") == before
    assert said.bytes_after < said.bytes_before / 2
    key = store.thread("t").thread_key
    assert sql(store, "SELECT sum(length(payload)) FROM segments WHERE thread_key = ?", (key,)) == [
        (said.bytes_after,)
    ]


def test_only_what_is_old_enough_is_sealed(store_url: str) -> None:
    start = now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: now) as store:
        for _ in range(60):
            fill(store, "t", 1, start=store.head("t").seq + 1)
            now += timedelta(minutes=1)
        assert store.seal("t", start + timedelta(minutes=10)).events == 0  # too few to be worth it
        assert store.seal("t", start + timedelta(minutes=30)).events == 30
        assert store.seal("t", start + timedelta(days=1)).events == 29  # but for the last one
        assert numbers(store.read("t")) == list(range(1, 61))


def test_events_younger_than_a_minute_stay(store: EventStore) -> None:
    fill(store, "t", 50)
    assert store.seal("t", datetime.now(UTC) + timedelta(days=1)).events == 0


def test_keys_are_found_and_stay_taken(store: EventStore) -> None:
    batch = [Event(1, {"n": number}, key=f"k{number}") for number in range(1, 21)]
    store.append("t", batch, 0)
    fill(store, "t", 20, start=21)
    before = everything(store, "t")
    seal_now(store, "t")
    assert rows(store, "t") == (21, 1)  # of a keyed event the key stays where it can be found
    assert everything(store, "t") == before
    assert store.append("t", batch, 0) == 20
    with pytest.raises(DuplicateKeyError):
        store.append("t", [Event(1, {"n": 99}, key="k3")], 40)
    with pytest.raises(DuplicateKeyError):
        store.append_after(store.head("t"), [Event(1, {"n": 99}, key="k3")])
    assert store.verify("t").ok
    store.delete_thread("t")
    assert orphans(store) == {}


def test_a_pinned_thread_can_be_kept_out(store: EventStore) -> None:
    fill(store, "t", 50)
    later = datetime.now(UTC) + timedelta(days=1)
    sealed = store.seal("t", later, keep_if=lambda thread: True)
    assert sealed.events == 0
    assert rows(store, "t") == (50, 0)


def test_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        seal_now(store, "nobody")


def test_forks_into_and_out_of_sealed_logs(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "EVENTS_MAX", 8)
    fill(store, "t", 30)
    seal_now(store, "t")
    for seq in (1, 8, 9, 13, 28, 30):
        store.fork("t", seq, f"f{seq}")
        fill(store, f"f{seq}", 2, start=100)
        assert numbers(store.replay(f"f{seq}").events) == [*range(1, seq + 1), 100, 101]
    key = store.thread("t").thread_key
    store.append("t", [Fork(Position(key, "", 11))], 30)
    fill(store, "t", 3, start=50)
    seal_now(store, "t")
    assert numbers(store.replay("t").events) == [*range(1, 12), 50, 51, 52]
    store.delete_thread("t")
    for seq in (1, 8, 9, 13, 28, 30):
        assert numbers(store.replay(f"f{seq}").events) == [*range(1, seq + 1), 100, 101]
        seal_now(store, f"f{seq}")  # what it was given, too
        assert numbers(store.replay(f"f{seq}").events) == [*range(1, seq + 1), 100, 101]
        assert store.verify(f"f{seq}").ok
    assert orphans(store) == {}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 7)),
        st.tuples(st.just("snapshot"), st.integers(1, 3)),
        st.tuples(st.just("fork"), st.integers(0, 100)),
        st.tuples(st.just("seal"), st.integers(1, 6)),
    ),
    min_size=3,
    max_size=14,
)


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4)
@given(steps)
def test_sealing_anywhere_changes_no_answer(given_steps: list[tuple[str, int]]) -> None:
    """A log that is sealed now and then, and one that never is, say the same everywhere."""
    with (
        EventStore(":memory:") as plain,
        EventStore(":memory:") as packed,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        for store in (plain, packed):
            fill(store, "t", 1)
        for what, n in given_steps:
            heads = [store.head("t") for store in (plain, packed)]
            assert heads[0].seq == heads[1].seq
            for store, head in zip((plain, packed), heads, strict=True):
                if what == "seal":
                    if store is packed:
                        set_everywhere(monkeypatch, "EVENTS_MAX", n)
                        seal_now(store, "t")
                else:
                    _do(store, head, what, n)
        last = plain.head("t")
        key = last.thread_key
        for seq in range(1, last.seq + 1):
            for snapshots in (True, False):
                said = [
                    _said(store, Position(key, "", seq), snapshots) for store in (plain, packed)
                ]
                assert said[0] == said[1]
        for after in range(last.seq):
            told = [[e.data for e in store.read("t", after=after)] for store in (plain, packed)]
            assert told[0] == told[1]
        assert packed.verify("t").ok


def _do(store: EventStore, head: Head, what: str, n: int) -> None:
    if what == "append":
        store.append_after(head, [Event(1, {"n": head.seq + i}) for i in range(n)])
    elif what == "snapshot":
        state = store.codec.encode([what, head.seq + n])
        snapshot = NewSnapshot(FINGERPRINT, state, store.codec.encode([]))
        events = [Event(1, {"n": head.seq + i}) for i in range(n)]
        store.append_after(head, events, snapshot=snapshot)
    else:
        source = Position(head.thread_key, "", 1 + n % head.seq)
        store.append_after(head, [Fork(source)])


def _said(store: EventStore, at: Position, snapshots: bool) -> Any:
    replay = store.replay("t", upto=at, fingerprint=FINGERPRINT, snapshots=snapshots)
    snapshot = replay.snapshot and (replay.snapshot.position, replay.snapshot.state)
    return snapshot, [(event.position, event.data, event.kind) for event in replay.events]


# --- damage -----------------------------------------------------------------------------


@pytest.fixture
def sealed(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> EventStore:
    set_everywhere(monkeypatch, "EVENTS_MAX", 10)
    for name in ("t", "other"):
        fill(store, name, 30)
        seal_now(store, name)
    return store


DAMAGE = {
    "a segment is missing": "DELETE FROM segments WHERE seq = 11 AND thread_key = ?",
    "its payload": "UPDATE segments SET payload = x'0201abcd' WHERE seq = 11 AND thread_key = ?",
    "of another place": "UPDATE segments SET payload = (SELECT s.payload FROM segments s WHERE "
    "s.seq = 1 AND s.thread_key = segments.thread_key) WHERE seq = 11 AND thread_key = ?",
    "its link": "UPDATE segments SET link = x'00000000000000000000000000000000' "
    "WHERE seq = 11 AND thread_key = ?",
    "its digest": "UPDATE segments SET digest = x'00000000000000000000000000000000' "
    "WHERE seq = 11 AND thread_key = ?",
    "its end": "UPDATE segments SET last = 19 WHERE seq = 11 AND thread_key = ?",
    "its end is far": "UPDATE segments SET last = 1000000000 WHERE seq = 11 AND thread_key = ?",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_contained(sealed: EventStore, name: str) -> None:
    key = sealed.thread("t").thread_key
    sql(sealed, DAMAGE[name], (key,))
    assert not sealed.verify("t").ok
    with pytest.raises(CorruptEventError) as caught:
        data_of(sealed, "t")
    assert caught.value.thread_id == "t"
    assert caught.value.seq == 11
    with pytest.raises(CorruptEventError):
        list(sealed.replay("t").events)
    assert numbers(sealed.read("t", upto=10)) == list(range(1, 11))
    assert numbers(sealed.read("other")) == list(range(1, 31))
    assert sealed.verify("other").ok


@pytest.mark.slow
def test_flipped_bytes_of_a_segment_are_found() -> None:
    chosen = random.Random(1)
    with EventStore(":memory:") as store:
        fill(store, "t", 40)
        seal_now(store, "t")
        before = data_of(store, "t")
        ((payload,),) = sql(store, "SELECT payload FROM segments")
        for place in range(len(payload)):
            broken = bytearray(payload)
            broken[place] ^= 1 << chosen.randrange(8)
            sql(store, "UPDATE segments SET payload = ?", (bytes(broken),))
            try:
                # A bit that means nothing in a zstd frame may change; no event ever does.
                assert data_of(store, "t") == before
            except CorruptEventError:
                assert not store.verify("t").ok


def test_a_damaged_log_is_not_sealed(store: EventStore) -> None:
    fill(store, "t", 30)
    key = store.thread("t").thread_key
    payload = store.codec.encode({"n": 77})
    sql(store, "UPDATE events SET payload = ? WHERE seq = 9 AND thread_key = ?", (payload, key))
    with pytest.raises(CorruptEventError, match="9"):
        seal_now(store, "t")
    assert rows(store, "t") == (30, 0)


def test_what_an_older_version_wrote_is_read_and_stays_as_it_is(store_url: str) -> None:
    """Digests of format 1 cover payloads as they are stored."""
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 30)
        as_format_1(store, "t")
        assert numbers(store.read("t")) == list(range(1, 31))
        fill(store, "t", 30, start=31)
        before = everything(store, "t")
        assert seal_now(store, "t").events == 0  # nothing stands before what is sealed
        assert everything(store, "t") == before
        assert store.verify("t").ok
        key = store.thread("t").thread_key
        sql(store, "UPDATE events SET kind = 2 WHERE seq = 4 AND thread_key = ?", (key,))
        assert not store.verify("t").ok


def as_format_1(store: EventStore, thread_id: str) -> None:
    """Rewrite a log as version 1 of the format had it."""
    key = store.thread(thread_id).thread_key
    digest = digests.genesis(key, "")
    query = "SELECT seq, kind, recorded_at, payload FROM events WHERE thread_key = ? ORDER BY seq"
    for seq, kind, recorded_at, payload in sql(store, query, (key,)):
        old = b"\x01" + bytes(payload)[1:]
        digest = digests.link(digest, seq, kind, None, recorded_at, old)
        change = "UPDATE events SET payload = ?, digest = ? WHERE thread_key = ? AND seq = ?"
        sql(store, change, (old, digest, key, seq))


# --- side by side -----------------------------------------------------------------------


def test_two_sealers_and_a_writer_and_a_reader(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, over stores of their own."""
    if store_url == "sqlite://":
        pytest.skip("memory belongs to one store")
    errors: list[BaseException] = []
    done = threading.Event()

    later = datetime.now(UTC) + timedelta(days=1)
    set_everywhere(monkeypatch, "EVENTS_MIN", 1)
    set_everywhere(monkeypatch, "SETTLED_US", -(10**15))

    def seals() -> None:
        with EventStore(store_url) as store:
            while not done.is_set():
                store.seal("t", later)

    def reads() -> None:
        with EventStore(store_url) as store:
            while not done.is_set():
                found = numbers(store.read("t"))
                assert found == list(range(1, len(found) + 1))

    def guarded(run: Any) -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)
            done.set()

    with EventStore(store_url) as store:
        fill(store, "t", 5)
        threads = [threading.Thread(target=guarded, args=(each,)) for each in (seals, seals, reads)]
        for thread in threads:
            thread.start()
        try:
            head = store.head("t")
            for number in range(6, 200):
                head = store.append_after(head, [Event(1, {"n": number})])
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not errors, errors[0]
        assert numbers(store.read("t")) == list(range(1, 200))
        assert check_whole(store) == 1
        if is_sqlite(store):
            assert sql(store, "SELECT count(*) FROM segments") > [(1,)]


@pytest.mark.slow
def test_a_large_event_stops_nothing() -> None:
    """What is before it and what is behind it is sealed all the same."""
    with EventStore(":memory:") as store:
        fill(store, "t", 5)
        big = {"text": "".join(random.Random(1).choices("abcdefgh", k=1_100_000))}
        store.append("t", [Event(1, big)], 5)
        fill(store, "t", 100, start=6)
        with patch.multiple(seal, SETTLED_US=-(10**15)):
            sealed = store.seal("t", datetime.now(UTC) + timedelta(days=1))
        assert (sealed.events, sealed.segments) == (105, 3)
        assert store.verify("t").ok


def test_who_reads_only_small_payloads_reads_segments(store_url: str) -> None:
    with EventStore(store_url, tenant="test", codec=Codec(max_decoded_bytes=2_000)) as store:
        fill(store, "t", 200)
        before = everything(store, "t")
        seal_now(store, "t")
        assert everything(store, "t") == before
        assert store.verify("t").ok


def test_a_key_that_was_lost_is_found_missing(store: EventStore) -> None:
    store.append("t", [Event(1, n, key=f"k{n}") for n in range(20)], 0)
    seal_now(store, "t")
    assert store.verify("t").ok
    key = store.thread("t").thread_key
    sql(store, "DELETE FROM events WHERE seq = 11 AND thread_key = ?", (key,))
    report = store.verify("t")
    assert "k10" in report.problems[0]


@pytest.mark.slow
def test_a_segment_keeps_its_bounds() -> None:
    """A large event does not make a segment of many of them."""
    with EventStore(":memory:") as store:
        big = {"text": "".join(random.Random(1).choices("abcdefgh", k=700_000))}
        for seq in range(6):
            store.append("t", [Event(1, big)], seq)
        assert seal_now(store, "t").segments == 5
        assert [event.data for event in store.read("t")] == [big] * 6
        assert segments.BODIES_MAX == 2**20
