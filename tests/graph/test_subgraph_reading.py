"""States, history, events and snapshots of subgraphs."""

from __future__ import annotations

import operator
import random
from typing import Annotated, Any, TypedDict

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    RunnableConfig,
    StateGraph,
)
from graph.state.namespaces import called
from tests.graph.kit import id_of, on
from tests.graph.nesting import Walk, child_of, inside
from tests.graph.subgraph_support import C, asking, history, source_of


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
    place = inside(on("u"), child.config["configurable"]["checkpoint_ns"])
    sources = [source_of(each) for each in history(app, place)]
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
    assert list(app.get_state_history(child, before=found[2].config, every=True)) == found[3:]


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


def test_logs_of_graphs_without_a_name_keep_the_name_that_databases_have() -> None:
    assert StateGraph(Count).add_node("n", lambda state: {}).add_edge(START, "n").compile().name
    assert called("node", "LangGraph") == "node/graph" and called("node", "x:y") == "node/x_y"
