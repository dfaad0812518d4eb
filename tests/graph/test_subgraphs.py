"""Subgraphs as nodes, or called by the functions that are nodes.

(Failures, interrupts, memory and time travel have files of their own beside this one.)
"""

from __future__ import annotations

import asyncio
from typing import Final, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    MemorySaver,
    StateGraph,
)
from tests import awaited
from tests.graph.kit import Trail, on
from tests.graph.nesting import Path, Walk, below, calling, check_whole, child_of, inside
from tests.graph.subgraph_support import fan_out, per_item

C: Final = on("t")


@pytest.mark.parametrize("called", [False, True])
def test_a_graph_as_a_node_and_called_in_one(store: EventStore, called: bool) -> None:
    walk = Walk()
    inner = walk.line("one", "two", name="inner")
    app = walk.line("pre", ("sub", calling(inner) if called else inner), "post", checkpointer=store)
    assert app.invoke({"path": ["x"]}, C) == {"path": ["x", "pre", "one", "two", "post"]}
    assert below(app, C) == ["sub/inner:2.0" if called else "sub:2.0"]
    entries = app.events(inside(C, below(app, C)[0]))
    assert [entry.node or entry.kind for entry in entries] == ["input", "one", "two"]


def test_only_shared_keys_are_exchanged(store: EventStore) -> None:
    class Inner(TypedDict, total=False):
        path: list[str]
        secret: str

    def one(state: Inner) -> Inner:
        assert "note" not in state
        return {"path": [*state["path"], "one"], "secret": "mine"}

    class Outer(TypedDict, total=False):
        path: list[str]
        note: str

    graph = StateGraph(Outer)
    graph.add_node("sub", StateGraph(Inner).add_node(one).add_edge(START, "one").compile())
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    assert app.invoke({"path": [], "note": "n"}, C) == {"path": ["one"], "note": "n"}
    child = app.get_state(inside(C, "sub:1.0"))
    assert child.values == {"path": ["one"], "secret": "mine"}


def test_a_function_transforms_the_state(store: EventStore) -> None:
    class Inner(TypedDict, total=False):
        text: str

    def shout(state: Inner) -> Inner:
        return {"text": state["text"].upper()}

    inner = StateGraph(Inner).add_node(shout).add_edge(START, "shout").compile(name="shouting")

    def node(state: Trail) -> Trail:
        return {"note": inner.invoke({"text": state["note"]})["text"]}

    app = StateGraph(Trail).add_node("node", node).add_edge(START, "node").compile(store)
    assert app.invoke({"note": "hi"}, C)["note"] == "HI"
    assert below(app, C) == ["node/shouting:1.0"]


@pytest.mark.parametrize("called", [False, True])
def test_three_deep(store: EventStore, called: bool) -> None:
    walk = Walk()
    inner = walk.line("deep", name="c")
    for name in "ba":
        part = calling(inner) if called else inner
        inner = walk.line(f"{name}1", (f"{name}2", part), f"{name}3", name=name)
    app = walk.line("pre", ("sub", inner), "post", checkpointer=store)
    path = ["pre", "a1", "b1", "deep", "b3", "a3", "post"]
    assert app.invoke({}, C)["path"] == path
    names = ["sub:2.0", "sub:2.0|a2:2.0", "sub:2.0|a2:2.0|b2:2.0"]
    if called:
        names = ["sub:2.0", "sub:2.0|a2/b:2.0", "sub:2.0|a2/b:2.0|b2/c:2.0"]
    assert below(app, C) == names
    check_whole(store, app, "t")


def test_several_calls_in_one_node(store: EventStore) -> None:
    """One graph twice, another one once, and in a loop: each call has a log of its own."""
    walk = Walk()
    first, second = walk.line("one", name="first"), walk.line("two", name="second")

    def node(state: Path) -> Path:
        path: list[str] = []
        for graph in (first, second, first, first):
            path = graph.invoke({"path": path})["path"]
        return {"path": path}

    app = walk.line(("node", node), checkpointer=store)
    assert app.invoke({}, C)["path"] == ["one", "two", "one", "one"]
    names = ["node/first:1.0", "node/first:1.0.1", "node/first:1.0.2", "node/second:1.0"]
    assert below(app, C) == names
    third = app.get_state(inside(C, "node/first:1.0.2"))
    assert third.values["path"] == ["one", "two", "one", "one"]


