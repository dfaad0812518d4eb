"""Damage is found and contained (rule 7): whatever is done to the tables behind our back.

A damaged thread says so wherever it is read; every other thread stays readable.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DataError, ProgrammingError

from eventstore import (
    CorruptEventError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    NewSnapshot,
    RecordedEvent,
)
from eventstore.format import digests
from tests.eventstore.support import (
    FINGERPRINT,
    fill,
    is_sqlite,
    numbers,
    set_everywhere,
    sql,
    sql_without_keys,
    values_of,
)

NS = "sub"
COUNT = 12
VICTIM = 5
QUERY_SECONDS_MAX = 5.0


@pytest.fixture(autouse=True)
def no_endless_queries(store: EventStore) -> None:
    """A query that runs in circles is ended, and fails its test."""
    give_up_at = time.monotonic() + QUERY_SECONDS_MAX

    def connected(connection: Any, _record: Any) -> None:
        if is_sqlite(store):
            connection.set_progress_handler(lambda: int(time.monotonic() > give_up_at), 10_000)
        else:
            connection.execute(f"SET statement_timeout = '{QUERY_SECONDS_MAX}s'")
            connection.commit()

    event.listen(store.engine, "connect", connected)


@pytest.fixture
def damaged(store: EventStore) -> EventStore:
    """A store with a thread to be damaged, and others that must stay readable."""
    for thread_id in ("before", "t", "z"):
        fill(store, thread_id, COUNT)
        fill(store, thread_id, COUNT, NS)
    store.append("t", [Event(1, {"n": 13}, key="k")], COUNT, NS)
    return store


def damage(store: EventStore, *statements: str) -> bool:
    """Do what foreign keys would forbid; false if the database refuses such a value.

    SQLite takes any value in any column; a server that checks them spares its threads the
    damage, and there is nothing to be found.
    """
    try:
        sql_without_keys(store, *statements)
    except (DataError, ProgrammingError):
        if is_sqlite(store):
            raise
        assert all(store.verify(info.thread_id).ok for info in store.threads())
        return False
    return True


def outcome(call: Callable[[], Any]) -> CorruptEventError | None:
    """How a call that may find damage ends."""
    try:
        call()
    except CorruptEventError as error:
        return error
    return None


def key_of(store: EventStore, thread_id: str = "t") -> int:
    return store.thread(thread_id).thread_key


def others_are_fine(store: EventStore) -> None:
    """Threads beside the damaged one, and its other log."""
    for thread_id in ("before", "z"):
        for ns in ("", NS):
            assert numbers(store.read(thread_id, ns)) == list(range(1, COUNT + 1))
        assert store.verify(thread_id).ok
    assert numbers(store.read("t")) == list(range(1, COUNT + 1))
    assert {info.thread_id for info in store.threads()} == {"before", "t", "z"}
    assert store.stats("z").events == 2 * COUNT


def is_found(store: EventStore, seq: int, *, also: int | None = None) -> None:
    """Reading names the place, gives what stands before it, and verify reports it."""
    calls: list[Callable[[], Iterator[RecordedEvent]]] = [
        lambda: store.read("t", NS),
        lambda: store.replay("t", NS).events,
    ]
    for call in calls:
        seen: list[RecordedEvent] = []
        with pytest.raises(CorruptEventError) as caught:
            seen.extend(call())
        assert (caught.value.thread_id, caught.value.ns) == ("t", NS)
        assert caught.value.seq in (seq, also or seq, 0)  # 0: where the seq itself is lost
        assert "'t'" in str(caught.value)
        assert numbers(seen) == list(range(1, len(seen) + 1))
        assert len(seen) < seq
    report = store.verify("t")
    assert not report.ok
    assert any(NS in problem for problem in report.problems)
    others_are_fine(store)


def flipped(value: Any, chance: random.Random) -> Any:
    """The value with one bit changed, as a bad disk would."""
    if isinstance(value, int):
        return value ^ (1 << chance.randrange(15))
    raw = bytearray(value if isinstance(value, bytes) else value.encode())
    at = chance.randrange(len(raw))
    if isinstance(value, bytes):
        raw[at] ^= 1 << chance.randrange(8)
        return bytes(raw)
    raw[at] ^= 1
    return raw.decode()


@pytest.mark.pairwise
@pytest.mark.parametrize("column", ["kind", "recorded_at", "digest", "payload", "key"])
@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit(damaged: EventStore, column: str, seed: int) -> None:
    seq = COUNT + 1 if column == "key" else VICTIM
    place = (key_of(damaged), NS, seq)
    where = "WHERE thread_key = ? AND ns = ? AND seq = ?"
    ((value,),) = sql(damaged, f"SELECT {column} FROM events {where}", place)
    broken = flipped(value, random.Random(f"{column}{seed}"))
    sql(damaged, f"UPDATE events SET {column} = ? {where}", (broken, *place))
    is_found(damaged, seq)


@pytest.mark.parametrize(
    "change",
    [
        "kind = 70000",
        "kind = -40000",
        "kind = 0",
        "kind = -1",
        "kind = 'text'",
        "kind = 1.5",
        "kind = x'00'",
        "recorded_at = -1",
        "recorded_at = 'text'",
        "recorded_at = x'0011'",
        "recorded_at = 1.5",
        "digest = x''",
        "digest = 'text'",
        "digest = 7",
        "digest = zeroblob(1000)",
        "payload = x''",
        "payload = x'01'",
        "payload = 'text'",
        "payload = 12",
        "payload = zeroblob(100000)",
        "key = 'new'",
        "key = x'ff'",
        "key = CAST(x'fffe80' AS TEXT)",
        "key = 7",
        "seq = 1000",
        "seq = -5",
        "seq = 'text'",
        "ns = 'elsewhere'",
        "ns = x'ff'",
        "ns = CAST(x'fffe' AS TEXT)",
    ],
)
def test_a_column_that_holds_something_else(damaged: EventStore, change: str) -> None:
    where = f"thread_key = {key_of(damaged)} AND ns = '{NS}' AND seq = {VICTIM}"
    if damage(damaged, f"UPDATE events SET {change} WHERE {where}"):
        is_found(damaged, VICTIM)


@pytest.mark.parametrize(
    "change",
    [
        "kind = 70000",
        "digest = 'text'",
        "payload = 12",
        "key = CAST(x'ff' AS TEXT)",
        "digest = x''",
    ],
)
def test_damage_to_the_last_event(damaged: EventStore, change: str) -> None:
    """Where the next append would go on: it may be refused, but with our own words."""
    where = f"thread_key = {key_of(damaged)} AND ns = '{NS}' AND seq = {COUNT + 1}"
    if not damage(damaged, f"UPDATE events SET {change} WHERE {where}"):
        return
    is_found(damaged, COUNT + 1)
    caught = outcome(lambda: fill(damaged, "t", 1, NS))
    assert caught is None or (caught.thread_id, caught.ns) == ("t", NS)
    is_found(damaged, COUNT + 1)


@pytest.mark.parametrize("seq", [1, VICTIM, COUNT])
def test_a_deleted_row(damaged: EventStore, seq: int) -> None:
    sql(damaged, "DELETE FROM events WHERE ns = ? AND seq = ? AND thread_key = ?",
        (NS, seq, key_of(damaged)))  # fmt: skip
    is_found(damaged, seq)


def test_a_deleted_row_with_the_later_ones_moved_up(damaged: EventStore) -> None:
    key = key_of(damaged)
    sql(damaged, f"DELETE FROM events WHERE ns = '{NS}' AND seq = {VICTIM} AND thread_key = {key}")
    for seq in range(VICTIM + 1, COUNT + 2):
        sql(damaged, f"UPDATE events SET seq = {seq - 1} "
                     f"WHERE ns = '{NS}' AND seq = {seq} AND thread_key = {key}")  # fmt: skip
    is_found(damaged, VICTIM)


def test_two_rows_swapped(damaged: EventStore) -> None:
    for before, after in ((VICTIM, 999), (VICTIM + 2, VICTIM), (999, VICTIM + 2)):
        sql(damaged, "UPDATE events SET seq = ? WHERE ns = ? AND seq = ? AND thread_key = ?",
            (after, NS, before, key_of(damaged)))  # fmt: skip
    is_found(damaged, VICTIM)


def test_payloads_swapped_between_rows(damaged: EventStore) -> None:
    key = key_of(damaged)
    sql(damaged, "UPDATE events SET payload = (SELECT payload FROM events WHERE thread_key = ? "
                 "AND ns = ? AND seq = 7) WHERE thread_key = ? AND ns = ? AND seq = ?",
        (key, NS, key, NS, VICTIM))  # fmt: skip
    is_found(damaged, VICTIM)


def test_logs_swapped_between_threads(store: EventStore) -> None:
    """Each is consistent in itself, but not under the other's name."""
    for thread_id in ("a", "b", "c"):
        fill(store, thread_id, 5)
    a, b = key_of(store, "a"), key_of(store, "b")
    sql_without_keys(
        store,
        f"UPDATE events SET thread_key = 1 WHERE thread_key = {a}",
        f"UPDATE events SET thread_key = {a} WHERE thread_key = {b}",
        f"UPDATE events SET thread_key = {b} WHERE thread_key = 1",
    )
    for thread_id in ("a", "b"):
        with pytest.raises(CorruptEventError) as caught:
            list(store.read(thread_id))
        assert (caught.value.thread_id, caught.value.seq) == (thread_id, 1)
        assert not store.verify(thread_id).ok
    assert store.verify("c").ok


