"""Statements are prepared where a connection leads to the server itself, and may get lost there.

Behind a proxy that gives each transaction another session: tests/eventstore/test_proxy.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import psycopg
import psycopg_pool
import pytest
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore import AsyncEventStore, Event
from eventstore.db import writers
from eventstore.db.postgresql.preparing import name_of
from tests.eventstore.postgresql.crowd import Held, Tasks, Threads, appends, begun, stored
from tests.eventstore.postgresql.lossy import lossy
from tests.eventstore.postgresql.support import terminate_all

OFTEN: Final = 12

PREPARED: Final = b"SELECT name, statement, parameter_types FROM pg_prepared_statements"

FORGET: Final = [b"DEALLOCATE ALL", b"DISCARD ALL"]

FORGETS: Final = """
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN NULL; END $$;
CREATE TRIGGER forgets AFTER INSERT ON events EXECUTE FUNCTION forget()
"""

RETYPE: Final = "ALTER TABLE threads ALTER COLUMN status TYPE varchar(200)"
"""Changes the type of what statements return, as a migration by another process may."""


class Connections(list[Any]):
    """The driver's connections that an engine uses, from now on."""

    def __init__(self, crowd: Threads | Tasks) -> None:
        super().__init__()
        event.listen(crowd.engine.pool, "connect", self._note)

    def _note(self, _connection: Any, record: Any) -> None:
        if record.driver_connection not in self:
            self.append(record.driver_connection)

    @property
    def open(self) -> list[Any]:
        return [each for each in self if not each.closed]

    def execute(self, statement: bytes) -> list[list[str]]:
        """Execute a statement in each session, unknown to the driver; returns the rows of all."""
        rows = []
        for each in self.open:
            result = each.pgconn.exec_(statement)
            assert not result.error_message
            for row in range(result.ntuples):
                values = [result.get_value(row, at) or b"" for at in range(result.nfields)]
                rows.append([value.decode() for value in values])
        return rows

    @property
    def prepared(self) -> list[list[str]]:
        """The names, texts and types of their prepared statements."""
        return self.execute(PREPARED)


def append(store: Any, name: str, events: list[Event], seq: int) -> Any:
    return store.append(name, events, seq)


def use(crowd: Threads | Tasks, name: str, times: int = OFTEN) -> None:
    """Append to a thread, and look at it."""
    start = crowd.ask(lambda store: store.head(name)).seq
    for number in range(start, start + times):
        events = [Event(1, {"n": number + 1})]
        crowd.ask(partial(append, name=name, events=events, seq=number))
        assert crowd.ask(lambda store: store.thread(name)).status is not None


def check(url: str, name: str, length: int) -> None:
    assert stored(url, name) == [{"n": number + 1} for number in range(length)]


@pytest.fixture(params=[Threads, Tasks])
def kind(request: pytest.FixtureRequest) -> type[Threads | Tasks]:
    found: type[Threads | Tasks] = request.param
    return found


@pytest.fixture
def crowd(kind: type[Threads | Tasks], store_url: str) -> Iterator[Threads | Tasks]:
    opened = kind(store_url)
    yield opened
    opened.close()


@pytest.fixture
def connections(crowd: Threads | Tasks) -> Connections:
    return Connections(crowd)


def test_they_are_prepared_once_a_connection_is_used_often(
    crowd: Threads | Tasks, connections: Connections, store_url: str
) -> None:
    use(crowd, "t")
    assert [each.prepare_threshold for each in connections] == [1]
    assert len(connections.prepared) > 2
    check(store_url, "t", OFTEN)


def test_they_are_prepared_behind_a_plain_proxy_for_one_more_round_trip_each(
    kind: type[Threads | Tasks], store_url: str
) -> None:
    if "host" not in make_url(store_url).query:
        pytest.skip("the server is not one of ours")
    with lossy(store_url) as proxy:
        crowd = kind(proxy.url)
        connections = Connections(crowd)
        head = begun(crowd, "t")

        def trips(times: int) -> int:
            nonlocal head
            before = proxy.trips
            for _ in range(times):
                (call,) = appends([head], n=head.seq + 1)
                head = crowd.ask(call)
            return proxy.trips - before

        assert trips(OFTEN) <= OFTEN + 1 + 1  # to see where it leads, and to prepare the statement
        assert trips(OFTEN) == OFTEN
        assert len(connections.prepared) >= 1
        crowd.close()
        check(store_url, "t", 1 + 2 * OFTEN)


