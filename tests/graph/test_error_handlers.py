"""What runs when a node has failed for good, and how long a node may be silent."""

from __future__ import annotations

import asyncio
import pickle
import time
from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    InvalidGraphError,
    NodeError,
    NodeTimeoutError,
    RetryPolicy,
    Runtime,
    StateGraph,
    TimeoutPolicy,
    get_stream_writer,
)
from tests.graph.kit import Trail, on


def failing(state: Trail) -> Trail:
    raise ValueError("boom")


def graph_of(handler: Any, node: Any = failing, **options: Any) -> StateGraph:
    made = StateGraph(Trail).add_node("n", node, error_handler=handler, **options)
    made.add_node("next", lambda state: {"log": ["next"]})
    made.add_node("after", lambda state: {"log": ["after"]})
    return made.add_edge(START, "n").add_edge("n", "next")


def told(state: Trail, error: NodeError) -> Trail:
    return {"log": [f"{error.node}: {error.error}"]}


def test_its_writes_take_the_place_of_the_nodes(store: EventStore) -> None:
    app = graph_of(told).compile(store)
    assert app.invoke({"log": []}, on("t"))["log"] == ["n: boom"]  # and `next` does not run
    (entry,) = [each for each in app.events(on("t")) if each.node == "n"]
    assert entry.kind == "output"
    assert app.verify(on("t")).ok and app.check_replay(on("t")).ok


def test_its_command_says_where_to_go_on(store: EventStore) -> None:
    def handler(state: Trail) -> Command[Any]:
        return Command(update={"log": ["handled"]}, goto="after")

    app = graph_of(handler).compile(store)
    assert app.invoke({"log": []}, on("t"))["log"] == ["handled", "after"]
    chunks = list(app.stream({"log": []}, on("u")))
    assert [list(each) for each in chunks] == [["__error_handler__n"], ["after"]]


def test_it_runs_after_the_last_attempt(store: EventStore) -> None:
    calls = []

    def node(state: Trail) -> Trail:
        calls.append(1)
        raise ConnectionError("down")

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False)
    app = graph_of(told, node, retry_policy=policy).compile(store)
    assert app.invoke({"log": []}, on("t"))["log"] == ["n: down"] and len(calls) == 3


def test_its_own_error_fails_the_run(store: EventStore) -> None:
    def handler(state: Trail, error: NodeError) -> Trail:
        raise KeyError("handler") from error.error

    app = graph_of(handler).compile(store)
    with pytest.raises(KeyError, match="handler"):
        app.invoke({"log": []}, on("t"))
    assert app.get_state(on("t")).next == ("n",)


def test_a_default_for_all_nodes() -> None:
    made = StateGraph(Trail).set_node_defaults(error_handler=told)
    made.add_node("n", failing).add_node("own", failing, error_handler=lambda state: None)
    app = made.add_edge(START, "n").add_edge(START, "own").compile()
    assert app.invoke({"log": []})["log"] == ["n: boom"]


def test_async_nodes_and_handlers() -> None:
    async def node(state: Trail) -> Trail:
        raise ValueError("async boom")

    async def handler(state: Trail, error: NodeError) -> Trail:
        await asyncio.sleep(0)
        return told(state, error)

    found = asyncio.run(graph_of(handler, node).compile().ainvoke({"log": []}))
    assert found["log"] == ["n: async boom"]


# --- limits of time ---------------------------------------------------------------------


def run(node: Any, policy: Any, is_async: bool) -> Any:
    app = StateGraph(Trail).add_node("n", node, timeout=policy).set_entry_point("n").compile()
    given: Any = {"log": []}
    return asyncio.run(app.ainvoke(given)) if is_async else app.invoke(given)


def beating(beat: Any, times: int, pause_s: float) -> Any:
    def node(state: Trail, runtime: Runtime[Any]) -> Trail:
        for _ in range(times):
            time.sleep(pause_s)
            beat(runtime)
        return {"log": ["done"]}

    return node


SILENT = beating(lambda runtime: None, 10, 0.03)
STREAMS = beating(lambda runtime: get_stream_writer()("token"), 10, 0.03)
BEATS = beating(lambda runtime: runtime.heartbeat(), 10, 0.03)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_node_may_take_long_but_not_be_silent(is_async: bool) -> None:
    policy = TimeoutPolicy(idle_timeout=0.15, run_timeout=60)
    for node in (STREAMS, BEATS):
        assert run(node, policy, is_async)["log"] == ["done"]
    with pytest.raises(NodeTimeoutError, match=r"made no progress for 0\.15 s") as caught:
        run(SILENT, policy, is_async)
    assert (caught.value.kind, caught.value.timeout, caught.value.run_timeout) == ("idle", 0.15, 60)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.kind, str(again)) == ("idle", str(caught.value))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_signs_of_life_do_not_prolong_the_whole(is_async: bool) -> None:
    with pytest.raises(NodeTimeoutError) as caught:
        run(BEATS, TimeoutPolicy(run_timeout=0.1, idle_timeout=60), is_async)
    assert caught.value.kind == "run"


def test_where_only_heartbeats_count() -> None:
    policy = TimeoutPolicy(idle_timeout=0.15, refresh_on="heartbeat")
    assert run(BEATS, policy, False)["log"] == ["done"]
    with pytest.raises(NodeTimeoutError):
        run(STREAMS, policy, False)


def test_supersteps_of_a_graph_inside_are_progress() -> None:
    inner = StateGraph(Trail)
    names = [f"n{i}" for i in range(6)]
    inner.add_sequence([(name, lambda state: time.sleep(0.04)) for name in names])
    graph = inner.add_edge(START, "n0").compile()
    node = lambda state: graph.invoke({"log": []}) and {"log": ["done"]}  # noqa: E731
    assert run(node, TimeoutPolicy(idle_timeout=0.15), False)["log"] == ["done"]


def test_a_model_that_works_is_progress() -> None:
    from langchain_core.runnables import RunnableLambda

    slow: Any = RunnableLambda(lambda value: time.sleep(0.04))

    def node(state: Trail) -> Trail:
        for _ in range(6):
            slow.invoke(1)
        return {"log": ["done"]}

    assert run(node, TimeoutPolicy(idle_timeout=0.15), False)["log"] == ["done"]


def test_a_policy_that_means_nothing_is_refused() -> None:
    with pytest.raises(InvalidGraphError, match="refresh_on must be"):
        StateGraph(Trail).add_node("n", failing, timeout=TimeoutPolicy(refresh_on="x"))  # type: ignore[arg-type]
    with pytest.raises(InvalidGraphError, match="more than 0 s"):
        StateGraph(Trail).add_node("n", failing, timeout=TimeoutPolicy(idle_timeout=0))
