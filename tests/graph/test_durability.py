"""When what a run did is durable: ``durability="sync"``, ``"async"`` and ``"exit"``."""

from __future__ import annotations

import operator
import random
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import pytest

from eventstore import ConcurrencyError, EventStore, SerializationError
from graph import (
    START,
    Command,
    CompiledGraph,
    InvalidConfigError,
    Send,
    StateGraph,
    interrupt,
)
from graph.run.journal import BEHIND_MAX
from tests import processes
from tests.effort import effort
from tests.graph.kit import Boom, Calls, Trail, logs, on, steps

pytestmark = pytest.mark.every_backend

ROOT: Final = Path(__file__).resolve().parents[2]
MODES: Final = ("sync", "async", "exit")

durability = pytest.mark.parametrize("durability", MODES)


def history(app: CompiledGraph, thread_id: str) -> list[tuple[str, Any]]:
    """What the audit trail holds, without its times."""
    return [(entry.kind, entry.data) for entry in app.events(on(thread_id))]


def counting(limit: int, store: Any, calls: Calls | None = None) -> CompiledGraph:
    """A loop of one node."""
    graph = StateGraph(Trail)

    def count(state: Trail) -> Trail:
        if calls:
            calls.add("count")
        return {"log": [len(state["log"])]}

    graph.add_node("count", count)
    graph.add_edge(START, "count")
    graph.add_conditional_edges(
        "count", lambda state: "count" if len(state["log"]) < limit else "__end__"
    )
    return graph.compile(store)


# --- the same log whenever it is written ------------------------------------------------


def varied(store: Any) -> CompiledGraph:
    """Steps, a fan-out, a subgraph, one that remembers, and a question."""
    inner = StateGraph(Trail)
    inner.add_sequence([("i1", logs("i1")), ("i2", logs("i2"))])
    inner.add_edge(START, "i1")
    child = inner.compile(name="child")
    memory = StateGraph(Trail)
    memory.add_node("m", lambda state: {"log": [len(state["log"])]})
    memory.add_edge(START, "m")
    remembering = memory.compile(True, name="memory")

    def caller(state: Trail) -> Trail:
        first = remembering.invoke({"log": ["x"]})["log"]
        second = remembering.invoke({"log": ["y"]})["log"]
        return {"log": [first, second]}

    graph = StateGraph(Trail)
    graph.add_node("spread", logs("spread"))
    graph.add_node("one", lambda n: {"log": [n]})
    graph.add_node("sub", child)
    graph.add_node("caller", caller)
    graph.add_node("ask", lambda state: {"log": [interrupt("?")]})
    graph.add_edge(START, "spread")
    graph.add_conditional_edges("spread", lambda state: [Send("one", n) for n in range(3)])
    graph.add_edge("one", "sub")
    graph.add_edge("sub", "caller")
    graph.add_edge("caller", "ask")
    return graph.compile(store)


@durability
def test_the_same_events_and_state(store: EventStore, durability: Any) -> None:
    app = varied(store)
    for mode in ("sync", durability):
        config = on(mode + "1", max_concurrency=1)
        asked = app.invoke({"log": ["in"]}, config, durability=mode)
        assert len(asked["__interrupt__"]) == 1
        assert app.get_state(config).interrupts
        assert store.thread(mode + "1").status == "waiting"
        app.invoke(Command(resume="yes"), config, durability=mode)
        app.invoke({"log": ["again"]}, config, durability=mode)
        app.invoke(Command(resume="no"), config, durability=mode)
        assert store.thread(mode + "1").status == "idle"
    expected, found = app.get_state(on("sync1")), app.get_state(on(f"{durability}1"))
    assert found.values == expected.values
    assert len(history(app, f"{durability}1")) == len(history(app, "sync1"))
    logs_of = store.verify(f"{durability}1")
    assert logs_of.ok and logs_of.namespaces == store.verify("sync1").namespaces
    assert app.verify(on(f"{durability}1")).ok
    assert app.replay(on(f"{durability}1")).values == expected.values


@pytest.mark.slow
@durability
def test_snapshots_and_long_runs(store: EventStore, durability: Any) -> None:
    app = counting(300, store)
    config = on("t", recursion_limit=400)
    assert app.invoke({}, config, durability=durability)["log"] == list(range(300))
    assert app.get_state(config).values["log"] == list(range(300))
    assert app.invoke({}, config, durability=durability)["log"] == list(range(301))
    assert app.verify(config).ok


