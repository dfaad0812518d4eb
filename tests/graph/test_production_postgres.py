"""What of the production helpers is only on PostgreSQL: pools, a schema, passwords, failures."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import QueuePool

from eventstore import EventStoreError, StoreBusyError, StoreUnavailableError
from graph import AsyncPostgresSaver, PostgresSaver, StateGraph
from graph.production import (
    PersistenceConfig,
    ProductionWorkflow,
    WorkflowError,
    create_async_production_checkpointer,
    create_production_checkpointer,
)
from tests.graph.kit import Trail, logged_at_debug, logs

pytestmark = pytest.mark.slow

PASSWORD: Final = "s3cr#t/pass?word"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PersistenceConfig.model_fields:
        monkeypatch.delenv(f"GRAPH_EVENTSTORE_{name.upper()}", raising=False)


def run(url: str, *statements: str) -> list[Any]:
    """Run statements as an administrator would, and return the rows of the last one."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as conn:
            for statement in statements:
                found = conn.exec_driver_sql(statement)
            return [tuple(row) for row in found] if found.returns_rows else []
    finally:
        engine.dispose()


def graph() -> StateGraph:
    made = StateGraph(Trail)
    made.add_node("one", logs("one"))
    made.set_entry_point("one")
    return made


def test_a_checkpointer_has_the_pool_and_the_schema_of_its_configuration(
    postgresql_url: str,
) -> None:
    run(postgresql_url, "CREATE SCHEMA graphs")
    config = PersistenceConfig(
        connection_string=postgresql_url,
        db_schema="graphs",
        pool_min_size=1,
        pool_max_size=2,
        pool_timeout_s=0.2,
        enable_compression=False,
        durability="normal",
    )
    with create_production_checkpointer(config) as saver:
        assert type(saver) is PostgresSaver
        assert not saver.store.codec.compress
        pool = saver.store.engine.pool
        assert isinstance(pool, QueuePool)
        assert (pool.size(), pool._max_overflow) == (1, 1)
        tables = run(
            postgresql_url, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'events'"
        )
        assert tables == [("graphs",)]
        engine = saver.store.engine
        with engine.connect(), engine.connect(), pytest.raises(StoreBusyError):
            saver.store.threads()

    async def open_async() -> None:
        async with await ProductionWorkflow.acreate(config, graph()) as workflow:
            assert type(workflow.checkpointer) is AsyncPostgresSaver
            await workflow.aexecute("run", {"log": []})
            assert (await workflow.aget_status("run"))["values"]["log"] == ["one"]

    asyncio.run(open_async())


def test_a_string_of_pairs_opens_the_same_database(postgresql_url: str) -> None:
    url = make_url(postgresql_url)
    query = {name: str(value) for name, value in url.query.items()}
    pairs: dict[str, Any] = {"host": url.host, "port": url.port, **query}
    text = make_conninfo(
        user=url.username,
        dbname=url.database,
        **{name: value for name, value in pairs.items() if value is not None},
    )
    for connection_string in (postgresql_url, text):
        config = PersistenceConfig(connection_string=connection_string)
        with ProductionWorkflow(config, graph()) as workflow:
            result = workflow.execute("run", {"log": []})
    assert result["log"] == ["one", "one"]


def test_a_hundred_async_runs_share_a_small_pool(postgresql_url: str) -> None:
    config = PersistenceConfig(connection_string=postgresql_url, pool_min_size=1, pool_max_size=4)

    async def use() -> None:
        async with await ProductionWorkflow.acreate(config, graph()) as workflow:
            results = await asyncio.gather(
                *(workflow.aexecute(f"run-{n}", {"log": [n]}) for n in range(100))
            )
            assert [result["log"] for result in results] == [[n, "one"] for n in range(100)]

    asyncio.run(use())


# --- a database that fails: what is told, and what is not -------------------------------


def with_password(url: str, password: str, **parts: Any) -> str:
    """The same URL with a password, which a server that trusts the socket does not ask for."""
    made = make_url(url).set(password=password, **parts)
    if made.username is None:
        made = made.set(username=run(url, "SELECT current_user")[0][0])
    return made.render_as_string(hide_password=False)


def shown_by(error: BaseException) -> str:
    """What a log or a tracker of errors would have of it, and of all that led to it."""
    parts = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        parts += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join([*parts, repr(vars(error))])


def nowhere(url: str, password: str) -> dict[str, tuple[str, str]]:
    """Connection strings with a password that lead nowhere, and what is told of each."""
    text = with_password(url, password)
    options = "host=127.0.0.1 port=1 user=app connect_timeout=2"
    return {
        "no such role": (with_password(url, password, username="nobody-here"), "nobody-here"),
        "no such database": (with_password(url, password, database="no-such-db"), "no-such-db"),
        "no server": (make_conninfo(options, password=password), "refused"),
        "no such option": (f"{text}{'&' if '?' in text else '?'}nonsense=1", "nonsense"),
    }


@pytest.mark.parametrize(
    "case", ["no such role", "no such database", "no server", "no such option"]
)
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=20).filter(
        str.strip
    )
)
def test_what_cannot_be_opened_tells_no_password(
    case: str, postgresql_url: str, password: str
) -> None:
    text, told = nowhere(postgresql_url, password)[case]
    config = PersistenceConfig(connection_string=text)
    with logged_at_debug() as lines:
        for create in (
            lambda: create_production_checkpointer(config).close(),
            lambda: asyncio.run(create_async_production_checkpointer(config)),
        ):
            with pytest.raises(EventStoreError) as caught:
                create()
            shown = shown_by(caught.value)
            assert told in shown
            for secret in (password, text, repr(password)[1:-1], quote(password)):
                assert secret not in shown
                assert secret not in lines.getvalue()


def test_a_database_that_goes_away_under_a_run(postgresql_url: str) -> None:
    name = make_url(postgresql_url).database
    server = make_url(postgresql_url).set(database="postgres")
    administrator = server.render_as_string(hide_password=False)
    config = PersistenceConfig(connection_string=with_password(postgresql_url, PASSWORD))

    def rename(before: str | None, after: str | None) -> None:
        run(
            administrator,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{before}'",
            f'ALTER DATABASE "{before}" RENAME TO "{after}"',
        )

    def go_away(state: Trail) -> dict[str, Any]:
        if "one" in state["log"][1:]:
            rename(name, f"{name}-gone")
        return {"log": ["went away"]}

    failing = graph()
    failing.add_node("go away", go_away)
    failing.add_edge("one", "go away")
    with logged_at_debug() as lines, ProductionWorkflow(config, failing) as workflow:
        try:
            with pytest.raises(WorkflowError) as caught:
                workflow.execute("run", {"log": ["begun"]})
        finally:
            rename(f"{name}-gone", name)
        error = caught.value
        assert error.state is None
        assert isinstance(error.original_error, StoreUnavailableError)
        assert "(and the state could not be read)" in str(error)
        for shown in (shown_by(error), lines.getvalue(), repr(pickle.loads(pickle.dumps(error)))):
            assert PASSWORD not in shown
            assert quote(PASSWORD, safe="") not in shown
        # What had been recorded is there once the database is.
        assert workflow.get_status("run")["next_nodes"] == ("go away",)
