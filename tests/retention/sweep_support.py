"""Helpers for the tests of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from eventstore import (
    EventStore,
)
from retention import Pace, RetentionPolicy
from tests.eventstore.support import fill
from tests.retention.support import (
    DAY,
    Clock,
)

ROOT: Final = Path(__file__).resolve().parents[2]
MONTH: Final = RetentionPolicy(30 * DAY)


SMALL: Final = Pace(rows=500, rest=0)
"""A pace at which threads of more than 500 events count as large."""


def old(store: EventStore, clock: Clock, *thread_ids: str) -> dict[str, int]:
    """Create threads with two logs each, idle for 40 days; returns name → key."""
    for thread_id in thread_ids:
        fill(store, thread_id, 3)
        fill(store, thread_id, 2, ns="sub")
    clock.now += 40 * DAY
    return {thread_id: store.thread(thread_id).thread_key for thread_id in thread_ids}
