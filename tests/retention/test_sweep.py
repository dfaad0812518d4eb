"""Sweeps: only what is idle goes, whole, beside live writers, across kill -9, and only once."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import ConcurrencyError, Event, EventStore, StoreClosedError, ThreadNotFoundError
from eventstore.removal import DELETE_BATCH
from retention import Decision, RetentionPolicy, SweepReport, plan, sweep
from retention.sweep import Outcome
from tests.eventstore.support import data_of, fill, sql
from tests.retention.support import DAY, START, Clock, assert_whole, names, opened

ROOT: Final = Path(__file__).resolve().parents[2]
MONTH: Final = RetentionPolicy(30 * DAY)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path, clock: Clock) -> Iterator[EventStore]:
    with opened(tmp_path, clock) as store:
        yield store


def old(store: EventStore, clock: Clock, *thread_ids: str) -> dict[str, int]:
    """Threads of two logs that have been idle for 40 days; name → key."""
    for thread_id in thread_ids:
        fill(store, thread_id, 3)
        fill(store, thread_id, 2, ns="sub")
    clock.now += 40 * DAY
    return {thread_id: store.thread(thread_id).thread_key for thread_id in thread_ids}


def test_a_sweep_prunes_what_is_idle_and_says_why(disk: EventStore, clock: Clock) -> None:
    keys = old(disk, clock, "a", "b", "pinned", "waiting", "patient")
    disk.set_thread("pinned", pinned=True)
    disk.set_thread("waiting", status="waiting")
    disk.set_thread("patient", ttl=50 * 86_400)
    fill(disk, "new", 1)
    seen: list[tuple[str, str]] = []
    report = sweep(
        disk, MONTH, on_progress=lambda each, outcome: seen.append((each.thread_id, outcome))
    )
    assert report == SweepReport(START + 40 * DAY, pruned=2)
    assert sorted(seen) == [("a", "pruned"), ("b", "pruned")]
    assert names(disk) == {"pinned", "waiting", "patient", "new"}
    assert_whole(disk, keys)
    reasons = sql(disk, "SELECT DISTINCT reason FROM tombstones")
    assert reasons == [("retention: idle for the ttl of 30 days, 0:00:00",)]
    assert sweep(disk, MONTH) == SweepReport(START + 40 * DAY), "a second one finds nothing"


def test_an_append_that_active_at_does_not_show_saves_a_thread(
    disk: EventStore, clock: Clock
) -> None:
    fill(disk, "a", 1)
    clock.now += DAY / 86_400 * 30
    fill(disk, "a", 1, ns="sub")  # within a minute: `active_at` stays
    clock.now = START + 30 * DAY
    assert plan(disk, MONTH).counts == {"prune": 1}
    assert sweep(disk, MONTH) == SweepReport(clock.now, spared=1)
    clock.now += DAY
    assert sweep(disk, MONTH) == SweepReport(clock.now, pruned=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: fill(store, "a", 1),
        lambda store: fill(store, "a", 1, ns="sub"),
        lambda store: store.set_thread("a", pinned=True),
        lambda store: store.set_thread("a", status="waiting"),
        lambda store: store.set_thread("a", ttl=10**9),
        lambda store: (store.delete_thread("a"), fill(store, "a", 1)),
        lambda store: (fill(store, "a", 1), store.set_thread("a", ttl=1)),
    ],
    ids=["active", "active below", "pinned", "waiting", "ttl", "made anew", "shorter ttl"],
)
def test_what_changed_since_the_plan_is_left_alone(
    disk: EventStore, clock: Clock, change: Callable[[EventStore], object]
) -> None:
    old(disk, clock, "a", "b")
    planned = plan(disk, MONTH)
    clock.now += DAY
    change(disk)
    fill(disk, "later", 1)
    clock.now += 60 * DAY
    report = sweep(disk, planned)
    assert report == SweepReport(planned.now, pruned=1, spared=1)
    assert names(disk) == {"a", "later"}
    assert disk.verify("a").ok


def test_a_thread_that_became_active_during_the_sweep_is_left_alone(
    disk: EventStore, clock: Clock
) -> None:
    old(disk, clock, "a", "b")

    def wake(each: Decision, outcome: Outcome) -> None:
        clock.now += 60 * DAY  # the moment that decides does not move along
        for thread_id in names(disk):
            fill(disk, thread_id, 1)

    report = sweep(disk, MONTH, on_progress=wake)
    assert report == SweepReport(START + 40 * DAY, pruned=1, spared=1)


def test_a_pin_set_at_the_last_moment_is_heeded(
    disk: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's last look and the lock that seals the thread's fate."""
    old(disk, clock, "a")
    remove = disk.delete_thread

    def pin_first(thread_id: str, *args: Any, **options: Any) -> bool:
        disk.set_thread(thread_id, pinned=True)
        return remove(thread_id, *args, **options)

    monkeypatch.setattr(disk, "delete_thread", pin_first)
    assert sweep(disk, MONTH) == SweepReport(START + 40 * DAY, spared=1)
    assert names(disk) == {"a"}


