"""What is PostgreSQL's own: engines and pools, errors of a real server, `schema=`, set-up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    EventStoreError,
    StoreBusyError,
    StoreUnavailableError,
    dialects,
    postgresql,
)
from eventstore.migrations import MIGRATIONS
from eventstore.postgresql import PoolOptions
from eventstore.schema import metadata
from tests import postgres
from tests.eventstore.support import check_whole, data_of, fill, sql

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    """All of this is about PostgreSQL."""
    return postgresql_url


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    opened = postgresql.open_engine(make_url(store_url), PoolOptions())
    yield opened
    opened.dispose()


def with_query(url: str, **query: str) -> str:
    return make_url(url).update_query_dict(query).render_as_string(hide_password=False)


def terminate_all(url: str) -> None:
    """End every other connection to this database, as an administrator would."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def role(url: str, options: str) -> Iterator[str]:
    """A user of the server, who is dropped afterwards."""
    name = f"role_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} {options}".encode())
        try:
            yield name
        finally:
            conn.execute(f"DROP ROLE {name}".encode())


# --- URLs -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_the_scheme(store_url: str, scheme: str) -> None:
    with EventStore(store_url.replace("postgresql:", f"{scheme}:", 1)) as store:
        fill(store, "t", 2)
        assert store.engine.dialect.driver == "psycopg"


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg", "pg8000", "nonsense"])
def test_other_drivers_are_refused(driver: str) -> None:
    for kind in (EventStore, AsyncEventStore):
        with pytest.raises(ConfigurationError) as caught:
            kind(f"postgresql+{driver}://u:hunter2@host/db")
        assert driver in str(caught.value)
        assert "hunter2" not in str(caught.value)


def parameters(engine: Engine) -> dict[str, str]:
    with engine.connect() as conn:
        raw: Any = conn.connection.driver_connection
        return dict(raw.info.get_parameters())


def test_a_url_may_set_anything(store_url: str) -> None:
    asked = {"connect_timeout": "3", "keepalives_idle": "7", "application_name": "mine"}
    with EventStore(with_query(store_url, **asked)) as store:
        found = parameters(store.engine)
        assert {name: found[name] for name in asked} == asked
        assert found["keepalives_count"] == "3"
    with EventStore(store_url) as store:
        assert parameters(store.engine)["connect_timeout"] == "10"


@pytest.mark.parametrize(("given", "expected"), [(None, None), ("none", None), ("5", 5), ("0", 0)])
def test_statements_are_prepared_only_when_asked(
    store_url: str, given: str | None, expected: int | None
) -> None:
    url = store_url if given is None else with_query(store_url, prepare_threshold=given)
    with EventStore(url) as store:
        fill(store, "t", 1)
        for _ in range(8):
            store.head("t")
        with store.engine.connect() as conn:
            raw: Any = conn.connection.driver_connection
            assert raw.prepare_threshold == expected
            prepared = conn.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()
            assert bool(prepared) == (expected is not None)


@pytest.mark.parametrize("given", ["often", "-1", "1.5"])
def test_a_threshold_that_is_no_number(store_url: str, given: str) -> None:
    with pytest.raises(ConfigurationError, match="prepare_threshold"):
        EventStore(with_query(store_url, prepare_threshold=given))


def test_passwords_are_never_shown(store_url: str) -> None:
    url = make_url(store_url).set(database="nowhere", password="hunter2")
    for target in (
        url.render_as_string(hide_password=False),
        with_query(store_url.replace("/test_", "/nowhere_"), password="hunter2"),
    ):
        store = EventStore(target)
        assert "hunter2" not in repr(store)
        with pytest.raises(StoreUnavailableError) as caught:
            store.setup()
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in f"{error}{error!r}"
            error = error.__cause__ or error.__context__
        assert "does not exist" in str(caught.value)
        store.close()


