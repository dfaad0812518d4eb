"""Setting up on PostgreSQL, side by side, and ``schema=``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from eventstore import (
    AsyncEventStore,
    ConfigurationError,
    Event,
    EventStore,
    EventStoreError,
)
from eventstore.db.migrations import MIGRATIONS
from eventstore.db.schema import metadata
from tests import processes
from tests.eventstore.postgresql.support import role
from tests.eventstore.support import check_whole, data_of, fill, sql

ROOT = Path(__file__).parents[3]


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
        processes.Popen(
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