def test_a_thread_that_someone_else_removed_is_gone(disk: EventStore, clock: Clock) -> None:
    old(disk, clock, "a", "b")
    planned = plan(disk, MONTH)
    disk.delete_thread("a")
    assert sweep(disk, planned) == SweepReport(planned.now, pruned=1, gone=1)
    assert sweep(disk, planned) == SweepReport(planned.now, gone=2)


def test_a_sweep_refuses_the_future_and_a_plan_that_is_not_its_own(
    disk: EventStore, clock: Clock, tmp_path: Path
) -> None:
    fill(disk, "a", 1)
    future = START + 40 * DAY
    with pytest.raises(ValueError, match="in the future"):
        sweep(disk, MONTH, future)
    with pytest.raises(ValueError, match="in the future"):
        sweep(disk, plan(disk, MONTH, future))
    with pytest.raises(ValueError, match="its own moment"):
        sweep(disk, plan(disk, MONTH), START)
    planned = plan(disk, MONTH)
    with (
        EventStore(tmp_path / "store.db", tenant="other", clock=clock) as other,
        pytest.raises(ValueError, match="'default'"),
    ):
        sweep(other, planned)
    assert names(disk) == {"a"}


def test_a_fork_survives_its_parent(disk: EventStore, clock: Clock) -> None:
    keys = old(disk, clock, "parent")
    disk.fork("parent", 2, "child")
    assert sweep(disk, MONTH).pruned == 1
    assert_whole(disk, keys)
    assert [e.data["n"] for e in disk.replay("child").events if e.kind] == [1, 2]


