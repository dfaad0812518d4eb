"""What a graph's users see of a thread that was trimmed: all of it from the base on."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore import EventStore, PositionNotFoundError
from graph import START, Command, CompiledGraph, StateGraph, interrupt
from graph.errors import InvalidConfigError
from tests.graph.kit import Trail, id_of, on


def chat(store: EventStore, **more: Any) -> CompiledGraph:
    """Two nodes; each appends its name and what it saw of the note."""
    graph = StateGraph(Trail)
    graph.add_node("a", lambda state: {"log": ["a"], "total": 1})
    graph.add_node("b", lambda state: {"log": [f"b {state.get('note')}"], "total": 10})
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    return graph.compile(store, snapshot_each_run=True, **more)


def runs(app: CompiledGraph, thread_id: str, count: int) -> None:
    for number in range(count):
        app.invoke({"note": f"n{number}"}, on(thread_id))


def history(app: CompiledGraph, thread_id: str) -> list[Any]:
    return [
        (id_of(each), each.values, each.next, each.metadata)
        for each in app.get_state_history(on(thread_id), every=True)
    ]


# --- where history is cut ---------------------------------------------------------------


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_each_run_brings_a_point(store: EventStore, durability: Any) -> None:
    app = chat(store)
    for number in range(3):
        app.invoke({"note": f"n{number}"}, on("t"), durability=durability)
    assert [(each.seq, each.step) for each in store.trim_points("t")] == [(3, 2), (6, 6), (9, 10)]
    assert app.verify(on("t")).ok
    assert store.trim("t", 9).base == 9
    assert app.get_state(on("t")).values["total"] == 33


def test_no_snapshot_where_something_is_left_to_run(store: EventStore) -> None:
    app = chat(store, interrupt_before=["b"])
    app.invoke({"note": "n"}, on("t"))
    assert store.trim_points("t") == []
    app.invoke(None, on("t"))
    assert [each.seq for each in store.trim_points("t")] == [3]


def test_a_snapshot_of_each_run_stores_only_what_was_added(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 30)
    stats = store.stats("t")
    assert stats.snapshots == 30
    assert stats.snapshot_bytes < 30 * 400


# --- readers ----------------------------------------------------------------------------


def test_history_ends_at_the_base_and_is_what_it_was(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 4)
    before = history(app, "t")
    store.trim("t", 6)
    after = history(app, "t")
    assert after == before[: len(after)]
    assert len(after) == 7
    *_, oldest = app.get_state_history(on("t"), every=True)
    assert oldest.parent_config is None
    for checkpoint, values, next_, _ in after:
        found = app.get_state(on("t", checkpoint))
        assert (found.values, found.next) == (values, next_)
    assert list(app.get_state_history(on("t"), before=oldest.config, every=True)) == []
    assert [entry.seq for entry in app.events(on("t"))] == [7, 8, 9, 10, 11, 12]
    assert app.verify(on("t")).ok
    assert app.check_replay(on("t")).ok
    app.rebuild(on("t"))
    assert history(app, "t") == after


def test_old_checkpoints_are_refused_and_say_where_history_begins(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 3)
    old = history(app, "t")[-2][0]
    store.trim("t", 6)
    told = "history of thread 't' begins at seq 6: earlier events were trimmed"
    for attempt in (
        lambda: app.get_state(on("t", old)),
        lambda: app.invoke(None, on("t", old)),
        lambda: app.invoke({"note": "x"}, on("t", old)),
        lambda: app.update_state(on("t", old), {"note": "x"}, as_node="a"),
        lambda: app.invoke(None, on("new", old)),
        lambda: app.replay(on("t"), upto=3),
    ):
        with pytest.raises(PositionNotFoundError, match=told):
            attempt()
    assert app.get_state(on("t")).values["total"] == 33


def test_a_trimmed_thread_runs_on_and_goes_back(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 3)
    whole = chat(store)
    runs(whole, "whole", 3)
    store.trim("t", 9)
    for thread in ("t", "whole"):
        app.invoke({"note": "later"}, on(thread))
    assert app.get_state(on("t")).values == app.get_state(on("whole")).values
    snapshots = {
        each.values["note"] + str(each.next): each
        for each in app.get_state_history(on("t"), every=True)
    }
    back = snapshots["later('b',)"]
    app.update_state(back.config, {"note": "changed"}, as_node="a")
    assert app.invoke(None, on("t"))["log"][-1] == "b changed"
    base = snapshots["n2()"]
    forked = app.invoke({"note": "from the base"}, on("f", id_of(base)))
    assert forked["total"] == 44
    assert len(history(app, "f")) == 5
    assert app.verify(on("t")).ok
    assert app.verify(on("f")).ok


def test_forks_keep_their_history_when_the_thread_is_trimmed(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 3)
    middle = history(app, "t")[4]
    app.invoke({"note": "branch"}, on("f", middle[0]))
    before = history(app, "f")
    store.trim("t", 9)
    after = history(app, "f")
    assert [each[1:] for each in after] == [each[1:] for each in before]
    for checkpoint, values, *_ in before:  # ids from before the trim mean the same
        if checkpoint != middle[0]:  # which means the branch itself, as it now stands
            assert app.get_state(on("f", checkpoint)).values == values
    assert app.verify(on("f")).ok


def test_a_trimmed_fork_does_not_know_its_origin(store: EventStore) -> None:
    app = chat(store)
    runs(app, "t", 1)
    origin = id_of(app.get_state(on("t")))
    app.invoke({"note": "x"}, on("f", origin))
    head = store.head("f").seq
    assert store.trim("f", head).base == head
    with pytest.raises(InvalidConfigError, match=f"begins at seq {head}, and what was before"):
        app.get_state(on("f", origin))
    assert app.get_state(on("f")).values["total"] == 22


# --- people -----------------------------------------------------------------------------


def test_a_thread_that_waits_can_be_answered_after_a_trim(store: EventStore) -> None:
    def ask(state: Trail) -> Trail:
        return {"log": [interrupt("well?")]}

    graph = StateGraph(Trail)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    app = graph.compile(store, snapshot_each_run=True)
    app.invoke({"note": "1"}, on("t"))
    app.invoke(Command(resume="one"), on("t"))
    app.invoke({"note": "2"}, on("t"))
    end = store.head("t").seq
    points = [each.seq for each in store.trim_points("t")]
    assert points == [4]  # where the first run ended: never at or behind what is asked
    assert store.trim("t", end).base == 4
    (asked,) = app.get_state(on("t")).interrupts
    assert asked.value == "well?"
    assert app.invoke(Command(resume="two"), on("t"))["log"] == ["one", "two"]
    assert app.verify(on("t")).ok


# --- subgraphs --------------------------------------------------------------------------


def test_logs_of_subgraphs_go_with_their_supersteps(store: EventStore) -> None:
    def ask(state: Trail) -> Trail:
        return {"log": [f"answer {interrupt('well?')}"]}

    deep = StateGraph(Trail).add_node("ask", ask).add_edge(START, "ask")
    inner = StateGraph(Trail).add_node("deep", deep.compile()).add_edge(START, "deep")
    memory = StateGraph(Trail).add_node("note", lambda state: {"log": ["noted"]})
    memory.add_edge(START, "note")
    graph = StateGraph(Trail)
    graph.add_node("inner", inner.compile())
    graph.add_node("memory", memory.compile(checkpointer=True))
    graph.add_edge(START, "inner")
    graph.add_edge("inner", "memory")
    app = graph.compile(store, snapshot_each_run=True)
    for number in range(3):
        app.invoke({"note": str(number), "log": []}, on("t"))
        if number < 2:
            app.invoke(Command(resume=number), on("t"))
    points = [each.seq for each in store.trim_points("t")]
    names = set(store.verify("t").namespaces)
    trimmed = store.trim("t", points[-1])
    assert trimmed.logs == 4
    gone = names - set(store.verify("t").namespaces)
    assert len(gone) == 4
    assert all(name.startswith("inner:") for name in gone)
    (task,) = app.get_state(on("t"), subgraphs=True).tasks
    assert task.state is not None
    assert task.state.tasks[0].interrupts[0].value == "well?"
    for name in gone:
        place = {"thread_id": "t", "checkpoint_ns": name}
        assert app.get_state({"configurable": place}).values == {}
    out = app.invoke(Command(resume=2), on("t"))
    assert out["log"][-1] == "noted"
    assert app.verify(on("t")).ok
    assert app.check_replay(on("t")).ok
