"""What may be passed as a checkpointer, and what an error says about anything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import langgraph.graph
import pytest

from eventstore import AsyncEventStore, ConfigurationError, EventStore, StoreClosedError
from graph import (
    START,
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
    StateGraph,
)
from graph.errors import ForeignThreadError
from graph.langgraph import EventStoreSaver
from graph.production import (
    PersistenceConfig,
    PersistenceConfigError,
    ProductionWorkflow,
    create_async_production_checkpointer,
    create_production_checkpointer,
)

MEMORY = sqlite3.connect(":memory:", check_same_thread=False)
URL = "postgresql://user:hunter2@host/db"


class State(TypedDict):
    total: int


def graph() -> StateGraph:
    return StateGraph(State).add_node("count", lambda state: {"total": 1}).add_edge(START, "count")


class WithoutStore:
    store = "runs.db"


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a path": (lambda: "runs.db", "SqliteSaver"),
    "a Path": (lambda: Path("runs.db"), "SqliteSaver"),
    "a URL": (lambda: URL, "PostgresSaver"),
    "a connection": (lambda: MEMORY, "SqliteSaver"),
    "a class": (lambda: SqliteSaver, "class SqliteSaver; pass an instance"),
    "the class of a store": (lambda: EventStore, "class EventStore; pass an instance"),
    "not entered": (lambda: SqliteSaver.from_conn_string("runs.db"), "`with … as saver:`"),
    "not entered, async": (
        lambda: AsyncSqliteSaver.from_conn_string("runs.db"),
        "`async with … as saver:`",
    ),
    "not awaited": (
        lambda: create_async_production_checkpointer(PersistenceConfig(backend="memory")),
        "not awaited",
    ),
    "not called": (lambda: create_production_checkpointer, "call it and pass its result"),
    "a method": (lambda: SqliteSaver.from_conn_string, "call it and pass its result"),
    "a mapping": (lambda: {"store": "runs.db"}, "pass a checkpointer"),
    "a number": (lambda: 5, "pass a checkpointer"),
    "something with another store": (WithoutStore, "pass a checkpointer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_checkpointer(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, remedy = WRONG[case]
    with pytest.raises(ConfigurationError) as caught:
        graph().compile(checkpointer=make())
    assert remedy in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        ProductionWorkflow(PersistenceConfig(backend="memory"), graph(), checkpointer=make())
    assert list(tmp_path.iterdir()) == []


def test_a_checkpointer_is_a_saver_or_a_store() -> None:
    for checkpointer in (MemorySaver(), EventStore(), AsyncEventStore()):
        graph().compile(checkpointer=checkpointer)


def test_a_closed_checkpointer_says_so(tmp_path: Path) -> None:
    with SqliteSaver(tmp_path / "runs.db") as saver:
        app = graph().compile(checkpointer=saver)
    with pytest.raises(StoreClosedError, match="open a new one"):
        app.invoke({}, {"configurable": {"thread_id": "t"}})


SAVERS: list[tuple[Any, Any, str]] = [
    (PostgresSaver, "", "empty"),
    (PostgresSaver, None, "not set"),
    (PostgresSaver, "runs.db", "or use SqliteSaver"),
    (PostgresSaver, Path("runs.db"), "or use SqliteSaver"),
    (PostgresSaver, "sqlite:///runs.db", "or use SqliteSaver"),
    (PostgresSaver, ":memory:", "or use SqliteSaver"),
    (PostgresSaver, MEMORY, "or use SqliteSaver"),
    (PostgresSaver, "mysql://host/db", "expected"),
    (AsyncPostgresSaver, "", "empty"),
    (AsyncPostgresSaver, "runs.db", "or use AsyncSqliteSaver"),
    (SqliteSaver, "", "empty"),
    (SqliteSaver, None, "not set"),
    (SqliteSaver, "sqlite:///", "names no file"),
    (SqliteSaver, URL, "or use PostgresSaver"),
    (SqliteSaver, "host=localhost dbname=runs", "or use PostgresSaver"),
    (AsyncSqliteSaver, URL, "or use AsyncPostgresSaver"),
    (AsyncSqliteSaver, "", "empty"),
]


@pytest.mark.parametrize(("saver", "target", "remedy"), SAVERS)
def test_a_saver_opens_its_own_kind_of_database(
    saver: Any, target: Any, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        saver(target)
    assert remedy in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", " ", "sqlite:///", "sqlite://", "sqlite://runs.db", URL])
def test_a_configuration_of_sqlite_names_a_file(text: str) -> None:
    with pytest.raises(PersistenceConfigError, match="connection_string: "):
        PersistenceConfig(backend="sqlite", connection_string=text)


@pytest.mark.parametrize("text", ["", " ", "runs.db", "sqlite:///runs.db", ":memory:"])
def test_a_configuration_of_postgresql_names_a_server(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPH_EVENTSTORE_CONNECTION_STRING", text)
    with pytest.raises(PersistenceConfigError, match="connection_string: "):
        PersistenceConfig()


def test_a_saver_for_langgraphs_graphs_is_named(tmp_path: Path) -> None:
    expected = pytest.raises(TypeError, match="EventStoreSaver, which is for LangGraph's own")
    with EventStoreSaver(str(tmp_path / "x.db")) as saver, expected:
        graph().compile(saver)


def test_a_thread_that_langgraph_wrote_is_named(tmp_path: Path) -> None:
    with EventStoreSaver(str(tmp_path / "x.db")) as saver:
        theirs = langgraph.graph.StateGraph(State).add_node("count", lambda state: {"total": 1})
        config: Any = {"configurable": {"thread_id": "t"}}
        theirs.add_edge(START, "count").compile(saver).invoke({"total": 0}, config)
        ours = graph().compile(saver.store)
        for call in (
            lambda: ours.invoke({"total": 0}, config),
            lambda: ours.get_state(config),
            lambda: list(ours.get_state_history(config)),
        ):
            with pytest.raises(ForeignThreadError, match="LangGraph wrote the thread"):
                call()
