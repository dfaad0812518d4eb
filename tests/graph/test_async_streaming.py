"""Async streams: chunks come while nodes run, and a stream closed early leaves nothing running."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest

from graph import (
    get_stream_writer,
)
from tests.awaited import opened, others, run
from tests.graph.async_support import checkpointer, fan, logging, one
from tests.graph.kit import Trail, on


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
            past = [each async for each in app.aget_state_history(on("t"), every=True)][5]
            branch = {"configurable": {**past.config["configurable"], "thread_id": "u"}}
            await app.ainvoke({}, branch)  # type: ignore[arg-type]
            for config in (on("t"), on("u"), past.config, branch):
                for found in (app.aget_state_history(config, every=True), app.aevents(config)):  # type: ignore[arg-type]
                    async with aclosing(found) as entries:
                        async for _ in entries:
                            break
                    assert not others()
                one_only = app.aget_state_history(config, limit=1, every=True)  # type: ignore[arg-type]
                assert len([each async for each in one_only]) == 1
                assert (await app.aget_state(config)).values  # type: ignore[arg-type]

    run(main())
