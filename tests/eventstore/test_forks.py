"""Forks: by reference while the source lives, and whole after it has gone (rule 5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventstore import (
    ConcurrencyError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    LineageMovedError,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.format import digests
from tests.eventstore.support import (
    FINGERPRINT,
    Watch,
    begins_transaction,
    check_whole,
    fill,
    numbers,
    orphans,
    rows_of,
    set_everywhere,
    sql,
)

pytestmark = pytest.mark.every_backend


def at(store: EventStore, thread_id: str, seq: int, ns: str = "") -> Position:
    """A position in a thread's log."""
    return Position(store.thread(thread_id).thread_key, ns, seq)


def go_back(store: EventStore, thread_id: str, seq: int, ns: str = "") -> int:
    """A fork inside a thread, to one of its own positions."""
    return jump(store, thread_id, at(store, thread_id, seq, ns), ns)


def jump(store: EventStore, thread_id: str, source: Position, ns: str = "") -> int:
    """A fork event at the end of a log."""
    return store.append(thread_id, [Fork(source)], store.head(thread_id, ns).seq, ns)


def snapshot(store: EventStore, thread_id: str, fingerprint: str = FINGERPRINT) -> None:
    """A snapshot of everything up to the end: its state is the list of numbers."""
    folded = folded_numbers(store, thread_id, fingerprint)
    state = store.codec.encode(folded)
    store.put_snapshot(store.head(thread_id), NewSnapshot(fingerprint, state, b""))


def folded_numbers(
    store: EventStore, thread_id: str, fingerprint: str = FINGERPRINT, **options: Any
) -> list[int]:
    """What a layer above would make of a thread: the snapshot's list, and the events' numbers."""
    replay = store.replay(thread_id, fingerprint=fingerprint, **options)
    start = store.codec.decode(replay.snapshot.state) if replay.snapshot else []
    return [*start, *numbers(replay.events)]


