"""Trimming: a snapshot becomes the base, what was before it goes, and nothing else changes."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventstore import (
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    ThreadInfo,
    ThreadNotFoundError,
    Trimmed,
)
from eventstore.errors import LineageMovedError
from tests.eventstore.support import (
    FINGERPRINT,
    Copies,
    Watch,
    fill,
    numbers,
    orphans,
    rows_of,
    set_everywhere,
    sql,
)


def grow(store: EventStore, thread_id: str, count: int, *at: int, ns: str = "") -> None:
    """Append events up to seq ``count``, with snapshots at these seqs of what they come to."""
    head = store.head(thread_id, ns)
    for seq in range(head.seq + 1, count + 1):
        head = store.append_after(head, [Event(1, {"n": seq})])
        if seq in at:
            state = ",".join(map(str, state_of(store, thread_id, ns=ns))).encode()
            store.put_snapshot(head, NewSnapshot(FINGERPRINT, state, b"", step=seq * 10))


def state_of(store: EventStore, thread_id: str, at: Position | None = None, ns: str = "") -> Any:
    """The numbers that a fold of the thread comes to."""
    replay = store.replay(thread_id, ns, upto=at, fingerprint=FINGERPRINT)
    before = replay.snapshot.state.decode().split(",") if replay.snapshot else []
    return [*map(int, before), *numbers(replay.events)]


def points(store: EventStore, thread_id: str) -> list[int]:
    return [point.seq for point in store.trim_points(thread_id)]


def position(store: EventStore, thread_id: str, seq: int, ns: str = "") -> Position:
    return store.head(thread_id, ns).position._replace(seq=seq)


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


# --- forks ------------------------------------------------------------------------------


def back(store: EventStore, thread_id: str, seq: int) -> int:
    """Go back to a place of the log."""
    head = store.head(thread_id)
    return store.append_after(head, [Fork(head.position._replace(seq=seq))]).seq


def test_no_cut_between_a_fork_and_where_it_goes_back_to(store: EventStore) -> None:
    grow(store, "t", 8, 2, 4, 6, 8)
    assert back(store, "t", 4) == 9
    grow(store, "t", 12, 11)
    assert points(store, "t") == [2, 4, 11]  # from the base itself a fork may go on
    assert store.trim("t", 10).base == 4
    assert state_of(store, "t") == [1, 2, 3, 4, 10, 11, 12]
    assert store.verify("t").ok
    assert store.trim("t", 12).base == 11
    assert state_of(store, "t") == [1, 2, 3, 4, 10, 11, 12]
    assert store.verify("t").ok


def test_a_fork_right_behind_the_base(store: EventStore) -> None:
    grow(store, "other", 3)
    grow(store, "t", 4, 4)
    head = store.head("t")
    store.append_after(head, [Fork(position(store, "other", 2)), Event(1, {"n": 6})])
    store.trim("t", 4)
    assert state_of(store, "t") == [1, 2, 6]
    assert state_of(store, "t", position(store, "t", 4)) == [1, 2, 3, 4]
    assert store.verify("t").ok


def test_forks_of_other_threads_are_given_what_they_need(store: EventStore) -> None:
    grow(store, "t", 10, 3, 6)
    for seq in (2, 4, 6, 8):
        store.fork("t", seq, f"fork {seq}")
        fill(store, f"fork {seq}", 1, start=100)
    grand = store.head("fork 2")
    store.fork("fork 2", grand.seq, "grandchild")
    assert store.trim("t", 6).base == 6
    key = store.head("t").thread_key
    sources = sql(store, "SELECT source_seq FROM forks WHERE source_thread_key = ?", (key,))
    assert sorted(row[0] for row in sources) == [6, 8]
    for seq in (2, 4, 6, 8):
        assert state_of(store, f"fork {seq}") == [*range(1, seq + 1), 100]
        assert store.verify(f"fork {seq}").ok
    assert state_of(store, "grandchild") == [1, 2, 100]
    store.delete_thread("t")
    for seq in (2, 4, 6, 8):
        assert state_of(store, f"fork {seq}") == [*range(1, seq + 1), 100]
        assert store.verify(f"fork {seq}").ok


@pytest.mark.parametrize("way", ["deleted", "archived"])
def test_a_fork_of_a_log_that_goes_elsewhere_right_behind_its_base(
    store: EventStore, way: str
) -> None:
    """The base alone has the link that the fork event stands behind."""
    grow(store, "u", 10)
    grow(store, "t", 50, 50)
    store.append("t", [Fork(position(store, "u", 7))], 50)
    grow(store, "t", 60)
    assert store.trim("t", 50).base == 50
    store.fork("t", 60, "child")
    wanted = [*range(1, 8), *range(52, 61)]
    assert numbers(store.replay("child").events) == wanted
    if way == "deleted":
        store.delete_thread("t")
        store.delete_thread("u")
    else:
        with store.dump("child") as dump:
            store.delete_thread("child")
            store.load(dump)
    assert numbers(store.replay("child").events) == wanted
    assert store.verify("child").ok
    if way == "deleted":
        assert not orphans(store)


def test_a_trimmed_fork_needs_its_parent_no_more(store: EventStore) -> None:
    grow(store, "parent", 5)
    store.fork("parent", 4, "t")
    head = store.head("t")
    head = store.append_after(
        head, [Event(1, {"n": 2})], snapshot=NewSnapshot(FINGERPRINT, b"1,2,3,4,2", b"")
    )
    fill(store, "t", 1, start=3)
    assert store.trim("t", 2).base == 2
    assert sql(store, "SELECT * FROM forks") == []
    store.delete_thread("parent")
    assert state_of(store, "t") == [1, 2, 3, 4, 2, 3]
    assert store.verify("t").namespaces == ("",)


def test_a_trimmed_fork_is_no_descendant_any_more(store: EventStore) -> None:
    """What guide-archive.md says about erasing: such forks are to be erased by name."""

    def found() -> set[str]:
        return {info.thread_id for info in store.descendants("source")}

    grow(store, "source", 5)
    store.fork("source", 4, "between")
    store.fork("source", 5, "trimmed")
    fill(store, "trimmed", 1)
    store.put_snapshot(store.head("trimmed"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "trimmed", 1, start=2)
    store.append("between", [Event(1, {"n": n}) for n in range(1_200)], 1)
    store.put_snapshot(store.head("between"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "between", 1, start=2)
    store.fork("between", store.head("between").seq, "grandchild")
    assert found() == {"between", "trimmed", "grandchild"}
    store.trim("trimmed", 2)
    assert found() == {"between", "grandchild"}
    store.delete_thread("between")
    assert found() == set()


def test_what_a_fork_was_given_of_a_deleted_parent_goes_when_it_is_trimmed(
    store: EventStore,
) -> None:
    grow(store, "parent", 5)
    store.fork("parent", 4, "t")
    store.delete_thread("parent")
    head = store.append_after(
        store.head("t"), [Event(1, {"n": 2})], snapshot=NewSnapshot(FINGERPRINT, b"1,2", b"")
    )
    grandchild = store.fork("t", 1, "grandchild")
    assert grandchild == 1
    fill(store, "t", 1, start=3)
    trimmed = store.trim("t", head.seq)
    assert trimmed.logs == 1
    assert trimmed.events == 6
    assert state_of(store, "t") == [1, 2, 3]
    assert state_of(store, "grandchild") == [1, 2, 3, 4]
    assert store.verify("t").namespaces == ("",)
    assert store.verify("grandchild").ok


def test_a_key_of_the_last_event_is_known_after_a_trim(store: EventStore) -> None:
    store.append("t", [Event(1, {"n": 1}), Event(1, {"n": 2}, key="k")], 0)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"1,2", b""))
    store.trim("t", 2)
    assert store.append("t", [Event(1, {"n": 2}, key="k")], 1) == 2


def test_keys_of_what_went_are_forgotten(store: EventStore) -> None:
    payment = Event(1, {"pay": 1}, key="payment 1")
    assert store.append("t", [payment], 0) == 1
    fill(store, "t", 4, start=2)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b""))
    fill(store, "t", 1, start=6)
    assert store.append("t", [payment], 0) == 1
    assert store.head("t").seq == 6
    store.trim("t", 5)
    assert store.append("t", [payment], 6) == 7  # a second time, as the documentation says
    assert store.verify("t").ok


def test_a_trimmed_thread_can_be_deleted(store: EventStore, monkeypatch: Any) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", 2)
    grow(store, "t", 10, 3, 10)
    store.trim("t", 3)
    key = store.head("t").thread_key
    store.delete_thread("t")
    assert rows_of(store, key) == {}
    grow(store, "t", 10, 10)
    store.trim("t", 10)
    key = store.head("t").thread_key
    store.delete_thread("t")
    assert rows_of(store, key) == {}


# --- other logs of the thread -----------------------------------------------------------


def test_logs_of_tasks_go_with_what_they_were_for(store: EventStore) -> None:
    grow(store, "t", 10, 5, 9)
    names = ["a:3.0", "a:3.0|b:1.0", "a:3.0|memory", "a:5.0", "a:8.1.2", "memory", "memory:2"]
    names += ["memory|b:2.0", "named:x.y", "a:4.0"]
    for name in names:
        fill(store, "t", 2, name)
    store.append("t", [Fork(position(store, "t", 2, "a:4.0"))], 0, "a:6.0")
    trimmed = store.trim("t", 5)
    assert (trimmed.logs, trimmed.events) == (3, 5 + 6)
    left = {"", "a:5.0", "a:8.1.2", "memory", "memory:2", "memory|b:2.0", "named:x.y"}
    assert set(store.verify("t").namespaces) == left | {"a:4.0", "a:6.0"}
    assert store.verify("t").ok
    with pytest.raises(PositionNotFoundError, match="begins at seq 5"):
        store.replay("t", "a:3.0", upto=position(store, "t", 1, "a:3.0"))
    assert store.trim("t", 9).logs == 4
    assert set(store.verify("t").namespaces) == {
        "",
        "memory",
        "memory:2",
        "memory|b:2.0",
        "named:x.y",
    }


NAMES = ["host:10.0.0.1", "report:1.pdf", "a:1.5", "model:3.5", "a:3.0|b:1.0", "plain"]


def test_logs_that_only_look_like_those_of_tasks_stay(store: EventStore) -> None:
    fill(store, "t", 5)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"1,2,3,4,5", b""))
    fill(store, "t", 1, start=6)
    for name in NAMES:
        fill(store, "t", 2, name)
    told = store.trim("t", 5, dry_run=True)
    assert (told.logs, told.events) == (0, 5)
    assert store.trim("t", 5) == told
    assert set(store.verify("t").namespaces) == {"", *NAMES}
    assert store.verify("t").ok


def test_a_mark_is_of_a_task_only_if_all_of_it_is(store: EventStore) -> None:
    grow(store, "t", 6, 5)
    names = ["host:10.0.0.1", "report:1.pdf", "a:1.", "a:.0", "a:1F.0", "a:1.0.0.0"]
    for name in names:
        fill(store, "t", 2, name)
    assert store.trim("t", 5).logs == 0
    assert set(store.verify("t").namespaces) == {"", *names}


def test_forks_of_logs_that_go_are_given_what_they_need_together(store: EventStore) -> None:
    grow(store, "t", 10, 5)
    for name in ("a:3.0", "memory"):
        fill(store, "t", 3, name)
    store.fork("t", 4, "f")
    for name in ("a:3.0", "memory"):
        new = name.replace("3", "1")
        store.append("f", [Fork(position(store, "t", 2, name))], 0, new)
    store.trim("t", 5)
    key = store.head("t").thread_key
    assert sql(store, "SELECT * FROM forks WHERE source_thread_key = ?", (key,)) == []
    assert state_of(store, "f") == [1, 2, 3, 4]
    assert state_of(store, "f", ns="a:1.0") == [1, 2]
    assert state_of(store, "f", ns="memory") == [1, 2]
    assert store.verify("f").ok
    assert store.verify("t").ok


# --- readers beside it ------------------------------------------------------------------


def test_who_reads_page_by_page_goes_on_with_what_is_left(
    store: EventStore, monkeypatch: Any
) -> None:
    set_everywhere(monkeypatch, "PAGE", 2)
    grow(store, "t", 12, 8)
    events = iter(store.read("t"))
    seen = [next(events).seq, next(events).seq]
    store.trim("t", 8)
    seen += [event.seq for event in events]
    assert seen == [1, 2, 9, 10, 11, 12]


def test_who_replays_meanwhile_is_told_to_read_again(store: EventStore, monkeypatch: Any) -> None:
    set_everywhere(monkeypatch, "PAGE", 2)
    grow(store, "t", 12, 8, 12)
    store.fork("t", 7, "f")
    own = store.replay("t", fingerprint="none")
    forked = store.replay("f", fingerprint="none")
    store.trim("t", 12)
    for replay in (own, forked):
        with pytest.raises(LineageMovedError):
            list(replay.events)
    assert state_of(store, "t") == list(range(1, 13))
    assert state_of(store, "f") == list(range(1, 8))


# --- with what else is done to cold threads ---------------------------------------------


def sealed_then(store_url: str) -> EventStore:
    """A store whose thread ``t`` of 100 events, with snapshots, is sealed."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    opened = EventStore(store_url, clock=lambda: now)
    grow(opened, "t", 100, 30, 60, 99)
    now += timedelta(days=1)
    assert opened.seal("t", now).events == 99
    return opened


