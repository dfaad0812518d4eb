"""Fixtures of the races: a sync store, and a `Race` on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from eventstore import EventStore
from tests.conftest import BACKENDS
from tests.eventstore.postgresql.races.support import Race


@pytest.fixture(params=["postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database whose tables are there: making one for each test takes longer than a race."""
    with BACKENDS[request.param](tmp_path) as url:
        yield url


@pytest.fixture
def store(blocking_store: EventStore) -> EventStore:
    """What the asynchronous store sends is the same: both run the same operations."""
    return blocking_store


@pytest.fixture
def race(store: EventStore, store_url: str) -> Iterator[Race]:
    store.setup()
    with psycopg.connect(store_url, autocommit=True) as watcher:
        yield Race(store, watcher)
