"""Several runs on one thread: whoever is second is rejected, or waits for its turn.

With ``on_conflict="reject"`` each superstep has one winner, and the losers are told. With
``"wait"`` runs come one after the other, each whole, and none is lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypedDict

import pytest

from eventstore import ConcurrencyError, EventStore
from graph import END, START, CompiledGraph, InvalidConfigError, MemorySaver, StateGraph
from tests import processes
from tests.awaited import opened, others, run
from tests.effort import effort
from tests.graph.kit import Boom, Trail, logs, on, steps

pytestmark = pytest.mark.every_backend

RUNS: Final = 16
WAIT_SECONDS_MAX: Final = 30.0


class Account(TypedDict, total=False):
    """Values that are read and written again, so that an update that is lost is missed."""

    left: int
    right: int
    count: int


def counting(checkpointer: Any) -> CompiledGraph:
    """Two tasks side by side, then one that adds up: a run adds 1 to everything."""
    graph = StateGraph(Account)
    graph.add_node("left", lambda state: {"left": state.get("left", 0) + 1})
    graph.add_node("right", lambda state: {"right": state.get("right", 0) + 1})
    graph.add_node("sum", lambda state: {"count": state.get("count", 0) + 1})
    graph.add_edge(START, "left")
    graph.add_edge(START, "right")
    graph.add_edge(["left", "right"], "sum")
    return graph.compile(checkpointer=checkpointer)


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    """What calls come to that begin at the same moment, each on a thread of its own."""
    barrier = threading.Barrier(count)
    found: list[Any] = [None] * count

    def target(number: int) -> None:
        barrier.wait(WAIT_SECONDS_MAX)
        try:
            found[number] = call(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=target, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- wait -------------------------------------------------------------------------------


def test_runs_that_wait_come_one_after_the_other(store: EventStore) -> None:
    app = counting(store)

    def call(number: int) -> Any:
        config = on("t", run_id=f"run {number}")
        return app.invoke({}, config, on_conflict="wait")

    found = together(RUNS, call)
    assert sorted(each["count"] for each in found) == list(range(1, RUNS + 1))
    assert all(each["left"] == each["right"] == each["count"] for each in found)
    entries = list(app.events(on("t")))
    kinds = [entry.kind for entry in entries]
    assert kinds == ["input", "output", "output", "output"] * RUNS
    runs = [
        each.metadata["run_id"]
        for each in app.get_state_history(on("t"), every=True)
        if each.metadata
    ]
    assert len([*groupby(runs)]) == RUNS == len(set(runs))
    assert app.verify(on("t")).ok
    assert store.thread("t").status == "idle"


def test_streams_wait_too(store: EventStore) -> None:
    app = counting(store)

    def call(_number: int) -> Any:
        return list(app.stream({}, on("t"), stream_mode="values", on_conflict="wait"))

    found = together(6, call)
    assert sorted(chunks[-1]["count"] for chunks in found) == list(range(1, 7))
    for chunks in found:
        assert chunks[0].get("count", 0) == chunks[-1]["count"] - 1


@pytest.mark.parametrize("before", ["nothing", "idle", "failed", "waiting"])
def test_nobody_waits_for_a_run_that_has_ended(store: EventStore, before: str) -> None:
    fails = [before == "failed"]

    def node(state: Trail) -> dict[str, Any]:
        if fails.pop() if fails else False:
            raise Boom
        return {"log": ["node"]}

    graph = StateGraph(Trail)
    graph.add_node("node", node)
    graph.add_node("stop", logs("stop"))
    graph.add_edge(START, "node")
    graph.add_edge("node", "stop")
    app = graph.compile(store, interrupt_before=["stop"] if before == "waiting" else [])
    if before == "failed":
        with pytest.raises(Boom):
            app.invoke({}, on("t"))
    elif before != "nothing":
        app.invoke({}, on("t"))
        assert store.thread("t").status == before
    began = time.monotonic()
    app.invoke({}, on("t"), on_conflict="wait")
    assert time.monotonic() - began < WAIT_SECONDS_MAX


def test_without_a_checkpointer_there_is_nothing_to_wait_for() -> None:
    assert counting(None).invoke({}, on_conflict="wait")["count"] == 1


def crashed(store: EventStore) -> CompiledGraph:
    """A thread that says of itself that a run is under way, which is dead."""
    app = steps("ab", store)
    app.invoke({}, on("t"))
    store.set_thread("t", status="running")
    return app


def test_a_dead_run_is_overtaken(store: EventStore, caplog: pytest.LogCaptureFixture) -> None:
    app = crashed(store)
    store.core.leases.lease_s = 0.4
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found = app.invoke({}, on("t"), on_conflict="wait")
    assert found["log"] == ["a", "b", "a", "b"]
    assert 0.4 <= time.monotonic() - began < WAIT_SECONDS_MAX
    assert any("going ahead" in each.message and "'t'" in each.message for each in caplog.records)
    assert store.thread("t").status == "idle"


@pytest.mark.slow
def test_a_run_that_goes_on_is_not_overtaken(store: EventStore) -> None:
    """However long it takes, and however short the lease is: its process is alive."""
    store.core.leases.lease_s = 0.1
    started = threading.Event()

    def node(state: Trail) -> dict[str, Any]:
        started.set()
        time.sleep(0.2)
        return {"total": 1}

    graph = StateGraph(Trail)
    names = [f"n{number}" for number in range(6)]
    for before, name in zip([START, *names], names, strict=False):
        graph.add_node(name, node)
        graph.add_edge(before, name)
    app = graph.compile(store)

    def call(number: int) -> Any:
        if number:
            assert started.wait(WAIT_SECONDS_MAX)
        return app.invoke({}, on("t"), on_conflict="wait")

    assert sorted(each["total"] for each in together(2, call)) == [6, 12]


def test_a_thread_that_is_deleted_is_not_waited_for(store: EventStore) -> None:
    app = crashed(store)

    def call(number: int) -> Any:
        if number:
            time.sleep(0.2)
            return store.delete_thread("t")
        return app.invoke({}, on("t"), on_conflict="wait")

    assert together(2, call) == [{"log": ["a", "b"], "total": 2}, True]


def test_waiting_can_be_given_up(store_url: str) -> None:
    """Nothing is recorded of a run that was cancelled in the line, and the loop is not busy."""

    async def main() -> None:
        async with opened(store_url) as store:
            app = steps("ab", store)
            await app.ainvoke({}, on("t"))
            await store.set_thread("t", status="running")
            head = await store.head("t")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(app.ainvoke({}, on("t"), on_conflict="wait"), 0.3)
            stream = app.astream({}, on("t"), on_conflict="wait")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.3)
            assert await store.head("t") == head
            assert not others()

    run(main())


# --- reject -----------------------------------------------------------------------------


def test_of_many_runs_one_wins_each_superstep(store: EventStore) -> None:
    """All have run the node before anyone records: one is in the log, the others are told."""
    barriers = [threading.Barrier(RUNS), threading.Barrier(RUNS)]

    def node(number: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            barriers[number].wait(WAIT_SECONDS_MAX)
            return {"total": 1, "log": [f"node {number}"]}

        return run

    graph = StateGraph(Trail)
    graph.add_node("stop", logs("stop"))
    graph.add_node("first", node(0))
    graph.add_node("second", node(1))
    graph.add_edge(START, "stop")
    graph.add_edge("stop", "first")
    graph.add_edge("first", "second")
    app = graph.compile(store, interrupt_before=["first", "second"])
    app.invoke({}, on("t"))
    for superstep in range(2):
        before = store.head("t").seq
        found = together(RUNS, lambda _: app.invoke(None, on("t"), on_conflict="reject"))
        won = [each for each in found if not isinstance(each, Exception)]
        lost = [each for each in found if isinstance(each, ConcurrencyError)]
        assert (len(won), len(lost)) == (1, RUNS - 1)
        assert all((e.thread_id, e.expected, e.actual) == ("t", before, before + 1) for e in lost)
        assert won[0]["log"] == ["stop", "node 0", "node 1"][: superstep + 2]
    assert app.get_state(on("t")).values["total"] == 3
    assert app.verify(on("t")).ok


def test_whoever_is_rejected_has_changed_nothing(store: EventStore) -> None:
    """Runs that begin over one another: those that come through are in the log, whole."""
    app = counting(store)
    for round in range(3):
        config = on(f"t{round}")
        found = together(RUNS, lambda _, config=config: app.invoke({}, config))  # type: ignore[misc]
        assert all(isinstance(each, dict | ConcurrencyError) for each in found)
        won = [each for each in found if isinstance(each, dict)]
        assert won
        counts = [each["count"] for each in won]
        assert len(set(counts)) == len(counts)  # no two took the same step
        assert app.verify(config).ok
        values = app.get_state(config).values
        assert values["count"] >= len(won)
        sums = [entry for entry in app.events(config) if entry.node == "sum"]
        assert [entry.writes["count"] for entry in sums] == list(range(1, values["count"] + 1))


# --- what is asked for ------------------------------------------------------------------


def test_anything_else_is_refused() -> None:
    with MemorySaver() as saver:
        app = steps("a", saver)
        wrong: Any = "queue"
        expected = "on_conflict must be 'reject' or 'wait', not 'queue'"
        with pytest.raises(InvalidConfigError, match=expected):
            app.invoke({}, on("t"), on_conflict=wrong)
        with pytest.raises(InvalidConfigError, match=expected):
            list(app.stream({}, on("t"), on_conflict=wrong))

        async def main() -> None:
            with pytest.raises(InvalidConfigError, match=expected):
                await app.ainvoke({}, on("t"), on_conflict=wrong)
            async with aclosing(app.astream({}, on("t"), on_conflict=wrong)) as chunks:
                with pytest.raises(InvalidConfigError, match=expected):
                    await anext(chunks)

        run(main())
        assert not saver.store.threads()


# --- in an event loop -------------------------------------------------------------------


def test_coroutines_wait_for_one_another(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            app = counting(store)
            runs = (app.ainvoke({}, on("t"), on_conflict="wait") for _ in range(RUNS))
            found = await asyncio.gather(*runs)
            assert sorted(each["count"] for each in found) == list(range(1, RUNS + 1))
            assert not others()

    run(main())


def test_nobody_waits_for_a_cancelled_run(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            running = asyncio.Event()

            async def node(state: Trail) -> dict[str, Any]:
                if not running.is_set():
                    running.set()
                    await asyncio.sleep(60)
                return {"total": 1}

            graph = StateGraph(Trail)
            graph.add_node("node", node)
            graph.add_edge(START, "node")
            graph.add_edge("node", END)
            app = graph.compile(checkpointer=store)
            task = asyncio.ensure_future(app.ainvoke({}, on("t")))
            await running.wait()
            task.cancel()
            await asyncio.wait([task])
            assert (await store.thread("t")).status == "cancelled"
            began = time.monotonic()
            found = await app.ainvoke({}, on("t"), on_conflict="wait")
            assert found["total"] == 1
            assert time.monotonic() - began < store.core.leases.lease_s / 2

    run(main())


# --- several processes ------------------------------------------------------------------

CHILD: Final = """
import asyncio, json, sys
from eventstore import AsyncEventStore, ConcurrencyError, EventStore
from tests.graph.kit import on
from tests.graph.test_conflict import counting

