"""Going back in time with graphs inside graphs: what was half-way then is half-way again.

Each test counts which nodes run after going back: of a subgraph that stood in the middle, only
what was still to come. What was left behind stays as it was, in a log of its own.
"""

from __future__ import annotations

import operator
import random
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidUpdateError,
    RunnableConfig,
    Send,
    StateGraph,
    StateSnapshot,
    get_stream_writer,
)
from graph.types import Durability
from tests.graph.kit import Boom, id_of, on
from tests.graph.nesting import Path, Walk, below, calling, check_whole, child_of, inside

C: Final = on("t")


def source_of(snapshot: StateSnapshot) -> Any:
    """What made a checkpoint."""
    return (snapshot.metadata or {})["source"]


def history(app: CompiledGraph, config: RunnableConfig) -> list[StateSnapshot]:
    return list(app.get_state_history(config))


def asking(walk: Walk, store: Any, called: bool = False, **options: Any) -> CompiledGraph:
    """``pre``, a graph of three nodes whose second one asks, ``post``."""
    inner = walk.line("one", "two?", "three", name="inner", **options)
    part = calling(inner) if called else inner
    return walk.line("pre", ("sub", part), "post", checkpointer=store)


def path(answer: str) -> list[str]:
    return ["pre", "one", f"two?{answer}", "three", "post"]


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


# --- graphs that remember ---------------------------------------------------------------


