"""Sweeps under failures: errors of one thread, a database that is gone, kill -9."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import (
    EventStore,
    StoreClosedError,
    StoreUnavailableError,
)
from eventstore.concurrency import Asyncio, Blocking
from eventstore.core.delete import DELETE_BATCH
from eventstore.retention_models import Expired
from retention import Pace, RetentionPolicy, SweepReport, sweep
from tests import processes
from tests.eventstore.support import fill, seal_now, sql
from tests.retention.support import (
    Clock,
    assert_whole,
    names,
    opened,
    swept,
)
from tests.retention.sweep_support import MONTH, ROOT, SMALL, old


@pytest.fixture
def disk(tmp_path: Path, clock: Clock) -> Iterator[EventStore]:
    with opened(tmp_path, clock) as store:
        yield store


# --- when things go wrong ---------------------------------------------------------------


@pytest.mark.parametrize("ends", [(-(2**63), 2**63 - 1), (1, -(2**63)), (2**63 - 1, 2**63 - 1)])
def test_numbers_of_a_damaged_segment_fail_no_other_thread(
    timed: EventStore, clock: Clock, ends: tuple[int, int]
) -> None:
    """PostgreSQL refuses to compute what it cannot store, and with it the whole statement."""
    old(timed, clock, "a", "damaged", "z")
    fill(timed, "damaged", 30)
    clock.now += timedelta(days=40)
    seal_now(timed, "damaged")
    assert sql(timed, "SELECT count(*) FROM segments") == [(2,)]
    sql(timed, "UPDATE segments SET seq = ?, last = ?", ends)
    swept(timed, [MONTH])
    assert names(timed) <= {"damaged"}
    old(timed, clock, "y")
    swept(timed, [RetentionPolicy(timedelta(days=9999), max_events=2)])
    assert names(timed) <= {"damaged", "y"} and timed.verify("y").ok


def failing_prune(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, error: Exception, *thread_ids: str
) -> None:
    """Make pruning fail if one of these threads is in the batch."""
    bad = {store.thread(thread_id).thread_key for thread_id in thread_ids}
    real = store.core.prune

    async def fails(batch: list[Expired], **options: Any) -> Any:
        if bad & {each.thread_key for each in batch}:
            raise error
        return await real(batch, **options)

    monkeypatch.setattr(store.core, "prune", fails)


def test_an_error_on_one_thread_does_not_stop_the_others(
    timed: EventStore,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old(timed, clock, "a", "b", "c")
    failing_prune(timed, monkeypatch, OSError("the disk has a scratch"), "b")

    async def cannot(*args: Any) -> int:
        return 1 // 0

    monkeypatch.setattr(timed.core, "finish_deletions", cannot)
    with caplog.at_level(logging.ERROR):
        report = swept(timed, MONTH)
    assert report == SweepReport(clock.now, pruned=2, failed=2, left=1)
    assert "cannot prune thread 'b'" in caplog.text and "scratch" in caplog.text
    monkeypatch.undo()
    assert swept(timed, MONTH) == SweepReport(clock.now, pruned=1)


def test_a_database_that_is_gone_is_no_matter_of_one_thread(
    timed: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(timed, clock, "a", "b")
    failing_prune(timed, monkeypatch, StoreUnavailableError("the server went away"), "b")
    with pytest.raises(StoreUnavailableError):
        swept(timed, MONTH)
    monkeypatch.undo()
    assert swept(timed, MONTH).failed == 0
    assert names(timed) == set()


def test_a_closed_store_is_no_matter_of_one_thread(tmp_path: Path, clock: Clock) -> None:
    pace = Pace(rows=6, rest=0)
    with opened(tmp_path, clock) as store:
        old(store, clock, "a", "b")
        with pytest.raises(StoreClosedError):
            sweep(store, MONTH, on_progress=lambda each, outcome: store.close(), pace=pace)
    with opened(tmp_path, clock) as store:
        assert sweep(store, MONTH).pruned == 1


def test_a_sweep_that_is_asked_to_stop_does_so_between_batches(
    timed: EventStore, clock: Clock
) -> None:
    keys = old(timed, clock, "a", "b", "c")
    pruned: list[str] = []
    report = swept(
        timed,
        MONTH,
        on_progress=lambda each, outcome: pruned.append(each.thread_id),
        should_stop=lambda: len(pruned) == 2,
        pace=Pace(rows=6, rest=0),
    )
    assert report == SweepReport(clock.now, pruned=2, left=1, stopped=True)
    assert_whole(timed, keys)
    assert swept(timed, MONTH) == SweepReport(clock.now, pruned=1)


def test_a_pace_must_make_sense() -> None:
    for values in ({"rows": 0}, {"seconds": 0.0}, {"rest": -1.0}, {"bytes": 0}):
        with pytest.raises(ValueError, match="must be above 0"):
            Pace(**values)


def test_a_sweep_rests_in_proportion_to_what_it_does(
    timed: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(timed, clock, "a", "b", "c")
    rests: list[float] = []

    async def rest(_self: Any, seconds: float) -> None:
        rests.append(seconds)

    for kind in (Blocking, Asyncio):
        monkeypatch.setattr(kind, "sleep", rest)
    swept(timed, MONTH, pace=Pace(rest=0))
    assert rests == []
    old(timed, clock, "a", "b", "c")
    swept(timed, MONTH, pace=Pace(rows=6, rest=0.5))
    assert len(rests) >= 3 and 0 < min(rests) <= max(rests) <= 1.0


# --- kill -9 ----------------------------------------------------------------------------


KILLED: Final = """
import os, signal, sys
from datetime import datetime, timedelta
from eventstore import EventStore, queries
from retention import Pace, RetentionPolicy, sweep

