"""Each extra, installed alone, imports and does its job: ``nox --session extras``.

``python tests/extras.py NAME`` does one, in an environment that has that extra and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypedDict

from eventstore import EventStore, StoreUnavailableError
from graph import MemorySaver, MessagesState, PostgresSaver, SqliteSaver, StateGraph


class State(TypedDict, total=False):
    value: Any


def kept(value: Any) -> Any:
    """What a graph reads back of a value that one of its nodes wrote."""
    graph = StateGraph(State).add_node("write", lambda state: {"value": value})
    app = graph.set_entry_point("write").compile(checkpointer=MemorySaver())
    app.invoke({"value": None}, {"configurable": {"thread_id": "a"}})
    return app.get_state({"configurable": {"thread_id": "a"}}).values["value"]


def none() -> None:
    assert kept({"a": [1]}) == {"a": [1]}


def archive() -> None:
    from retention.archives import Archive, archive_and_prune, restore

    kept_in = Path(tempfile.mkdtemp())
    with SqliteSaver.from_conn_string(str(kept_in / "a.db")) as saver:
        graph = StateGraph(State).add_node("n", lambda state: {"value": 1}).set_entry_point("n")
        app = graph.compile(checkpointer=saver)
        app.invoke({"value": 0}, {"configurable": {"thread_id": "a"}})
        place = Archive((kept_in / "archive").as_uri())
        archive_and_prune(saver.store, place, "a", "test")
        assert not saver.store.threads()
        restore(saver.store, place, "a")
        assert saver.store.verify("a").ok


def cli() -> None:
    from eventstore.cli import main

    with tempfile.TemporaryDirectory() as folder:
        assert main(["migrate", "--create", "--db", f"{folder}/a.db"]) == 0
        assert main(["threads", "--db", f"{folder}/a.db"]) == 0


def demo() -> None:
    import rich

    assert rich


def langgraph() -> None:
    from langgraph.graph import MessagesState, StateGraph

    from graph.langgraph import EventStoreSaver

    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [("ai", "hello")]})
    app = graph.set_entry_point("answer").compile(checkpointer=EventStoreSaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    given: Any = {"messages": [("user", "hello")]}
    app.invoke(given, config)
    assert len(app.get_state(config).values["messages"]) == 2


def messages() -> None:
    from langchain_core.messages import AIMessage

    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [AIMessage("hello")]})
    app = graph.set_entry_point("answer").compile(checkpointer=MemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    app.invoke({"messages": []}, config)
    assert isinstance(app.get_state(config).values["messages"][0], AIMessage)


def metrics() -> None:
    from retention.metrics import Endpoint, Metrics

    with Endpoint(Metrics(), port=0) as endpoint:
        address = f"http://127.0.0.1:{endpoint.port}/metrics"
        assert b"retention_backlog_threads" in urllib.request.urlopen(address).read()


def numpy() -> None:
    import numpy

    assert (kept(numpy.arange(3)) == numpy.arange(3)).all()


def postgres() -> None:
    # Without a server: the driver is there, and reports that nobody answers.
    try:
        PostgresSaver("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1").setup()
    except StoreUnavailableError:
        return
    raise AssertionError("no server should have answered")


def production() -> None:
    from graph.production import PersistenceConfig, create_production_checkpointer

    with tempfile.TemporaryDirectory() as folder:
        config = PersistenceConfig(backend="sqlite", connection_string=f"{folder}/a.db")
        create_production_checkpointer(config).close()
    postgres()


def pydantic() -> None:
    from pydantic import BaseModel

    class Typed(BaseModel):
        value: int = 0

    graph = StateGraph(Typed).add_node("n", lambda state: {"value": state.value + 1})
    app = graph.set_entry_point("n").compile(checkpointer=MemorySaver())
    assert app.invoke({"value": 1}, {"configurable": {"thread_id": "a"}})["value"] == 2


def telemetry() -> None:
    from opentelemetry import trace

    seen: list[str] = []

    class Tracer(trace.NoOpTracer):
        def start_span(self, name: str, *given: Any, **options: Any) -> trace.Span:
            seen.append(name)
            return super().start_span(name, *given, **options)

    class Provider(trace.NoOpTracerProvider):
        def get_tracer(self, *given: Any, **options: Any) -> trace.Tracer:
            return Tracer()

    trace.set_tracer_provider(Provider())
    assert kept(1) == 1
    assert "graph.run" in seen, seen


def ui() -> None:
    from eventstore.ui import create_app

    with tempfile.TemporaryDirectory() as folder, EventStore(f"{folder}/a.db") as store:
        store.setup()
        app = create_app(store, token="secret-of-this-test")
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/threads.json",
            "raw_path": b"/threads.json",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer secret-of-this-test")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 200, sent


JOBS: Final[dict[str, Callable[[], None]]] = {
    job.__name__: job
    for job in (
        *(none, archive, cli, demo, langgraph, messages, metrics, numpy),
        *(postgres, production, pydantic, telemetry, ui),
    )
}

FOR_DEVELOPERS: Final = {"bench", "dev", "docs", "release", "test"}
"""Extras for work on this project, which have commands of their own."""


if __name__ == "__main__":
    JOBS[sys.argv[1]]()
    print(f"{sys.argv[1]}: does its job")
