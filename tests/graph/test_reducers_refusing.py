"""A key that is declared otherwise than when its thread was recorded, and reducers that raise.

The error names thread, seq, key, node and reducer, or how the key was declared. What was recorded
before a write that cannot be merged can be read, and gone back to.
"""

from __future__ import annotations

import operator
import pickle
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    ReducerError,
    SchemaChangedError,
    StateGraph,
    interrupt,
)
from tests.graph.kit import on

FORMS: dict[str, tuple[Any, Any]] = {
    "list": (Annotated[list, operator.add], ["x"]),
    "str": (Annotated[str, operator.add], "x"),
    "int": (Annotated[int, operator.add], 1),
    "dict": (Annotated[dict, operator.or_], {"x": 1}),
    "set": (Annotated[set, operator.or_], {1}),
}
PLAIN: dict[str, tuple[Any, Any]] = {
    "plain list": (list, ["x"]),
    "plain str": (str, "x"),
    "plain int": (int, 1),
    "plain dict": (dict, {"x": 1}),
}


def state_of(**keys: Any) -> Any:
    make: Any = TypedDict
    return make("State", keys, total=False)


def graph_of(store: Any, form: Any, write: Any, **options: Any) -> CompiledGraph:
    """first (writes nothing to ``key``), then ``write``, then ``asks``."""
    graph = StateGraph(state_of(key=form, count=Annotated[int, operator.add]))
    graph.add_node("first", lambda _state: {"count": 1})
    graph.add_node("writes", lambda _state: {"key": write, "count": 1})
    graph.add_node("asks", lambda _state: {"count": interrupt("how many?")})
    graph.add_edge(START, "first")
    graph.add_edge("first", "writes")
    graph.add_edge("writes", "asks")
    return graph.compile(store, **options)


MIXED = [
    (before, after)
    for before in [*FORMS, *PLAIN]
    for after in FORMS
    if before.removeprefix("plain ") != after
]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), MIXED)
def test_another_form_is_an_error_that_leads_out(
    store: EventStore, before: str, after: str
) -> None:
    graph_of(store, *{**FORMS, **PLAIN}[before]).invoke({}, on("t"))
    app = graph_of(store, *FORMS[after])
    recorded = list(app.events(on("t")))
    for read in (
        lambda: app.get_state(on("t")),
        lambda: list(app.get_state_history(on("t"), every=True)),
        lambda: app.invoke(Command(resume=1), on("t")),
        lambda: app.invoke({"count": 1}, on("t")),
        lambda: list(app.stream(None, on("t"))),
        lambda: app.update_state(on("t"), {"count": 1}, "writes"),
        lambda: app.replay(on("t")),
        lambda: app.rebuild(on("t")),
        lambda: app.check_replay(on("t"), nodes=["first"]),
    ):
        with pytest.raises(ReducerError) as caught:
            read()
        error = caught.value
        assert (error.thread_id, error.seq, error.key, error.node) == ("t", 3, "key", "writes")
        assert (error.value, error.update) == (after, before.removeprefix("plain "))
        assert "concatenate" not in str(error) and error.__cause__ is not None
        assert error.reducer in str(error) and "upcaster" in str(error) and "rebuild" in str(error)
    assert list(app.events(on("t"))) == recorded
    assert store.thread("t").status == "waiting"

    earlier = app.replay(on("t"), upto=2)
    assert (earlier.values["count"], earlier.next) == (1, ("writes",))
    assert app.get_state(earlier.config).values["count"] == 1
    assert app.invoke(None, earlier.config)["__interrupt__"]
    assert app.invoke(Command(resume=5), on("t")) == {"key": FORMS[after][1], "count": 7}
    assert app.verify(on("t")).ok


def test_the_form_of_before_goes_on(store: EventStore) -> None:
    before = graph_of(store, *FORMS["list"])
    before.invoke({}, on("t"))
    with pytest.raises(ReducerError):
        graph_of(store, *FORMS["dict"]).get_state(on("t"))
    assert before.invoke(Command(resume=1), on("t")) == {"key": ["x"], "count": 3}


def test_a_reducer_that_takes_both_forms_leads_out(store: EventStore) -> None:
    def either(old: list[Any], new: Any) -> list[Any]:
        return old + (new if isinstance(new, list) else [new])

    graph_of(store, *FORMS["str"]).invoke({}, on("t"))
    app = graph_of(store, Annotated[list, either], ["y"])
    assert app.get_state(on("t")).values["key"] == ["x"]
    assert app.invoke({}, on("t"))["key"] == ["x", "y"]


