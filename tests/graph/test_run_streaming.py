"""``stream``: every mode, chunks that a node writes, and a stream that is dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    START,
    InvalidConfigError,
    StateGraph,
    get_stream_writer,
)
from tests.graph.kit import Calls, Trail, on, steps

WAIT_SECONDS_MAX = 10.0


def test_stream_values(checkpointer: Any) -> None:
    app = steps("ab", checkpointer)
    chunks = list(app.stream({"log": ["x"]}, on("t"), stream_mode="values"))
    assert [chunk["log"] for chunk in chunks] == [["x"], ["x", "a"], ["x", "a", "b"]]


def test_stream_updates(checkpointer: Any) -> None:
    app = steps("ab", checkpointer)
    expected = [{"a": {"log": ["a"], "total": 1}}, {"b": {"log": ["b"], "total": 1}}]
    assert list(app.stream({}, on("t"), stream_mode="updates")) == expected
    assert list(app.stream({}, on("u"))) == expected  # it is the default, as in LangGraph


def test_stream_several_modes(checkpointer: Any) -> None:
    app = steps("a", checkpointer)
    chunks = list(app.stream({"total": 0}, on("t"), stream_mode=["values", "updates"]))
    assert chunks == [
        ("values", {"log": [], "total": 0}),
        ("updates", {"a": {"log": ["a"], "total": 1}}),
        ("values", {"log": ["a"], "total": 1}),
    ]


def test_stream_one_mode_in_a_list_gives_pairs(checkpointer: Any) -> None:
    chunks = list(steps("a", checkpointer).stream({}, on("t"), stream_mode=["updates"]))
    assert chunks == [("updates", {"a": {"log": ["a"], "total": 1}})]


def test_stream_checkpoints_are_those_of_the_history(store: EventStore) -> None:
    app = steps("abc", store)
    chunks = list(app.stream({}, on("t"), stream_mode="checkpoints"))
    history = list(app.get_state_history(on("t")))[::-1]
    assert [chunk["values"] for chunk in chunks] == [entry.values for entry in history]
    assert [chunk["config"] for chunk in chunks] == [entry.config for entry in history]


def test_stream_debug(store: EventStore) -> None:
    chunks = list(steps("a", store).stream({}, on("t"), stream_mode="debug"))
    assert [chunk["type"] for chunk in chunks] == [
        "checkpoint",
        "checkpoint",
        "task",
        "task_result",
        "checkpoint",
    ]


def test_an_unknown_stream_mode(checkpointer: Any) -> None:
    with pytest.raises(InvalidConfigError, match="expected one of"):
        list(steps("a", checkpointer).stream({}, on("t"), stream_mode="message"))


def test_custom_chunks_come_while_the_node_runs(checkpointer: Any) -> None:
    seen = threading.Event()

    def slow(state: Trail, writer: Callable[[Any], None]) -> dict[str, Any]:
        writer("begun")
        assert seen.wait(WAIT_SECONDS_MAX), "the chunk was held back until the node had ended"
        writer({"half": True})
        get_stream_writer()("done")
        return {"total": 1}

    graph = StateGraph(Trail)
    graph.add_node("slow", slow)
    graph.add_edge(START, "slow")
    chunks = []
    for chunk in graph.compile(checkpointer).stream({}, on("t"), stream_mode="custom"):
        chunks.append(chunk)
        seen.set()
    assert chunks == ["begun", {"half": True}, "done"]


def test_what_nobody_listens_to_goes_nowhere(checkpointer: Any) -> None:
    graph = StateGraph(Trail)

    def node(state: Trail, writer: Callable[[Any], None]) -> dict[str, Any]:
        writer("heard by nobody")
        get_stream_writer()("nor this")
        return {"total": 1}

    graph.add_node("node", node)
    graph.add_edge(START, "node")
    assert graph.compile(checkpointer).invoke({}, on("t"))["total"] == 1
    get_stream_writer()("outside of any run")


def test_a_stream_that_is_dropped_stops_the_run(store: EventStore) -> None:
    calls = Calls()
    app = steps("abc", store, calls)
    stream = app.stream({}, on("t"), stream_mode="updates")
    assert next(stream) == {"a": {"log": ["a"], "total": 1}}
    stream.close()  # type: ignore[attr-defined]
    assert calls.counts["c"] == 0
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c"]
    assert calls.counts == {"a": 1, "b": 1, "c": 1}
