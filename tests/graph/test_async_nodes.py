"""Async runs: nodes of both kinds, errors of nodes, and the caller's context variables."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from typing import Any, Final

import pytest

from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidGraphError,
    MemorySaver,
    RetryPolicy,
    Send,
    StateGraph,
)
from tests.awaited import opened, run
from tests.graph.async_support import checkpointer, fan, logging, one
from tests.graph.kit import Boom, Calls, Trail, on

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
            "a": logging("a", 0.6),
            "b": slow("b", 0.1),
            "c": logging("c", 0.05),
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


@pytest.mark.slow
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
