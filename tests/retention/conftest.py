"""Stores with a clock that moves only when a test moves it."""

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
    """Like `store`: every backend, with sync and async APIs."""
    store.core._clock = clock
    return store


@pytest.fixture
def blocking(blocking_store: EventStore, clock: Clock) -> EventStore:
    """Like `blocking_store`, for tests that act during a sweep."""
    blocking_store.core._clock = clock
    return blocking_store
