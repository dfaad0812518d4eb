"""A run ends with its node's error, whatever is raised while it is retried, judged or recorded."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest

from eventstore import EventStore
from graph import END, START, InvalidGraphError, RetryPolicy, StateGraph

pytestmark = pytest.mark.every_backend


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("this error has no text")


class Notes(Exception):
    __notes__ = 5  # type: ignore[assignment]  # `add_note` fails on it


def plain() -> BaseException:
    return ConnectionError("reset")


CONFIG: Any = {"configurable": {"thread_id": "t"}}
NEVER = RetryPolicy(retry_on=ZeroDivisionError)


def judged_by(error: type[BaseException]) -> RetryPolicy:
    def judge(_raised: Exception) -> bool:
        raise error("the predicate")

    return RetryPolicy(retry_on=judge, initial_interval=0.001)


CASES: dict[str, tuple[Callable[[], BaseException], RetryPolicy, type[BaseException]]] = {
    "a predicate that raises": (plain, judged_by(AttributeError), ConnectionError),
    "a predicate out of memory": (plain, judged_by(MemoryError), ConnectionError),
    "a predicate that recurses": (plain, judged_by(RecursionError), ConnectionError),
    "a predicate that is interrupted": (plain, judged_by(KeyboardInterrupt), KeyboardInterrupt),
    "an error without a text": (Unreadable, NEVER, Unreadable),
    "an error that takes no notes": (Notes, NEVER, Notes),
    "an error without a text, retried": (
        Unreadable,
        RetryPolicy(retry_on=Unreadable, max_attempts=2, initial_interval=0.001),
        Unreadable,
    ),
    "a backoff that overflows": (
        plain,
        RetryPolicy(
            retry_on=ConnectionError,
            max_attempts=3,
            initial_interval=1e300,
            backoff_factor=1e300,
            max_interval=0.001,
        ),
        ConnectionError,
    ),
    "out of memory": (lambda: MemoryError("full"), NEVER, MemoryError),
    "too deep": (lambda: RecursionError("deep"), NEVER, RecursionError),
    "interrupted": (lambda: KeyboardInterrupt("user"), NEVER, KeyboardInterrupt),
    "a group": (lambda: ExceptionGroup("two", [ValueError("a")]), NEVER, ExceptionGroup),
}


@pytest.mark.pairwise
@pytest.mark.parametrize("siblings", [0, 3])
@pytest.mark.parametrize(("make", "policy", "expected"), CASES.values(), ids=CASES)
def test_the_error_comes_out_and_the_thread_goes_on(
    store: EventStore,
    make: Callable[[], BaseException],
    policy: RetryPolicy,
    expected: type[BaseException],
    siblings: int,
) -> None:
    broken = [True]

    def fails(state: State) -> State:
        if broken[0]:
            raise make()
        return {"log": ["fails"]}

    graph = StateGraph(State)
    graph.add_node("fails", fails, retry_policy=policy)
    graph.add_edge(START, "fails")
    graph.add_edge("fails", END)
    for number in range(siblings):
        graph.add_node(f"s{number}", lambda state, n=number: {"log": [f"s{n}"]})
        graph.add_edge(START, f"s{number}")
    app = graph.compile(store)
    with pytest.raises(expected) as caught:
        app.invoke({"log": ["x"]}, CONFIG)
    assert type(caught.value) is expected
    if issubclass(expected, Exception):
        assert store.thread("t").status == "failed"
        (task,) = [each for each in app.get_state(CONFIG).tasks if each.name == "fails"]
        assert task.error
    assert app.verify(CONFIG).ok
    broken[0] = False
    done = app.invoke(None, CONFIG)["log"]
    assert sorted(done) == sorted(["x", "fails", *(f"s{number}" for number in range(siblings))])


def test_a_cancelled_predicate_ends_the_run_in_an_event_loop(store_url: str) -> None:
    async def fails(state: State) -> State:
        raise ConnectionError("reset")

    async def main() -> None:
        from eventstore import AsyncEventStore

        async with AsyncEventStore(store_url) as store:
            graph = StateGraph(State)
            graph.add_node("fails", fails, retry_policy=judged_by(asyncio.CancelledError))
            graph.add_node("s", lambda state: {"log": ["s"]})
            graph.add_edge(START, "fails")
            graph.add_edge(START, "s")
            app = graph.compile(store)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(app.ainvoke({"log": ["x"]}, CONFIG), 20)

    asyncio.run(main())


@pytest.mark.parametrize("siblings", [0, 1])
def test_a_node_that_a_deployment_renamed(store: EventStore, siblings: int) -> None:
    def build(name: str, stop: Any = None) -> Any:
        graph = StateGraph(State)
        graph.add_node(name, lambda state: {"log": [name]})
        graph.add_edge(START, name)
        for number in range(siblings):
            graph.add_node(f"s{number}", lambda state: {"log": ["s"]})
            graph.add_edge(START, f"s{number}")
        return graph.compile(store, interrupt_before=stop)

    build("old", ["old"]).invoke({"log": ["x"]}, CONFIG)
    app = build("new")
    with pytest.raises(InvalidGraphError, match=r"node 'old' is due .* its nodes are 'new'"):
        app.invoke(None, CONFIG)
    assert app.get_state(CONFIG).values == {"log": ["x"]}, "nothing ran, and the state is readable"
    assert len(list(app.get_state_history(CONFIG, every=True))) == 1
    app.update_state(CONFIG, {"log": ["by hand"]}, as_node="new")
    assert app.invoke(None, CONFIG)["log"] == ["x", "by hand"]
    assert app.invoke({"log": ["y"]}, CONFIG)["log"][-1 - siblings] == "new"