@pytest.mark.parametrize("forget", FORGET)
def test_a_session_that_forgot_them_goes_on_without(
    crowd: Threads | Tasks,
    connections: Connections,
    store_url: str,
    forget: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use(crowd, "t")
    connections.execute(forget)
    assert connections.prepared == []
    use(crowd, "t")
    assert len(caplog.records) == 1, "one attempt failed, and the next one did not"
    assert len(connections) == 1
    assert connections[0].prepare_threshold is None
    assert connections.prepared == []
    check(store_url, "t", 2 * OFTEN)


def test_after_a_migration_by_another_process_they_go_on_without(
    crowd: Threads | Tasks, connections: Connections, store_url: str
) -> None:
    use(crowd, "t")
    with psycopg.connect(store_url) as conn:
        conn.execute(RETYPE)
    use(crowd, "t")
    assert connections[0].prepare_threshold is None
    check(store_url, "t", 2 * OFTEN)


def test_connections_that_are_opened_later_prepare_again(
    crowd: Threads | Tasks, connections: Connections, store_url: str
) -> None:
    use(crowd, "t")
    connections.execute(FORGET[0])
    use(crowd, "t")
    terminate_all(store_url)
    use(crowd, "t")
    assert [each.closed for each in connections] == [True, False]
    assert len(connections.prepared) > 2
    check(store_url, "t", 3 * OFTEN)


@pytest.mark.parametrize("forget", FORGET)
def test_a_number_in_the_url_is_what_connections_begin_with(
    kind: type[Threads | Tasks], store_url: str, forget: bytes
) -> None:
    url = make_url(store_url).update_query_dict({"prepare_threshold": "0"})
    crowd = kind(url)
    connections = Connections(crowd)
    use(crowd, "t", 1)
    assert len(connections.prepared) > 2
    connections.execute(forget)
    use(crowd, "t")
    assert connections.prepared == []
    crowd.close()
    check(store_url, "t", 1 + OFTEN)


@pytest.mark.parametrize("threshold", ["auto", "0"])
def test_appends_that_share_a_transaction_go_on_without(
    kind: type[Threads | Tasks],
    store_url: str,
    threshold: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writers, "PARALLEL", 1)
    crowd = kind(make_url(store_url).update_query_dict({"prepare_threshold": threshold}))
    connections = Connections(crowd)
    names = [f"t{number}" for number in range(6)]
    heads = [begun(crowd, name) for name in names]
    for _ in range(3):
        heads = crowd.together(Held(store_url), appends(heads))
        crowd.ask(lambda store: store.delete_thread("first"))
    assert len(connections.prepared) > 2
    with psycopg.connect(store_url) as conn:
        conn.execute(FORGETS)  # the append ahead of the others does it
    found = crowd.together(Held(store_url), appends(heads))
    assert [head.seq for head in found] == [5] * len(names)
    assert {vars(each)["sqlstate"] for each in caplog.records} == {"26000"}
    for name in names:
        assert len(stored(store_url, name)) == 5
    crowd.close()


def test_a_name_is_that_of_one_statement_in_every_session(
    kind: type[Threads | Tasks], store_url: str
) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for order in (1, -1):
        crowd = kind(store_url)
        connections = Connections(crowd)
        calls: list[Callable[[Any], Any]] = [
            lambda store: store.head("t"),
            lambda store: store.thread("t"),
        ]
        use(crowd, "t", 1)
        for call in (calls * OFTEN)[::order]:
            crowd.ask(call)
        assert len(connections.prepared) >= 2
        for name, text, types in connections.prepared:
            assert seen.setdefault(name, (text, types)) == (text, types)
        crowd.close()
    assert len({name_of(b"a", ()), name_of(b"b", ()), name_of(b"a", (20,))}) == 3


# --- connections of the callers ---------------------------------------------------------


def engine_of_callers(kind: type[Threads | Tasks], url: str) -> Any:
    make = create_engine if kind is Threads else create_async_engine
    options = {"prepare_threshold": 0}
    return make(make_url(url).set(drivername="postgresql+psycopg"), connect_args=options)


@pytest.mark.parametrize("forget", FORGET)
def test_an_engine_of_the_callers_prepares_as_it_did(
    kind: type[Threads | Tasks], store_url: str, forget: bytes
) -> None:
    engine = engine_of_callers(kind, store_url)
    crowd = kind(engine)
    connections = Connections(crowd)
    use(crowd, "t", 2)
    for _ in range(2):
        before = connections.open
        connections.execute(forget)
        use(crowd, "t", 2)
        assert not set(before) & set(connections.open)
        assert {each.prepare_threshold for each in connections.open} == {0}
        assert len(connections.prepared) > 2
    with psycopg.connect(store_url) as conn:
        conn.execute(RETYPE)
    use(crowd, "t", 2)
    if isinstance(crowd, Tasks):
        crowd.run(engine.dispose())
    else:
        engine.dispose()
    crowd.close()
    check(store_url, "t", 8)


def test_a_pool_of_the_callers_prepares_as_it_did(store_url: str) -> None:
    kwargs = {"autocommit": True, "prepare_threshold": 0}
    with psycopg_pool.ConnectionPool(
        store_url, min_size=1, max_size=1, kwargs=kwargs, open=True
    ) as pool:
        crowd = Threads(pool)
        connections = Connections(crowd)
        use(crowd, "t", 2)
        connections.execute(FORGET[0])
        use(crowd, "t", 2)
        with psycopg.connect(store_url) as conn:
            conn.execute(RETYPE)
        use(crowd, "t", 2)
        with pool.connection() as conn:
            assert conn.prepare_threshold == 0
        assert len(connections.prepared) > 2
        stats = pool.get_stats()
        assert stats["pool_available"] == stats["pool_size"] == 1
        crowd.close()
    check(store_url, "t", 6)


def test_an_asynchronous_pool_of_the_callers_prepares_as_it_did(store_url: str) -> None:
    kwargs = {"autocommit": True, "prepare_threshold": 0}

    async def main() -> None:
        async with psycopg_pool.AsyncConnectionPool(
            store_url, min_size=1, max_size=1, kwargs=kwargs, open=False
        ) as pool:
            async with AsyncEventStore(pool) as store:
                for number in range(6):
                    await store.append("t", [Event(1, {"n": number + 1})], number)
                    async with pool.connection() as conn:
                        assert conn.prepare_threshold == 0
                        conn.pgconn.exec_(FORGET[number % 2])
            stats = pool.get_stats()
            assert stats["pool_available"] == stats["pool_size"] == 1

    asyncio.run(main())
    check(store_url, "t", 6)
