"""Whatever user code raises, at whichever of its calls: the run ends, and goes on later.

One graph has every kind of code that an application can give it: plain and async nodes, alone and
side by side, a subgraph, conditional edges, reducers, a retry predicate, a validator, a default
factory, values with an `__eq__` of their own, errors with a `__str__` of their own. A run without
faults counts the calls; then the first and the last of each kind raise in turn.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypedDict

import pytest
from pydantic import BaseModel, Field, field_validator

from eventstore import EventStore
from graph import END, START, Command, CompiledGraph, RetryPolicy, StateGraph, interrupt
from graph.types import Durability
from tests.awaited import opened, run
from tests.effort import effort
from tests.graph.kit import on

TIME_LIMIT_S: Final = 30.0


class Calls:
    """Counts calls of user code, and raises at one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.error: Callable[[], BaseException] | None = None
        self.begin(None)

    def begin(self, at: int | None) -> None:
        self.count = 0
        self.at = at
        self.sites: list[str] = []
        self.raised_in: str | None = None

    def of(self, site: str) -> None:
        with self._lock:
            number, self.count = self.count, self.count + 1
            self.sites.append(site)
            raises = number == self.at and self.error is not None
            if raises:
                self.raised_in = site
        if raises:
            assert self.error is not None
            raise self.error()


calls = Calls()


@dataclass
class Guest:
    """A value that the application compares its own way."""

    name: str

    def __eq__(self, other: object) -> bool:
        calls.of("__eq__")
        return isinstance(other, Guest) and self.name == other.name

    def __reduce__(self) -> Any:
        calls.of("__reduce__")
        return (Guest, (self.name,))

    def __hash__(self) -> int:
        return hash(self.name)


class Unsteady(Exception):
    """An error that computes its text."""

    def __str__(self) -> str:
        calls.of("__str__")
        return "unsteady"


def added(left: list[str], right: list[str]) -> list[str]:
    calls.of("reducer")
    return left + right


def fresh() -> list[Guest]:
    calls.of("default factory")
    return [Guest("first")]


class Party(BaseModel):
    log: Annotated[list[str], added] = []
    guests: list[Guest] = Field(default_factory=fresh)
    total: Annotated[int, operator.add] = 0

    @field_validator("total")
    @classmethod
    def check(cls, value: int) -> int:
        calls.of("validator")
        return value


class Table(TypedDict, total=False):
    """The state of a subgraph, which shares no key with the graph around it."""

    dish: Annotated[list[str], added]


def again(error: Exception) -> bool:
    calls.of("retry predicate")
    return isinstance(error, Unsteady)


RETRY: Final = RetryPolicy(retry_on=again, initial_interval=0.001, jitter=False, max_attempts=3)


def party(checkpointer: Any, is_async: bool) -> CompiledGraph:
    """The graph; a person is asked at the end."""

    def seat(state: Party) -> dict[str, Any]:
        calls.of("node")
        return {"log": ["seat"], "guests": [*state.guests, Guest("second")]}

    failed: list[bool] = []

    def cook(state: Party) -> dict[str, Any]:
        calls.of("parallel node")
        if not failed:
            failed.append(True)
            raise Unsteady
        return {"log": ["cook"], "total": 1}

    async def pour(state: Party) -> dict[str, Any]:
        calls.of("async node")
        await asyncio.sleep(0)
        calls.of("async node, later")
        return {"log": ["pour"], "total": 1}

    def pour_now(state: Party) -> dict[str, Any]:
        calls.of("second parallel node")
        return {"log": ["pour"], "total": 1}

    def route(state: Party) -> str:
        calls.of("conditional edge")
        return "inner"

    def ask(state: Party) -> dict[str, Any]:
        calls.of("node that asks")
        answer = interrupt("enough?")
        calls.of("node that asks, later")
        return {"log": [answer]}

    def inner_node(state: Table) -> dict[str, Any]:
        calls.of("node of a subgraph")
        return {"dish": ["served"]}

    inner = StateGraph(Table).add_node("dish", inner_node).add_edge(START, "dish").compile()
    graph = StateGraph(Party)
    graph.add_node("seat", seat)
    graph.add_node("cook", cook, retry_policy=RETRY)
    graph.add_node("pour", pour if is_async else pour_now)
    graph.add_node("inner", inner)
    graph.add_node("ask", ask)
    graph.add_edge(START, "seat")
    graph.add_edge("seat", "cook")
    graph.add_edge("seat", "pour")
    graph.add_conditional_edges("cook", route, ["inner"])
    graph.add_edge(["pour", "inner"], "ask")
    graph.add_edge("ask", END)
    return graph.compile(checkpointer)


ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    "Exception": lambda: Exception("an error"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "RecursionError": lambda: RecursionError("too deep"),
    "MemoryError": MemoryError,
    "StopIteration": StopIteration,
}
ON_EVERY_BACKEND: Final = ["CancelledError"]
"""What the database makes of a stop; the rest never reaches it."""

USUAL: Final = ["Exception", "KeyboardInterrupt", "GeneratorExit", "StopIteration"]
"""One of each kind that Python or the runtime treats in its own way."""

BOTH: Final = (0, -1)

GIVEN: Final = {"log": ["given"], "total": 1}
SITES: Final = {
    "__str__",
    "conditional edge",
    "default factory",
    "node",
    "node of a subgraph",
    "node that asks",
    "parallel node",
    "reducer",
    "retry predicate",
    "validator",
}
MODES: Final = ["values", "updates", "tasks", "custom"]


