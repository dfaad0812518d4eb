"""Retry policies: which errors are retried, how often, and with which state."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    START,
    CompiledGraph,
    RetryPolicy,
    StateGraph,
)
from tests.graph.kit import Boom, Calls, Trail, on


def flaky(failures: int, error: Exception, calls: Calls) -> Any:
    def node(state: Trail) -> dict[str, Any]:
        if calls.add("node") <= failures:
            raise error
        return {"total": 1}

    return node


def retried(node: Any, policy: Any, checkpointer: Any) -> CompiledGraph:
    graph = StateGraph(Trail)
    graph.add_node("node", node, retry_policy=policy)
    graph.add_edge(START, "node")
    return graph.compile(checkpointer)


QUICK = RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=3)


def test_retry_until_it_works(checkpointer: Any) -> None:
    calls = Calls()
    app = retried(flaky(2, ConnectionError("net"), calls), QUICK, checkpointer)
    assert app.invoke({}, on("t"))["total"] == 1
    assert calls.counts["node"] == 3


def test_retry_gives_up(store: EventStore) -> None:
    calls = Calls()
    app = retried(flaky(9, ConnectionError("net"), calls), QUICK, store)
    with pytest.raises(ConnectionError, match="net") as caught:
        app.invoke({}, on("t"))
    assert calls.counts["node"] == 3
    assert any("'node'" in note and "attempt 3" in note for note in caught.value.__notes__)
    assert [e.data["attempts"] for e in app.events(on("t")) if e.kind == "error"] == [3]


@pytest.mark.parametrize(
    ("error", "attempts"), [(ValueError("bug"), 1), (ConnectionError("net"), 3), (Boom(), 3)]
)
def test_programming_errors_are_not_tried_again(error: Exception, attempts: int) -> None:
    calls = Calls()
    with pytest.raises(type(error)):
        retried(flaky(9, error, calls), QUICK, None).invoke({})
    assert calls.counts["node"] == attempts


@pytest.mark.parametrize(
    "retry_on", [Boom, (KeyError, Boom), lambda error: isinstance(error, Boom)]
)
def test_retry_on(retry_on: Any) -> None:
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=retry_on)
    calls = Calls()
    assert retried(flaky(1, Boom(), calls), policy, None).invoke({})["total"] == 1
    with pytest.raises(OSError):
        retried(flaky(1, OSError(), Calls()), policy, None).invoke({})


def test_the_first_policy_that_wants_the_error_counts() -> None:
    calls = Calls()
    policies = [
        RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=2, retry_on=KeyError),
        RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=5, retry_on=Boom),
    ]
    assert retried(flaky(4, Boom(), calls), policies, None).invoke({})["total"] == 1
    assert calls.counts["node"] == 5


def test_a_task_tried_again_gets_a_fresh_copy_of_its_state(checkpointer: Any) -> None:
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        state["log"].append("left over")
        if calls.add("node") == 1:
            raise ConnectionError
        return {"total": len(state["log"])}

    assert retried(node, QUICK, checkpointer).invoke({}, on("t")) == {"log": [], "total": 1}
