"""Graphs inside graphs: as nodes, or called by the functions that are nodes.

What they did survives failures and crashes, what they ask surfaces in the graph above, and what
one remembers is there at its next call. (Going back in time is in test_subgraph_travel.)
"""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidGraphError,
    InvalidUpdateError,
    MemorySaver,
    RetryPolicy,
    Send,
    StateGraph,
    interrupt,
)
from tests import awaited
from tests.graph.kit import Boom, Trail, on
from tests.graph.nesting import Path, Walk, below, calling, check_whole, child_of, inside

ROOT: Final = FilePath(__file__).resolve().parents[2]

C: Final = on("t")


# --- calling ----------------------------------------------------------------------------


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


class Gathered(TypedDict, total=False):
    found: Annotated[list[Any], operator.add]


class One(TypedDict, total=False):
    item: int
    found: list[Any]


def fan_out(store: Any, child: CompiledGraph | None, count: int, **options: Any) -> CompiledGraph:
    """A graph that sends one task to ``child`` for each item."""
    graph = StateGraph(Gathered)
    graph.add_node("sub", child if child is not None else lambda s: {})
    graph.add_conditional_edges(
        START, lambda _: [Send("sub", {"item": i}) for i in range(count)], ["sub"]
    )
    return graph.compile(store, **options)


def per_item(walk: Walk, asks: bool = False) -> CompiledGraph:
    """Prepares an item, and finds something in it, perhaps after asking."""

    def prepare(state: One) -> One:
        walk.calls.add(f"prepare{state['item']}")
        return {}

    def find(state: One) -> One:
        item = state["item"]
        walk.calls.add(f"find{item}")
        if f"find{item}" in walk.failing:
            raise Boom(f"find{item}")
        return {"found": [f"{item}{interrupt(f'{item}?')}" if asks else item]}

    graph = StateGraph(One)
    graph.add_sequence([prepare, find])
    graph.add_edge(START, "prepare")
    return graph.compile()


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


# --- failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_only_what_is_missing_runs_again(store: EventStore, called: bool) -> None:
    walk = Walk("two")
    inner = walk.line("one", "two", "three", name="inner")

    def app() -> CompiledGraph:
        part = calling(inner) if called else inner
        return walk.line("pre", ("sub", part), "post", checkpointer=store)

    with pytest.raises(Boom):
        app().invoke({}, C)
    assert walk.taken() == {"pre": 1, "one": 1, "two": 1}
    assert store.thread("t").status == "failed"
    child = child_of(app(), C)
    assert (child.values["path"], child.next) == (["pre", "one"], ("two",))
    assert "Boom" in child.tasks[0].error
    walk.failing.clear()
    assert app().invoke(None, C)["path"] == ["pre", "one", "two", "three", "post"]
    assert walk.taken() == {"two": 1, "three": 1, "post": 1}
    check_whole(store, app(), "t")


def test_siblings_in_the_child_are_kept(store: EventStore) -> None:
    walk = Walk("find2")
    app = fan_out(store, per_item(walk), 4)
    with pytest.raises(Boom):
        app.invoke({}, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C) == {"found": [0, 1, 2, 3]}
    assert walk.taken() == {"find2": 1}


@pytest.mark.parametrize("lasts", [None, True])
def test_a_child_that_had_finished_is_not_run_again(store: EventStore, lasts: bool | None) -> None:
    walk = Walk("after")
    inner = walk.line("one", "two", name="inner", checkpointer=lasts)

    def node(state: Path) -> Path:
        path = inner.invoke({"path": ["in"]})["path"]
        return walk.node("after")({"path": path})

    app = walk.line(("node", node), checkpointer=store)
    given: Any
    for given in ({}, None):
        with pytest.raises(Boom):
            app.invoke(given, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C)["path"] == ["in", "one", "two", "after"]
    assert walk.taken() == {"after": 1}