def test_a_database_in_another_encoding_is_refused(postgresql_url: str) -> None:
    url = make_url(postgresql_url)
    with psycopg.connect(postgresql_url, autocommit=True) as conn:
        conn.execute(
            f"CREATE DATABASE {url.database}_l TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
        )
        try:
            other = url.set(database=f"{url.database}_l").render_as_string(hide_password=False)
            with pytest.raises(ConfigurationError, match="LATIN1"), EventStore(other) as store:
                store.setup()
        finally:
            conn.execute(f"DROP DATABASE {url.database}_l")


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
        monkeypatch.setattr(postgresql, "CHECK_AFTER_S", 0.0)
        with store.engine.connect() as conn:  # alive: asked, and used
            conn.execute(text("SELECT 1"))
        assert connected == []
        terminate_all(store_url)
        with store.engine.connect() as conn:  # gone: replaced before anybody notices
            assert conn.execute(text("SELECT 1")).scalar() == 1
        assert len(connected) == 1


def test_one_lost_connection_empties_the_pool(store_url: str, engine: Engine) -> None:
    taken = [engine.connect() for _ in range(3)]
    for conn in taken:
        conn.execute(text("SELECT 1"))
        conn.close()
    terminate_all(store_url)
    with engine.connect() as conn, pytest.raises(exc.DBAPIError) as caught:
        conn.execute(text("SELECT 1"))
    assert dialects.classify(caught.value) == "lost"
    for _ in range(3):
        with engine.connect() as conn:
            assert conn.execute(text("SELECT 1")).scalar() == 1


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
        engine = postgresql.around_pool(pool)

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
            assert pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]

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


# --- what a real server says ------------------------------------------------------------


Provoke = Callable[[Engine, str], None]


def _terminated(engine: Engine, url: str) -> None:
    with engine.connect() as conn:
        conn.execute(text("SELECT 1"))
        terminate_all(url)
        conn.execute(text("SELECT 1"))


def _read_only(engine: Engine, _url: str) -> None:
    with engine.connect() as conn:
        conn.execute(text("SET default_transaction_read_only = on"))
        conn.execute(text("CREATE TABLE t (a int)"))


def _timed_out(engine: Engine, _url: str) -> None:
    with engine.connect() as conn:
        conn.execute(text("SET statement_timeout = 20"))
        conn.execute(text("SELECT pg_sleep(5)"))


def _wrong(engine: Engine, _url: str) -> None:
    with engine.connect() as conn:
        conn.execute(text("SELECT nonsense"))


def _no_database(engine: Engine, _url: str) -> None:
    with create_engine(engine.url.set(database="nowhere")).connect():
        pass


def _no_server(engine: Engine, _url: str) -> None:
    with create_engine(engine.url.set(query={"host": "/nowhere"})).connect():
        pass


def _too_many(engine: Engine, url: str) -> None:
    with (
        role(url, "LOGIN CONNECTION LIMIT 0") as name,
        create_engine(engine.url.set(username=name)).connect(),
    ):
        pass


def _two_tables(engine: Engine) -> None:
    with engine.connect() as conn:
        conn.execute(text("CREATE TABLE pair (id int PRIMARY KEY, n int)"))
        conn.execute(text("INSERT INTO pair VALUES (1, 0), (2, 0)"))


@contextmanager
def _in_thread(target: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=target)
    thread.start()
    yield
    thread.join()


def _deadlock(engine: Engine, _url: str) -> None:
    _two_tables(engine)
    both_hold = threading.Barrier(2)
    errors: list[BaseException] = []

    def change(first: int, second: int) -> None:
        with engine.connect() as conn:
            conn.execute(text("SET deadlock_timeout = 20"))
            conn.exec_driver_sql("BEGIN")
            conn.execute(text("UPDATE pair SET n = 1 WHERE id = :id"), {"id": first})
            both_hold.wait(10)
            try:
                conn.execute(text("UPDATE pair SET n = 1 WHERE id = :id"), {"id": second})
            except exc.DBAPIError as error:
                errors.append(error)
            conn.exec_driver_sql("ROLLBACK")

    with _in_thread(lambda: change(2, 1)):
        change(1, 2)
    raise errors[0]


def _serialization(engine: Engine, _url: str) -> None:
    _two_tables(engine)
    with engine.connect() as one, engine.connect() as other:
        one.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
        one.execute(text("SELECT * FROM pair"))
        other.execute(text("UPDATE pair SET n = 2"))
        try:
            one.execute(text("UPDATE pair SET n = 3"))
        finally:
            one.exec_driver_sql("ROLLBACK")


