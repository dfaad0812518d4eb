"""Behind a transaction-pooling proxy: a real PgBouncer, with fewer connections than clients.

Every transaction may run on another server connection than the one before it, so nothing may
hang on a session: no prepared statements, settings, advisory locks or LISTEN. A store that takes
the proxy for the server, here because its URL says so, loses nothing either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import AsyncEventStore, ConcurrencyError, Event, EventStore, NewSnapshot
from graph import END, START, PostgresSaver, StateGraph
from tests import postgres
from tests.effort import effort
from tests.eventstore.support import check_whole, fill, numbers
from tests.graph.kit import Trail, logs, on
from tests.pgbouncer import PROGRAM, pgbouncer

pytestmark = [
    pytest.mark.slow,  # starts a server and a proxy
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server(fsync=False) as running:
        yield running


@pytest.fixture(params=["transaction"])
def proxied(server: postgres.Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database, through the proxy."""
    with pgbouncer(server, 3, request.param) as folder, server.database() as url:
        through = make_url(url).update_query_dict({"host": str(folder)})
        yield through.render_as_string(hide_password=False)


EACH: Final = effort(12, 25)
"""Events that each of sixteen writers appends, to a thread of its own and to one that all share."""

PREPARING = pytest.mark.parametrize("prepare_threshold", ["auto", "0", "2"])


def with_threshold(url: str, threshold: str) -> URL:
    return make_url(url).update_query_dict({"prepare_threshold": threshold})


@pytest.mark.parametrize("proxied", ["transaction", "session"], indirect=True)
def test_no_statements_are_prepared(proxied: str) -> None:
    with EventStore(proxied, pool_min_size=0, pool_max_size=3) as store:
        for number in range(1, 21):
            fill(store, "t", 1, start=number)
        with store.engine.connect() as conn:
            raw: Any = conn.connection.driver_connection
            assert raw.prepare_threshold is None
            query = text("SELECT count(*) FROM pg_prepared_statements")
            assert conn.execute(query).scalar() == 0

    async def main() -> None:
        async with AsyncEventStore(proxied, pool_min_size=0, pool_max_size=3) as store:
            for number in range(20):
                await store.append("a", [Event(1)], number)
            assert isinstance(store.database.engine, AsyncEngine)
            async with store.database.engine.connect() as conn:
                assert (await conn.execute(query)).scalar() == 0

    asyncio.run(main())


@PREPARING
def test_many_threads_share_three_connections(proxied: str, prepare_threshold: str) -> None:
    url = with_threshold(proxied, prepare_threshold)
    with EventStore(url, tenant="test", pool_max_size=16) as store:
        store.setup()

        def write(writer: int) -> None:
            for count in range(EACH):
                fill(store, f"own {writer}", 1, start=count + 1)
                while True:
                    try:
                        fill(store, "shared", 1)
                        break
                    except ConcurrencyError:
                        continue

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(write, range(16)))
        assert store.head("shared").seq == 16 * EACH
        for writer in range(16):
            assert numbers(store.read(f"own {writer}")) == list(range(1, EACH + 1))
        store.fork("shared", 8 * EACH, "branch")
        store.append_after(store.head("branch"), [Event(1, {"n": 1})],
                           snapshot=NewSnapshot("test/1", b"state", b""))  # fmt: skip
        store.delete_thread("shared")
        assert len(list(store.replay("branch", fingerprint="none").events)) == 8 * EACH + 2
        assert check_whole(store) == 17


@PREPARING
def test_many_tasks_share_three_connections(proxied: str, prepare_threshold: str) -> None:
    url = with_threshold(proxied, prepare_threshold)

    async def main() -> None:
        async with AsyncEventStore(url, tenant="test", pool_max_size=16) as store:

            async def write(writer: int) -> None:
                for count in range(20):
                    await store.append(f"t{writer}", [Event(1, {"n": count})], count)

            await asyncio.gather(*(write(writer) for writer in range(40)))
            for writer in range(40):
                assert [e.data["n"] async for e in store.read(f"t{writer}")] == list(range(20))

    asyncio.run(main())


def test_a_graph_runs_and_resumes(proxied: str) -> None:
    graph = StateGraph(Trail)
    for name in "abc":
        graph.add_node(name, logs(name))
    graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge("c", END)
    with PostgresSaver(proxied) as saver:
        app = graph.compile(checkpointer=saver, interrupt_before=["c"])
        for turn in range(1, 21):
            app.invoke({}, on("t"))
            assert app.invoke(None, on("t"))["total"] == 3 * turn
        assert len(list(app.get_state_history(on("t"), every=True))) == 4 * 20
        assert app.verify(on("t")).ok