@pytest.fixture(params=[0, 1_000], ids=["prefixes from snapshots", "whole prefixes"])
def prefixes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of a short history a fork is given: what it needs, or everything."""
    set_everywhere(monkeypatch, "WHOLE_MAX", request.param)


# --- by reference -----------------------------------------------------------------------


def test_a_fork_copies_nothing(store: EventStore) -> None:
    fill(store, "parent", 1_000)
    assert store.fork("parent", 700, "child", data={"why": 1}, metadata={"m": 2}) == 1
    assert rows_of(store, store.thread("child").thread_key) == {
        "threads": 1,
        "events": 1,
        "forks": 1,
    }
    assert store.thread("child").metadata == {"m": 2}
    assert numbers(store.replay("child").events) == list(range(1, 701))
    fill(store, "child", 2, start=5_000)
    assert numbers(store.replay("child").events)[-3:] == [700, 5_000, 5_001]
    assert numbers(store.read("child")) == [5_000, 5_001]
    assert store.verify("child").ok


def test_what_cannot_be_forked(store: EventStore) -> None:
    fill(store, "parent", 3)
    fill(store, "other", 1)
    with pytest.raises(ThreadExistsError):
        store.fork("parent", 1, "other")
    with pytest.raises(ThreadNotFoundError):
        store.fork("nobody", 1, "child")
    for seq in (0, -1, 4):
        with pytest.raises(PositionNotFoundError):
            store.fork("parent", seq, "child")
    with pytest.raises(PositionNotFoundError):
        store.fork("parent", 1, "child", ns="elsewhere")
    with pytest.raises(ThreadExistsError):
        store.fork("parent", 1, "parent")
    assert [info.thread_id for info in store.threads(prefix="c")] == []


def test_a_fork_event_must_name_a_position_that_is_there(store: EventStore) -> None:
    fill(store, "t", 3)
    fill(store, "other", 2)
    here = at(store, "t", 3)
    for source in (
        at(store, "other", 3),
        at(store, "other", 0),
        at(store, "other", 1, "elsewhere"),
        Position(4711, "", 1),
        here._replace(seq=0),
        here._replace(seq=4),
        here._replace(seq=5),
    ):
        with pytest.raises(PositionNotFoundError):
            store.append("t", [Fork(source)], 3)
        assert store.head("t").seq == 3
    assert folded_numbers(store, "t") == [1, 2, 3]


def test_a_fork_into_another_tenant_is_refused(store: EventStore) -> None:
    """The key of a thread can be computed from its name: knowing it must not help."""
    with EventStore(store.engine, tenant="victim") as victim:
        victim.append("secret", [Event(1, {"n": 42})], 0)
        fill(store, "t", 1)
        key = digests.thread_key("victim", "secret", 0)
        with pytest.raises(PositionNotFoundError):
            store.append("t", [Fork(Position(key, "", 1))], 1)
        with pytest.raises(PositionNotFoundError):
            store.replay("t", upto=Position(key, "", 1))
        with pytest.raises(EventStoreError):
            list(store.read_span("t", Position(key, "", 0), None))


def test_going_back_inside_a_thread(store: EventStore) -> None:
    fill(store, "t", 5)
    assert go_back(store, "t", 2) == 6
    fill(store, "t", 2, start=60)
    assert folded_numbers(store, "t") == [1, 2, 60, 61]
    go_back(store, "t", 5)  # the branch that was left
    assert folded_numbers(store, "t") == [1, 2, 3, 4, 5]
    go_back(store, "t", 8)  # and back again
    fill(store, "t", 1, start=70)
    assert folded_numbers(store, "t") == [1, 2, 60, 61, 70]
    go_back(store, "t", 6)  # onto a fork event
    assert folded_numbers(store, "t") == [1, 2]
    assert store.verify("t").ok


def test_every_position_of_a_log_with_forks_replays(store: EventStore) -> None:
    fill(store, "t", 4)
    go_back(store, "t", 2)
    fill(store, "t", 2, start=60)
    wanted = [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2], [1, 2, 60], [1, 2, 60, 61]]
    for with_snapshots in (False, True):
        for seq, values in enumerate(wanted, 1):
            assert folded_numbers(store, "t", upto=at(store, "t", seq)) == values
            assert folded_numbers(store, "t", upto=at(store, "t", seq), snapshots=False) == values
        if not with_snapshots:
            snapshot(store, "t")


def test_a_fork_of_one_namespace(store: EventStore) -> None:
    fill(store, "parent", 2)
    fill(store, "parent", 3, "sub", start=50)
    store.fork("parent", 2, "child", ns="sub")
    assert numbers(store.replay("child", "sub").events) == [50, 51]
    jump(store, "child", at(store, "parent", 1))
    store.delete_thread("parent")
    assert numbers(store.replay("child", "sub").events) == [50, 51]
    assert numbers(store.replay("child").events) == [1]
    assert check_whole(store) == 1
    assert not orphans(store)


# --- the source goes --------------------------------------------------------------------


@pytest.mark.pairwise
@pytest.mark.slow
@pytest.mark.usefixtures("prefixes")
@pytest.mark.parametrize("with_snapshot", [None, 1, 40, 60, 90], ids=lambda at: f"snapshot={at}")
def test_deleting_the_parent_changes_no_fork(store: EventStore, with_snapshot: int | None) -> None:
    for start in (1, 41, 61, 91):
        fill(store, "parent", {1: 40, 41: 20, 61: 30, 91: 10}[start], start=start)
        if with_snapshot is not None and store.head("parent").seq == with_snapshot:
            snapshot(store, "parent")
    forks = {f"at {seq}": seq for seq in (1, 39, 40, 41, 60, 75, 90, 100)}
    for thread_id, seq in forks.items():
        store.fork("parent", seq, thread_id)
        fill(store, thread_id, 2, start=1_000)
    store.delete_thread("parent")
    for thread_id, seq in forks.items():
        wanted = [*range(1, seq + 1), 1_000, 1_001]
        assert folded_numbers(store, thread_id) == wanted
        store.delete_snapshots(thread_id)
        assert folded_numbers(store, thread_id) == wanted
        fill(store, thread_id, 1, start=2_000)
        assert folded_numbers(store, thread_id) == [*wanted, 2_000]
    assert check_whole(store) == len(forks)
    assert not orphans(store)


@pytest.mark.slow
def test_forks_of_forks_whatever_goes_first(store_url: str) -> None:
    """Four generations, deleted in every order: the last is as before at every step."""
    for number, order in enumerate(itertools.permutations(["a", "b", "c"])):
        with EventStore(store_url, tenant=f"order {number}") as store:
            fill(store, "a", 10)
            store.fork("a", 8, "b")
            fill(store, "b", 5, start=20)
            store.fork("b", 4, "c")
            fill(store, "c", 5, start=40)
            store.fork("c", 3, "d")
            fill(store, "d", 1, start=60)
            wanted = [*range(1, 9), 20, 21, 22, 40, 41, 60]
            for thread_id in order:
                assert folded_numbers(store, "d") == wanted
                store.delete_thread(thread_id)
                assert folded_numbers(store, "d") == wanted
                assert store.verify("d").ok
            assert not orphans(store)


@pytest.mark.slow
def test_many_generations(store: EventStore) -> None:
    fill(store, "g0", 2)
    for generation in range(1, 20):
        store.fork(f"g{generation - 1}", 2, f"g{generation}")
        fill(store, f"g{generation}", 2, start=generation * 10)
    wanted = folded_numbers(store, "g19")
    assert len(wanted) == 2 + 18 + 2
    for generation in [*range(0, 19, 2), *range(1, 19, 2)]:
        store.delete_thread(f"g{generation}")
    assert folded_numbers(store, "g19") == wanted
    assert store.verify("g19").ok
    assert not orphans(store)


def test_two_forks_of_one_parent_and_one_fork_of_it_twice(store: EventStore) -> None:
    fill(store, "parent", 20)
    store.fork("parent", 5, "one")
    store.fork("parent", 15, "two")
    jump(store, "two", at(store, "parent", 9))
    fill(store, "two", 1, start=100)
    store.delete_thread("parent")
    assert folded_numbers(store, "one") == [1, 2, 3, 4, 5]
    assert folded_numbers(store, "two") == [*range(1, 10), 100]
    assert folded_numbers(store, "two", upto=at(store, "two", 1)) == list(range(1, 16))
    assert check_whole(store) == 2
    assert not orphans(store)


@pytest.mark.usefixtures("prefixes")
@pytest.mark.parametrize("reverse", [False, True])
def test_two_forks_of_one_log_with_snapshots_between(store: EventStore, reverse: bool) -> None:
    """Two runs of the parent, each behind a snapshot of its own, with a hole between them."""
    for start in (1, 5, 9, 13):
        fill(store, "parent", 4, start=start)
        snapshot(store, "parent")
    fill(store, "parent", 2, start=17)
    for seq in (18, 6) if reverse else (6, 18):
        if store.head("child").exists:
            jump(store, "child", at(store, "parent", seq))
        else:
            store.fork("parent", seq, "child")
    store.delete_thread("parent")
    first, second = (18, 6) if reverse else (6, 18)
    assert folded_numbers(store, "child") == list(range(1, second + 1))
    assert folded_numbers(store, "child", upto=at(store, "child", 1)) == list(range(1, first + 1))
    assert store.verify("child").problems == ()
    assert not orphans(store)


@pytest.mark.usefixtures("prefixes")
def test_the_parent_went_back_before_the_fork_point(store: EventStore) -> None:
    fill(store, "parent", 6)
    go_back(store, "parent", 2)
    fill(store, "parent", 3, start=60)
    go_back(store, "parent", 8)
    fill(store, "parent", 1, start=70)
    last = store.head("parent").seq
    for seq in range(1, last + 1):
        store.fork("parent", seq, f"at {seq}")
    before = {seq: folded_numbers(store, f"at {seq}") for seq in range(1, last + 1)}
    assert before[last] == [1, 2, 60, 70]
    store.delete_thread("parent")
    assert {seq: folded_numbers(store, f"at {seq}") for seq in before} == before
    assert check_whole(store) == last


@pytest.mark.slow
@pytest.mark.usefixtures("prefixes")
@pytest.mark.parametrize("snapshot_at", [1, 2, 3, 6, 7, 8, 10, 11])
def test_the_parent_went_back_and_has_a_snapshot(snapshot_at: int) -> None:
    with EventStore(tenant="test") as store:
        steps = [*[0] * 6, 2, *[0] * 3, 8, 0]  # 0: append a number; otherwise go back there
        for seq, back in enumerate(steps, 1):
            if back:
                go_back(store, "parent", back)
            else:
                fill(store, "parent", 1, start=seq)
            if seq == snapshot_at:
                snapshot(store, "parent")
        for seq in range(1, len(steps) + 1):
            store.fork("parent", seq, f"at {seq}")
        before = {seq: folded_numbers(store, f"at {seq}") for seq in range(1, len(steps) + 1)}
        assert before[len(steps)] == [1, 2, 8, 12]
        store.delete_thread("parent")
        assert {seq: folded_numbers(store, f"at {seq}") for seq in before} == before
        assert check_whole(store) == len(steps)
        assert not orphans(store)


@pytest.mark.usefixtures("prefixes")
def test_a_log_that_goes_over_to_another_thread_half_way(store: EventStore) -> None:
    """The middle thread's own part begins in the middle of its log."""
    fill(store, "first", 5)
    fill(store, "middle", 5, start=100)
    jump(store, "middle", at(store, "first", 3))
    fill(store, "middle", 2, start=200)
    store.fork("middle", 8, "last")
    wanted = [1, 2, 3, 200, 201]
    assert folded_numbers(store, "last") == wanted
    store.delete_thread("middle")
    assert folded_numbers(store, "last") == wanted
    store.delete_thread("first")
    assert folded_numbers(store, "last") == wanted
    assert store.verify("last").problems == ()
    assert not orphans(store)