def test_an_unknown_mode(store: EventStore) -> None:
    with pytest.raises(InvalidConfigError, match="'sync', 'async', 'exit'"):
        steps("a", store).invoke({}, on("t"), durability="never")  # type: ignore[arg-type]


# --- what is durable when ---------------------------------------------------------------


def watching(store: EventStore, url: str, seen: list[int]) -> CompiledGraph:
    """Steps that note how much of their thread another connection finds."""

    def look(state: Trail) -> Trail:
        with EventStore(url, tenant="test") as other:
            seen.append(other.head("t").seq)
        return {}

    graph = StateGraph(Trail)
    graph.add_sequence([(name, look) for name in "abc"])
    graph.add_edge(START, "a")
    return graph.compile(store)


@pytest.fixture
def url(store_url: str) -> str:
    if store_url == "sqlite://":
        pytest.skip("a database in memory belongs to one store")
    return store_url


def test_sync_is_durable_before_the_next_superstep(url: str, blocking_store: EventStore) -> None:
    seen: list[int] = []
    watching(blocking_store, url, seen).invoke({}, on("t"))
    assert seen == [1, 2, 3]


def test_async_is_not_far_behind_and_never_without_its_input(
    url: str, blocking_store: EventStore
) -> None:
    seen: list[int] = []
    watching(blocking_store, url, seen).invoke({}, on("t"), durability="async")
    assert seen[0] == 1
    assert all(1 <= found <= nth for nth, found in enumerate(seen, 1))
    assert blocking_store.head("t").seq == 4, "when the call returns all is durable"


def test_exit_writes_nothing_before_the_end(url: str, blocking_store: EventStore) -> None:
    seen: list[int] = []
    watching(blocking_store, url, seen).invoke({}, on("t"), durability="exit")
    assert seen == [0, 0, 0]
    assert blocking_store.head("t").seq == 4


@durability
def test_after_a_failure_what_had_finished_is_there(store: EventStore, durability: Any) -> None:
    calls = Calls()
    broken = [True]

    def fails(state: Trail) -> Trail:
        if broken:
            raise Boom("once")
        return {"log": ["fixed"]}

    graph = StateGraph(Trail)
    graph.add_node("a", logs("a", calls))
    graph.add_node("b", logs("b", calls))
    graph.add_node("fails", fails)
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    graph.add_edge("a", "fails")
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"), durability=durability)
    assert store.thread("t").status == "failed"
    broken.clear()
    assert app.invoke(None, on("t"), durability=durability)["log"] == ["a", "b", "fixed"]
    assert calls.counts == {"a": 1, "b": 1}


@durability
def test_a_stream_that_is_closed_early(store: EventStore, durability: Any) -> None:
    app = steps("abcd", store)
    chunks = app.stream({}, on("t"), stream_mode="updates", durability=durability)
    next(chunks)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert app.get_state(on("t")).values["log"] == ["a", "b"]
    assert app.invoke(None, on("t"))["log"] == ["a", "b", "c", "d"]


# --- faults -----------------------------------------------------------------------------


@durability
def test_a_value_that_cannot_be_stored(store: EventStore, durability: Any) -> None:
    """Whenever it is noticed, the run ends with that error and no gap is left."""

    def odd(state: Trail) -> Trail:
        return {"log": [object()]}

    graph = StateGraph(Trail)
    graph.add_sequence([("a", logs("a")), ("odd", odd), ("c", logs("c"))])
    graph.add_edge(START, "a")
    app = graph.compile(store)
    with pytest.raises(SerializationError, match="object"):
        app.invoke({"log": ["in"]}, on("t"), durability=durability)
    assert app.get_state(on("t")).values["log"] == ["in", "a"]
    assert store.verify("t").ok


@durability
def test_another_writer_wins(store: EventStore, durability: Any) -> None:
    app = steps("abc", store)
    app.invoke({"log": ["first"]}, on("t"))

    def steal(state: Trail) -> Trail:
        other = steps("abc", store)
        while True:
            with suppress(ConcurrencyError):  # of what this very run is writing beside us
                other.update_state(on("t"), {"log": ["stolen"]}, as_node="c")
                return {"log": ["mine"]}

    graph = StateGraph(Trail)
    graph.add_sequence([("a", logs("a")), ("b", steal), ("c", logs("c"))])
    graph.add_edge(START, "a")
    with pytest.raises(ConcurrencyError):
        graph.compile(store).invoke({"log": ["second"]}, on("t"), durability=durability)
    values = app.get_state(on("t")).values["log"]
    assert values[-1] == "stolen" and "mine" not in values
    assert store.verify("t").ok


