"""The savers that the tests here drive: each API on each backend, as tests/README.md says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.langgraph.kit import Driver, driving


@pytest.fixture(params=["sync", "async"])
def store(request: pytest.FixtureRequest) -> str:
    """Which API; named as the fixture that chooses the pairs of API and backend."""
    api: str = request.param
    return api


@pytest.fixture
def driver(store: str, store_url: str) -> Iterator[Driver]:
    """An open saver on a database with nothing in it."""
    with driving(store_url, store == "async") as opened:
        yield opened