@pytest.mark.usefixtures("prefixes")
def test_two_threads_that_go_over_to_each_other(store: EventStore) -> None:
    fill(store, "a", 3)
    fill(store, "b", 3, start=100)
    jump(store, "a", at(store, "b", 2))
    fill(store, "a", 1, start=10)
    jump(store, "b", at(store, "a", 5))
    fill(store, "b", 1, start=110)
    wanted = [100, 101, 10, 110]
    assert folded_numbers(store, "b") == wanted
    store.delete_thread("a")
    assert folded_numbers(store, "b") == wanted
    assert store.verify("b").problems == ()
    assert not orphans(store)


@pytest.mark.usefixtures("prefixes")
def test_a_damaged_snapshot_of_the_parent_is_not_made_a_base(store: EventStore) -> None:
    fill(store, "parent", 10)
    snapshot(store, "parent")
    fill(store, "parent", 5, start=11)
    store.fork("parent", 12, "child")
    sql(store, "UPDATE snapshots SET payload = x'00112233'")
    wanted = list(range(1, 13))
    assert folded_numbers(store, "child") == wanted
    store.delete_thread("parent")
    assert folded_numbers(store, "child") == wanted


@pytest.mark.usefixtures("prefixes")
def test_a_snapshot_of_other_code_beside_one_of_ours(store: EventStore) -> None:
    """What a fork reads before its parent goes, it reads afterwards."""
    fill(store, "parent", 10)
    snapshot(store, "parent")
    fill(store, "parent", 5, start=11)
    store.put_snapshot(
        store.head("parent"), NewSnapshot("other code", store.codec.encode(["nonsense"]), b"")
    )
    fill(store, "parent", 2, start=16)
    snapshot(store, "parent")
    store.fork("parent", 17, "child")
    wanted = list(range(1, 18))
    assert folded_numbers(store, "child") == wanted
    store.delete_thread("parent")
    assert folded_numbers(store, "child") == wanted


