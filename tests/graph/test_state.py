"""Looking at a thread and editing it: ``get_state``, ``get_state_history``, ``update_state``."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidUpdateError,
    MemorySaver,
    Send,
    StateGraph,
    StateSnapshot,
)
from graph.read.history import BLOCK
from tests.graph.kit import Trail, id_of, logs, on, shape, steps


@pytest.fixture
def app(store: EventStore) -> CompiledGraph:
    return steps("abc", store)


def history(app: CompiledGraph, **options: Any) -> list[StateSnapshot]:
    return list(app.get_state_history(on("t"), **options, every=True))


# --- get_state --------------------------------------------------------------------------


def test_a_thread_that_is_not_there(app: CompiledGraph, store: EventStore) -> None:
    state = app.get_state(on("t"))
    assert (state.values, state.next, state.tasks) == ({}, (), ())
    assert (state.metadata, state.created_at, state.parent_config) == (None, None, None)
    assert state.config["configurable"]["thread_id"] == "t"
    assert history(app) == []
    assert store.threads() == []


def test_a_state_says_all_it_should(store: EventStore) -> None:
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal at
        at += timedelta(seconds=1)
        return at

    store.core._clock = clock
    app = steps("abc", store, interrupt_before=["c"])
    app.invoke({"log": ["x"]}, on("t", metadata={"user": "alice"}, run_id="r"))
    state = app.get_state(on("t"))
    assert state.values == {"log": ["x", "a", "b"], "total": 2}
    assert state.next == ("c",)
    placed = {"source": "loop", "step": 2, "parents": {}, "run_id": "r"}
    assert state.metadata == {"user": "alice", **placed}
    assert state.created_at and datetime.fromisoformat(state.created_at).year == 2024
    assert [(task.name, task.error, task.result) for task in state.tasks] == [("c", None, None)]
    assert state.parent_config == history(app)[1].config
    assert app.get_state(state.config) == state
    assert [s.created_at for s in history(app)] == sorted(
        (s.created_at for s in history(app)), key=str, reverse=True
    )


def test_every_entrys_config_reads_the_same_state(app: CompiledGraph) -> None:
    app.invoke({"log": ["x"]}, on("t"))
    app.update_state(on("t"), {"note": "n"}, as_node="a")
    app.invoke(None, on("t"))
    app.invoke({"log": ["y"]}, on("t"))
    entries = list(app.get_state_history(on("t")))
    assert (len(entries), len(history(app))) == (13, 11)
    for entry, before in zip(entries, [*entries[1:], None], strict=True):
        assert app.get_state(entry.config) == entry
        assert entry.parent_config == (before and before.config)
        # Only thread_id and checkpoint_id matter.
        assert app.get_state(on("t", id_of(entry))).values == entry.values


def test_ids_sort_by_age(app: CompiledGraph) -> None:
    for _ in range(6):
        app.invoke({}, on("t"))
    ids = [id_of(entry) for entry in history(app)]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == 24


def test_a_reading_call_writes_nothing(app: CompiledGraph, store: EventStore) -> None:
    app.invoke({}, on("t"))
    before = store.stats("t"), store.thread("t")
    app.get_state(on("t"))
    history(app)
    list(app.events(on("t")))
    app.verify(on("t"))
    assert (store.stats("t"), store.thread("t")) == before


# --- history ----------------------------------------------------------------------------


def test_limit_and_before(app: CompiledGraph) -> None:
    app.invoke({}, on("t"))
    app.invoke({}, on("t"))
    everything = history(app)
    assert len(everything) == 8
    assert history(app, limit=3) == everything[:3]
    assert history(app, limit=0) == []
    assert history(app, limit=99) == everything
    for number, entry in enumerate(everything):
        assert history(app, before=entry.config) == everything[number + 1 :]
    assert history(app, before=everything[2].config, limit=2) == everything[3:5]


def test_before_in_the_lineage_of_a_fork(app: CompiledGraph) -> None:
    app.invoke({}, on("main"))
    at = list(app.get_state_history(on("main"), every=True))[1]
    app.update_state(on("t", id_of(at)), {"note": "n"})
    everything = history(app)
    assert len(everything) == 5
    for number, entry in enumerate(everything):
        assert history(app, before=entry.config) == everything[number + 1 :]


def test_filter(app: CompiledGraph) -> None:
    app.invoke({}, on("t", metadata={"user": "alice"}))
    app.invoke({}, on("t", metadata={"user": "bob"}))
    app.update_state(on("t"), {"note": "n"}, as_node="b")

    def steps_of(**wanted: Any) -> list[int]:
        return [s.metadata["step"] for s in history(app, filter=wanted) if s.metadata]

    assert steps_of(source="input") == [5, 0]
    assert steps_of(source="update") == [9]
    assert steps_of(user="alice") == [3, 2, 1, 0]
    assert steps_of(user="alice", step=2) == [2]
    assert steps_of(user="carol") == []
    assert len(history(app, filter={})) == 9
    assert history(app, filter={"source": "loop"}, limit=2) == history(app)[1:3]


def test_entries_of_the_past_show_what_came_of_their_tasks(app: CompiledGraph) -> None:
    app.invoke({}, on("t"))
    after_a = history(app)[2]
    assert after_a.next == ("b",)
    assert [(t.name, t.result) for t in after_a.tasks] == [("b", {"log": ["b"], "total": 1})]
    assert app.get_state(after_a.config).tasks == after_a.tasks


def test_a_history_that_grows_while_it_is_read(app: CompiledGraph) -> None:
    app.invoke({}, on("t"))
    before = history(app)
    reading: Iterator[StateSnapshot] = app.get_state_history(on("t"), every=True)
    first = next(reading)
    app.invoke({}, on("t"))
    assert [first, *reading] == before


FOLDED = 0


def counting(left: int, right: int) -> int:
    global FOLDED
    FOLDED += 1
    return left + right


class Counted(TypedDict, total=False):
    count: Annotated[int, counting]
    log: Annotated[list[str], operator.add]


@pytest.mark.slow
def test_listing_a_thousand_checkpoints_folds_each_event_a_few_times() -> None:
    global FOLDED
    graph = StateGraph(Counted)
    graph.add_node("a", lambda state: {"count": 1, "log": [f"{state['count']}" + "x" * 300]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda s: END if s["count"] >= 999 else "a", ["a", END])
    with MemorySaver() as saver:
        app = graph.compile(saver)
        app.invoke({}, on("t", recursion_limit=1500))
        FOLDED = 0
        count = sum(1 for _ in app.get_state_history(on("t"), every=True))
        assert count == 1000
        assert 999 <= FOLDED <= 3 * count
        FOLDED = 0
        assert len(list(app.get_state_history(on("t"), limit=1, every=True))) == 1
        assert FOLDED <= 3 * BLOCK
        FOLDED = 0
        assert app.get_state(on("t")).values["count"] == 999
        assert FOLDED <= 1000


# --- update_state -----------------------------------------------------------------------


def test_an_update_goes_through_reducers_and_edges(app: CompiledGraph) -> None:
    app.invoke({"log": ["x"]}, on("t"))
    config = app.update_state(on("t"), {"log": ["edit"], "total": 10}, as_node="a")
    state = app.get_state(on("t"))
    assert state.config == config
    assert state.values == {"log": ["x", "a", "b", "c", "edit"], "total": 13}
    assert state.next == ("b",)
    assert state.metadata and (state.metadata["source"], state.metadata["step"]) == ("update", 4)
    assert app.invoke(None, on("t"))["log"][-3:] == ["edit", "b", "c"]


def test_an_update_of_a_new_thread_is_an_input(app: CompiledGraph) -> None:
    app.update_state(on("t"), {"log": ["x"]})
    assert app.get_state(on("t")).next == ("a",)
    assert app.invoke(None, on("t"))["log"] == ["x", "a", "b", "c"]


def test_whose_update_it_is(app: CompiledGraph) -> None:
    """By default the node's that wrote last; an update counts as its node's writing."""
    app.invoke({}, on("t"))
    app.update_state(on("t"), {"note": "1"})
    assert app.get_state(on("t")).next == ()
    app.update_state(on("t"), {"note": "2"}, as_node="a")
    app.update_state(on("t"), {"note": "3"})
    assert app.get_state(on("t")).next == ("b",)
    past = history(app)[-1]
    app.update_state(past.config, {"note": "4"})
    assert app.get_state(on("t")).next == ("a",)


def test_whose_update_it_is_when_several_wrote_last(store: EventStore) -> None:
    graph = StateGraph(Trail)
    for name in "ab":
        graph.add_node(name, logs(name))
        graph.add_edge(START, name)
    graph.add_node("c", logs("c"))
    graph.add_edge(["a", "b"], "c")
    app = graph.compile(store, interrupt_before=["c"])
    app.invoke({}, on("t"))
    with pytest.raises(InvalidUpdateError, match=r"a, b.*as_node"):
        app.update_state(on("t"), {"note": "n"})
    app.update_state(on("t"), {"note": "n"}, as_node="a")
    assert app.get_state(on("t")).values["note"] == "n"


def test_a_graph_of_one_node_needs_no_as_node(store: EventStore) -> None:
    app = steps("a", store)
    app.update_state(on("t"), {"log": ["x"]})
    assert app.get_state(on("t")).next == ("a",), "before anything ran an edit counts as input"
    app.invoke(None, on("t"))
    app.update_state(on("t"), {"log": ["y"]})
    assert app.get_state(on("t")).next == (), "the node wrote last"


@pytest.mark.parametrize(
    ("values", "as_node", "said"),
    [({"note": "n"}, "nobody", "nobody"), ({"typo": 1}, "a", "typo"), (7, "a", "int")],
)
def test_updates_that_do_not_fit(app: CompiledGraph, values: Any, as_node: str, said: str) -> None:
    app.invoke({}, on("t"))
    before = history(app)
    with pytest.raises(InvalidUpdateError, match=said):
        app.update_state(on("t"), values, as_node)
    assert history(app) == before


def test_an_update_of_nothing_only_routes(app: CompiledGraph) -> None:
    app.invoke({}, on("t"))
    app.update_state(on("t"), None, as_node="b")
    assert app.get_state(on("t")).next == ("c",)
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c", "c"]


def test_an_update_as_end_ends_the_run(store: EventStore) -> None:
    app = steps("abc", store, interrupt_before=["b"])
    app.invoke({}, on("t"))
    app.update_state(on("t"), None, as_node=END)
    assert app.get_state(on("t")).next == ()
    assert app.invoke(None, on("t"))["log"] == ["a"]


def test_an_update_may_be_a_command(store: EventStore) -> None:
    graph = StateGraph(Trail)
    graph.add_node("a", logs("a"), destinations=("b",))
    graph.add_node("b", lambda arg: {"log": [f"b {arg}"]})
    graph.add_edge(START, "a")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    command: Command[Any] = Command(update={"note": "n"}, goto=Send("b", 7))
    app.update_state(on("t"), command, as_node="a")
    assert app.invoke(None, on("t")) == {"log": ["a", "b 7"], "total": 1, "note": "n"}


def test_an_update_is_in_the_audit_trail(app: CompiledGraph) -> None:
    app.invoke({}, on("t"))
    app.update_state(on("t", metadata={"who": "alice"}), {"note": "n"}, as_node="b")
    entry = list(app.events(on("t")))[-1]
    assert (entry.kind, entry.node, entry.writes, entry.goto) == (
        "update",
        "b",
        {"note": "n"},
        ("c",),
    )
    state = app.get_state(on("t"))
    assert state.metadata and state.metadata["who"] == "alice"


def test_the_audit_trail_tells_everything_in_order(app: CompiledGraph) -> None:
    app.invoke({"log": ["x"]}, on("t"))
    told = [(e.seq, e.kind, e.step, e.node, e.goto) for e in app.events(on("t"))]
    assert told == [
        (1, "input", None, None, ("a",)),
        (2, "output", 1, "a", ("b",)),
        (3, "output", 2, "b", ("c",)),
        (4, "output", 3, "c", ()),
    ]


def test_a_checkpoint_id_inside_an_unfinished_superstep(store: EventStore) -> None:
    """Only complete supersteps can be gone back to; ids are not made up by hand."""
    graph = StateGraph(Trail)
    for name in "ab":
        graph.add_node(name, logs(name))
        graph.add_edge(START, name)
    app = graph.compile(store)
    app.invoke({}, on("t"))
    newest, oldest = history(app)
    between = id_of(oldest)[:-1] + "2"
    assert id_of(oldest) < between < id_of(newest)
    with pytest.raises(InvalidConfigError, match="superstep"):
        app.get_state(on("t", between))
    assert shape(history(app)) == shape([newest, oldest])
