"""An async store in several event loops: one after the other, side by side, after contention."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from eventstore import AsyncEventStore, ConfigurationError, Event, EventStore
from tests.awaited import run
from tests.eventstore.support import fill

pytestmark = pytest.mark.every_backend


async def contend(store: AsyncEventStore, mark: str, tasks: int = 12) -> None:
    """More operations side by side than there are connections."""

    async def one(number: int) -> None:
        assert await store.append(f"{mark}.{number}", [Event(1, number)], 0) == 1

    await asyncio.gather(*(one(number) for number in range(tasks)))


def opened(url: str) -> AsyncEventStore:
    return AsyncEventStore(url, pool_min_size=1, pool_max_size=2)


@pytest.mark.slow
def test_loops_one_after_the_other(store_url: str) -> None:
    store = opened(store_url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(5):
            run(contend(store, f"loop{number}"))
        run(store.close())
        gc.collect()


def test_loops_side_by_side(store_url: str) -> None:
    store = opened(store_url)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            asyncio.run(contend(store, f"loop{number}"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []

    async def end() -> None:
        counts = await store.stats()
        assert counts.threads == counts.events == 4 * 12
        await store.close()

    run(end())


def test_an_iterator_and_a_tenant_in_another_loop(store_url: str) -> None:
    store = opened(store_url)
    run(contend(store, "first"))
    other = store.with_tenant("other")
    run(contend(other, "second"))

    async def read() -> None:
        assert [event.data async for event in store.read("first.3")] == [3]
        assert len(await other.threads()) == 12
        await store.close()

    run(read())


def connections_to(url: str) -> int:
    """Connections of others to the database, by the server's own count."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as conn:
        row = conn.execute(f"{count} AND pid <> pg_backend_pid()").fetchone()
        assert row is not None
        return int(row[0])


def test_loops_that_ended_leak_no_connections(postgresql_url: str) -> None:
    store = opened(postgresql_url)
    for number in range(20):
        run(contend(store, f"loop{number}"))
        assert connections_to(postgresql_url) <= 2
    run(store.close())
    for _ in range(100):
        if not connections_to(postgresql_url):
            return
        threading.Event().wait(0.05)
    pytest.fail("a closed store left connections open")


def test_closing_in_another_loop(postgresql_url: str) -> None:
    store = opened(postgresql_url)
    run(contend(store, "first"))
    run(store.close())

    async def use() -> None:
        await store.head("first.0")

    with pytest.raises(Exception, match="closed"):
        run(use())


def test_a_callers_engine_belongs_to_its_first_loop(postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql://", "postgresql+psycopg://")
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    store = AsyncEventStore(engine)

    async def used_up() -> None:
        await contend(store, "first")

    asyncio.run(used_up())
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"this AsyncEngine was used in another"):
            asyncio.run(contend(store, "second"))

    async def anew() -> None:
        await contend(store, "third")
        await engine.dispose()
        await store.close()

    asyncio.run(engine.dispose())  # as SQLAlchemy advises between event loops
    asyncio.run(anew())


def test_a_callers_engine_without_a_pool_serves_every_loop(postgresql_url: str) -> None:
    url = postgresql_url.replace("postgresql://", "postgresql+psycopg://")
    store = AsyncEventStore(create_async_engine(url, poolclass=NullPool))
    for number in range(3):
        run(contend(store, f"loop{number}"))
    run(store.close())


def test_a_callers_pool_belongs_to_its_loop(postgresql_url: str) -> None:
    pool = AsyncConnectionPool(
        postgresql_url.replace("postgresql+psycopg", "postgresql"),
        open=False,
        min_size=1,
        max_size=2,
    )
    store = AsyncEventStore(pool)

    async def first() -> None:
        await pool.open()
        await contend(store, "first")
        await pool.close()

    asyncio.run(first())
    with pytest.raises(ConfigurationError, match=r"this AsyncConnectionPool was used in another"):
        asyncio.run(contend(store, "second"))


def test_a_sync_store_in_several_loops(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 1)

        async def use() -> int:
            return (await store.database.asyncio.run(store.core.head("t"))).seq

        assert [run(use()) for _ in range(3)] == [1, 1, 1]
