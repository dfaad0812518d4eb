"""What the graphs above learn of a subgraph: its edits, its past questions, its many calls."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    GraphError,
    InvalidConfigError,
    InvalidGraphError,
    RetryPolicy,
    StateGraph,
    interrupt,
)
from tests.graph.kit import Boom, Calls, Trail, on

durability = pytest.mark.parametrize("durability", ["sync", "async", "exit"])


class Memory(TypedDict, total=False):
    said: str
    seen: Annotated[list[str], operator.add]


class Talk(TypedDict, total=False):
    out: list[Any]


def memory(calls: Calls | None = None, fails: list[str] | None = None) -> CompiledGraph:
    """Remembers what it was told; asks when that ends with a question mark."""

    def note(state: Memory) -> Memory:
        said = state["said"]
        if calls:
            calls.add(said)
        if fails and said in fails:
            fails.remove(said)
            raise Boom(said)
        return {"seen": [interrupt(said) if said.endswith("?") else said]}

    graph = StateGraph(Memory)
    graph.add_node("note", note)
    graph.add_edge(START, "note")
    return graph.compile(True, name="memory")


def talking(store: Any, inner: CompiledGraph, *said: str, **options: Any) -> CompiledGraph:
    """A node that calls a graph that remembers several times."""

    def talk(state: Talk) -> Talk:
        return {"out": [inner.invoke({"said": each})["seen"] for each in said]}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk, **options)
    graph.add_edge(START, "talk")
    return graph.compile(store)


# --- several calls of a graph that remembers --------------------------------------------


@durability
def test_questions_in_several_calls(store: EventStore, durability: Any) -> None:
    calls = Calls()
    app = talking(store, memory(calls), "a", "b?", "c", "d?")
    config = on("t")
    app.invoke({}, config, durability=durability)
    app.invoke(Command(resume="B"), config, durability=durability)
    stop = app.get_state(config)
    assert [asked.value for asked in stop.interrupts] == ["d?"]
    done = app.invoke(Command(resume="D"), config, durability=durability)
    assert done["out"] == [["a"], ["a", "B"], ["a", "B", "c"], ["a", "B", "c", "D"]]
    assert calls.counts == {"a": 1, "b?": 2, "c": 1, "d?": 2}
    again = app.invoke(Command(resume="D2"), stop.config, durability=durability)
    assert again["out"][-1] == ["a", "B", "c", "D2"]
    assert app.check_replay(config).ok
    assert app.verify(config).ok


def test_in_another_thread_when_the_first_is_gone(store: EventStore) -> None:
    calls = Calls()
    app = talking(store, memory(calls), "a", "b?", "c?")
    app.invoke({}, on("t"))
    app.invoke(Command(resume="B"), on("t"))
    place = app.get_state(on("t")).config["configurable"]["checkpoint_id"]
    app.invoke(None, on("u", place))
    store.delete_thread("t")
    assert app.invoke(Command(resume="C"), on("u"))["out"] == [["a"], ["a", "B"], ["a", "B", "C"]]
    assert calls.counts["a"] == 1
    assert store.verify("u").ok


@durability
def test_a_retry_of_the_task_repeats_no_call(store: EventStore, durability: Any) -> None:
    calls = Calls()
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=Boom)
    app = talking(store, memory(calls, ["c"]), "a", "b", "c", retry_policy=policy)
    done = app.invoke({}, on("t"), durability=durability)
    assert done["out"] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert calls.counts == {"a": 1, "b": 1, "c": 2}


def test_a_failure_that_the_node_went_past_stays_one(store: EventStore) -> None:
    inner = memory(fails=["a"])

    def talk(state: Talk) -> Talk:
        try:
            first: Any = inner.invoke({"said": "a"})["seen"]
        except (Boom, GraphError) as error:
            first = type(error).__name__
        return {"out": [first, inner.invoke({"said": "b?"})["seen"]]}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    assert app.invoke(Command(resume="B"), on("t"))["out"] == ["GraphError", ["B"]]


@durability
def test_memories_within_memories_over_several_supersteps(
    store: EventStore, durability: Any
) -> None:
    inner = memory()
    middle = StateGraph(Memory)
    middle.add_node(
        "ask", lambda state: {"seen": inner.invoke({"said": state["said"]})["seen"][-1:]}
    )
    middle.add_edge(START, "ask")
    remembering = middle.compile(True, name="middle")

    def node(state: Trail) -> Trail:
        return {"log": [remembering.invoke({"said": str(len(state["log"]))})["seen"]]}

    graph = StateGraph(Trail)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_conditional_edges("node", lambda s: "node" if len(s["log"]) % 3 else "__end__")
    app = graph.compile(store)
    for turn in (1, 2):
        log = app.invoke({}, on("t"), durability=durability)["log"]
        assert log[-1] == [str(n) for n in range(3 * turn)]
    assert store.verify("t").ok


@durability
def test_calls_of_one_memory_at_once_are_refused(
    blocking_store: EventStore, durability: Any
) -> None:
    inner = memory()

    async def talk(state: Talk) -> Talk:
        both = (inner.ainvoke({"said": "a"}), inner.ainvoke({"said": "b"}))
        return {"out": list(await asyncio.gather(*both))}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    app = graph.compile(blocking_store)
    with pytest.raises(InvalidGraphError, match="one call at a time"):
        asyncio.run(app.ainvoke({}, on("t"), durability=durability))


# --- edits and past questions inside ----------------------------------------------------


def nested(store: Any, calls: Calls, depth: int = 1) -> CompiledGraph:
    """A graph that asks, so many levels down."""

    def first(state: Trail) -> Trail:
        calls.add("first")
        return {"log": ["first"]}

    def ask(state: Trail) -> Trail:
        calls.add("ask")
        return {"log": [interrupt(f"about {state['log']}?")]}

    inner = StateGraph(Trail)
    inner.add_sequence([("first", first), ("ask", ask)])
    inner.add_edge(START, "first")
    graph = inner.compile()
    for level in range(depth):
        outer = StateGraph(Trail)
        outer.add_node("sub", graph)
        outer.add_edge(START, "sub")
        graph = outer.compile(store if level == depth - 1 else None)
    return graph


def deepest(app: CompiledGraph, thread_id: str) -> Any:
    state: Any = app.get_state(on(thread_id), subgraphs=True)
    while state.tasks and state.tasks[0].state is not None:
        state = state.tasks[0].state
    return state


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_edit_inside_takes_its_question_back(store: EventStore, depth: int) -> None:
    calls = Calls()
    app = nested(store, calls, depth)
    app.invoke({"log": []}, on("t"))
    app.update_state(deepest(app, "t").config, {"log": ["edited"]}, as_node="first")
    state = app.get_state(on("t"))
    assert state.interrupts == () and state.next == ("sub",)
    assert store.thread("t").status == "waiting"
    asked = app.invoke(None, on("t"))["__interrupt__"]
    assert [each.value for each in asked] == ["about ['first', 'edited']?"]
    app.invoke(Command(resume="yes"), on("t"))
    assert calls.counts["first"] == 1
    assert app.get_state(on("t")).next == ()
    edited = next(
        s for s in app.get_state_history(on("t"), every=True) if s.next and not s.interrupts
    )
    assert app.invoke(None, edited.config)["__interrupt__"][0].value == asked[0].value, (
        "going back to it finds the subgraph as it was edited"
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_early_answer_inside_is_for_the_question_after_the_edit(
    store: EventStore, depth: int
) -> None:
    """As in LangGraph: nothing is asked when it comes, and it answers what is asked next."""
    calls = Calls()
    app = nested(store, calls, depth)
    app.invoke({"log": []}, on("t"))
    app.update_state(deepest(app, "t").config, {"log": ["edited"]}, as_node="first")
    values = app.invoke(Command(resume="early"), on("t"))
    assert "__interrupt__" not in values and values["log"][-1] == "early"
    assert calls.counts["first"] == 1
    assert app.get_state(on("t")).next == ()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_past_question_inside_can_be_answered_where_it_was_asked(
    store: EventStore, depth: int
) -> None:
    calls = Calls()
    app = nested(store, calls, depth)
    app.invoke({"log": []}, on("t"))
    stop = deepest(app, "t")
    assert app.invoke(Command(resume="one"), on("t"))["log"][-1] == "one"
    assert app.invoke(Command(resume="two"), stop.config)["log"][-1] == "two"
    assert calls.counts["first"] == 1
    assert app.get_state(on("t")).values["log"][-1] == "two"
    assert store.verify("t").ok


def test_after_an_edit_nothing_runs(store: EventStore) -> None:
    """So nobody who waits for a run to end waits for it."""
    calls = Calls()
    app = nested(store, calls)
    app.invoke({"log": []}, on("t"))
    first = list(app.get_state_history(on("t"), every=True))[-1]
    app.update_state(first.config, {"log": ["anew"]}, as_node=START)
    assert store.thread("t").status == "waiting"
    asked = app.invoke(None, on("t"), on_conflict="wait", conflict_timeout_s=600)
    assert len(asked["__interrupt__"]) == 1
    app.update_state(on("t"), {"log": ["by hand"]}, as_node="sub")
    assert store.thread("t").status == "idle"


# --- graphs that remember, and going back -----------------------------------------------


def chat(store: Any) -> CompiledGraph:
    """Each turn is answered by a graph that remembers."""

    def answer(state: Memory) -> Memory:
        return {"seen": [state["said"], f"answer {len(state.get('seen', ())) + 1}"]}

    graph = StateGraph(Memory)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    inner = graph.compile(True, name="memory")
    return talking_turns(store, inner)


def talking_turns(store: Any, inner: CompiledGraph) -> CompiledGraph:
    graph = StateGraph(Memory)
    graph.add_node(
        "turn", lambda state: {"seen": inner.invoke({"said": state["said"]})["seen"][-2:]}
    )
    graph.add_edge(START, "turn")
    return graph.compile(store)


@pytest.mark.parametrize("thread", ["t", "u"])
def test_a_turn_made_anew_is_not_the_one_before(store: EventStore, thread: str) -> None:
    """Going back to before a turn runs it again, and does not find the call of an earlier one."""
    app = chat(store)
    app.invoke({"said": "hello"}, on("t"))
    first = app.invoke({"said": "weather?"}, on("t"))["seen"]
    assert first == ["hello", "answer 1", "weather?", "answer 3"]
    turn = next(s for s in app.get_state_history(on("t"), every=True) if s.next == ("turn",))
    place = turn.config["configurable"]["checkpoint_id"]
    assert app.invoke(None, on(thread, place))["seen"] == first
    other = app.update_state(on("v", place), {"said": "news?"}, as_node=START)
    assert app.invoke(None, other)["seen"][-2:] == ["news?", "answer 3"]
    assert store.verify(thread).ok and store.verify("v").ok


def test_an_edit_on_a_branch_keeps_what_was_remembered(store: EventStore) -> None:
    inner = memory()

    def talk(state: Talk) -> Talk:
        seen = inner.invoke({"said": "a"})["seen"]
        return {"out": [seen, interrupt("?")]}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    stop = app.get_state(on("t")).config["configurable"]["checkpoint_id"]
    app.update_state(on("u", stop), {"out": []}, as_node=START)
    app.invoke(None, on("u"))
    second = app.get_state(on("u")).config["configurable"]["checkpoint_id"]
    assert app.invoke(Command(resume=1), on("u"))["out"] == [["a", "a"], 1]
    assert app.invoke(Command(resume=2), on("v", second))["out"] == [["a", "a"], 2]
    for thread in "tuv":
        assert store.verify(thread).ok


def test_a_call_that_was_cut_off_is_not_taken_up(store: EventStore) -> None:
    steps = StateGraph(Memory)
    steps.add_sequence([(name, lambda s, name=name: {"seen": [name]}) for name in "ab"])
    steps.add_edge(START, "a")
    inner = steps.compile(True, name="memory")

    def talk(state: Talk) -> Talk:
        try:
            first: Any = inner.invoke({}, {"recursion_limit": 1})["seen"]
        except (RecursionError, GraphError) as error:
            first = type(error).__name__
        return {"out": [first, inner.invoke({})["seen"], interrupt("?")]}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    before = {ns: store.head("t", ns).seq for ns in store.verify("t").namespaces}
    assert app.invoke(Command(resume=1), on("t"))["out"] == ["GraphError", ["a", "a", "b"], 1]
    assert store.head("t", "talk/memory").seq == before["talk/memory"]


def test_a_batch_in_a_node_finds_its_logs_again(store: EventStore) -> None:
    """By the order of its inputs, whichever of them begins first."""
    calls = Calls()
    inner = StateGraph(Talk)

    def slowly(state: Talk) -> Talk:
        calls.add(str(state["out"]))
        return {"out": [*state["out"], "done"]}

    inner.add_node("slowly", slowly)
    inner.add_edge(START, "slowly")
    child = inner.compile()

    def talk(state: Talk) -> Talk:
        found = child.batch([{"out": [n]} for n in range(8)])
        return {"out": [*(each["out"] for each in found), interrupt("?")]}

    graph = StateGraph(Talk)
    graph.add_node("talk", talk)
    graph.add_edge(START, "talk")
    app = graph.compile(store)
    app.invoke({}, on("t"))
    assert app.invoke(Command(resume="y"), on("t"))["out"] == [
        *([n, "done"] for n in range(8)),
        "y",
    ]
    assert set(calls.counts.values()) == {1}


# --- what is not inside -----------------------------------------------------------------


def test_a_graph_with_a_store_of_its_own_is_saved_there(blocking_store: EventStore) -> None:
    with EventStore() as elsewhere:
        inner = StateGraph(Trail)
        inner.add_node("in", lambda state: {"log": ["in"]})
        inner.add_edge(START, "in")
        own = inner.compile(elsewhere)
        for store in (None, blocking_store):
            outer = StateGraph(Trail)
            outer.add_node("out", lambda state, config: {"log": own.invoke({}, config)["log"]})
            outer.add_edge(START, "out")
            name = f"thread-{store is None}"
            outer.compile(store).invoke({}, on(name))
            assert own.get_state(on(name)).values["log"] == ["in"]


def test_a_thread_of_its_own_inherits_no_place(store: EventStore) -> None:
    inner = StateGraph(Trail)
    inner.add_node("in", lambda state: {"log": ["in"]})
    inner.add_edge(START, "in")
    own = inner.compile(store)
    graph = StateGraph(Trail)
    graph.add_node("out", lambda state: {"log": own.invoke({}, on("own"))["log"]})
    graph.add_edge(START, "out")
    app = graph.compile(store)
    app.invoke({"log": ["x"]}, on("t"))
    first = list(app.get_state_history(on("t"), every=True))[-1]
    store.delete_thread("own")
    assert app.invoke(None, first.config)["log"] == ["x", "in"]
    assert own.get_state(on("own")).values["log"] == ["in"]


def test_an_option_that_is_not_there(store: EventStore) -> None:
    app = nested(store, Calls())
    wrong: list[dict[str, Any]] = [
        {"durabilty": "exit"},
        {"output_keys": "logg"},
        {"version": "v3"},
    ]
    for options in wrong:
        with pytest.raises(InvalidConfigError, match=next(iter(options))):
            app.invoke({}, on("t"), **options)
    assert store.head("t").seq == 0
