"""Graphs in an event loop: nodes of both kinds, streaming, cancelling, and nothing left behind.

What runs mean is tested over both kinds of calls (see the fixture `store`). Here is what only an
event loop can do to a run, and that both kinds of calls come to the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import operator
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from eventstore import AsyncEventStore, EventStore
from graph import (
    END,
    START,
    AsyncSqliteSaver,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidGraphError,
    MemorySaver,
    RetryPolicy,
    Send,
    SqliteSaver,
    StateGraph,
    get_stream_writer,
)
from tests.awaited import Heartbeat, opened, others, run
from tests.graph.kit import Boom, Calls, Trail, on, shape

LAG_MAX_S: Final = 0.5
SLEEP_S: Final = 0.8
"""What a blocking node sleeps: more than the event loop may stand still."""

MOMENTS: Final = (0, 1, 2, 3, 4, 6, 10, 25)
"""Iterations of the loop, after a node was called, to let pass before a run is cancelled."""


@pytest.fixture(params=["without a checkpointer", "with one"])
def kept(request: pytest.FixtureRequest) -> bool:
    """What a run does must not depend on whether it is recorded."""
    return bool(request.param == "with one")


@asynccontextmanager
async def checkpointer(kept: bool) -> AsyncIterator[AsyncEventStore | None]:
    if not kept:
        yield None
        return
    async with opened("sqlite://") as store:
        yield store


def fan(
    nodes: dict[str, Any], checkpointer: Any = None, *, retry: RetryPolicy | None = None
) -> CompiledGraph:
    """Nodes side by side, and behind them all a plain node ``end``."""
    graph = StateGraph(Trail)
    for name, action in nodes.items():
        graph.add_node(name, action, retry_policy=retry)
        graph.add_edge(START, name)
    graph.add_node("end", lambda state: {"log": ["end"]})
    graph.add_edge(list(nodes), "end")
    return graph.compile(checkpointer=checkpointer)


def one(action: Any, checkpointer: Any = None, **options: Any) -> CompiledGraph:
    """A graph of a single node ``node``."""
    graph = StateGraph(Trail)
    graph.add_node("node", action, **options)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile(checkpointer=checkpointer)


def logging(name: str, seconds: float | None = None) -> Callable[[Trail], Awaitable[Any]]:
    """An asynchronous node that logs its name after a while."""

    async def node(state: Trail) -> dict[str, Any]:
        if seconds is not None:
            await asyncio.sleep(seconds)
        return {"log": [name], "total": 1}

    return node


# --- nodes of both kinds ----------------------------------------------------------------


class Called:
    """An object that is called like an asynchronous function."""

    async def __call__(self, state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"log": ["called"]}


async def bound(name: str, state: Trail) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"log": [name]}


def mixed(checkpointer: Any = None) -> CompiledGraph:
    """Everything that may be asynchronous, beside what is not."""

    async def first(state: Trail, config: Any) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"log": ["first", config["configurable"]["thread_id"]]}

    def second(state: Trail) -> dict[str, Any]:
        return {"log": ["second"]}

    async def to_both(state: Trail) -> list[Any]:
        await asyncio.sleep(0)
        return [Send("third", {"n": n}) for n in range(3)] + ["inner"]

    async def third(arg: dict[str, int]) -> Command[Any]:
        await asyncio.sleep(0.003 - arg["n"] / 1000)
        return Command(update={"log": [f"third {arg['n']}"]}, goto="last")

    inner = StateGraph(Trail)
    inner.add_node("a", logging("inner a", 0))
    inner.add_node("b", lambda state: {"log": ["inner b"]})
    inner.add_node("c", logging("inner c", 0.001))
    inner.add_edge(START, "a")
    inner.add_edge("a", "b")
    inner.add_edge("a", "c")

    graph = StateGraph(Trail)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_node("third", third)
    graph.add_node("inner", inner.compile())
    graph.add_node("last", Called())
    graph.add_node("bound", functools.partial(bound, "bound"))
    graph.add_node("given", lambda state: bound("given", state))
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_conditional_edges("second", to_both)
    graph.add_edge("last", "bound")
    graph.add_edge("bound", "given")
    return graph.compile(checkpointer=checkpointer)


MIXED: Final = [
    *("first", "t", "second"),
    *("first", "t", "second", "inner a", "inner b", "inner c"),  # the inner graph returns it all
    *(f"third {n}" for n in range(3)),
    *("called", "bound", "given"),
]


def test_plain_and_asynchronous_nodes_and_edges(kept: bool) -> None:
    async def main() -> list[str]:
        async with checkpointer(kept) as store:
            found = await mixed(store).ainvoke({}, on("t"))
        log: list[str] = found["log"]
        return log

    assert run(main()) == MIXED


ASYNCHRONOUS: Final[dict[str, Any]] = {
    "function": logging("x"),
    "object": Called(),
    "partial": functools.partial(bound, "x"),
    "plain, returning a coroutine": lambda state: bound("x", state),
}


@pytest.mark.parametrize("action", ASYNCHRONOUS.values(), ids=ASYNCHRONOUS)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "side by side"])
def test_a_blocking_call_names_the_asynchronous_node(action: Any, beside: bool) -> None:
    nodes = {"plain": lambda state: {"log": ["plain"]}} if beside else {}
    with MemorySaver() as saver:
        app = fan({"odd": action, **nodes}, saver)
        with pytest.raises(InvalidGraphError, match=r"node 'odd' is asynchronous.*ainvoke\(\)"):
            app.invoke({}, on("t"))
        with pytest.raises(InvalidGraphError, match="node 'odd'"):
            list(app.stream(None, on("t")))
        assert app.get_state(on("t")).next == ("odd",)

        async def resume() -> Any:
            return await app.ainvoke(None, on("t"))

        assert run(resume())["log"][1:] == [*nodes, "end"]


def test_a_blocking_call_names_the_asynchronous_edge_and_the_inner_node() -> None:
    async def choose(state: Trail) -> str:
        return END

    graph = StateGraph(Trail)
    graph.add_node("a", lambda state: {"log": ["a"]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", choose)
    with pytest.raises(InvalidGraphError, match="conditional edge 'choose' is asynchronous"):
        graph.compile().invoke({})
    with pytest.raises(InvalidGraphError, match="node 'odd' is asynchronous"):
        one(fan({"odd": logging("x")})).invoke({})


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_retries(kept: bool, kind: str) -> None:
    calls = Calls()

    def plain(state: Trail) -> dict[str, Any]:
        if calls.add("node") < 3:
            raise Boom
        return {"log": ["worked"]}

    async def waiting(state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        return plain(state)

    async def main() -> Any:
        policy = RetryPolicy(initial_interval=0.01, max_attempts=3, jitter=False)
        async with checkpointer(kept) as store:
            app = one(plain if kind == "def" else waiting, store, retry_policy=policy)
            return await app.ainvoke({}, on("t"))

    assert run(main()) == {"log": ["worked"], "total": 0}
    assert calls.counts["node"] == 3


def test_results_are_merged_in_the_frontiers_order(kept: bool) -> None:
    """Whoever is first, and whether on the loop or on a thread."""

    def slow(name: str, seconds: float) -> Any:
        def node(state: Trail) -> dict[str, Any]:
            time.sleep(seconds)
            return {"log": [name]}

        return node

    async def main() -> Any:
        nodes = {
            "a": logging("a", 0.06),
            "b": slow("b", 0.04),
            "c": logging("c", 0.02),
            "d": slow("d", 0),
            "e": logging("e"),
        }
        async with checkpointer(kept) as store:
            app = fan(nodes, store)
            finished = [
                *[next(iter(chunk)) async for chunk in app.astream({}, on("t"))],
            ]
            assert finished[0] in "de"
            assert finished[-2:] == ["a", "end"]
            return await app.ainvoke({}, on("u"))

    assert run(main())["log"] == ["a", "b", "c", "d", "e", "end"]


def test_max_concurrency_holds_for_coroutines(kept: bool) -> None:
    at_once, most = 0, 0

    async def node(state: Trail) -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.002)
        at_once -= 1
        return {"total": 1}

    async def main() -> Any:
        async with checkpointer(kept) as store:
            app = fan({f"n{n}": node for n in range(12)}, store)
            return await app.ainvoke({}, on("t", max_concurrency=3))

    assert run(main())["total"] == 12
    assert most == 3


# --- streaming --------------------------------------------------------------------------


def test_custom_chunks_come_while_nodes_run(kept: bool) -> None:
    """From the loop and from threads; each before what its node comes to."""
    release = threading.Event()

    def plain(state: Trail, writer: Any) -> dict[str, Any]:
        writer("plain 1")
        assert release.wait(10)
        get_stream_writer()("plain 2")
        return {"log": ["plain"]}

    async def waiting(state: Trail, writer: Any) -> dict[str, Any]:
        writer("waiting 1")
        await asyncio.to_thread(release.wait, 10)
        await asyncio.create_task(later())
        return {"log": ["waiting"]}

    async def later() -> None:
        get_stream_writer()("waiting 2")

    async def main() -> list[Any]:
        found: list[Any] = []
        async with checkpointer(kept) as store:
            app = fan({"plain": plain, "waiting": waiting}, store)
            async for chunk in app.astream({}, on("t"), stream_mode=["custom", "updates"]):
                found.append(chunk)
                if sum(mode == "custom" for mode, _ in found) == 2:
                    release.set()
        return found

    found = run(main())
    assert {each for _, each in found[:2]} == {"plain 1", "waiting 1"}
    for name in ("plain", "waiting"):
        own = [
            ("custom", f"{name} 1"),
            ("custom", f"{name} 2"),
            ("updates", {name: {"log": [name]}}),
        ]
        assert [each for each in found if each in own] == own
    assert found[-1] == ("updates", {"end": {"log": ["end"]}})


def test_custom_chunks_of_an_inner_graph(kept: bool) -> None:
    async def node(state: Trail) -> None:
        get_stream_writer()("inner")

    async def main() -> list[Any]:
        async with checkpointer(kept) as store:
            app = one(one(node), store)
            return [each async for each in app.astream({}, on("t"), stream_mode="custom")]

    assert run(main()) == ["inner"]


@pytest.mark.parametrize("modes", ["updates", "custom", "values", "checkpoints", "debug"])
def test_a_stream_closed_early_leaves_nothing_running(store_url: str, modes: str) -> None:
    """At whatever chunk; and the thread can go on from there."""

    async def main() -> None:
        running: set[str] = set()

        def node(name: str, seconds: float) -> Any:
            async def node(state: Trail, writer: Any) -> dict[str, Any]:
                running.add(name)
                try:
                    writer(name)
                    await asyncio.sleep(seconds)
                finally:
                    try:
                        await asyncio.sleep(0)  # cleaning up is waited for
                    finally:
                        running.discard(name)
                return {"log": [name]}

            return node

        async with opened(store_url) as store:
            app = fan({"a": node("a", 0), "b": node("b", 0.005), "c": node("c", 0.01)}, store)
            wanted = 1
            while True:
                config = on(f"t{wanted}")
                count = 0
                stream = app.astream({}, config, stream_mode=modes)
                async with aclosing(stream) as chunks:
                    async for _ in chunks:
                        count += 1
                        if count == wanted:
                            break
                assert not running
                assert not others()
                final = await app.ainvoke(None, config)
                assert final["log"] == ["a", "b", "c", "end"]
                if count < wanted:
                    break
                wanted += 1
            assert wanted > 2

    run(main())


def test_a_stream_that_times_out_leaves_nothing_running(store_url: str) -> None:
    """`wait_for` cancels inside the stream, which is at its end then."""

    async def main() -> None:
        async with opened(store_url) as store:
            app = fan({"quick": logging("quick"), "slow": logging("slow", 30)}, store)
            stream = app.astream({}, on("t"))
            assert await anext(stream) == {"quick": {"log": ["quick"], "total": 1}}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
            assert not others()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            assert (await app.aget_state(on("t"))).next == ("slow",)

    run(main())


def test_a_task_that_never_began_is_dropped_in_silence() -> None:
    """Closing the stream just when another task was started, before the loop got to it."""

    async def soon(state: Trail) -> dict[str, Any]:
        for _ in range(3):
            await asyncio.sleep(0)
        return {"log": ["soon"]}

    began: list[str] = []

    async def third(state: Trail) -> None:
        began.append("third")

    async def main() -> None:
        app = fan({"first": logging("first"), "soon": soon, "third": third})
        async with aclosing(app.astream({}, {"max_concurrency": 2})) as chunks:
            assert await anext(chunks) == {"first": {"log": ["first"], "total": 1}}
            await asyncio.sleep(0.01)
            assert await anext(chunks) == {"soon": {"log": ["soon"]}}
        assert not others()

    run(main())
    assert not began


def test_what_is_read_can_be_dropped_early(store_url: str) -> None:
    """History and audit trail, of a thread with a fork in its past."""

    async def main() -> None:
        async with opened(store_url) as store:
            app = one(logging("x"), store)
            for _ in range(4):
                await app.ainvoke({}, on("t"))
            past = [each async for each in app.aget_state_history(on("t"))][5]
            branch = {"configurable": {**past.config["configurable"], "thread_id": "u"}}
            await app.ainvoke({}, branch)  # type: ignore[arg-type]
            for config in (on("t"), on("u"), past.config, branch):
                for found in (app.aget_state_history(config), app.aevents(config)):  # type: ignore[arg-type]
                    async with aclosing(found) as entries:
                        async for _ in entries:
                            break
                    assert not others()
                one_only = app.aget_state_history(config, limit=1)  # type: ignore[arg-type]
                assert len([each async for each in one_only]) == 1
                assert (await app.aget_state(config)).values  # type: ignore[arg-type]

    run(main())


# --- failing ----------------------------------------------------------------------------


def test_an_error_keeps_the_siblings_work(store_url: str) -> None:
    calls = Calls()

    async def fails(state: Trail) -> dict[str, Any]:
        if calls.add("fails") == 1:
            raise Boom("at first")
        return {"log": ["fails"]}

    def plain(state: Trail) -> dict[str, Any]:
        calls.add("plain")
        time.sleep(0.02)
        return {"log": ["plain"]}

    async def waiting(state: Trail) -> dict[str, Any]:
        calls.add("waiting")
        await asyncio.sleep(0.02)
        return {"log": ["waiting"]}

    async def main() -> None:
        async with opened(store_url) as store:
            app = fan({"plain": plain, "fails": fails, "waiting": waiting}, store)
            with pytest.raises(Boom) as caught:
                await app.ainvoke({}, on("t"))
            assert any("'fails'" in note for note in caught.value.__notes__)
            state = await app.aget_state(on("t"))
            assert state.next == ("fails",)
            assert (await store.thread("t")).status == "failed"
            final = await app.ainvoke(None, on("t"))
            assert final["log"] == ["fails", "plain", "waiting", "end"]
        assert calls.counts == {"plain": 1, "fails": 2, "waiting": 1}

    run(main())


RAISED: Final = (
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
)


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "side by side"])
@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: raised.__name__)
def test_a_node_that_raises_what_means_something_else(
    raised: type[BaseException], beside: bool, kind: str
) -> None:
    """It comes out (or, where Python says so, a RuntimeError does), and the run can go on."""
    calls = Calls()

    def plain(state: Trail) -> dict[str, Any]:
        if calls.add("odd") == 1:
            raise raised
        return {"log": ["odd"]}

    async def waiting(state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        return plain(state)

    saver = MemorySaver()
    nodes = {"plain": lambda state: {"log": ["plain"]}} if beside else {}
    app = fan({"odd": plain if kind == "def" else waiting, **nodes}, saver)

    async def first() -> None:
        await asyncio.wait_for(app.ainvoke({}, on("t")), 10)

    async def second() -> Any:
        assert (await app.aget_state(on("t"))).next == ("odd",)
        return await app.ainvoke(None, on("t"))

    never_seen = raised is GeneratorExit and kind == "def"
    told = RuntimeError if raised in (StopIteration, StopAsyncIteration) or never_seen else raised
    with pytest.raises(told):
        run(first())
    assert run(second())["log"] == ["odd", *nodes, "end"]
    saver.close()


# --- cancelling -------------------------------------------------------------------------


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
            history = [each async for each in app.aget_state_history(on("whole"))]
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
                    assert values_of(state.values) in states
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


# --- not blocking the loop --------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 4], ids=["alone", "side by side"])
def test_blocking_nodes_and_edges_do_not_stall_the_loop(store_url: str, width: int) -> None:
    def node(state: Trail) -> dict[str, Any]:
        time.sleep(SLEEP_S)
        return {"total": 1}

    def choose(state: Trail) -> str:
        time.sleep(SLEEP_S)
        return END

    graph = StateGraph(Trail)
    for n in range(width):
        graph.add_node(f"n{n}", node)
        graph.add_edge(START, f"n{n}")
        graph.add_conditional_edges(f"n{n}", choose)

    async def main() -> None:
        async with opened(store_url) as store:
            app = graph.compile(checkpointer=store)
            await store.setup()
            async with Heartbeat() as heart:
                began = time.monotonic()
                found = await app.ainvoke({}, on("t"))
                assert time.monotonic() - began >= 2 * SLEEP_S
        assert found["total"] == width
        assert heart.longest < LAG_MAX_S
        assert heart.beats > 10

    run(main())


def test_blocking_nodes_of_many_runs_wait_side_by_side(store_url: str) -> None:
    """200 runs in one process, each with a blocking node and an asynchronous one."""

    def plain(state: Trail) -> dict[str, Any]:
        time.sleep(0.05)
        return {"log": ["plain"]}

    async def main() -> None:
        graph = StateGraph(Trail)
        graph.add_node("plain", plain)
        graph.add_node("waiting", logging("waiting", 0.05))
        graph.add_node("beside", logging("beside"))
        graph.add_edge(START, "plain")
        graph.add_edge("plain", "waiting")
        graph.add_edge("plain", "beside")
        async with opened(store_url) as store:
            app = graph.compile(checkpointer=store)
            runs = (app.ainvoke({"note": f"{n}"}, on(f"t{n}")) for n in range(200))
            found = await asyncio.gather(*runs)
            for number, values in enumerate(found):
                assert values == {
                    "log": ["plain", "beside", "waiting"],
                    "total": 2,
                    "note": f"{number}",
                }
            assert {info.status for info in await store.threads(limit=1000)} == {"idle"}
            for number in range(0, 200, 20):
                assert (await app.averify(on(f"t{number}"))).ok

    run(main())


# --- context ----------------------------------------------------------------------------

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


@pytest.mark.parametrize("width", [1, 3], ids=["alone", "side by side"])
def test_nodes_see_the_callers_context(kept: bool, width: int) -> None:
    """And of what one changes there, those beside it see nothing."""

    def seen(name: str) -> dict[str, Any]:
        found = who.get()
        who.set(name)
        return {"log": [found]}

    def plain(state: Trail) -> dict[str, Any]:
        return seen("plain")

    async def waiting(state: Trail) -> dict[str, Any]:
        return seen("waiting")

    async def called(name: str, store: Any) -> Any:
        who.set(name)
        nodes: dict[str, Any] = {"a": plain, "b": waiting, "c": plain}
        for action in (plain, waiting):
            chosen = nodes if width == 3 else {"a": action}
            app = fan(chosen, store)
            values = await app.ainvoke({}, on(f"{name} {action.__name__}"))
            assert values["log"] == [*([name] * width), "end"]
            who.set(name)
            again = on(f"{name} {action.__name__} 2")
            found = [part async for each in app.astream({}, again) for part in each.values()]
            assert [each["log"] for each in found][:width] == [[name]] * width
            who.set(name)

    async def main() -> None:
        async with checkpointer(kept) as store:
            await asyncio.gather(*(called(name, store) for name in ("x", "y", "z")))

    run(main())


# --- any store, any call ----------------------------------------------------------------


def test_a_blocking_store_serves_asynchronous_calls(store_url: str) -> None:
    """Its operations run on threads then, so that the loop goes on."""
    with EventStore(store_url) as store:
        app = fan({"a": logging("a"), "b": lambda state: {"log": ["b"]}}, store)
        plain = one(lambda state: {"log": ["x"]}, store)

        async def main() -> None:
            assert (await app.ainvoke({}, on("t")))["log"][-3:] == ["a", "b", "end"]
            await app.aupdate_state(on("t"), {"note": "edited"}, as_node="end")

        for number in range(1, 4):  # in one loop after the other
            run(main())
            assert plain.invoke({}, on("t"))["log"] == [*["a", "b", "end", "x"] * number]
            assert app.get_state(on("t")).values["note"] == "edited"


def test_an_asynchronous_store_on_sqlite_serves_blocking_calls(tmp_path: Any) -> None:
    for target in (tmp_path / "runs.db", ":memory:"):
        store = AsyncEventStore(target)
        app = one(lambda state: {"log": ["x"]}, store)
        assert app.invoke({}, on("t"))["log"] == ["x"]
        assert [list(chunk) for chunk in app.stream({}, on("t"))] == [["node"]]
        app.update_state(on("t"), {"note": "n"})

        async def more(app: CompiledGraph, store: AsyncEventStore) -> Any:
            found = await app.ainvoke({}, on("t"))
            await store.close()
            return found

        assert run(more(app, store)) == {"log": ["x"] * 3, "total": 0, "note": "n"}


def test_an_asynchronous_driver_serves_no_blocking_call(store_url: str) -> None:
    """Each says so, and what to do; nothing is begun."""
    if make_url(store_url).get_backend_name() == "sqlite":
        pytest.skip("SQLite serves both")

    async def main() -> None:
        async with opened(store_url) as store:
            app = one(lambda state: {"log": ["x"]}, store)
            calls: list[Callable[[], Any]] = [
                lambda: app.invoke({}, on("t")),
                lambda: list(app.stream({}, on("t"))),
                lambda: app.batch([{}], [on("t")]),
                lambda: app.get_state(on("t")),
                lambda: list(app.get_state_history(on("t"))),
                lambda: list(app.events(on("t"))),
                lambda: app.verify(on("t")),
                lambda: app.update_state(on("t"), {"note": "n"}),
            ]
            for call in calls:
                with pytest.raises(InvalidConfigError, match="checkpointer is asynchronous"):
                    call()
            assert not await store.threads()

    run(main())


def test_savers_serve_both_kinds_of_calls(tmp_path: Any) -> None:
    async def main(saver: Any) -> None:
        app = fan({"a": logging("a"), "b": lambda state: {"log": ["b"]}}, saver)
        assert (await app.ainvoke({}, on("t")))["log"] == ["a", "b", "end"]
        plain = one(lambda state: {"log": ["x"]}, saver)
        assert plain.invoke({}, on("u"))["log"] == [
            "x"
        ]  # blocks the loop, which is the caller's wish
        for _ in plain.stream({}, on("u")):
            break
        assert len(list(plain.get_state_history(on("u"), limit=1))) == 1

    with MemorySaver() as memory:
        run(main(memory))
    with SqliteSaver(tmp_path / "sync.db") as sync:
        run(main(sync))

    async def opened_here() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "async.db")) as saver:
            await saver.setup()
            await main(saver)
            await saver.delete_thread("t")

    run(opened_here())


# --- abatch -----------------------------------------------------------------------------


def doubling(checkpointer: Any = None) -> CompiledGraph:
    async def node(state: Trail) -> dict[str, Any]:
        number = state["total"]
        await asyncio.sleep((10 - number) / 1000)
        if number in (3, 6):
            raise Boom(f"{number}")
        return {"total": number}

    return one(node, checkpointer)


def test_abatch(kept: bool) -> None:
    async def main() -> None:
        async with checkpointer(kept) as store:
            app = doubling(store)
            good = [{"total": n} for n in (9, 1, 5)]
            configs = [on(f"t{n}") for n in range(3)]
            assert [each["total"] for each in await app.abatch(good, configs)] == [18, 2, 10]
            bad = [{"total": n} for n in (1, 6, 3)]
            configs = [on(f"u{n}") for n in range(3)]
            with pytest.raises(Boom, match="6"):  # the first in order, not in time
                await app.abatch(bad, configs)
            configs = [on(f"v{n}") for n in range(3)]
            found = await app.abatch(bad, configs, return_exceptions=True)
            assert [repr(each) for each in found[1:]] == ["Boom('6')", "Boom('3')"]
            assert found[0]["total"] == 2
            assert await app.abatch([]) == []
            with pytest.raises(InvalidConfigError, match="2 inputs and 1 configs"):
                await app.abatch([{}, {}], [on("t")])

    run(main())


def test_abatch_runs_so_many_at_once_and_can_be_cancelled() -> None:
    running: set[int] = set()
    most = 0

    async def node(state: Trail) -> None:
        nonlocal most
        running.add(state["total"])
        most = max(most, len(running))
        try:
            await asyncio.sleep(0.002 if state["total"] < 10 else 60)
        finally:
            running.discard(state["total"])

    async def main() -> None:
        app = one(node)
        await app.abatch([{"total": n} for n in range(10)], max_concurrency=4)
        assert most == 4
        task = asyncio.ensure_future(app.abatch([{"total": 10 + n} for n in range(40)]))
        while len(running) < 16:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not running
        assert not others()

    run(main())


# --- both come to the same --------------------------------------------------------------


class Plan(TypedDict):
    """A random graph: of each node what it does and where it leads, by number."""

    nodes: list[dict[str, Any]]
    starts: list[int]
    inputs: list[int]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 5))
    nodes = []
    for number in range(count):
        last = number + 1 == count
        later = st.integers(min(number + 1, count - 1), count - 1)
        nodes.append(
            {
                "edges": sorted(draw(st.sets(later, max_size=2 * (not last)))),
                "branch": None if last else draw(st.none() | st.lists(later, max_size=2)),
                "sends": sorted(draw(st.sets(later, max_size=2 * (not last)))),
                "adds": draw(st.integers(-2, 2)),
                "fails": draw(st.sampled_from([0, 0, 0, 0, 1, 2])),
                "retried": draw(st.booleans()),
                "is_async": draw(st.booleans()),
                "inner": draw(st.sampled_from([False, False, True])),
                "defer": draw(st.sampled_from([False, False, True])),
            }
        )
    return {
        "nodes": nodes,
        "starts": sorted(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=3))),
        "inputs": draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)),
    }


class Numbers(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]


def built(plan: Plan, twins: bool, store: Any) -> CompiledGraph:
    """The graph of a plan; with ``twins`` nodes and edges may be asynchronous."""
    attempts: Counter[str] = Counter()
    graph = StateGraph(Numbers)

    def node_of(number: int, spec: dict[str, Any]) -> Any:
        def node(state: Any) -> Any:
            seen = f"n{number} saw {state['total']} after {state['log']}"
            attempts[seen] += 1
            if attempts[seen] <= spec["fails"]:
                raise Boom(seen)
            update = {"log": [f"n{number}, {len(state['log'])}"], "total": spec["adds"]}
            if spec["inner"] or not spec["sends"]:
                return update
            goto = [Send(f"n{to}", {"total": to, "log": [seen]}) for to in spec["sends"]]
            return Command(update=update, goto=goto)

        async def waiting(state: Any) -> Any:
            await asyncio.sleep(0)
            return node(state)

        action = waiting if twins and spec["is_async"] else node
        if not spec["inner"]:
            return action
        inner = StateGraph(Numbers)
        inner.add_node("in", action)
        inner.add_node("beside", lambda state: {"log": [f"beside n{number}"]})
        inner.add_edge(START, "in")
        inner.add_edge(START, "beside")
        return inner.compile()

    def branch_of(spec: dict[str, Any]) -> Any:
        def choose(state: Any) -> list[str]:
            return [f"n{to}" for to in spec["branch"]][: 1 + state["total"] % 2]

        async def waiting(state: Any) -> list[str]:
            await asyncio.sleep(0)
            return choose(state)

        return waiting if twins and spec["is_async"] else choose

    policy = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=Boom)
    for number, spec in enumerate(plan["nodes"]):
        name = f"n{number}"
        graph.add_node(
            name,
            node_of(number, spec),
            retry_policy=policy if spec["retried"] else None,
            defer=spec["defer"],
            destinations=tuple(f"n{n}" for n in range(len(plan["nodes"]))) or None,
        )
    for number, spec in enumerate(plan["nodes"]):
        for to in spec["edges"]:
            graph.add_edge(f"n{number}", f"n{to}")
        if spec["branch"] is not None:
            ends = [f"n{n}" for n in range(len(plan["nodes"]))]
            graph.add_conditional_edges(f"n{number}", branch_of(spec), ends)
    for number in plan["starts"]:
        graph.add_edge(START, f"n{number}")
    return graph.compile(checkpointer=store)


def trail(entries: list[Any]) -> list[Any]:
    """An audit trail to compare: within a superstep the order of finishing is nobody's promise."""
    lines: list[Any] = []
    for entry in entries:
        task = (entry.data or {}).get("task")
        lines.append((entry.kind, entry.step, task, entry.node, entry.writes, entry.goto))
    order = [0]
    for before, line in itertools.pairwise(lines):
        same = before[0] != "input" != line[0] and before[1] == line[1]
        order.append(order[-1] if same else order[-1] + 1)
    return sorted(zip(order, lines, strict=True), key=lambda each: (each[0], repr(each[1])))


