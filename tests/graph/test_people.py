"""People in the loop: nodes ask, somebody answers, in whichever process, and the run goes on."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graph.snapshots
from eventstore import EventStore, SerializationError
from graph import (
    END,
    START,
    Command,
    CompiledGraph,
    EmptyInputError,
    GraphInterrupt,
    Interrupt,
    InvalidConfigError,
    InvalidGraphError,
    InvalidUpdateError,
    MemorySaver,
    RetryPolicy,
    RunnableConfig,
    Send,
    StateGraph,
    StateSnapshot,
    StateUpdate,
    interrupt,
)
from tests.awaited import run
from tests.graph.kit import (
    Boom,
    Calls,
    Node,
    Trail,
    asks,
    id_of,
    logs,
    on,
    replayed,
    side_by_side,
    standing,
)

ROOT: Final = Path(__file__).resolve().parents[2]

AT_ONCE: Final = RetryPolicy(initial_interval=0, jitter=False, retry_on=Boom)


def in_line(nodes: Mapping[str, Node], checkpointer: Any, **options: Any) -> CompiledGraph:
    """Nodes one after another."""
    declared = StateGraph(Trail)
    for name, node in nodes.items():
        declared.add_node(name, node)
    for before, name in itertools.pairwise([START, *nodes, END]):
        declared.add_edge(before, name)
    return declared.compile(checkpointer, **options)


def only(node: Node, checkpointer: Any, **options: Any) -> CompiledGraph:
    return in_line({"ask": node}, checkpointer, **options)


def waiting(app: CompiledGraph, config: RunnableConfig) -> dict[Any, str]:
    """What is asked at a checkpoint: what is shown → the id to answer by."""
    return {each.value: each.id for each in app.get_state(config).interrupts}


def shown(result: Mapping[str, Any]) -> list[Any]:
    """What a result says is asked."""
    return [each.value for each in result.get("__interrupt__", ())]


def kinds(app: CompiledGraph, thread_id: str = "t") -> list[str]:
    return [entry.kind for entry in app.events(on(thread_id))]


def stops(app: CompiledGraph, thread_id: str = "t") -> list[StateSnapshot]:
    """The stops of a thread at which something was asked, oldest first."""
    history = list(app.get_state_history(on(thread_id)))
    return [each for each in reversed(history) if each.interrupts]


@contextmanager
def nothing_recorded(app: CompiledGraph, thread_id: str = "t") -> Iterator[None]:
    before = list(app.events(on(thread_id)))
    yield
    assert list(app.events(on(thread_id))) == before


# --- a question and its answer ----------------------------------------------------------


def test_a_question_is_shown_and_its_answer_comes_back(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "ask": asks("ask"), "z": logs("z")}, store)
    result = app.invoke({}, on("t"))
    (question,) = result.pop("__interrupt__")
    assert result == {"log": ["a"], "total": 1}
    assert isinstance(question, Interrupt)
    assert question.value == "ask0"

    state = app.get_state(on("t"))
    assert state.values == {"log": ["a"], "total": 1}
    assert state.next == ("ask",)
    assert state.interrupts == (question,)
    (task,) = state.tasks
    assert (task.name, task.interrupts, task.result, task.error) == ("ask", (question,), None, None)

    assert app.invoke(Command(resume="yes"), on("t")) == {
        "log": ["a", ["ask", "yes"], "z"],
        "total": 2,
    }
    state = app.get_state(on("t"))
    assert (state.next, state.tasks, state.interrupts) == ((), (), ())


def test_the_audit_trail_says_what_was_asked_and_answered(store: EventStore) -> None:
    app = only(asks("ask"), store)
    app.invoke({}, on("t"))
    (question,) = app.get_state(on("t")).interrupts
    app.invoke(Command(resume={"approved": True}), on("t"))
    entries = list(app.events(on("t")))
    assert [entry.kind for entry in entries] == ["input", "interrupt", "resume", "output"]
    (asked,) = entries[1].data["tasks"]
    assert asked["node"] == "ask"
    assert asked["interrupts"] == [{"id": question.id, "value": "ask0", "nth": 0}]
    (answer,) = entries[2].data["answers"]
    assert (answer["id"], answer["value"]) == (question.id, {"approved": True})


def test_threads_that_wait_can_be_listed(store: EventStore) -> None:
    seen = []

    def node(state: Trail) -> dict[str, Any]:
        answer = interrupt("?")
        seen.append(store.thread("t").status)
        return {"log": [answer]}

    app = only(node, store)
    app.invoke({}, on("t"))
    assert [info.thread_id for info in store.threads(status="waiting")] == ["t"]
    app.invoke(Command(resume=1), on("t"))
    assert seen == ["running"]
    assert store.thread("t").status == "idle"
    assert store.threads(status="waiting") == []


def test_going_on_without_an_answer_asks_again(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "b": logs("b", calls)}, store)
    first = app.invoke({}, on("t"))
    with nothing_recorded(app):
        assert app.invoke(None, on("t")) == first
    assert calls.counts == {"a": 2, "b": 1}
    assert store.thread("t").status == "waiting"


def test_a_question_that_reads_differently_the_second_time(store: EventStore) -> None:
    texts = iter(["first", "second", "third"])
    app = only(lambda state: {"log": [interrupt(next(texts)), next(texts)]}, store)
    assert shown(app.invoke({}, on("t"))) == ["first"]
    assert shown(app.invoke(None, on("t"))) == ["second"]
    assert [each.interrupts[0].value for each in stops(app)] == ["first", "second"]
    assert app.get_state(on("t")).interrupts[0].value == "second"


@dataclass
class Payment:
    amount: int
    to: tuple[str, ...] = ()


PLAIN: Final[list[Any]] = [
    False,
    True,
    0,
    1.5,
    "",
    "text",
    b"",
    [],
    {},
    (),
    {"a": [1, {"b": None}]},
]


def showing(value: Any, state: Trail) -> dict[str, Any]:
    return {"log": [interrupt(value)]}


def test_any_value_can_be_asked_and_answered(store: EventStore) -> None:
    store.codec.register(Payment, name="payment")
    for number, value in enumerate([None, *PLAIN, Payment(5, ("me",))]):
        config = on(f"t{number}")
        app = only(partial(showing, value), store)
        assert shown(app.invoke({}, config)) == [value]
        (question,) = app.get_state(config).interrupts
        assert (question.value, type(question.value)) == (value, type(value))
        (got,) = app.invoke(Command(resume={question.id: value}), config)["log"]
        assert (got, type(got)) == (value, type(value))


def test_the_one_question_is_answered_without_its_id(store: EventStore) -> None:
    app = only(asks("ask"), store)
    for number, value in enumerate([*PLAIN, {"some": "keys", "of": "its own"}]):
        app.invoke({}, on(f"t{number}"))
        assert app.invoke(Command(resume=value), on(f"t{number}"))["log"] == [["ask", value]]


def test_an_answer_is_the_node_s_own(store: EventStore) -> None:
    """What a node does to an answer changes it neither for the caller nor for the next attempt."""
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        answer = interrupt("?")
        answer.append("more")
        if calls.add("ask") == 1:
            raise Boom
        return {"log": answer}

    declared = StateGraph(Trail).add_node("ask", node, retry_policy=AT_ONCE)
    app = declared.add_edge(START, "ask").compile(store)
    app.invoke({}, on("t"))
    answer = ["given"]
    assert app.invoke(Command(resume=answer), on("t"))["log"] == ["given", "more"]
    assert answer == ["given"]


# --- the node runs again from its top ---------------------------------------------------


def test_questions_of_one_node_are_answered_in_order(store: EventStore) -> None:
    calls = Calls()
    app = only(asks("q", calls, 3), store)
    result = app.invoke({}, on("t"))
    for n in range(3):
        assert shown(result) == [f"q{n}"]
        result = app.invoke(Command(resume=n), on("t"))
    assert result["log"] == [["q", 0, 1, 2]]
    assert calls.counts["q"] == 4, "once more for each answer"
    assert kinds(app) == ["input", *["interrupt", "resume"] * 3, "output"]


def test_asking_until_the_answer_will_do(store: EventStore) -> None:
    def age(state: Trail) -> dict[str, Any]:
        question = "how old?"
        while not isinstance(answer := interrupt(question), int):
            question = f"{answer!r} is no number; how old?"
        return {"log": [answer]}

    app = only(age, store)
    assert shown(app.invoke({}, on("t"))) == ["how old?"]
    assert shown(app.invoke(Command(resume="old"), on("t"))) == ["'old' is no number; how old?"]
    assert shown(app.invoke(Command(resume=[]), on("t"))) == ["[] is no number; how old?"]
    assert app.invoke(Command(resume=7), on("t")) == {"log": [7], "total": 0}


def test_asking_about_every_item(store: EventStore) -> None:
    def approve(state: Trail) -> dict[str, Any]:
        return {"log": [item for item in ("x", "y", "z") if interrupt({"approve": item})]}

    app = only(approve, store)
    app.invoke({}, on("t"))
    app.invoke(Command(resume=True), on("t"))
    app.invoke(Command(resume=False), on("t"))
    assert app.invoke(Command(resume=True), on("t"))["log"] == ["x", "z"]


def test_a_node_s_own_exception_handling_does_not_swallow_a_question(store: EventStore) -> None:
    cleaned = Calls()

    def helper(what: str) -> Any:
        try:
            return interrupt(what)
        except Exception:
            return "swallowed"
        finally:
            cleaned.add("finally")

    app = only(lambda state: {"log": [helper("deep down")]}, store)
    assert shown(app.invoke({}, on("t"))) == ["deep down"]
    assert app.invoke(Command(resume="up"), on("t"))["log"] == ["up"]
    assert cleaned.counts["finally"] == 2


def test_a_conditional_edge_may_ask(store: EventStore) -> None:
    calls = Calls()
    declared = StateGraph(Trail)
    declared.add_node("a", logs("a", calls))
    for name in "xy":
        declared.add_node(name, logs(name))
    declared.add_edge(START, "a")
    declared.add_conditional_edges("a", lambda state: interrupt(["x", "y"]), ["x", "y"])
    app = declared.compile(store)
    result = app.invoke({}, on("t"))
    assert shown(result) == [["x", "y"]]
    assert app.get_state(on("t")).next == ("a",)
    assert app.invoke(Command(resume="y"), on("t"))["log"] == ["a", "y"]
    assert calls.counts["a"] == 2


def test_retries_and_questions(store: EventStore) -> None:
    """Questions are not tried again, failures before and behind them are; answers survive that."""
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        if calls.add("before") == 1:
            raise Boom("before it asks")
        answer = interrupt("?")
        if calls.add("behind") == 1:
            raise Boom("with the answer")
        return {"log": [answer]}

    declared = StateGraph(Trail).add_node("ask", node, retry_policy=AT_ONCE)
    app = declared.add_edge(START, "ask").compile(store)
    assert shown(app.invoke({}, on("t"))) == ["?"]
    assert calls.counts == {"before": 2}
    assert app.invoke(Command(resume="yes"), on("t"))["log"] == ["yes"]
    assert calls.counts == {"before": 4, "behind": 2}


def test_an_answer_is_kept_when_the_node_then_fails(store: EventStore) -> None:
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        answers = [interrupt("one?"), interrupt("two?")]
        if calls.add("ask") == 1:
            raise Boom
        return {"log": answers}

    app = only(node, store)
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    with pytest.raises(Boom):
        app.invoke(Command(resume=2), on("t"))
    assert store.thread("t").status == "failed"
    assert app.get_state(on("t")).tasks[0].error is not None
    assert app.invoke(None, on("t"))["log"] == [1, 2]


def test_a_node_with_a_timeout_may_ask(store: EventStore) -> None:
    declared = StateGraph(Trail).add_node("ask", asks("ask"), timeout=30)
    app = declared.add_edge(START, "ask").compile(store)
    app.invoke({}, on("t"))
    assert app.invoke(Command(resume=1), on("t"))["log"] == [["ask", 1]]


def fanned_out(store: Any, count: int, calls: Calls | None = None) -> CompiledGraph:
    """As many tasks of one node, each asking for itself."""

    def work(arg: int) -> dict[str, Any]:
        if calls is not None:
            calls.add(f"{arg}")
        return {"log": [(arg, interrupt(f"item {arg}?"))]}

    declared = StateGraph(Trail)
    declared.add_node("work", work)
    declared.add_conditional_edges(
        START, lambda state: [Send("work", arg) for arg in range(count)], ["work"]
    )
    return declared.compile(store)


def test_tasks_of_one_node_ask_each_for_itself(store: EventStore) -> None:
    calls = Calls()
    app = fanned_out(store, 3, calls)
    result = app.invoke({}, on("t", max_concurrency=1))
    assert shown(result) == ["item 0?", "item 1?", "item 2?"]
    asked = waiting(app, on("t"))
    assert len(set(asked.values())) == 3
    app.invoke(Command(resume={asked["item 1?"]: "one"}), on("t"))
    assert calls.counts == {"0": 1, "1": 2, "2": 1}
    rest = {asked["item 2?"]: "two", asked["item 0?"]: "zero"}
    assert app.invoke(Command(resume=rest), on("t", max_concurrency=2))["log"] == [
        (0, "zero"),
        (1, "one"),
        (2, "two"),
    ]


# --- several questions of one superstep -------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_answered_one_by_one_in_any_order(
    blocking_store: EventStore, order: tuple[str, ...]
) -> None:
    calls = Calls()
    nodes = {name: asks(name, calls) for name in "abc"} | {"done": logs("done", calls)}
    app = side_by_side(nodes, blocking_store)
    app.invoke({}, on("t"))
    left = ["a0", "b0", "c0"]
    result: Mapping[str, Any] = {}
    for name in order:
        assert list(waiting(app, on("t"))) == left
        assert blocking_store.thread("t").status == "waiting"
        question = waiting(app, on("t"))[f"{name}0"]
        result = app.invoke(Command(resume={question: name.upper()}), on("t"))
        left.remove(f"{name}0")
        assert shown(result) == left
    assert result == {"log": [["a", "A"], ["b", "B"], ["c", "C"], "done"], "total": 1}
    assert calls.counts == {"a": 2, "b": 2, "c": 2, "done": 1}


def test_answered_together(store: EventStore) -> None:
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "b": asks("b", calls), "c": logs("c", calls)}, store)
    app.invoke({}, on("t"))
    answers = {name: value for value, name in waiting(app, on("t")).items()}
    assert app.invoke(Command(resume=answers), on("t"))["log"] == [["a", "a0"], ["b", "b0"], "c"]
    assert calls.counts == {"a": 2, "b": 2, "c": 1}
    assert kinds(app) == ["input", "output", "interrupt", "resume", "output", "output"]


def test_what_was_not_answered_waits_on(store: EventStore) -> None:
    """Neither it nor what has finished runs again; the values show what is done by now."""
    calls = Calls()
    app = side_by_side({"a": asks("a", calls), "b": asks("b", calls), "c": logs("c", calls)}, store)
    app.invoke({}, on("t"))
    result = app.invoke(Command(resume={waiting(app, on("t"))["b0"]: "B"}), on("t"))
    assert shown(result) == ["a0"]
    assert result["log"] == [["b", "B"], "c"]
    assert calls.counts == {"a": 1, "b": 2, "c": 1}
    state = app.get_state(on("t"))
    assert state.next == ("a",)
    assert state.values["log"] == [["b", "B"], "c"]
    assert [task.result for task in state.tasks] == [
        None,
        {"log": [["b", "B"]]},
        {"log": ["c"], "total": 1},
    ]


def test_a_node_that_asks_on_while_another_waits(store: EventStore) -> None:
    app = side_by_side({"a": asks("a", questions=2), "b": asks("b")}, store)
    app.invoke({}, on("t"))
    first = waiting(app, on("t"))
    assert shown(app.invoke(Command(resume={first["a0"]: 1}), on("t"))) == ["a1", "b0"]
    second = waiting(app, on("t"))
    assert second["b0"] == first["b0"]
    assert second["a1"] != first["a0"]
    answers = {second["a1"]: 2, second["b0"]: 3}
    assert app.invoke(Command(resume=answers), on("t"))["log"] == [["a", 1, 2], ["b", 3]]


def test_a_failure_beside_a_question(store: EventStore) -> None:
    """The error is raised, the question kept: answered, it goes on with what failed."""
    calls, broken = Calls(), {"fails"}

    def fails(state: Trail) -> dict[str, Any]:
        calls.add("fails")
        if broken:
            raise Boom
        return {"log": ["mended"]}

    app = side_by_side(
        {"ask": asks("ask", calls), "done": logs("done", calls), "fails": fails}, store
    )
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    state = app.get_state(on("t"))
    assert [each.value for each in state.interrupts] == ["ask0"]
    assert state.next == ("ask", "fails")
    assert store.thread("t").status == "failed"
    with pytest.raises(Boom):
        app.invoke(Command(resume="yes"), on("t"))
    broken.clear()
    assert app.invoke(None, on("t"))["log"] == [["ask", "yes"], "done", "mended"]
    assert calls.counts == {"ask": 2, "done": 1, "fails": 3}


def test_a_failure_is_mended_before_the_answer(store: EventStore) -> None:
    broken = {"fails"}

    def fails(state: Trail) -> dict[str, Any]:
        if broken:
            raise Boom
        return {"log": ["mended"]}

    app = side_by_side({"ask": asks("ask"), "fails": fails}, store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    broken.clear()
    assert shown(app.invoke(None, on("t"))) == ["ask0"]
    assert store.thread("t").status == "waiting"
    assert app.invoke(Command(resume=1), on("t"))["log"] == [["ask", 1], "mended"]


def test_a_question_survives_a_failure_of_its_own_node(store: EventStore) -> None:
    """Asked, then run again for nothing and failed: the question can still be answered."""
    calls = Calls()

    def node(state: Trail) -> dict[str, Any]:
        if calls.add("ask") == 2:
            raise Boom
        return {"log": [interrupt("?")]}

    app = only(node, store)
    app.invoke({}, on("t"))
    with pytest.raises(Boom):
        app.invoke(None, on("t"))
    assert waiting(app, on("t")).keys() == {"?"}
    assert shown(app.invoke(None, on("t"))) == ["?"]
    assert store.thread("t").status == "waiting"
    assert app.get_state(on("t")).tasks[0].error is None
    assert app.invoke(Command(resume=1), on("t"))["log"] == [1]


# --- event loops ------------------------------------------------------------------------


def test_questions_of_coroutines_that_a_node_runs_side_by_side() -> None:
    async def one(what: str) -> Any:
        return interrupt(what)

    async def grouped(state: Trail) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(what)) for what in ("x?", "y?", "z?")]
        return {"log": [task.result() for task in tasks]}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(grouped, saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["x?", "y?", "z?"]
            asked = {each.value: each.id for each in (await app.aget_state(on("t"))).interrupts}
            result = await app.ainvoke(Command(resume={asked["y?"]: "Y"}), on("t"))
            assert shown(result) == ["x?", "z?"]
            assert saver.store.thread("t").status == "waiting"
            rest = {asked["z?"]: "Z", asked["x?"]: "X"}
            assert (await app.ainvoke(Command(resume=rest), on("t")))["log"] == ["X", "Y", "Z"]

    run(main())


def test_questions_that_a_node_gathers_are_asked_one_after_the_other() -> None:
    async def one(what: str) -> Any:
        return interrupt(what)

    async def gathering(state: Trail) -> dict[str, Any]:
        return {"log": await asyncio.gather(one("x?"), one("y?"))}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(gathering, saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["x?"]
            assert shown(await app.ainvoke(Command(resume="X"), on("t"))) == ["y?"]
            assert (await app.ainvoke(Command(resume="Y"), on("t")))["log"] == ["X", "Y"]

    run(main())


def test_a_failure_beside_a_question_inside_one_node() -> None:
    """The failure is what the node comes to; the question is asked when it runs again."""
    calls = Calls()

    async def asking() -> Any:
        return interrupt("?")

    async def failing() -> str:
        if calls.add("failing") == 1:
            raise Boom
        return "mended"

    async def grouped(state: Trail) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asking()), group.create_task(failing())]
        return {"log": [task.result() for task in tasks]}

    async def main() -> None:
        with MemorySaver() as saver:
            app = only(grouped, saver)
            with pytest.raises(ExceptionGroup) as caught:
                await app.ainvoke({}, on("t"))
            assert caught.group_contains(Boom)
            assert saver.store.thread("t").status == "failed"
            assert shown(await app.ainvoke(None, on("t"))) == ["?"]
            assert (await app.ainvoke(Command(resume=1), on("t")))["log"] == [1, "mended"]

    run(main())


def test_coroutines_and_their_conditional_edges_ask() -> None:
    async def ask(state: Trail) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"log": [interrupt("what?")]}

    async def path(state: Trail) -> Any:
        await asyncio.sleep(0)
        return interrupt("where?")

    async def main() -> None:
        declared = StateGraph(Trail).add_node("ask", ask).add_node("z", logs("z"))
        declared.add_edge(START, "ask").add_conditional_edges("ask", path, ["z", END])
        with MemorySaver() as saver:
            app = declared.compile(saver)
            assert shown(await app.ainvoke({}, on("t"))) == ["what?"]
            assert shown(await app.ainvoke(Command(resume="that"), on("t"))) == ["where?"]
            assert (await app.ainvoke(Command(resume="z"), on("t")))["log"] == ["that", "z"]

    run(main())


# --- what is refused --------------------------------------------------------------------


def test_an_answer_to_nothing(store: EventStore) -> None:
    app = in_line({"ask": asks("ask"), "z": logs("z")}, store, interrupt_before=["z"])
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    for _ in range(2):  # stopped before a node, then finished
        with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=r"invoke\(None") as e:
            app.invoke(Command(resume="again"), on("t"))
        assert "no question" in str(e.value)
        app.invoke(None, on("t"))
    assert app.get_state(on("t")).next == ()


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
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="2 questions") as caught:
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
    with pytest.raises(InvalidGraphError, match="outside of a running node"):
        interrupt("?")
    declared = StateGraph(Trail).add_node("a", logs("a"))
    declared.add_conditional_edges(START, lambda state: interrupt("where?"), ["a"])
    with pytest.raises(InvalidGraphError, match="outside of a running node"):
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


# --- commands as inputs -----------------------------------------------------------------


def commanded(store: Any, calls: Calls | None = None, **options: Any) -> CompiledGraph:
    """START → ask → after; ``other`` and ``sent`` are reached by commands alone."""
    declared = StateGraph(Trail)
    declared.add_node("ask", asks("ask", calls), destinations=("other", "sent"))
    declared.add_node("after", logs("after", calls))
    declared.add_node("other", logs("other", calls))
    declared.add_node("sent", lambda arg: {"log": [arg]})
    declared.add_edge(START, "ask")
    declared.add_edge("ask", "after")
    return declared.compile(store, **options)


def test_an_answer_with_an_update_and_somewhere_to_go(store: EventStore) -> None:
    app = commanded(store)
    app.invoke({}, on("t"))
    command: Command[str] = Command(
        resume="yes", update={"note": "by me"}, goto=["other", Send("sent", "extra")]
    )
    assert app.invoke(command, on("t")) == {
        "log": [["ask", "yes"], "other", "extra", "after"],
        "total": 2,
        "note": "by me",
    }


def test_an_update_is_seen_by_the_node_that_is_answered(store: EventStore) -> None:
    app = only(lambda state: {"log": [interrupt("?"), state.get("note")]}, store)
    app.invoke({}, on("t"))
    assert app.invoke(Command(resume=1, update={"note": "seen"}), on("t"))["log"] == [1, "seen"]


def test_commands_without_an_answer_on_a_thread_that_waits(store: EventStore) -> None:
    """The question stays; what the command wants is done beside it."""
    app = commanded(store)
    app.invoke({}, on("t"))
    (question,) = waiting(app, on("t")).values()
    result = app.invoke(Command(update={"note": "n"}), on("t"))
    assert (result["note"], shown(result)) == ("n", ["ask0"])
    result = app.invoke(Command(goto="other"), on("t"))
    assert (result["log"], shown(result)) == (["other"], ["ask0"])
    assert store.thread("t").status == "waiting"
    assert app.get_state(on("t")).next == ("ask",)
    assert app.invoke(Command(resume={question: 1}), on("t"))["log"] == [
        ["ask", 1],
        "other",
        "after",
    ]


def test_commands_on_a_thread_that_stopped_before_a_node(store: EventStore) -> None:
    app = commanded(store, interrupt_before=["after"])
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    assert app.get_state(on("t")).next == ("after",)
    assert app.invoke(Command(goto="other", update={"note": "n"}), on("t")) == {
        "log": [["ask", 1], "after", "other"],
        "total": 2,
        "note": "n",
    }


def test_commands_on_a_thread_that_has_finished(store: EventStore) -> None:
    """They go where they say and nowhere else: START's edges are for inputs."""
    calls = Calls()
    app = commanded(store, calls)
    app.invoke({}, on("t"))
    app.invoke(Command(resume=1), on("t"))
    asked = calls.counts["ask"]
    assert app.invoke(Command(update={"note": "n"}), on("t"))["note"] == "n"
    assert app.invoke(Command(goto="other"), on("t"))["log"] == [["ask", 1], "after", "other"]
    assert calls.counts["ask"] == asked
    assert app.get_state(on("t")).next == ()