@pytest.fixture(autouse=True)
def no_faults_left() -> Iterator[None]:
    yield
    calls.error = None
    calls.begin(None)


def end_calls(ends: Sequence[int]) -> list[int]:
    """The calls of each kind at these ends (0: the first, -1: the last) that the clean run made."""
    numbers: dict[str, list[int]] = {}
    for number, site in enumerate(calls.sites):
        numbers.setdefault(site, []).append(number)
    assert set(numbers) >= SITES
    return sorted({each[end] for each in numbers.values() for end in ends})


def in_time(call: Callable[[], Any]) -> Any:
    """What a call comes to, on a thread of its own, so that one that hangs is noticed."""
    found: list[Any] = []

    def target() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT_S)
    assert found, "the run does not end"
    return found[0]


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("error", ON_EVERY_BACKEND)
def test_sync(blocking_store: EventStore, error: str) -> None:
    each_call_raises(blocking_store, error, BOTH, streamed=False)


@pytest.mark.slow
@pytest.mark.pairwise
@pytest.mark.parametrize("end", BOTH, ids=["first", "last"])
@pytest.mark.parametrize("streamed", [False, True], ids=["invoked", "streamed"])
@pytest.mark.parametrize("error", effort(USUAL, [*ERRORS]))
def test_sync_in_memory(error: str, streamed: bool, end: int) -> None:
    with EventStore() as store:
        each_call_raises(store, error, [end], streamed)


def each_call_raises(store: EventStore, error: str, ends: Sequence[int], streamed: bool) -> None:
    def whole(app: CompiledGraph, thread_id: str) -> Any:
        if streamed:
            return list(app.stream(GIVEN, on(thread_id), stream_mode=MODES))
        return app.invoke(GIVEN, on(thread_id))

    calls.begin(None)
    whole(party(store, False), "clean")
    numbers = end_calls(ends)
    calls.error = ERRORS[error]
    for number in numbers:
        app, thread_id = party(store, False), f"t{number}"
        calls.begin(number)
        found = in_time(partial(whole, app, thread_id))
        site = calls.raised_in
        calls.begin(None)
        config = on(thread_id)
        if not any(each.thread_id == thread_id for each in store.threads(limit=1000)):
            assert isinstance(found, BaseException), site
            app.invoke(GIVEN, config)
        else:
            check(store.thread(thread_id).status, found, site)
            assert app.verify(config).ok, site
            if not app.get_state(config).interrupts:
                app.invoke(None, config, on_conflict="wait")
        assert app.get_state(config).interrupts, site
        check_end(app.invoke(Command(resume="yes"), config), site)
        assert store.thread(thread_id).status == "idle"
        assert app.verify(config).ok


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("error", ON_EVERY_BACKEND)
def test_async(store_url: str, error: str) -> None:
    each_call_raises_in_a_loop(store_url, error, BOTH, "sync")


@pytest.mark.slow
@pytest.mark.pairwise
@pytest.mark.parametrize("end", BOTH, ids=["first", "last"])
@pytest.mark.parametrize("durability", effort(["sync", "exit"], ["sync", "async", "exit"]))
@pytest.mark.parametrize("error", effort(USUAL, [*ERRORS]))
def test_async_in_memory(error: str, durability: Durability, end: int) -> None:
    each_call_raises_in_a_loop(":memory:", error, [end], durability)


def each_call_raises_in_a_loop(
    url: str, error: str, ends: Sequence[int], durability: Durability
) -> None:
    async def whole(app: CompiledGraph, thread_id: str) -> Any:
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                return await app.ainvoke(GIVEN, on(thread_id), durability=durability)
        except TimeoutError:
            pytest.fail(f"the run does not end: {calls.raised_in}")
        except BaseException as raised:
            return raised

    async def main() -> None:
        async with opened(url) as store:
            calls.begin(None)
            await whole(party(store, True), "clean")
            numbers = end_calls(ends)
            calls.error = ERRORS[error]
            for number in numbers:
                app, thread_id = party(store, True), f"t{number}"
                calls.begin(number)
                found = await whole(app, thread_id)
                site = calls.raised_in
                calls.begin(None)
                config = on(thread_id)
                if not (await store.head(thread_id)).exists:
                    assert isinstance(found, BaseException), site
                    await app.ainvoke(GIVEN, config)
                else:
                    check((await store.thread(thread_id)).status, found, site)
                    assert (await app.averify(config)).ok, site
                    if not (await app.aget_state(config)).interrupts:
                        await app.ainvoke(None, config, on_conflict="wait")
                assert (await app.aget_state(config)).interrupts, site
                check_end(await app.ainvoke(Command(resume="yes"), config), site)
                assert (await store.thread(thread_id)).status == "idle"
                assert (await app.averify(config)).ok

    run(main())


def check(status: str, found: Any, site: str | None) -> None:
    if isinstance(found, BaseException):
        stopped = isinstance(found, KeyboardInterrupt | asyncio.CancelledError | GeneratorExit)
        assert status == "failed" or (stopped and status == "cancelled"), (site, found, status)
    else:
        assert status == "waiting", (site, found)


def check_end(values: Any, site: str | None) -> None:
    assert sorted(values["log"]) == ["cook", "given", "pour", "seat", "yes"], site
    assert values["total"] == 3, site
    assert [guest.name for guest in values["guests"]] == ["first", "second"], site
