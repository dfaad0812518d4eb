"""Stores whose clock stands still until a test moves it."""

from __future__ import annotations

import pytest

from eventstore import EventStore
from tests.retention.support import Clock


@pytest.fixture
def clock() -> Clock:
    """The clock of `timed` and `blocking`."""
    return Clock()


@pytest.fixture
def timed(store: EventStore, clock: Clock) -> EventStore:
    """As `store`: every backend, over the blocking calls and over their twins."""
    store.core._clock = clock
    return store


@pytest.fixture
def blocking(blocking_store: EventStore, clock: Clock) -> EventStore:
    """As `blocking_store`: for tests that act while a sweep is under way."""
    blocking_store.core._clock = clock
    return blocking_store
