"""A database with some threads, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from eventstore import EventStore
from eventstore.ui import create_app
from tests.cli.support import unchanged
from tests.conftest import BACKENDS
from tests.effort import effort
from tests.ui.support import TOKEN, Browser, fill

ON: Final = effort(["sqlite-file"], ["sqlite-file", "postgresql"])
"""Backends of these tests; what the explorer asks a store is tested on all with the store, and
`test_looking.py` looks at every view on both."""


@pytest.fixture(params=ON)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that an explorer and others can open."""
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
