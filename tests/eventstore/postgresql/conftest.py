"""All tests in this folder run on PostgreSQL alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, make_url

from eventstore.db.options import PoolOptions
from eventstore.db.postgresql import opening


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    """All of this is about PostgreSQL."""
    return postgresql_url


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    opened = opening.open_engine(make_url(store_url), PoolOptions())
    yield opened
    opened.dispose()