@pytest.mark.parametrize("cut", [30, 60, 99])
def test_a_sealed_log_is_cut_within_a_segment(store_url: str, cut: int) -> None:
    with sealed_then(store_url) as store:
        assert points(store, "t") == [30, 60, 99]
        told = store.trim("t", cut, dry_run=True)
        assert store.trim("t", cut) == told
        assert told.events == cut
        assert [event.seq for event in store.read("t")] == list(range(cut + 1, 101))
        assert state_of(store, "t") == list(range(1, 101))
        assert store.verify("t").ok
        assert store.stats("t").events == 100 - cut
        with pytest.raises(PositionNotFoundError, match=f"begins at seq {cut}"):
            store.replay("t", upto=position(store, "t", cut - 1))


@pytest.mark.parametrize("cut", [30, 50])
def test_a_trimmed_log_can_be_sealed_and_archived(store_url: str, cut: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore(store_url, clock=lambda: now) as store:
        grow(store, "t", 50, 30, 50)
        store.trim("t", cut)
        grow(store, "t", 100, 80)
        now += timedelta(days=1)
        assert store.seal("t", now).events == 99 - cut
        assert store.verify("t").ok
        assert [event.seq for event in store.read("t")] == list(range(cut + 1, 101))
        assert state_of(store, "t") == list(range(1, 101))
        with store.dump("t") as found:
            dump = b"".join(found)
        store.delete_thread("t")
        store.load(dump)
        assert store.verify("t").ok
        assert state_of(store, "t", position(store, "t", 70)) == list(range(1, 71))
        with pytest.raises(PositionNotFoundError, match=f"begins at seq {cut}"):
            store.replay("t", upto=position(store, "t", cut - 1))
        store.trim("t", 80)
        assert store.verify("t").ok
        assert state_of(store, "t") == list(range(1, 101))


def test_a_log_trimmed_at_its_end_can_be_archived(store_url: str) -> None:
    with EventStore(store_url) as store:
        grow(store, "t", 5, 5)
        store.fork("t", 3, "f")
        store.trim("t", 5)
        for name in ("t", "f"):
            wanted = state_of(store, name)
            with store.dump(name) as found:
                dump = b"".join(found)
            store.delete_thread(name)
            store.load(dump)
            assert state_of(store, name) == wanted
            assert store.verify(name).ok
        grow(store, "t", 7)
        assert state_of(store, "t") == [1, 2, 3, 4, 5, 6, 7]


# --- everything at once -----------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.just(("snapshot",)),
        st.tuples(st.just("back"), st.integers(0, 30)),
        st.tuples(st.just("fork"), st.integers(0, 30)),
        st.tuples(st.just("enter"), st.integers(0, 30)),
        st.tuples(st.just("trim"), st.integers(0, 40)),
        st.just(("seal",)),
        st.just(("delete",)),
    ),
    max_size=25,
)


