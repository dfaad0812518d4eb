"""A database with some threads, on each backend that several processes can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Done, fill, run, unchanged
from tests.conftest import BACKENDS


@pytest.fixture(params=["sqlite-file", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """As everywhere, but for SQLite in memory, which no other process can see."""
    with BACKENDS[request.param](tmp_path) as url:
        yield url


@pytest.fixture
def database(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database with the threads of `fill`, which commands find by the environment."""
    monkeypatch.setenv("EVENTSTORE_DB", store_url)
    fill(store_url)
    return store_url


@pytest.fixture
def read(database: str) -> Callable[..., Done]:
    """Runs a command that only reads: it must not change the file."""

    def command(*arguments: str, **environment: Any) -> Done:
        with unchanged(database):
            return run(*arguments, **environment)

    return command
