"""URLs of PostgreSQL: schemes, drivers, parameters, passwords and encodings."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url, text

from eventstore import (
    AsyncEventStore,
    ConfigurationError,
    EventStore,
    StoreUnavailableError,
)
from tests.eventstore.support import fill


def with_query(url: str, **query: str) -> str:
    return make_url(url).update_query_dict(query).render_as_string(hide_password=False)


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


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 1), ("auto", 1), ("none", None), ("5", 5), ("0", 0)]
)
def test_when_statements_are_prepared(
    store_url: str, given: str | None, expected: int | None
) -> None:
    url = store_url if given is None else with_query(store_url, prepare_threshold=given)
    with EventStore(url) as store:
        fill(store, "t", 1)
        for _ in range(12):
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
