"""An interrupt and its resume value: what a node asks is shown, answered, and asked again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from eventstore import EventStore
from graph import (
    START,
    Command,
    CompiledGraph,
    Interrupt,
    RetryPolicy,
    Send,
    StateGraph,
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
    logs,
    on,
    side_by_side,
)

AT_ONCE: Final = RetryPolicy(initial_interval=0, jitter=False, retry_on=Boom)


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