class Memory(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


def remembering(walk: Walk, store: Any, *names: str) -> CompiledGraph:
    """``sub`` tells its memory the path, and gets all that it remembers."""

    def node(name: str) -> Any:
        def run(_state: Memory) -> Memory:
            return {"seen": walk.node(name)({})["path"]}

        return run

    graph = StateGraph(Memory)
    graph.add_sequence([(name, node(name)) for name in names])
    graph.add_edge(START, names[0])
    memory = graph.compile(checkpointer=True, name="memory")

    def sub(state: Path) -> Path:
        return {"path": memory.invoke({"seen": state["path"]})["seen"]}

    return walk.line("pre", ("sub", sub), "post", checkpointer=store)


def tell(app: CompiledGraph, config: RunnableConfig, word: str) -> list[str]:
    """What is remembered, but for what each run adds."""
    found = app.invoke({"path": [word]}, config)["path"]
    return [each for each in found if each not in ("pre", "m", "post")]


def test_going_back_takes_the_memory_back(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    assert tell(app, C, "a") == ["a"]
    after_a = app.get_state(C).config
    assert tell(app, C, "b") == ["a", "b"]
    assert tell(app, C, "c") == ["a", "b", "c"]
    assert tell(app, after_a, "x") == ["a", "x"]
    assert tell(app, C, "y") == ["a", "x", "y"]
    old, _ = below(app, C)
    assert old == "sub/memory"
    left = app.get_state(inside(C, old)).values["seen"]
    assert [each for each in left if each in "abcxy"] == ["a", "b", "c"]
    check_whole(store, app, "t")


def test_a_checkpoint_before_the_memory_knows_nothing(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    tell(app, C, "a")
    first = history(app, C)[-1]
    assert app.invoke(None, first.config)["path"] == ["a", "pre", "m", "post"]
    assert tell(app, C, "b") == ["a", "b"]


def test_a_memory_goes_along_into_another_thread(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    tell(app, C, "a")
    fork = on("u", id_of(app.get_state(C)))
    assert tell(app, fork, "u1") == ["a", "u1"]
    assert tell(app, C, "t1") == ["a", "t1"]
    assert tell(app, on("u"), "u2") == ["a", "u1", "u2"]
    store.delete_thread("t")
    assert tell(app, on("u"), "u3") == ["a", "u1", "u2", "u3"]
    check_whole(store, app, "u")


def test_branches_of_branches_of_a_memory(store: EventStore) -> None:
    app = remembering(Walk(), store, "m")
    places: dict[tuple[str, ...], RunnableConfig] = {(): C}
    for told in [("a",), ("a", "b"), ("a", "c"), ("a", "b", "d"), ("a", "c", "e"), ("a", "f")]:
        assert tell(app, places[told[:-1]], told[-1]) == list(told)
        places[told] = app.get_state(C).config
    assert len(below(app, C)) == 5
    check_whole(store, app, "t")


def test_a_memory_that_asks_goes_back_to_the_question(store: EventStore) -> None:
    walk = Walk()
    app = remembering(walk, store, "m?", "n")
    app.invoke({"path": ["x"]}, C)
    stop = app.get_state(C)
    assert app.invoke(Command(resume="1"), C)["path"] == ["x", "pre", "m?1", "n", "post"]
    walk.taken()
    for place in (stop.config, on("u", id_of(stop))):
        assert app.invoke(Command(resume="2"), place)["path"] == ["x", "pre", "m?2", "n", "post"]
        assert walk.taken() == {"m?": 1, "n": 1, "post": 1}
    app.invoke({"path": ["y"]}, C)
    again = app.invoke(Command(resume="3"), C)["path"]
    assert again == ["x", "pre", "m?2", "n", "y", "pre", "m?3", "n", "post"]
    check_whole(store, app, "t")
    check_whole(store, app, "u")


def test_every_checkpoint_of_a_memory(store: EventStore) -> None:
    app = remembering(Walk(), store, "m", "n")
    whole = [app.invoke({"path": [word]}, C)["path"] for word in "ab"]
    for past in history(app, inside(C, "sub/memory")):
        run = whole["b" in past.values["seen"]]
        assert app.invoke(None, past.config)["path"] == run
    check_whole(store, app, "t")


# --- commands for the graph above -------------------------------------------------------


class Ended(TypedDict, total=False):
    path: Annotated[list[str], operator.add]


def commanding(
    walk: Walk, store: Any, command: Command[Any], called: bool = False, sibling: bool = False
) -> CompiledGraph:
    """A child whose node ``ends`` sends a command up; ``never`` would come after it."""

    def node(name: str) -> Any:
        def run(_state: Ended) -> Ended:
            walk.calls.add(name)
            if name in walk.failing:
                raise Boom(name)
            return {"path": [name]}

        return run

    def ends(_state: Ended) -> Command[Any]:
        walk.calls.add("ends")
        return command

    child = StateGraph(Ended)
    child.add_node("one", node("one"))
    child.add_node("ends", ends)
    child.add_node("never", node("never"))
    child.add_edge(START, "one")
    child.add_edge("one", "ends")
    child.add_edge("ends", "never")
    if sibling:
        child.add_node("sibling", node("sibling"))
        child.add_edge("one", "sibling")
        child.add_edge("sibling", "never")
    inner = child.compile(name="inner")

    def sub(_state: Ended) -> Ended:
        return {"path": inner.invoke({"path": []})["path"]}

    graph = StateGraph(Ended)
    graph.add_node("sub", sub if called else inner, destinations=("left", "right"))
    graph.add_node("left", node("left"))
    graph.add_node("right", node("right"))
    graph.add_edge(START, "sub")
    return graph.compile(store)


UP: Final = Command.PARENT


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Command(graph=UP, goto="left"), ["left"]),
        (Command(graph=UP, update={"path": ["up"]}), ["up"]),
        (Command(graph=UP, update={"path": ["up"]}, goto="left"), ["up", "left"]),
        (Command(graph=UP, goto=["left", "right"]), ["left", "right"]),
        (Command(graph=UP, goto=[Send("left", {}), Send("left", {})]), ["left", "left"]),
    ],
)
def test_a_command_for_the_graph_above(
    store: EventStore, called: bool, command: Command[Any], expected: list[str]
) -> None:
    walk = Walk()
    app = commanding(walk, store, command, called)
    assert app.invoke({"path": ["x"]}, C)["path"] == ["x", *expected]
    assert "never" not in walk.taken()
    check_whole(store, app, "t")


def test_siblings_of_a_command_come_to_their_end(store: EventStore) -> None:
    walk = Walk()
    app = commanding(walk, store, Command(graph=UP, goto="left"), sibling=True)
    assert app.invoke({"path": ["x"]}, C)["path"] == ["x", "left"]
    assert walk.taken() == {"one": 1, "ends": 1, "sibling": 1, "left": 1}
    child = app.get_state(inside(C, "sub:1.0"))
    assert (child.values["path"], child.next) == (["x", "one", "sibling"], ())


def test_a_command_is_carried_out_after_its_sibling_has_failed(store: EventStore) -> None:
    walk = Walk("sibling")
    app = commanding(walk, store, Command(graph=UP, goto="left"), sibling=True)
    with pytest.raises(Boom):
        app.invoke({"path": ["x"]}, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C)["path"] == ["x", "left"]
    assert walk.taken() == {"sibling": 1, "left": 1}


def test_a_command_outlives_a_crash(store: EventStore) -> None:
    """The child has recorded it, and its parent failed to: the child does not run again."""
    walk = Walk("after")
    inner_app = commanding(walk, None, Command(graph=UP, goto="left"))
    inner = inner_app.topology.nodes["sub"].action
    assert isinstance(inner, CompiledGraph)

    def sub(_state: Ended) -> Ended:
        try:
            return {"path": inner.invoke({"path": []})["path"]}
        finally:
            walk.node("after")({})

    graph = StateGraph(Ended)
    graph.add_node("sub", sub, destinations=("left",))
    graph.add_node("left", lambda _state: {"path": ["left"]})
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C)["path"] == ["left"]
    assert walk.taken() == {"after": 1}


