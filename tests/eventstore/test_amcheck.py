"""PostgreSQL's own check of its indexes, where the server has the extension for it.

The wheel's server has none; a Debian or Ubuntu one does (``apt-get install postgresql``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import make_url

from eventstore import Event, EventStore
from tests import postgres
from tests.eventstore.support import fill


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    try:
        with postgres.server(fsync=False, extension="amcheck") as started:
            yield started
    except postgres.NoServer as missing:
        pytest.skip(str(missing))


@pytest.fixture
def url(server: postgres.Server) -> Iterator[str]:
    with server.database() as found:
        yield found


def as_superuser(url: str, statement: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as conn:
        conn.execute(statement.encode())


@contextmanager
def without_indexes(url: str, *tables: str) -> Iterator[None]:
    """Whatever is written inside is missing in the tables' indexes, as after a lost page."""
    of = " OR ".join(f"indrelid = '{table}'::regclass" for table in tables)
    as_superuser(url, f"UPDATE pg_index SET indisready = false, indisvalid = false WHERE {of}")
    yield
    as_superuser(url, f"UPDATE pg_index SET indisready = true, indisvalid = true WHERE {of}")


@pytest.mark.slow
def test_sound_indexes_are_said_to_be(url: str) -> None:
    with EventStore(url) as store:
        fill(store, "a", 3)
        assert "CREATE EXTENSION amcheck" in (store.check_database().note or "")
        as_superuser(url, "CREATE EXTENSION amcheck")
        report = store.check_database()
    assert (report.ok, report.checked_by, report.problems) == (True, "amcheck", ())


def test_every_damaged_index_is_named_and_no_other(url: str) -> None:
    as_superuser(url, "CREATE EXTENSION amcheck")
    with EventStore(url) as store:
        fill(store, "a", 3)
    with without_indexes(url, "threads", "events"), EventStore(url) as store:
        fill(store, "b", 2)
    with EventStore(url) as store:
        report = store.check_database()
    assert not report.ok and report.checked_by == "amcheck"
    named = {problem.split(":")[0].removeprefix("amcheck of ") for problem in report.problems}
    assert {"events_pkey", "threads_pkey"} <= named
    assert {name.partition("_")[0] for name in named} == {"events", "threads"}


def test_a_user_who_may_not_call_it_is_told_so(url: str) -> None:
    as_superuser(url, "CREATE EXTENSION amcheck")
    with EventStore(url) as store:
        fill(store, "a", 1)
    as_superuser(url, "CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
    with EventStore(make_url(url).set(username="reader"), read_only=True) as store:
        report = store.check_database()
    assert report.checked_by is None and "may not call amcheck" in (report.note or "")


def test_an_index_made_anew_brings_hidden_events_back(url: str) -> None:
    """Appended within a minute, without a change of status: no row knows of them."""
    as_superuser(url, "CREATE EXTENSION amcheck")
    with EventStore(url) as store:
        fill(store, "a", 3)
    with without_indexes(url, "events"), EventStore(url) as store:
        store.append("a", [Event(1, {"n": 4}), Event(1, {"n": 5})], 3)
    with EventStore(url) as store:
        assert store.head("a").seq == 3 and not store.check_database().ok
        as_superuser(url, "REINDEX TABLE events")
        assert store.head("a").seq == 5 and store.check_database().ok and store.verify("a").ok
