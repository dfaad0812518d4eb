"""The status of a thread is true after every run that ended in a living process.

However a run ends, its thread is not `running` any more: the next run that waits begins at once,
and `invoke(None)` goes on from what was recorded.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import ConcurrencyError, EventStore
from eventstore.concurrency import run_sync
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    GraphRecursionError,
    ReducerError,
    StateGraph,
    ThreadBusyError,
    interrupt,
)
from tests.awaited import finish, opened, run
from tests.graph.kit import Boom, on

pytestmark = pytest.mark.every_backend

AT_ONCE_S: Final = 4.0
"""Far less than the lease, after which a dead run is overtaken."""


flaws: list[str] = []
"""What the reducer cannot take today."""


def merged(left: list[str], right: list[str]) -> list[str]:
    if set(right) & set(flaws):
        raise Boom("these do not merge")
    return left + right


class State(TypedDict, total=False):
    log: Annotated[list[str], merged]


Node = Callable[[Any], Any]


def two(store: Any, left: Node, right: Node | None = None, **options: Any) -> CompiledGraph:
    """One node, or two in one superstep, and one after them."""
    graph = StateGraph(State)
    for name, node in {"left": left, "right": right}.items():
        if node is not None:
            graph.add_node(name, node)
            graph.add_edge(START, name)
            graph.add_edge(name, "last")
    graph.add_node("last", lambda state: {"log": ["last"]})
    graph.add_edge("last", END)
    return graph.compile(store, **options)


def writes(name: str) -> Node:
    return lambda state: {"log": [name]}


def fails_once(error: BaseException) -> Node:
    errors = [error]

    def node(state: State) -> dict[str, Any]:
        if errors:
            raise errors.pop()
        return {"log": ["again"]}

    return node


def begins_at_once(app: CompiledGraph, given: Any = None) -> Any:
    began = time.monotonic()
    found = app.invoke(given, on("t"), on_conflict="wait")
    assert time.monotonic() - began < AT_ONCE_S
    return found


FAILURES: Final[Mapping[str, Callable[[], BaseException]]] = {
    "an exception": Boom,
    "a base exception": lambda: type("Stop", (BaseException,), {})("enough"),
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("failure", FAILURES)
def test_whatever_a_node_raises(store: EventStore, failure: str, beside: bool) -> None:
    error = FAILURES[failure]()
    app = two(store, fails_once(error), writes("right") if beside else None)
    with pytest.raises(type(error)):
        app.invoke({}, on("t"))
    assert store.thread("t").status == "failed"
    told = [task.error for task in app.get_state(on("t")).tasks if task.name == "left"]
    assert len(told) == 1
    assert type(error).__name__ in str(told[0])
    assert begins_at_once(app)["log"] == ["again", *(["right"] if beside else []), "last"]
    assert store.thread("t").status == "idle"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_process_that_is_told_to_stop(store: EventStore, stop: type[BaseException]) -> None:
    app = two(store, fails_once(stop()))
    with pytest.raises(stop):
        app.invoke({}, on("t"))
    assert store.thread("t").status == "cancelled"
    assert begins_at_once(app)["log"] == ["again", "last"]


def test_a_reducer_that_raises(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    app = two(store, writes("left"), writes("unmergeable"))
    monkeypatch.setattr(f"{__name__}.flaws", ["unmergeable"])
    given: dict[str, Any] | None
    for given in ({}, None):
        with pytest.raises((Boom, ReducerError)) as caught:
            app.invoke(given, on("t"))
        if isinstance(caught.value, ReducerError):  # the first run left the write to be merged
            assert given is None and isinstance(caught.value.__cause__, Boom)
        assert store.thread("t").status == "failed"
        state = app.get_state(on("t"))
        assert any("merge" in str(task.error) for task in state.tasks)
        assert len(state.next) == 1  # the other one's work is kept
    monkeypatch.undo()
    assert begins_at_once(app)["log"] == ["left", "unmergeable", "last"]


def test_too_many_supersteps(store: EventStore) -> None:
    app = two(store, writes("left"))
    with pytest.raises(GraphRecursionError):
        app.invoke({}, on("t", recursion_limit=1))
    assert store.thread("t").status == "failed"
    assert begins_at_once(app)["log"] == ["left", "last"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_stream_that_is_closed_early(store: EventStore, durability: Any) -> None:
    app = two(store, writes("left"))
    stream: Any = app.stream({}, on("t"), stream_mode="updates", durability=durability)
    assert next(stream) == {"left": {"log": ["left"]}}
    stream.close()
    assert store.thread("t").status == "cancelled"
    assert app.get_state(on("t")).next == ("last",)
    assert begins_at_once(app)["log"] == ["left", "last"]


def test_a_failure_while_others_still_work(store: EventStore) -> None:
    """Until they have finished the run goes on, and nobody overtakes it."""
    failed, go_on = threading.Event(), threading.Event()

    def left(state: State) -> dict[str, Any]:
        failed.set()
        raise Boom

    def right(state: State) -> dict[str, Any]:
        assert go_on.wait(30)
        return {"log": ["right"]}

    app = two(store, left, right)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            app.invoke({}, on("t"))
        except Boom as error:
            errors.append(error)

    runs = threading.Thread(target=call)
    runs.start()
    assert failed.wait(30)
    time.sleep(0.2)
    try:
        assert store.thread("t").status == "running"
        before = store.head("t")
        with pytest.raises(ThreadBusyError, match="'t'") as busy:
            app.invoke(None, on("t"), on_conflict="wait", conflict_timeout_s=0.3)
        assert isinstance(busy.value, ConcurrencyError)
        assert store.head("t") == before
    finally:
        go_on.set()
        runs.join()
    assert len(errors) == 1
    assert store.thread("t").status == "failed"


def test_a_run_that_goes_on_owns_its_thread(store: EventStore) -> None:
    """Going on records nothing before the first task is done; the thread is taken all the same."""
    begun, go_on = threading.Event(), threading.Event()
    failing = fails_once(Boom("first"))

    def left(state: State) -> Any:
        found = failing(state)
        begun.set()
        assert go_on.wait(30)
        return found

    app = two(store, left)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    found: list[Any] = []
    runs = threading.Thread(target=lambda: found.append(app.invoke(None, on("t"))))
    runs.start()
    assert begun.wait(30)
    try:
        assert store.thread("t").status == "running"
        with pytest.raises(ThreadBusyError):
            app.invoke({}, on("t"), on_conflict="wait", conflict_timeout_s=0.3)
    finally:
        go_on.set()
        runs.join()
    assert found[0]["log"] == ["again", "last"]
    assert store.thread("t").status == "idle"


def test_two_answers_where_one_is_given(store: EventStore) -> None:
    """While one of two tasks goes on, the thread does not say that it waits for people."""
    begun, go_on = threading.Event(), threading.Event()

    def left(state: State) -> Any:
        answer = interrupt("left?")
        begun.set()
        assert go_on.wait(30)
        return {"log": [answer]}

    app = two(store, left, lambda state: {"log": [interrupt("right?")]})
    asked = app.invoke({}, on("t"))["__interrupt__"]
    assert store.thread("t").status == "waiting"
    answer = {each.id: "yes" for each in asked if each.value == "left?"}
    runs = threading.Thread(target=lambda: app.invoke(Command(resume=answer), on("t")))
    runs.start()
    assert begun.wait(30)
    try:
        assert store.thread("t").status == "running"
    finally:
        go_on.set()
        runs.join()
    assert store.thread("t").status == "waiting"


def test_the_loser_of_a_race_gives_the_thread_back(store: EventStore) -> None:
    """Two runs go on at once: the thread belongs to the one that is alive."""
    first_runs, second_ran, finish = threading.Event(), threading.Event(), threading.Event()
    calls = iter(["first", "second", "third"])

    def left(state: State) -> Any:
        name = next(calls)
        if name == "first":
            raise Boom
        if name == "second":
            first_runs.set()
            assert second_ran.wait(30)
        return {"log": [name]}

    def last(state: State) -> Any:
        second_ran.set()
        assert finish.wait(30)
        return {"log": ["last"]}

    graph = StateGraph(State)
    graph.add_node("left", left)
    graph.add_node("last", last)
    graph.add_edge(START, "left")
    graph.add_edge("left", "last")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    found: list[Any] = []

    def call() -> None:
        try:
            found.append(app.invoke(None, on("t")))
        except ConcurrencyError as error:
            found.append(error)

    runs = [threading.Thread(target=call), threading.Thread(target=call)]
    runs[0].start()
    assert first_runs.wait(30)
    runs[1].start()
    assert second_ran.wait(30)
    runs[0].join()  # it was second at recording
    assert isinstance(found[0], ConcurrencyError)
    try:
        assert store.thread("t").status == "running"
        with pytest.raises(ThreadBusyError):
            app.invoke({}, on("t"), on_conflict="wait", conflict_timeout_s=0.2)
    finally:
        finish.set()
        runs[1].join()
    assert found[1]["log"] == ["third", "last"]
    assert store.thread("t").status == "idle"
    assert app.verify(on("t")).ok


def test_a_thread_that_moved_on_cannot_be_claimed(store: EventStore) -> None:
    """Not even if its row is again as it was: another run came and went in between."""
    app = two(store, writes("left"))
    app.invoke({}, on("t"))
    head = store.head("t")
    app.invoke({}, on("t"))
    lease = store.core.leases.begin()
    claim = store.core.leases.claim
    assert not finish(store, claim(lease, head), run_sync)
    assert finish(store, claim(lease, store.head("t")), run_sync)
    finish(store, store.core.leases.end(lease, "idle"), run_sync)
    assert store.thread("t").status == "idle"


# --- in an event loop -------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
def test_a_run_that_is_cancelled(store_url: str, beside: bool, durability: Any) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            running, hold = asyncio.Event(), [True]

            async def left(state: State) -> dict[str, Any]:
                running.set()
                if hold:
                    await asyncio.sleep(60)
                return {"log": ["left"]}

            app = two(store, left, writes("right") if beside else None)
            task = asyncio.ensure_future(app.ainvoke({}, on("t"), durability=durability))
            await running.wait()
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            hold.clear()
            assert (await store.thread("t")).status == "cancelled"
            assert not [task.error for task in (await app.aget_state(on("t"))).tasks if task.error]
            async with asyncio.timeout(AT_ONCE_S):
                found = await app.ainvoke(None, on("t"), on_conflict="wait")
            assert sorted(found["log"]) == sorted(["left", *(["right"] if beside else []), "last"])

    run(main())


def test_a_node_that_raises_cancelled_error_itself(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:

            async def left(state: State) -> dict[str, Any]:
                raise asyncio.CancelledError("its own")

            app = two(store, left)
            with pytest.raises(asyncio.CancelledError):
                await app.ainvoke({}, on("t"))
            assert (await store.thread("t")).status == "failed"
            (task,) = (await app.aget_state(on("t"))).tasks
            assert "CancelledError" in str(task.error)

    run(main())


def test_an_async_stream_that_is_closed_early(store_url: str) -> None:
    async def main() -> None:
        async with opened(store_url) as store:
            app = two(store, writes("left"))
            async with aclosing(app.astream({}, on("t"), stream_mode="updates")) as chunks:
                await anext(chunks)
            assert (await store.thread("t")).status == "cancelled"
            async with asyncio.timeout(AT_ONCE_S):
                found = await app.ainvoke(None, on("t"), on_conflict="wait")
            assert found["log"] == ["left", "last"]

    run(main())


def test_a_loop_that_is_closed_over_a_run(store_url: str) -> None:
    """Nobody can await the end of such a run; its thread is released all the same."""
    if store_url == "sqlite://":
        pytest.skip("the database ends with the store")
    loop = asyncio.new_event_loop()
    running = asyncio.Event()

    async def left(state: State) -> dict[str, Any]:
        running.set()
        await asyncio.sleep(60)
        return {}

    manager = opened(store_url)

    async def begin() -> Any:
        store = await manager.__aenter__()
        task = loop.create_task(two(store, left).ainvoke({}, on("t")))
        await running.wait()
        return store, task

    store, task = loop.run_until_complete(begin())
    task._log_destroy_pending = False
    loop.close()
    del task
    gc.collect()
    with EventStore(store_url, tenant=store.tenant) as other:
        until = time.monotonic() + AT_ONCE_S
        while other.thread("t").status == "running":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert other.thread("t").status == "cancelled"
    asyncio.run(store.close())
