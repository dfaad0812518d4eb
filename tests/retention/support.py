"""Helpers for the tests of retention: a clock that tests move, plans and sweeps of any store."""

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
    """A clock that shows the time it was set to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def opened(directory: Path, clock: Clock) -> EventStore:
    """Open the store in this directory, in a file."""
    return EventStore(directory / "store.db", clock=clock, durability="normal")


def planned(store: EventStore, *args: Any, **options: Any) -> Plan:
    """`plan`, or `aplan` for an async store."""
    if isinstance(store, Awaited):
        return store.loop.call(aplan(store.store, *args, **options))
    return plan(store, *args, **options)


def swept(store: EventStore, *args: Any, **options: Any) -> SweepReport:
    """`sweep`, or `asweep` for an async store."""
    if isinstance(store, Awaited):
        return store.loop.call(asweep(store.store, *args, **options))
    return sweep(store, *args, **options)


def names(store: EventStore) -> set[str]:
    """The ids of all threads (less than one page of them)."""
    found = {thread.thread_id for thread in store.threads(limit=10_000)}
    assert len(found) < 10_000
    return found


def stepped(store: EventStore, thread_id: str, steps: int, clock: Clock, each: timedelta) -> None:
    """Append two events and a snapshot of their number per step, with a pause before each."""
    head = store.head(thread_id)
    for step in range(head.seq // 2 + 1, head.seq // 2 + steps + 1):
        clock.now += each
        state = NewSnapshot(FINGERPRINT, store.codec.encode({"seq": 2 * step}), b"", step=step)
        batch = [Event(1, {"n": 2 * step - 1}), Event(1, {"n": 2 * step})]
        head = store.append_after(head, batch, snapshot=state)


def assert_whole(store: EventStore, keys: dict[str, int]) -> None:
    """Check that each of these threads verifies, or that no row of it is left."""
    alive = names(store)
    for thread_id, key in keys.items():
        if thread_id in alive:
            assert store.verify(thread_id).ok
        else:
            assert rows_of(store, key) == {}, f"{thread_id} is half gone"