def test_logs_swapped_between_namespaces(damaged: EventStore) -> None:
    key = key_of(damaged)
    sql(damaged, f"UPDATE events SET ns = 'copy' WHERE thread_key = {key} AND ns = '{NS}'")
    with pytest.raises(CorruptEventError) as caught:
        list(damaged.read("t", "copy"))
    assert (caught.value.ns, caught.value.seq) == ("copy", 1)
    assert not damaged.verify("t").ok


def test_a_payload_that_does_not_decode(damaged: EventStore) -> None:
    """The digests are right, the bytes are not: written so by a bad program."""
    key = key_of(damaged)
    rows = sql(damaged, "SELECT seq, kind, key, recorded_at, payload FROM events "
                        "WHERE thread_key = ? AND ns = ? ORDER BY seq", (key, NS))  # fmt: skip
    digest = digests.genesis(key, NS)
    for seq, kind, name, recorded, stored in rows:
        payload = b"\x02\x00\xc1" if seq == VICTIM else bytes(stored)
        digest = digests.link(digest, seq, kind, name, recorded, damaged.codec.body(payload))
        sql(damaged, "UPDATE events SET payload = ?, digest = ? "
                     "WHERE thread_key = ? AND ns = ? AND seq = ?",
            (payload, digest, key, NS, seq))  # fmt: skip
    is_found(damaged, VICTIM)