def test_a_rehomed_prefix_shows_damage(store: EventStore) -> None:
    fill(store, "parent", 10)
    store.fork("parent", 8, "child")
    store.delete_thread("parent")
    assert store.verify("child").ok
    sql(store, "UPDATE events SET payload = x'0100c0' WHERE seq = 4")
    report = store.verify("child")
    assert not report.ok
    assert "seq 4" in report.problems[0]
    with pytest.raises(EventStoreError):
        list(store.replay("child").events)


@pytest.mark.parametrize("seq", [3, 8])
def test_verify_finds_that_a_fork_goes_on_from_nothing(store: EventStore, seq: int) -> None:
    """An event is missing right before the run that leads to it, or at its end."""
    fill(store, "parent", 3)
    jump(store, "parent", at(store, "parent", 1))
    fill(store, "parent", 5, start=4)
    store.fork("parent", 8, "child")
    assert store.verify("child").ok
    key = store.thread("parent").thread_key
    sql(store, f"DELETE FROM events WHERE seq = {seq} AND thread_key = ?", (key,))
    with pytest.raises(EventStoreError):
        list(store.replay("child").events)
    (problem,) = store.verify("child").problems
    assert "the position that the fork goes on from is missing" in problem
    assert not store.verify("parent").ok


def test_the_prefix_stays_when_a_new_thread_takes_the_parents_name(store: EventStore) -> None:
    fill(store, "parent", 5)
    store.fork("parent", 4, "child")
    store.delete_thread("parent")
    fill(store, "parent", 5, start=900)
    jump(store, "child", at(store, "parent", 2))
    assert folded_numbers(store, "child", upto=at(store, "child", 1)) == [1, 2, 3, 4]
    assert folded_numbers(store, "child") == [900, 901]
    store.delete_thread("parent")
    assert folded_numbers(store, "child", upto=at(store, "child", 1)) == [1, 2, 3, 4]
    assert folded_numbers(store, "child") == [900, 901]
    assert store.verify("child").problems == ()


