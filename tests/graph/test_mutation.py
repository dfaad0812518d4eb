"""Nodes that change what they were given in place change nothing but their own copy.

That holds for top-level lists, dicts and sets of the state. What lies deeper is shared for the
length of a superstep, as copying it all for every node would cost more than the node.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import START, Send, StateGraph
from tests.graph.kit import on


def joined(left: set[str], right: set[str]) -> set[str]:
    return left | right


class Bag(TypedDict, total=False):
    log: list[int]
    data: dict[str, int]
    tags: set[str]
    seen: Annotated[set[str], joined]


GIVEN: dict[str, Any] = {"log": [1, 2], "data": {"a": 1}, "tags": {"t"}}


def fresh() -> dict[str, Any]:
    return {key: value.copy() for key, value in GIVEN.items()}


def vandal(state: Bag) -> dict[str, Any]:
    state["log"].append(99)
    state["log"].reverse()
    state["data"]["broken"] = 1
    state["data"].pop("a")
    state["tags"].clear()
    del state["tags"]
    return {"seen": {"vandal"}}


def witness(state: Bag) -> dict[str, Any]:
    assert state["log"] == [1, 2]
    assert state["data"] == {"a": 1}
    assert state["tags"] == {"t"}
    return {"seen": {"witness"}}


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
def test_siblings_successors_and_the_log_see_nothing(
    store: EventStore, parallel: bool, recorded: bool
) -> None:
    graph = StateGraph(Bag)
    graph.add_node("a_vandal", vandal)
    graph.add_node("b_witness", witness)
    graph.add_edge(START, "a_vandal")
    graph.add_edge(START if parallel else "a_vandal", "b_witness")
    app = graph.compile(store if recorded else None)
    given = fresh()
    config = on("t", max_concurrency=1)
    assert app.invoke(given, config) == {**GIVEN, "seen": {"vandal", "witness"}}
    assert given == GIVEN, "nor is the caller's input changed"
    if recorded:
        for entry in app.get_state_history(on("t"), every=True):
            assert {key: entry.values[key] for key in GIVEN} == GIVEN
        assert app.verify(on("t")).ok


def test_conditional_edges_are_given_copies_too(store: EventStore) -> None:
    def path(state: Bag) -> str:
        vandal(state)
        return "witness"

    graph = StateGraph(Bag)
    graph.add_node("first", lambda state: {})
    graph.add_node("witness", witness)
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", path, ["witness"])
    assert graph.compile(store).invoke(fresh(), on("t"))["data"] == {"a": 1}


def test_what_a_caller_does_with_a_result_changes_no_state(store: EventStore) -> None:
    graph = StateGraph(Bag)
    graph.add_node("witness", witness)
    graph.add_edge(START, "witness")
    app = graph.compile(store)
    app.invoke(fresh(), on("t"))["log"].append(7)
    app.get_state(on("t")).values["log"].append(8)
    for entry in app.get_state_history(on("t"), every=True):
        entry.values["log"].append(9)
    assert app.invoke(None, on("t"))["log"] == [1, 2]


def test_what_a_listener_does_with_a_chunk_changes_no_state(store: EventStore) -> None:
    graph = StateGraph(Bag)
    graph.add_node("first", lambda state: {"log": [1, 2]})
    graph.add_node("witness", witness)
    graph.add_edge(START, "first")
    graph.add_edge("first", "witness")
    app = graph.compile(store)
    for chunk in app.stream(fresh(), on("t"), stream_mode="values"):
        chunk["log"].append(7)
        chunk["data"]["broken"] = 1
    assert app.get_state(on("t")).values["log"] == [1, 2]


def test_a_returned_list_that_is_changed_later(store: EventStore) -> None:
    kept: list[int] = [1, 2]

    def first(state: Bag) -> dict[str, Any]:
        return {"log": kept}

    def second(state: Bag) -> dict[str, Any]:
        kept.append(3)
        return {"data": {"length": len(state["log"])}}

    graph = StateGraph(Bag)
    graph.add_sequence([first, second])
    graph.add_edge(START, "first")
    app = graph.compile(store)
    live = app.invoke({}, on("t"))
    assert app.get_state(on("t")).values["log"] == [1, 2], "what was recorded is what was returned"
    assert live == app.get_state(on("t")).values


def test_a_sends_argument_is_what_was_sent(store: EventStore) -> None:
    shared = {"n": 0}

    def work(arg: dict[str, int]) -> dict[str, Any]:
        arg["n"] += 1
        return {"seen": {f"{arg['n']}"}}

    graph = StateGraph(Bag)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, lambda state: [Send("work", dict(shared)) for _ in range(3)])
    app = graph.compile(store)
    assert app.invoke({}, on("t"))["seen"] == {"1"}
    first = list(app.get_state_history(on("t"), every=True))[-1]
    assert app.invoke(None, first.config)["seen"] == {"1"}
