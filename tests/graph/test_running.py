"""What nodes are given besides the state, how they are tried again, and how long they may take."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    InvalidGraphError,
    NodeTimeoutError,
    RetryPolicy,
    RunnableConfig,
    Runtime,
    Send,
    StateGraph,
    get_config,
    get_runtime,
    get_stream_writer,
    interrupt,
)
from tests.graph.kit import Boom, Trail, logs, on


@dataclass
class Settings:
    user: str
    limit: int = 3


class Loose(TypedDict, total=False):
    user: str


def one(action: Callable[..., Any], checkpointer: Any = None, **options: Any) -> CompiledGraph:
    """A graph of one node."""
    schema = options.pop("context_schema", None)
    graph = StateGraph(Trail, schema)
    graph.add_node("node", action, **options)
    graph.add_edge(START, "node")
    return graph.compile(checkpointer)


# --- context, runtime, config -----------------------------------------------------------


@pytest.mark.parametrize("given", [Settings("ann"), {"user": "ann"}])
def test_context_in_the_form_of_its_schema(store: EventStore, given: Any) -> None:
    def node(state: Trail, runtime: Runtime[Settings]) -> Trail:
        return {"log": [runtime.context.user, runtime.context.limit]}

    app = one(node, store, context_schema=Settings)
    assert app.invoke({}, on("t"), context=given)["log"] == ["ann", 3]


def test_context_that_is_a_dict_and_none_at_all() -> None:
    def node(state: Trail, runtime: Runtime[Any]) -> Trail:
        return {"data": {"context": runtime.context}}

    app = one(node, context_schema=Loose)
    assert app.invoke({}, context={"user": "ann"})["data"]["context"] == {"user": "ann"}
    assert app.invoke({})["data"]["context"] is None


def test_edges_find_the_runtime_too(store: EventStore) -> None:
    def where(state: Trail, runtime: Runtime[Settings], config: RunnableConfig) -> str:
        return runtime.context.user if config["configurable"]["thread_id"] == "t" else "nobody"

    graph = StateGraph(Trail, Settings)
    graph.add_conditional_edges(START, where, ["ann", "bob"])
    graph.add_node("ann", logs("ann"))
    graph.add_node("bob", logs("bob"))
    graph.add_conditional_edges("ann", where, {"ann": "bob"})
    app = graph.compile(store)
    assert app.invoke({}, on("t"), context=Settings("ann"))["log"] == ["ann", "bob"]


def test_subgraphs_inherit_the_context(store: EventStore) -> None:
    def node(state: Trail, runtime: Runtime[Settings]) -> Trail:
        return {"log": [runtime.context.user]}

    inner = one(node, context_schema=Settings)

    def outer(state: Trail) -> Trail:
        own = inner.invoke({}, context=Settings("own"))["log"]
        return {"log": [*inner.invoke({})["log"], *own]}

    app = one(outer, store, context_schema=Settings)
    assert app.invoke({}, on("t"), context=Settings("ann"))["log"] == ["ann", "own"]


def test_code_that_a_node_calls_finds_config_and_runtime(store: EventStore) -> None:
    def helper() -> list[Any]:
        return [get_config()["metadata"]["why"], get_runtime(Settings).context.user]

    app = one(lambda state: {"log": helper()}, store, context_schema=Settings)
    config = on("t", metadata={"why": "because"})
    assert app.invoke({}, config, context=Settings("ann"))["log"] == ["because", "ann"]
    for call in (get_config, get_runtime):
        with pytest.raises(InvalidGraphError, match="outside"):
            call()


def test_a_task_has_the_same_name_in_every_attempt(store: EventStore) -> None:
    """Whatever it does outside can be made idempotent by it."""
    seen: list[Any] = []

    def node(state: Any, runtime: Runtime[None]) -> Trail:
        seen.append(runtime.execution_info)
        if len(seen) < 3:
            raise Boom("again")
        return {"log": [interrupt("?")]}

    policy = RetryPolicy(initial_interval=0.001, max_attempts=2, jitter=False, retry_on=Boom)
    app = one(node, store, retry_policy=policy)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    app.invoke(None, on("t"))
    app.invoke(Command(resume="yes"), on("t"))
    assert len({info.task_id for info in seen}) == 1
    assert [info.node_attempt for info in seen] == [1, 2, 1, 1]
    assert {info.thread_id for info in seen} == {"t"}
    app.invoke({}, on("t"))
    assert seen[-1].task_id != seen[0].task_id


def test_parallel_tasks_have_names_of_their_own() -> None:
    names: list[str] = []

    def node(n: Any, runtime: Runtime[None]) -> Trail:
        names.append(runtime.execution_info.task_id)
        return {}

    graph = StateGraph(Trail)
    graph.add_node("node", node)
    graph.add_conditional_edges(START, lambda state: [Send("node", n) for n in range(4)])
    graph.compile().invoke({})
    assert len(set(names)) == 4


def test_tags_and_metadata_are_recorded(store: EventStore) -> None:
    app = one(logs("node"), store)
    app.invoke({}, on("t", tags=["night", "eu"], metadata={"user": "ann", "deep": {"a": 1}}))
    metadata = app.get_state(on("t")).metadata
    assert metadata is not None
    assert metadata["tags"] == ["night", "eu"]
    assert metadata["user"] == "ann" and metadata["deep"] == {"a": 1}
    assert store.threads(metadata={"user": "ann"})
    found = app.get_state_history(on("t"), filter={"tags": ["night", "eu"]}, every=True)
    assert len(list(found)) == 2


def test_a_config_for_all_calls(store: EventStore) -> None:
    def node(state: Trail, config: RunnableConfig) -> Trail:
        return {"log": [config["tags"], config["metadata"]]}

    app = one(node, store).with_config({"tags": ["a"], "metadata": {"x": 1}}, recursion_limit=7)
    result = app.invoke({}, on("t", tags=["b"], metadata={"y": 2}))["log"]
    assert result[0] == ["a", "b"] and {"x": 1, "y": 2}.items() <= result[1].items()


def test_streaming_of_a_nodes_own(store: EventStore) -> None:
    def node(state: Trail, runtime: Runtime[None]) -> Trail:
        runtime.stream_writer("by runtime")
        get_stream_writer()("by function")
        return {}

    app = one(node, store)
    assert list(app.stream({}, on("t"), stream_mode="custom")) == ["by runtime", "by function"]
    get_stream_writer()("to nobody")


def test_a_parameter_that_nothing_fills() -> None:
    with pytest.raises(InvalidGraphError, match="runtime"):
        one(lambda state, elsewhere: {})


# --- retry ------------------------------------------------------------------------------


def test_attempts_are_recorded(store: EventStore) -> None:
    fails = [Boom("second"), ConnectionError("first")]

    def node(state: Trail) -> Trail:
        if fails:
            raise fails.pop()
        return {"log": ["third"]}

    policies = [
        RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False, retry_on=kind)
        for kind in (ConnectionError, Boom)
    ]
    app = one(node, store, retry_policy=policies)
    assert app.invoke({}, on("t"))["log"] == ["third"]
    output = list(app.events(on("t")))[-1]
    assert output.data["failed"] == [
        ["ConnectionError", "first"],
        ["tests.graph.kit.Boom", "second"],
    ]


def test_no_more_attempts_than_allowed(store: EventStore) -> None:
    def node(state: Trail) -> Trail:
        raise Boom("always")

    policy = RetryPolicy(initial_interval=0.001, max_attempts=4, jitter=False, retry_on=Boom)
    app = one(node, store, retry_policy=policy)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    error = list(app.events(on("t")))[-1]
    assert (error.kind, error.data["attempts"]) == ("error", 4)


# --- timeout ----------------------------------------------------------------------------


@pytest.fixture
def released() -> Any:
    """Lets go of the functions that went on unheeded, when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_plain_function_that_takes_too_long(store: EventStore, released: Any) -> None:
    def node(state: Trail) -> Trail:
        released.wait(30)
        return {"log": ["too late"]}

    app = one(node, store, timeout=0.02)
    begun = time.monotonic()
    with pytest.raises(NodeTimeoutError, match=r"'node'.*0\.02 s") as caught:
        app.invoke({}, on("t"))
    assert time.monotonic() - begun < 20
    assert (caught.value.node, caught.value.timeout_s) == ("node", 0.02)
    assert app.get_state(on("t")).tasks[0].error is not None
    assert store.thread("t").status == "failed"
    released.set()
    assert app.get_state(on("t")).values["log"] == []


