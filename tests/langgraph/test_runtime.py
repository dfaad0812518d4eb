"""LangGraph's runtime on our saver does what it does on its own saver in memory.

Every story runs on both, in each durability. Ids of checkpoints and tasks differ between runs, so
states and histories are compared without them.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from tests.langgraph.graphs import STORIES, chat, deltas, nested, question
from tests.langgraph.kit import CONFIG, App, Driver

pytestmark = pytest.mark.every_backend


class Inner(TypedDict):
    answer: str


class _Memory:
    """LangGraph's own saver, with the calls of a driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.saver = InMemorySaver()

    def app(self, graph: Any, **options: Any) -> App:
        return App(self._driver, lambda: graph.compile(checkpointer=self.saver, **options))


def seen(state: Any) -> Any:
    """What two runs of the same calls must agree on about a state."""
    metadata = state.metadata or {}
    return {
        "values": state.values,
        "next": state.next,
        "source": metadata.get("source"),
        "step": metadata.get("step"),
        "has parent": state.parent_config is not None,
        "tasks": [
            (task.name, task.path, task.error, [each.value for each in task.interrupts])
            for task in state.tasks
        ],
        "inner": [
            seen(task.state) for task in state.tasks if isinstance(task.state, StateSnapshot)
        ],
    }


@pytest.mark.pairwise
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("name", list(STORIES))
def test_a_story_runs_as_on_the_saver_in_memory(driver: Driver, name: str, durability: str) -> None:
    if (name, durability) == ("in place", "async"):
        pytest.skip("the node changes what LangGraph serializes meanwhile, on any saver")
    story = STORIES[name]
    ours, theirs = driver.app(story.graph()), _Memory(driver).app(story.graph())
    for given in story.inputs:
        one = ours.invoke(deepcopy(given), CONFIG, durability=durability)
        other = theirs.invoke(deepcopy(given), CONFIG, durability=durability)
        assert plain(one) == plain(other)
        driver.reopen()
        assert seen(ours.state(subgraphs=True)) == seen(theirs.state(subgraphs=True))
        assert [seen(each) for each in ours.history()] == [seen(each) for each in theirs.history()]


def plain(result: Any) -> Any:
    if not isinstance(result, dict):
        return result
    asked = [each.value for each in result.get("__interrupt__", ())]
    return {**result, "__interrupt__": asked}


def test_going_back_and_on_from_an_older_checkpoint(driver: Driver) -> None:
    ours, theirs = driver.app(chat()), _Memory(driver).app(chat())
    for app in (ours, theirs):
        for number in range(5):
            app.invoke(question(number), CONFIG)
        past = app.history()[6]
        app.invoke(None, past.config)
        app.invoke(question(77), past.config)
        app.invoke(question(78), CONFIG)
    assert seen(ours.state()) == seen(theirs.state())
    assert [seen(each) for each in ours.history()] == [seen(each) for each in theirs.history()]
    driver.reopen()
    assert [seen(each) for each in ours.history()] == [seen(each) for each in theirs.history()]


@pytest.mark.parametrize("graph", [chat, deltas])
def test_editing_the_state_now_and_in_the_past(driver: Driver, graph: Any) -> None:
    ours, theirs = driver.app(graph()), _Memory(driver).app(graph())
    key, node = ("messages", "answer") if graph is chat else ("log", "one")
    for app in (ours, theirs):
        given = question if graph is chat else lambda number: {"log": [str(number)]}
        for number in range(4):
            app.invoke(given(number), CONFIG)
        app.update(CONFIG, given(50), as_node=node)
        past = app.history()[3]
        forked = app.update(past.config, given(51), as_node=node)
        app.invoke(given(52), forked)
        app.invoke(given(53), CONFIG)
    assert ours.state().values[key] == theirs.state().values[key]
    assert [seen(each) for each in ours.history()] == [seen(each) for each in theirs.history()]


def test_an_inner_graph_is_read_and_edited(driver: Driver) -> None:
    ours, theirs = driver.app(nested()), _Memory(driver).app(nested())
    for app in (ours, theirs):
        app.invoke({"items": ["x"]}, CONFIG)
        inner = app.state(subgraphs=True).tasks[0].state
        app.update(inner.config, {"items": ["edited"]})
        app.invoke(Command(resume="yes"), CONFIG)
    assert seen(ours.state(subgraphs=True)) == seen(theirs.state(subgraphs=True))
    assert ours.state().values["items"] == ["x", "x", "before", "edited", "yes"]


@pytest.mark.slow
def test_a_copied_thread_goes_its_own_way(driver: Driver) -> None:
    app = driver.app(chat())
    for number in range(40):  # past a snapshot
        app.invoke(question(number), CONFIG)
    history = [seen(each) for each in app.history()]
    copy: Any = {"configurable": {"thread_id": "copy"}}
    driver.call("copy_thread", "t", "copy")
    assert [seen(each) for each in app.history(copy)] == history
    app.invoke(question(100), copy)
    app.invoke(question(200), CONFIG)
    assert len(app.state(copy).values["messages"]) == len(app.state().values["messages"])
    assert [each.content for each in app.state(copy).values["messages"]][-2] == "question 100"
    driver.call("delete_thread", "t")
    driver.reopen()
    assert [seen(each) for each in app.history(copy)][3:] == history
    app.invoke(question(101), copy)


def test_a_sync_saver_serves_async_graphs(driver: Driver) -> None:
    if driver.is_async:
        pytest.skip("is about the sync saver")

    async def main() -> Any:
        app = chat().compile(checkpointer=driver.saver)
        await app.ainvoke(question(1), CONFIG)
        found = [each async for each in app.aget_state_history(CONFIG)]
        return len(found), (await app.aget_state(CONFIG)).values["messages"][-1].content

    assert asyncio.run(main()) == (3, "answer 1")


def test_a_sync_node_of_an_async_run_may_use_the_saver(driver: Driver) -> None:
    if not driver.is_async:
        pytest.skip("is about the saver in an event loop")
    inner = StateGraph(Inner)
    inner.add_node("ask", lambda state: {"answer": interrupt("name?")})
    inner.add_edge(START, "ask")
    subgraph = inner.compile(checkpointer=True)
    seen = []

    def outer(state: Inner) -> dict[str, Any]:
        seen.append(len(list(driver.saver.list(CONFIG))))
        return {"answer": subgraph.invoke({"answer": ""})["answer"]}

    graph = StateGraph(Inner)
    graph.add_node("outer", outer)
    graph.add_edge(START, "outer")
    app = driver.app(graph)
    assert app.invoke({"answer": ""}, CONFIG)["__interrupt__"][0].value == "name?"
    assert app.invoke(Command(resume="ann"), CONFIG)["answer"] == "ann"
    assert seen[-1] >= 1

    async def blocks_the_loop() -> None:
        driver.saver.get_tuple(CONFIG)

    if driver.url.startswith("postgresql"):
        with pytest.raises(RuntimeError, match="event loop"):
            driver.run(blocks_the_loop())
