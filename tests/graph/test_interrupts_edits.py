"""Edits of a thread that waits: approving, rejecting, and answering in a node's name."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidUpdateError,
    StateUpdate,
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


def reviewed(store: Any, calls: Calls | None = None) -> CompiledGraph:
    """write → review (shows the note) → publish."""

    def review(state: Trail) -> dict[str, Any]:
        if calls is not None:
            calls.add("review")
        return {"log": [interrupt(state.get("note"))]}

    nodes = {
        "write": lambda state: {"note": "draft"},
        "review": review,
        "publish": logs("publish", calls),
    }
    return in_line(nodes, store)


def test_approving(store: EventStore) -> None:
    app = reviewed(store)
    assert shown(app.invoke({}, on("t"))) == ["draft"]
    assert app.invoke(Command(resume="fine"), on("t"))["log"] == ["fine", "publish"]


def test_editing_asks_afresh(store: EventStore) -> None:
    app = reviewed(store)
    app.invoke({}, on("t"))
    old = waiting(app, on("t"))["draft"]
    app.update_state(on("t"), {"note": "better"})
    state = app.get_state(on("t"))
    assert (state.next, state.interrupts) == (("review",), ())
    assert store.thread("t").status == "waiting", "for somebody to let it go on"
    assert shown(app.invoke(None, on("t"))) == ["better"]
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=old):
        app.invoke(Command(resume={old: "fine"}), on("t"))
    assert app.invoke(Command(resume="fine"), on("t"))["log"] == ["fine", "publish"]


def test_an_edit_of_a_graph_with_one_node_asks_again(store: EventStore) -> None:
    app = only(lambda state: {"log": [interrupt(state["note"])]}, store)
    app.invoke({"note": "draft"}, on("t"))
    for text in ("better", "best"):
        app.update_state(on("t"), {"note": text})
        assert app.get_state(on("t")).next == ("ask",)
        assert store.thread("t").status == "waiting"
        assert shown(app.invoke(None, on("t"))) == [text]
    assert app.invoke(Command(resume="fine"), on("t"))["log"] == ["fine"]
    app.update_state(on("t"), {"note": "printed"})
    assert app.get_state(on("t")).next == (), "the node had written last"


def test_an_edit_of_a_graph_with_one_node_that_failed_runs_it_again(store: EventStore) -> None:
    def divide(state: Trail) -> dict[str, Any]:
        return {"total": 10 // len(state["note"])}

    app = only(divide, store)
    with pytest.raises(ZeroDivisionError):
        app.invoke({"note": ""}, on("t"))
    app.update_state(on("t"), {"note": "12345"})
    assert app.get_state(on("t")).next == ("ask",)
    assert app.invoke(None, on("t"))["total"] == 2


def test_rejecting_skips_the_node_that_asks(store: EventStore) -> None:
    calls = Calls()
    app = reviewed(store, calls)
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"log": ["by hand"]}, as_node="review")
    assert app.invoke(None, on("t"))["log"] == ["by hand", "publish"]
    assert calls.counts == {"review": 1, "publish": 1}


def test_ending_instead_of_answering(store: EventStore) -> None:
    app = reviewed(store)
    app.invoke({}, on("t"))
    app.update_state(on("t"), None, as_node=END)
    state = app.get_state(on("t"))
    assert (state.values["note"], state.next, state.interrupts) == ("draft", (), ())
    assert store.thread("t").status == "idle"


def test_an_edit_before_the_first_node_counts_as_input(store: EventStore) -> None:
    app = in_line({"ask": asks("ask"), "z": logs("z")}, store)
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"note": "edited"})
    assert app.get_state(on("t")).next == ("ask",)
    assert shown(app.invoke(None, on("t"))) == ["ask0"]


def test_an_edit_beside_a_finished_sibling_keeps_its_work(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"ask": asks("ask"), "done": logs("done", calls)}, store)
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"log": ["by hand"]}, as_node="ask")
    assert app.get_state(on("t")).next == ()
    assert app.invoke(None, on("t"))["log"] == ["done", "by hand"]
    assert calls.counts == {"done": 1}


def test_whose_an_edit_is_beside_finished_siblings_has_to_be_said(store: EventStore) -> None:
    """Guessing would take the question back without a word."""
    app = side_by_side({"a": logs("a"), "ask": asks("ask")}, store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="interrupts are pending"):
        app.update_state(on("t"), {"note": "edited"})
    assert len(app.invoke(Command(update={"note": "edited"}), on("t"))["__interrupt__"]) == 1
    assert app.invoke(Command(resume="y"), on("t"))["note"] == "edited"


def test_whose_an_edit_is_beside_a_failed_sibling_has_to_be_said(store: EventStore) -> None:
    """Taken for the finished node's, the edit would drop the failed one without a word."""

    def reads(state: Trail) -> dict[str, Any]:
        return {"log": [state["note"].upper()]}

    app = side_by_side({"a": logs("a"), "reads": reads}, store)
    with pytest.raises(KeyError):
        app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="'reads' did not finish"):
        app.update_state(on("t"), {"note": "edited"})
    assert app.invoke(Command(update={"note": "said"}), on("t"))["log"] == ["a", "SAID"]


