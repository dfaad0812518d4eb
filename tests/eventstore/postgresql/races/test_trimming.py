"""A trim beside another call, and reading what moves between rows and segments."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

import pytest

from eventstore import (
    Event,
    EventStore,
    EventStoreError,
    Fork,
    Head,
    LineageMovedError,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    Trimmed,
)
from tests.eventstore.postgresql.races.support import Call, Race, beside, only
from tests.eventstore.support import (
    FINGERPRINT,
    fill,
    numbers,
    orphans,
    seal_now,
    set_everywhere,
)

pytestmark = pytest.mark.no_cover  # a search

# --- a trim and another call ------------------------------------------------------------


def trimmable(store: EventStore) -> Head:
    """A thread with two points, and a fork that goes on from before them; the thread's end."""
    for name in ("t", "old", "new"):
        if store.head(name).exists:
            store.delete_thread(name)
    for last in (3, 6):
        fill(store, "t", 3, start=last - 2)
        state = ",".join(map(str, range(1, last + 1))).encode()
        store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, state, b""))
    fill(store, "t", 1, start=7)
    fill(store, "t", 2, "a:2.0")
    store.fork("t", 2, "old")
    return store.head("t")


def folded(store: EventStore, thread_id: str, at: Position | None = None) -> list[int]:
    """The numbers that a thread comes to."""
    replay = store.replay(thread_id, upto=at, fingerprint=FINGERPRINT)
    before = replay.snapshot.state.decode().split(",") if replay.snapshot else []
    return [*map(int, before), *numbers(replay.events)]


def trimmed_and_whole(store: EventStore) -> None:
    """Thread ``t`` begins at 6 and is otherwise as it was; so is its fork; nothing is left over."""
    assert folded(store, "t")[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert next(iter(store.read("t"))).seq == 7
    assert folded(store, "old") == [1, 2]
    for name in ("t", "old"):
        assert store.verify(name).problems == ()
    assert orphans(store) == {}


BESIDE_TRIM: dict[str, Callable[[EventStore, Head], Any]] = {
    "append": lambda store, head: store.append_after(head, [Event(1, {"n": 8})]).seq,
    "append with a snapshot": lambda store, head: (
        store.append_after(
            head,
            [Event(1, {"n": 8})],
            snapshot=NewSnapshot(FINGERPRINT, b"1,2,3,4,5,6,7,8", b""),
        ).seq
    ),
    "go back": lambda store, head: (
        store.append_after(head, [Fork(head.position._replace(seq=5))]).seq
    ),
    "fork": lambda store, _: store.fork("t", 5, "new"),
    "trim": lambda store, _: store.trim("t", 6),
    "trim less": lambda store, _: store.trim("t", 3),
    "delete the fork": lambda store, _: store.delete_thread("old"),
    "delete snapshots": lambda store, _: store.delete_snapshots("t"),
    "read": lambda store, _: numbers(store.read("t")),
    "replay": lambda store, _: folded(store, "t"),
    "replay the fork": lambda store, _: folded(store, "old"),
    "replay the past": lambda store, head: folded(store, "t", head.position._replace(seq=5)),
    "verify": lambda store, _: store.verify("t").problems,
    "points": lambda store, _: [point.seq for point in store.trim_points("t")],
}


@pytest.mark.parametrize("trim_first", [True, False])
@pytest.mark.parametrize("name", BESIDE_TRIM)
def test_a_trim_and_another_call(
    store: EventStore, race: Race, monkeypatch: pytest.MonkeyPatch, name: str, trim_first: bool
) -> None:
    set_everywhere(monkeypatch, "STEP", 1)

    def prepare() -> tuple[Call, Call]:
        head = trimmable(store)
        calls = lambda: store.trim("t", 6), lambda: BESIDE_TRIM[name](store, head)
        return calls if trim_first else (calls[1], calls[0])

    def check() -> None:
        trim, call = race.answers if trim_first else race.answers[::-1]
        assert isinstance(trim, Trimmed)
        if name == "fork":
            only(call, PositionNotFoundError)
            if call == 1:
                assert folded(store, "new") == [1, 2, 3, 4, 5]
                store.delete_thread("new")
        elif name == "go back":
            only(call, PositionNotFoundError)
            if call == 8:  # it was first, and is in the way of the second step
                assert trim.base == 3
                assert folded(store, "t") == [1, 2, 3, 4, 5]
                assert store.verify("t").problems == ()
                assert orphans(store) == {}
                return
        elif name == "delete the fork":
            assert call is True
            store.fork("t", 6, "old")
            assert folded(store, "t") == [1, 2, 3, 4, 5, 6, 7]
            assert orphans(store) == {}
            return
        elif name == "delete snapshots":
            only(call)
            assert folded(store, "t") == [1, 2, 3, 4, 5, 6, 7]
            assert store.verify("t").problems == ()
            return
        elif name in ("replay", "replay the fork", "replay the past"):
            only(call, LineageMovedError, PositionNotFoundError)
            wanted = {"replay": 7, "replay the fork": 2, "replay the past": 5}[name]
            if isinstance(call, list):
                assert call == list(range(1, wanted + 1))
            if name == "replay":
                assert not isinstance(call, PositionNotFoundError)
        elif name == "read":
            assert call[-1] == 7
            assert sorted(call) == call
        elif name == "verify":
            assert call == ()
        else:
            only(call)
        assert trim.base == 6
        trimmed_and_whole(store)

    assert beside(race, prepare, check) >= 2


# --- reading, while what is read goes into a segment or out of one ---


KEYED: Final = [Event(1, {"n": number}, key=f"k{number}") for number in range(51, 61)]

READS: Final[dict[str, tuple[Callable[[EventStore, str], Any], Any]]] = {
    "read": (lambda store, name: numbers(store.read(name, after=50)), list(range(51, 81))),
    "replay": (
        lambda store, name: numbers(store.replay(name, fingerprint=FINGERPRINT).events),
        list(range(21, 81)),
    ),
    "verify": (lambda store, name: store.verify(name).problems, ()),
    "append again": (lambda store, name: store.append(name, KEYED, 50), 60),
}


@pytest.mark.parametrize("other", ["seal", "trim"])
@pytest.mark.parametrize("name", READS)
def test_what_moves_between_rows_and_segments_is_read(
    store: EventStore, race: Race, name: str, other: str
) -> None:
    """A trim within a segment gives the events behind it their rows again."""
    read, wanted = READS[name]
    made = itertools.count()

    def prepare() -> tuple[Call, Call]:
        thread = f"{name} {next(made)}"
        fill(store, thread, 20)
        store.put_snapshot(store.head(thread), NewSnapshot(FINGERPRINT, b"", b""))
        fill(store, thread, 30, start=21)
        store.append(thread, KEYED, 50)
        fill(store, thread, 20, start=61)
        if other == "seal":
            return lambda: read(store, thread), lambda: seal_now(store, thread)
        seal_now(store, thread)
        return lambda: read(store, thread), lambda: store.trim(thread, 20)

    def check() -> None:
        assert race.answers[0] == wanted
        assert not isinstance(race.answers[1], EventStoreError)

    # A replay reads in one statement what it can, and what has moved in another.
    assert beside(race, prepare, check) >= (2 if name == "replay" else 4)
