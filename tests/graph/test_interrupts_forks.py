"""Resume values for a fork: its config stands for the branch, also when that has moved on."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import START, Command, CompiledGraph, InvalidUpdateError, RunnableConfig, interrupt
from graph.types import Durability
from tests.graph.interrupt_support import in_line, nothing_recorded, shown
from tests.graph.kit import Trail, asks, id_of, logs, on
from tests.graph.nesting import Walk, check_whole, inside
from tests.graph.subgraph_support import C, asking, history, path


def asks_about(name: str) -> Any:
    """A node that asks its name and the note."""

    def node(state: Trail) -> dict[str, Any]:
        return {"log": [interrupt(f"{name} {state['note']}")]}

    return node


def survey(store: Any) -> CompiledGraph:
    """One node that logs, two that ask, one that logs."""
    return in_line(
        {"a": logs("a"), "b": asks_about("b"), "c": asks_about("c"), "d": logs("d")}, store
    )


def finished(app: CompiledGraph) -> None:
    """A thread that was answered everything."""
    app.invoke({"note": "old"}, on("t"))
    for answer in ("1", "2"):
        app.invoke(Command(resume=answer), on("t"))


def before(app: CompiledGraph, node: str) -> RunnableConfig:
    """The first checkpoint before a node."""
    return [each for each in app.get_state_history(on("t"), every=True) if each.next == (node,)][
        -1
    ].config


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(("node", "as_node"), [("a", START), ("b", "a"), ("b", None)])
def test_an_edit_of_the_past(
    store: EventStore, node: str, as_node: str | None, durability: Durability
) -> None:
    app = survey(store)
    finished(app)
    fork = app.update_state(before(app, node), {"note": "new"}, as_node)
    assert shown(app.invoke(None, fork, durability=durability)) == ["b new"]
    for answer, asked in (("x", ["c new"]), ("y", [])):
        result = app.invoke(Command(resume=answer), fork, durability=durability)
        assert shown(result) == asked
    assert result["log"] == ["a", "x", "y", "d"]
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="no interrupt"):
        app.invoke(Command(resume="z"), fork)
    assert [e.kind for e in app.events(on("t"))].count("fork") == 1, "nothing was left again"
    assert app.verify(on("t")).ok


def test_an_edit_of_the_end(store: EventStore) -> None:
    """Whether it made a branch, its caller cannot know."""
    app = survey(store)
    finished(app)
    edit = app.update_state(on("t"), {"note": "new"}, START)
    assert shown(app.invoke(None, edit)) == ["b new"]
    assert shown(app.invoke(Command(resume="x"), edit)) == ["c new"]
    assert app.invoke(Command(resume="y"), edit)["log"] == ["a", "1", "2", "d", "a", "x", "y", "d"]


def test_two_questions_of_one_node(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "ask": asks("q", questions=2)}, store)
    app.invoke({}, on("t"))
    fork = app.update_state(before(app, "ask"), {"note": "new"})
    assert shown(app.invoke(None, fork)) == ["q0"]
    assert shown(app.invoke(Command(resume=1), fork)) == ["q1"]
    assert app.invoke(Command(resume=2), fork)["log"] == ["a", ["q", 1, 2]]


def test_a_fork_that_was_left_for_another(store: EventStore) -> None:
    app = survey(store)
    finished(app)
    forks = [app.update_state(before(app, "b"), {"note": name}) for name in ("one", "two")]
    for fork, name in zip(forks, ("one", "two"), strict=True):
        assert shown(app.invoke(None, fork)) == [f"b {name}"]
    for fork, name in zip(forks, ("one", "two"), strict=True):
        result = app.invoke(Command(resume=f"for {name}"), fork)
        assert (result["note"], shown(result)) == (name, [f"c {name}"])
    for fork, name in zip(forks, ("one", "two"), strict=True):
        assert app.invoke(Command(resume="y"), fork)["log"] == ["a", f"for {name}", "y", "d"]
    assert app.verify(on("t")).ok


def test_a_branch_that_was_left_while_it_waited(store: EventStore) -> None:
    app = survey(store)
    finished(app)
    fork = app.update_state(before(app, "b"), {"note": "new"})
    assert shown(app.invoke(None, fork)) == ["b new"]
    assert shown(app.invoke(None, before(app, "b"))) == ["b old"]
    result = app.invoke(Command(resume="x"), fork)
    assert (result["note"], shown(result)) == ("new", ["c new"])
    assert app.verify(on("t")).ok


def test_a_branch_whose_question_was_answered_anew(store: EventStore) -> None:
    app = survey(store)
    finished(app)
    fork = app.update_state(before(app, "b"), {"note": "new"})
    app.invoke(None, fork)
    stop = app.get_state(on("t")).config
    for answer in ("x", "y"):
        assert shown(app.invoke(Command(resume=answer), stop)) == ["c new"]
    assert app.invoke(Command(resume="z"), fork)["log"] == ["a", "y", "z", "d"]


def test_a_fork_in_another_thread(store: EventStore) -> None:
    app = survey(store)
    finished(app)
    place = on("new", before(app, "b")["configurable"]["checkpoint_id"])
    fork = app.update_state(place, {"note": "new"})
    assert shown(app.invoke(None, fork)) == ["b new"]
    assert shown(app.invoke(Command(resume="x"), fork)) == ["c new"]
    assert app.invoke(Command(resume="y"), place)["log"] == ["a", "x", "y", "d"]
    assert app.get_state(on("t")).values["log"] == ["a", "1", "2", "d"]


def test_the_checkpoint_before_a_question_that_waits(store: EventStore) -> None:
    app = survey(store)
    app.invoke({"note": "n"}, on("t"))
    assert shown(app.invoke(Command(resume="x"), before(app, "b"))) == ["c n"]
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="no interrupt"):
        app.invoke(Command(resume="for b"), before(app, "b"))
    assert shown(app.invoke(None, on("t"))) == ["c n"], "it waits on"


def test_a_stop_before_the_node_that_asks(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "ask": asks("q")}, store, interrupt_before=["ask"])
    app.invoke({}, on("t"))
    stop = app.get_state(on("t")).config
    assert shown(app.invoke(None, stop)) == ["q0"]
    assert app.invoke(Command(resume=1), stop)["log"] == ["a", ["q", 1]]


def test_an_edit_inside_a_subgraph(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    (stop,) = [each for each in history(app, C) if each.interrupts]
    ns = stop.tasks[0].state["configurable"]["checkpoint_ns"]
    app.invoke(Command(resume="old"), C)
    (start,) = [each for each in history(app, inside(C, ns)) if each.next == ("one",)]
    fork = app.update_state(start.config, {"path": ["edited"]}, as_node=START)
    assert shown(app.invoke(None, fork)) == ["two?"]
    result = app.invoke(Command(resume="new"), fork)
    assert result["path"] == ["edited", *path("new")[1:]]
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="no interrupt"):
        app.invoke(Command(resume="again"), start.config)
    assert id_of(app.get_state(C)) == id_of(app.get_state(C).config)
    check_whole(store, app, "t")
