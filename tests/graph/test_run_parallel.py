"""Nodes side by side, batches, and runs on many threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    START,
    CompiledGraph,
    InvalidConfigError,
    Send,
    StateGraph,
)
from tests.graph.kit import Boom, Trail, on, steps

WAIT_SECONDS_MAX = 10.0


def fan(width: int, node: Callable[[int], Any], checkpointer: Any = None) -> CompiledGraph:
    graph = StateGraph(Trail)
    for i in range(width):
        graph.add_node(f"n{i:02}", node(i))
        graph.add_edge(START, f"n{i:02}")
    return graph.compile(checkpointer)


def test_parallel_nodes_really_run_side_by_side(checkpointer: Any) -> None:
    barrier = threading.Barrier(8)

    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            barrier.wait(WAIT_SECONDS_MAX)
            return {"log": [i]}

        return run

    assert fan(8, node, checkpointer).invoke({}, on("t"))["log"] == list(range(8))


def test_writes_are_merged_in_the_frontiers_order_whoever_is_first(checkpointer: Any) -> None:
    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            time.sleep(0.02 * (5 - i))
            return {"log": [i]}

        return run

    assert fan(5, node, checkpointer).invoke({}, on("t"))["log"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("long", [0, 9, 19])
@pytest.mark.parametrize("is_async", [False, True])
def test_outputs_are_stored_while_a_sibling_still_runs(
    tmp_path: Path, is_async: bool, long: int
) -> None:
    """Whichever node it is: also one that begins before the others, on the same thread."""

    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            give_up_at = time.monotonic() + WAIT_SECONDS_MAX
            while i == long and watching.head("t").seq < 20:  # the input, and 19 outputs
                assert time.monotonic() < give_up_at
                time.sleep(0.002)
            return {"log": [i]}

        return run

    file = str(tmp_path / "a.db")
    with EventStore(file) as watching, EventStore(file) as store:
        app = fan(20, node, store)
        found = asyncio.run(app.ainvoke({}, on("t"))) if is_async else app.invoke({}, on("t"))
    assert found["log"] == list(range(20))


def test_max_concurrency(checkpointer: Any) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1
            return {"log": [i]}

        return run

    app = fan(9, node, checkpointer)
    assert len(app.invoke({}, on("t", max_concurrency=3))["log"]) == 9
    assert most <= 3


def test_more_parallel_tasks_than_threads(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_conditional_edges(START, lambda state: [Send("work", i) for i in range(150)])
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == list(range(150))


def test_batch(store: EventStore) -> None:
    app = steps("ab", store)
    results = app.batch([{"note": f"{i}"} for i in range(6)], [on(f"t{i}") for i in range(6)])
    assert [result["note"] for result in results] == [f"{i}" for i in range(6)]
    assert app.get_state(on("t3")).values["note"] == "3"
    assert app.batch([]) == []
    with pytest.raises(InvalidConfigError, match="2 inputs and 1"):
        app.batch([{}, {}], [on("t")])


def test_batch_errors() -> None:
    def picky(state: Trail) -> dict[str, Any]:
        if state["note"] == "bad":
            raise Boom("bad")
        return {"total": 1}

    graph = StateGraph(Trail)
    graph.add_node("picky", picky)
    graph.add_edge(START, "picky")
    app = graph.compile()
    inputs = [{"note": "good"}, {"note": "bad"}]
    with pytest.raises(Boom):
        app.batch(inputs)
    good, bad = app.batch(inputs, return_exceptions=True)
    assert good["total"] == 1 and isinstance(bad, Boom)


def test_runs_on_many_threads_at_once(store: EventStore) -> None:
    app = steps("abc", store)
    app.batch([{} for _ in range(20)], [on(f"t{i}") for i in range(20)], max_concurrency=8)
    assert all(app.get_state(on(f"t{i}")).values["total"] == 3 for i in range(20))
