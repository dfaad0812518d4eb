"""What the tests of trimming share: growing a log, and reading what is left of it."""

from __future__ import annotations

from typing import Any

from eventstore import (
    Event,
    EventStore,
    Fork,
    NewSnapshot,
    Position,
)
from tests.eventstore.support import (
    FINGERPRINT,
    numbers,
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


def back(store: EventStore, thread_id: str, seq: int) -> int:
    """Go back to a place of the log."""
    head = store.head(thread_id)
    return store.append_after(head, [Fork(head.position._replace(seq=seq))]).seq
