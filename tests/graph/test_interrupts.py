"""Stopping before and after nodes, so that a person can look, edit, and let it go on."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import START, Command, CompiledGraph, InvalidGraphError, InvalidUpdateError, StateGraph
from tests.graph.kit import Calls, Trail, logs, on, steps


@pytest.mark.parametrize(
    ("options", "log", "coming"),
    [
        ({"interrupt_before": ["b"]}, ["a"], ("b",)),
        ({"interrupt_after": ["b"]}, ["a", "b"], ("c",)),
        ({"interrupt_before": "a"}, [], ("a",)),
        ({"interrupt_before": "*"}, [], ("a",)),
        ({"interrupt_after": "*"}, ["a"], ("b",)),
        ({"interrupt_after": ["c"]}, ["a", "b", "c"], ()),
    ],
)
@pytest.mark.parametrize("when", ["compile", "call"])
def test_where_a_run_stops(
    store: EventStore, options: dict[str, Any], log: list[str], coming: tuple[str, ...], when: str
) -> None:
    app = steps("abc", store, **(options if when == "compile" else {}))
    given = options if when == "call" else {}
    assert app.invoke({}, on("t"), **given)["log"] == log
    state = app.get_state(on("t"))
    assert state.next == coming
    assert store.thread("t").status == ("waiting" if coming else "idle")


def test_resuming_goes_over_the_stop_and_to_the_next(store: EventStore) -> None:
    calls = Calls()
    app = steps("abc", store, calls, interrupt_before=["b", "c"])
    assert app.invoke({}, on("t"))["log"] == ["a"]
    assert app.invoke(None, on("t"))["log"] == ["a", "b"]
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c"]
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c"]
    assert calls.counts == {"a": 1, "b": 1, "c": 1}


def test_every_step_by_itself(store: EventStore) -> None:
    app = steps("abcd", store, interrupt_after="*")
    lengths = [len(app.invoke(None if i else {}, on("t"))["log"]) for i in range(6)]
    assert lengths == [1, 2, 3, 4, 4, 4]


def test_an_update_between(store: EventStore) -> None:
    app = steps("abc", store, interrupt_before=["b"])
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"log": ["edited"], "note": "approved"})
    state = app.get_state(on("t"))
    assert state.next == ("b",)
    assert app.invoke(None, on("t")) == {
        "log": ["a", "edited", "b", "c"],
        "total": 3,
        "note": "approved",
    }


def test_an_update_in_the_name_of_the_node_waited_for(store: EventStore) -> None:
    """The person does the node's work; the node does not run."""
    calls = Calls()
    app = steps("abc", store, calls, interrupt_before=["b"])
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"log": ["by hand"]}, as_node="b")
    assert app.invoke(None, on("t"))["log"] == ["a", "by hand", "c"]
    assert calls.counts["b"] == 0


def test_per_call_instead_of_compiled(store: EventStore) -> None:
    app = steps("abc", store, interrupt_before=["b"])
    assert app.invoke({}, on("t"), interrupt_before=["c"])["log"] == ["a", "b"]
    assert app.invoke({}, on("u"), interrupt_before=[])["log"] == ["a", "b", "c"]


def test_a_new_input_at_a_stop_begins_anew(store: EventStore) -> None:
    app = steps("abc", store, interrupt_before=["b"])
    app.invoke({"log": ["x"]}, on("t"))
    assert app.invoke({"log": ["y"]}, on("t"))["log"] == ["x", "a", "y", "a"]
    assert app.get_state(on("t")).next == ("b",)


def test_going_back_to_a_stop(store: EventStore) -> None:
    app = steps("abc", store, interrupt_before=["b"])
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    app.invoke(None, on("t"))
    assert app.invoke(None, stop.config)["log"] == ["a", "b", "c"]


def test_a_stop_before_one_of_several(store: EventStore) -> None:
    calls = Calls()
    graph = StateGraph(Trail)
    for name in "ab":
        graph.add_node(name, logs(name, calls))
        graph.add_edge(START, name)
    app = graph.compile(store, interrupt_before=["b"])
    assert app.invoke({}, on("t"))["log"] == []
    assert calls.counts == {}, "none of the superstep runs"
    assert app.get_state(on("t")).next == ("a", "b")
    assert app.invoke(None, on("t"))["log"] == ["a", "b"]


def test_a_loop_stops_every_time(store: EventStore) -> None:
    graph = StateGraph(Trail)
    graph.add_node("a", logs("a"))
    graph.add_node("ask", logs("ask"))
    graph.add_edge(START, "a")
    graph.add_edge("a", "ask")
    graph.add_edge("ask", "a")
    app = graph.compile(store, interrupt_before=["ask"])
    for turn in range(4):
        log = app.invoke(None if turn else {}, on("t"))["log"]
        assert log == ["a", *["ask", "a"] * turn]


def test_a_stream_ends_at_the_stop(store: EventStore) -> None:
    app = steps("abc", store, interrupt_after=["a"])
    assert list(app.stream({}, on("t"), stream_mode="updates")) == [
        {"a": {"log": ["a"], "total": 1}},
        {"__interrupt__": ()},
    ]
    assert len(list(app.stream(None, on("t"), stream_mode="updates"))) == 2


def test_an_unknown_node(store: EventStore) -> None:
    with pytest.raises(InvalidGraphError, match="nobody"):
        steps("a", store, interrupt_before=["nobody"])


def test_another_process_resumes(store: EventStore) -> None:
    """Nothing of a stop is in memory: another compiled graph goes on."""

    def compiled() -> CompiledGraph:
        return steps("abc", store, interrupt_before=["c"])

    compiled().invoke({}, on("t"))
    assert [info.thread_id for info in store.threads(status="waiting")] == ["t"]
    assert compiled().invoke(None, on("t"))["log"] == ["a", "b", "c"]
    assert store.threads(status="waiting") == []


def test_an_edit_is_no_answer(store: EventStore) -> None:
    app = steps("ab", store, interrupt_before=["b"])
    app.invoke({}, on("t"))
    with pytest.raises(InvalidUpdateError, match="resume"):
        app.update_state(on("t"), Command(resume="yes", update={"note": "x"}))
    assert store.head("t").seq == 2