def test_a_timeout_is_worth_another_try(store: EventStore, released: Any) -> None:
    tries: list[int] = []

    def node(state: Trail) -> Trail:
        tries.append(1)
        if len(tries) == 1:
            released.wait(30)
        return {"log": [len(tries)]}

    policy = RetryPolicy(initial_interval=0.001, jitter=False)
    app = one(node, store, timeout=timedelta(seconds=0.2), retry_policy=policy)
    assert app.invoke({}, on("t"))["log"] == [2]
    assert list(app.events(on("t")))[-1].data["failed"][0][0] == "graph.errors.NodeTimeoutError"


def test_in_time(store: EventStore) -> None:
    app = one(logs("node"), store, timeout=30)
    assert app.invoke({}, on("t"))["log"] == ["node"]


def test_a_timeout_error_of_the_nodes_own(store: EventStore) -> None:
    def node(state: Trail) -> Trail:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        one(node, store, timeout=30).invoke({}, on("t"))
    assert not isinstance(caught.value, NodeTimeoutError)


def test_questions_and_streams_within_a_timeout(store: EventStore) -> None:
    def node(state: Trail) -> Trail:
        get_stream_writer()("asking")
        return {"log": [interrupt("?")]}

    app = one(node, store, timeout=30)
    assert list(app.stream({}, on("t"), stream_mode="custom")) == ["asking"]
    assert app.invoke(Command(resume="yes"), on("t"))["log"] == ["yes"]


