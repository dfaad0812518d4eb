"""Routing: sends, commands, joins, deferred nodes and conditional edges."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    InvalidUpdateError,
    Send,
    StateGraph,
)
from tests.graph.kit import Calls, Trail, logs, on


class Words(TypedDict, total=False):
    words: list[str]
    lengths: Annotated[list[int], operator.add]
    longest: int


def test_map_reduce_by_send(checkpointer: Any) -> None:
    graph = StateGraph(Words)
    graph.add_node("split", lambda state: {"words": ["one", "three", "to"]})
    graph.add_node("measure", lambda arg: {"lengths": [len(arg["word"])]})
    graph.add_node("reduce", lambda state: {"longest": max(state["lengths"])})
    graph.add_edge(START, "split")
    graph.add_conditional_edges(
        "split", lambda state: [Send("measure", {"word": word}) for word in state["words"]]
    )
    graph.add_edge("measure", "reduce")
    result = graph.compile(checkpointer).invoke({}, on("t"))
    assert result == {"words": ["one", "three", "to"], "lengths": [3, 5, 2], "longest": 5}


def test_nodes_by_edges_come_before_sends(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("z", lambda state: {"log": ["z"]})
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_conditional_edges(START, lambda state: [Send("work", 2), "z", Send("work", 1)])
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == ["z", 2, 1]


def test_command_writes_and_goes(checkpointer: Any) -> None:
    def choose(state: Trail) -> Command[Literal["left", "right"]]:
        return Command(update={"log": ["choose"]}, goto=state["note"])

    graph = StateGraph(Trail)
    graph.add_node("choose", choose)
    graph.add_node("left", logs("left"))
    graph.add_node("right", logs("right"))
    graph.add_edge(START, "choose")
    app = graph.compile(checkpointer)
    assert app.invoke({"note": "right"}, on("t"))["log"] == ["choose", "right"]
    assert app.invoke({"note": "left"}, on("u"))["log"] == ["choose", "left"]
    with pytest.raises(InvalidUpdateError, match="nowhere"):
        app.invoke({"note": "nowhere"}, on("v"))


def test_commands_with_sends_beside_static_edges(checkpointer: Any) -> None:
    def choose(state: Trail) -> Any:
        return [Command(goto=[Send("work", 1), "more"]), {"note": "parts"}, Command(goto=END)]

    graph = StateGraph(Trail)
    graph.add_node("choose", choose, destinations=("work", "more"))
    graph.add_node("work", lambda arg: {"log": [f"work {arg}"]})
    graph.add_node("more", logs("more"))
    graph.add_node("always", logs("always"))
    graph.add_edge(START, "choose")
    graph.add_edge("choose", "always")
    result = graph.compile(checkpointer).invoke({}, on("t"))
    assert result == {"log": ["always", "more", "work 1"], "total": 2, "note": "parts"}


def test_a_join_waits_for_all(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    for name in ("short", "long1", "long2", "joined"):
        graph.add_node(name, logs(name))
    graph.add_edge(START, "short")
    graph.add_edge(START, "long1")
    graph.add_edge("long1", "long2")
    graph.add_edge(["short", "long2"], "joined")
    app = graph.compile(checkpointer)
    for _ in range(2 if checkpointer else 1):  # a second run waits anew
        log = app.invoke({}, on("t"))["log"][-4:]
        assert log == ["long1", "short", "long2", "joined"]


def test_a_join_takes_all_arrivals_of_a_superstep_together(checkpointer: Any) -> None:
    """Three Sends of a source are one arrival; none of them is left over for the next round."""
    graph = StateGraph(Trail)
    for name in ("a", "x", "joined", "again"):
        graph.add_node(name, logs(name))
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: ["x", *(Send("work", i) for i in range(3))])
    graph.add_edge(["x", "work"], "joined")
    graph.add_conditional_edges("joined", lambda state: "again" if len(state["log"]) < 7 else END)
    graph.add_edge("again", "x")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["a", "x", 0, 1, 2, "joined", "again", "x"]


def test_two_plain_edges_do_not_wait(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    for name in ("short", "long1", "long2", "end"):
        graph.add_node(name, logs(name))
    graph.add_edge(START, "short")
    graph.add_edge(START, "long1")
    graph.add_edge("long1", "long2")
    graph.add_edge("short", "end")
    graph.add_edge("long2", "end")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["long1", "short", "end", "long2", "end"]


def test_defer_waits_for_everything_else_sends_included(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("split", logs("split"))
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_node("slow", logs("slow"))
    graph.add_node("last", logs("last"), defer=True)
    graph.add_edge(START, "split")
    graph.add_edge("split", "last")
    graph.add_conditional_edges("split", lambda state: [Send("work", 1), Send("work", 2)])
    graph.add_edge("work", "slow")
    graph.add_edge("slow", "last")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["split", 1, 2, "slow", "last"]


@pytest.mark.parametrize("path_map", [{"yes": "a", "no": "b", "stop": END}, None])
def test_conditional_edges(checkpointer: Any, path_map: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("first", lambda state: {"total": 1})
    graph.add_node("a", logs("a"))
    graph.add_node("b", logs("b"))
    graph.add_edge(START, "first")

    def path(state: Trail) -> str:
        assert state["total"] == 1, "it judges the state as the node has left it"
        answers = {"yes": "a", "no": "b", "stop": END}
        return state["note"] if path_map else answers[state["note"]]

    graph.add_conditional_edges("first", path, path_map)
    app = graph.compile(checkpointer)
    assert app.invoke({"note": "yes"}, on("t"))["log"] == ["a"]
    assert app.invoke({"note": "no"}, on("u"))["log"] == ["b"]
    assert app.invoke({"note": "stop"}, on("v"))["log"] == []
    if path_map:
        with pytest.raises(InvalidUpdateError, match="maybe"):
            app.invoke({"note": "maybe"}, on("w"))


def test_replay_asks_no_edge_and_no_node_again(store: EventStore) -> None:
    """Decisions are recorded: only running asks them."""
    calls = Calls()

    def path(state: Trail) -> str:
        calls.add("path")
        return "b"

    graph = StateGraph(Trail)
    graph.add_node("a", logs("a", calls))
    graph.add_node("b", logs("b", calls))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", path, ["b"])
    app = graph.compile(store)
    app.invoke({}, on("t"))
    app.get_state(on("t"))
    list(app.get_state_history(on("t"), every=True))
    list(app.events(on("t")))
    app.verify(on("t"))
    assert calls.counts == {"path": 1, "a": 1, "b": 1}