def test_a_command_two_levels_up(store: EventStore) -> None:
    """Each graph passes it on by a command of its own."""
    walk = Walk()

    def ends(_state: Path) -> Command[Any]:
        return Command(graph=UP, goto="pass")

    def passes(_state: Path) -> Command[Any]:
        return Command(graph=UP, goto="left", update={"path": ["passed"]})

    inner = walk.line(("ends", ends))
    middle_graph = StateGraph(Path)
    middle_graph.add_node("inner", inner, destinations=("pass",))
    middle_graph.add_node("pass", passes)
    middle_graph.add_edge(START, "inner")
    graph = StateGraph(Path)
    graph.add_node("middle", middle_graph.compile(), destinations=("left",))
    graph.add_node("left", walk.node("left"))
    graph.add_edge(START, "middle")
    app = graph.compile(store)
    assert app.invoke({}, C)["path"] == ["passed", "left"]


def test_a_command_for_nobody(store: EventStore) -> None:
    app = Walk().line(("root", lambda _: Command(graph=UP, goto="x")), checkpointer=store)
    with pytest.raises(InvalidUpdateError, match="no graph above"):
        app.invoke({}, C)


def test_a_command_to_a_node_that_is_not_there(store: EventStore) -> None:
    app = commanding(Walk(), store, Command(graph=UP, goto="nowhere"))
    with pytest.raises(InvalidUpdateError, match="'nowhere'"):
        app.invoke({}, C)


def test_back_in_a_child_before_its_command(store: EventStore) -> None:
    walk = Walk()
    app = commanding(walk, store, Command(graph=UP, goto="left"))
    app.invoke({"path": ["x"]}, C)
    past = next(each for each in history(app, inside(C, "sub:1.0")) if each.next == ("ends",))
    walk.taken()
    assert app.invoke(None, past.config)["path"] == ["x", "left"]
    assert walk.taken() == {"ends": 1, "left": 1}


# --- reading ----------------------------------------------------------------------------


def test_states_of_subgraphs_in_the_past(store: EventStore) -> None:
    walk = Walk()
    app = asking(walk, store)
    app.invoke({}, C)
    stop = app.get_state(C)
    app.invoke(Command(resume="yes"), C)
    then = app.get_state(stop.config, subgraphs=True)
    assert then.next == ("sub",)
    child = then.tasks[0].state
    assert (child.values, child.next) == ({"path": ["pre", "one"]}, ("two?",))
    assert app.get_state(C, subgraphs=True).tasks == ()
    place = app.get_state(stop.config).tasks[0].state["configurable"]
    assert place["checkpoint_ns"] == "sub:2.0"


def test_states_of_subgraphs_on_a_fork(store: EventStore) -> None:
    app = asking(Walk(), store)
    app.invoke({}, C)
    stop = app.get_state(C)
    app.invoke(None, on("u", id_of(stop)))
    child = child_of(app, on("u"))
    assert (child.values, child.next) == ({"path": ["pre", "one"]}, ("two?",))
    assert child.config["configurable"]["thread_id"] == "u"
    sources = [source_of(each) for each in history(app, child.config)]
    assert sources == ["interrupt", "fork", "interrupt", "loop", "input"]


def test_history_and_events_of_a_child(store: EventStore) -> None:
    app = asking(Walk(), store)
    app.invoke({}, C)
    app.invoke(Command(resume="yes"), C)
    child = inside(C, "sub:2.0")
    found = history(app, child)
    assert [each.next for each in found] == [(), ("three",), ("two?",), ("two?",), ("one",)]
    for each in found:
        assert each.config["configurable"]["checkpoint_ns"] == "sub:2.0"
        assert app.get_state(each.config).values == each.values
    kinds = [entry.kind for entry in app.events(child)]
    assert kinds == ["input", "output", "interrupt", "resume", "output", "output"]
    assert list(app.get_state_history(child, before=found[2].config)) == found[3:]


class Count(TypedDict, total=False):
    n: int
    text: Annotated[list[str], operator.add]


def looping(store: Any, rounds: int) -> CompiledGraph:
    """A child that goes round many times and keeps what is large."""

    def round_(state: Count) -> Count:
        n = state.get("n", 0) + 1
        return {"n": n, "text": [random.Random(n).randbytes(2_000).hex()]}

    child = StateGraph(Count)
    child.add_node("round", round_)
    child.add_edge(START, "round")
    child.add_conditional_edges("round", lambda s: "round" if s["n"] % rounds else END)
    inner = child.compile(name="inner")

    class Outer(TypedDict, total=False):
        n: int

    graph = StateGraph(Outer)
    graph.add_node("sub", inner)
    graph.add_edge(START, "sub")
    return graph.compile(store)