def test_the_finished_sibling_that_is_to_blame_is_named(store: EventStore) -> None:
    def build(form: Any) -> CompiledGraph:
        graph = StateGraph(state_of(key=form, other=str))
        graph.add_node("a", lambda _state: {"other": "a"})
        graph.add_node("b", lambda _state: {"key": [1, 2]})
        graph.add_node("c", lambda _state: {"key": interrupt("c")})
        for name in "abc":
            graph.add_edge(START, name)
        return graph.compile(store)

    lists = build(Annotated[list, operator.add])
    lists.invoke({}, on("t"))
    app = build(Annotated[int, operator.add])
    for _ in range(2):
        with pytest.raises(ReducerError) as caught:
            app.get_state(on("t"))
        assert (caught.value.key, caught.value.node) == ("key", "b")
        assert caught.value.thread_id == "t" and caught.value.seq
        if lists.get_state(on("t")).next:
            lists.invoke(Command(resume=[3]), on("t"))


def test_what_an_earlier_run_left_pending_is_named_when_its_superstep_ends(
    store: EventStore,
) -> None:
    fails = [True]

    def build(form: Any) -> CompiledGraph:
        def fail(_state: Any) -> dict[str, Any]:
            if fails[0]:
                raise ValueError("b")
            return {"other": "b"}

        graph = StateGraph(state_of(key=form, other=str))
        graph.add_node("a", lambda _state: {"key": ["a"]}).add_node("b", fail)
        return graph.add_edge(START, "a").add_edge(START, "b").compile(store)

    lists = build(Annotated[list, operator.add])
    with pytest.raises(ValueError, match="b"):
        lists.invoke({"other": "in"}, on("t"))
    fails.clear()
    fails.append(False)
    with pytest.raises(
        ReducerError, match=r"thread 't', seq 2: .*node 'a' wrote: .*list"
    ) as caught:
        build(Annotated[int, operator.add]).invoke(None, on("t"))
    assert (caught.value.key, caught.value.node) == ("key", "a")
    assert lists.invoke(None, on("t")) == {"key": ["a"], "other": "b"}


# --- declarations that would change the state without an error ---------------------------

SILENT = [
    ("plain list", "list"),
    ("plain int", "int"),
    ("plain str", "str"),
    *((before, f"plain {after}") for before in FORMS for after in ("list", "str", "int", "dict")),
    *((one, other) for one in PLAIN for other in PLAIN if one != other),
]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), SILENT)
def test_a_reducer_that_came_or_went_or_another_type(
    store: EventStore, before: str, after: str
) -> None:
    every = {**FORMS, **PLAIN}
    old = graph_of(store, *every[before])
    old.invoke({}, on("t"))
    values = old.get_state(on("t")).values
    app = graph_of(store, *every[after])
    recorded = list(app.events(on("t")))
    for read in (
        lambda: app.get_state(on("t")),
        lambda: list(app.get_state_history(on("t"), every=True)),
        lambda: app.invoke(Command(resume=1), on("t")),
        lambda: app.invoke({"count": 1}, on("t")),
        lambda: app.update_state(on("t"), {"count": 1}, "writes"),
        lambda: app.replay(on("t")),
        lambda: app.rebuild(on("t")),
    ):
        with pytest.raises(SchemaChangedError) as caught:
            read()
        error = caught.value
        assert (error.thread_id, error.key) == ("t", "key")
        for form, told in ((before, error.stored), (after, error.expected)):
            assert told == form.removeprefix("plain ") + ("+" if form in FORMS else "")
        assert "rebuild" in str(error) and "upcaster" in str(error)
    assert list(app.events(on("t"))) == recorded
    assert old.get_state(on("t")).values == values

    newer = graph_of(store, *every[after], version="2")
    assert newer.get_state(on("t")).values["count"] == 2
    newer.rebuild(on("t"))
    corrected = newer.update_state(on("t"), {"key": every[after][1]}, "writes")
    assert newer.get_state(corrected).next == ("asks",)
    newer.invoke({}, on("t"))
    assert newer.invoke(Command(resume=1), on("t"))["key"]
    assert store.verify("t").ok and newer.verify(on("t")).ok


def test_a_key_that_was_never_written_may_be_declared_anew(store: EventStore) -> None:
    def build(form: Any) -> CompiledGraph:
        graph = StateGraph(state_of(key=form, count=Annotated[int, operator.add]))
        graph.add_node("adds", lambda _state: {"count": 1})
        return graph.add_edge(START, "adds").compile(store)

    for form in (list, Annotated[list, operator.add], str, Annotated[int, operator.add], Any):
        build(form).invoke({}, on("t"))
    assert build(int).get_state(on("t")).values["count"] == 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (list, list[str]),
        (list, Any),
        (Any, list),
        (list, list[str] | None),
        (list[int], Annotated[list, "described"]),
        (Annotated[list, operator.add], Annotated[list[str], operator.add]),
        (Annotated[list, operator.add], Annotated[list, lambda old, new: [*old, *new]]),
    ],
    ids=[f"case {number}" for number in range(7)],
)
def test_declarations_that_change_no_value(store: EventStore, before: Any, after: Any) -> None:
    graph_of(store, before, ["x"]).invoke({}, on("t"))
    app = graph_of(store, after, ["x"])
    assert app.get_state(on("t")).values["key"] == ["x"]
    assert app.invoke(Command(resume=1), on("t"))["count"] == 3


