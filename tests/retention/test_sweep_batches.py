"""Threads that are pruned together: in which order, with whom, and what one of them may spoil."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any, Final

import pytest

from eventstore import EventStore
from eventstore.retention_models import Expired
from retention import Pace, SweepReport, sweep
from tests.eventstore.support import check_whole, fill, is_sqlite, orphans, sql
from tests.retention.support import DAY, Clock, assert_whole, names, swept
from tests.retention.sweep_support import MONTH, old

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)


def test_the_oldest_threads_go_first(timed: EventStore, clock: Clock) -> None:
    expected = [f"t{number:02}" for number in range(40)]
    for name in expected:
        clock.now += 2 * MINUTE
        fill(timed, name, 1)
    clock.now += 40 * DAY
    gone: list[str] = []
    report = swept(timed, MONTH, on_progress=lambda each, _: gone.append(each.thread_id))
    assert report == SweepReport(clock.now, pruned=40)
    assert gone == expected
    assert orphans(timed) == {}


def test_a_source_goes_after_its_forks(blocking: EventStore, clock: Clock) -> None:
    old(blocking, clock, "source")
    clock.now -= 40 * DAY
    blocking.fork("source", 2, "fork")
    clock.now += 40 * DAY
    gone: list[str] = []
    report = sweep(blocking, MONTH, on_progress=lambda each, _: gone.append(each.thread_id))
    assert report == SweepReport(clock.now, pruned=2)
    assert gone == ["fork", "source"]
    assert names(blocking) == set()
    assert orphans(blocking) == {}


def test_a_thread_that_stays_forked_gets_its_bytes_before_its_source_goes(
    timed: EventStore, clock: Clock
) -> None:
    keys = old(timed, clock, "source", "other")
    timed.fork("source", 2, "fork")
    assert swept(timed, MONTH).pruned == 2
    assert names(timed) == {"fork"}
    assert check_whole(timed) == 1
    assert_whole(timed, keys)


def test_a_thread_that_cannot_be_weighed_costs_its_neighbours_little(
    blocking: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_sqlite(blocking):
        pytest.skip("PostgreSQL keeps to the types of columns")
    keys = old(blocking, clock, *(f"t{number:02}" for number in range(60)))
    sql(
        blocking,
        "UPDATE events SET recorded_at = 'noon' WHERE thread_key = ? AND seq = 1",
        (keys["t31"],),
    )
    transactions = 0
    real = blocking.core.prune

    async def counted(batch: list[Expired], **options: Any) -> Any:
        nonlocal transactions
        transactions += 1
        return await real(batch, **options)

    monkeypatch.setattr(blocking.core, "prune", counted)
    pace = Pace(seconds=60, rest=0)
    assert sweep(blocking, MONTH, pace=pace) == SweepReport(clock.now, pruned=59, failed=1, left=1)
    assert names(blocking) == {"t31"}
    assert transactions <= 25
    assert orphans(blocking) == {}


def test_a_thread_of_a_large_batch_that_became_active_is_spared(
    blocking: EventStore, clock: Clock
) -> None:
    keys = {}
    for name in (f"t{number:02}" for number in range(50)):
        clock.now += 2 * MINUTE
        fill(blocking, name, 5)
        keys[name] = blocking.thread(name).thread_key
    clock.now += 40 * DAY
    outcomes: dict[str, str] = {}

    def write(each: Any, outcome: str) -> None:
        if not outcomes:
            fill(blocking, "t49", 1, start=6)
            blocking.pin("t48", "why", "who")
            blocking.set_ttl("t47", 100 * DAY)
            blocking.delete_thread("t46")
        outcomes[each.thread_id] = outcome

    report = sweep(blocking, MONTH, on_progress=write, pace=Pace(rows=30, rest=0))
    assert (report.pruned, report.spared, report.gone) == (46, 3, 1)
    spared = {name for name, outcome in outcomes.items() if outcome == "spared"}
    assert names(blocking) == spared == {"t47", "t48", "t49"}
    assert_whole(blocking, keys)
    assert check_whole(blocking) == 3


def test_others_find_slices_while_one_sweeps(blocking: EventStore, clock: Clock) -> None:
    old(blocking, clock, *(f"t{number}" for number in range(60)))
    found: list[SweepReport] = []

    def join(*_: object) -> None:
        if not found:
            found.append(SweepReport(clock.now))
            found[0] = sweep(blocking, MONTH, shared=HOUR)

    mine = sweep(blocking, MONTH, on_progress=join, shared=HOUR)
    assert mine.pruned + found[0].pruned == 60
    assert mine.pruned >= 10 and found[0].pruned >= 10
    assert names(blocking) == set()


@pytest.mark.slow
def test_a_slice_that_another_took_over_does_not_count_as_swept(
    blocking: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = importlib.import_module("retention.sweep.leases")
    monkeypatch.setattr(leases, "LEASE", timedelta(microseconds=3))
    old(blocking, clock, *(f"t{number}" for number in range(60)))
    taken = False

    def take_over(*_: object) -> None:
        nonlocal taken
        if not taken:
            taken = True
            sql(blocking, "UPDATE retention_slices SET holder = 'another' WHERE holder <> ''")

    pace = Pace(rows=6, rest=0)
    report = sweep(blocking, MONTH, on_progress=take_over, shared=HOUR, pace=pace)
    assert report.pruned == 60, "what was found is judged again, and pruned"
    held = sql(blocking, "SELECT count(*) FROM retention_slices WHERE holder = 'another'")
    swept_slices = sql(blocking, "SELECT count(*) FROM retention_slices WHERE swept_at > 0")
    assert held[0][0] + swept_slices[0][0] >= 16
    assert held[0][0] > 0
