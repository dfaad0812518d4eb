"""Snapshots: which one replay starts at, how they rest on each other, that none is needed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import (
    ConfigurationError,
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    Position,
    Replay,
    ThreadNotFoundError,
)
from tests.eventstore.support import FINGERPRINT, fill, numbers, set_everywhere

pytestmark = pytest.mark.every_backend


def snapshot_of(store: EventStore, numbers_: list[int], rests_on: int | None = None) -> NewSnapshot:
    """A snapshot whose items are these numbers."""
    return NewSnapshot(FINGERPRINT, b"state", store.codec.encode(numbers_), rests_on)


def folded(store: EventStore, replay: Replay[Any]) -> list[int]:
    """The numbers a replay leads to."""
    parts = replay.snapshot.items if replay.snapshot else ()
    start = [number for part in parts for number in store.codec.decode(part)]
    return [*start, *numbers(replay.events)]


def test_replay_begins_at_the_nearest_snapshot(store: EventStore) -> None:
    head = store.head("t")
    for seq in range(1, 31):
        snapshot = snapshot_of(store, list(range(1, seq + 1))) if seq % 10 == 0 else None
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)
    key = head.thread_key
    for upto in range(1, 31):
        at = Position(key, "", upto)
        replay = store.replay("t", upto=at, fingerprint=FINGERPRINT)
        assert replay.position == at
        assert replay.head == store.head("t")
        events = list(replay.events)
        assert [e.seq for e in events] == list(range(upto // 10 * 10 + 1, upto + 1))
        if upto < 10:
            assert replay.snapshot is None
        else:
            assert replay.snapshot is not None
            assert replay.snapshot.position == Position(key, "", upto // 10 * 10)
            assert (replay.snapshot.fingerprint, replay.snapshot.is_base) == (FINGERPRINT, False)
        for options in ({"fingerprint": "other"}, {"fingerprint": FINGERPRINT, "snapshots": False}):
            plain = store.replay("t", upto=at, **options)
            assert plain.snapshot is None
            assert numbers(plain.events) == list(range(1, upto + 1))


def test_snapshots_rest_on_each_other(store: EventStore) -> None:
    head, rests_on = store.head("t"), None
    for seq in range(1, 41):
        snapshot = None
        if seq % 4 == 0:
            snapshot = snapshot_of(store, list(range((rests_on or 0) + 1, seq + 1)), rests_on)
            rests_on = seq
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)
    replay = store.replay("t", fingerprint=FINGERPRINT)
    assert replay.snapshot is not None
    assert len(replay.snapshot.items) == 10
    assert folded(store, replay) == list(range(1, 41))
    assert store.verify("t").ok
    assert store.stats("t").snapshots == 10


def test_deleting_snapshots_changes_no_answer(store: EventStore) -> None:
    head = store.head("t")
    for seq in range(1, 11):
        snapshot = snapshot_of(store, list(range(1, seq + 1)))
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)
    assert store.delete_snapshots("t") == 10
    assert store.delete_snapshots("t") == 0
    replay = store.replay("t", fingerprint=FINGERPRINT)
    assert replay.snapshot is None
    assert folded(store, replay) == list(range(1, 11))
    store.put_snapshot(head, snapshot_of(store, list(range(1, 11))))
    again = store.replay("t", fingerprint=FINGERPRINT)
    assert again.snapshot is not None
    assert list(again.events) == []
    with pytest.raises(ThreadNotFoundError):
        store.delete_snapshots("nobody")


def test_a_snapshot_takes_the_place_of_an_older_one(store: EventStore) -> None:
    fill(store, "t", 3)
    head = store.head("t")
    for fingerprint in ("old", "new"):
        store.put_snapshot(head, NewSnapshot(fingerprint, fingerprint.encode(), b""))
    assert store.stats("t").snapshots == 1
    assert store.replay("t", fingerprint="old").snapshot is None
    found = store.replay("t", fingerprint="new").snapshot
    assert found is not None
    assert found.state == b"new"


def test_a_snapshot_behind_a_fork_is_not_used_beyond_it(store: EventStore) -> None:
    """Going back to before a snapshot leaves it on the branch that was given up."""
    fill(store, "t", 4)
    store.put_snapshot(store.head("t"), snapshot_of(store, [1, 2, 3, 4]))
    store.append("t", [Fork(store.head("t").position._replace(seq=2)), Event(1, {"n": 60})], 4)
    replay = store.replay("t", fingerprint=FINGERPRINT)
    assert replay.snapshot is None
    assert folded(store, replay) == [1, 2, 60]
    store.put_snapshot(store.head("t"), snapshot_of(store, [1, 2, 60]))
    replay = store.replay("t", fingerprint=FINGERPRINT)
    assert replay.snapshot is not None
    assert folded(store, replay) == [1, 2, 60]


def test_a_fork_begins_at_its_parents_snapshot(store: EventStore) -> None:
    fill(store, "parent", 10)
    store.put_snapshot(store.head("parent"), snapshot_of(store, list(range(1, 11))))
    fill(store, "parent", 10, start=11)
    store.fork("parent", 15, "child")
    replay = store.replay("child", fingerprint=FINGERPRINT)
    assert replay.snapshot is not None
    assert replay.snapshot.position.thread_key == store.thread("parent").thread_key
    assert folded(store, replay) == list(range(1, 16))
    store.fork("parent", 9, "early")
    assert store.replay("early", fingerprint=FINGERPRINT).snapshot is None


def test_a_base_is_believed_and_not_disposable(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "WHOLE_MAX", 0)
    fill(store, "parent", 10)
    store.put_snapshot(store.head("parent"), snapshot_of(store, list(range(1, 11))))
    fill(store, "parent", 5, start=11)
    store.fork("parent", 14, "child")
    store.delete_thread("parent")
    assert store.delete_snapshots("child") == 0
    for fingerprint, snapshots in itertools.product((FINGERPRINT, "new code"), (True, False)):
        replay = store.replay("child", fingerprint=fingerprint, snapshots=snapshots)
        assert replay.snapshot is not None
        assert replay.snapshot.is_base
        assert folded(store, replay) == list(range(1, 15))
    assert store.verify("child").ok


@pytest.mark.parametrize("whole_max", [0, 5, 1_000])
def test_a_chain_of_snapshots_becomes_a_base_whole(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, whole_max: int
) -> None:
    set_everywhere(monkeypatch, "WHOLE_MAX", whole_max)
    head, rests_on = store.head("parent"), None
    for seq in range(1, 13):
        snapshot = None
        if seq in (3, 6, 9):
            snapshot = snapshot_of(store, list(range((rests_on or 0) + 1, seq + 1)), rests_on)
            rests_on = seq
        head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)
    for seq in (5, 8, 11, 3):
        store.fork("parent", seq, f"at {seq}")
    store.delete_thread("parent")
    for seq in (5, 8, 11, 3):
        replay = store.replay(f"at {seq}", fingerprint=FINGERPRINT)
        assert folded(store, replay) == list(range(1, seq + 1))
        assert store.verify(f"at {seq}").problems == ()


@pytest.mark.parametrize("fingerprint", ["", "ünï", "x" * 10_000])
def test_any_fingerprint(store: EventStore, fingerprint: str) -> None:
    fill(store, "t", 2)
    store.put_snapshot(store.head("t"), NewSnapshot(fingerprint, b"s", b"i"))
    found = store.replay("t", fingerprint=fingerprint).snapshot
    assert found is not None
    assert (found.state, found.items) == (b"s", (b"i",))
    assert store.verify("t").ok


@pytest.mark.parametrize("fingerprint", ["a\x00b", "\ud800"])
def test_a_fingerprint_that_is_no_text(store: EventStore, fingerprint: str) -> None:
    fill(store, "t", 2)
    for call in (
        lambda: store.put_snapshot(store.head("t"), NewSnapshot(fingerprint, b"s", b"i")),
        lambda: store.replay("t", fingerprint=fingerprint),
    ):
        with pytest.raises(ConfigurationError):
            call()


@pytest.mark.slow
@given(
    at=st.sets(st.integers(1, 25)),
    dropped=st.sets(st.integers(1, 25)),
    upto=st.integers(1, 25),
)
def test_any_choice_of_snapshots_gives_the_same_state(
    at: set[int], dropped: set[int], upto: int
) -> None:
    with EventStore() as store:
        head = store.head("t")
        for seq in range(1, 26):
            snapshot = snapshot_of(store, list(range(1, seq + 1))) if seq in at else None
            head = store.append_after(head, [Event(1, {"n": seq})], snapshot=snapshot)
        with store.engine.begin() as conn:
            for seq in dropped:
                conn.exec_driver_sql("DELETE FROM snapshots WHERE seq = ?", (seq,))
        replay = store.replay("t", upto=head.position._replace(seq=upto), fingerprint=FINGERPRINT)
        assert folded(store, replay) == list(range(1, upto + 1))
