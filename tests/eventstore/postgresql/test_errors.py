"""Errors of a real server become ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, exc, make_url, text

from eventstore import ConfigurationError, StoreBusyError, StoreUnavailableError
from eventstore.db import driver_errors
from eventstore.db.options import PoolOptions
from eventstore.db.postgresql import opening
from tests import postgres
from tests.eventstore.postgresql.support import role, terminate_all

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
    assert driver_errors.classify(caught.value) == kind
    assert type(driver_errors.translate(caught.value)) is means


@pytest.mark.slow
def test_a_server_that_stops_and_starts() -> None:
    with postgres.server(fsync=False) as server:
        engine = opening.open_engine(make_url(server.url), PoolOptions())
        modes: list[postgres.StopMode] = ["fast", "immediate"]
        for mode in modes:
            with engine.connect() as conn:
                conn.execute(text("SELECT 1"))
                server.stop(mode)
                with pytest.raises(exc.DBAPIError) as caught:
                    conn.execute(text("SELECT 1"))
                assert driver_errors.classify(caught.value) == "lost", mode
            with pytest.raises(exc.DBAPIError) as caught, engine.connect():
                pass
            assert driver_errors.classify(caught.value) == "lost", mode
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
    assert driver_errors.classify(psycopg.errors.lookup(code)("words")) == kind


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
    assert driver_errors.classify(psycopg.OperationalError(words)) == kind


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (f"SELECT {', '.join(f':p{n}' for n in range(70_000))}", dict.fromkeys(
            (f"p{n}" for n in range(70_000)), 1)),
        ("SELECT :value", {"value": object()}),
        ("SELECT CAST(:value AS integer)", {"value": 2**40}),
        ("SELECT CAST(:value AS text)", {"value": "a\0b"}),
    ],
    ids=["too many parameters", "no such type", "out of range", "a NUL"],
)  # fmt: skip
def test_what_the_driver_refuses_is_not_a_lost_connection(
    engine: Engine, statement: str, values: dict[str, Any]
) -> None:
    with engine.connect() as conn, pytest.raises(exc.DBAPIError) as caught:
        conn.execute(text(statement), values)
    assert driver_errors.classify(caught.value) is None
    assert not caught.value.connection_invalidated
    assert type(driver_errors.translate(caught.value)) is ConfigurationError


def test_what_is_nobodys_fault() -> None:
    for error in (ValueError("server closed the connection"), exc.ArgumentError("x")):
        assert driver_errors.classify(error) is None
        assert driver_errors.translate(error) is None


def test_what_was_in_a_statement_is_not_in_the_message(engine: Engine) -> None:
    with pytest.raises(exc.DBAPIError) as caught, engine.connect() as conn:
        conn.execute(text("SELECT 1 / 0 WHERE :secret <> ''"), {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert driver_errors.message(caught.value) == "division by zero"