def clock() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def outcomes(plan: Plan) -> Iterator[tuple[Any, int]]:
    """What a caller does with a plan: each input, and going on until nothing fails any more."""
    for given_ in plan["inputs"]:
        yield {"log": ["in"], "total": given_}, 1
        for _ in range(6):
            yield None, 0


@given(plan=plans())
def test_both_kinds_of_calls_come_to_the_same(plan: Plan) -> None:
    told: list[Any] = []
    with EventStore(":memory:", clock=clock) as store:
        app = built(plan, False, store)
        for given_, _ in outcomes(plan):
            try:
                told.append(app.invoke(given_, on("t")))
            except Boom as error:
                told.append(type(error))  # of several side by side any may be the first
        history = list(app.get_state_history(on("t")))
        expected = (told, history, trail(list(app.events(on("t")))))
        assert app.verify(on("t")).ok

    async def main() -> Any:
        told: list[Any] = []
        async with opened(":memory:", clock=clock, tenant="default") as store:
            app = built(plan, True, store)
            for given_, _ in outcomes(plan):
                try:
                    told.append(await app.ainvoke(given_, on("t")))
                except Boom as error:
                    told.append(type(error))  # of several side by side any may be the first
            history = [each async for each in app.aget_state_history(on("t"))]
            entries = [each async for each in app.aevents(on("t"))]
            assert (await app.averify(on("t"))).ok
            with suppress(StopAsyncIteration):
                assert await anext(app.aget_state_history(on("t"), limit=0))
        return told, history, trail(entries)

    found = run(main())
    assert found[0] == expected[0]
    assert shape(found[1]) == shape(expected[1])
    assert found[2] == expected[2]
    assert [each.config for each in found[1]] == [each.config for each in expected[1]]
    assert [each.tasks for each in found[1]] == [each.tasks for each in expected[1]]