def test_several_edits_at_once(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "b": asks("b"), "c": logs("c")}, store)
    app.invoke({}, on("t"))
    config = app.bulk_update_state(
        on("t"),
        [
            [StateUpdate({"note": "one"}, "a")],
            [StateUpdate({"log": ["b by hand"]}, "b"), StateUpdate({"log": ["c by hand"]}, "c")],
        ],
    )
    state = app.get_state(on("t"))
    assert config == state.config
    assert state.next == ("c",), "b leads there, c to the end"
    assert state.values == {"log": ["a", "b by hand", "c by hand"], "total": 1, "note": "one"}
    latest = app.get_state_history(on("t"), limit=3, every=True)
    assert [each.metadata and each.metadata["step"] for each in latest] == [3, 2, 1]
    assert app.invoke(None, on("t"))["log"][-1] == "c"


def test_edits_begin_a_thread(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "b": asks("b")}, store)
    app.bulk_update_state(on("t"), [[StateUpdate({"note": "n"}, START)], [StateUpdate({}, "a")]])
    assert app.get_state(on("t")).next == ("b",)
    assert shown(app.invoke(None, on("t"))) == ["b0"]


@pytest.mark.parametrize(
    ("supersteps", "error", "said"),
    [
        ([], InvalidConfigError, "nothing to update"),
        ([[]], InvalidConfigError, "nothing to update"),
        ([[StateUpdate({}, "nobody")]], InvalidUpdateError, "nobody"),
        ([[StateUpdate({"typo": 1}, "a")]], InvalidUpdateError, "typo"),
        ([[StateUpdate({}), StateUpdate({})]], InvalidUpdateError, "as_node"),
        (
            [[StateUpdate({"note": "x"}, "a"), StateUpdate({"note": "y"}, "b")]],
            InvalidUpdateError,
            "'note' was written twice",
        ),
    ],
    ids=["none", "empty", "node", "key", "whose", "twice"],
)
def test_edits_that_are_refused(
    blocking_store: EventStore,
    supersteps: list[list[StateUpdate]],
    error: type[Exception],
    said: str,
) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b")}, blocking_store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(error, match=said):
        app.bulk_update_state(on("t"), supersteps)
    assert list(waiting(app, on("t"))) == ["a0", "b0"]


def test_of_several_edits_those_before_a_refused_one_are_kept(store: EventStore) -> None:
    app = only(asks("ask"), store)
    app.invoke({}, on("t"))
    with pytest.raises(InvalidUpdateError, match="typo"):
        app.bulk_update_state(
            on("t"), [[StateUpdate({"note": "kept"}, START)], [StateUpdate({"typo": 1}, START)]]
        )
    assert app.get_state(on("t")).values["note"] == "kept"


def test_an_answer_after_an_edit_is_for_the_question_that_comes(store: EventStore) -> None:
    calls = Calls()
    app = reviewed(store, calls)
    app.invoke({"log": []}, on("t"))
    app.update_state(on("t"), {"note": "edited"})
    chunks = list(app.stream(Command(resume="yes"), on("t"), stream_mode=["values", "updates"]))
    assert ("updates", {"review": {"log": ["yes"]}}) in chunks
    assert not any("__interrupt__" in chunk for _, chunk in chunks)
    assert app.get_state(on("t")).values["log"] == ["yes", "publish"]
    recorded = [entry.kind for entry in app.events(on("t"))]
    assert recorded[-5:] == ["update", "interrupt", "resume", "output", "output"]
    assert app.verify(on("t")).ok and app.check_replay(on("t")).ok


def test_of_several_questions_that_come_none_is_answered_by_one_value(store: EventStore) -> None:
    app = side_by_side({"a": asks("a?"), "b": asks("b?")}, store)
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"note": "edited"}, as_node=START)
    found = app.invoke(Command(resume="yes"), on("t"))
    assert sorted(each.value for each in found["__interrupt__"]) == ["a?0", "b?0"]


def test_an_answer_does_not_wait_for_a_later_superstep(store: EventStore) -> None:
    nodes = {"first": logs("first"), "ask": asks("?")}
    app = in_line(nodes, store)
    app.invoke({}, on("t"), interrupt_before=["first"])
    assert app.invoke(Command(resume="early"), on("t"))["__interrupt__"]
