"""LangGraph as a peer, with its savers for SQLite and PostgreSQL, and with ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.peers.peer import Peer, Session, async_session, event_loop, sync_session
from benchmarks.peers.pools import documented_async_pool, documented_pool
from graph.langgraph import EventStoreSaver


@contextmanager
def opened_sqlite(target: str) -> Iterator[SqliteSaver]:
    """A saver on a connection as the documentation opens it, committing durably."""
    connection = sqlite3.connect(target, check_same_thread=False)
    try:
        saver = SqliteSaver(connection)
        saver.setup()
        connection.execute("PRAGMA synchronous = FULL")
        yield saver
    finally:
        connection.close()


@contextmanager
def _sqlite(target: str) -> Iterator[Session]:
    with opened_sqlite(target) as saver:
        yield sync_session(saver, saver.delete_thread)


@contextmanager
def _postgres(target: str) -> Iterator[Session]:
    with documented_pool(target) as pool:
        saver = PostgresSaver(pool)
        saver.setup()
        yield sync_session(saver, saver.delete_thread)


@contextmanager
def _async_postgres(target: str) -> Iterator[Session]:
    async def begin() -> tuple[Any, Any]:
        pool = await documented_async_pool(target)
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        return pool, saver

    with event_loop() as run:
        pool, saver = run(begin())
        try:
            yield async_session(saver, saver.adelete_thread, run)
        finally:
            run(pool.close())


@contextmanager
def _with_our_saver(target: str) -> Iterator[Session]:
    with EventStoreSaver(target) as saver:
        yield sync_session(saver, saver.delete_thread)


@contextmanager
def _memory(_target: str) -> Iterator[Session]:
    saver = InMemorySaver()
    yield sync_session(saver, saver.delete_thread)


def _peer(
    key: str, variant: str, session: Callable[[str], AbstractContextManager[Session]]
) -> Peer:
    return Peer(key, f"LangGraph{variant}", False, StateGraph, START, END, session)


PEERS: Final[tuple[Peer, ...]] = (
    _peer("langgraph", "", _sqlite),
    _peer("langgraph-memory", ", in memory", _memory),
    _peer("langgraph-here", " with our saver", _with_our_saver),
    _peer("langgraph-postgres", "", _postgres),
    _peer("langgraph-postgres-here", " with our saver", _with_our_saver),
    _peer("langgraph-postgres-async", ", async", _async_postgres),
)
