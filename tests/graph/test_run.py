"""Running graphs: what comes out, what is streamed, and what runs beside what."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import timedelta
from typing import Annotated, Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field

from eventstore import EventStore
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    EmptyInputError,
    GraphRecursionError,
    InvalidConfigError,
    InvalidUpdateError,
    MemorySaver,
    RetryPolicy,
    RunnableConfig,
    Send,
    StateGraph,
    get_stream_writer,
)
from tests.graph.kit import Boom, Calls, Trail, id_of, logs, on, steps

WAIT_SECONDS_MAX = 10.0


@pytest.fixture(params=["without a checkpointer", "with one"])
def checkpointer(request: pytest.FixtureRequest) -> Any:
    """What a run does must not depend on whether it is recorded."""
    if request.param == "with one":
        with MemorySaver() as saver:
            yield saver
    else:
        yield None


# --- invoke -----------------------------------------------------------------------------


def test_invoke(checkpointer: Any) -> None:
    app = steps("abc", checkpointer)
    assert app.invoke({"log": ["x"], "note": "n"}, on("t")) == {
        "log": ["x", "a", "b", "c"],
        "total": 3,
        "note": "n",
    }


def test_a_graph_without_a_checkpointer_keeps_nothing() -> None:
    app = steps("a")
    assert app.invoke({}) == {"log": ["a"], "total": 1}
    assert app.invoke({"log": ["x"]}) == {"log": ["x", "a"], "total": 1}
    with pytest.raises(InvalidConfigError, match="checkpointer"):
        app.get_state(on("t"))
    with pytest.raises(InvalidConfigError, match="checkpointer"):
        app.update_state(on("t"), {})
    with pytest.raises(EmptyInputError):
        app.invoke(None)


def test_a_second_input_goes_on_from_the_first(store: EventStore) -> None:
    app = steps("ab", store)
    app.invoke({"log": ["x"]}, on("t"))
    assert app.invoke({"log": ["y"]}, on("t"))["log"] == ["x", "a", "b", "y", "a", "b"]
    assert [s.metadata and s.metadata["step"] for s in app.get_state_history(on("t"))] == [
        5, 4, 3, 2, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("config", [{}, {"configurable": {}}, on("")])
def test_a_checkpointer_needs_a_thread(store: EventStore, config: RunnableConfig) -> None:
    with pytest.raises(InvalidConfigError, match="thread_id"):
        steps("a", store).invoke({}, config)


def test_thread_ids_that_are_no_text_are_named_by_their_text(store: EventStore) -> None:
    app = steps("a", store)
    app.invoke({}, {"configurable": {"thread_id": 7}})
    assert app.get_state(on("7")).values == {"log": ["a"], "total": 1}


def test_an_unknown_key_is_refused_and_nothing_recorded(store: EventStore) -> None:
    app = steps("a", store)
    with pytest.raises(InvalidUpdateError, match="typo"):
        app.invoke({"typo": 1}, on("t"))
    assert app.get_state(on("t")).values == {}
    assert store.threads() == []


def test_a_node_that_writes_an_unknown_key_is_named(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("wrong", lambda state: {"typo": 1})
    graph.add_edge(START, "wrong")
    with pytest.raises(InvalidUpdateError, match=r"(?s)wrong.*typo"):
        graph.compile(checkpointer).invoke({}, on("t"))


@pytest.mark.parametrize("result", [1, "text", ["a"], object()])
def test_a_node_that_returns_no_update(checkpointer: Any, result: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("wrong", lambda state: result)
    graph.add_edge(START, "wrong")
    with pytest.raises(InvalidUpdateError, match="wrong"):
        graph.compile(checkpointer).invoke({}, on("t"))


def test_a_node_may_return_nothing(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("silent", lambda state: None)
    graph.add_edge(START, "silent")
    assert graph.compile(checkpointer).invoke({"note": "n"}, on("t")) == {
        "log": [],
        "total": 0,
        "note": "n",
    }


# --- the recursion limit ----------------------------------------------------------------


def endless(checkpointer: Any = None) -> CompiledGraph:
    graph = StateGraph(Trail)
    graph.add_node("again", logs("again"))
    graph.add_edge(START, "again")
    graph.add_edge("again", "again")
    return graph.compile(checkpointer)


def test_recursion_limit(checkpointer: Any) -> None:
    with pytest.raises(GraphRecursionError) as caught:
        endless(checkpointer).invoke({}, on("t", recursion_limit=7))
    assert caught.value.limit == 7 and caught.value.frontier == ("again",)
    assert isinstance(caught.value, RecursionError)


def test_recursion_limit_is_25_unless_said(store: EventStore) -> None:
    app = endless(store)
    with pytest.raises(GraphRecursionError):
        app.invoke({}, on("t"))
    assert app.get_state(on("t")).values["total"] == 25
    with pytest.raises(GraphRecursionError):  # what was done is kept, and can be gone on with
        app.invoke(None, on("t", recursion_limit=5))
    assert app.get_state(on("t")).values["total"] == 30


def test_a_run_as_long_as_the_limit_is_no_error(checkpointer: Any) -> None:
    assert steps("abc", checkpointer).invoke({}, on("t", recursion_limit=3))["total"] == 3


# --- streaming --------------------------------------------------------------------------


def test_stream_values(checkpointer: Any) -> None:
    app = steps("ab", checkpointer)
    chunks = list(app.stream({"log": ["x"]}, on("t"), stream_mode="values"))
    assert [chunk["log"] for chunk in chunks] == [["x"], ["x", "a"], ["x", "a", "b"]]


def test_stream_updates(checkpointer: Any) -> None:
    app = steps("ab", checkpointer)
    expected = [{"a": {"log": ["a"], "total": 1}}, {"b": {"log": ["b"], "total": 1}}]
    assert list(app.stream({}, on("t"), stream_mode="updates")) == expected
    assert list(app.stream({}, on("u"))) == expected  # it is the default, as in LangGraph


def test_stream_several_modes(checkpointer: Any) -> None:
    app = steps("a", checkpointer)
    chunks = list(app.stream({}, on("t"), stream_mode=["values", "updates"]))
    assert chunks == [
        ("values", {"log": [], "total": 0}),
        ("updates", {"a": {"log": ["a"], "total": 1}}),
        ("values", {"log": ["a"], "total": 1}),
    ]


def test_stream_one_mode_in_a_list_gives_pairs(checkpointer: Any) -> None:
    chunks = list(steps("a", checkpointer).stream({}, on("t"), stream_mode=["updates"]))
    assert chunks == [("updates", {"a": {"log": ["a"], "total": 1}})]


def test_stream_checkpoints_are_those_of_the_history(store: EventStore) -> None:
    app = steps("abc", store)
    chunks = list(app.stream({}, on("t"), stream_mode="checkpoints"))
    history = list(app.get_state_history(on("t")))[::-1]
    assert [chunk["values"] for chunk in chunks] == [entry.values for entry in history]
    assert [chunk["config"] for chunk in chunks] == [entry.config for entry in history]


def test_stream_debug(store: EventStore) -> None:
    chunks = list(steps("a", store).stream({}, on("t"), stream_mode="debug"))
    assert [chunk["type"] for chunk in chunks] == [
        "checkpoint",
        "task",
        "task_result",
        "checkpoint",
    ]


def test_an_unknown_stream_mode(checkpointer: Any) -> None:
    with pytest.raises(InvalidConfigError, match="known are"):
        list(steps("a", checkpointer).stream({}, on("t"), stream_mode="message"))


def test_custom_chunks_come_while_the_node_runs(checkpointer: Any) -> None:
    seen = threading.Event()

    def slow(state: Trail, writer: Callable[[Any], None]) -> dict[str, Any]:
        writer("begun")
        assert seen.wait(WAIT_SECONDS_MAX), "the chunk was held back until the node had ended"
        writer({"half": True})
        get_stream_writer()("done")
        return {"total": 1}

    graph = StateGraph(Trail)
    graph.add_node("slow", slow)
    graph.add_edge(START, "slow")
    chunks = []
    for chunk in graph.compile(checkpointer).stream({}, on("t"), stream_mode="custom"):
        chunks.append(chunk)
        seen.set()
    assert chunks == ["begun", {"half": True}, "done"]


def test_what_nobody_listens_to_goes_nowhere(checkpointer: Any) -> None:
    graph = StateGraph(Trail)

    def node(state: Trail, writer: Callable[[Any], None]) -> dict[str, Any]:
        writer("heard by nobody")
        get_stream_writer()("nor this")
        return {"total": 1}

    graph.add_node("node", node)
    graph.add_edge(START, "node")
    assert graph.compile(checkpointer).invoke({}, on("t"))["total"] == 1
    get_stream_writer()("outside of any run")


def test_a_stream_that_is_dropped_stops_the_run(store: EventStore) -> None:
    calls = Calls()
    app = steps("abc", store, calls)
    stream = app.stream({}, on("t"), stream_mode="updates")
    assert next(stream) == {"a": {"log": ["a"], "total": 1}}
    stream.close()  # type: ignore[attr-defined]
    assert calls.counts["c"] == 0
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c"]
    assert calls.counts == {"a": 1, "b": 1, "c": 1}


# --- side by side -----------------------------------------------------------------------


def fan(width: int, node: Callable[[int], Any], checkpointer: Any = None) -> CompiledGraph:
    graph = StateGraph(Trail)
    for i in range(width):
        graph.add_node(f"n{i:02}", node(i))
        graph.add_edge(START, f"n{i:02}")
    return graph.compile(checkpointer)


def test_parallel_nodes_really_run_side_by_side(checkpointer: Any) -> None:
    barrier = threading.Barrier(8)

    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            barrier.wait(WAIT_SECONDS_MAX)
            return {"log": [i]}

        return run

    assert fan(8, node, checkpointer).invoke({}, on("t"))["log"] == list(range(8))


def test_writes_are_merged_in_the_frontiers_order_whoever_is_first(checkpointer: Any) -> None:
    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            time.sleep(0.02 * (5 - i))
            return {"log": [i]}

        return run

    assert fan(5, node, checkpointer).invoke({}, on("t"))["log"] == [0, 1, 2, 3, 4]


def test_max_concurrency(checkpointer: Any) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def node(i: int) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1
            return {"log": [i]}

        return run

    app = fan(9, node, checkpointer)
    assert len(app.invoke({}, on("t", max_concurrency=3))["log"]) == 9
    assert most <= 3


def test_more_parallel_tasks_than_threads(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_conditional_edges(START, lambda state: [Send("work", i) for i in range(150)])
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == list(range(150))


def test_batch(store: EventStore) -> None:
    app = steps("ab", store)
    results = app.batch([{"note": f"{i}"} for i in range(6)], [on(f"t{i}") for i in range(6)])
    assert [result["note"] for result in results] == [f"{i}" for i in range(6)]
    assert app.get_state(on("t3")).values["note"] == "3"
    assert app.batch([]) == []
    with pytest.raises(InvalidConfigError, match="2 inputs and 1"):
        app.batch([{}, {}], [on("t")])


def test_batch_errors() -> None:
    def picky(state: Trail) -> dict[str, Any]:
        if state["note"] == "bad":
            raise Boom("bad")
        return {"total": 1}

    graph = StateGraph(Trail)
    graph.add_node("picky", picky)
    graph.add_edge(START, "picky")
    app = graph.compile()
    inputs = [{"note": "good"}, {"note": "bad"}]
    with pytest.raises(Boom):
        app.batch(inputs)
    good, bad = app.batch(inputs, return_exceptions=True)
    assert good["total"] == 1 and isinstance(bad, Boom)


def test_runs_on_many_threads_at_once(store: EventStore) -> None:
    app = steps("abc", store)
    app.batch([{} for _ in range(20)], [on(f"t{i}") for i in range(20)], max_concurrency=8)
    assert all(app.get_state(on(f"t{i}")).values["total"] == 3 for i in range(20))


# --- schemas ----------------------------------------------------------------------------


class Public(TypedDict, total=False):
    question: str
    answer: str


class Inner(TypedDict, total=False):
    question: str
    secret: str


class Asked(TypedDict):
    question: str


class Answered(TypedDict):
    answer: str


def test_private_keys_pass_between_nodes_and_stay_inside(store: EventStore) -> None:
    given: list[dict[str, Any]] = []

    def think(state: Public) -> dict[str, Any]:
        given.append(dict(state))
        return {"secret": "s"}

    def answer(state: Inner) -> dict[str, Any]:
        given.append(dict(state))
        return {"answer": f"{state['question']} {state['secret']}"}

    graph = StateGraph(Public, input_schema=Asked, output_schema=Answered)
    graph.add_sequence([think, answer])
    graph.add_edge(START, "think")
    app = graph.compile(store)
    assert app.invoke({"question": "q"}, on("t")) == {"answer": "q s"}
    assert given == [{"question": "q"}, {"question": "q", "secret": "s"}]
    assert app.get_state(on("t")).values == {"question": "q", "answer": "q s"}
    # The private key is part of the state all the same: it survives a fork.
    after_think = list(app.get_state_history(on("t")))[1]
    assert app.invoke(None, on("u", id_of(after_think))) == {"answer": "q s"}
    with pytest.raises(InvalidUpdateError, match="answer"):
        app.invoke({"answer": "given"}, on("v"))


@dataclass
class DataState:
    name: str
    log: Annotated[list[str], operator.add] = dataclass_field(default_factory=list)
    count: int = 0


def test_a_dataclass_as_state(checkpointer: Any) -> None:
    def one(state: DataState) -> dict[str, Any]:
        assert isinstance(state, DataState)
        return {"log": [state.name], "count": state.count + 1}

    def two(state: DataState) -> DataState:
        return DataState("new", ["two"], state.count + 1)

    graph = StateGraph(DataState)
    graph.add_sequence([one, two])
    graph.add_edge(START, "one")
    app = graph.compile(checkpointer)
    expected = {"name": "new", "log": ["n", "two"], "count": 2}
    assert app.invoke({"name": "n"}, on("t")) == expected
    assert app.invoke(DataState("n"), on("u")) == expected


class Model(BaseModel):
    name: str
    log: Annotated[list[str], operator.add] = Field(default_factory=list)
    count: int = 0


def test_a_pydantic_model_as_state(checkpointer: Any) -> None:
    def one(state: Model) -> dict[str, Any]:
        assert isinstance(state, Model)
        return {"log": [state.name], "count": state.count + 1}

    def two(state: Model) -> Model:
        state.count += 1
        return Model(name="new", log=["two"], count=state.count)

    graph = StateGraph(Model)
    graph.add_sequence([one, two])
    graph.add_edge(START, "one")
    app = graph.compile(checkpointer)
    expected = {"name": "new", "log": ["n", "two"], "count": 2}
    assert app.invoke({"name": "n"}, on("t")) == expected
    assert app.invoke(Model(name="n"), on("u")) == expected
    with pytest.raises(InvalidUpdateError, match="name"):
        app.invoke({"name": 7}, on("v"))


# --- routing ----------------------------------------------------------------------------


class Words(TypedDict, total=False):
    words: list[str]
    lengths: Annotated[list[int], operator.add]
    longest: int


def test_map_reduce_by_send(checkpointer: Any) -> None:
    graph = StateGraph(Words)
    graph.add_node("split", lambda state: {"words": ["one", "three", "to"]})
    graph.add_node("measure", lambda arg: {"lengths": [len(arg["word"])]})
    graph.add_node("reduce", lambda state: {"longest": max(state["lengths"])})
    graph.add_edge(START, "split")
    graph.add_conditional_edges(
        "split", lambda state: [Send("measure", {"word": word}) for word in state["words"]]
    )
    graph.add_edge("measure", "reduce")
    result = graph.compile(checkpointer).invoke({}, on("t"))
    assert result == {"words": ["one", "three", "to"], "lengths": [3, 5, 2], "longest": 5}


def test_nodes_by_edges_come_before_sends(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("z", lambda state: {"log": ["z"]})
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_conditional_edges(START, lambda state: [Send("work", 2), "z", Send("work", 1)])
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == ["z", 2, 1]


def test_command_writes_and_goes(checkpointer: Any) -> None:
    def choose(state: Trail) -> Command[Literal["left", "right"]]:
        return Command(update={"log": ["choose"]}, goto=state["note"])

    graph = StateGraph(Trail)
    graph.add_node("choose", choose)
    graph.add_node("left", logs("left"))
    graph.add_node("right", logs("right"))
    graph.add_edge(START, "choose")
    app = graph.compile(checkpointer)
    assert app.invoke({"note": "right"}, on("t"))["log"] == ["choose", "right"]
    assert app.invoke({"note": "left"}, on("u"))["log"] == ["choose", "left"]
    with pytest.raises(InvalidUpdateError, match="nowhere"):
        app.invoke({"note": "nowhere"}, on("v"))


def test_commands_with_sends_beside_static_edges(checkpointer: Any) -> None:
    def choose(state: Trail) -> Any:
        return [Command(goto=[Send("work", 1), "more"]), {"note": "parts"}, Command(goto=END)]

    graph = StateGraph(Trail)
    graph.add_node("choose", choose, destinations=("work", "more"))
    graph.add_node("work", lambda arg: {"log": [f"work {arg}"]})
    graph.add_node("more", logs("more"))
    graph.add_node("always", logs("always"))
    graph.add_edge(START, "choose")
    graph.add_edge("choose", "always")
    result = graph.compile(checkpointer).invoke({}, on("t"))
    assert result == {"log": ["always", "more", "work 1"], "total": 2, "note": "parts"}


def test_a_join_waits_for_all(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    for name in ("short", "long1", "long2", "joined"):
        graph.add_node(name, logs(name))
    graph.add_edge(START, "short")
    graph.add_edge(START, "long1")
    graph.add_edge("long1", "long2")
    graph.add_edge(["short", "long2"], "joined")
    app = graph.compile(checkpointer)
    for _ in range(2 if checkpointer else 1):  # a second run waits anew
        log = app.invoke({}, on("t"))["log"][-4:]
        assert log == ["long1", "short", "long2", "joined"]


def test_a_join_takes_all_arrivals_of_a_superstep_together(checkpointer: Any) -> None:
    """Three Sends of a source are one arrival; none of them is left over for the next round."""
    graph = StateGraph(Trail)
    for name in ("a", "x", "joined", "again"):
        graph.add_node(name, logs(name))
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", lambda state: ["x", *(Send("work", i) for i in range(3))])
    graph.add_edge(["x", "work"], "joined")
    graph.add_conditional_edges("joined", lambda state: "again" if len(state["log"]) < 7 else END)
    graph.add_edge("again", "x")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["a", "x", 0, 1, 2, "joined", "again", "x"]


def test_two_plain_edges_do_not_wait(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    for name in ("short", "long1", "long2", "end"):
        graph.add_node(name, logs(name))
    graph.add_edge(START, "short")
    graph.add_edge(START, "long1")
    graph.add_edge("long1", "long2")
    graph.add_edge("short", "end")
    graph.add_edge("long2", "end")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["long1", "short", "end", "long2", "end"]


def test_defer_waits_for_everything_else_sends_included(checkpointer: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("split", logs("split"))
    graph.add_node("work", lambda arg: {"log": [arg]})
    graph.add_node("slow", logs("slow"))
    graph.add_node("last", logs("last"), defer=True)
    graph.add_edge(START, "split")
    graph.add_edge("split", "last")
    graph.add_conditional_edges("split", lambda state: [Send("work", 1), Send("work", 2)])
    graph.add_edge("work", "slow")
    graph.add_edge("slow", "last")
    log = graph.compile(checkpointer).invoke({}, on("t"))["log"]
    assert log == ["split", 1, 2, "slow", "last"]


@pytest.mark.parametrize("path_map", [{"yes": "a", "no": "b", "stop": END}, None])
def test_conditional_edges(checkpointer: Any, path_map: Any) -> None:
    graph = StateGraph(Trail)
    graph.add_node("first", lambda state: {"total": 1})
    graph.add_node("a", logs("a"))
    graph.add_node("b", logs("b"))
    graph.add_edge(START, "first")

    def path(state: Trail) -> str:
        assert state["total"] == 1, "it judges the state as the node has left it"
        answers = {"yes": "a", "no": "b", "stop": END}
        return state["note"] if path_map else answers[state["note"]]

    graph.add_conditional_edges("first", path, path_map)
    app = graph.compile(checkpointer)
    assert app.invoke({"note": "yes"}, on("t"))["log"] == ["a"]
    assert app.invoke({"note": "no"}, on("u"))["log"] == ["b"]
    assert app.invoke({"note": "stop"}, on("v"))["log"] == []
    if path_map:
        with pytest.raises(InvalidUpdateError, match="maybe"):
            app.invoke({"note": "maybe"}, on("w"))


def test_replay_asks_no_edge_and_no_node_again(store: EventStore) -> None:
    """Decisions are recorded: only running asks them."""
    calls = Calls()

    def path(state: Trail) -> str:
        calls.add("path")
        return "b"

    graph = StateGraph(Trail)
    graph.add_node("a", logs("a", calls))
    graph.add_node("b", logs("b", calls))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", path, ["b"])
    app = graph.compile(store)
    app.invoke({}, on("t"))
    app.get_state(on("t"))
    list(app.get_state_history(on("t")))
    list(app.events(on("t")))
    app.verify(on("t"))
    assert calls.counts == {"path": 1, "a": 1, "b": 1}


# --- graphs in graphs -------------------------------------------------------------------


class Outer(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    seen: int


class Child(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    own: str


def test_a_subgraph_as_a_node(checkpointer: Any) -> None:
    child = StateGraph(Child)
    child.add_node("inner", lambda state: {"log": [f"inner {len(state['log'])}"], "own": "o"})
    child.add_edge(START, "inner")
    graph = StateGraph(Outer)
    graph.add_node("before", lambda state: {"log": ["before"]})
    graph.add_node("child", child.compile())
    graph.add_node("after", lambda state: {"seen": len(state["log"])})
    graph.add_edge(START, "before")
    graph.add_edge("before", "child")
    graph.add_edge("child", "after")
    result = graph.compile(checkpointer).invoke({"log": ["x"]}, on("t"))
    # As in LangGraph, the child's output is its whole state: the shared list is added again.
    assert result == {"log": ["x", "before", "x", "before", "inner 2"], "seen": 5}


class OuterData(BaseModel):
    log: Annotated[list[str], operator.add] = Field(default_factory=list)
    other: int = 1


@pytest.mark.parametrize("outer", [DataState, OuterData])
def test_a_subgraph_of_a_graph_whose_state_is_an_object(checkpointer: Any, outer: type) -> None:
    child = StateGraph(Child)
    child.add_node("inner", lambda state: {"log": [f"inner {state['log']}"]})
    child.add_edge(START, "inner")
    graph = StateGraph(outer)
    graph.add_node("child", child.compile())
    graph.add_edge(START, "child")
    given = {"log": ["x"], **({"name": "n"} if outer is DataState else {})}
    result = graph.compile(checkpointer).invoke(given, on("t"))
    assert result["log"] == ["x", "x", "inner ['x']"]


def test_an_error_inside_a_subgraph(store: EventStore) -> None:
    broken = {True}
    child = StateGraph(Child)

    def inner(state: Child) -> dict[str, Any]:
        if broken:
            raise Boom("inside")
        return {"log": ["inner"]}

    child.add_node("inner", inner)
    child.add_edge(START, "inner")
    graph = StateGraph(Outer)
    graph.add_node("child", child.compile())
    graph.add_edge(START, "child")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({"log": ["x"]}, on("t"))
    assert app.get_state(on("t")).tasks[0].error == "tests.graph.kit.Boom: inside"
    broken.clear()
    assert app.invoke(None, on("t"))["log"] == ["x", "x", "inner"]


def test_a_subgraph_called_by_a_node(checkpointer: Any) -> None:
    child = steps("ab")
    graph = StateGraph(Trail)
    graph.add_node("call", lambda state: {"log": child.invoke({})["log"]})
    graph.add_edge(START, "call")
    assert graph.compile(checkpointer).invoke({}, on("t"))["log"] == ["a", "b"]


# --- what nodes are given besides the state ---------------------------------------------


def test_config_and_writer(store: EventStore) -> None:
    given: list[Any] = []

    def node(state: Trail, config: RunnableConfig) -> dict[str, Any]:
        given.append(config["configurable"]["thread_id"])
        given.append(config["configurable"]["user"])
        return {}

    def path(state: Trail, config: RunnableConfig) -> str:
        given.append(config["metadata"]["why"])
        return END

    graph = StateGraph(Trail)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_conditional_edges("node", path, [END])
    config = on("t", metadata={"why": "test"})
    config["configurable"]["user"] = "alice"
    graph.compile(store).invoke({}, config)
    assert given == ["t", "alice", "test"]


def test_metadata_of_a_run_is_in_its_checkpoints_and_in_the_threads_list(
    store: EventStore,
) -> None:
    app = steps("ab", store)
    app.invoke({}, on("t", metadata={"user": "alice"}, run_id="run-1"))
    app.invoke({}, on("t", metadata={"user": "bob"}))
    history = list(app.get_state_history(on("t")))
    told = [(s.metadata or {}) for s in history]
    assert [each["user"] for each in told] == ["bob"] * 3 + ["alice"] * 3
    assert {each["run_id"] for each in told[3:]} == {"run-1"}
    assert len({each["run_id"] for each in told}) == 2
    assert [each["source"] for each in told] == ["loop", "loop", "input"] * 2
    assert store.thread("t").metadata == {"user": "alice"}
    assert [t.thread_id for t in store.threads(metadata={"user": "alice"})] == ["t"]


@pytest.mark.parametrize("ttl", [3600, 3599.5, timedelta(hours=1)])
def test_a_ttl_is_heeded_when_the_thread_is_made(store: EventStore, ttl: Any) -> None:
    app = steps("ab", store)
    config = on("t")
    config["configurable"]["ttl"] = ttl
    app.invoke({}, config)
    assert store.thread("t").ttl == 3600
    config["configurable"]["ttl"] = 5
    app.invoke({}, config)
    assert store.thread("t").ttl == 3600


@pytest.mark.parametrize("ttl", ["soon", -1, float("nan"), 1e300])
def test_a_ttl_has_to_be_a_time(store: EventStore, ttl: Any) -> None:
    config = on("t")
    config["configurable"]["ttl"] = ttl
    with pytest.raises(InvalidConfigError, match="ttl"):
        steps("a", store).invoke({}, config)
    assert store.threads() == []


# --- trying again -----------------------------------------------------------------------


def flaky(failures: int, error: Exception, calls: Calls) -> Any:
    def node(state: Trail) -> dict[str, Any]:
        if calls.add("node") <= failures:
            raise error
        return {"total": 1}

    return node


def retried(node: Any, policy: Any, checkpointer: Any) -> CompiledGraph:
    graph = StateGraph(Trail)
    graph.add_node("node", node, retry_policy=policy)
    graph.add_edge(START, "node")
    return graph.compile(checkpointer)


QUICK = RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=3)


def test_retry_until_it_works(checkpointer: Any) -> None:
    calls = Calls()
    app = retried(flaky(2, OSError("net"), calls), QUICK, checkpointer)
    assert app.invoke({}, on("t"))["total"] == 1
    assert calls.counts["node"] == 3


def test_retry_gives_up(store: EventStore) -> None:
    calls = Calls()
    app = retried(flaky(9, OSError("net"), calls), QUICK, store)
    with pytest.raises(OSError, match="net") as caught:
        app.invoke({}, on("t"))
    assert calls.counts["node"] == 3
    assert any("'node'" in note and "attempt 3" in note for note in caught.value.__notes__)
    assert [e.data["attempts"] for e in app.events(on("t")) if e.kind == "error"] == [3]


@pytest.mark.parametrize(
    ("error", "attempts"), [(ValueError("bug"), 1), (ConnectionError("net"), 3), (Boom(), 3)]
)
def test_programming_errors_are_not_tried_again(error: Exception, attempts: int) -> None:
    calls = Calls()
    with pytest.raises(type(error)):
        retried(flaky(9, error, calls), QUICK, None).invoke({})
    assert calls.counts["node"] == attempts


@pytest.mark.parametrize(
    "retry_on", [Boom, (KeyError, Boom), lambda error: isinstance(error, Boom)]
)
def test_retry_on(retry_on: Any) -> None:
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=retry_on)
    calls = Calls()
    assert retried(flaky(1, Boom(), calls), policy, None).invoke({})["total"] == 1
    with pytest.raises(OSError):
        retried(flaky(1, OSError(), Calls()), policy, None).invoke({})


def test_the_first_policy_that_wants_the_error_counts() -> None:
    calls = Calls()
    policies = [
        RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=2, retry_on=KeyError),
        RetryPolicy(initial_interval=0.001, jitter=False, max_attempts=5, retry_on=Boom),
    ]
    assert retried(flaky(4, Boom(), calls), policies, None).invoke({})["total"] == 1
    assert calls.counts["node"] == 5


def test_a_task_tried_again_gets_a_fresh_copy_of_its_state(checkpointer: Any) -> None:
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        state["log"].append("left over")
        if calls.add("node") == 1:
            raise OSError
        return {"total": len(state["log"])}

    assert retried(node, QUICK, checkpointer).invoke({}, on("t")) == {"log": [], "total": 1}