def test_commands_on_a_new_thread(store: EventStore) -> None:
    app = commanded(store)
    result = app.invoke(Command(update={"note": "n"}, goto="other"), on("t"))
    assert (result["note"], result["log"], shown(result)) == ("n", ["other"], ["ask0"])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (Command(resume=1, goto="nowhere"), "nowhere"),
        (Command(resume=1, update={"typo": 1}), "typo"),
        (Command(resume=1, graph=Command.PARENT), "subgraphs"),
    ],
    ids=["goto", "update", "graph"],
)
def test_commands_that_do_not_fit(
    blocking_store: EventStore, command: Command[str], said: str
) -> None:
    app = commanded(blocking_store)
    app.invoke({}, on("t"))
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match=said):
        app.invoke(command, on("t"))
    assert shown(app.invoke(None, on("t"))) == ["ask0"]


def test_a_new_input_drops_the_question(store: EventStore) -> None:
    app = commanded(store)
    app.invoke({"note": "first"}, on("t"))
    old = waiting(app, on("t"))
    assert shown(app.invoke({"note": "second"}, on("t"))) == ["ask0"]
    assert waiting(app, on("t")) != old
    with pytest.raises(InvalidUpdateError, match=old["ask0"]):
        app.invoke(Command(resume={old["ask0"]: 1}), on("t"))
    assert app.invoke(Command(resume=1), on("t"))["note"] == "second"


