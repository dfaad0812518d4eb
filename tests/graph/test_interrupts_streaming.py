"""Interrupts in streams, and in a run that several processes carry on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import EventStore
from graph import (
    Command,
)
from tests import processes
from tests.graph.interrupt_support import in_line
from tests.graph.kit import (
    asks,
    logs,
    on,
    side_by_side,
)

ROOT: Final = Path(__file__).resolve().parents[2]


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
    chunks = list(app.stream({"total": 0}, on("t"), stream_mode="values"))
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
    kinds = [*["checkpoint"] * 2, *["task"] * 2, *["task_result"] * 2]
    assert [chunk["type"] for chunk in debug] == kinds
    assert [chunk["payload"] for chunk in debug[2:]] == tasks
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
    ended = processes.run(
        [sys.executable, "-c", PROGRAM, url, json.dumps(answers), after],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert ended.returncode == (-signal.SIGKILL if after == "kill" else 0)
    result, left = json.loads(ended.stdout)
    return result, left


@pytest.mark.slow
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
