"""When something goes wrong in a superstep: what is kept, what is run again, what is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from eventstore import ConcurrencyError, EventStore
from graph import (
    START,
    CompiledGraph,
    InvalidUpdateError,
    RetryPolicy,
    Send,
    SqliteSaver,
    StateGraph,
)
from tests import processes
from tests.graph.kit import Boom, Calls, Trail, logs, on, steps

pytestmark = pytest.mark.every_backend

WAIT_SECONDS_MAX = 20.0


class Faults:
    """A fan of nodes ``a``, ``b``, ``c`` then ``end``, of which those in ``failing`` fail."""

    def __init__(self, store: Any, *, retry: RetryPolicy | None = None) -> None:
        self.calls = Calls()
        self.failing: set[str] = set()
        self.together = threading.Barrier(3)
        graph = StateGraph(Trail)
        for name in "abc":
            graph.add_node(name, self.node(name), retry_policy=retry)
            graph.add_edge(START, name)
        graph.add_node("end", logs("end", self.calls))
        graph.add_edge(["a", "b", "c"], "end")
        self.app = graph.compile(store)

    def node(self, name: str) -> Any:
        def run(state: Trail) -> dict[str, Any]:
            if self.calls.add(name) == 1:
                self.together.wait(WAIT_SECONDS_MAX)  # all begin before any can fail
            if name in self.failing:
                raise Boom(f"{name} at attempt {self.calls.counts[name]}")
            return {"log": [name]}

        return run


@pytest.fixture
def faults(store: EventStore) -> Faults:
    return Faults(store)


def test_finished_siblings_are_not_run_again(faults: Faults) -> None:
    faults.failing = {"b"}
    with pytest.raises(Boom) as caught:
        faults.app.invoke({"log": ["x"]}, on("t"))
    assert any("'b'" in note for note in caught.value.__notes__)
    state = faults.app.get_state(on("t"))
    assert state.values["log"] == ["x", "a", "c"], "what has finished is shown"
    assert faults.app.get_state(state.config).values["log"] == ["x"], "the checkpoint is complete"
    assert state.next == ("b",)
    assert [task.name for task in state.tasks] == ["a", "b", "c"]
    assert [task.result for task in state.tasks] == [{"log": ["a"]}, None, {"log": ["c"]}]
    assert [task.error for task in state.tasks] == [
        None,
        "Boom('b at attempt 1')",
        None,
    ]
    faults.failing = set()
    assert faults.app.invoke(None, on("t"))["log"] == ["x", "a", "b", "c", "end"]
    assert faults.calls.counts == {"a": 1, "b": 2, "c": 1, "end": 1}
    assert all(task.error is None for task in faults.app.get_state(on("t")).tasks)


def test_the_log_tells_of_the_error(faults: Faults, store: EventStore) -> None:
    faults.failing = {"b"}
    with pytest.raises(Boom):
        faults.app.invoke({}, on("t"))
    assert store.thread("t").status == "failed"
    entries = list(faults.app.events(on("t")))
    assert sorted(entry.kind for entry in entries) == ["error", "input", "output", "output"]
    error = next(entry for entry in entries if entry.kind == "error")
    assert (error.node, error.step) == ("b", 1)
    assert error.data["type"] == "tests.graph.kit.Boom"
    assert error.data["message"] == "b at attempt 1"
    faults.failing = set()
    faults.app.invoke(None, on("t"))
    assert store.thread("t").status == "idle"
    assert sum(entry.kind == "error" for entry in faults.app.events(on("t"))) == 1
    past = list(faults.app.get_state_history(on("t"), every=True))[-1]
    assert [task.result for task in past.tasks] == [{"log": [name]} for name in "abc"]


def test_failing_again_and_again(faults: Faults) -> None:
    faults.failing = {"b", "c"}
    for attempt in range(1, 4):
        with pytest.raises(Boom):
            faults.app.invoke(None if attempt > 1 else {}, on("t"))
    faults.failing = {"c"}
    with pytest.raises(Boom):
        faults.app.invoke(None, on("t"))
    state = faults.app.get_state(on("t"))
    assert state.next == ("c",)
    faults.failing = set()
    assert faults.app.invoke(None, on("t"))["log"] == ["a", "b", "c", "end"]
    assert faults.calls.counts["a"] == 1


def test_a_new_input_after_an_error_begins_anew(faults: Faults) -> None:
    faults.failing = {"b"}
    with pytest.raises(Boom):
        faults.app.invoke({"log": ["x"]}, on("t"))
    faults.failing = set()
    result = faults.app.invoke({"log": ["y"]}, on("t"))
    assert result["log"] == ["x", "y", "a", "b", "c", "end"]


def test_an_update_after_an_error_keeps_what_was_finished(faults: Faults) -> None:
    faults.failing = {"b"}
    with pytest.raises(Boom):
        faults.app.invoke({"log": ["x"]}, on("t"))
    faults.app.update_state(on("t"), {"log": ["by hand"]}, as_node="b")
    state = faults.app.get_state(on("t"))
    assert state.values["log"] == ["x", "a", "c", "by hand"]
    assert state.next == ("end",), "all three have arrived at the join"
    assert faults.app.invoke(None, on("t"))["log"] == ["x", "a", "c", "by hand", "end"]
    assert faults.calls.counts["b"] == 1


def test_retries_are_counted_in_the_error(store: EventStore) -> None:
    faults = Faults(store, retry=RetryPolicy(initial_interval=0.001, jitter=False))
    faults.failing = {"b"}
    with pytest.raises(Boom):
        faults.app.invoke({}, on("t"))
    assert faults.calls.counts["b"] == 3
    error = next(entry for entry in faults.app.events(on("t")) if entry.kind == "error")
    assert error.data["attempts"] == 3


def test_an_error_without_a_checkpointer() -> None:
    faults = Faults(None)
    faults.failing = {"a"}
    with pytest.raises(Boom):
        faults.app.invoke({}, on("t"))


def test_a_failing_send(store: EventStore) -> None:
    calls, broken = Calls(), {2}
    graph = StateGraph(Trail)

    def work(arg: int) -> dict[str, Any]:
        calls.add(f"{arg}")
        if arg in broken:
            raise Boom(f"{arg}")
        return {"log": [arg]}

    graph.add_node("work", work)
    graph.add_conditional_edges(START, lambda state: [Send("work", i) for i in range(5)])
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    before = calls.counts.copy()
    finished = {i for i, task in enumerate(app.get_state(on("t")).tasks) if task.result}
    assert 2 not in finished
    broken.clear()
    assert app.invoke(None, on("t"))["log"] == [0, 1, 2, 3, 4]
    assert all(calls.counts[f"{i}"] == before[f"{i}"] for i in finished)


def test_an_error_in_a_conditional_edge_is_the_nodes(store: EventStore) -> None:
    graph = StateGraph(Trail)
    graph.add_node("a", logs("a"))
    graph.add_edge(START, "a")

    def path(state: Trail) -> str:
        raise Boom("in the edge")

    graph.add_conditional_edges("a", path, ["a"])
    app = graph.compile(store)
    with pytest.raises(Boom):
        app.invoke({}, on("t"))
    state = app.get_state(on("t"))
    assert state.next == ("a",) and state.tasks[0].error
    assert "in the edge" in state.tasks[0].error


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_being_told_to_stop_is_no_failure_of_the_node(
    store: EventStore, stop: type[BaseException]
) -> None:
    calls = Calls()
    graph = StateGraph(Trail)

    def node(state: Trail) -> dict[str, Any]:
        if calls.add("node") == 1:
            raise stop
        return {"total": 1}

    graph.add_node("node", node)
    graph.add_edge(START, "node")
    app = graph.compile(store)
    with pytest.raises(stop):
        app.invoke({}, on("t"))
    assert [entry.kind for entry in app.events(on("t"))] == ["input"]
    assert app.invoke(None, on("t"))["total"] == 1


# --- writers that do not go together ----------------------------------------------------


def conflicting(checkpointer: Any) -> CompiledGraph:
    graph = StateGraph(Trail)
    for name in "ab":
        graph.add_node(name, lambda state, name=name: {"note": name})
        graph.add_edge(START, name)
    return graph.compile(checkpointer)


def test_two_writers_of_a_key_without_a_reducer(store: EventStore) -> None:
    app = conflicting(store)
    with pytest.raises(InvalidUpdateError, match=r"(?s)'note'.*Annotated") as caught:
        app.invoke({}, on("t"))
    assert "'a'" in str(caught.value) and "'b'" in str(caught.value)
    state = app.get_state(on("t"))
    (failed,) = state.next
    assert state.values["note"] == {"a": "b", "b": "a"}[failed]
    with pytest.raises(InvalidUpdateError):  # trying again does not help …
        app.invoke(None, on("t"))
    app.update_state(on("t"), {"note": "decided"}, as_node="b")  # … a person does
    assert app.get_state(on("t")).values["note"] == "decided"
    assert app.get_state(on("t")).next == ()


def test_two_writers_without_a_checkpointer() -> None:
    with pytest.raises(InvalidUpdateError, match="'note'"):
        conflicting(None).invoke({})


# --- two runs on one thread -------------------------------------------------------------


def test_of_two_runs_on_one_thread_one_wins(store: EventStore) -> None:
    """The loser's node ran in vain, and nothing of it is in the log."""
    both_run = threading.Barrier(2)

    def node(state: Trail) -> dict[str, Any]:
        both_run.wait(WAIT_SECONDS_MAX)
        return {"total": 1}

    graph = StateGraph(Trail)
    graph.add_node("stop", logs("stop"))
    graph.add_node("node", node)
    graph.add_edge(START, "stop")
    graph.add_edge("stop", "node")
    app = graph.compile(store, interrupt_before=["node"])
    app.invoke({}, on("t"))
    results = app.batch([None, None], [on("t"), on("t")], return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    assert len(errors) == 1 and isinstance(errors[0], ConcurrencyError)
    error = errors[0]
    assert (error.thread_id, error.expected, error.actual) == ("t", 2, 3)
    assert app.get_state(on("t")).values["total"] == 2
    assert len(list(app.events(on("t")))) == 3
    assert app.verify(on("t")).ok


def test_an_edit_while_a_run_is_under_way(store: EventStore) -> None:
    app = steps("abc", store)
    stream = app.stream({}, on("t"), stream_mode="updates")
    next(stream)
    app.update_state(on("t"), {"note": "edited"})
    with pytest.raises(ConcurrencyError):
        list(stream)
    assert app.invoke(None, on("t")) == {"log": ["a", "b", "c"], "total": 3, "note": "edited"}


def test_many_runs_on_one_new_thread(store: EventStore) -> None:
    app = steps("ab", store)
    results = app.batch([{} for _ in range(6)], [on("t")] * 6, return_exceptions=True)
    won = [result for result in results if not isinstance(result, Exception)]
    assert all(isinstance(r, ConcurrencyError) for r in results if isinstance(r, Exception))
    assert app.verify(on("t")).ok
    logged = app.invoke(None, on("t"))["log"]
    assert len(logged) >= 2 * max(1, len(won))


# --- killed -----------------------------------------------------------------------------

CHILD = """
import os, sys, time
from pathlib import Path
from graph import START, SqliteSaver, StateGraph
from tests.graph.kit import Trail

folder = Path(sys.argv[1])

def node(name):
    def run(state):
        with (folder / f"ran {name}").open("a") as file:
            file.write("x")
        if name in ("b", "e") and not (folder / "go").exists():
            (folder / f"stuck {name}").touch()
            time.sleep(60)
        return {"log": [name], "total": 1}
    return run

def build(saver):
    graph = StateGraph(Trail)
    for name in "abcde":
        graph.add_node(name, node(name))
    graph.add_edge(START, "a")
    for name in "bcd":
        graph.add_edge("a", name)
    graph.add_edge(["b", "c", "d"], "e")
    return graph.compile(saver)

with SqliteSaver(folder / "runs.db") as saver:
    app = build(saver)
    given = {"log": ["x"]} if sys.argv[2] == "begin" else None
    print(app.invoke(given, {"configurable": {"thread_id": "t"}})["log"])
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_a_superstep(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}

    def start(mode: str) -> processes.Popen:
        command = [sys.executable, str(script), str(tmp_path), mode]
        return processes.Popen(command, stdout=subprocess.PIPE, text=True, env=env)

    def ran(name: str) -> int:
        file = tmp_path / f"ran {name}"
        return len(file.read_text()) if file.exists() else 0

    def outputs() -> int:
        with SqliteSaver(tmp_path / "runs.db") as saver:
            app = steps("abcde", saver)
            return sum(entry.kind == "output" for entry in app.events(on("t")))

    child = start("begin")
    wait_for(lambda: (tmp_path / "stuck b").exists() and outputs() == 3)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert [ran(name) for name in "abcde"] == [1, 1, 1, 1, 0]
    (tmp_path / "go").touch()
    second = start("resume")
    shown, _ = second.communicate(timeout=WAIT_SECONDS_MAX)
    assert shown.strip() == "['x', 'a', 'b', 'c', 'd', 'e']"
    assert [ran(name) for name in "abcde"] == [1, 2, 1, 1, 1]
    with SqliteSaver(tmp_path / "runs.db") as saver:
        app = steps("abcde", saver)
        assert app.verify(on("t")).ok
        assert app.get_state(on("t")).next == ()


def wait_for(condition: Any) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT_SECONDS_MAX / 0.02)):
        if condition():
            return
        waited.wait(0.02)
    pytest.fail("waited in vain")