url, kind = sys.argv[1:]
won = {"wait": [], "reject": []}

def blocking():
    with EventStore(url, tenant="test") as store:
        app = counting(store)
        for conflict in won:
            for number in range(5):
                try:
                    found = app.invoke({}, on(conflict), on_conflict=conflict)
                    won[conflict].append(found["count"])
                except ConcurrencyError:
                    assert conflict == "reject"

async def asynchronous():
    async with AsyncEventStore(url, tenant="test") as store:
        app = counting(store)
        for conflict in won:
            for number in range(5):
                try:
                    found = await app.ainvoke({}, on(conflict), on_conflict=conflict)
                    won[conflict].append(found["count"])
                except ConcurrencyError:
                    assert conflict == "reject"

sys.stdin.read()
blocking() if kind == "sync" else asyncio.run(asynchronous())
print(json.dumps(won))
"""


@pytest.mark.slow
def test_processes_on_one_thread(store_url: str) -> None:
    """First all of them wait for one another, then nobody does."""
    if store_url == "sqlite://":
        pytest.skip("no other process can use a database in memory")
    children = [
        processes.Popen(
            [sys.executable, "-c", CHILD, store_url, kind],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind in ("sync", "async") * effort(2, 4)
    ]
    try:
        for child in children:
            assert child.stdin is not None
            child.stdin.close()  # they begin together, as far as that can be arranged
            child.stdin = None
        told = [json.loads(child.communicate()[0] or "null") for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [child.returncode for child in children] == [0] * len(children)
    with EventStore(store_url, tenant="test") as store:
        app = counting(store)
        for conflict in ("wait", "reject"):
            won = [count for each in told for count in each[conflict]]
            assert len(won) == len(set(won))
            assert app.verify(on(conflict)).ok
            entries = list(app.events(on(conflict)))
            sums = [entry.writes["count"] for entry in entries if entry.node == "sum"]
            assert sums == list(range(1, len(sums) + 1))
            assert set(won) <= set(sums)
            if conflict == "wait":
                assert sorted(won) == sums == list(range(1, 5 * len(children) + 1))
                kinds = [entry.kind for entry in entries]
                assert kinds == ["input", "output", "output", "output"] * 5 * len(children)
