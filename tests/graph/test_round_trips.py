"""How often calls of a graph go to the database, which may be a network away.

On PostgreSQL each statement is a round trip. SQLite is in the process: a transaction that writes
counts once there, however many statements it has.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypedDict, cast

import pytest
from sqlalchemy import Engine, event

from eventstore import Event, EventStore, NewSnapshot
from graph import END, START, CompiledGraph, RunnableConfig, StateGraph

STEPS = 3
WRITE = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) \w", re.IGNORECASE)


class Trips:
    """Counts the round trips of calls."""

    def __init__(self, engine: Engine) -> None:
        self.statements: list[str] = []
        self._is_server = engine.dialect.name == "postgresql"
        self._transactions: list[bool] = []  # whether each has written
        event.listen(engine, "before_cursor_execute", self._seen)
        event.listen(engine, "begin", self._begun)

    def _begun(self, _conn: Any) -> None:
        self._transactions.append(False)

    def _seen(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not self._is_server:
            if self._transactions[-1]:
                return
            self._transactions[-1] = bool(WRITE.search(statement))
        self.statements.append(statement)

    def of(self, call: Callable[[], Any]) -> int:
        """The round trips of a call."""
        self.statements.clear()
        call()
        return len(self.statements)


class Work(TypedDict, total=False):
    number: int
    done: Annotated[list[str], operator.add]


def compiled(store: EventStore) -> CompiledGraph:
    building = StateGraph(Work)
    names = [f"step{number}" for number in range(STEPS)]
    for name in names:
        building.add_node(name, lambda _state, name=name: {"done": [name]})
    for before, after in zip([START, *names], [*names, END], strict=True):
        building.add_edge(before, after)
    return building.compile(checkpointer=store)


def at(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


@pytest.fixture
def graph(store: EventStore) -> CompiledGraph:
    made = compiled(store)
    made.invoke({"number": 1}, at("warm up"))
    return made


@pytest.fixture
def trips(store: EventStore, graph: CompiledGraph) -> Trips:
    return Trips(engine_of(store))


def engine_of(store: EventStore) -> Engine:
    """The engine that executes the statements, also of a store that is asynchronous."""
    twin: Any = getattr(store, "store", None)
    engine = store.engine if twin is None else twin.database.engine
    return cast("Engine", getattr(engine, "sync_engine", engine))


def test_a_run_takes_one_to_load_one_for_its_input_and_one_a_superstep(
    graph: CompiledGraph, trips: Trips
) -> None:
    for _ in range(2):
        assert trips.of(lambda: graph.invoke({"number": 1}, at("t"))) == 1 + 1 + STEPS
    for _ in range(3):  # the process knows the state, and the first event tells whether it holds
        assert trips.of(lambda: graph.invoke({"number": 1}, at("t"))) == 1 + STEPS


def test_reading_the_latest_state_takes_one(graph: CompiledGraph, trips: Trips) -> None:
    assert trips.of(lambda: graph.get_state(at("no such thread"))) == 1
    graph.invoke({"number": 1}, at("t"))
    for _ in range(3):
        assert trips.of(lambda: graph.get_state(at("t"))) == 1


def test_so_it_does_in_a_process_that_has_nothing_in_memory(
    store: EventStore, store_url: str
) -> None:
    if store_url == "sqlite://":
        pytest.skip("a database in memory has one store")
    graph = compiled(store)
    for _ in range(4):
        graph.invoke({"number": 1}, at("t"))
    with EventStore(store_url, tenant="test") as other:
        other.setup()
        reader = compiled(other)
        trips = Trips(other.engine)
        assert trips.of(lambda: reader.get_state(at("t"))) == 1


def test_the_past_takes_two(graph: CompiledGraph, trips: Trips) -> None:
    graph.invoke({"number": 1}, at("t"))
    for each in list(graph.get_state_history(at("t"))):
        # Before an input its event is read, too.
        most = 3 if each.next == (START,) else 2
        assert trips.of(partial(graph.get_state, each.config)) <= most


def test_going_back_takes_two_to_load_and_one_to_write(graph: CompiledGraph, trips: Trips) -> None:
    def past(name: str) -> RunnableConfig:
        graph.invoke({"number": 1}, at(name))
        return next(e.config for e in graph.get_state_history(at(name)) if e.next == ("step1",))

    edited, forked = past("edited"), past("forked")
    assert trips.of(lambda: graph.update_state(edited, {"number": 2})) <= 3
    assert trips.of(lambda: graph.invoke(None, forked)) <= 3 + (STEPS - 1)
    assert graph.get_state(at("edited")).values == {"number": 2, "done": ["step0"]}
    assert graph.get_state(at("forked")).values["done"] == ["step0", "step1", "step2"]


def test_a_history_takes_one_and_one_a_page(graph: CompiledGraph, trips: Trips) -> None:
    for _ in range(5):
        graph.invoke({"number": 1}, at("t"))
    found: list[Any] = []
    assert trips.of(lambda: found.extend(graph.get_state_history(at("t")))) == 2
    assert len(found) == 5 * (STEPS + 2)


def test_a_thread_that_was_deleted_and_made_again_takes_no_more(
    store: EventStore, graph: CompiledGraph, trips: Trips
) -> None:
    for _ in range(6):  # more often than keys are tried at once
        graph.invoke({"number": 1}, at("t"))
        store.delete_thread("t")
    graph.invoke({"number": 1}, at("t"))
    graph.get_state(at("t"))
    assert trips.of(lambda: graph.get_state(at("t"))) == 1
    for _ in range(2):
        assert trips.of(lambda: graph.invoke({"number": 1}, at("t"))) <= 1 + 1 + STEPS
    store.delete_thread("t")
    assert graph.get_state(at("t")).values == {}


def test_a_snapshot_comes_with_what_rests_on_it(store: EventStore, trips: Trips) -> None:
    head = store.head("s")
    for number in range(1, 4):
        rests_on = head.seq or None
        taken = NewSnapshot("f", b"state", b"items", rests_on)
        head = store.append_after(head, [Event(1, {"n": number})], snapshot=taken)
    head = store.append_after(head, [Event(1, {"n": 4})])

    def replay() -> None:
        found = store.replay("s", fingerprint="f")
        assert found.snapshot is not None
        assert len(found.snapshot.items) == 3
        assert [each.seq for each in found.events] == [4]

    assert trips.of(replay) == 1


def test_each_statement_names_one_thread(graph: CompiledGraph, trips: Trips) -> None:
    """As one value: a database that is sharded by thread sends it to one shard."""
    trips.of(lambda: graph.invoke({"number": 1}, at("t")))
    statements = list(trips.statements)
    trips.of(lambda: graph.get_state(at("t")))
    for each in [*statements, *trips.statements]:
        assert not re.search(r"thread_key IN", each), each
