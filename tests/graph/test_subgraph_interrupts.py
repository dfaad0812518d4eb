"""Interrupts inside a subgraph surface in the graph above, and are answered there."""

from __future__ import annotations

from typing import Any, Final

import pytest

from eventstore import EventStore
from graph import (
    Command,
    CompiledGraph,
    InvalidUpdateError,
    interrupt,
)
from tests.graph.kit import on
from tests.graph.nesting import Path, Walk, below, calling, check_whole, child_of
from tests.graph.subgraph_support import fan_out, per_item

C: Final = on("t")


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
    with pytest.raises(InvalidUpdateError, match="2 interrupts are pending"):
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