# --- edits of a thread that waits -------------------------------------------------------


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
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="questions wait"):
        app.update_state(on("t"), {"note": "edited"})
    assert len(app.invoke(Command(update={"note": "edited"}), on("t"))["__interrupt__"]) == 1
    assert app.invoke(Command(resume="y"), on("t"))["note"] == "edited"


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
    latest = app.get_state_history(on("t"), limit=3)
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


# --- going back -------------------------------------------------------------------------


def test_every_stop_can_be_gone_back_to(store: EventStore) -> None:
    app = only(asks("q", questions=3), store)
    app.invoke({}, on("t"))
    for n in range(3):
        app.invoke(Command(resume=n), on("t"))
    found = stops(app)
    assert [each.interrupts[0].value for each in found] == ["q0", "q1", "q2"]
    for each in found:
        assert app.get_state(each.config) == each
        assert each.next == ("ask",)
    assert [app.get_state(each.config).parent_config for each in found[1:]] == [
        each.config for each in found[:-1]
    ]
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
    assert past in list(app.get_state_history(on("t")))


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
        app.invoke(None, stop.config)
    assert app.invoke(Command(resume=5), stop.config)["log"] == [2]
    assert store.thread("t").status == "idle"


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
    with nothing_recorded(app), pytest.raises(InvalidUpdateError, match="no question"):
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
    (again, *_) = [each for each in app.get_state_history(on("new")) if each.interrupts]
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