# --- nested logs ------------------------------------------------------------------------

NESTED = ["n", "n:1.0", "n:1.0.2", "n:1.0|m", "n:1.0|m:1.0", "n:1.0|m|o:9.3", "n:2.0", "n:3.0"]
NESTED += ["n:5.0", "n:7.0", "other:x"]


def given(store: EventStore, thread_id: str) -> dict[str, int]:
    """How many events of other logs a thread was given, by the names of these logs."""
    report = store.verify(thread_id)
    assert report.ok, report.problems
    key = store.thread(thread_id).thread_key
    rows = sql(store, "SELECT ns, count(*) FROM events WHERE thread_key = ? GROUP BY ns", (key,))
    return {digests.origin(0, ns)[1]: count for ns, count in rows if digests.is_prefix(ns)}


def with_nested_logs(store: EventStore, count: int = 2) -> None:
    """A thread that left the events 3 and 4, with nested logs of so many events each."""
    fill(store, "parent", 4)
    go_back(store, "parent", 2)
    fill(store, "parent", 3, start=60)
    for ns in NESTED:
        fill(store, "parent", count, ns)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_fork_is_given_the_nested_logs_of_its_inherited_events(
    store: EventStore, clock: Callable[[timedelta], None], sealed: bool
) -> None:
    count = 100 if sealed else 2
    with_nested_logs(store, count)
    if sealed:
        clock(timedelta(days=1))
        assert store.seal("parent", datetime.now(UTC)).events == 99 * len(NESTED)
    store.fork("parent", 7, "child")
    store.fork("parent", 2, "inner", ns="n:1.0")
    with store.dump("child") as dump:
        store.delete_thread("parent")
        names = ["n:1.0", "n:1.0.2", "n:1.0|m", "n:1.0|m:1.0", "n:1.0|m|o:9.3", "n:5.0"]
        wanted = {"": 7, **dict.fromkeys(names, count)}
        assert given(store, "child") == wanted
        assert given(store, "inner") == {"n:1.0": 2, "n:1.0|m:1.0": count}
        store.fork("child", 1, "grandchild")
        store.delete_thread("child")
        assert folded_numbers(store, "grandchild") == [1, 2, 60, 61]
        assert {**given(store, "grandchild"), "": 7} == wanted
        store.load(dump)
    assert given(store, "child") == wanted
    assert not orphans(store)