@pytest.mark.parametrize(
    ("provoke", "kind", "means"),
    [
        (_terminated, "lost", StoreUnavailableError),
        (_read_only, "lost", StoreUnavailableError),
        (_no_server, "lost", StoreUnavailableError),
        (_deadlock, "again", StoreUnavailableError),
        (_serialization, "again", StoreUnavailableError),
        (_timed_out, None, StoreBusyError),
        (_too_many, None, StoreBusyError),
        (_no_database, None, StoreUnavailableError),
        (_wrong, None, StoreUnavailableError),
    ],
)
def test_an_error_of_the_server(
    store_url: str, engine: Engine, provoke: Provoke, kind: str | None, means: type[Exception]
) -> None:
    with pytest.raises(exc.DBAPIError) as caught:
        provoke(engine, store_url)
    assert dialects.classify(caught.value) == kind
    assert type(dialects.translate(caught.value)) is means


def test_a_server_that_stops_and_starts() -> None:
    with postgres.server(fsync=False) as server:
        engine = postgresql.open_engine(make_url(server.url), PoolOptions())
        modes: list[postgres.StopMode] = ["fast", "immediate"]
        for mode in modes:
            with engine.connect() as conn:
                conn.execute(text("SELECT 1"))
                server.stop(mode)
                with pytest.raises(exc.DBAPIError) as caught:
                    conn.execute(text("SELECT 1"))
                assert dialects.classify(caught.value) == "lost", mode
            with pytest.raises(exc.DBAPIError) as caught, engine.connect():
                pass
            assert dialects.classify(caught.value) == "lost", mode
            server.start()
            with engine.connect() as conn:
                assert conn.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("40001", "again"), ("40P01", "again"),
        ("08000", "lost"), ("08003", "lost"), ("08006", "lost"), ("08P01", "lost"),
        ("57P01", "lost"), ("57P02", "lost"), ("57P03", "lost"), ("25006", "lost"),
        ("40003", "lost"), ("25P03", "lost"),
        ("23505", None), ("42601", None), ("53100", None), ("57014", None),
    ],
)  # fmt: skip
def test_every_code_that_has_a_meaning(code: str, kind: str | None) -> None:
    assert dialects.classify(psycopg.errors.lookup(code)("words")) == kind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("connection failed: FATAL:  the database system is starting up", "lost"),
        ("FATAL:  the database system is shutting down", "lost"),
        ("FATAL:  the database system is not yet accepting connections", "lost"),
        ("server closed the connection unexpectedly", "lost"),
        ("connection failed: Connection refused", "lost"),
        ("the connection is closed", "lost"),
        ("could not translate host name", "lost"),
        ("FATAL:  le système de bases de données se lance", "lost"),
        ('FATAL:  password authentication failed for user "u"', None),
        ('FATAL:  database "d" does not exist', None),
        ("FATAL:  sorry, too many clients already", None),
        ('FATAL:  no pg_hba.conf entry for host "h"', None),
    ],
)
def test_connections_that_could_not_be_made(words: str, kind: str | None) -> None:
    assert dialects.classify(psycopg.OperationalError(words)) == kind


def test_what_is_nobodys_fault() -> None:
    for error in (ValueError("server closed the connection"), exc.ArgumentError("x")):
        assert dialects.classify(error) is None
        assert dialects.translate(error) is None


