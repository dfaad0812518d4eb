"""Cancelling an async run: what was recorded stays, and every coroutine is reached."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import pytest

from eventstore import EventStore
from graph import (
    START,
    RetryPolicy,
    StateGraph,
)
from graph.build.schema import StateSchema
from graph.run.address import Address
from graph.run.journal import LogJournal, Means
from graph.run.thread_log import ThreadLog
from graph.state.events import Goto, Kind, update_data
from tests.awaited import opened, others, run
from tests.graph.async_support import checkpointer, fan, one
from tests.graph.kit import Boom, Calls, Trail, on

MOMENTS: Final = (0, 1, 2, 3, 4, 6, 10, 25)
"""Iterations of the loop, after a node was called, to let pass before a run is cancelled."""


class Pipeline:
    """Two rounds of three tasks side by side (one of them on a thread), a single one between."""

    NODES: Final = ("a1", "b1", "c1", "mid", "a2", "b2", "c2", "end")

    def __init__(self, checkpointer: Any) -> None:
        self.calls = Calls()
        self.on_call: Callable[[], None] = lambda: None
        graph = StateGraph(Trail)
        for name in self.NODES:
            is_plain = name in ("c1", "c2")
            graph.add_node(name, self.plain(name) if is_plain else self.waiting(name))
        for name in ("a1", "b1", "c1"):
            graph.add_edge(START, name)
        graph.add_edge(["a1", "b1", "c1"], "mid")
        for name in ("a2", "b2", "c2"):
            graph.add_edge("mid", name)
        graph.add_edge(["a2", "b2", "c2"], "end")
        self.app = graph.compile(checkpointer=checkpointer)

    def waiting(self, name: str) -> Any:
        async def node(state: Trail) -> dict[str, Any]:
            written: dict[str, Any] = self.plain(name)(state)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return written

        return node

    def plain(self, name: str) -> Any:
        def node(state: Trail) -> dict[str, Any]:
            self.calls.add(f"{state['note']} {name}")
            self.on_call()
            return {"log": [f"{name} after {len(state['log'])}"], "total": 1}

        return node


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_leaves_what_was_recorded(store_url: str, times: int) -> None:
    """At whatever moment: the thread stands as if tasks that were not recorded had not run."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with opened(store_url) as store:
            pipeline = Pipeline(store)
            app = pipeline.app

            def values_of(values: Any) -> dict[str, Any]:
                return {**values, "note": "any"}

            whole = await app.ainvoke({"log": ["x"], "note": "whole"}, on("whole"))
            history = [each async for each in app.aget_state_history(on("whole"), every=True)]
            states = [values_of(each.values) for each in history]
            expected = {task.name: task.result for each in history for task in each.tasks}
            assert expected.keys() == {*Pipeline.NODES}
            half_way = 0
            for begun in range(len(Pipeline.NODES) + 1):
                for more in MOMENTS[:: 2 * times - 1]:
                    name = f"{begun}, {more}"
                    config, input = on(name), {"log": ["x"], "note": name}
                    now, left = asyncio.Event(), begun

                    def count_down(now: asyncio.Event = now) -> None:
                        nonlocal left
                        left -= 1
                        if left == 0:
                            loop.call_soon_threadsafe(now.set)

                    pipeline.on_call = count_down
                    if not begun:
                        now.set()
                    task = asyncio.ensure_future(app.ainvoke(input, config))
                    await now.wait()
                    for _ in range(times):
                        for _ in range(more):
                            await asyncio.sleep(0)
                        task.cancel()
                    ended = await asyncio.gather(task, return_exceptions=True)
                    assert not others()
                    state = await app.aget_state(config)
                    if state.created_at is None:
                        assert isinstance(ended[0], asyncio.CancelledError)
                        assert await app.ainvoke(input, config)
                        continue
                    complete = (await app.aget_state(state.config)).values
                    assert values_of(complete) in states
                    done = [
                        entry
                        for each in state.tasks
                        for entry in (each.result or {}).get("log", ())
                    ]
                    assert state.values["log"] == [*complete["log"], *done]
                    for each in state.tasks:
                        assert each.error is None
                        assert each.result in (None, expected[each.name])
                    kinds = [(e.kind, e.node) async for e in app.aevents(config)]
                    recorded = {node for kind, node in kinds if kind == "output"}
                    half_way += 0 < len(recorded) < len(Pipeline.NODES)
                    assert values_of(await app.ainvoke(None, config)) == values_of(whole)
                    assert (await app.averify(config)).ok
                    outputs = [e.node async for e in app.aevents(config) if e.kind == "output"]
                    assert sorted(map(str, outputs)) == sorted(Pipeline.NODES)
                    for node in Pipeline.NODES:
                        count = pipeline.calls.counts[f"{name} {node}"]
                        assert count == 1 if node in recorded else count in (1, 2)
            assert half_way > 10

    run(main())