@pytest.mark.parametrize(
    "change",
    [
        "metadata = 'no json'",
        "metadata = '[1]'",
        "metadata = CAST(x'ff' AS TEXT)",
        "status = CAST(x'fffe' AS TEXT)",
        "created_at = 'text'",
        "active_at = 1.5",
        "active_at = 9000000000000000000",
        "ttl = 'text'",
        "pinned = 'text'",
    ],
)
def test_damage_to_a_threads_row(damaged: EventStore, change: str) -> None:
    """Its own log and all other threads can still be read; listing says what is wrong, or not."""
    if not damage(damaged, f"UPDATE threads SET {change} WHERE thread_id = 't'"):
        return
    for thread_id in ("before", "z"):
        assert numbers(damaged.read(thread_id)) == list(range(1, COUNT + 1))
        assert damaged.verify(thread_id).ok
        assert damaged.thread(thread_id).thread_id == thread_id
    calls: list[Callable[[], Any]] = [
        lambda: damaged.thread("t"),
        lambda: list(damaged.read("t")),
        lambda: damaged.verify("t"),
        lambda: fill(damaged, "t", 1),
    ]
    for call in calls:
        caught = outcome(call)
        assert caught is None or caught.thread_id in ("t", None)
    assert {"before", "z"} <= {info.thread_id for info in damaged.threads()}


# --- forks and snapshots ----------------------------------------------------------------


@pytest.mark.parametrize(
    "change", ["source_seq = 4", "source_seq = 99", "source_ns = 'sub'", "source_thread_key = 5"]
)
def test_a_fork_that_was_bent(store: EventStore, change: str) -> None:
    """The fork event says where it goes on from; the link beside it must say the same."""
    fill(store, "parent", 9)
    fill(store, "parent", 9, "sub", start=100)
    fill(store, "t", 3, start=200)
    store.append("t", [Fork(store.head("parent").position._replace(seq=6))], 3)
    store.append("t", [Event(1, {"n": 300})], 4)
    assert numbers(store.replay("t").events) == [1, 2, 3, 4, 5, 6, 300]
    sql(store, f"UPDATE forks SET {change}")
    with pytest.raises(EventStoreError):
        list(store.replay("t").events)
    assert not store.verify("t").ok
    assert numbers(store.read("parent")) == list(range(1, 10))


def test_a_fork_whose_link_is_missing(store: EventStore) -> None:
    fill(store, "t", 3)
    store.append("t", [Fork(store.head("t").position._replace(seq=1)), Event(1, {"n": 9})], 3)
    sql(store, "DELETE FROM forks")
    assert not store.verify("t").ok
    with pytest.raises(CorruptEventError):
        list(store.replay("t").events)