@pytest.mark.slow
def test_async_waits_when_it_gets_too_far_ahead(tmp_path: Path) -> None:
    """While nothing can be written, a run comes so far and no further."""
    calls, begun, locked = Calls(), threading.Event(), threading.Event()

    def first(state: Trail) -> Trail:
        begun.set()
        locked.wait(30)
        return {}

    names = [f"n{n}" for n in range(24)]
    graph = StateGraph(Trail)
    graph.add_sequence([("first", first), *((name, logs(name, calls)) for name in names)])
    graph.add_edge(START, "first")
    path = tmp_path / "slow.db"
    with EventStore(path) as store:
        run = threading.Thread(
            target=graph.compile(store).invoke,
            args=({}, on("slow", recursion_limit=50)),
            kwargs={"durability": "async"},
        )
        run.start()
        assert begun.wait(30)
        # By a process of its own, since two copies of SQLite in one drop each other's locks.
        command = [sys.executable, "-c", HOLD, str(path)]
        holder = processes.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        locked.set()
        run.join(1.0)
        assert run.is_alive()
        ran = sum(calls.counts.values())
        holder.communicate("release\n", timeout=30)
        run.join(60)
        assert not run.is_alive()
        assert ran == BEHIND_MAX - 1, "what `first` came to is not written either"
        assert store.head("slow").seq == 26


HOLD: Final = """
import sys
from eventstore.db.sqlite import sqlite_driver
driver = sqlite_driver()
conn = driver.connect(sys.argv[1], isolation_level=None)
conn.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
conn.execute("ROLLBACK")
"""


# --- killed -----------------------------------------------------------------------------

PROGRAM: Final = """
import sys
from eventstore import EventStore
from graph import START, StateGraph
from tests.graph.kit import Trail, on

url, durability = sys.argv[1:]

def count(state):
    print(len(state["log"]), flush=True)
    return {"log": [len(state["log"])]}

graph = StateGraph(Trail)
graph.add_node("count", count)
graph.add_edge(START, "count")
graph.add_conditional_edges("count", lambda state: "count")
with EventStore(url, tenant="test") as store:
    app = graph.compile(store)
    app.invoke({"log": []}, on("t", recursion_limit=10_000), durability=durability)
"""


def killed_after(url: str, durability: str, steps_seen: int) -> int:
    """Kill a process when it has begun so many supersteps; how many it had begun in the end."""
    begun = 0
    command = [sys.executable, "-c", PROGRAM, url, durability]
    with processes.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            begun = int(line) + 1
            if begun == steps_seen:
                process.kill()
    return begun


@pytest.fixture(params=effort([1, 2], [1, 2, 3]))
def moment(request: pytest.FixtureRequest) -> int:
    """A number of supersteps, another one each time."""
    return random.Random(request.param).randint(2, 60)


@durability
def test_what_a_kill_costs(url: str, durability: str, moment: int) -> None:
    begun = killed_after(url, durability, moment)
    with EventStore(url, tenant="test") as store:
        if durability == "exit":
            assert store.head("t").seq == 0, "everything since the run began"
            return
        app = counting(begun + 3, store)
        kept = app.get_state(on("t")).values["log"]
        assert kept == list(range(len(kept))), "without a gap"
        lost = begun - len(kept)
        assert lost <= (1 if durability == "sync" else 1 + BEHIND_MAX)
        config = on("t", recursion_limit=100)
        assert app.invoke(None, config)["log"] == list(range(begun + 3))
        assert app.verify(config).ok


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_question_is_never_lost(url: str, durability: Any) -> None:
    """In all modes what is asked, answered or failed is written before the call returns."""

    class Asked(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    graph = StateGraph(Asked)
    graph.add_sequence([("a", logs("a")), ("ask", lambda state: {"log": [interrupt("?")]})])
    graph.add_edge(START, "a")
    with EventStore(url, tenant="test") as store:
        app = graph.compile(store)
        app.invoke({"log": ["in"]}, on("t"), durability=durability)
        with EventStore(url, tenant="test") as other:
            assert [entry.kind for entry in graph.compile(other).events(on("t"))] == [
                "input",
                "output",
                "interrupt",
            ]
            answered = graph.compile(other).invoke(Command(resume="y"), on("t"))
            assert answered["log"][-1] == "y"
