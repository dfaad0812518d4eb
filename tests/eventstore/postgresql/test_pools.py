"""Our own pool, and engines and pools of the caller."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import dict_row
from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore import (
    AsyncEventStore,
    ConfigurationError,
    Event,
    EventStore,
    StoreBusyError,
    StoreUnavailableError,
)
from eventstore.db import driver_errors
from eventstore.db.postgresql import borrowing, opening
from eventstore.db.postgresql.preparing import LOOK_AT
from tests.eventstore.postgresql.support import terminate_all
from tests.eventstore.support import check_whole, data_of, fill

# --- our own pool -----------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (3, 2), (0, 0)])
def test_sizes_that_make_no_sense(store_url: str, low: int, high: int) -> None:
    with pytest.raises(ConfigurationError, match="pool_min_size"):
        EventStore(store_url, pool_min_size=low, pool_max_size=high)


def test_a_timeout_that_makes_no_sense(store_url: str) -> None:
    with pytest.raises(ConfigurationError, match="pool_timeout"):
        EventStore(store_url, pool_timeout=0)


def test_connections_up_to_a_bound_and_some_are_kept(store_url: str) -> None:
    with EventStore(store_url, pool_min_size=2, pool_max_size=4, pool_timeout=0.1) as store:
        pool: Any = store.engine.pool
        taken = [store.engine.connect() for _ in range(4)]
        with pytest.raises(StoreBusyError) as caught:
            store.setup()
        assert "pool_max_size" in str(caught.value)
        for conn in taken:
            conn.close()
        assert (pool.checkedout(), pool.checkedin()) == (0, 2)
        fill(store, "t", 1)


def test_an_exhausted_pool_on_an_event_loop(store_url: str) -> None:
    async def run() -> None:
        store = AsyncEventStore(store_url, pool_min_size=0, pool_max_size=1, pool_timeout=0.1)
        async with store:
            await store.setup()
            engine: Any = store.database.engine
            async with engine.connect():
                with pytest.raises(StoreBusyError, match="pool_max_size"):
                    await store.head("t")
            await store.append("t", [Event(1, 1)], 0)

    asyncio.run(run())


def test_a_connection_that_was_idle_for_long_is_checked(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 1)
        connected: list[Any] = []
        event.listen(store.engine, "connect", lambda raw, _: connected.append(raw))
        monkeypatch.setattr(opening, "CHECK_AFTER_S", 0.0)
        with store.engine.connect() as conn:  # alive: asked, and used
            conn.execute(text("SELECT 1"))
        assert connected == []
        terminate_all(store_url)
        with store.engine.connect() as conn:  # gone: replaced before anybody notices
            assert conn.execute(text("SELECT 1")).scalar() == 1
        assert len(connected) == 1


def test_one_lost_connection_empties_the_pool(store_url: str, engine: Engine) -> None:
    for _ in range(LOOK_AT):
        taken = [engine.connect() for _ in range(3)]
        for conn in taken:
            conn.execute(text("SELECT 1"))
            conn.close()
    terminate_all(store_url)
    with engine.connect() as conn, pytest.raises(exc.DBAPIError) as caught:
        conn.execute(text("SELECT 1"))
    assert driver_errors.classify(caught.value) == "lost"
    for _ in range(3):
        with engine.connect() as conn:
            assert conn.execute(text("SELECT 1")).scalar() == 1


def test_one_that_is_lost_before_it_prepares_statements_is_replaced(
    store_url: str, engine: Engine
) -> None:
    taken = [engine.connect() for _ in range(3)]
    lost = [conn.connection.driver_connection for conn in taken]
    for conn in taken:
        conn.close()
    terminate_all(store_url)
    for _ in range(2 * len(lost)):
        with engine.connect() as conn:
            assert conn.execute(text("SELECT 1")).scalar() == 1
            assert conn.connection.driver_connection not in lost


def test_a_store_outlives_its_connections(store_url: str) -> None:
    with EventStore(store_url) as store:
        fill(store, "t", 3)
        terminate_all(store_url)
        assert data_of(store, "t") == [{"n": 1}, {"n": 2}, {"n": 3}]
        terminate_all(store_url)
        fill(store, "t", 1, start=4)
        assert check_whole(store) == 1


# --- a caller's engines and pools -------------------------------------------------------


def test_an_engine_of_the_callers_stays_as_it_was(store_url: str) -> None:
    for isolation in (None, "AUTOCOMMIT", "SERIALIZABLE"):
        options = {} if isolation is None else {"isolation_level": isolation}
        engine = create_engine(make_url(store_url).set(drivername="postgresql+psycopg"), **options)
        with engine.connect() as conn:
            before = conn.get_isolation_level()
        with EventStore(engine) as store:
            fill(store, f"t {isolation}", 3)
            fill(store, f"t {isolation}", 2, start=4)
            store.fork(f"t {isolation}", 2, f"child {isolation}")
            store.delete_thread(f"t {isolation}")
            assert check_whole(store) > 0
        with engine.connect() as conn:
            assert conn.get_isolation_level() == before
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        engine.dispose()


def test_an_asynchronous_engine_of_the_callers(store_url: str) -> None:
    async def run() -> None:
        engine = create_async_engine(make_url(store_url).set(drivername="postgresql+psycopg"))
        async with AsyncEventStore(engine) as store:
            assert await store.append("t", [Event(1, 1), Event(1, 2)], 0) == 2
            assert [found.data async for found in store.read("t")] == [1, 2]
        async with engine.connect() as conn:
            assert (await conn.execute(text("SELECT 1"))).scalar() == 1
        await engine.dispose()

    asyncio.run(run())


def configured(conn: Any) -> tuple[Any, ...]:
    return conn.autocommit, conn.isolation_level, conn.row_factory, conn.prepare_threshold


LANGGRAPH = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


@pytest.mark.parametrize("kwargs", [{}, LANGGRAPH])
def test_a_pool_of_the_callers(store_url: str, kwargs: dict[str, Any]) -> None:
    def configure(conn: Any) -> None:
        if not kwargs:
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    with psycopg_pool.ConnectionPool(
        store_url, min_size=1, max_size=2, kwargs=kwargs, configure=configure, open=True
    ) as pool:
        with pool.connection() as conn:
            before = configured(conn)
            handlers = len(conn._notice_handlers)
        with EventStore(pool) as store:
            for number in range(10):
                fill(store, "t", 2, start=2 * number + 1)
            store.fork("t", 3, "child")
            store.delete_thread("t")
            assert check_whole(store) == 1
        with pool.connection() as conn, pool.connection() as other:
            assert configured(conn) == configured(other) == before
            assert len(conn._notice_handlers) == len(other._notice_handlers) == handlers
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert conn.execute("SELECT 1 AS one").fetchone() in ({"one": 1}, (1,))
        assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]
        with EventStore(pool) as again:
            assert len(data_of(again, "child")) == 1


def test_what_fails_gives_the_connection_back_clean(store_url: str) -> None:
    with psycopg_pool.ConnectionPool(store_url, min_size=1, max_size=1, open=True) as pool:
        engine = borrowing.around_pool(pool)

        def fail(conn: Connection, statement: str) -> None:
            conn.exec_driver_sql("BEGIN")
            conn.exec_driver_sql(statement)
            raise ZeroDivisionError

        for _ in range(3):
            with pytest.raises(exc.DBAPIError), engine.begin() as conn:
                fail(conn, "SELECT nonsense")
            with pytest.raises(ZeroDivisionError), engine.begin() as conn:
                fail(conn, "SELECT 1")
        terminate_all(store_url)
        with pytest.raises(exc.DBAPIError), engine.connect() as conn:
            conn.execute(text("SELECT 1"))
        with pool.connection(timeout=5) as raw:
            assert raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert raw.autocommit is False


def test_a_pool_of_the_callers_that_is_exhausted_or_closed(store_url: str) -> None:
    pool = psycopg_pool.ConnectionPool(store_url, min_size=1, max_size=1, timeout=0.1, open=True)
    with pool, EventStore(pool) as store:
        store.setup()
        with pool.connection(), pytest.raises(StoreBusyError, match="pool"):
            store.head("t")
        assert store.head("t").seq == 0
    with pytest.raises(StoreUnavailableError, match="closed"), EventStore(pool) as store:
        store.setup()


@pytest.mark.parametrize("kwargs", [{}, LANGGRAPH])
def test_an_asynchronous_pool_of_the_callers(store_url: str, kwargs: dict[str, Any]) -> None:
    async def run() -> None:
        async with psycopg_pool.AsyncConnectionPool(
            store_url, min_size=1, max_size=2, timeout=0.2, kwargs=kwargs, open=False
        ) as pool:
            async with pool.connection() as conn:
                before = configured(conn)
                handlers = len(conn._notice_handlers)
            async with AsyncEventStore(pool) as store:
                for number in range(5):
                    await store.append("t", [Event(1, number)], number)
                assert [found.data async for found in store.read("t")] == [0, 1, 2, 3, 4]
                async with pool.connection(), pool.connection():
                    with pytest.raises(StoreBusyError, match="pool"):
                        await store.head("t")
                await store.delete_thread("t")
            async with pool.connection() as conn:
                assert configured(conn) == before
                assert len(conn._notice_handlers) == handlers
                assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            async with asyncio.timeout(5):  # the pool replaces a cut connection by and by
                while pool.get_stats()["pool_available"] < pool.get_stats()["pool_size"]:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_task_that_is_cancelled_gives_its_connection_back(store_url: str) -> None:
    async def run() -> None:
        async with psycopg_pool.AsyncConnectionPool(
            store_url, min_size=2, max_size=2, timeout=5, open=False
        ) as pool:
            async with AsyncEventStore(pool) as store:
                await store.append("t", [Event(1, 0)], 0)
                for delay in range(12):
                    task = asyncio.create_task(store.append("t", [Event(1, 1)] * 50, 1))
                    await asyncio.sleep(delay / 2000)
                    task.cancel()
                    (answer,) = await asyncio.gather(task, return_exceptions=True)
                    if not isinstance(answer, asyncio.CancelledError):
                        break
                    seq = (await store.head("t")).seq
                    assert seq in (1, 51)
                    if seq == 51:
                        break
            assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]

    asyncio.run(run())
