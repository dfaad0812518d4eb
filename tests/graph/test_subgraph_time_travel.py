"""Time travel with subgraphs: what was half-way then is half-way again.

Each test counts which nodes run after going back: of a subgraph that stood in the middle, only
what was still to come. What was left behind stays as it was, in a log of its own.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore, PositionNotFoundError
from graph import (
    START,
    Command,
    InvalidConfigError,
    RunnableConfig,
    StateGraph,
)
from graph.types import Durability
from tests.eventstore.support import set_everywhere
from tests.graph.kit import Boom, id_of, on
from tests.graph.nesting import Walk, below, check_whole, child_of, inside
from tests.graph.subgraph_support import C, asking, history, path, source_of

# --- the parent's checkpoints -----------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
def test_other_answers_at_a_stop(store: EventStore, called: bool) -> None:
    walk = Walk()
    app = asking(walk, store, called)
    app.invoke({}, C)
    stop = app.get_state(C).config
    walk.taken()
    for answer in ("yes", "no", "perhaps"):
        assert app.invoke(Command(resume=answer), stop)["path"] == path(answer)
        assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    name = "sub/inner" if called else "sub"
    assert len(below(app, C)) == 3
    first = app.get_state(inside(C, f"{name}:2.0"))
    assert first.values["path"] == path("yes")[:-1], "what was left behind stays"
    check_whole(store, app, "t")


def test_a_checkpoint_before_the_child_begins_it_anew(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    before = next(each for each in history(app, C) if source_of(each) == "loop")
    assert before.next == ("sub",)
    walk.taken()
    assert app.invoke(None, before.config)["__interrupt__"][0].value == "two?"
    assert walk.taken() == {"one": 1, "two?": 1}
    assert app.invoke(Command(resume="!"), C)["path"] == path("!")
    check_whole(store, app, "t")


@pytest.mark.parametrize("called", [False, True])
def test_another_thread_outlives_the_source(store: EventStore, called: bool) -> None:
    walk = Walk()
    app = asking(walk, store, called)
    app.invoke({}, C)
    stop = id_of(app.get_state(C))
    app.invoke(Command(resume="yes"), C)
    walk.taken()
    assert app.invoke(Command(resume="no"), on("u", stop))["path"] == path("no")
    assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    (ns,) = below(app, on("u"))
    told = history(app, inside(on("u"), ns))
    store.delete_thread("t")
    assert app.get_state(on("u")).values["path"] == path("no")
    check_whole(store, app, "u")
    shapes = [(each.values, each.next) for each in history(app, inside(on("u"), ns))]
    assert shapes == [(each.values, each.next) for each in told]


def test_a_fork_that_waits_outlives_the_source(store: EventStore) -> None:
    """The source goes while the child in the fork has not gone on yet."""
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    fork = on("u", id_of(app.get_state(C)))
    (asked,) = app.invoke(None, fork)["__interrupt__"]
    store.delete_thread("t")
    assert child_of(app, on("u")).values["path"] == ["pre", "one"]
    walk.taken()
    assert app.invoke(Command(resume={asked.id: "!"}), on("u"))["path"] == path("!")
    assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    check_whole(store, app, "u")


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("archived", [False, True])
def test_an_inherited_checkpoint_in_mid_subgraph_outlives_the_source(
    store: EventStore, called: bool, archived: bool
) -> None:
    """The subgraph had ended long before the fork, which takes none of its logs along."""
    walk = Walk()
    app = asking(walk, store, called)
    app.invoke({}, C)
    stop = app.get_state(C)
    app.invoke(Command(resume="yes"), C)
    app.invoke(None, on("u", id_of(app.get_state(C))))
    assert below(app, on("u")) == []
    dump = store.dump("u") if archived else None
    store.delete_thread("t")
    if dump is not None:
        store.delete_thread("u")
        with dump:
            store.load(dump)
    stops = [past for past in history(app, on("u")) if past.interrupts and past.next == ("sub",)]
    assert len(stops) == 1
    assert child_of(app, stops[0].config).values["path"] == ["pre", "one"]
    for thread_id in ("u", "v"):
        place = on(thread_id, id_of(stop if thread_id == "u" else stops[0]))
        place["configurable"]["checkpoint_ns"] = stops[0].config["configurable"]["checkpoint_ns"]
        walk.taken()
        assert app.invoke(Command(resume="no"), place)["path"] == path("no")
        assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    store.delete_thread("u")
    check_whole(store, app, "v")
    assert app.get_state(on("v")).values["path"] == path("no")


def test_an_inherited_checkpoint_of_a_subgraph_that_was_not_kept(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with a reason, nothing is written, and other checkpoints are still there."""
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    app.invoke(Command(resume="yes"), C)
    app.invoke(None, on("u", id_of(app.get_state(C))))
    set_everywhere(monkeypatch, "WHOLE_MAX", 3)
    store.delete_thread("t")
    pasts = history(app, on("u"))
    (stop,) = (past for past in pasts if past.interrupts)
    with pytest.raises(PositionNotFoundError, match="was not kept"):
        app.invoke(Command(resume="no"), stop.config)
    assert app.get_state(on("u")).values["path"] == path("yes")
    before = next(past for past in pasts if past.next == ("sub",) and past.config != stop.config)
    assert app.invoke(None, before.config)["__interrupt__"][0].value == "two?"
    assert app.invoke(Command(resume="no"), on("u"))["path"] == path("no")
    check_whole(store, app, "u")


