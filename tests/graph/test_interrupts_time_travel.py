"""Going back to an interrupt: other answers, other threads, and the checkpoint before it."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    InvalidUpdateError,
    StateGraph,
    StateSnapshot,
    interrupt,
)
from tests.graph.interrupt_support import (
    in_line,
    kinds,
    nothing_recorded,
    only,
    shown,
    stops,
    waiting,
)
from tests.graph.kit import (
    Boom,
    Calls,
    Trail,
    asks,
    id_of,
    logs,
    on,
    replayed,
    side_by_side,
    standing,
)


def unplaced(snapshot: StateSnapshot) -> StateSnapshot:
    """Without its source and parent, which depend on what a history lists."""
    return snapshot._replace(metadata=None, parent_config=None)


def test_every_stop_can_be_gone_back_to(store: EventStore) -> None:
    app = only(asks("q", questions=3), store)
    app.invoke({}, on("t"))
    for n in range(3):
        app.invoke(Command(resume=n), on("t"))
    found = stops(app)
    assert [each.interrupts[0].value for each in found] == ["q0", "q1", "q2"]
    for each in found:
        assert unplaced(app.get_state(each.config)) == unplaced(each)
        assert each.next == ("ask",)
    assert [each.parent_config for each in found[1:]] == [each.config for each in found[:-1]]
    result = app.invoke(Command(resume="other"), found[1].config)
    assert shown(result) == ["q2"]
    assert app.invoke(Command(resume="end"), on("t"))["log"] == [["q", 0, "other", "end"]]
    assert len(stops(app)) == 5, "the stops left behind, the one gone back to, and the new one"


def test_another_answer_at_a_stop_does_not_run_finished_siblings_again(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "done": logs("done", calls)}, store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    assert app.invoke(Command(resume="yes"), on("t"))["log"] == [["a", "yes"], "done"]
    assert app.invoke(Command(resume="no"), stop.config)["log"] == [["a", "no"], "done"]
    assert calls.counts == {"a": 3, "done": 1}
    assert kinds(app)[-3:] == ["fork", "resume", "output"]
    assert app.verify(on("t")).ok


def test_a_stop_reads_the_same_once_it_is_past(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "done": logs("done")}, store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    app.invoke(Command(resume="yes"), on("t"))
    past = app.get_state(stop.config)
    assert (past.values, past.next, past.interrupts) == (stop.values, stop.next, stop.interrupts)
    assert [task.result for task in past.tasks] == [
        {"log": [["a", "yes"]]},
        {"log": ["done"], "total": 1},
    ]
    every = app.get_state_history(on("t"), every=True)
    assert unplaced(past) in [unplaced(each) for each in every]


def test_answers_one_by_one_make_a_stop_each(store: EventStore) -> None:
    """So each can be taken back by itself."""
    app = side_by_side({name: asks(name) for name in "abc"}, store)
    app.invoke({}, on("t"))
    first = app.get_state(on("t"))
    asked = waiting(app, on("t"))
    app.invoke(Command(resume={asked["b0"]: 1}), on("t"))
    second = app.get_state(on("t"))
    assert id_of(first) != id_of(second)
    app.invoke(Command(resume={asked["c0"]: 2}), on("t"))
    app.invoke(Command(resume=3), on("t"))

    result = app.invoke(Command(resume={asked["c0"]: "other"}), second.config)
    assert (shown(result), result["log"]) == (["a0"], [["b", 1], ["c", "other"]])
    result = app.invoke(Command(resume={asked["b0"]: "other"}), first.config)
    assert (shown(result), result["log"]) == (["a0", "c0"], [["b", "other"]])


def test_another_answer_after_one_that_made_the_node_fail(store: EventStore) -> None:
    def node(state: Trail) -> dict[str, Any]:
        return {"log": [10 // interrupt("divide by?")]}

    app = only(node, store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    with pytest.raises(ZeroDivisionError):
        app.invoke(Command(resume=0), on("t"))
    with pytest.raises(ZeroDivisionError):
        app.invoke(None, on("t"))
    assert shown(app.invoke(None, stop.config)) == ["divide by?"], "without the answer given since"
    assert app.invoke(Command(resume=5), stop.config)["log"] == [2]
    assert store.thread("t").status == "idle"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_stop_asks_again_whatever_was_answered_since(store: EventStore, depth: int) -> None:
    """As in LangGraph, whether the run that was answered went on, failed, or died."""
    failing = True

    def node(state: Trail) -> dict[str, Any]:
        answer = interrupt("q")
        if failing:
            raise Boom(answer)
        return {"log": [answer]}

    graph = StateGraph(Trail).add_node("n", node).add_edge(START, "n")
    for _ in range(depth):
        graph = StateGraph(Trail).add_node("n", graph.compile()).add_edge(START, "n")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    with pytest.raises(Boom):
        app.invoke(Command(resume="no"), on("t"))
    for _ in range(2):
        assert shown(app.invoke(None, stop.config)) == ["q"]
    failing = False
    assert app.invoke(Command(resume="yes"), on("t"))["log"] == ["yes"]
    assert app.verify(on("t")).ok


def test_an_edit_of_a_stop_keeps_what_was_answered_since(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b"), "z": logs("z")}, store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    asked = waiting(app, on("t"))
    app.invoke(Command(resume={asked["a0"]: 1}), on("t"))
    app.update_state(app.get_state(on("t")).config, {"note": "n"}, as_node="b")
    assert app.get_state(on("t")).values["log"] == [["a", 1], "z"]
    assert app.get_state(stop.config).values["log"] == ["z"]


def test_a_stop_gone_back_to_without_an_answer_asks_again(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "done": logs("done", calls)}, store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t"))
    app.invoke(Command(resume=1), on("t"))
    assert shown(app.invoke(None, stop.config)) == ["a0"]
    assert calls.counts == {"a": 3, "done": 1}
    assert store.thread("t").status == "waiting"
    assert app.invoke(Command(resume=2), on("t"))["log"] == [["a", 2], "done"]


def test_the_checkpoint_before_a_stop_runs_everything_afresh(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "done": logs("done", calls)}, store)
    app.invoke({}, on("t"))
    old = waiting(app, on("t"))
    app.invoke(Command(resume=1), on("t"))
    before = app.get_state(stops(app)[0].parent_config or {})
    assert before.interrupts == ()
    assert before.next == ("a", "done")
    assert shown(app.invoke(None, before.config)) == ["a0"]
    assert calls.counts == {"a": 3, "done": 2}
    assert waiting(app, on("t")) != old
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="no interrupt"):
        app.invoke(Command(resume=2), before.config)


def test_a_stop_in_another_thread(store: EventStore) -> None:
    """With another answer there, and going on when the thread that it came from is deleted."""
    calls = Calls()
    nodes = {"a": asks("a", calls, 2), "done": logs("done", calls)}
    app = side_by_side(nodes, store)
    app.invoke({}, on("t"))
    app.invoke(Command(resume="one"), on("t"))
    stop = app.get_state(on("t"))
    app.invoke(Command(resume="two"), on("t"))

    place = on("new", id_of(stop))
    app.update_state(on("edited", id_of(stops(app)[0])), {"note": "n"}, as_node=START)
    assert app.invoke(Command(resume="other"), place)["log"] == [["a", "one", "other"], "done"]
    assert shown(app.invoke(None, on("asks again", id_of(stop)))) == ["a1"]
    store.delete_thread("t")
    assert app.invoke(Command(resume=3), on("asks again"))["log"] == [["a", "one", 3], "done"]
    assert shown(app.invoke(None, on("edited"))) == ["a0"]
    for name in ("new", "asks again", "edited"):
        assert app.verify(on(name)).ok
        assert replayed(app, name, snapshots=False) == standing(app, on(name))
    (again, *_) = [each for each in app.get_state_history(on("new"), every=True) if each.interrupts]
    assert app.invoke(Command(resume="last"), again.config)["log"] == [["a", "one", "last"], "done"]
    assert calls.counts["done"] == 2, "in `t`, and where the edit let everything begin anew"


def test_a_loop_that_asks_each_time_round(store: EventStore) -> None:
    declared = StateGraph(Trail).add_node("ask", asks("ask"))
    declared.add_edge(START, "ask")
    declared.add_conditional_edges("ask", lambda s: "ask" if s["log"][-1][1] else END, ["ask", END])
    app = declared.compile(store)
    app.invoke({}, on("t"))
    for answer in (1, 2, 3, 0):
        app.invoke(Command(resume=answer), on("t"))
    found = stops(app)
    assert [len(each.values["log"]) for each in found] == [0, 1, 2, 3]
    assert len({each.interrupts[0].id for each in found}) == 4
    assert app.invoke(Command(resume=False), found[2].config)["log"] == [
        ["ask", 1],
        ["ask", 2],
        ["ask", False],
    ]


def test_a_stop_before_a_node_that_then_asks(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "ask": asks("ask")}, store, interrupt_before=["ask"])
    assert shown(app.invoke({}, on("t"))) == []
    assert shown(app.invoke(None, on("t"))) == ["ask0"]
    assert app.invoke(Command(resume=1), on("t"))["log"] == ["a", ["ask", 1]]