def with_snapshots(store: EventStore) -> None:
    """Ten events; snapshots at 3, 6 (rests on 3) and 10 (rests on 6), the last at the end."""
    head, rests_on = store.head("t"), None
    for seq in range(1, 11):
        snapshot = None
        if seq in (3, 6, 10):
            items = store.codec.encode(list(range((rests_on or 0) + 1, seq + 1)))
            snapshot = NewSnapshot(FINGERPRINT, b"state", items, rests_on)
            rests_on = seq
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)


def folded(store: EventStore, **options: Any) -> list[int]:
    """The numbers up to the end, through snapshots."""
    replay = store.replay("t", fingerprint=FINGERPRINT, **options)
    items = replay.snapshot.items if replay.snapshot else ()
    start = [number for part in items for number in store.codec.decode(part)]
    return [*start, *(value["n"] for value in values_of(replay))]


@pytest.mark.pairwise
@pytest.mark.parametrize(
    "change",
    [
        "payload = x'00'",
        "payload = 'text'",
        "additions = x''",
        "additions = 5",
        "checksum = x'00'",
        "checksum = 'text'",
        "digest = zeroblob(16)",
        "digest = 'text'",
        "fingerprint = 'other'",
        "fingerprint = CAST(x'ff' AS TEXT)",
        "rests_on = NULL",
        "rests_on = 3",
        "rests_on = 6",
        "rests_on = 10",
        "rests_on = 2",
        "rests_on = 'text'",
        "ns = 'elsewhere'",
        "is_base = 5",
    ],
)
@pytest.mark.parametrize("seq", [3, 6, 10])
def test_a_damaged_snapshot_is_passed_over(store: EventStore, change: str, seq: int) -> None:
    """Whatever is wrong with a snapshot, the answer is the fold of the events."""
    with_snapshots(store)
    wanted = list(range(1, 11))
    assert folded(store) == wanted
    if not damage(store, f"UPDATE snapshots SET {change} WHERE seq = {seq}"):
        return
    assert folded(store) == wanted
    assert folded(store, snapshots=False) == wanted
    fill(store, "t", 1, start=11)
    assert folded(store) == [*wanted, 11]


@pytest.mark.parametrize(("before", "after"), [(3, 10), (6, 10), (3, 9), (6, 5), (10, 9), (10, 12)])
def test_a_snapshot_moved_to_another_seq(store: EventStore, before: int, after: int) -> None:
    with_snapshots(store)
    sql(store, f"DELETE FROM snapshots WHERE seq = {after}")
    sql(store, f"UPDATE snapshots SET seq = {after} WHERE seq = {before}")
    assert folded(store) == list(range(1, 11))
    assert not store.verify("t").ok


def test_a_snapshot_of_another_thread(store: EventStore) -> None:
    with_snapshots(store)
    fill(store, "other", 10, start=100)
    move = f"rests_on = NULL, thread_key = {key_of(store, 'other')}"
    sql_without_keys(store, "DELETE FROM snapshots WHERE seq < 10", f"UPDATE snapshots SET {move}")
    replay = store.replay("other", fingerprint=FINGERPRINT)
    assert replay.snapshot is None
    assert values_of(replay) == [{"n": n} for n in range(100, 110)]


def test_verify_names_damaged_snapshots(store: EventStore) -> None:
    with_snapshots(store)
    assert store.verify("t").snapshots == 3
    sql(store, "UPDATE snapshots SET payload = x'00' WHERE seq = 6")
    (problem,) = store.verify("t").problems
    assert "6" in problem
    sql(store, "DELETE FROM snapshots WHERE seq = 6")
    (problem,) = store.verify("t").problems
    assert "rests on" in problem


def test_a_damaged_base_is_an_error(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is left to fold: it must not be passed over."""
    set_everywhere(monkeypatch, "WHOLE_MAX", 0)
    fill(store, "parent", 10)
    state = store.codec.encode(list(range(1, 11)))
    store.put_snapshot(store.head("parent"), NewSnapshot(FINGERPRINT, state, b""))
    fill(store, "parent", 2, start=11)
    store.fork("parent", 12, "t")
    store.delete_thread("parent")
    fill(store, "u", 2)
    assert store.replay("t", fingerprint="whatever").snapshot is not None
    sql(store, "UPDATE snapshots SET payload = x'00'")
    with pytest.raises(CorruptEventError) as caught:
        list(store.replay("t").events)
    assert (caught.value.thread_id, caught.value.seq) == ("t", 10)
    assert not store.verify("t").ok
    assert numbers(store.read("u")) == [1, 2]