def test_an_error_on_one_thread_does_not_stop_the_others(
    disk: EventStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old(disk, clock, "a", "b", "c")
    real = disk.delete_thread

    def fails(thread_id: str, *args: Any, **kwargs: Any) -> bool:
        if thread_id == "b":
            raise OSError("the disk has a scratch")
        return real(thread_id, *args, **kwargs)

    monkeypatch.setattr(disk, "delete_thread", fails)
    monkeypatch.setattr(disk, "finish_deletions", lambda reason: 1 // 0)
    with caplog.at_level(logging.ERROR):
        report = sweep(disk, MONTH)
    assert report == SweepReport(clock.now, pruned=2, failed=2)
    assert "cannot prune thread 'b'" in caplog.text and "scratch" in caplog.text
    monkeypatch.undo()
    assert sweep(disk, MONTH) == SweepReport(clock.now, pruned=1)


def test_a_closed_store_is_no_matter_of_one_thread(tmp_path: Path, clock: Clock) -> None:
    with opened(tmp_path, clock) as store:
        old(store, clock, "a", "b")
        with pytest.raises(StoreClosedError):
            sweep(store, MONTH, on_progress=lambda each, outcome: store.close())
    with opened(tmp_path, clock) as store:
        assert sweep(store, MONTH).pruned == 1


def test_a_sweep_that_is_asked_to_stop_does_so_between_threads(
    disk: EventStore, clock: Clock
) -> None:
    keys = old(disk, clock, "a", "b", "c")
    pruned: list[str] = []
    report = sweep(
        disk,
        MONTH,
        on_progress=lambda each, outcome: pruned.append(each.thread_id),
        should_stop=lambda: len(pruned) == 2,
    )
    assert report == SweepReport(clock.now, pruned=2, stopped=True)
    assert_whole(disk, keys)
    assert sweep(disk, MONTH) == SweepReport(clock.now, pruned=1)


def test_live_writers_lose_nothing_that_was_acknowledged(disk: EventStore, clock: Clock) -> None:
    keys = old(disk, clock, *(f"t{number}" for number in range(60)))
    acknowledged: dict[str, list[str]] = {}
    refused: set[str] = set()
    wrong: list[BaseException] = []
    sweeping = threading.Event()

    def write(writer: int) -> None:
        try:
            for number in [*range(writer, 60, 3), *range(writer + 20, 60, 3)]:
                thread_id, text = f"t{number}", f"{writer} wrote"
                head = disk.head(thread_id)
                sweeping.wait(10)
                try:
                    if head.exists:
                        disk.append_after(head, [Event(1, text)])
                        acknowledged.setdefault(thread_id, []).append(text)
                except (ThreadNotFoundError, ConcurrencyError):
                    refused.add(thread_id)
        except BaseException as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for each in writers:
        each.start()
    report = sweep(disk, MONTH, on_progress=lambda each, outcome: sweeping.set())
    for each in writers:
        each.join()
    assert wrong == []
    assert report.failed == 0 and report.pruned + report.spared + report.gone <= 60
    assert acknowledged and report.pruned, "both had something to do"
    assert acknowledged.keys() <= names(disk), "something active was pruned"
    for thread_id, texts in acknowledged.items():
        assert [data for data in data_of(disk, thread_id) if isinstance(data, str)] == texts
    assert_whole(disk, keys)
    assert names(disk) == acknowledged.keys()


KILLED: Final = """
import os, signal, sys
from datetime import datetime, timedelta
from eventstore import EventStore, operations
from retention import RetentionPolicy, sweep

path, now, name, times = sys.argv[1:]
real, left = getattr(operations, name), int(times)

def dies(*args):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

setattr(operations, name, dies)
store = EventStore(path, clock=lambda: datetime.fromisoformat(now), durability="normal")
sweep(store, RetentionPolicy(timedelta(days=30)))
"""


@pytest.mark.parametrize(
    ("name", "times", "finished"),
    [
        ("hold", 2, 0),  # between two threads
        ("condemn", 2, 0),  # before the second one's fate is sealed
        ("dependants", 2, 1),  # condemned, and nothing removed
        ("remove_events", 2, 1),  # a part of the events removed
        ("bury", 2, 1),  # all but the last part removed
    ],
)
def test_a_sweep_that_was_killed_is_ended_by_the_next_one(
    disk: EventStore, clock: Clock, tmp_path: Path, name: str, times: int, finished: int
) -> None:
    for thread_id in ("a", "b", "c"):
        fill(disk, thread_id, DELETE_BATCH + 5)
    keys = old(disk, clock, "a", "b", "c")
    fill(disk, "new", 1)
    arguments = [str(tmp_path / "store.db"), clock.now.isoformat(), name, str(times)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = names(disk)
    assert len(left) == 4 - 1 - finished
    assert all(disk.verify(thread_id).ok for thread_id in left), "half a thread is in sight"
    assert sweep(disk, MONTH) == SweepReport(clock.now, finished=finished, pruned=2 - finished)
    assert names(disk) == {"new"}
    assert_whole(disk, keys)
    assert len(sql(disk, "SELECT * FROM tombstones")) == 3