# --- streams ----------------------------------------------------------------------------


def test_what_is_asked_as_a_stream_of_updates(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b"), "c": logs("c")}, store)
    chunks = list(app.stream({}, on("t"), stream_mode="updates"))
    a, b = app.get_state(on("t")).interrupts
    assert chunks == [
        {"c": {"log": ["c"], "total": 1}},
        {"__interrupt__": (a,)},
        {"__interrupt__": (b,)},
    ]
    chunks = list(app.stream(Command(resume={a.id: 1}), on("t"), stream_mode="updates"))
    assert chunks == [{"a": {"log": [["a", 1]]}}, {"__interrupt__": (b,)}]
    assert list(app.stream(None, on("t"))) == [{"__interrupt__": (b,)}]
    assert list(app.stream(Command(resume=2), on("t"))) == [{"b": {"log": [["b", 2]]}}]


def test_what_is_asked_as_a_stream_of_values(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "c": logs("c")}, store)
    chunks = list(app.stream({}, on("t"), stream_mode="values"))
    asked = app.get_state(on("t")).interrupts
    assert chunks == [
        {"log": [], "total": 0},
        {"log": ["c"], "total": 1, "__interrupt__": asked},
    ]
    *_, last = app.stream(Command(resume=1), on("t"), stream_mode="values")
    assert last == {"log": [["a", 1], "c"], "total": 1}