def test_what_was_not_kept_of_a_nested_log_cannot_be_forked(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_nested_logs(store)
    store.fork("parent", 7, "child")
    source = at(store, "parent", 2, "n:1.0")
    set_everywhere(monkeypatch, "WHOLE_MAX", 3)
    store.delete_thread("parent")
    assert given(store, "child") == {"": 7, "n:5.0": 2}
    lost = Position(
        at(store, "child", 1).thread_key, digests.prefix_ns(source.thread_key, source.ns), 2
    )
    with pytest.raises(PositionNotFoundError, match="was not kept when the thread"):
        jump(store, "child", lost, "n:1.0")
    with pytest.raises(PositionNotFoundError, match="was not kept when the thread"):
        store.replay("child", upto=lost)
    assert store.head("child", "n:1.0").seq == 0


def test_a_position_before_the_part_that_was_kept_cannot_be_forked(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "parent", 5)
    snapshot(store, "parent")
    fill(store, "parent", 2, start=60)
    store.fork("parent", 7, "child")
    parent = at(store, "parent", 7)
    set_everywhere(monkeypatch, "WHOLE_MAX", 0)
    store.delete_thread("parent")
    prefix = digests.prefix_ns(parent.thread_key, "")
    child = at(store, "child", 1).thread_key
    for seq in (1, 4):
        with pytest.raises(PositionNotFoundError, match="was not kept when the thread"):
            jump(store, "child", Position(child, prefix, seq))
    for seq, numbers_there in ((5, [1, 2, 3, 4, 5]), (6, [1, 2, 3, 4, 5, 60])):
        jump(store, "child", Position(child, prefix, seq))
        assert folded_numbers(store, "child") == numbers_there
    assert check_whole(store) == 1


def test_forks_before_and_at_the_last_snapshot_of_a_deleted_thread_are_whole(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position at the snapshot is given the snapshot alone, behind the events of the other."""
    fill(store, "parent", 5)
    snapshot(store, "parent")
    fill(store, "child", 1, start=70)
    for seq in (4, 5):
        jump(store, "child", at(store, "parent", seq))
    set_everywhere(monkeypatch, "WHOLE_MAX", 0)
    store.delete_thread("parent")
    assert folded_numbers(store, "child", upto=at(store, "child", 2)) == [1, 2, 3, 4]
    assert folded_numbers(store, "child") == [1, 2, 3, 4, 5]
    assert check_whole(store) == 1


# --- at the same time -------------------------------------------------------------------


@pytest.mark.slow
def test_a_fork_made_at_any_moment_of_the_deletion(tmp_path: Path) -> None:
    """Before each transaction of a deletion another process forks the thread: whole, or told."""
    moment = 0
    made = 0
    while True:
        moment += 1
        path = tmp_path / f"{moment}.db"
        with EventStore(path) as store, EventStore(path) as other:
            fill(store, "parent", 30)
            store.fork("parent", 20, "old")
            seen = 0

            def fork(statement: str, other: EventStore = other, moment: int = moment) -> None:
                nonlocal seen, made
                if begins_transaction(statement):
                    seen += 1
                    if seen == moment:
                        try:
                            other.fork("parent", 25, "new")
                            made += 1
                        except (ThreadNotFoundError, PositionNotFoundError):
                            pass

            deleter = EventStore(path)
            watch = Watch(deleter, fork)
            with deleter:
                deleter.setup()
                with watch.on():
                    deleter.delete_thread("parent")
            if other.head("new").exists:
                assert folded_numbers(other, "new") == list(range(1, 26))
            assert folded_numbers(other, "old") == list(range(1, 21))
            check_whole(other)
            assert not orphans(other)
        if seen < moment:
            break
    assert made >= 1
    assert moment > 4


def test_the_deletion_at_any_moment_of_a_fork(tmp_path: Path) -> None:
    moment = 0
    while True:
        moment += 1
        path = tmp_path / f"{moment}.db"
        with EventStore(path) as store:
            fill(store, "parent", 30)
            seen = 0

            def remove(statement: str, other: EventStore = store, moment: int = moment) -> None:
                nonlocal seen
                if begins_transaction(statement):
                    seen += 1
                    if seen == moment:
                        other.delete_thread("parent")

            with EventStore(path) as forker:
                watch = Watch(forker, remove)
                forker.setup()
                with watch.on():
                    try:
                        forker.fork("parent", 25, "new")
                    except (ThreadNotFoundError, PositionNotFoundError):
                        assert not store.head("new").exists
                    else:
                        if store.head("parent").exists:
                            store.delete_thread("parent")
                        assert folded_numbers(store, "new") == list(range(1, 26))
            check_whole(store)
            assert not orphans(store)
        if seen < moment:
            break
    assert moment > 2


def test_the_parent_is_deleted_while_a_fork_is_being_read(store: EventStore) -> None:
    """The reader is told to read again, and then reads what it would have read before."""
    fill(store, "parent", 1_000)
    store.fork("parent", 900, "child")
    fill(store, "child", 1, start=5_000)
    started, fresh = store.replay("child").events, store.replay("child").events
    begun = [next(started) for _ in range(300)]
    store.delete_thread("parent")
    wanted = [*range(1, 901), 5_000]
    for events, before in ((started, begun), (fresh, [])):
        try:
            found = [*before, *events]
        except LineageMovedError as error:
            assert error.thread_id == "child"  # noqa: PT017
        else:
            assert numbers(found) == wanted
    assert numbers(store.replay("child").events) == wanted


def test_two_make_the_same_fork_at_the_same_time(tmp_path: Path) -> None:
    for moment in itertools.count(1):
        path = tmp_path / f"{moment}.db"
        with EventStore(path) as store, EventStore(path) as forker:
            fill(store, "parent", 3)
            seen = 0

            def rival(statement: str, other: EventStore = store, moment: int = moment) -> None:
                nonlocal seen
                if begins_transaction(statement):
                    seen += 1
                    if seen == moment:
                        other.fork("parent", 1, "child")

            watch = Watch(forker, rival)
            forker.setup()
            with watch.on():
                try:
                    forker.fork("parent", 2, "child")
                except (ThreadExistsError, ConcurrencyError):
                    assert numbers(store.replay("child").events) == [1]
                else:
                    assert seen < moment
                    assert numbers(store.replay("child").events) == [1, 2]
        if seen < moment:
            break
    assert moment > 2
