"""This library as a peer, with each of its savers; ``durability="full"``, the default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from sqlalchemy import select

from benchmarks.peers.limits import Row
from benchmarks.peers.peer import Peer, Session, async_session, event_loop, sync_session
from benchmarks.peers.pools import documented_pool
from eventstore import EventStore
from eventstore.db.schema import events
from graph import (
    END,
    START,
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    PostgresSaver,
    SqliteSaver,
    StateGraph,
)


@contextmanager
def _sqlite(target: str) -> Iterator[Session]:
    with SqliteSaver(target) as saver:
        yield sync_session(saver, saver.delete_thread)


@contextmanager
def _reusing(target: str) -> Iterator[Session]:
    """Of nodes that promise not to change what they are given."""
    with SqliteSaver(target) as saver:
        yield sync_session(saver, saver.delete_thread, reuse_state=True)


@contextmanager
def _postgres(target: str) -> Iterator[Session]:
    with PostgresSaver(target) as saver:
        yield sync_session(saver, saver.delete_thread)


def _async(
    saver_type: type[AsyncSqliteSaver] | type[AsyncPostgresSaver],
) -> Callable[[str], AbstractContextManager[Session]]:
    @contextmanager
    def session(target: str) -> Iterator[Session]:
        with event_loop() as run:
            saver = saver_type(target)
            try:
                yield async_session(saver, saver.delete_thread, run)
            finally:
                run(saver.close())

    return session


@contextmanager
def _pooled_postgres(target: str) -> Iterator[Session]:
    """On a pool like the one that LangGraph is given."""
    with documented_pool(target) as pool, PostgresSaver(pool) as saver:
        yield sync_session(saver, saver.delete_thread)


def _peer(
    key: str, variant: str, session: Callable[[str], AbstractContextManager[Session]]
) -> Peer:
    return Peer(key, f"this library{variant}", True, StateGraph, START, END, session)


PEERS: Final[tuple[Peer, ...]] = (
    _peer("ours", "", _sqlite),
    _peer("ours-reusing", ", reuse_state", _reusing),
    _peer("ours-async", ", async", _async(AsyncSqliteSaver)),
    _peer("ours-postgres", "", _postgres),
    _peer("ours-postgres-async", ", async", _async(AsyncPostgresSaver)),
    _peer("ours-postgres-pool", ", pooled", _pooled_postgres),
)


def stored_rows(store: EventStore, thread_id: str) -> list[Row]:
    """The stored events of a thread, with every column, in log order."""
    key = store.thread(thread_id).thread_key
    statement = select(events).where(events.c.thread_key == key).order_by(events.c.seq)
    with store.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(statement)]
