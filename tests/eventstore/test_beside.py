"""Appending to several logs of a thread at once: to all of them, or to none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from eventstore import (
    Addition,
    ConcurrencyError,
    ConfigurationError,
    CorruptEventError,
    DuplicateKeyError,
    Event,
    EventStore,
    Fork,
    Head,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    SerializationError,
    ThreadNotFoundError,
)
from eventstore.concurrency import run_sync
from eventstore.models import to_micros
from tests.awaited import finish
from tests.effort import effort
from tests.eventstore.support import (
    FINGERPRINT,
    check_whole,
    fill,
    is_sqlite,
    mark_for_deletion,
    numbers,
    orphans,
    rows_of,
    set_everywhere,
    sql,
)

pytestmark = pytest.mark.every_backend

LOGS = ["", "left", "right"]


def heads(store: EventStore, thread_id: str = "t", logs: Sequence[str] = LOGS) -> list[Head]:
    return [store.head(thread_id, ns) for ns in logs]


def to(ends: Sequence[Head], *given: int) -> list[Addition]:
    """An addition of these numbers to each of the logs."""
    return [Addition(end, [Event(1, {"n": n}) for n in given]) for end in ends]


def contents(store: EventStore, thread_id: str = "t") -> dict[str, list[int]]:
    return {ns: numbers(store.read(thread_id, ns)) for ns in LOGS}


def everywhere(values: list[int]) -> dict[str, list[int]]:
    return {ns: list(values) for ns in LOGS}


def ends_of(found: Sequence[Head]) -> list[tuple[Any, ...]]:
    """What the end of a log is, apart from what an append tells about itself."""
    return [(*each.position, each.digest, each.exists, each.status) for each in found]


# --- all --------------------------------------------------------------------------------


def test_events_go_to_every_log_and_the_new_ends_come_back(store: EventStore) -> None:
    found = heads(store)
    for n in range(1, 4):
        found = store.append_together(to(found, n, 10 * n), status="running" if n > 1 else None)
        assert ends_of(found) == ends_of(heads(store))
        assert all(each.written > 0 for each in found)
    assert contents(store) == everywhere([1, 10, 2, 20, 3, 30])
    assert store.thread("t").status == "running"
    assert store.verify("t").ok


def test_a_new_thread_begins_with_several_logs(store: EventStore) -> None:
    first, *others = store.append_together(
        to(heads(store), 1), metadata={"m": 1}, status="waiting", now_us=5
    )
    assert [each.seq for each in (first, *others)] == [1, 1, 1]
    info = store.thread("t")
    assert (info.metadata, info.status, info.thread_key) == ({"m": 1}, "waiting", first.thread_key)
    assert {each.recorded_us for ns in LOGS for each in store.read("t", ns)} == {5}
    assert store.verify("t").namespaces == tuple(LOGS)


@pytest.mark.parametrize("condemned", [False, True], ids=["buried", "being removed"])
def test_a_name_with_a_former_life(store: EventStore, condemned: bool) -> None:
    fill(store, "t", 3)
    former = store.head("t").thread_key
    if condemned:
        mark_for_deletion(store)
    else:
        store.delete_thread("t")
    found = store.append_together(to(heads(store), 1, 2))
    assert {each.thread_key for each in found} == {store.head("t").thread_key} != {former}
    assert ends_of(found) == ends_of(heads(store))
    assert contents(store) == everywhere([1, 2])
    store.append_together(to(found, 3))
    assert store.verify("t").ok
    store.finish_deletions()
    assert not orphans(store)


@pytest.mark.parametrize("known", LOGS)
def test_ends_that_were_read_before_the_thread_was_there(store: EventStore, known: str) -> None:
    """What one of them knows of the thread holds for all, be it the first or another."""
    fill(store, "t", 1)
    store.delete_thread("t")  # so that the key is another than one might think
    early = {ns: store.head("t", ns) for ns in LOGS}
    fill(store, "t", 2, known)
    found = store.append_together(
        to([{**early, known: store.head("t", known)}[ns] for ns in LOGS], 3)
    )
    assert ends_of(found) == ends_of(heads(store))
    assert contents(store) == {**everywhere([3]), known: [1, 2, 3]}
    assert store.verify("t").ok


def test_a_thread_that_came_meanwhile_is_no_conflict_while_its_logs_are_empty(
    store: EventStore,
) -> None:
    early = heads(store)
    fill(store, "t", 1, "elsewhere")
    found = store.append_together(to(early, 7), status="failed")
    assert ends_of(found) == ends_of(heads(store))
    assert contents(store) == everywhere([7])
    assert store.thread("t").status == "failed"
    assert store.verify("t").ok


def test_each_log_may_get_a_snapshot(store: EventStore) -> None:
    found = store.append_together(to(heads(store), 1, 2))
    states: list[bytes | None] = [b"root", None, b"right"]
    store.append_together(
        [
            Addition(
                end, [Event(1, {"n": 3})], NewSnapshot(FINGERPRINT, state, b"") if state else None
            )
            for end, state in zip(found, states, strict=True)
        ]
    )
    for ns, state in zip(LOGS, states, strict=True):
        replay = store.replay("t", ns, fingerprint=FINGERPRINT)
        assert (replay.snapshot and replay.snapshot.state) == state
        assert numbers(replay.events) == ([] if state else [1, 2, 3])
    assert store.verify("t").ok


def test_the_row_of_the_thread_is_written_once(store_url: str) -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: moment) as store:
        found = store.append_together(to(heads(store), 1))
        statements: list[str] = []
        event.listen(
            store.engine, "before_cursor_execute", lambda *args: statements.append(args[2])
        )
        moment += timedelta(hours=1)
        found = store.append_together(to(found, 2), status="failed")
        assert sum("UPDATE threads" in each for each in statements) == 1
        assert store.thread("t").active_at == moment
        assert store.thread("t").status == "failed"
        statements.clear()
        store.append_together(to(found, 3))
        assert not any("threads" in each for each in statements)


# --- or nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("loser", LOGS)
@pytest.mark.parametrize("new", [True, False], ids=["empty logs", "known logs"])
def test_another_writer_in_one_log_refuses_all(store: EventStore, loser: str, new: bool) -> None:
    fill(store, "t", 1, "elsewhere")
    if not new:
        store.append_together(to(heads(store), 1, 2))
    stale = heads(store)
    fill(store, "t", 1, loser, start=99)
    before = contents(store)
    rows = rows_of(store, store.head("t").thread_key)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_together(to(stale, 3), status="failed")
    expected = 0 if new else 2
    error = caught.value
    assert (error.thread_id, error.ns, error.expected, error.actual) == (
        "t",
        loser,
        expected,
        expected + 1,
    )
    assert contents(store) == before
    assert rows_of(store, store.head("t").thread_key) == rows
    assert store.thread("t").status == "idle"
    store.append_together(to(heads(store), 3))
    assert store.verify("t").ok


@pytest.mark.parametrize("loser", LOGS)
def test_another_writer_made_the_thread_with_one_of_the_logs(store: EventStore, loser: str) -> None:
    stale = heads(store)
    fill(store, "t", 1, loser)
    with pytest.raises(ConcurrencyError) as caught:
        store.append_together(to(stale, 3))
    assert (caught.value.ns, caught.value.expected, caught.value.actual) == (loser, 0, 1)
    assert contents(store) == {**everywhere([]), loser: [1]}


@pytest.mark.parametrize("where", LOGS)
def test_a_key_that_is_taken_refuses_all(store: EventStore, where: str) -> None:
    store.append("t", [Event(1, {"n": 1}, key="k")], 0, where)
    before = contents(store)
    batch = [Event(1, {"n": 2}, key="k")]
    with pytest.raises(DuplicateKeyError) as caught:
        store.append_together([Addition(end, batch) for end in heads(store)])
    assert (caught.value.ns, caught.value.key, caught.value.seq) == (where, "k", 1)
    assert contents(store) == before


@pytest.mark.parametrize("new", [True, False], ids=["new thread", "known thread"])
def test_what_cannot_be_stored_in_one_refuses_all(store: EventStore, new: bool) -> None:
    if not new:
        store.append_together(to(heads(store), 1))
    first, left, right = heads(store)
    wrong: list[tuple[Addition, type[Exception]]] = [
        (Addition(right, [Event(1, object())]), SerializationError),
        (Addition(right, []), ValueError),
        (Addition(first, [Event(1)]), ValueError),
        (Addition(left, [Event(1)]), ValueError),
        (Addition(store.head("u", "right"), [Event(1)]), ValueError),
        (Addition(store.head("t", f"~{7:016x}~"), [Event(1)]), ConfigurationError),
        (Addition(right, [Fork(Position(4711, "", 1))]), PositionNotFoundError),
        (
            Addition(right, [Event(1)], NewSnapshot("\0", b"", b"")),
            ConfigurationError,
        ),
    ]
    before = rows_of(store, first.thread_key)
    for number, (addition, kind) in enumerate(wrong):
        with pytest.raises(kind):
            store.append_together([*to([first, left], 2), addition])
        assert rows_of(store, first.thread_key) == before, number
    with pytest.raises(ValueError):
        store.append_together([])
    assert store.head("t").exists is not new
    assert not store.head("u").exists


def test_messages_name_what_is_wrong(store: EventStore) -> None:
    with pytest.raises(ValueError, match="of one thread, not of 't' and 'u'"):
        store.append_together(to([store.head("t"), store.head("u", "left")], 1))
    with pytest.raises(ValueError, match="'left' is given twice"):
        store.append_together(to(heads(store, logs=["", "left", "left"]), 1))


@pytest.mark.parametrize("damaged", LOGS)
def test_a_log_that_was_damaged_since_refuses_all(store: EventStore, damaged: str) -> None:
    store.append_together(to(heads(store), 1, 2))
    ends = heads(store)
    sql(store, "UPDATE events SET digest = x'00112233' WHERE seq = 2 AND ns = ?", (damaged,))
    with pytest.raises(CorruptEventError) as caught:
        store.append_together(to(ends, 3))
    assert (caught.value.ns, caught.value.seq) == (damaged, 2)
    assert [end.seq for end in heads(store)] == [2, 2, 2]


# --- forks ------------------------------------------------------------------------------


def test_forks_within_the_thread_and_from_another(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for whole in (0, 1_000):
        set_everywhere(monkeypatch, "WHOLE_MAX", whole)
        fill(store, "parent", 6)
        fill(store, "parent", 4, "left", start=50)
        parent = store.head("parent").thread_key
        store.append_together(to(heads(store), 1, 2, 3))
        first, left, right = heads(store)
        store.append_together(
            [
                Addition(first, [Fork(first.position._replace(seq=2)), Event(1, {"n": 4})]),
                Addition(left, [Fork(Position(parent, "", 5)), Event(1, {"n": 5})]),
                # Of events that come with it.
                Addition(right, [Fork(first.position._replace(seq=5)), Event(1, {"n": 6})]),
                Addition(store.head("t", "new"), [Fork(Position(parent, "left", 2))]),
            ]
        )
        wanted = {"": [1, 2, 4], "left": [1, 2, 3, 4, 5, 5], "right": [1, 2, 4, 6], "new": [50, 51]}

        def folded() -> dict[str, list[int]]:
            return {ns: numbers(store.replay("t", ns).events) for ns in wanted}  # noqa: B023

        assert folded() == wanted
        assert store.verify("t").ok
        store.delete_thread("parent")
        assert folded() == wanted
        assert check_whole(store) == 1
        assert not orphans(store)
        store.delete_thread("t")


def test_a_new_thread_may_begin_with_forks_in_several_logs(store: EventStore) -> None:
    fill(store, "parent", 3)
    source = store.head("parent").position
    store.append_together([Addition(end, [Fork(source)]) for end in heads(store)])
    for _ in range(2):
        assert [numbers(store.replay("t", ns).events) for ns in LOGS] == [[1, 2, 3]] * 3
        assert store.verify("t").ok
        if store.head("parent").exists:
            store.delete_thread("parent")
    assert not orphans(store)


def test_a_fork_of_nothing_in_one_log_refuses_all(store: EventStore) -> None:
    fill(store, "parent", 3)
    source = store.head("parent").position._replace(seq=4)
    for new in (True, False):
        ends = heads(store)
        with pytest.raises(PositionNotFoundError) as caught:
            store.append_together([*to(ends[:2], 1), Addition(ends[2], [Fork(source)])])
        assert (caught.value.thread_id, caught.value.seq) == ("t", 4)
        assert store.head("t").exists is not new
        fill(store, "t", 1, "elsewhere")
    assert contents(store) == everywhere([])


# --- the thread goes --------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew"])
@pytest.mark.parametrize("large", [False, True], ids=["buried", "condemned"])
@pytest.mark.parametrize("empty", [False, True], ids=["known logs", "one empty log"])
def test_a_thread_deleted_since_the_ends_were_read(
    store: EventStore, empty: bool, large: bool, again: bool
) -> None:
    logs = LOGS[:2] if empty else LOGS
    store.append_together(to(heads(store, logs=logs), 1, 2))
    stale = heads(store)
    if large:
        sql(store, "UPDATE threads SET condemned_at = 1")
        for ns in logs:
            sql(
                store,
                "INSERT INTO events (thread_key, ns, seq, kind, recorded_at, digest, payload)"
                " VALUES (?, ?, 3, -1, 1, x'00', x'00')",
                (stale[0].thread_key, ns),
            )
    else:
        store.delete_thread("t")
    if again:
        fill(store, "t", 2)
    for order in (stale, stale[::-1]):
        with pytest.raises(ThreadNotFoundError):
            store.append_together(to(order, 3))
    assert store.head("t").exists is again
    if again:
        assert contents(store) == {"": [1, 2], "left": [], "right": []}
    store.finish_deletions()
    assert rows_of(store, stale[0].thread_key) == {}
    assert not orphans(store)


def test_ends_of_two_lives_of_a_name(store: EventStore) -> None:
    fill(store, "t", 1, "left")
    former = store.head("t", "left")
    store.delete_thread("t")
    fill(store, "t", 1)
    for ends in ([store.head("t"), former], [former, store.head("t")]):
        with pytest.raises(ThreadNotFoundError):
            store.append_together(to(ends, 2))
    assert contents(store) == {"": [1], "left": [], "right": []}


# --- what is kept in memory -------------------------------------------------------------


def cached(store: EventStore, ns: str) -> list[Any]:
    """A replay as a graph does it, which keeps and uses what is in memory."""

    async def replay() -> list[Any]:
        found = await store.core.replay("t", ns, fingerprint=FINGERPRINT, cached=True)
        events = [each async for page in found.events for each in page]
        store.core.cache_replay(found)
        state = found.snapshot and store.codec.decode(found.snapshot.state)
        return [*(state or []), *numbers(events)]

    return finish(store, replay(), run_sync)


def test_every_log_is_replayed_as_it_is_right_after(store: EventStore) -> None:
    wanted = everywhere([])

    def check() -> None:
        assert {ns: cached(store, ns) for ns in LOGS} == wanted
        assert {ns: cached(store, ns) for ns in LOGS} == wanted

    check()
    found = store.append_together(to(heads(store), 1, 2))
    wanted = everywhere([1, 2])
    check()
    with_state = NewSnapshot(FINGERPRINT, store.codec.encode([1, 2, 3]), b"")
    found = store.append_together(
        [
            Addition(found[0], [Event(1, {"n": 3})], with_state),
            *to(found[1:], 3),
        ]
    )
    wanted = everywhere([1, 2, 3])
    check()
    back = Fork(found[1].position._replace(seq=1))
    found = store.append_together(
        [*to(found[:1], 4), Addition(found[1], [back]), *to(found[2:], 4)]
    )
    wanted = {"": [1, 2, 3, 4], "left": [1], "right": [1, 2, 3, 4]}
    check()
    store.append_together(to(found[:2], 5))
    wanted[""].append(5)
    wanted["left"].append(5)
    check()
    assert store.verify("t").ok


# --- when a thread was last alive -------------------------------------------------------


def test_when_a_thread_was_last_alive_in_any_log(store: EventStore) -> None:
    def last(thread_id: str = "t") -> int:
        found: int = finish(store, store.core.last_recorded_us(thread_id), run_sync)
        return found

    assert last() == 0
    found = store.append_together(to(heads(store), 1), now_us=1_000)
    assert last() == 1_000
    store.append_after(found[2], [Event(1, {"n": 2})], now_us=2_000)
    assert last() == 2_000
    store.append_after(found[0], [Event(1, {"n": 2})], now_us=3_000)
    assert last() == 3_000
    assert last("nobody") == 0
    store.delete_thread("t")
    assert last() == 0


# --- any order --------------------------------------------------------------------------

WRITERS = 2
moves = st.lists(
    st.tuples(
        st.integers(0, WRITERS - 1),
        st.lists(st.sampled_from(LOGS), min_size=1, unique=True),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=effort(10, 20), suppress_health_check=[*HealthCheck])
@given(moves)
def test_any_order_of_two_writers_leaves_whole_batches(
    store: EventStore, life: list[tuple[int, list[str], int, bool]]
) -> None:
    """Each writer goes on from what it knows, and reads anew only when it is told to."""
    if store.head("t").exists:
        store.delete_thread("t")
    known = [{ns: store.head("t", ns) for ns in LOGS} for _ in range(WRITERS)]
    wanted = everywhere([])
    for number, (writer, logs, count, looks) in enumerate(life, 1):
        mine = known[writer]
        if looks:
            mine |= {ns: store.head("t", ns) for ns in LOGS}
        fresh = all(mine[ns].seq == len(wanted[ns]) for ns in logs)
        batch = to([mine[ns] for ns in logs], *[number] * count)
        if not fresh:
            with pytest.raises(ConcurrencyError) as caught:
                store.append_together(batch)
            error = caught.value
            assert (error.expected, error.actual) == (mine[error.ns].seq, len(wanted[error.ns]))
            assert error.expected != error.actual
            continue
        mine |= dict(zip(logs, store.append_together(batch), strict=True))
        for ns in logs:
            wanted[ns] += [number] * count
        assert contents(store) == wanted
    if any(wanted.values()):
        assert contents(store) == wanted
        assert check_whole(store) == 1
        assert store.verify("t").events == sum(map(len, wanted.values()))


def test_alone_it_is_the_append_that_it_always_was(store_url: str) -> None:
    """One log, no fork, no snapshot: on PostgreSQL a single statement, as before."""
    with EventStore(store_url) as store:
        statements: list[str] = []
        store.setup()
        head = store.head("t")
        event.listen(
            store.engine, "before_cursor_execute", lambda *args: statements.append(args[2])
        )
        for _ in range(3):
            head = store.append_after(head, [Event(1)])
        assert len(statements) == (4 if is_sqlite(store) else 3)


def test_an_append_that_says_nothing_of_the_status_leaves_it(store: EventStore) -> None:
    """Also one whose writer has read another status, and that tells of the thread's activity."""
    store.append("t", [Event(1)], 0, status="running")
    stale = store.head("t", "inner")
    store.set_thread("t", status="failed")
    store.append_after(stale, [Event(1)], now_us=stale.active_us + 120_000_000)
    info = store.thread("t")
    assert info.status == "failed"
    assert to_micros(info.active_at) == stale.active_us + 120_000_000
