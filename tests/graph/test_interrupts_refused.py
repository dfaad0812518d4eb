"""Resume values and interrupts that are refused, and what the errors say."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore, SerializationError
from graph import (
    START,
    Command,
    EmptyInputError,
    GraphInterrupt,
    InvalidGraphError,
    InvalidUpdateError,
    StateGraph,
    interrupt,
)
from tests.graph.interrupt_support import in_line, nothing_recorded, only, shown, waiting
from tests.graph.kit import (
    Calls,
    Trail,
    asks,
    logs,
    on,
    side_by_side,
)


def test_an_answer_to_nothing(store: EventStore) -> None:
    app = in_line({"ask": asks("ask"), "z": logs("z")}, store, interrupt_before=["z"])
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    app.invoke(Command(resume="again"), on("t"))  # stopped before a node: any value goes on
    assert app.get_state(on("t")).next == ()
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=r"invoke\(None") as e:
        app.invoke(Command(resume="again"), on("t"))
    assert "no interrupt" in str(e.value)


def test_an_answer_to_an_unknown_question(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b")}, store)
    app.invoke({}, on("t"))
    for question in waiting(app, on("t")).values():
        unknown = {question: 1, "0" * 32: 2}
        with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="0" * 32) as caught:
            app.invoke(Command(resume=unknown), on("t"))
        assert question in str(caught.value), "it names those that there are"


@pytest.mark.parametrize("answer", ["yes", {"approved": True}, {}, False], ids=repr)
def test_one_answer_to_several_questions(blocking_store: EventStore, answer: Any) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b")}, blocking_store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="2 interrupts") as caught:
        app.invoke(Command(resume=answer), on("t"))
    for value, question in waiting(app, on("t")).items():
        assert value in str(caught.value)
        assert question in str(caught.value)


def test_answering_twice(store: EventStore) -> None:
    app = in_line({"a": asks("a"), "b": asks("b")}, store)
    app.invoke({}, on("t"))
    question = waiting(app, on("t"))["a0"]
    app.invoke(Command(resume={question: 1}), on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=question):
        app.invoke(Command(resume={question: 1}), on("t"))


def test_a_thread_that_never_ran(store: EventStore) -> None:
    app = only(asks("ask"), store)
    nothing: list[Any] = [Command(resume=1), None]
    for given_now in nothing:
        with pytest.raises(EmptyInputError, match="pass an input"):
            app.invoke(given_now, on("t"))
    assert store.threads() == []


def test_a_command_that_says_nothing(store: EventStore) -> None:
    """``None`` as the answer looks the same; naming the question makes it one."""
    app = only(asks("ask"), store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(EmptyInputError, match=r"resume=\{id: None\}"):
        app.invoke(Command(resume=None), on("t"))
    (question,) = waiting(app, on("t")).values()
    assert app.invoke(Command(resume={question: None}), on("t"))["log"] == [["ask", None]]


def test_asking_outside_of_a_node(store: EventStore) -> None:
    with pytest.raises(InvalidGraphError, match="outside a running node"):
        interrupt("?")
    declared = StateGraph(Trail).add_node("a", logs("a"))
    declared.add_conditional_edges(START, lambda state: interrupt("where?"), ["a"])
    with pytest.raises(InvalidGraphError, match="outside a running node"):
        declared.compile(store).invoke({}, on("t"))
    assert store.threads() == []


def swallowing(what: str) -> Any:
    try:
        return interrupt(what)
    except BaseException:
        return "z"


@pytest.mark.parametrize("where", ["node", "edge"])
def test_a_question_that_is_swallowed(store: EventStore, where: str) -> None:
    def node(state: Trail) -> dict[str, Any]:
        return {"log": [swallowing("?")]} if where == "node" else {}

    declared = StateGraph(Trail).add_node("ask", node).add_node("z", logs("z"))
    declared.add_edge(START, "ask")
    declared.add_conditional_edges(
        "ask", lambda state: "z" if where == "node" else swallowing("?"), ["z"]
    )
    app = declared.compile(store)
    with pytest.raises(InvalidGraphError, match=r"'ask'.*except BaseException"):
        app.invoke({}, on("t"))
    assert app.get_state(on("t")).values == {"log": [], "total": 0}
    assert app.get_state(on("t")).next == ("ask",)


def test_what_is_caught_may_be_raised_again(store: EventStore) -> None:
    def node(state: Trail) -> dict[str, Any]:
        try:
            return {"log": [interrupt("?")]}
        except GraphInterrupt:
            raise

    app = only(node, store)
    assert shown(app.invoke({}, on("t"))) == ["?"]


class Unknown:
    pass


def test_a_question_that_cannot_be_stored(store: EventStore) -> None:
    """It is named, and what its siblings did and ask is kept."""
    calls = Calls()
    mended: list[Any] = []

    def bad(state: Trail) -> dict[str, Any]:
        return {"log": [interrupt({"what": [mended[0] if mended else Unknown()]})]}

    nodes = {"ask": asks("ask", calls), "bad": bad, "done": logs("done", calls)}
    app = side_by_side(nodes, store)
    with pytest.raises(SerializationError, match=r"value\.what\[0\].*Unknown") as caught:
        app.invoke({}, on("t"))
    assert any("'bad'" in line for line in caught.value.__notes__)
    state = app.get_state(on("t"))
    assert state.next == ("ask", "bad")
    assert [each.value for each in state.interrupts] == ["ask0"]
    mended.append("a word")
    assert shown(app.invoke(Command(resume=1), on("t"))) == [{"what": ["a word"]}]
    assert app.invoke(Command(resume=2), on("t"))["log"] == [["ask", 1], 2, "done"]
    assert calls.counts == {"ask": 2, "done": 1}


def test_an_answer_that_cannot_be_stored(store: EventStore) -> None:
    app = only(asks("ask"), store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(SerializationError, match="Unknown"):
        app.invoke(Command(resume=Unknown()), on("t"))
    assert app.invoke(Command(resume=1), on("t"))["log"] == [["ask", 1]]


def test_without_a_checkpointer_a_question_is_shown_and_nothing_more() -> None:
    app = in_line({"a": logs("a"), "ask": asks("ask")}, None)
    result = app.invoke({})
    assert shown(result) == ["ask0"]
    assert result["log"] == ["a"]
    nothing: list[Any] = [Command(resume=1), None]
    for given_now in nothing:
        with pytest.raises(EmptyInputError, match="checkpointer"):
            app.invoke(given_now)
    assert {"__interrupt__": tuple(result["__interrupt__"])} in list(app.stream({}))
