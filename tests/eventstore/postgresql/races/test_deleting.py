"""A deletion, a prune or a new fork beside another call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from eventstore import (
    ConcurrencyError,
    EventStore,
    EventStoreError,
    Expired,
    Head,
    NewSnapshot,
    Outcome,
    PositionNotFoundError,
    ThreadNotFoundError,
    VerifyReport,
)
from tests.awaited import core_of
from tests.eventstore.postgresql.races.support import MOMENTS_MAX, Call, Race, beside, only
from tests.eventstore.support import (
    FINGERPRINT,
    WRITES,
    check_whole,
    fill,
    mark_for_deletion,
    numbers,
    orphans,
    rows_of,
    set_everywhere,
)

pytestmark = pytest.mark.no_cover  # a search

GONE: Final = (ThreadNotFoundError, PositionNotFoundError)


def deleted_or_whole(store: EventStore, key: int) -> None:
    """Nothing of the thread is left, or all of it is there; and the others are whole."""
    if store.thread_at(key) is None:
        assert rows_of(store, key) == {}
    check_whole(store)
    assert orphans(store) == {}


# --- many at once, and another call ---


def prune_all(store: EventStore, keep_if: Any = None) -> list[Outcome]:
    """Prune every thread there is, as one batch."""
    batch = [Expired(thread.thread_key, None, "ttl") for thread in core_of(store).scan()]
    outcomes: list[Outcome] = core_of(store).prune(batch, keep_if=keep_if, seconds=60)
    return outcomes


BESIDE_PRUNING: Final[dict[str, Callable[[EventStore, Any], Any]]] = {
    **WRITES,
    "pin": lambda store, head: store.pin("t", "why", "who"),
    "fork": lambda store, head: store.fork("t", 2, "fork of t"),
    "prune": lambda store, head: prune_all(store),
    "append to another": lambda store, head: fill(store, "u", 1, start=3),
    "begin": lambda store, head: fill(store, "new", 2),
    "erase": lambda store, head: store.delete_thread("t", erase=True),
    "change another": lambda store, head: store.set_thread("u", status="failed"),
}


@pytest.mark.parametrize("pruning_first", [True, False])
@pytest.mark.parametrize("name", BESIDE_PRUNING)
def test_pruning_and_another_call(
    store: EventStore, race: Race, name: str, pruning_first: bool
) -> None:
    heads: dict[str, Head] = {}

    def pruned() -> list[Outcome]:
        return prune_all(store, lambda thread: thread.pinned or thread.thread_id not in heads)

    def prepare() -> tuple[Call, Call]:
        for thread in core_of(store).scan():
            store.unpin(thread.thread_id)
            store.delete_thread(thread.thread_id)
        for thread_id in ("t", "u", "v"):
            fill(store, thread_id, 3)
            store.put_snapshot(store.head(thread_id), NewSnapshot(FINGERPRINT, b"s", b"i"))
            fill(store, thread_id, 2, start=4)
            heads[thread_id] = store.head(thread_id)
        calls = (pruned, lambda: BESIDE_PRUNING[name](store, heads["t"]))
        return calls if pruning_first else calls[::-1]

    def check() -> None:
        outcomes, answer = race.answers if pruning_first else race.answers[::-1]
        only(outcomes)
        only(answer, *GONE, ConcurrencyError)
        for head in heads.values():
            deleted_or_whole(store, head.thread_key)
        failed = isinstance(answer, EventStoreError)
        alive = store.thread_at(heads["t"].thread_key) is not None
        if name == "pin":
            assert alive == (not failed)  # what was said to be pinned stays
        if name == "fork" and not failed:
            assert numbers(store.replay("fork of t").events) == [1, 2]
        if name == "prune":
            assert core_of(store).scan() == []  # between the two, nothing is kept by both

    assert beside(race, prepare, check) > 0


# --- a deletion and another call --------------------------------------------------------


@pytest.mark.pairwise
@pytest.mark.parametrize("deletion_first", [True, False])
@pytest.mark.parametrize("size", [1_000, 2])
@pytest.mark.parametrize("name", WRITES)
def test_a_deletion_and_another_call(
    store: EventStore,
    race: Race,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    size: int,
    deletion_first: bool,
) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", size)  # in one transaction, or condemned first
    key = 0

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        if store.head("t").exists:
            store.delete_thread("t")
        fill(store, "t", 3)
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b"i"))
        fill(store, "t", 2, start=4)
        head = store.head("t")
        key = head.thread_key
        calls = lambda: store.delete_thread("t"), lambda: WRITES[name](store, head)
        return calls if deletion_first else (calls[1], calls[0])

    def check() -> None:
        deletion, call = race.answers if deletion_first else race.answers[::-1]
        only(call, ThreadNotFoundError)
        if name == "verify" and isinstance(call, VerifyReport):
            assert call.ok, call.problems
        if name in ("read", "replay") and isinstance(call, list):
            # Of a thread that is not there a replay is empty.
            assert numbers(call) in ([[1, 2, 3, 4, 5]] if name == "read" else [[4, 5], []])
        only(deletion, *([ThreadNotFoundError] if name == "delete_thread" else []))
        assert store.thread_at(key) is None
        deleted_or_whole(store, key)

    assert beside(race, prepare, check) >= 2


# --- a deletion and forks ---------------------------------------------------------------


def parent(store: EventStore) -> int:
    """A thread with a snapshot, that an old fork goes on from; returns its key."""
    for name in ("parent", "old", "new", "newer"):
        if store.head(name).exists:
            store.delete_thread(name)
    fill(store, "parent", 6)
    store.put_snapshot(store.head("parent"), NewSnapshot(FINGERPRINT, b"s", b"i"))
    fill(store, "parent", 2, start=7)
    store.fork("parent", 4, "old")
    return store.head("parent").thread_key


def of(store: EventStore, thread_id: str) -> list[int]:
    return numbers(store.replay(thread_id).events)


@pytest.mark.parametrize("deletion_first", [True, False])
@pytest.mark.parametrize("forked", [True, False])
def test_a_deletion_and_a_new_fork(
    store: EventStore, race: Race, deletion_first: bool, forked: bool
) -> None:
    key = 0
    outcomes = set()

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        key = parent(store)
        if not forked:
            store.delete_thread("old")
        calls = lambda: store.delete_thread("parent"), lambda: store.fork("parent", 7, "new")
        return calls if deletion_first else (calls[1], calls[0])

    def check() -> None:
        deletion, fork = race.answers if deletion_first else race.answers[::-1]
        assert deletion is True
        only(fork, *GONE)
        outcomes.add(type(fork))
        if fork == 1:
            assert of(store, "new") == [1, 2, 3, 4, 5, 6, 7]
        else:
            assert not store.head("new").exists
        if forked:
            assert of(store, "old") == [1, 2, 3, 4]
        deleted_or_whole(store, key)

    assert beside(race, prepare, check, moments=MOMENTS_MAX) >= 4
    assert len(outcomes) > 1
    assert race.waited > 0


def test_two_end_the_same_deletion(
    store: EventStore, race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_everywhere(monkeypatch, "DELETE_BATCH", 3)
    key = 0

    def prepare() -> tuple[Call, Call]:
        nonlocal key
        key = parent(store)
        store.fork("parent", 7, "new")
        mark_for_deletion(store, "parent")
        return store.finish_deletions, store.finish_deletions

    def check() -> None:
        assert set(race.answers) <= {0, 1}
        assert rows_of(store, key) == {}
        assert of(store, "old") == [1, 2, 3, 4]
        assert of(store, "new") == [1, 2, 3, 4, 5, 6, 7]
        deleted_or_whole(store, key)

    assert beside(race, prepare, check, moments=12) >= 8
    assert race.waited > 0


@pytest.mark.parametrize("first", ["parent", "middle", "child"])
@pytest.mark.parametrize("second", ["parent", "middle", "child"])
def test_a_thread_and_its_fork_are_deleted_together(
    store: EventStore, race: Race, first: str, second: str
) -> None:
    """Of three generations any two go at the same time; the third keeps what it needs."""
    names = {"parent", "middle", "child"}

    def prepare() -> tuple[Call, Call]:
        for name in names:
            if store.head(name).exists:
                store.delete_thread(name)
        fill(store, "parent", 3)
        store.fork("parent", 2, "middle")
        fill(store, "middle", 2, start=10)
        store.fork("middle", 2, "child")
        fill(store, "child", 1, start=20)
        return lambda: store.delete_thread(first), lambda: store.delete_thread(second)

    def check() -> None:
        for answer in race.answers:
            only(answer, *([ThreadNotFoundError] if first == second else []))
        wanted = {"parent": [1, 2, 3], "middle": [1, 2, 10, 11], "child": [1, 2, 10, 20]}
        for name in names - {first, second}:
            assert of(store, name) == wanted[name]
        check_whole(store)
        assert orphans(store) == {}
        assert len(store.threads()) == len(names - {first, second})

    assert beside(race, prepare, check) >= 4
