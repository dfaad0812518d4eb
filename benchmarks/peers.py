"""Who is measured: this library and LangGraph, each with its savers, blocking and not.

A peer lends a workload its graph classes and opens its own store on a file or a database;
all commit durably (``synchronous=FULL`` in WAL mode, ``synchronous_commit=on``). Each is used
as its documentation says. What an asynchronous peer does runs on an event loop that is there
already, and its applications are given a blocking face (``OnLoop``), so that one way of measuring
serves all.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from benchmarks.limits import Row


@dataclass(frozen=True)
class Session:
    """A peer's store, opened.

    Attributes:
        saver: what a graph is compiled with.
        compile: makes an application of a graph, to be used by blocking.
        delete_thread: removes all that is stored of a thread.
    """

    saver: Any
    compile: Callable[[Any], Any]
    delete_thread: Callable[[str], Any]


@dataclass(frozen=True)
class Peer:
    """A library under measurement; satisfies ``workloads.GraphApi``.

    Attributes:
        key: under which ``PEERS`` makes it, in this process or another.
        ours: whether it is this library.
        session: opens the store at a path or URL, for the length of a ``with`` block.
    """

    key: str
    name: str
    ours: bool
    state_graph: Callable[[Any], Any]
    start: str
    end: str
    session: Callable[[str], AbstractContextManager[Session]]


@dataclass(frozen=True)
class Pair:
    """Two that are compared.

    Attributes:
        said: added to the name of each measure.
        less: whether ours is expected to cost less; else it is asked how much more.
    """

    ours: Peer
    other: Peer
    said: str = ""
    less: bool = True


class OnLoop:
    """An application's asynchronous methods, called as if they blocked."""

    def __init__(self, app: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._app = app
        self._run = run

    def invoke(self, values: Any, config: Any) -> Any:
        return self._run(self._app.ainvoke(values, config))

    def get_state(self, config: Any) -> Any:
        return self._run(self._app.aget_state(config))

    def get_state_history(self, config: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [state async for state in self._app.aget_state_history(config)]

        history: list[Any] = self._run(collect())
        return history


def _blocking(saver: Any, delete_thread: Callable[[str], Any]) -> Session:
    return Session(saver, lambda graph: graph.compile(checkpointer=saver), delete_thread)


def _on_loop(
    saver: Any, delete_thread: Callable[[str], Any], run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> Session:
    return Session(
        saver,
        lambda graph: OnLoop(graph.compile(checkpointer=saver), run),
        lambda thread_id: run(delete_thread(thread_id)),
    )


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    # The loop itself, because Runner.run sets up the handling of Ctrl-C anew for each call.
    with asyncio.Runner() as runner:
        yield runner.get_loop().run_until_complete


# --- this library ---------------------------------------------------------------------------


@contextmanager
def _our_sqlite(target: str) -> Iterator[Session]:
    """``durability="full"``, which is the default."""
    from graph import SqliteSaver

    with SqliteSaver(target) as saver:
        yield _blocking(saver, saver.delete_thread)


@contextmanager
def _our_async_sqlite(target: str) -> Iterator[Session]:
    from graph import AsyncSqliteSaver

    with _loop() as run:
        saver = AsyncSqliteSaver(target)
        try:
            yield _on_loop(saver, saver.delete_thread, run)
        finally:
            run(saver.close())


@contextmanager
def _our_postgres(target: str) -> Iterator[Session]:
    from graph import PostgresSaver

    with PostgresSaver(target) as saver:
        yield _blocking(saver, saver.delete_thread)


@contextmanager
def _our_async_postgres(target: str) -> Iterator[Session]:
    from graph import AsyncPostgresSaver

    with _loop() as run:
        saver = AsyncPostgresSaver(target)
        try:
            yield _on_loop(saver, saver.delete_thread, run)
        finally:
            run(saver.close())


@contextmanager
def _our_pooled_postgres(target: str) -> Iterator[Session]:
    """On a pool such as LangGraph is given."""
    from psycopg_pool import ConnectionPool

    from graph import PostgresSaver

    with ConnectionPool(target, kwargs=_as_documented(), **POOL) as pool:
        pool.wait()
        with PostgresSaver(pool) as saver:
            yield _blocking(saver, saver.delete_thread)


def rows_of(session: Session, thread_id: str) -> list[Row]:
    """The stored events of a thread of ours, every column, in the order of the log."""
    from eventstore.schema import events

    store = session.saver.store
    key = store.thread(thread_id).thread_key
    statement = select(events).where(events.c.thread_key == key).order_by(events.c.seq)
    with store.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(statement)]


# --- LangGraph ------------------------------------------------------------------------------

POOL: Final[dict[str, Any]] = {"max_size": 20, "open": True}


def _as_documented() -> dict[str, Any]:
    from psycopg.rows import dict_row

    return {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


@contextmanager
def _their_sqlite(target: str) -> Iterator[Session]:
    """A connection as the documentation opens it, committing durably."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    connection = sqlite3.connect(target, check_same_thread=False)
    try:
        saver = SqliteSaver(connection)
        saver.setup()
        connection.execute("PRAGMA synchronous = FULL")
        yield _blocking(saver, saver.delete_thread)
    finally:
        connection.close()


@contextmanager
def _their_postgres(target: str) -> Iterator[Session]:
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg_pool import ConnectionPool

    with ConnectionPool(target, kwargs=_as_documented(), **POOL) as pool:
        pool.wait()
        saver = PostgresSaver(pool)
        saver.setup()
        yield _blocking(saver, saver.delete_thread)


@contextmanager
def _their_async_postgres(target: str) -> Iterator[Session]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg_pool import AsyncConnectionPool

    async def begin() -> tuple[Any, Any]:
        pool = AsyncConnectionPool(target, kwargs=_as_documented(), **{**POOL, "open": False})
        await pool.open(wait=True)
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        return pool, saver

    with _loop() as run:
        pool, saver = run(begin())
        try:
            yield _on_loop(saver, saver.adelete_thread, run)
        finally:
            run(pool.close())


# --- all of them ----------------------------------------------------------------------------


def _ours(
    key: str, name: str, session: Callable[[str], AbstractContextManager[Session]]
) -> Callable[[], Peer]:
    def make() -> Peer:
        from graph import END, START, StateGraph

        return Peer(key, name, True, StateGraph, START, END, session)

    return make


def _theirs(
    key: str, name: str, session: Callable[[str], AbstractContextManager[Session]]
) -> Callable[[], Peer]:
    def make() -> Peer:
        from langgraph.graph import END, START, StateGraph

        return Peer(key, name, False, StateGraph, START, END, session)

    return make


_US: Final = "this library"
_THEM: Final = "LangGraph"

PEERS: Final[dict[str, Callable[[], Peer]]] = {
    "ours": _ours("ours", _US, _our_sqlite),
    "ours-async": _ours("ours-async", f"{_US}, async", _our_async_sqlite),
    "langgraph": _theirs("langgraph", _THEM, _their_sqlite),
    "ours-postgres": _ours("ours-postgres", _US, _our_postgres),
    "ours-postgres-async": _ours("ours-postgres-async", f"{_US}, async", _our_async_postgres),
    "ours-postgres-pool": _ours("ours-postgres-pool", f"{_US}, pooled", _our_pooled_postgres),
    "langgraph-postgres": _theirs("langgraph-postgres", _THEM, _their_postgres),
    "langgraph-postgres-async": _theirs(
        "langgraph-postgres-async", f"{_THEM}, async", _their_async_postgres
    ),
}


def on_sqlite() -> tuple[Pair, ...]:
    """This library beside LangGraph, and its asynchronous face beside the blocking one."""
    us = PEERS["ours"]()
    return (
        Pair(us, PEERS["langgraph"]()),
        Pair(PEERS["ours-async"](), us, ", async", less=False),
    )


def on_postgres() -> tuple[Pair, ...]:
    """Each with its own pool; both asynchronously; and ours on the caller's pool."""
    us, them = PEERS["ours-postgres"](), PEERS["langgraph-postgres"]()
    awaiting = PEERS["ours-postgres-async"]()
    return (
        Pair(us, them),
        Pair(awaiting, PEERS["langgraph-postgres-async"](), ", async"),
        Pair(awaiting, us, ", async", less=False),
        Pair(PEERS["ours-postgres-pool"](), them, ", caller's pool"),
    )