def test_forks_of_forks(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    place = C
    for n in range(4):
        stop = id_of(app.get_state(place))
        place = on(f"fork{n}")
        app.invoke(None, on(f"fork{n}", stop))
    for n in range(3):
        store.delete_thread(f"fork{n}" if n else "t")
        store.delete_thread("fork0") if n == 0 else None
    walk.taken()
    assert app.invoke(Command(resume="!"), on("fork3"))["path"] == path("!")
    assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    check_whole(store, app, "fork3")


def test_after_a_failure_in_the_child(store: EventStore) -> None:
    """The checkpoint before the failed superstep begins the child anew; the thread goes on."""
    walk = Walk("two")
    inner = walk.line("one", "two")
    app = walk.line("pre", ("sub", inner), checkpointer=store)
    with pytest.raises(Boom):
        app.invoke({}, C)
    walk.failing.clear()
    before = app.get_state(C).config
    walk.taken()
    assert app.invoke(None, before)["path"] == ["pre", "one", "two"]
    assert walk.taken() == {"two": 1}, "the thread stands there: it goes on"
    assert app.invoke(None, before)["path"] == ["pre", "one", "two"]
    assert walk.taken() == {"one": 1, "two": 1}, "a branch"
    check_whole(store, app, "t")


def test_a_grandchild_half_way(store: EventStore) -> None:
    walk = Walk()
    middle = walk.line("b1", ("b2", walk.line("c1", "c2?", "c3")), "b3")
    app = walk.line("pre", ("sub", middle), "post", checkpointer=store)
    app.invoke({}, C)
    stop = app.get_state(C)
    app.invoke(Command(resume="yes"), C)
    whole = ["pre", "b1", "c1", "c2?no", "c3", "b3", "post"]
    for place in (stop.config, on("u", id_of(stop)), on("v", id_of(stop))):
        walk.taken()
        assert app.invoke(Command(resume="no"), place)["path"] == whole
        assert walk.taken() == {"c2?": 1, "c3": 1, "b3": 1, "post": 1}
    store.delete_thread("t")
    for thread_id in "uv":
        assert len(below(app, on(thread_id))) == 2
        check_whole(store, app, thread_id)


def test_two_children_go_back_together(store: EventStore) -> None:
    class Both(TypedDict, total=False):
        got: Annotated[list[str], operator.add]

    walk = Walk()

    def asks(name: str) -> Any:
        inner = walk.line(f"{name}1", f"{name}?", name=name)
        return lambda _state: {"got": inner.invoke({"path": []})["path"]}

    graph = StateGraph(Both)
    for name in "ab":
        graph.add_node(name, asks(name))
        graph.add_edge(START, name)
    app = graph.compile(store)
    asked = {each.value: each.id for each in app.invoke({}, C)["__interrupt__"]}
    stop = app.get_state(C)
    app.invoke(Command(resume={asked["a?"]: "A"}), C)
    app.invoke(Command(resume="B"), C)
    for place in (stop.config, on("u", id_of(stop))):
        walk.taken()
        waits = app.invoke(Command(resume={asked["b?"]: "1"}), place)["__interrupt__"]
        assert [each.value for each in waits] == ["a?"]
        assert walk.taken() == {"b?": 1}
        thread = on(place["configurable"]["thread_id"])
        result = app.invoke(Command(resume="2"), thread)
        assert result == {"got": ["a1", "a?2", "b1", "b?1"]}
        assert walk.taken() == {"a?": 1}
        check_whole(store, app, thread["configurable"]["thread_id"])


def test_back_to_each_stop_of_a_child(store: EventStore) -> None:
    """A child that asks twice: each stop of the parent knows how far it had come."""
    walk = Walk()
    app = walk.line(("sub", walk.line("a?", "b?", "c?")), checkpointer=store)
    app.invoke({}, C)
    stops = [app.get_state(C).config]
    for answer in "AB":
        app.invoke(Command(resume=answer), C)
        stops.append(app.get_state(C).config)
    app.invoke(Command(resume="C"), C)
    for came, stop in enumerate(stops):
        walk.taken()
        app.invoke(Command(resume="x"), stop)
        for answer in "yz"[: 2 - came]:
            app.invoke(Command(resume=answer), C)
        said = [*"AB"[:came], *"xyz"[: 3 - came]]
        expected = [
            f"{node}{answer}" for node, answer in zip(("a?", "b?", "c?"), said, strict=True)
        ]
        assert app.get_state(C).values["path"] == expected
    check_whole(store, app, "t")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_whenever_it_is_written(store: EventStore, durability: Durability) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C, durability=durability)
    stop = app.get_state(C).config
    for answer in ("yes", "no"):
        walk.taken()
        answered = app.invoke(Command(resume=answer), stop, durability=durability)
        assert answered["path"] == path(answer)
        assert walk.taken() == {"two?": 1, "three": 1, "post": 1}
    back = history(app, inside(C, "sub:2.0"))[1]
    assert back.next == ("three",)
    assert app.invoke(None, back.config, durability=durability)["path"] == path("yes")
    assert walk.taken() == {"three": 1, "post": 1}
    check_whole(store, app, "t")