def test_snapshots_of_a_long_child(store: EventStore) -> None:
    app = looping(store, 60)
    config: RunnableConfig = {**C, "recursion_limit": 1_000}
    assert app.invoke({}, config) == {"n": 60}
    child = inside(C, "sub:1.0")
    report = app.verify(C)
    assert report.ok
    assert report.snapshots > 0
    before = history(app, child)
    assert store.delete_snapshots("t") > 0
    assert history(app, child) == before
    assert len(before) == 61
    back = before[40]
    assert app.invoke(None, {**back.config, "recursion_limit": 1_000}) == {"n": 60}
    assert app.verify(C).ok


# --- streaming --------------------------------------------------------------------------


def streaming(store: Any, called: bool = False) -> CompiledGraph:
    walk = Walk()

    def tells(state: Path) -> Path:
        get_stream_writer()({"telling": len(state["path"])})
        return {"path": [*state["path"], "tells"]}

    inner = walk.line("one", ("tells", tells), name="inner")
    part = calling(inner) if called else inner
    return walk.line("pre", ("sub", part), checkpointer=store)


@pytest.mark.parametrize("called", [False, True])
def test_updates_of_subgraphs(store: EventStore, called: bool) -> None:
    app = streaming(store, called)
    way = ("sub/inner:2.0",) if called else ("sub:2.0",)
    assert list(app.stream({}, C, subgraphs=True)) == [
        ((), {"pre": {"path": ["pre"]}}),
        (way, {"one": {"path": ["pre", "one"]}}),
        (way, {"tells": {"path": ["pre", "one", "tells"]}}),
        ((), {"sub": {"path": ["pre", "one", "tells"]}}),
    ]


def test_values_of_subgraphs(store: EventStore) -> None:
    chunks = list(streaming(store).stream({}, C, stream_mode="values", subgraphs=True))
    assert chunks == [
        ((), {}),
        ((), {"path": ["pre"]}),
        (("sub:2.0",), {"path": ["pre"]}),
        (("sub:2.0",), {"path": ["pre", "one"]}),
        (("sub:2.0",), {"path": ["pre", "one", "tells"]}),
        ((), {"path": ["pre", "one", "tells"]}),
    ]


def test_several_modes_of_subgraphs(store: EventStore) -> None:
    app = streaming(store)
    chunks = list(app.stream({}, C, stream_mode=["updates", "custom"], subgraphs=True))
    assert [(way, mode) for way, mode, _ in chunks] == [
        ((), "updates"),
        (("sub:2.0",), "updates"),
        (("sub:2.0",), "custom"),
        (("sub:2.0",), "updates"),
        ((), "updates"),
    ]


def test_tasks_of_subgraphs(store: EventStore) -> None:
    chunks = list(streaming(store).stream({}, C, stream_mode="tasks", subgraphs=True))
    names = [(way, chunk["name"], "result" in chunk) for way, chunk in chunks]
    sub = ("sub:2.0",)
    assert names == [
        ((), "pre", False),
        ((), "pre", True),
        ((), "sub", False),
        (sub, "one", False),
        (sub, "one", True),
        (sub, "tells", False),
        (sub, "tells", True),
        ((), "sub", True),
    ]


@pytest.mark.parametrize("called", [False, True])
def test_without_subgraphs_only_what_nodes_tell_comes_up(store: EventStore, called: bool) -> None:
    app = streaming(store, called)
    chunks = list(app.stream({}, C, stream_mode=["updates", "custom"]))
    assert [(mode, list(chunk)) for mode, chunk in chunks] == [
        ("updates", ["pre"]),
        ("custom", ["telling"]),
        ("updates", ["sub"]),
    ]


def test_three_levels_of_a_stream(store: EventStore) -> None:
    walk = Walk()
    middle = walk.line("b1", ("b2", walk.line("c1")))
    app = walk.line(("sub", middle), checkpointer=store)
    ways = [(way, *chunk) for way, chunk in app.stream({}, C, subgraphs=True)]
    assert ways == [
        (("sub:1.0",), "b1"),
        (("sub:1.0", "b2:2.0"), "c1"),
        (("sub:1.0",), "b2"),
        ((), "sub"),
    ]


def test_a_stream_of_questions_inside(store: EventStore) -> None:
    app = asking(Walk(), store)
    chunks = list(app.stream({}, C, subgraphs=True))
    ways = [way for way, chunk in chunks if "__interrupt__" in chunk]
    assert ways == [("sub:2.0",), ()]
