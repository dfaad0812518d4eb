"""Several processes on one database: on threads of their own, and all on the same one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import EventStore
from tests import processes
from tests.effort import effort
from tests.graph.kit import on, steps

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]
PROCESSES: Final = effort(3, 8)
RUNS: Final = 3

PROGRAM: Final = """
import json, sys
from eventstore import ConcurrencyError, EventStore
from tests.graph.kit import on, steps

url, me, thread_id, on_conflict, runs = sys.argv[1:]
done = lost = 0
with EventStore(url, tenant="test") as store:
    app = steps(["a", "b", "c"], store)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(runs)):
        try:
            app.invoke({"note": me}, on(thread_id), on_conflict=on_conflict)
            done += 1
        except ConcurrencyError:
            lost += 1
print(json.dumps([done, lost]))
"""


def run_all(url: str, thread_ids: list[str], on_conflict: str) -> list[tuple[int, int]]:
    """Run the program in one process for each thread id; how often it came through, or lost."""
    running = [
        processes.Popen(
            [sys.executable, "-c", PROGRAM, url, str(n), thread_id, on_conflict, str(RUNS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for n, thread_id in enumerate(thread_ids)
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0] * len(running)
    return [tuple(json.loads(output)) for output in outputs]


@pytest.fixture
def url(store_url: str) -> str:
    if store_url == "sqlite://":
        pytest.skip("a database in memory belongs to one process")
    return store_url


def test_on_threads_of_their_own_all_complete(url: str) -> None:
    names = [f"t{n}" for n in range(PROCESSES)]
    assert run_all(url, names, "reject") == [(RUNS, 0)] * PROCESSES
    with EventStore(url, tenant="test") as store:
        app = steps("abc", store)
        for name in names:
            assert app.get_state(on(name)).values["total"] == 3 * RUNS
            assert app.verify(on(name)).ok


def test_on_one_thread_each_waits_for_the_others(url: str) -> None:
    assert run_all(url, ["t"] * PROCESSES, "wait") == [(RUNS, 0)] * PROCESSES
    with EventStore(url, tenant="test") as store:
        app = steps("abc", store)
        state = app.get_state(on("t"))
        assert state.values["total"] == 3 * RUNS * PROCESSES
        assert state.values["log"] == ["a", "b", "c"] * (RUNS * PROCESSES)
        assert state.next == ()
        assert app.verify(on("t")).ok


def test_on_one_thread_one_wins_each_superstep(url: str) -> None:
    outcomes = run_all(url, ["t"] * PROCESSES, "reject")
    with EventStore(url, tenant="test") as store:
        app = steps("abc", store)
        entries = list(app.events(on("t")))
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        _assert_no_superstep_twice(entries)
        assert app.verify(on("t")).ok
        done = sum(done for done, _ in outcomes)
        inputs = sum(entry.kind == "input" for entry in entries)
        assert 1 <= done <= inputs <= RUNS * PROCESSES
        assert app.get_state(on("t")).values["total"] == sum(
            entry.kind == "output" for entry in entries
        )


def _assert_no_superstep_twice(entries: list[Any]) -> None:
    """Between two inputs the nodes come in their order, each once."""
    expected = 0
    for entry in entries:
        if entry.kind == "input":
            expected = 0
        else:
            assert entry.node == "abc"[expected]
            expected += 1