def test_one_of_several_takes_too_long(store: EventStore, released: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("slow", lambda state: released.wait(30) and None, timeout=0.05)
    graph.add_node("quick", logs("quick"))
    graph.add_edge(START, "slow")
    graph.add_edge(START, "quick")
    app = graph.compile(store)
    with pytest.raises(NodeTimeoutError):
        app.invoke({}, on("t"))
    results = {task.name: task.result for task in app.get_state(on("t")).tasks}
    assert results["quick"] and not results["slow"]


def test_a_coroutine_is_cancelled(blocking_store: EventStore) -> None:
    ends: list[str] = []

    async def node(state: Trail) -> Trail:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return {}

    async def main() -> None:
        with pytest.raises(NodeTimeoutError):
            await one(node, blocking_store, timeout=0.02).ainvoke({}, on("t"))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ends == ["cancelled"]


def test_what_was_given_up_can_record_nothing(store: EventStore, released: Any) -> None:
    """A subgraph that goes on in a thread that nobody waits for does not disturb the next try."""
    ended = threading.Event()
    tries: list[int] = []

    def slow(state: Trail) -> Trail:
        tries.append(1)
        if len(tries) == 1:
            released.wait(30)
        return {"log": ["slow"]}

    inner = StateGraph(Trail)
    inner.add_sequence([("first", logs("first")), ("slow", slow), ("last", logs("last"))])
    inner.add_edge(START, "first")
    child = inner.compile()

    def node(state: Trail) -> Trail:
        try:
            return {"log": child.invoke({})["log"]}
        finally:
            ended.set()

    app = one(node, store, timeout=0.3)
    with pytest.raises(NodeTimeoutError):
        app.invoke({}, on("t"))
    before = {ns: store.head("t", ns).seq for ns in store.verify("t").namespaces}
    assert before == {"": 2, "node/graph:1.0": 2}
    released.set()
    assert ended.wait(30)
    assert {ns: store.head("t", ns).seq for ns in store.verify("t").namespaces} == before
    again = one(node, store)
    assert again.invoke(None, on("t"))["log"] == ["first", "slow", "last"]


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0), float("nan")])
def test_a_timeout_that_makes_no_sense(timeout: Any) -> None:
    with pytest.raises(InvalidGraphError, match="more than 0"):
        one(logs("node"), timeout=timeout)
