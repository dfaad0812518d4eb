"""Psycopg's connection pools, set up as LangGraph's documentation shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from benchmarks.backends.routes import POOLED

CONNECTIONS_MAX: Final = 20


def _connection_settings(url: str) -> dict[str, Any]:
    # PgBouncer in transaction mode gives each transaction another session: psycopg's documentation
    # says to prepare no statements then.
    threshold = None if POOLED in url else 0
    return {"autocommit": True, "prepare_threshold": threshold, "row_factory": dict_row}


@contextmanager
def documented_pool(url: str) -> Iterator[ConnectionPool[Any]]:
    """A pool that is open and has connected."""
    settings = _connection_settings(url)
    with ConnectionPool(url, kwargs=settings, max_size=CONNECTIONS_MAX, open=True) as pool:
        pool.wait()
        yield pool


async def documented_async_pool(url: str) -> AsyncConnectionPool[Any]:
    """A pool that is open and has connected; the caller closes it."""
    settings = _connection_settings(url)
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        url, kwargs=settings, max_size=CONNECTIONS_MAX, open=False
    )
    await pool.open(wait=True)
    return pool