def test_two_graphs_that_share_a_thread_may_differ_in_keys(store: EventStore) -> None:
    def build(**keys: Any) -> CompiledGraph:
        graph = StateGraph(state_of(**keys))
        graph.add_node("n", lambda _state: {key: ["x"] for key in keys})
        return graph.add_edge(START, "n").compile(store)

    for _ in range(2):
        build(one=Annotated[list, operator.add]).invoke({}, on("t"))
        build(other=list).invoke({}, on("t"))
    said = [
        entry.data["forms"] for entry in build(one=list).events(on("t")) if "forms" in entry.data
    ]
    assert said == [{"one": "list+"}, {"other": "list"}], "each is recorded once"


def test_what_was_declared_is_in_snapshots_too(store: EventStore) -> None:
    def build(form: Any) -> CompiledGraph:
        graph = StateGraph(state_of(key=form))
        graph.add_node("n", lambda _state: {"key": ["x" * 500]})
        return graph.add_edge(START, "n").compile(store, snapshot_each_run=True)

    app = build(Annotated[list, operator.add])
    for _ in range(3):
        app.invoke({}, on("t"))
    assert store.verify("t").ok and app.verify(on("t")).ok
    assert len(app.get_state(on("t")).values["key"]) == 3
    with pytest.raises(SchemaChangedError):
        build(list).get_state(on("t"))
    assert sum("forms" in entry.data for entry in app.events(on("t"))) == 1


# --- reducers that raise by themselves --------------------------------------------------


class Full(Exception):
    """What a reducer raises."""


def until(limit: int) -> Any:
    def capped(old: int, new: int) -> int:
        if old + new > limit:
            raise Full(old + new)
        return old + new

    return capped


def summing(store: Any, limit: int) -> CompiledGraph:
    graph = StateGraph(state_of(total=Annotated[int, until(limit)])).add_node(
        "adds", lambda _state: {"total": 1}
    )
    return graph.add_edge(START, "adds").compile(store)


def test_a_reducer_that_raises_in_a_run(store: EventStore) -> None:
    """Its own error comes out, and nothing of the write is recorded."""
    app = summing(store, 2)
    app.invoke({"total": 1}, on("t"))
    with pytest.raises(Full) as caught:
        app.invoke({"total": 0}, on("t"))
    told = "\n".join(caught.value.__notes__)
    assert "'total'" in told and "capped" in told and "adds" in told
    assert app.get_state(on("t")).values == {"total": 2}
    assert app.get_state(on("t")).next == ("adds",)


def test_a_reducer_that_raises_on_what_is_stored(store: EventStore) -> None:
    summing(store, 10).invoke({"total": 1}, on("t"))
    app = summing(store, 1)
    with pytest.raises(ReducerError, match=r"'t', seq 2: the reducer .*capped.* node 'adds'") as up:
        app.invoke({"total": 0}, on("t"))
    assert isinstance(up.value.__cause__, Full)
    assert app.replay(on("t"), upto=1).values == {"total": 1}
    again = pickle.loads(pickle.dumps(up.value))
    assert (str(again), again.key, again.seq) == (str(up.value), "total", 2)


def test_a_fork_names_the_thread_that_holds_the_write(store: EventStore) -> None:
    app = summing(store, 10)
    app.invoke({"total": 1}, on("t"))
    checkpoint: str = app.get_state(on("t")).config["configurable"]["checkpoint_id"]
    app.invoke({"total": 1}, on("fork", checkpoint))
    with pytest.raises(ReducerError, match="thread 't', seq 2"):
        summing(store, 1).get_state(on("fork"))


def test_inside_a_subgraph(store: EventStore) -> None:
    def build(form: Any, update: Any) -> CompiledGraph:
        inner = StateGraph(state_of(key=form))
        inner.add_node("writes", lambda _state: {"key": update})
        inner.add_node("asks", lambda _state: {"key": interrupt("?")})
        inner.add_edge(START, "writes").add_edge("writes", "asks")
        outer = StateGraph(state_of(note=str))
        outer.add_node("inner", inner.compile())
        return outer.add_edge(START, "inner").compile(store)

    build(Annotated[list, operator.add], [1]).invoke({}, on("t"))
    app = build(Annotated[int, operator.add], 1)
    with pytest.raises(ReducerError, match=r"thread 't' in 'inner:.*', seq 2: .*node 'writes'"):
        app.invoke(Command(resume=1), on("t"))
