"""Programs that ask the checkpointer, and not the graph, for checkpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from graph import (
    START,
    AsyncPostgresSaver,
    AsyncSqliteSaver,
    InvalidConfigError,
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
    StateGraph,
)
from graph.checkpoints import CheckpointTuple
from tests.graph.kit import Trail, on


def steps() -> StateGraph:
    made = StateGraph(Trail)
    made.add_sequence([("a", lambda state: {"log": ["a"]}), ("b", lambda state: {"log": ["b"]})])
    return made.add_edge(START, "a")


def saver_on(url: str) -> Any:
    if url == "sqlite://":
        return MemorySaver()
    return SqliteSaver(url) if url.startswith("sqlite") else PostgresSaver(url)


def logs(found: list[CheckpointTuple]) -> list[Any]:
    return [each.checkpoint["channel_values"].get("log") for each in found]


def _log(checkpoint: Any) -> Any:
    return checkpoint["channel_values"]["log"]


def test_the_last_checkpoint_and_any_other(store_url: str) -> None:
    with saver_on(store_url) as saver:
        app = steps().compile(saver)
        assert saver.get_tuple(on("t")) is None and saver.get(on("t")) is None
        app.invoke({"log": ["x"]}, on("t"))
        app.invoke({"log": ["y"]}, on("u"))
        last = saver.get_tuple(on("t"))
        state = app.get_state(on("t"))
        assert (
            last.checkpoint["channel_values"]
            == state.values
            == saver.get(on("t"))["channel_values"]
        )
        assert (last.config, last.parent_config) == (state.config, state.parent_config)
        assert last.checkpoint["id"] == last.config["configurable"]["checkpoint_id"]
        assert last.metadata == state.metadata and last.checkpoint["ts"] == state.created_at
        found = list(saver.list(on("t")))
        assert logs(found) == [["x", "a", "b"], ["x", "a"], ["x"], []]
        assert logs([saver.get_tuple(found[1].config)]) == [["x", "a"]]
        assert [write[1:] for write in found[1].pending_writes] == [("log", ["b"])]
        assert logs(list(saver.list(on("t"), limit=2))) == [["x", "a", "b"], ["x", "a"]]
        assert logs(list(saver.list(on("t"), before=found[1].config))) == [["x"], []]
        assert logs(list(saver.list(on("t"), filter={"step": 1}))) == [["x", "a"]]
        every = list(saver.list(None))
        assert {each.config["configurable"]["thread_id"] for each in every} == {"t", "u"}
        assert len(every) == 8 and len(list(saver.list(None, limit=5))) == 5


def test_from_an_event_loop(store_url: str) -> None:
    async def main() -> None:
        kinds: Any = AsyncPostgresSaver if store_url.startswith("postgresql") else AsyncSqliteSaver
        async with MemorySaver() if store_url == "sqlite://" else kinds(store_url) as saver:
            app = steps().compile(saver)
            assert await saver.aget_tuple(on("t")) is None
            await app.ainvoke({"log": ["x"]}, on("t"))
            assert _log(await saver.aget(on("t"))) == ["x", "a", "b"]
            found = [each async for each in saver.alist(on("t"), limit=3)]
            assert logs(found) == [["x", "a", "b"], ["x", "a"], ["x"]]
            assert len([each async for each in saver.alist(None)]) == 4

    asyncio.run(main())


def test_a_saver_without_a_graph_says_what_is_missing() -> None:
    with MemorySaver() as saver, pytest.raises(InvalidConfigError, match="compile a graph with it"):
        saver.get_tuple(on("t"))


def test_a_checkpointer_may_be_set_later() -> None:
    with MemorySaver() as one, MemorySaver() as other:
        app = steps().compile()
        for saver, word in ((one, "x"), (other, "y")):
            app.checkpointer = saver
            app.invoke({"log": [word]}, on("t"))
        assert _log(other.get(on("t"))) == ["y", "a", "b"]
        app.checkpointer = one
        assert app.get_state(on("t")).values["log"] == ["x", "a", "b"]
        app.checkpointer = None
        assert app.invoke({"log": []})["log"] == ["a", "b"]
        with pytest.raises(InvalidConfigError, match="no checkpointer"):
            app.get_state(on("t"))
