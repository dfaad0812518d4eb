"""Folding a log afresh, and holding recorded runs against the code of today."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, Literal, TypedDict

import pytest

from eventstore import EventStore, PositionNotFoundError, ThreadNotFoundError
from graph import (
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    InvalidGraphError,
    MessagesState,
    RetryPolicy,
    Send,
    StateGraph,
    add_messages,
    interrupt,
)
from graph.testing import assert_replays, recorded_threads
from tests.graph.kit import Boom, Trail, logs, on, steps

# --- replay and rebuild -----------------------------------------------------------------


def test_replay_is_the_state(store: EventStore) -> None:
    app = steps("abc", store)
    app.invoke({"log": ["in"]}, on("t"))
    assert app.replay(on("t")) == app.get_state(on("t"))
    for snapshot in app.get_state_history(on("t"), every=True):
        assert app.replay(snapshot.config).values == snapshot.values
        assert app.replay(on("t"), upto=snapshot.config).values == snapshot.values


def test_replay_up_to_any_event(store: EventStore) -> None:
    app = steps("abc", store)
    app.invoke({"log": ["in"]}, on("t"))
    logs_by_seq = [app.replay(on("t"), upto=seq).values["log"] for seq in range(1, 5)]
    assert logs_by_seq == [["in"], ["in", "a"], ["in", "a", "b"], ["in", "a", "b", "c"]]
    with pytest.raises(PositionNotFoundError):
        app.replay(on("t"), upto=99)


def test_replay_in_the_middle_of_a_superstep(store: EventStore) -> None:
    graph = StateGraph(Trail)
    for name in "ab":
        graph.add_node(name, logs(name))
        graph.add_edge(START, name)
    app = graph.compile(store)
    app.invoke({}, on("t"))
    half = app.replay(on("t"), upto=2)
    assert half.values["log"] == []
    assert len(half.next) == 1
    assert sum(task.result is not None for task in half.tasks) == 1


@pytest.mark.slow
def test_replay_folds_with_the_reducers_of_today(store: EventStore) -> None:
    """Also where snapshots say otherwise: `replay` does not look at them."""

    def summing(reducer: Any, version: str | None = None) -> CompiledGraph:
        make: Any = TypedDict
        graph = StateGraph(make("Sums", {"total": Annotated[int, reducer], "text": str}))
        graph.add_node("a", lambda state: {"total": 2, "text": "x" * 400})
        graph.add_edge(START, "a")
        return graph.compile(store, version=version)

    app = summing(operator.add)
    for _ in range(120):
        app.invoke({"total": 1}, on("t"))
    assert store.stats("t").snapshots > 0
    assert app.get_state(on("t")).values["total"] == 360
    assert summing(operator.add, "2").get_state(on("t")).values["total"] == 360
    changed = summing(lambda old, new: old + 10 * new)
    assert changed.get_state(on("t")).values["total"] == 3600
    assert changed.replay(on("t")).values["total"] == 3600
    assert changed.invoke({"total": 1}, on("t"))["total"] == 3630


@pytest.mark.slow
def test_a_new_version_makes_old_snapshots_unused(store: EventStore) -> None:
    def counted(version: str) -> CompiledGraph:
        return steps("a", store, version=version)

    for _ in range(150):
        counted("1").invoke({"log": ["x" * 300]}, on("t"))
    before = store.stats("t").snapshots
    assert before > 0
    old, new = counted("1"), counted("2")
    assert old._log and new._log
    assert store.replay("t", fingerprint=old._log.fingerprint).snapshot is not None
    assert store.replay("t", fingerprint=new._log.fingerprint).snapshot is None
    assert new.get_state(on("t")).values == old.get_state(on("t")).values
    assert new.rebuild(on("t")) == before
    assert store.replay("t", fingerprint=old._log.fingerprint).snapshot is None
    assert store.replay("t", fingerprint=new._log.fingerprint).snapshot is not None
    assert new.get_state(on("t")).values == old.get_state(on("t")).values
    assert new.verify(on("t")).ok


def test_rebuilding_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        steps("a", store).rebuild(on("nobody"))


# --- today's code on yesterday's runs ---------------------------------------------------


class Order(TypedDict, total=False):
    amount: int
    notes: Annotated[list[str], operator.add]
    total: int


def shop(
    store: EventStore,
    *,
    fee: int = 5,
    limit: int = 100,
    question: str = "approve?",
    ask_twice: bool = False,
) -> CompiledGraph:
    def price(state: Order) -> Order:
        return {"total": state["amount"] + fee, "notes": ["priced"]}

    def route(state: Order) -> Literal["review", "ship"]:
        return "review" if state["total"] > limit else "ship"

    def review(state: Order) -> Order:
        answer = interrupt(question)
        if ask_twice:
            interrupt("sure?")
        return {"notes": [f"reviewed: {answer}"]}

    graph = StateGraph(Order)
    graph.add_node("price", price)
    graph.add_node("review", review)
    graph.add_node("ship", lambda state: {"notes": [f"shipped for {state['total']}"]})
    graph.add_edge(START, "price")
    graph.add_conditional_edges("price", route)
    graph.add_edge("review", "ship")
    return graph.compile(store)


def recorded(store: EventStore) -> None:
    app = shop(store)
    app.invoke({"amount": 10}, on("small"))
    app.invoke({"amount": 500}, on("large"))
    app.invoke(Command(resume="fine"), on("large"))


def test_the_same_code_replays(store: EventStore) -> None:
    recorded(store)
    app = shop(store)
    before = [store.head(name) for name in ("small", "large")]
    small, large = app.check_replay(on("small")), app.check_replay(on("large"))
    assert small.ok and small.events == 3
    assert large.ok and large.events == 5, "input, price, question, review, ship"
    assert [store.head(name) for name in ("small", "large")] == before


@pytest.mark.parametrize(
    ("thread", "change", "seq", "node", "what"),
    [
        ("small", {"fee": 6}, 2, "price", "total"),
        ("small", {"limit": 0}, 2, "price", "goto"),
        ("large", {"limit": 1000}, 2, "price", "goto"),
        ("large", {"question": "ok?"}, 3, "review", "asks"),
        ("large", {"ask_twice": True}, 5, "review", "asks"),
    ],
)
def test_the_first_event_that_would_differ(
    store: EventStore, thread: str, change: dict[str, Any], seq: int, node: str, what: str
) -> None:
    recorded(store)
    report = shop(store, **change).check_replay(on(thread))
    assert not report.ok and report.mismatch is not None
    found = report.mismatch
    assert (found.seq, found.node, found.what) == (seq, node, what)
    assert thread in str(found) and node in str(found)


def test_a_change_that_this_thread_does_not_meet(store: EventStore) -> None:
    recorded(store)
    assert shop(store, question="other?").check_replay(on("small")).ok


def test_only_some_nodes(store: EventStore) -> None:
    recorded(store)
    app = shop(store, question="other?")
    assert app.check_replay(on("large"), nodes=["price", "ship"]).ok
    assert not app.check_replay(on("large"), nodes=["review"]).ok


def test_what_counts_as_the_same_is_the_applications_to_say(store: EventStore) -> None:
    recorded(store)
    app = shop(store, fee=6)
    seen = []

    def same(key: str, old: Any, new: Any) -> bool:
        seen.append(key)
        return key == "total" and abs(old - new) < 2

    report = app.check_replay(on("small"), same=same)
    assert report.ok, "a total of 16 instead of 15; shipping says what was recorded as the total"
    assert seen == ["total"]


def test_a_node_that_now_fails_and_one_that_is_gone(store: EventStore) -> None:
    steps("ab", store).invoke({}, on("t"))

    def boom(state: Trail) -> Trail:
        raise Boom("now")

    graph = StateGraph(Trail)
    graph.add_sequence([("a", logs("a")), ("b", boom)])
    graph.add_edge(START, "a")
    failing = graph.compile(store).check_replay(on("t")).mismatch
    assert failing and (failing.seq, failing.node, failing.what) == (3, "b", "raises")
    gone = steps("ac", store).check_replay(on("t")).mismatch
    assert gone and gone.seq == 2 and gone.what == "goto", "a leads to c now"


def test_what_failed_and_was_retried_back_then(store: EventStore) -> None:
    fails = [Boom("first"), Boom("second")]

    def shaky(state: Trail) -> Trail:
        if fails:
            raise fails.pop()
        return {"log": ["done"]}

    graph = StateGraph(Trail)
    policy = RetryPolicy(initial_interval=0.001, max_attempts=2, jitter=False, retry_on=Boom)
    graph.add_node("shaky", shaky, retry_policy=policy)
    graph.add_edge(START, "shaky")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    app.invoke(None, on("t"))
    assert app.check_replay(on("t")).ok


def test_branches_parallel_tasks_and_edits(store: EventStore) -> None:
    graph = StateGraph(Trail)
    graph.add_node("spread", lambda state: {"log": ["spread"]})
    graph.add_node("one", lambda n: {"log": [n * 10]})
    graph.add_node("end", lambda state: {"log": [f"sum {state['log']}"]})
    graph.add_edge(START, "spread")
    graph.add_conditional_edges("spread", lambda state: [Send("one", n) for n in range(4)])
    graph.add_edge("one", "end")
    app = graph.compile(store)
    app.invoke({"log": ["in"]}, on("t"))
    first = list(app.get_state_history(on("t"), every=True))[-1]
    branch = app.update_state(first.config, {"log": ["edited"]}, as_node=START)
    app.invoke(None, branch)
    app.invoke({}, on("t"))
    report = app.check_replay(on("t"))
    assert report.ok and report.events > 18


@pytest.mark.usefixtures("without_langchain")
def test_generated_message_ids_are_no_difference(store: EventStore) -> None:
    def chat(text: str) -> CompiledGraph:
        graph = StateGraph(MessagesState)
        graph.add_node("say", lambda state: {"messages": [("assistant", text)]})
        graph.add_edge(START, "say")
        return graph.compile(store)

    chat("hello").invoke({"messages": "hi"}, on("t"))
    assert chat("hello").check_replay(on("t")).ok
    assert not chat("good day").check_replay(on("t")).ok
    assert add_messages([], "x")[0]["id"] != add_messages([], "x")[0]["id"]


def nested(store: EventStore, *, word: str = "inner", calls: int = 1) -> CompiledGraph:
    inner = StateGraph(Trail)
    inner.add_node("ask", lambda state: {"log": [f"{word} {interrupt('inner?')}"]})
    inner.add_edge(START, "ask")
    child = inner.compile(name="child")
    remembering = StateGraph(Trail)
    remembering.add_node("count", lambda state: {"log": [len(state["log"])]})
    remembering.add_edge(START, "count")
    memory = remembering.compile(True, name="memory")

    def caller(state: Trail) -> Trail:
        found = [memory.invoke({"log": ["again"]})["log"] for _ in range(calls)]
        return {"log": [found[-1]]}

    outer = StateGraph(Trail)
    outer.add_node("sub", child)
    outer.add_node("caller", caller)
    outer.add_edge(START, "sub")
    outer.add_edge("sub", "caller")
    return outer.compile(store)


@pytest.mark.slow
def test_subgraphs_are_checked_by_their_own_logs(store: EventStore) -> None:
    app = nested(store)
    for turn in range(3):
        app.invoke({"log": ["in"]}, on("t"))
        app.invoke(Command(resume=turn), on("t"))
    ends = {ns: store.head("t", ns) for ns in store.verify("t").namespaces}
    assert nested(store).check_replay(on("t")).ok
    changed = nested(store, word="other").check_replay(on("t")).mismatch
    assert changed and changed.ns.startswith("sub:") and changed.node == "ask"
    further = nested(store, calls=2).check_replay(on("t")).mismatch
    assert further and further.node == "caller" and "recorded" in str(further.new)
    assert {ns: store.head("t", ns) for ns in store.verify("t").namespaces} == ends


def test_the_order_of_edges_is_no_difference_and_every_write_counts(store: EventStore) -> None:
    def made(order: str, first: str = "1") -> CompiledGraph:
        graph = StateGraph(Trail)
        graph.add_node("a", lambda state: [Command(update={"log": [first]}), {"log": ["2"]}])
        graph.add_edge(START, "a")
        for name in order:
            graph.add_node(name, logs(name))
            graph.add_edge("a", name)
        return graph.compile(store)

    made("bc").invoke({}, on("t"))
    assert made("cb").check_replay(on("t")).ok
    found = made("bc", "other").check_replay(on("t")).mismatch
    assert found and (found.node, found.what) == ("a", "log")


def test_asynchronous_nodes_are_checked_by_the_asynchronous_call(
    blocking_store: EventStore,
) -> None:
    async def node(state: Trail) -> Trail:
        return {"log": ["a"]}

    graph = StateGraph(Trail)
    graph.add_node("a", node)
    graph.add_edge(START, "a")
    app = graph.compile(blocking_store)

    async def main() -> bool:
        await app.ainvoke({}, on("t"))
        return (await app.acheck_replay(on("t"))).ok

    assert asyncio.run(main())
    with pytest.raises(InvalidGraphError, match="acheck_replay"):
        app.check_replay(on("t"))


def test_a_thread_that_is_not_there(store: EventStore) -> None:
    with pytest.raises(ThreadNotFoundError):
        steps("a", store).check_replay(on("nobody"))


# --- the helper for tests ---------------------------------------------------------------


def test_assert_replays(blocking_store: EventStore) -> None:
    recorded(blocking_store)
    app = shop(blocking_store)
    assert recorded_threads(app) == ["large", "small"]
    assert assert_replays(app) == 8
    with pytest.raises(AssertionError, match="total = 505") as caught:
        assert_replays(shop(blocking_store, fee=6))
    assert str(caught.value).count("thread ") == 2
    assert assert_replays(shop(blocking_store, question="?"), ["small"]) == 3


def test_assert_replays_compares_something(blocking_store: EventStore) -> None:
    with pytest.raises(InvalidConfigError, match="nothing was compared"):
        assert_replays(shop(blocking_store))
    with pytest.raises(InvalidConfigError, match="checkpointer"):
        assert_replays(steps("a"))
