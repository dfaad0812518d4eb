"""Fixtures of the races: a sync store, and a `Race` on it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from eventstore import (
    EventStore,
)
from tests.eventstore.postgresql.races.support import Race


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def store(blocking_store: EventStore) -> EventStore:
    """What the asynchronous store sends is the same: both run the same operations."""
    return blocking_store


@pytest.fixture
def race(store: EventStore, store_url: str) -> Iterator[Race]:
    store.setup()
    with psycopg.connect(store_url, autocommit=True) as watcher:
        yield Race(store, watcher)