def test_what_was_in_a_statement_is_not_in_the_message(engine: Engine) -> None:
    with pytest.raises(exc.DBAPIError) as caught, engine.connect() as conn:
        conn.execute(text("SELECT 1 / 0 WHERE :secret <> ''"), {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert dialects.said(caught.value) == "division by zero"


# --- setting up -------------------------------------------------------------------------


def test_payloads_are_stored_as_they_are_and_text_is_compared_by_bytes(store: EventStore) -> None:
    store.setup()
    rows = sql(
        store,
        "SELECT attrelid::regclass::text, attname, attstorage::text, collname "
        "FROM pg_attribute LEFT JOIN pg_collation c ON c.oid = attcollation "
        "WHERE attnum > 0 AND attrelid IN ('events'::regclass, 'snapshots'::regclass, "
        "'threads'::regclass, 'forks'::regclass, 'tombstones'::regclass)",
    )
    outside = {(table, column) for table, column, storage, _ in rows if storage == "e"}
    assert outside == {("events", "payload"), ("snapshots", "additions"), ("snapshots", "payload")}
    assert {collation for *_, collation in rows} == {None, "C"}


def test_names_are_ordered_by_their_bytes(store: EventStore) -> None:
    names = ["a", "B", "b", "Z", "ä", "_", "~", "é", "e"]
    for ns in names:
        fill(store, "t", 1, ns)
    assert list(store.verify("t").namespaces) == sorted(names)


OPENER = """
import sys
from eventstore import Event, EventStore
print("ready", flush=True)
sys.stdin.readline()
with EventStore(sys.argv[1]) as store:
    store.append(sys.argv[2], [Event(1, sys.argv[2])], 0)
"""


def test_processes_that_set_up_a_new_database_together(store_url: str) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, store_url, f"t{number}"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]  # fmt: skip
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    errors = [opener.communicate(timeout=120)[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * len(openers), "\n".join(errors)
    with EventStore(store_url) as store:
        assert check_whole(store) == len(openers)
        assert sql(store, "SELECT count(*) FROM eventstore_migrations") == [(len(MIGRATIONS),)]


def test_threads_that_set_up_a_new_database_together(store_url: str) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def run(number: int) -> None:
        barrier.wait()
        try:
            with EventStore(store_url) as store:
                fill(store, f"t{number}", 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    with EventStore(store_url) as store:
        assert check_whole(store) == 8


# --- schema= ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app", "Mixed Case", 'qu"ote', "percent%s", "ünï", "a.b", "None"])
def test_a_schema_of_ones_own(store_url: str, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"CREATE SCHEMA {quoted}".encode())
    with (
        EventStore(store_url) as outside,
        EventStore(store_url, schema=name) as inside,
        EventStore(store_url, schema=name) as again,
    ):
        fill(outside, "t", 2)
        for number in range(3):
            fill(inside, "t", 1, start=number + 100)
        fill(inside, "t", 3, start=103)
        inside.fork("t", 2, "child")
        inside.delete_thread("t")
        again.setup()
        assert data_of(outside, "t") == [{"n": 1}, {"n": 2}]
        assert [info.thread_id for info in again.threads()] == ["child"]
        assert again.verify("child").ok
        outside_tables = sql(outside, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        inside_tables = sql(outside, "SELECT count(*) FROM pg_tables WHERE schemaname = ?", (name,))
        assert outside_tables == inside_tables == [(len(metadata.tables),)]
        external = sql(
            outside,
            "SELECT count(*) FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid "
            "WHERE attstorage = 'e' AND relkind = 'r' "
            "AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = ?)",
            (name,),
        )
        assert external == [(4,)]  # payloads, and the additions of snapshots


def test_a_schema_that_is_not_there(store_url: str) -> None:
    with (
        EventStore(store_url, schema="nowhere") as store,
        pytest.raises(ConfigurationError, match="nowhere"),
    ):
        store.setup()


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb"])
def test_a_schema_that_is_no_name(store_url: str, name: str) -> None:
    with pytest.raises(ConfigurationError):
        EventStore(store_url, schema=name)


def test_a_schema_on_an_event_loop(store_url: str) -> None:
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA app")

    async def run() -> None:
        async with AsyncEventStore(store_url, schema="app") as store:
            await store.append("t", [Event(1, 1)], 0)

    asyncio.run(run())
    with EventStore(store_url, schema="app") as store:
        assert data_of(store, "t") == [1]


@pytest.mark.parametrize("table", ["events", "threads", "forks"])
def test_tables_of_another_program_are_not_touched(store_url: str, table: str) -> None:
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute(f"CREATE TABLE {table} (a int)".encode())
        with pytest.raises(ConfigurationError, match=table), EventStore(store_url) as store:
            store.setup()
        conn.execute("CREATE SCHEMA ours")
        with EventStore(store_url, schema="ours") as store:
            fill(store, "t", 1)
        assert conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


def test_a_user_who_may_not_create_tables_is_told(store_url: str) -> None:
    with psycopg.connect(store_url, autocommit=True) as conn:
        conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with role(store_url, "LOGIN") as name:
        url = make_url(store_url).set(username=name).render_as_string(hide_password=False)
        with pytest.raises(EventStoreError, match="permission denied"), EventStore(url) as store:
            store.setup()
