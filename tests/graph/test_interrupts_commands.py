"""A ``Command`` as input to a thread that waits: updates, gotos and resume values together."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    InvalidUpdateError,
    Send,
    StateGraph,
    interrupt,
)
from tests.graph.interrupt_support import nothing_recorded, only, shown, waiting
from tests.graph.kit import (
    Calls,
    Trail,
    asks,
    logs,
    on,
)


def commanded(store: Any, calls: Calls | None = None, **options: Any) -> CompiledGraph:
    """START → ask → after; ``other`` and ``sent`` are reached by commands alone."""
    declared = StateGraph(Trail)
    declared.add_node("ask", asks("ask", calls), destinations=("other", "sent"))
    declared.add_node("after", logs("after", calls))
    declared.add_node("other", logs("other", calls))
    declared.add_node("sent", lambda arg: {"log": [arg]})
    declared.add_edge(START, "ask")
    declared.add_edge("ask", "after")
    return declared.compile(store, **options)


def test_an_answer_with_an_update_and_somewhere_to_go(store: EventStore) -> None:
    app = commanded(store)
    app.invoke({}, on("t"))
    command: Command[str] = Command(
        resume="yes", update={"note": "by me"}, goto=["other", Send("sent", "extra")]
    )
    assert app.invoke(command, on("t")) == {
        "log": [["ask", "yes"], "other", "extra", "after"],
        "total": 2,
        "note": "by me",
    }


def test_an_update_is_seen_by_the_node_that_is_answered(store: EventStore) -> None:
    app = only(lambda state: {"log": [interrupt("?"), state.get("note")]}, store)
    app.invoke({}, on("t"))
    assert app.invoke(Command(resume=1, update={"note": "seen"}), on("t"))["log"] == [1, "seen"]


def test_commands_without_an_answer_on_a_thread_that_waits(store: EventStore) -> None:
    """The question stays; what the command wants is done beside it."""
    app = commanded(store)
    app.invoke({}, on("t"))
    (question,) = waiting(app, on("t")).values()
    result = app.invoke(Command(update={"note": "n"}), on("t"))
    assert (result["note"], shown(result)) == ("n", ["ask0"])
    result = app.invoke(Command(goto="other"), on("t"))
    assert (result["log"], shown(result)) == (["other"], ["ask0"])
    assert store.thread("t").status == "waiting"
    assert app.get_state(on("t")).next == ("ask",)
    assert app.invoke(Command(resume={question: 1}), on("t"))["log"] == [
        ["ask", 1],
        "other",
        "after",
    ]


def test_commands_on_a_thread_that_stopped_before_a_node(store: EventStore) -> None:
    app = commanded(store, interrupt_before=["after"])
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    assert app.get_state(on("t")).next == ("after",)
    assert app.invoke(Command(goto="other", update={"note": "n"}), on("t")) == {
        "log": [["ask", 1], "after", "other"],
        "total": 2,
        "note": "n",
    }


def test_commands_on_a_thread_that_has_finished(store: EventStore) -> None:
    """They go where they say and nowhere else: START's edges are for inputs."""
    calls = Calls()
    app = commanded(store, calls)
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    asked = calls.counts["ask"]
    assert app.invoke(Command(update={"note": "n"}), on("t"))["note"] == "n"
    assert app.invoke(Command(goto="other"), on("t"))["log"] == [["ask", 1], "after", "other"]
    assert calls.counts["ask"] == asked
    assert app.get_state(on("t")).next == ()


def test_commands_on_a_new_thread(store: EventStore) -> None:
    app = commanded(store)
    result = app.invoke(Command(update={"note": "n"}, goto="other"), on("t"))
    assert (result["note"], result["log"], shown(result)) == ("n", ["other"], ["ask0"])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (Command(resume=1, goto="nowhere"), "nowhere"),
        (Command(resume=1, update={"typo": 1}), "typo"),
        (Command(resume=1, graph=Command.PARENT), "subgraphs"),
    ],
    ids=["goto", "update", "graph"],
)
def test_commands_that_do_not_fit(
    blocking_store: EventStore, command: Command[str], said: str
) -> None:
    app = commanded(blocking_store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=said):
        app.invoke(command, on("t"))
    assert shown(app.invoke(None, on("t"))) == ["ask0"]


def test_a_new_input_drops_the_question(store: EventStore) -> None:
    app = commanded(store)
    app.invoke({"note": "first"}, on("t"))
    old = waiting(app, on("t"))
    assert shown(app.invoke({"note": "second"}, on("t"))) == ["ask0"]
    assert waiting(app, on("t")) != old
    with pytest.raises(InvalidUpdateError, match=old["ask0"]):
        app.invoke(Command(resume={old["ask0"]: 1}), on("t"))
    assert app.invoke(Command(resume=1), on("t"))["note"] == "second"