def test_what_is_asked_as_a_stream_of_tasks(store: EventStore) -> None:
    app = side_by_side({"a": asks("a"), "b": asks("b")}, store)
    chunks = list(app.stream({}, on("t"), stream_mode=["tasks", "debug"]))
    a, b = app.get_state(on("t")).interrupts
    tasks = [chunk for mode, chunk in chunks if mode == "tasks"]
    assert [(chunk["name"], chunk.get("interrupts")) for chunk in tasks] == [
        ("a", None),
        ("b", None),
        ("a", [{"value": "a0", "id": a.id}]),
        ("b", [{"value": "b0", "id": b.id}]),
    ]
    debug = [chunk for mode, chunk in chunks if mode == "debug"]
    assert [chunk["type"] for chunk in debug] == ["checkpoint", *["task"] * 2, *["task_result"] * 2]
    assert [chunk["payload"] for chunk in debug[1:]] == tasks
    resumed = list(app.stream(Command(resume={b.id: 1}), on("t"), stream_mode="tasks"))
    assert [chunk["name"] for chunk in resumed] == ["b", "b"], "`a` does not run"
    assert resumed[1]["result"] == {"log": [["b", 1]]}


def test_a_stop_before_a_node_asks_nothing(store: EventStore) -> None:
    app = in_line({"a": logs("a"), "b": logs("b")}, store, interrupt_before=["b"])
    assert list(app.stream({}, on("t")))[-1] == {"__interrupt__": ()}
    assert "__interrupt__" not in app.invoke({}, on("u"))


