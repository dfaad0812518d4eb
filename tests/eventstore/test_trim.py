"""Trimming: a snapshot becomes the base, what was before it goes, and nothing else changes."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import (
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    PositionNotFoundError,
    ThreadInfo,
    ThreadNotFoundError,
    Trimmed,
)
from tests.eventstore.support import (
    FINGERPRINT,
    rows_of,
    set_everywhere,
    sql,
)
from tests.eventstore.trim_support import grow, points, position, state_of

# --- what goes, and what stays ----------------------------------------------------------


def test_what_is_before_the_point_goes_and_the_state_stays(store: EventStore) -> None:
    grow(store, "t", 10, 3, 6, 8)
    assert points(store, "t") == [3, 6, 8]
    trimmed = store.trim("t", 7)
    assert trimmed == Trimmed(events=6, bytes=trimmed.bytes, snapshots=1, logs=0, base=6)
    assert trimmed.bytes > 0
    assert points(store, "t") == [8]
    assert [event.seq for event in store.read("t")] == [7, 8, 9, 10]
    assert [event.seq for event in store.read("t", after=8)] == [9, 10]
    for seq in range(6, 11):
        assert state_of(store, "t", position(store, "t", seq)) == list(range(1, seq + 1))
    assert state_of(store, "t") == list(range(1, 11))
    assert store.verify("t").ok
    assert store.stats("t").events == 4


def test_positions_before_the_base_are_refused_and_say_where_history_begins(
    store: EventStore,
) -> None:
    grow(store, "t", 10, 3, 6)
    store.trim("t", 6)
    for seq in range(1, 6):
        with pytest.raises(PositionNotFoundError, match="history of thread 't' begins at seq 6"):
            store.replay("t", upto=position(store, "t", seq))
        with pytest.raises(PositionNotFoundError, match="history begins at seq 6"):
            store.fork("t", seq, "other")
    with pytest.raises(PositionNotFoundError, match="history begins at seq 6"):
        store.append("t", [Fork(position(store, "t", 5))], 10)
    for seq in (0, 11):
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=position(store, "t", seq))
    assert not store.head("other").exists


def test_a_log_can_be_cut_at_its_very_end(store: EventStore) -> None:
    grow(store, "t", 5, 3, 5)
    head = store.head("t")
    assert store.trim("t", 5).events == 5
    assert store.head("t") == head
    assert state_of(store, "t") == [1, 2, 3, 4, 5]
    assert list(store.read("t")) == []
    assert store.verify("t").ok
    assert points(store, "t") == []
    assert store.stats("t").events == 0
    grow(store, "t", 8, 7)
    assert state_of(store, "t") == list(range(1, 9))
    assert [event.seq for event in store.read("t")] == [6, 7, 8]
    assert store.verify("t").ok
    assert store.trim("t", 8).events == 2
    assert state_of(store, "t") == list(range(1, 9))
    assert store.verify("t").ok


def test_a_log_of_one_event_can_be_cut(store: EventStore) -> None:
    grow(store, "t", 1, 1)
    assert (store.trim("t", 1).events, store.trim("t", 1).events) == (1, 0)
    assert state_of(store, "t") == [1]
    assert store.verify("t").ok
    grow(store, "t", 2)
    assert state_of(store, "t") == [1, 2]
    assert store.verify("t").ok


def test_what_the_base_rests_on_stays(store: EventStore) -> None:
    head = store.head("t")
    for seq in range(1, 9):
        head = store.append_after(head, [Event(1, {"n": seq})])
        rests_on = {2: None, 4: 2, 6: 4, 8: None}.get(seq, 0)
        if rests_on != 0:
            kept = NewSnapshot(FINGERPRINT, b"s%d" % seq, b"i%d" % seq, rests_on)
            store.put_snapshot(head, kept)
    assert store.trim("t", 6).snapshots == 0
    store.delete_snapshots("t")
    found = store.replay("t", fingerprint="another").snapshot
    assert found is not None
    assert (found.position.seq, found.is_base) == (6, True)
    assert (found.state, found.items) == (b"s6", (b"i2", b"i4", b"i6"))
    with pytest.raises(PositionNotFoundError):  # though a part of the base is from there
        store.replay("t", upto=position(store, "t", 4))
    assert store.verify("t").ok


def test_a_log_whose_base_rests_on_a_snapshot_right_before_it_can_be_cut(store: EventStore) -> None:
    head = store.append_after(store.head("t"), [Event(1, {"n": 1})])
    store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"s1", b"i1"))
    head = store.append_after(head, [Event(1, {"n": 2})])
    store.put_snapshot(head, NewSnapshot(FINGERPRINT, b"s2", b"i2", 1))
    store.trim("t", 2)
    assert store.verify("t").ok
    found = store.replay("t").snapshot
    assert found is not None and found.items == (b"i1", b"i2")
    store.append_after(head, [Event(1, {"n": 3})])
    assert [event.seq for event in store.read("t")] == [3]
    assert store.verify("t").ok


def test_a_second_trim_takes_the_first_base_along(store: EventStore) -> None:
    grow(store, "t", 12, 3, 6, 9)
    store.trim("t", 4)
    second = store.trim("t", 9)
    assert second == Trimmed(6, second.bytes, 2, 0, 9)
    assert [row[0] for row in sql(store, "SELECT seq FROM snapshots")] == [9]
    assert [row[0] for row in sql(store, "SELECT seq FROM events ORDER BY seq")] == [10, 11, 12]


def test_nothing_happens_where_there_is_no_point(store: EventStore) -> None:
    grow(store, "t", 5, 3)
    assert store.trim("t", 2) == Trimmed()
    assert store.trim("t", -1) == Trimmed()
    grow(store, "bare", 5)
    assert store.trim_points("bare") == []
    assert store.trim("bare", 5) == Trimmed()
    with pytest.raises(ThreadNotFoundError):
        store.trim("none", 1)
    with pytest.raises(ThreadNotFoundError):
        store.trim_points("none")


def test_a_dry_run_tells_the_same_and_does_nothing(store: EventStore) -> None:
    grow(store, "t", 10, 3, 6, 8)
    rows = rows_of(store, store.head("t").thread_key)
    told = store.trim("t", 8, dry_run=True)
    assert rows_of(store, store.head("t").thread_key) == rows
    assert store.trim("t", 8) == told
    assert told.events == 8
    assert told.snapshots == 2
    assert store.trim("t", 8, dry_run=True) == Trimmed(base=8)


def test_points_tell_what_policies_ask_for(store_url: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: now) as store:
        grow(store, "t", 3, 3)
        now += timedelta(days=1)
        grow(store, "t", 7, 6)
        three, six = store.trim_points("t")
        assert (three.seq, three.step, three.events) == (3, 30, 3)
        assert (six.seq, six.step, six.events) == (6, 60, 6)
        assert six.recorded_at - three.recorded_at == timedelta(days=1)
        store.trim("t", 3)
        assert [(point.seq, point.events) for point in store.trim_points("t")] == [(6, 3)]


def test_who_says_no_is_asked_in_every_step(store: EventStore, monkeypatch: Any) -> None:
    set_everywhere(monkeypatch, "STEP", 1)
    grow(store, "t", 10, 3, 6, 8)
    asked: list[ThreadInfo] = []

    def keep(info: ThreadInfo) -> bool:
        asked.append(info)
        return len(asked) > 2

    assert store.trim("t", 8, keep_if=keep).base == 6
    assert [info.thread_id for info in asked] == ["t", "t", "t"]
    assert store.trim("t", 8, keep_if=lambda _: True, dry_run=True) == Trimmed(base=6)
    assert state_of(store, "t") == list(range(1, 11))


def test_the_reason_is_in_the_log(
    blocking_store: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    grow(blocking_store, "t", 5, 3)
    with caplog.at_level(logging.INFO, "eventstore"):
        blocking_store.trim("t", 3, "policy 'chat'")
    assert "'t' trimmed (policy 'chat'): its history begins at seq 3" in caplog.text


# --- which snapshots can be believed ----------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE snapshots SET payload = x'00' WHERE seq = 6",
        "UPDATE snapshots SET checksum = x'00' WHERE seq = 6",
        "UPDATE snapshots SET rests_on = 5 WHERE seq = 6",
        "UPDATE snapshots SET fingerprint = 'other' WHERE seq = 6",
        "UPDATE events SET digest = x'00' WHERE seq = 6",
    ],
)
def test_a_log_is_not_cut_at_what_is_not_sound(store: EventStore, damage: str) -> None:
    grow(store, "t", 10, 3, 6, 8)
    sql(store, damage)
    assert points(store, "t") == [3, 8]
    assert store.trim("t", 7).base == 3


def test_a_snapshot_of_other_code_than_the_newest_is_no_point(store: EventStore) -> None:
    grow(store, "t", 6, 3, 6)
    store.put_snapshot(store.head("t"), NewSnapshot("newer", b"7", b""))
    assert points(store, "t") == [6]
    sql(store, "DELETE FROM snapshots WHERE seq = 6")
    assert points(store, "t") == [3]


def test_snapshots_of_other_code_that_rest_on_what_goes_go_with_it(store: EventStore) -> None:
    head = store.head("t")
    for seq in range(1, 9):
        head = store.append_after(head, [Event(1, {"n": seq})])
        told = {2: ("old", None), 4: ("new", None), 5: ("old", 2), 7: ("new", 4)}.get(seq)
        if told:
            store.put_snapshot(head, NewSnapshot(told[0], b"s", b"i", told[1]))
    assert store.trim("t", 4).snapshots == 2
    assert [row[0] for row in sql(store, "SELECT seq FROM snapshots ORDER BY seq")] == [4, 7]
    assert store.verify("t").ok


def chained(store: EventStore, count: int) -> None:
    """Events with a snapshot at each, which rests on the one before."""
    head = store.head("t")
    for seq in range(1, count + 1):
        taken = NewSnapshot(FINGERPRINT, b"s", b"i", seq - 1 or None, step=seq)
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=taken)


def test_what_rests_on_damage_is_not_sound(store: EventStore) -> None:
    chained(store, 6)
    sql(store, "UPDATE snapshots SET payload = x'00' WHERE seq = 4")
    assert points(store, "t") == [1, 2, 3]
    sql(store, "DELETE FROM snapshots WHERE seq = 2")
    assert points(store, "t") == [1]


@pytest.mark.slow
def test_trimming_long_chains_takes_as_long_as_they_are() -> None:
    def calls(count: int) -> int:
        made = 0

        def look(_frame: Any, event: str, _arg: Any) -> None:
            nonlocal made
            made += event == "call"

        with EventStore("sqlite://") as store:
            chained(store, count)
            store.trim("t", 1)
            store.trim_points("t")
            sys.setprofile(look)
            try:
                assert len(store.trim_points("t")) == count - 1
                assert store.trim("t", count).base == count
            finally:
                sys.setprofile(None)
        return made

    assert calls(400) < 3 * calls(200)
