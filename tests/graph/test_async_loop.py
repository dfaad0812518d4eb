"""Async runs do not block the loop, run on any store, and can be batched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from sqlalchemy import make_url

from eventstore import AsyncEventStore, EventStore
from graph import (
    END,
    START,
    AsyncSqliteSaver,
    CompiledGraph,
    InvalidConfigError,
    MemorySaver,
    SqliteSaver,
    StateGraph,
)
from tests.awaited import Heartbeat, opened, others, run
from tests.graph.async_support import checkpointer, fan, logging, one
from tests.graph.kit import Boom, Trail, on

LAG_MAX_S: Final = 0.5
SLEEP_S: Final = 0.8
"""What a blocking node sleeps: more than the event loop may stand still."""


# --- not blocking the loop --------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
                lambda: list(app.get_state_history(on("t"), every=True)),
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
        assert len(list(plain.get_state_history(on("u"), limit=1, every=True))) == 1

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
