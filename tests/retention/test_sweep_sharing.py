"""Sweepers that share the work, and sweeps beside live writers."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

import pytest

from eventstore import (
    ConcurrencyError,
    Event,
    EventStore,
    ThreadNotFoundError,
)
from eventstore.retention_models import SLICES
from retention import Pace, SweepReport, sweep
from tests.awaited import core_of
from tests.eventstore.support import data_of, fill, sql
from tests.retention.support import (
    DAY,
    Clock,
    assert_whole,
    names,
    swept,
)
from tests.retention.sweep_support import MONTH, old

HOUR: Final = timedelta(hours=1)


def test_who_shares_leaves_alone_what_others_have_or_have_just_done(
    timed: EventStore, clock: Clock
) -> None:
    old(timed, clock, *(f"t{number}" for number in range(40)))
    lease = timedelta(minutes=1)
    held = core_of(timed).claim_slice("another", lease, clock.now)
    assert held is not None
    keys = {thread.thread_key for thread in core_of(timed).scan()}
    theirs = {key for key in keys if held.first_key <= key <= held.last_key}
    assert theirs and theirs != keys
    assert swept(timed, MONTH, shared=HOUR).pruned == len(keys - theirs)
    assert swept(timed, MONTH, shared=HOUR) == SweepReport(clock.now)
    clock.now += timedelta(minutes=2)  # the lease of the other sweeper expires
    assert swept(timed, MONTH, shared=HOUR).pruned == len(theirs)
    fill(timed, "late", 1)
    timed.set_ttl("late", timedelta(seconds=1))
    clock.now += timedelta(minutes=30)
    assert swept(timed, MONTH, shared=HOUR).pruned == 0, "it was swept half an hour ago"
    clock.now += timedelta(minutes=31)
    assert swept(timed, MONTH, shared=HOUR).pruned == 1


def test_a_slice_that_was_not_finished_waits_for_the_next_one(
    timed: EventStore, clock: Clock
) -> None:
    old(timed, clock, *(f"t{number}" for number in range(40)))
    pruned: list[str] = []
    first = swept(
        timed,
        MONTH,
        on_progress=lambda each, outcome: pruned.append(each.thread_id),
        should_stop=lambda: len(pruned) > 5,
        shared=HOUR,
        pace=Pace(rows=6, rest=0),
    )
    assert first.stopped and first.pruned == 6
    assert swept(timed, MONTH, shared=HOUR).pruned == 34


@pytest.mark.parametrize("wrong", [365 * DAY, HOUR, timedelta(minutes=2)])
def test_a_sweep_by_a_clock_that_is_ahead_stops_nobody(
    timed: EventStore, clock: Clock, wrong: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    right = clock.now
    clock.now += wrong
    swept(timed, MONTH, shared=HOUR)
    core_of(timed).claim_slice("ahead", timedelta(minutes=1), clock.now + HOUR)  # and dies
    clock.now = right
    names = [f"t{number}" for number in range(40)]
    for name in names:
        timed.append(name, [Event(1, name)], 0, ttl=timedelta(seconds=1))
    caplog.clear()
    clock.now += timedelta(seconds=10)
    assert swept(timed, MONTH, shared=HOUR).pruned == 40
    (record,) = [each for each in caplog.records if "in the future" in each.getMessage()]
    assert record.levelname == "WARNING" and f"{wrong.total_seconds() - 10:.0f} s" in record.message
    assert swept(timed, MONTH, shared=HOUR) == SweepReport(clock.now), "it is swept now"


def test_clocks_that_differ_a_little_share(timed: EventStore, clock: Clock) -> None:
    ahead = timedelta(seconds=50)
    clock.now += ahead
    held = core_of(timed).claim_slice("another", timedelta(minutes=1), clock.now)
    assert held is not None
    swept(timed, MONTH, shared=HOUR)
    clock.now -= ahead
    names = [f"t{number}" for number in range(40)]
    for name in names:
        timed.append(name, [Event(1, name)], 0, ttl=timedelta(seconds=1))
    clock.now += timedelta(seconds=5)
    assert swept(timed, MONTH, shared=HOUR).pruned == 0, "swept just now, or held by another"


def test_a_clock_set_back_during_a_sweep_does_not_make_it_endless(
    blocking: EventStore, clock: Clock
) -> None:
    old(blocking, clock, *(f"t{number}" for number in range(40)))

    def set_back(*_: object) -> None:
        clock.now -= DAY

    report = sweep(blocking, MONTH, on_progress=set_back, shared=timedelta(0))
    assert report.pruned == 40


def test_sharing_is_among_those_who_sweep_the_same_threads(
    blocking: EventStore, clock: Clock
) -> None:
    stores = [blocking, blocking.with_tenant("other"), blocking.with_tenant("third")]
    for store in stores:
        fill(store, "a", 1)
    clock.now += 40 * DAY
    assert sweep(stores[0], MONTH, shared=HOUR).pruned == 1
    assert sweep(stores[1], MONTH, shared=HOUR).pruned == 1
    assert sweep(stores[0], MONTH, shared=HOUR, all_tenants=True).pruned == 1
    assert sql(blocking, "SELECT count(*) FROM retention_slices") == [(3 * SLICES,)]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [None, HOUR])
def test_two_sweepers_side_by_side_prune_each_thread_once(
    blocking: EventStore, clock: Clock, shared: timedelta | None
) -> None:
    keys = old(blocking, clock, *(f"t{number}" for number in range(120)))
    fill(blocking, "new", 1)
    reports: list[SweepReport] = []
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        reports.append(sweep(blocking, MONTH, shared=shared, pace=Pace(rows=60, rest=0)))

    sweepers = [threading.Thread(target=run) for _ in range(2)]
    for each in sweepers:
        each.start()
    for each in sweepers:
        each.join()
    # A thread that one sweeper finds locked by the other is spared by it, and pruned by the other.
    assert [report.failed for report in reports] == [0, 0]
    assert sum(report.pruned for report in reports) == 120
    assert len(blocking.tombstones(limit=1_000)) == 120
    assert names(blocking) == {"new"}
    assert_whole(blocking, keys)


@pytest.mark.slow
def test_live_writers_lose_nothing_that_was_acknowledged(
    blocking: EventStore, clock: Clock
) -> None:
    keys = old(blocking, clock, *(f"t{number}" for number in range(60)))
    acknowledged: dict[str, list[str]] = {}
    refused: set[str] = set()
    wrong: list[BaseException] = []
    sweeping = threading.Event()

    def write(writer: int) -> None:
        try:
            for number in [*range(writer, 60, 3), *range(writer + 20, 60, 3)]:
                thread_id, text = f"t{number}", f"{writer} wrote"
                head = blocking.head(thread_id)
                sweeping.wait(10)
                try:
                    if head.exists:
                        blocking.append_after(head, [Event(1, text)])
                        acknowledged.setdefault(thread_id, []).append(text)
                except (ThreadNotFoundError, ConcurrencyError):
                    refused.add(thread_id)
        except BaseException as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for each in writers:
        each.start()
    report = sweep(
        blocking,
        MONTH,
        on_progress=lambda each, outcome: sweeping.set(),
        pace=Pace(rows=12, rest=1),
    )
    for each in writers:
        each.join()
    assert wrong == []
    assert report.failed == 0 and report.pruned + report.spared + report.gone <= 60
    assert acknowledged and report.pruned, "both had something to do"
    assert acknowledged.keys() <= names(blocking), "something active was pruned"
    for thread_id, texts in acknowledged.items():
        stored = [data for data in data_of(blocking, thread_id) if isinstance(data, str)]
        assert sorted(stored) == sorted(texts)  # two writers may note theirs in another order
    sweep(blocking, MONTH)
    assert_whole(blocking, keys)
    assert names(blocking) == acknowledged.keys()