# --- across processes -------------------------------------------------------------------


PROGRAM: Final = """
import json, os, signal, sys
from eventstore import EventStore
from graph import Command
from tests.graph.kit import asks, logs, on, side_by_side

url, told, after = sys.argv[1:]
given = json.loads(told)
with EventStore(url, tenant="test") as store:
    nodes = {"a": asks("a", questions=2), "b": asks("b"), "done": logs("done")}
    app = side_by_side(nodes, store)
    asked = {each.value: each.id for each in app.get_state(on("t")).interrupts}
    answers = {asked[value]: answer for value, answer in (given or {}).items()}
    result = app.invoke(Command(resume=answers) if answers else {}, on("t"))
    left = [each.value for each in result.pop("__interrupt__", ())]
    print(json.dumps([result, left]), flush=True)
    if after == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def in_a_process(url: str, answers: dict[str, Any] | None, after: str) -> tuple[Any, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, json.dumps(answers), after],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert ended.returncode == (-signal.SIGKILL if after == "kill" else 0)
    result, left = json.loads(ended.stdout)
    return result, left


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_one_process_asks_another_is_answered_a_third_goes_on(store_url: str) -> None:
    if store_url == "sqlite://":
        pytest.skip("a database in memory belongs to one process")
    result, left = in_a_process(store_url, None, "kill")
    assert (result["log"], left) == (["done"], ["a0", "b0"])
    result, left = in_a_process(store_url, {"a0": 1}, "kill")
    assert (result["log"], left) == (["done"], ["a1", "b0"])
    result, left = in_a_process(store_url, {"b0": 2}, "exit")
    assert (result["log"], left) == ([["b", 2], "done"], ["a1"])
    with EventStore(store_url, tenant="test") as store:
        app = side_by_side({"a": asks("a", None, 2), "b": asks("b"), "done": logs("done")}, store)
        assert [info.thread_id for info in store.threads(status="waiting")] == ["t"]
        assert app.invoke(Command(resume=3), on("t"))["log"] == [["a", 1, 3], ["b", 2], "done"]
        assert app.verify(on("t")).ok


# --- any graph, answered in any way -----------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A fan-out of tasks, each with its number of questions."""

    questions: tuple[int, ...]

    def build(self, checkpointer: Any, known: Mapping[str, Any] | None) -> CompiledGraph:
        """The graph; with all answers known beforehand nobody is asked."""

        def ask(value: str) -> Any:
            return interrupt(value) if known is None else known[value]

        def work(arg: int) -> dict[str, Any]:
            answers = [ask(f"{arg}.{n}") for n in range(self.questions[arg])]
            return {"log": [[arg, *answers]], "total": len(answers)}

        declared = StateGraph(Trail)
        declared.add_node("work", work)
        declared.add_node("end", lambda state: {"note": f"{len(state['log'])}"})
        declared.add_conditional_edges(
            START, lambda state: [Send("work", arg) for arg in range(len(self.questions))], ["work"]
        )
        declared.add_edge("work", "end")
        return declared.compile(checkpointer)


