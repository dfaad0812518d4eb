"""What the tests of retention share: a clock that stands still, and what is left of a thread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from eventstore import Event, EventStore, NewSnapshot
from retention import Plan, SweepReport, aplan, asweep, plan, sweep
from tests.awaited import Awaited
from tests.eventstore.support import FINGERPRINT, rows_of

DAY: Final = timedelta(days=1)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def opened(directory: Path, clock: Clock) -> EventStore:
    """The store in this directory, on a real file."""
    return EventStore(directory / "store.db", clock=clock, durability="normal")


def planned(store: EventStore, *args: Any, **options: Any) -> Plan:
    """`plan`, or its twin where the store is one."""
    if isinstance(store, Awaited):
        return store.loop.call(aplan(store.store, *args, **options))
    return plan(store, *args, **options)


def swept(store: EventStore, *args: Any, **options: Any) -> SweepReport:
    """`sweep`, or its twin where the store is one."""
    if isinstance(store, Awaited):
        return store.loop.call(asweep(store.store, *args, **options))
    return sweep(store, *args, **options)


def names(store: EventStore) -> set[str]:
    """The threads there are (fewer than a page of them)."""
    found = {thread.thread_id for thread in store.threads(limit=10_000)}
    assert len(found) < 10_000
    return found


def stepped(store: EventStore, thread_id: str, steps: int, clock: Clock, each: timedelta) -> None:
    """Append so many times two events, with a snapshot that counts them, some time apart."""
    head = store.head(thread_id)
    for step in range(head.seq // 2 + 1, head.seq // 2 + steps + 1):
        clock.now += each
        state = NewSnapshot(FINGERPRINT, store.codec.encode({"seq": 2 * step}), b"", step=step)
        batch = [Event(1, {"n": 2 * step - 1}), Event(1, {"n": 2 * step})]
        head = store.append_after(head, batch, snapshot=state)


def assert_whole(store: EventStore, keys: dict[str, int]) -> None:
    """Of these threads each verifies, or nothing at all of it is left."""
    alive = names(store)
    for thread_id, key in keys.items():
        if thread_id in alive:
            assert store.verify(thread_id).ok
        else:
            assert rows_of(store, key) == {}, f"{thread_id} is half gone"