def test_cancelling_reaches_every_coroutine_that_runs(kept: bool) -> None:
    """Side by side, in inner graphs, and while a retry is being waited for."""
    ended: list[str] = []
    started: list[str] = []

    def waits(name: str) -> Any:
        async def node(state: Trail) -> None:
            started.append(name)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.001)
                ended.append(name)

        return node

    async def fails(state: Trail) -> None:
        started.append("fails")
        raise Boom

    policy = RetryPolicy(initial_interval=60, max_interval=60, max_attempts=5)

    async def main() -> None:
        async with checkpointer(kept) as store:
            inner = fan({"x": waits("x"), "y": waits("y")})
            retried = one(fails, retry_policy=policy)
            app = fan({"a": waits("a"), "inner": inner, "retried": retried}, store)
            task = asyncio.ensure_future(app.ainvoke({}, on("t")))
            while len(started) < 4:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert sorted(ended) == ["a", "x", "y"]
            assert not others()

    run(main())


def test_a_thread_whose_run_was_cancelled_may_go_on_talking() -> None:
    """A plain node cannot be stopped; what it still says goes nowhere, even without a loop."""
    release, heard = threading.Event(), []

    def node(state: Trail, writer: Any) -> None:
        writer("first")
        assert release.wait(10)
        try:
            writer("second")
            heard.append("fine")
        except BaseException as error:
            heard.append(repr(error))

    async def main() -> None:
        stream = one(node).astream({}, stream_mode="custom")
        async with aclosing(stream) as chunks:
            assert await anext(chunks) == "first"

    run(main())
    release.set()
    give_up_at = time.monotonic() + 10
    while not heard and time.monotonic() < give_up_at:
        time.sleep(0.001)
    assert heard == ["fine"]


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_cancelling_while_a_run_commits(store_url: str, durability: Any) -> None:
    """The cancellation comes out, whatever was stored; and the thread goes on from there."""

    async def main() -> None:
        ends = Counter[str]()
        async with opened(store_url) as store:
            app = one(lambda state: {"total": 1}, store)
            chance = random.Random(1)

            async def talk(number: int) -> None:
                config = on(f"t{number}")
                await app.ainvoke({"note": "first"}, config)
                task = asyncio.ensure_future(
                    app.ainvoke({"note": "second"}, config, durability=durability)
                )
                await asyncio.sleep(chance.uniform(0, 0.02))
                task.cancel()
                try:
                    await task
                    ends["returned"] += 1
                except asyncio.CancelledError:
                    ends["cancelled"] += 1
                state = await app.aget_state(config)
                await asyncio.sleep(0.02)
                assert await app.aget_state(config) == state, "something was written afterwards"
                ended = await app.ainvoke({"note": "third"}, config)
                assert ended["note"] == "third"
                assert (await app.averify(config)).ok

            for first in range(0, 60, 6):
                await asyncio.gather(*(talk(number) for number in range(first, first + 6)))
        assert ends.keys() <= {"returned", "cancelled"}
        assert ends["cancelled"]

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_journal_that_was_cancelled_knows_its_log(store_url: str, durability: Any) -> None:
    """What recorded the run stands where the log ends, so that it can record how it ended."""

    async def main() -> None:
        async with opened(store_url) as store:
            log = ThreadLog(store.core, StateSchema.of(Trail).channels, None)
            for moment in range(60):
                means = Means(store.concurrency, durability)
                journal = await log.open(Address(f"t{moment}"), means)

                async def record(journal: LogJournal = journal) -> None:
                    for number in range(3):
                        data = update_data([("node", [("note", str(number))], Goto())], {})
                        await journal.record([(Kind.UPDATE, data)], lambda state: False)
                    await journal.flush()

                task = asyncio.ensure_future(record())
                for _ in range(moment):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                await journal.flush()
                end = await store.head(f"t{moment}")
                assert end.seq == journal.at.seq == journal.state.at.seq

    run(main())


@pytest.mark.parametrize("cancels", [False, True])
def test_siblings_of_a_failure_finish_or_are_cancelled(store_url: str, cancels: bool) -> None:
    ended: list[str] = []

    async def slow(state: Trail) -> dict[str, Any]:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        ended.append("finished")
        return {"log": ["slow"]}

    async def fails(state: Trail) -> dict[str, Any]:
        if not ended:
            raise Boom("fails")
        return {"log": ["fails"]}

    made = StateGraph(Trail).add_node("slow", slow).add_node("fails", fails)
    made.add_edge(START, "slow").add_edge(START, "fails")
    with EventStore(store_url) as store:
        app = made.compile(store, cancel_siblings=cancels)
        with pytest.raises(Boom):
            asyncio.run(app.ainvoke({}, on("t")))
        assert ended == ["cancelled" if cancels else "finished"]
        assert set(app.get_state(on("t")).next) == {"fails", *(["slow"] if cancels else [])}
        result = asyncio.run(app.ainvoke(None, on("t")))
        assert sorted(result["log"]) == ["fails", "slow"]