def test_a_retry_goes_on_inside_the_child(store: EventStore) -> None:
    walk = Walk()
    tries: list[int] = []

    def flaky(state: Path) -> Path:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("flaky")
        return walk.node("flaky")(state)

    inner = walk.line("one", ("flaky", flaky), "three")
    graph = StateGraph(Path)
    policy = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3)
    graph.add_node("sub", inner, retry_policy=policy)
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    assert app.invoke({}, C)["path"] == ["one", "flaky", "three"]
    assert walk.taken() == {"one": 1, "flaky": 1, "three": 1}
    assert below(app, C) == ["sub:1.0"]
    check_whole(store, app, "t")


PROGRAM: Final = """
import os, signal, sys
from graph import SqliteSaver
from tests.graph.kit import on
from tests.graph.nesting import Walk

file, deadly = sys.argv[1:]
walk = Walk()


def two(state):
    walk.calls.add("two")
    if deadly == "yes":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"path": [*state["path"], "two"]}


inner = walk.line("one", ("two", two), "three")
with SqliteSaver(file) as saver:
    app = walk.line("pre", ("sub", inner), "post", checkpointer=saver)
    given = {} if deadly == "yes" else None
    print(app.invoke(given, on("t"))["path"], walk.taken())
    assert app.verify(on("t")).ok
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_inside_a_child_and_gone_on_in_another_process(tmp_path: FilePath) -> None:
    def run(deadly: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "runs.db"), deadly]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert run("yes").returncode == -9
    second = run("no")
    assert second.returncode == 0, second.stderr
    ran = {"two": 1, "three": 1, "post": 1}
    assert second.stdout.strip() == f"{['pre', 'one', 'two', 'three', 'post']} {ran}"


# --- questions --------------------------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_a_question_inside(store: EventStore, called: bool) -> None:
    walk = Walk()
    inner = walk.line("one", "two?", "three", name="inner")

    def app() -> CompiledGraph:
        part = calling(inner) if called else inner
        return walk.line("pre", ("sub", part), "post", checkpointer=store)

    result = app().invoke({}, C)
    (asked,) = result["__interrupt__"]
    assert asked.value == "two?"
    state = app().get_state(C, subgraphs=True)
    assert state.next == ("sub",)
    assert state.interrupts == (asked,) == state.tasks[0].interrupts
    child = state.tasks[0].state
    assert (child.next, child.interrupts) == (("two?",), (asked,))
    assert child.values == {"path": ["pre", "one"]}
    assert app().get_state(C).tasks[0].state["configurable"] == {
        "thread_id": "t",
        "checkpoint_ns": child.config["configurable"]["checkpoint_ns"],
    }
    assert store.thread("t").status == "waiting"
    walk.taken()
    answered = app().invoke(Command(resume="yes"), C)
    assert answered == {"path": ["pre", "one", "two?yes", "three", "post"]}
    assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    assert store.thread("t").status == "idle"


def test_a_question_is_asked_by_the_same_id_until_it_is_answered(store: EventStore) -> None:
    walk = Walk()
    app = walk.line(("sub", walk.line("one", "two?")), checkpointer=store)
    first = app.invoke({}, C)
    assert app.invoke(None, C) == first
    assert app.invoke(None, C) == first
    (asked,) = first["__interrupt__"]
    assert app.invoke(Command(resume={asked.id: "A"}), C)["path"] == ["one", "two?A"]


def test_one_question_after_the_other(store: EventStore) -> None:
    """Several in one node, in several nodes, and in two calls of the graph."""
    walk = Walk()

    def node(state: Path) -> Path:
        said = [interrupt("a"), interrupt("b")]
        return {"path": [*state["path"], *said]}

    inner = walk.line(("node", node), "then?", name="inner")

    def twice(_state: Path) -> Path:
        first = inner.invoke({"path": []})["path"]
        return {"path": inner.invoke({"path": first})["path"]}

    app = walk.line(("sub", twice), checkpointer=store)
    result = app.invoke({"path": []}, C)
    for answer in range(6):
        assert result["__interrupt__"][0].value == ("a", "b", "then?")[answer % 3]
        result = app.invoke(Command(resume=str(answer)), C)
    assert result == {"path": ["0", "1", "then?2", "3", "4", "then?5"]}


def test_two_children_answered_together(store: EventStore) -> None:
    walk = Walk()
    app = fan_out(store, per_item(walk, asks=True), 2)
    asked = {each.value: each.id for each in app.invoke({}, C)["__interrupt__"]}
    assert set(asked) == {"0?", "1?"}
    assert len(set(asked.values())) == 2
    with pytest.raises(InvalidUpdateError, match="2 questions wait"):
        app.invoke(Command(resume="x"), C)
    walk.taken()
    answers = {asked["0?"]: "A", asked["1?"]: "B"}
    assert app.invoke(Command(resume=answers), C) == {"found": ["0A", "1B"]}
    assert walk.taken() == {"find0": 1, "find1": 1}


def test_two_children_answered_one_by_one(store: EventStore) -> None:
    walk = Walk()
    app = fan_out(store, per_item(walk, asks=True), 2)
    asked = {each.value: each.id for each in app.invoke({}, C)["__interrupt__"]}
    walk.taken()
    result = app.invoke(Command(resume={asked["1?"]: "B"}), C)
    assert [each.id for each in result["__interrupt__"]] == [asked["0?"]]
    assert walk.taken() == {"find1": 1}, "the other waits on"
    assert child_of(app, C).next == ("find",)
    assert app.invoke(Command(resume="A"), C) == {"found": ["0A", "1B"]}
    assert walk.taken() == {"find0": 1}


@pytest.mark.parametrize("called", [False, True])
def test_a_question_three_levels_deep(store: EventStore, called: bool) -> None:
    walk = Walk()
    inner = walk.line("c1", "c2?", "c3", name="c")
    for name in "ba":
        part = calling(inner) if called else inner
        inner = walk.line(f"{name}1", (f"{name}2", part), f"{name}3", name=name)
    app = walk.line("pre", ("sub", inner), "post", checkpointer=store)
    (asked,) = app.invoke({}, C)["__interrupt__"]
    state, depth = app.get_state(C, subgraphs=True), 0
    while state is not None and state.tasks[0].state is not None:
        assert state.interrupts == (asked,)
        state, depth = state.tasks[0].state, depth + 1
    assert (depth, state.next, state.interrupts) == (3, ("c2?",), (asked,))
    walk.taken()
    path = ["pre", "a1", "b1", "c1", "c2?!", "c3", "b3", "a3", "post"]
    assert app.invoke(Command(resume="!"), C) == {"path": path}
    assert walk.taken() == {"c2?": 1, "c3": 1, "b3": 1, "a3": 1, "post": 1}
    check_whole(store, app, "t")


@pytest.mark.parametrize("options", [{"interrupt_before": ["two"]}, {"interrupt_after": ["one"]}])
def test_a_stop_compiled_into_a_child(store: EventStore, options: dict[str, Any]) -> None:
    walk = Walk()
    inner = walk.line("one", "two", "three", **options)
    app = walk.line("pre", ("sub", inner), "post", checkpointer=store)
    assert app.invoke({}, C) == {"path": ["pre"]}
    state = app.get_state(C)
    assert (state.next, state.interrupts) == (("sub",), ())
    assert store.thread("t").status == "waiting"
    assert child_of(app, C).next == ("two",)
    walk.taken()
    assert app.invoke(None, C)["path"] == ["pre", "one", "two", "three", "post"]
    assert walk.taken() == {"two": 1, "three": 1, "post": 1}


def test_every_stop_in_a_child_is_passed_once(store: EventStore) -> None:
    walk = Walk()
    app = walk.line(("sub", walk.line("one", "two", interrupt_before="*")), checkpointer=store)
    assert app.invoke({}, C) == {}
    assert (child_of(app, C).next, walk.taken()) == (("one",), {})
    assert app.invoke(None, C) == {}
    assert (child_of(app, C).next, walk.taken()) == (("two",), {"one": 1})
    assert app.invoke(None, C) == {"path": ["one", "two"]}


def test_a_stop_before_a_node_that_asks(store: EventStore) -> None:
    walk = Walk()
    app = walk.line(
        ("sub", walk.line("one", "two?", interrupt_before=["two?"])), checkpointer=store
    )
    assert "__interrupt__" not in app.invoke({}, C)
    assert app.invoke(None, C)["__interrupt__"][0].value == "two?"
    assert app.invoke(Command(resume="!"), C) == {"path": ["one", "two?!"]}


def test_a_question_in_a_child_without_a_log(store: EventStore) -> None:
    """It begins again; the graph above keeps what was answered."""
    walk = Walk()
    inner = walk.line("one", "two?", "three?", checkpointer=False)
    app = walk.line("pre", ("sub", inner), checkpointer=store)
    assert app.invoke({}, C)["__interrupt__"][0].value == "two?"
    assert app.invoke(Command(resume="A"), C)["__interrupt__"][0].value == "three?"
    walk.taken()
    assert app.invoke(Command(resume="B"), C)["path"] == ["pre", "one", "two?A", "three?B"]
    assert walk.taken() == {"one": 1, "two?": 1, "three?": 1}
    assert below(app, C) == []


def test_editing_a_child_that_waits(store: EventStore) -> None:
    walk = Walk()
    app = walk.line("pre", ("sub", walk.line("one", "two?", "three")), "post", checkpointer=store)
    app.invoke({}, C)
    child = child_of(app, C)
    app.update_state(child.config, {"path": ["by hand"]}, as_node="two?")
    assert child_of(app, C).next == ("three",)
    walk.taken()
    assert app.invoke(None, C)["path"] == ["by hand", "three", "post"]
    assert walk.taken() == {"three": 1, "post": 1}
    check_whole(store, app, "t")


def test_editing_the_parent_ends_the_child(store: EventStore) -> None:
    walk = Walk()
    app = walk.line("pre", ("sub", walk.line("one", "two?")), "post", checkpointer=store)
    app.invoke({}, C)
    app.update_state(C, {"path": ["by hand"]}, as_node="sub")
    assert app.invoke(None, C) == {"path": ["by hand", "post"]}


def test_a_new_input_leaves_what_waits_behind(store: EventStore) -> None:
    walk = Walk()
    app = walk.line(("sub", walk.line("one", "two?")), checkpointer=store)
    app.invoke({}, C)
    assert app.invoke({"path": ["new"]}, C)["__interrupt__"][0].value == "two?"
    assert app.invoke(Command(resume="!"), C) == {"path": ["new", "one", "two?!"]}


# --- remembering ------------------------------------------------------------------------


class Memory(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


def memory(walk: Walk, *names: str) -> CompiledGraph:
    """A graph that remembers all that it was ever given."""

    def node(name: str) -> Any:
        return lambda state: {"seen": [name]} if walk.node(name)({"path": []}) else {}

    graph = StateGraph(Memory)
    graph.add_sequence([(name, node(name)) for name in names])
    graph.add_edge(START, names[0])
    return graph.compile(checkpointer=True, name="memory")


def remembering(walk: Walk, store: Any, *names: str, after: str = "post") -> CompiledGraph:
    """``sub`` tells its memory the path and gets all that it remembers; then ``after``."""
    inner = memory(walk, *names)

    def sub(state: Path) -> Path:
        return {"path": inner.invoke({"seen": state["path"]})["seen"]}

    return walk.line(("sub", sub), after, checkpointer=store)


def test_a_memory_lasts_from_run_to_run(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    assert app.invoke({"path": ["x"]}, C)["path"] == ["x", "m", "post"]
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "y", "m", "post"]
    assert app.invoke({"path": ["z"]}, on("other"))["path"] == ["z", "m", "post"]
    assert below(app, C) == ["sub/memory"]
    check_whole(store, app, "t")


def test_a_memory_as_a_node(store: EventStore) -> None:
    graph = StateGraph(Memory)
    inner = memory(Walk(), "m")
    graph.add_node("sub", inner)
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    assert app.invoke({"seen": ["x"]}, C)["seen"] == ["x", "x", "m"]
    assert below(app, C) == ["sub"]
    assert app.invoke({"seen": ["y"]}, C)["seen"][3:] == ["y", "x", "m", "x", "x", "m", "y", "m"]


def test_a_memory_lasts_from_call_to_call(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def sub(state: Path) -> Path:
        inner.invoke({"seen": ["a"]})
        return {"path": inner.invoke({"seen": ["b"]})["seen"]}

    app = Walk().line(("sub", sub), checkpointer=store)
    assert app.invoke({}, C)["path"] == ["a", "m", "b", "m"]


def test_a_memory_lasts_from_superstep_to_superstep(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def sub(state: Path) -> Path:
        return {"path": inner.invoke({"seen": [str(len(state["path"]))]})["seen"]}

    graph = StateGraph(Path)
    graph.add_node("sub", sub)
    graph.add_edge(START, "sub")
    graph.add_conditional_edges("sub", lambda s: "sub" if len(s["path"]) < 6 else END)
    app = graph.compile(store)
    assert app.invoke({"path": []}, C)["path"] == ["0", "m", "2", "m", "4", "m"]
    assert below(app, C) == ["sub/memory"]


def test_a_memory_that_asks(store: EventStore) -> None:
    app = remembering(Walk(), store, "m?", "n")
    for turn in range(1, 3):
        assert app.invoke({"path": ["x"]}, C)["__interrupt__"][0].value == "m?"
        found = app.invoke(Command(resume="!"), C)["path"]
        assert found == [*["x", "m?", "n"] * turn, "post"]


@pytest.mark.parametrize("failing", ["m", "n", "post"])
def test_a_failure_does_not_tell_a_memory_twice(store: EventStore, failing: str) -> None:
    walk = Walk(failing)
    app = remembering(walk, store, "m", "n")
    with pytest.raises(Boom):
        app.invoke({"path": ["x"]}, C)
    walk.failing.clear()
    assert app.invoke(None, C)["path"] == ["x", "m", "n", "post"]
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "n", "y", "m", "n", "post"]


def test_a_new_input_after_a_failure_goes_on_with_the_memory(store: EventStore) -> None:
    walk = Walk("n")
    app = remembering(walk, store, "m", "n")
    with pytest.raises(Boom):
        app.invoke({"path": ["x"]}, C)
    walk.failing.clear()
    assert app.invoke({"path": ["y"]}, C)["path"] == ["x", "m", "y", "m", "n", "post"]


def test_two_tasks_at_once_may_not_share_a_memory(store: EventStore) -> None:
    graph = StateGraph(Gathered)
    graph.add_node("sub", lambda s: memory_of_two.invoke({"seen": ["x"]}) and {})
    memory_of_two = memory(Walk(), "m")
    graph.add_conditional_edges(START, lambda _: [Send("sub", {})] * 2, ["sub"])
    app = graph.compile(store)
    with pytest.raises(InvalidGraphError, match=r"sub/memory.*one task of a superstep"):
        app.invoke({}, C)


def test_two_nodes_have_a_memory_each(store: EventStore) -> None:
    inner = memory(Walk(), "m")

    def node(state: Path) -> Path:
        return {"path": [*state["path"], str(len(inner.invoke({"seen": ["x"]})["seen"]))]}

    app = Walk().line(("a", node), ("b", node), checkpointer=store)
    assert app.invoke({"path": []}, C)["path"] == ["2", "2"]
    assert below(app, C) == ["a/memory", "b/memory"]


def test_two_memories_of_one_name_are_told_apart_or_refused(store: EventStore) -> None:
    first, second = memory(Walk(), "m"), memory(Walk(), "other")

    def node(_state: Path) -> Path:
        first.invoke({"seen": ["x"]})
        return {"path": second.invoke({"seen": ["y"]})["seen"]}

    app = Walk().line(("sub", node), checkpointer=store)
    with pytest.raises(InvalidGraphError, match="two graphs of one name"):
        app.invoke({}, C)


def test_a_memory_is_no_root() -> None:
    with pytest.raises(InvalidConfigError, match="checkpointer=True is for a graph inside"):
        memory(Walk(), "m").invoke({"seen": []}, C)
