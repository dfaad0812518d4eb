"""Failures and crashes inside a subgraph: only what is missing runs again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path as FilePath
from typing import Any, Final

import pytest

from eventstore import EventStore
from graph import (
    START,
    CompiledGraph,
    RetryPolicy,
    StateGraph,
)
from tests import processes
from tests.graph.kit import Boom, on
from tests.graph.nesting import Path, Walk, below, calling, check_whole, child_of
from tests.graph.subgraph_support import fan_out, per_item

ROOT: Final = FilePath(__file__).resolve().parents[2]


C: Final = on("t")


@pytest.mark.parametrize("called", [False, True])
def test_only_what_is_missing_runs_again(store: EventStore, called: bool) -> None:
    walk = Walk("two")
    inner = walk.line("one", "two", "three", name="inner")

    def app() -> CompiledGraph:
        part = calling(inner) if called else inner
        return walk.line("pre", ("sub", part), "post", checkpointer=store)

    with pytest.raises(Boom):
        app().invoke({}, C)
    assert walk.taken() == {"pre": 1, "one": 1, "two": 1}
    assert store.thread("t").status == "failed"
    child = child_of(app(), C)
    assert (child.values["path"], child.next) == (["pre", "one"], ("two",))
    assert "Boom" in child.tasks[0].error
    walk.failing.clear()
    assert app().invoke(None, C)["path"] == ["pre", "one", "two", "three", "post"]
    assert walk.taken() == {"two": 1, "three": 1, "post": 1}
    check_whole(store, app(), "t")


def test_siblings_in_the_child_are_kept(store: EventStore) -> None:
    walk = Walk("find2")
    app = fan_out(store, per_item(walk), 4)
    with pytest.raises(Boom):
        app.invoke({}, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C) == {"found": [0, 1, 2, 3]}
    assert walk.taken() == {"find2": 1}


@pytest.mark.parametrize("lasts", [None, True])
def test_a_child_that_had_finished_is_not_run_again(store: EventStore, lasts: bool | None) -> None:
    walk = Walk("after")
    inner = walk.line("one", "two", name="inner", checkpointer=lasts)

    def node(state: Path) -> Path:
        path = inner.invoke({"path": ["in"]})["path"]
        return walk.node("after")({"path": path})

    app = walk.line(("node", node), checkpointer=store)
    given: Any
    for given in ({}, None):
        with pytest.raises(Boom):
            app.invoke(given, C)
    walk.failing.clear()
    walk.taken()
    assert app.invoke(None, C)["path"] == ["in", "one", "two", "after"]
    assert walk.taken() == {"after": 1}


def test_a_retry_goes_on_inside_the_child(store: EventStore) -> None:
    walk = Walk()
    tries: list[int] = []

    def flaky(state: Path) -> Path:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("flaky")
        return walk.node("flaky")(state)

    inner = walk.line("one", ("flaky", flaky), "three")
    graph = StateGraph(Path)
    policy = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3)
    graph.add_node("sub", inner, retry_policy=policy)
    graph.add_edge(START, "sub")
    app = graph.compile(store)
    assert app.invoke({}, C)["path"] == ["one", "flaky", "three"]
    assert walk.taken() == {"one": 1, "flaky": 1, "three": 1}
    assert below(app, C) == ["sub:1.0"]
    check_whole(store, app, "t")


PROGRAM: Final = """
import os, signal, sys
from graph import SqliteSaver
from tests.graph.kit import on
from tests.graph.nesting import Walk

file, deadly = sys.argv[1:]
walk = Walk()


def two(state):
    walk.calls.add("two")
    if deadly == "yes":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"path": [*state["path"], "two"]}


inner = walk.line("one", ("two", two), "three")
with SqliteSaver(file) as saver:
    app = walk.line("pre", ("sub", inner), "post", checkpointer=saver)
    given = {} if deadly == "yes" else None
    print(app.invoke(given, on("t"))["path"], walk.taken())
    assert app.verify(on("t")).ok
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_inside_a_child_and_gone_on_in_another_process(tmp_path: FilePath) -> None:
    def run(deadly: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "runs.db"), deadly]
        return processes.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert run("yes").returncode == -9
    second = run("no")
    assert second.returncode == 0, second.stderr
    ran = {"two": 1, "three": 1, "post": 1}
    assert second.stdout.strip() == f"{['pre', 'one', 'two', 'three', 'post']} {ran}"