layers = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple).map(Layer)


@contextmanager
def snapshots_taken_often(often: bool) -> Iterator[None]:
    with (
        patch.object(graph.snapshots, "FLOOR", 1 if often else graph.snapshots.FLOOR),
        patch.object(graph.snapshots, "EVENT_WEIGHT", 10_000 if often else 256),
    ):
        yield


ways = st.lists(st.sampled_from(["answer", "answer", "go on", "restart", "go back"]), max_size=6)


@settings(max_examples=settings().max_examples // 2)
@given(layers, ways, st.booleans(), st.data())
def test_however_it_is_answered_it_comes_to_the_same(
    layer: Layer, way: list[str], often: bool, data: st.DataObject
) -> None:
    names = [f"{arg}.{n}" for arg, count in enumerate(layer.questions) for n in range(count)]
    answers = {name: data.draw(st.sampled_from([0, None, "x", [name]])) for name in names}
    expected = layer.build(None, answers).invoke({})
    with snapshots_taken_often(often), MemorySaver() as saver:
        app = layer.build(saver, None)
        result = app.invoke({}, on("t"))
        for step in itertools.chain(way, itertools.repeat("answer all")):
            assert replayed(app, "t", snapshots=False) == replayed(app, "t", snapshots=True)
            asked = waiting(app, on("t"))
            assert shown(result) == list(asked)
            assert saver.store.thread("t").status == ("waiting" if asked else "idle")
            if not asked:
                break
            if step in ("answer", "answer all"):
                some = st.sets(st.sampled_from(sorted(asked)), min_size=1)
                chosen = data.draw(some) if step == "answer" else asked.keys()
                told = {asked[name]: answers[name] for name in chosen}
                result = app.invoke(Command(resume=told), on("t"))
            elif step == "go on":
                result = app.invoke(None, on("t"))
            elif step == "restart":
                app = layer.build(saver, None)
            else:
                past = stops(app)
                stop = past[data.draw(st.integers(0, len(past) - 1))]
                result = app.invoke(None, stop.config)
        assert result == expected
        state = app.get_state(on("t"))
        assert (state.values, state.next) == (expected, ())
        assert app.verify(on("t")).ok