@given(STEPS)
@example([("append", 3), ("snapshot",), ("fork", 1), ("append", 1), ("back", 2), ("trim", 3)])
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_trimmed_all_that_is_left_is_what_it_was(
    steps: list[tuple[Any, ...]],
) -> None:
    """Threads that fork from themselves and one another, trimmed anywhere, hold to a model."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with EventStore("sqlite://", clock=lambda: now) as store:
        model: dict[str, list[list[int]]] = {}  # of each thread: the state at each seq
        begins: dict[str, int] = {}
        thread, made, number = "t0", 1, 0
        for step in steps:
            states = model.setdefault(thread, [[]])
            head = store.head(thread)
            if step[0] == "append":
                for _ in range(step[1]):
                    number += 1
                    head = store.append_after(head, [Event(1, {"n": number})])
                    states.append([*states[-1], number])
            elif step[0] == "snapshot" and head.seq > begins.get(thread, 0):
                text = ",".join(map(str, states[-1])).encode()
                store.put_snapshot(head, NewSnapshot(FINGERPRINT, text, b""))
            elif step[0] in ("back", "fork", "enter") and head.seq:
                names = sorted(model)
                source = names[step[1] % len(names)] if step[0] == "enter" else thread
                first, last = max(begins.get(source, 0), 1), len(model[source]) - 1
                if last < first:
                    continue
                seq = first + step[1] % (last - first + 1)
                at = Position(store.head(source).thread_key, "", seq)
                if step[0] == "fork":
                    thread, made = f"t{made}", made + 1
                    store.fork(source, seq, thread)
                    model[thread] = [[], model[source][seq]]
                else:
                    store.append_after(head, [Fork(at)])
                    states.append(model[source][seq])
            elif step[0] == "trim" and head.seq:
                allowed = [each.seq for each in store.trim_points(thread) if each.seq <= step[1]]
                told = store.trim(thread, step[1])
                assert told.base == (allowed[-1] if allowed else begins.get(thread, 0))
                begins[thread] = told.base
            elif step[0] == "seal" and head.seq:
                now += timedelta(minutes=5)
                store.seal(thread, now)
            elif step[0] == "delete" and len(model) > 1 and head.seq:
                store.delete_thread(thread)
                del model[thread]
                begins.pop(thread, None)
                thread = sorted(model)[0]
            _hold_to(store, model, begins)


def _hold_to(store: EventStore, model: dict[str, list[list[int]]], begins: dict[str, int]) -> None:
    for thread, states in model.items():
        if len(states) == 1:
            continue
        assert store.verify(thread).problems == ()
        base = begins.get(thread, 0)
        assert [event.seq for event in store.read(thread)] == list(range(base + 1, len(states)))
        for seq in range(1, len(states)):
            at = position(store, thread, seq)
            if seq < base:
                with pytest.raises(PositionNotFoundError, match=f"begins at seq {base}:"):
                    store.replay(thread, upto=at)
            else:
                assert state_of(store, thread, at) == states[seq]
    assert orphans(store) == {}


# --- killed -----------------------------------------------------------------------------


def test_whoever_is_killed_leaves_a_whole_thread(tmp_path: Path, monkeypatch: Any) -> None:
    """The file as it is before every statement, as a killed process would leave it."""
    set_everywhere(monkeypatch, "STEP", 1)
    path, folder = tmp_path / "store.db", tmp_path / "copies"
    folder.mkdir()
    copies = Copies(path, folder)
    with EventStore(path) as store:
        watch = Watch(store, copies.take)
        grow(store, "t", 12, 3, 6, 9)
        for ns in ("a:2.0", "a:7.0", "memory"):
            fill(store, "t", 2, ns)
        store.fork("t", 2, "old")
        store.fork("t", 7, "new")
        with watch.on():
            store.trim("t", 9)
    bases = set()
    for copy in copies.paths:
        with EventStore(copy) as store:
            for name, last in (("t", 12), ("old", 2), ("new", 7)):
                assert state_of(store, name) == list(range(1, last + 1))
                assert store.verify(name).problems == ()
            assert orphans(store) == {}
            first = next(iter(store.read("t"))).seq
            bases.add(first - 1)
            assert store.trim("t", 9).base == 9
            assert state_of(store, "t") == list(range(1, 13))
            assert store.verify("t").problems == ()
            assert set(store.verify("t").namespaces) == {"", "memory"}
    assert bases >= {0, 3, 6}
