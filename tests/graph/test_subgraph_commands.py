"""A ``Command`` of a subgraph for the graph above."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    InvalidUpdateError,
    Send,
    StateGraph,
)
from tests.graph.kit import Boom
from tests.graph.nesting import Path, Walk, check_whole, inside
from tests.graph.subgraph_support import C, history


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
    with pytest.raises(InvalidUpdateError, match="has no parent"):
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
