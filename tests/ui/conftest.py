"""A database with some threads, on each backend that several processes can share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore import EventStore
from eventstore.ui import create_app
from tests.cli.support import unchanged
from tests.conftest import BACKENDS
from tests.ui.support import TOKEN, Browser, fill


@pytest.fixture(params=["sqlite-file", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """As everywhere, but for SQLite in memory, which no other process can see."""
    with BACKENDS[request.param](tmp_path) as url:
        yield url


@pytest.fixture
def database(store_url: str) -> str:
    """The URL of a database with the threads of `fill`."""
    fill(store_url)
    return store_url


@pytest.fixture
def browser(database: str) -> Iterator[Browser]:
    """Looks at that database, which must not change."""
    with EventStore(database, read_only=True) as store, unchanged(database):
        yield Browser(create_app(store, token=TOKEN))
