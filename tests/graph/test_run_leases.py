"""A run whose process died holds nobody up for long, and one that is alive is never overtaken.

Real processes on a database that they share: killed, stopped and continued, with clocks that
differ, and with event loops that a node blocks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import ConcurrencyError, ConfigurationError, EventStore
from eventstore.leases import Owner
from graph import END, START, CompiledGraph, StateGraph, ThreadBusyError
from tests import processes
from tests.effort import effort
from tests.graph.kit import Trail, on

pytestmark = [pytest.mark.every_backend, pytest.mark.slow]

LEASE_S: Final = 2.0
SLACK_S: Final = 6.0
"""For processes to begin and to be scheduled, on a busy machine."""


def working(checkpointer: Any, seconds: float, mark: str) -> CompiledGraph:
    """A graph with a node that works for so long, then another; both blocking, also in a loop."""
    graph = StateGraph(Trail)

    async def blocks_its_loop(state: Trail) -> dict[str, Any]:
        print("working", flush=True)
        time.sleep(seconds)
        return {"log": [f"{mark} worked"]}

    def works(state: Trail) -> dict[str, Any]:
        print("working", flush=True)
        time.sleep(seconds)
        return {"log": [f"{mark} worked"]}

    graph.add_node("work", works if isinstance(checkpointer, EventStore) else blocks_its_loop)
    graph.add_node("end", lambda state: {"log": [f"{mark} ended"]})
    graph.add_edge(START, "work")
    graph.add_edge("work", "end")
    graph.add_edge("end", END)
    return graph.compile(checkpointer)


CHILD: Final = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from eventstore import AsyncEventStore, EventStore
from tests.graph.kit import on
from tests.graph.test_run_leases import LEASE_S, working

url, kind, seconds, ahead_s = sys.argv[1:]
options = {
    "tenant": "test",
    "run_lease_s": LEASE_S,
    "clock": lambda: datetime.now(UTC) + timedelta(seconds=float(ahead_s)),
}

async def asynchronous():
    async with AsyncEventStore(url, **options) as store:
        await working(store, float(seconds), "child").ainvoke({}, on("t"), on_conflict="wait")

if kind == "sync":
    with EventStore(url, **options) as store:
        working(store, float(seconds), "child").invoke({}, on("t"), on_conflict="wait")
else:
    asyncio.run(asynchronous())
"""


@contextmanager
def child(
    url: str, seconds: float, kind: str = "sync", ahead_s: float = 0
) -> Iterator[processes.Popen]:
    """A process whose run is at work."""
    if url == "sqlite://":
        pytest.skip("no other process can use a database in memory")
    process = processes.Popen(
        [sys.executable, "-c", CHILD, url, kind, str(seconds), str(ahead_s)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def skewed(seconds: float) -> Any:
    return lambda: datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize("ahead_s", effort([-60], [-60, 0, 60]))
def test_after_a_kill_a_waiter_goes_on(store_url: str, ahead_s: float) -> None:
    clock = skewed(ahead_s)
    with (
        child(store_url, 600) as process,
        EventStore(store_url, tenant="test", run_lease_s=LEASE_S, clock=clock) as store,
    ):
        time.sleep(LEASE_S)  # so that the child has renewed its lease
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        found = working(store, 0, "next").invoke({}, on("t"), on_conflict="wait")
        assert found["log"] == ["next worked", "next ended"]
        assert time.monotonic() - began < LEASE_S + SLACK_S
        assert store.thread("t").status == "idle"


@pytest.mark.parametrize("kind", effort(["async"], ["sync", "async"]))
def test_a_long_run_is_not_overtaken(store_url: str, kind: str) -> None:
    """Its node blocks for several leases, in async code its event loop; the clocks differ."""
    seconds = 2.5 * LEASE_S
    with (
        child(store_url, seconds, kind, ahead_s=60) as process,
        EventStore(store_url, tenant="test", run_lease_s=LEASE_S) as store,
    ):
        app = working(store, 0, "next")
        with pytest.raises(ThreadBusyError) as busy:
            app.invoke({}, on("t"), on_conflict="wait", conflict_timeout_s=1.2 * LEASE_S)
        owner = Owner.parse(busy.value.owner)
        assert owner is not None
        assert f"/{process.pid}/" in owner.process
        found = app.invoke({}, on("t"), on_conflict="wait", conflict_timeout_s=60)
        assert found["log"] == ["child worked", "child ended", "next worked", "next ended"]
        assert process.wait(SLACK_S) == 0


def test_a_process_that_is_stopped_and_continued(store_url: str) -> None:
    """It counts as dead; what it writes afterwards is refused, and nothing is there twice."""
    with (
        child(store_url, LEASE_S) as process,
        EventStore(store_url, tenant="test", run_lease_s=LEASE_S) as store,
    ):
        process.send_signal(signal.SIGSTOP)
        app = working(store, 0, "next")
        found = app.invoke({}, on("t"), on_conflict="wait")
        assert found["log"] == ["next worked", "next ended"]
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert ConcurrencyError.__name__ in errors
        assert app.get_state(on("t")).values["log"] == ["next worked", "next ended"]
        assert store.thread("t").status == "idle"
        assert app.verify(on("t")).ok


def test_one_thread_renews_all_runs_of_a_process(store_url: str) -> None:
    """Twenty long runs cost one row, and no thread's row is written while they work."""
    if store_url == "sqlite://":
        pytest.skip("no other process watches a database in memory")
    with EventStore(store_url, tenant="test", run_lease_s=LEASE_S) as store:
        app = working(store, 1.5 * LEASE_S, "run")
        runs = [
            threading.Thread(target=app.invoke, args=({}, on(f"t{number}"))) for number in range(20)
        ]
        for each in runs:
            each.start()
        time.sleep(0.8 * LEASE_S)
        names = [each.name for each in threading.enumerate()]
        assert names.count("eventstore-leases") == 1
        owners = [Owner.parse(store.head(f"t{number}").owner) for number in range(20)]
        (process,) = {owner.process for owner in owners if owner is not None}
        before = _renewals(store, process)
        time.sleep(0.6 * LEASE_S)
        assert _renewals(store, process) > before
        for each in runs:
            each.join()
        assert {store.thread(f"t{number}").status for number in range(20)} == {"idle"}
        assert store.head("t1").owner is None


def _renewals(store: EventStore, process: str) -> int:
    from eventstore.concurrency import run_sync

    return run_sync(store.core.leases.renewals(process)) or 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_another_process(store_url: str) -> None:
    script = """
import os, sys
from eventstore.leases import _process
parent = _process.name
if os.fork() == 0:
    assert _process.name != parent and str(os.getpid()) in _process.name
    os._exit(0)
_, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    root = Path(__file__).parents[2]
    assert processes.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("wrong", [0, 1.9, -5, 1e9, float("nan"), True, "10", None])
def test_a_lease_is_a_number_of_seconds(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="run_lease_s must be a number of seconds"):
        EventStore(run_lease_s=wrong)


@pytest.mark.parametrize("text", [None, "", 7, b"x", "host", "h/1/ab", "h/1/ab/x/1", "h/1/ab/2/"])
def test_what_names_no_owner(text: Any) -> None:
    assert Owner.parse(text) is None


def test_an_owner_is_what_its_text_says() -> None:
    owner = Owner("a-host/12/0f0f0f0f", 2.5, 7)
    assert Owner.parse(str(owner)) == owner
