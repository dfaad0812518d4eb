"""``invoke``: inputs, outputs, the recursion limit, and what nodes are given besides the state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    CompiledGraph,
    EmptyInputError,
    GraphRecursionError,
    InvalidConfigError,
    InvalidUpdateError,
    RunnableConfig,
    StateGraph,
)
from tests.graph.kit import Trail, logs, on, steps

# --- invoke -----------------------------------------------------------------------------


def test_invoke(checkpointer: Any) -> None:
    app = steps("abc", checkpointer)
    assert app.invoke({"log": ["x"], "note": "n"}, on("t")) == {
        "log": ["x", "a", "b", "c"],
        "total": 3,
        "note": "n",
    }


def test_a_graph_without_a_checkpointer_keeps_nothing() -> None:
    app = steps("a")
    assert app.invoke({}) == {"log": ["a"], "total": 1}
    assert app.invoke({"log": ["x"]}) == {"log": ["x", "a"], "total": 1}
    with pytest.raises(InvalidConfigError, match="checkpointer"):
        app.get_state(on("t"))
    with pytest.raises(InvalidConfigError, match="checkpointer"):
        app.update_state(on("t"), {})
    with pytest.raises(EmptyInputError):
        app.invoke(None)


def test_a_second_input_goes_on_from_the_first(store: EventStore) -> None:
    app = steps("ab", store)
    app.invoke({"log": ["x"]}, on("t"))
    assert app.invoke({"log": ["y"]}, on("t"))["log"] == ["x", "a", "b", "y", "a", "b"]
    history = app.get_state_history(on("t"), every=True)
    assert [s.metadata and s.metadata["step"] for s in history] == [6, 5, 4, 2, 1, 0]


@pytest.mark.parametrize("config", [{}, {"configurable": {}}, on("")])
def test_a_checkpointer_needs_a_thread(store: EventStore, config: RunnableConfig) -> None:
    with pytest.raises(InvalidConfigError, match="thread_id"):
        steps("a", store).invoke({}, config)


def test_thread_ids_that_are_no_text_are_named_by_their_text(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({}, {"configurable": {"thread_id": 7}})
    assert app.get_state(on("7")).values == {"log": ["a"], "total": 1}


def test_an_unknown_key_is_refused_and_nothing_recorded(store: EventStore) -> None:
    app = steps("a", store)
    with pytest.raises(InvalidUpdateError, match="typo"):
        app.invoke({"typo": 1}, on("t"))
    assert app.get_state(on("t")).values == {}
    assert store.threads() == []


def test_a_node_that_writes_an_unknown_key_is_named(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("wrong", lambda state: {"typo": 1})
    graph.add_edge(START, "wrong")
    with pytest.raises(InvalidUpdateError, match=r"(?s)wrong.*typo"):
        graph.compile(checkpointer).invoke({}, on("t"))


@pytest.mark.parametrize("result", [1, "text", ["a"], object()])
def test_a_node_that_returns_no_update(checkpointer: Any, result: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("wrong", lambda state: result)
    graph.add_edge(START, "wrong")
    with pytest.raises(InvalidUpdateError, match="wrong"):
        graph.compile(checkpointer).invoke({}, on("t"))


def test_a_node_may_return_nothing(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("silent", lambda state: None)
    graph.add_edge(START, "silent")
    assert graph.compile(checkpointer).invoke({"note": "n"}, on("t")) == {
        "log": [],
        "total": 0,
        "note": "n",
    }


# --- the recursion limit ----------------------------------------------------------------


def endless(checkpointer: Any = None) -> CompiledGraph:
    graph = StateGraph(Trail)
    graph.add_node("again", logs("again"))
    graph.add_edge(START, "again")
    graph.add_edge("again", "again")
    return graph.compile(checkpointer)


def test_recursion_limit(checkpointer: Any) -> None:
    with pytest.raises(GraphRecursionError) as caught:
        endless(checkpointer).invoke({}, on("t", recursion_limit=7))
    assert caught.value.limit == 7 and caught.value.frontier == ("again",)
    assert isinstance(caught.value, RecursionError)


def test_what_was_done_before_the_recursion_limit_is_kept(store: EventStore) -> None:
    app = endless(store)
    with pytest.raises(GraphRecursionError):
        app.invoke({}, on("t", recursion_limit=25))
    assert app.get_state(on("t")).values["total"] == 25
    with pytest.raises(GraphRecursionError):  # what was done is kept, and can be gone on with
        app.invoke(None, on("t", recursion_limit=5))
    assert app.get_state(on("t")).values["total"] == 30


def test_a_run_as_long_as_the_limit_is_no_error(checkpointer: Any) -> None:
    assert steps("abc", checkpointer).invoke({}, on("t", recursion_limit=3))["total"] == 3


# --- what nodes are given besides the state ---------------------------------------------


def test_config_and_writer(store: EventStore) -> None:
    given: list[Any] = []

    def node(state: Trail, config: RunnableConfig) -> dict[str, Any]:
        given.append(config["configurable"]["thread_id"])
        given.append(config["configurable"]["user"])
        return {}

    def path(state: Trail, config: RunnableConfig) -> str:
        given.append(config["metadata"]["why"])
        return END

    graph = StateGraph(Trail)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_conditional_edges("node", path, [END])
    config = on("t", metadata={"why": "test"})
    config["configurable"]["user"] = "alice"
    graph.compile(store).invoke({}, config)
    assert given == ["t", "alice", "test"]


def test_metadata_of_a_run_is_in_its_checkpoints_and_in_the_threads_list(
    store: EventStore,
) -> None:
    app = steps("ab", store)
    app.invoke({}, on("t", metadata={"user": "alice"}, run_id="run-1"))
    app.invoke({}, on("t", metadata={"user": "bob"}))
    history = list(app.get_state_history(on("t"), every=True))
    told = [(s.metadata or {}) for s in history]
    assert [each["user"] for each in told] == ["bob"] * 3 + ["alice"] * 3
    assert {each["run_id"] for each in told[3:]} == {"run-1"}
    assert len({each["run_id"] for each in told}) == 2
    assert [each["source"] for each in told] == ["loop", "loop", "input"] * 2
    assert store.thread("t").metadata == {"user": "alice"}
    assert [t.thread_id for t in store.threads(metadata={"user": "alice"})] == ["t"]


@pytest.mark.parametrize("ttl", [3600, 3599.5, timedelta(hours=1)])
def test_a_ttl_is_heeded_when_the_thread_is_made(store: EventStore, ttl: Any) -> None:
    app = steps("ab", store)
    config = on("t")
    config["configurable"]["ttl"] = ttl
    app.invoke({}, config)
    assert store.thread("t").ttl == 3600
    config["configurable"]["ttl"] = 5
    app.invoke({}, config)
    assert store.thread("t").ttl == 3600


@pytest.mark.parametrize("ttl", ["soon", -1, float("nan"), 1e300])
def test_a_ttl_has_to_be_a_time(store: EventStore, ttl: Any) -> None:
    config = on("t")
    config["configurable"]["ttl"] = ttl
    with pytest.raises(InvalidConfigError, match="ttl"):
        steps("a", store).invoke({}, config)
    assert store.threads() == []
