"""What the tests of retention share: a clock that stands still, and what is left of a thread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from eventstore import EventStore
from tests.eventstore.support import rows_of

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


def names(store: EventStore) -> set[str]:
    """The threads there are (fewer than a page of them)."""
    found = {thread.thread_id for thread in store.threads(limit=10_000)}
    assert len(found) < 10_000
    return found


def assert_whole(store: EventStore, keys: dict[str, int]) -> None:
    """Of these threads each verifies, or nothing at all of it is left."""
    alive = names(store)
    for thread_id, key in keys.items():
        if thread_id in alive:
            assert store.verify(thread_id).ok
        else:
            assert rows_of(store, key) == {}, f"{thread_id} is half gone"