path, now, module, name, times = sys.argv[1:]
target = getattr(queries, module)
real, left = getattr(target, name), int(times)

def dies(*args, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

setattr(target, name, dies)
store = EventStore(path, clock=lambda: datetime.fromisoformat(now), durability="normal")
sweep(store, RetentionPolicy(timedelta(days=30)), pace=Pace(rows=500, rest=0))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "module", "name", "times", "gone", "finished"),
    [
        (3, "prune", "remove_rest", 1, 0, 0),  # before a batch is gone
        (200, "prune", "remove_rest", 2, 1, 0),  # between two batches
        (
            DELETE_BATCH + 5,
            "delete",
            "mark_for_deletion",
            2,
            1,
            0,
        ),  # before the second is marked for deletion
        (DELETE_BATCH + 5, "forks", "dependants", 2, 1, 1),  # marked for deletion, nothing removed
        (DELETE_BATCH + 5, "delete", "remove_events", 2, 0, 1),  # a part of the first removed
        (DELETE_BATCH + 5, "delete", "remove_rest", 2, 1, 1),  # all but the last part removed
    ],
)
def test_a_sweep_that_was_killed_is_ended_by_the_next_one(
    disk: EventStore,
    clock: Clock,
    tmp_path: Path,
    count: int,
    module: str,
    name: str,
    times: int,
    gone: int,
    finished: int,
) -> None:
    for thread_id in ("a", "b", "c"):
        fill(disk, thread_id, count)
    keys = old(disk, clock, "a", "b", "c")
    fill(disk, "new", 1)
    arguments = [str(tmp_path / "store.db"), clock.now.isoformat(), module, name, str(times)]
    killed = processes.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = names(disk)
    assert len(left) == 4 - (2 if count == 200 else gone) - finished
    assert all(disk.verify(thread_id).ok for thread_id in left), "half a thread is in sight"
    report = sweep(disk, MONTH, pace=SMALL)
    assert report == SweepReport(clock.now, finished=finished, pruned=len(left) - 1)
    assert names(disk) == {"new"}
    assert_whole(disk, keys)
    assert len(disk.tombstones()) == 3
    ended = sorted(record.finished_at is not None for record in disk.sweeps())
    assert ended == [False, True], "the one that was killed can be told"