# --- the child's own checkpoints --------------------------------------------------------


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_every_checkpoint_of_a_child(store: EventStore, called: bool, finished: bool) -> None:
    walk = Walk()
    app = asking(walk, store, called)
    app.invoke({}, C)
    if finished:
        app.invoke(Command(resume="first"), C)
    child = inside(C, below(app, C)[0])
    for past in history(app, child):
        walk.taken()
        result = app.invoke(None, past.config)
        if "__interrupt__" in result:
            result = app.invoke(Command(resume="!"), C)
        elif not finished or past.next:
            assert "two?!" not in result["path"]
        answer = "first" if "two?first" in past.values["path"] else "!"
        assert result["path"] == path(answer)
        assert walk.taken().get("one", 0) == (past.next == ("one",))
    check_whole(store, app, "t")


def test_editing_every_checkpoint_of_a_child(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    app.invoke(Command(resume="first"), C)
    for past in history(app, inside(C, "sub:2.0")):
        app.update_state(past.config, {"path": ["by hand"]}, as_node="two?")
        walk.taken()
        assert app.invoke(None, C)["path"] == ["by hand", "three", "post"]
        assert walk.taken() == {"three": 1, "post": 1}
    check_whole(store, app, "t")


def test_every_checkpoint_of_a_grandchild(store: EventStore) -> None:
    walk = Walk()
    middle = walk.line("b1", ("b2", walk.line("c1", "c2", "c3")), "b3")
    app = walk.line("pre", ("sub", middle), "post", checkpointer=store)
    whole = app.invoke({}, C)["path"]
    deepest = max(below(app, C), key=len)
    pasts = history(app, inside(C, deepest))
    assert [past.next for past in pasts] == [(), ("c3",), ("c2",), ("c1",)]
    for past in pasts:
        walk.taken()
        assert app.invoke(None, past.config)["path"] == whole
        assert walk.taken() == dict.fromkeys((*past.next, *whole[whole.index("b3") :]), 1) | {
            name: 1 for name in ("c2", "c3") if past.next and name >= past.next[0]
        }
    check_whole(store, app, "t")


@pytest.mark.parametrize("deletes", [False, True])
def test_a_childs_checkpoints_go_along_into_a_fork(store: EventStore, deletes: bool) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    app.invoke(Command(resume="yes"), on("u", id_of(app.get_state(C))))
    if deletes:
        store.delete_thread("t")
    (ns,) = below(app, on("u"))
    pasts = history(app, inside(on("u"), ns))
    asks = [("two?",)] * 3
    assert [past.next for past in pasts] == [(), ("three",), *asks, ("one",)]
    for past in pasts:
        walk.taken()
        place: RunnableConfig = {"configurable": {**past.config["configurable"], "thread_id": "u"}}
        app.invoke(None, place)
        if "two?" in walk.taken():
            app.invoke(Command(resume="yes"), on("u"))
        assert app.get_state(on("u")).values["path"] == path("yes")
    check_whole(store, app, "u")


def test_a_childs_checkpoint_begins_a_thread(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    app.invoke(Command(resume="yes"), C)
    past = next(each for each in history(app, inside(C, "sub:2.0")) if each.next == ("three",))
    place = past.config["configurable"]
    walk.taken()
    app.invoke(None, {"configurable": {**place, "thread_id": "u"}})
    assert app.get_state(on("u")).values["path"] == path("yes")
    assert walk.taken() == {"three": 1, "post": 1}
    store.delete_thread("t")
    check_whole(store, app, "u")


def test_a_childs_checkpoint_in_a_thread_that_has_nothing_to_do_with_it(store: EventStore) -> None:
    app = asking(Walk(), store)
    app.invoke({}, C)
    app.invoke({}, on("u"))
    place = child_of(app, C).config["configurable"]
    with pytest.raises(InvalidConfigError, match="was not forked from it"):
        app.invoke(None, {"configurable": {**place, "thread_id": "u"}})


def test_a_subgraph_that_is_not_there(store: EventStore) -> None:
    app = asking(Walk(), store)
    app.invoke({}, C)
    for ns in ("nobody", "nobody:2.0", "sub:2.0|nobody", "pre:1.0", "sub/inner:2.0"):
        for call in (app.get_state, lambda c: history(app, c), lambda c: app.invoke(None, c)):
            with pytest.raises(InvalidConfigError, match="has no subgraph"):
                call(inside(C, ns))