@pytest.mark.parametrize("name", ["a|b", "a:b", "a/b", "sub:1.0|x"])
def test_a_name_that_looks_like_a_way(store: EventStore, name: str) -> None:
    """Names of graphs are free; those of nodes are not."""
    walk = Walk()
    app = walk.line(("sub", calling(walk.line("one", "two?", name=name))), checkpointer=store)
    app.invoke({}, C)
    assert child_of(app, C).next == ("two?",)
    (ns,) = below(app, C)
    assert app.get_state(inside(C, ns)).values == {"path": ["one"]}
    assert app.invoke(Command(resume="!"), C) == {"path": ["one", "two?!"]}


def test_a_loop_over_a_graph(store: EventStore) -> None:
    walk = Walk()
    graph = StateGraph(Path)
    graph.add_node("sub", walk.line("one"))
    graph.add_edge(START, "sub")
    graph.add_conditional_edges("sub", lambda s: "sub" if len(s["path"]) < 4 else END)
    app = graph.compile(store)
    assert app.invoke({}, C)["path"] == ["one"] * 4
    assert below(app, C) == [f"sub:{began}.0" for began in range(1, 5)]


def test_instances_side_by_side_have_logs_of_their_own(store: EventStore) -> None:
    app = fan_out(store, per_item(Walk()), 5)
    assert app.invoke({}, C) == {"found": [0, 1, 2, 3, 4]}
    assert below(app, C) == [f"sub:1.{i}" for i in range(5)]
    for i in range(5):
        assert app.get_state(inside(C, f"sub:1.{i}")).values == {"item": i, "found": [i]}
    check_whole(store, app, "t")


def test_streaming_a_graph_inside_a_node(store: EventStore) -> None:
    walk = Walk()
    inner = walk.line("one", "two", name="inner")

    def node(state: Path) -> Path:
        path = [key for chunk in inner.stream({"path": []}) for key in chunk]
        return {"path": path}

    app = walk.line(("node", node), checkpointer=store)
    assert app.invoke({}, C)["path"] == ["one", "two"]
    assert below(app, C) == ["node/inner:1.0"]


def test_a_graph_with_a_thread_of_its_own_is_independent(store: EventStore) -> None:
    walk = Walk()
    inner = walk.line("one", "two?", checkpointer=store, name="inner")

    def node(state: Path) -> Path:
        result = inner.invoke({"path": []}, on("other"))
        return {"path": [*result["path"], result["__interrupt__"][0].value]}

    app = walk.line(("node", node), checkpointer=store)
    assert app.invoke({}, C) == {"path": ["one", "two?"]}
    assert below(app, C) == []
    assert store.thread("other").status == "waiting"
    assert inner.invoke(Command(resume="!"), on("other"))["path"] == ["one", "two?!"]


def test_plain_and_asynchronous_graphs_inside_ainvoke() -> None:
    async def one(state: Path) -> Path:
        await asyncio.sleep(0)
        return {"path": [*state["path"], "one"]}

    inner = StateGraph(Path).add_node(one).add_edge(START, "one").compile(name="inner")

    async def node(state: Path) -> Path:
        return {"path": (await inner.ainvoke({"path": state["path"]}))["path"]}

    async def main() -> None:
        walk = Walk()
        with MemorySaver() as saver:
            app = walk.line(
                ("as_node", inner),
                ("in_coroutine", node),
                ("plain", calling(walk.line("two", name="plain"))),
                checkpointer=saver,
            )
            assert (await app.ainvoke({"path": []}, C))["path"] == ["one", "one", "two"]
            report = await app.averify(C)
            assert report.ok
            names = ("as_node:1.0", "in_coroutine/inner:2.0", "plain/plain:3.0")
            assert report.namespaces == ("", *names)

    awaited.run(main())


def test_calls_gathered_in_one_coroutine() -> None:
    walk = Walk()
    inner = walk.line("one", "two", name="inner")

    async def node(_state: Path) -> Path:
        results = await asyncio.gather(*(inner.ainvoke({"path": [str(i)]}) for i in range(3)))
        return {"path": [step for result in results for step in result["path"]]}

    async def main() -> None:
        with MemorySaver() as saver:
            app = walk.line(("node", node), checkpointer=saver)
            path = (await app.ainvoke({}, C))["path"]
            assert path == ["0", "one", "two", "1", "one", "two", "2", "one", "two"]
            report = await app.averify(C)
            assert len(report.namespaces) == 4

    awaited.run(main())


def test_without_a_log(store: EventStore) -> None:
    walk = Walk()
    inner = walk.line("one", "two", checkpointer=False)
    app = walk.line(("sub", inner), "post", checkpointer=store)
    assert app.invoke({}, C)["path"] == ["one", "two", "post"]
    assert below(app, C) == []


def test_nested_without_any_checkpointer() -> None:
    walk = Walk()
    app = walk.line(("sub", walk.line("one", ("deep", walk.line("two")))), "post")
    assert app.invoke({})["path"] == ["one", "two", "post"]
