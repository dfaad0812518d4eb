"""Sweeps: only what is due goes, whole, beside live writers, across kill -9, and only once."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import (
    ConcurrencyError,
    Event,
    EventStore,
    StoreClosedError,
    StoreUnavailableError,
    ThreadNotFoundError,
)
from eventstore.forgetting import SLICES, Expired
from eventstore.removal import DELETE_BATCH
from retention import Decision, Match, Pace, RetentionPolicy, SweepReport, sweep
from tests.awaited import Awaited
from tests.eventstore.support import data_of, fill, orphans, rows_of, sql
from tests.retention.support import (
    DAY,
    START,
    Clock,
    assert_whole,
    names,
    opened,
    planned,
    swept,
)

ROOT: Final = Path(__file__).resolve().parents[2]
MONTH: Final = RetentionPolicy(30 * DAY)
HOUR: Final = timedelta(hours=1)
SMALL: Final = Pace(rows=500, rest=0)
"""A pace at which a thread of more than 500 events is a large one."""


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


def test_a_sweep_prunes_what_is_due_and_says_why(timed: EventStore, clock: Clock) -> None:
    keys = old(timed, clock, "a", "b", "pinned", "waiting", "patient")
    timed.pin("pinned", "a lawsuit", "legal")
    timed.set_thread("waiting", status="waiting")
    timed.set_ttl("patient", 50 * DAY)
    fill(timed, "new", 1)
    seen: list[tuple[str, str]] = []
    report = swept(
        timed, MONTH, on_progress=lambda each, outcome: seen.append((each.thread_id, outcome))
    )
    assert report == SweepReport(START + 40 * DAY, pruned=2)
    assert sorted(seen) == [("a", "pruned"), ("b", "pruned")]
    assert names(timed) == {"pinned", "waiting", "patient", "new"}
    assert_whole(timed, keys)
    (tombstone, _) = timed.tombstones()
    assert tombstone.reason == "retention: idle for the ttl of 30 days, 0:00:00"
    assert tombstone.policy == "default"
    assert swept(timed, MONTH) == SweepReport(START + 40 * DAY), "a second one finds nothing"


def test_a_policy_without_limits_keeps_what_has_a_ttl_of_its_own(
    timed: EventStore, clock: Clock
) -> None:
    timed.append("held", [Event(1, "x")], 0, metadata={"case": "open"}, ttl=DAY)
    clock.now += 40 * DAY
    policies = [RetentionPolicy(name="held", match=Match(metadata={"case": "open"})), MONTH]
    assert planned(timed, policies).counts == {"prune": 0, "no limits": 1}
    assert swept(timed, policies) == SweepReport(clock.now)
    timed.set_thread("held", metadata={})
    assert swept(timed, policies) == SweepReport(clock.now, pruned=1)


def test_a_sweep_is_on_record_with_the_moment_that_decided(timed: EventStore, clock: Clock) -> None:
    old(timed, clock, "a")
    policy = RetentionPolicy(30 * DAY, "chat", Match(thread_id="a*"))
    swept(timed, policy)
    (record,) = timed.sweeps()
    assert record.cutoff == record.started_at == record.finished_at == clock.now
    assert record.policy == {"policies": [policy.described()], "tenant": "test", "planned": False}
    assert (record.counts["pruned"], record.counts["stopped"]) == (1, False)


def test_what_is_too_old_goes_however_active_it_is(timed: EventStore, clock: Clock) -> None:
    fill(timed, "a", 1)
    fill(timed, "asked", 1)
    timed.set_thread("asked", status="waiting")
    clock.now += 40 * DAY
    fill(timed, "a", 1)
    fill(timed, "b", 1)
    policy = RetentionPolicy(max_age=40 * DAY)
    assert swept(timed, policy) == SweepReport(clock.now, pruned=1)
    assert names(timed) == {"asked", "b"}
    careless = RetentionPolicy(max_age=40 * DAY, respect_pending_interrupts=False)
    assert swept(timed, careless) == SweepReport(clock.now, pruned=1)


def test_an_append_that_active_at_does_not_show_saves_a_thread(
    timed: EventStore, clock: Clock
) -> None:
    fill(timed, "a", 1)
    clock.now += timedelta(seconds=30)
    fill(timed, "a", 1, ns="sub")  # within a minute: `active_at` stays
    clock.now = START + 30 * DAY
    assert planned(timed, MONTH).counts == {"prune": 1}
    assert swept(timed, MONTH) == SweepReport(clock.now, spared=1)
    clock.now += DAY
    assert swept(timed, MONTH) == SweepReport(clock.now, pruned=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: fill(store, "a", 1),
        lambda store: fill(store, "a", 1, ns="sub"),
        lambda store: store.pin("a", "a lawsuit", "legal"),
        lambda store: store.set_thread("a", status="waiting"),
        lambda store: store.set_ttl("a", 9_999 * DAY),
        lambda store: (store.delete_thread("a"), fill(store, "a", 1)),
        lambda store: (fill(store, "a", 1), store.set_ttl("a", timedelta(seconds=1))),
    ],
    ids=["active", "active below", "pinned", "waiting", "ttl", "made anew", "shorter ttl"],
)
def test_what_changed_since_the_plan_is_left_alone(
    blocking: EventStore, clock: Clock, change: Callable[[EventStore], object]
) -> None:
    old(blocking, clock, "a", "b")
    found = planned(blocking, MONTH)
    clock.now += DAY
    change(blocking)
    fill(blocking, "later", 1)
    clock.now += 60 * DAY
    report = sweep(blocking, found)
    assert (report.now, report.pruned, report.spared + report.gone) == (found.now, 1, 1)
    assert names(blocking) == {"a", "later"}
    assert blocking.verify("a").ok


def test_a_thread_that_became_active_during_the_sweep_is_left_alone(
    blocking: EventStore, clock: Clock
) -> None:
    old(blocking, clock, *(f"t{number}" for number in range(20)))

    def wake(each: Decision, outcome: str) -> None:
        clock.now += 60 * DAY  # the moment that decides does not move along
        for thread_id in names(blocking):
            fill(blocking, thread_id, 1)

    pace = Pace(rows=6, rest=0)  # one thread at a time
    report = sweep(blocking, MONTH, on_progress=wake, pace=pace)
    assert report == SweepReport(START + 40 * DAY, pruned=1, spared=19)


def test_a_pin_set_at_the_last_moment_is_heeded(
    blocking: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's last look and the lock that seals the threads' fate."""
    old(blocking, clock, "a")
    fill(blocking, "large", 600)
    clock.now += 40 * DAY
    prune = blocking.core.prune
    remove = type(blocking.core).delete_thread

    async def pin_first(*args: Any, **options: Any) -> Any:
        await blocking.core.pin("a", "a lawsuit", "legal")
        return await prune(*args, **options)

    async def pin_large_first(self: Any, *args: Any, **options: Any) -> Any:
        await blocking.core.pin("large", "a lawsuit", "legal")
        return await remove(self, *args, **options)

    monkeypatch.setattr(blocking.core, "prune", pin_first)
    monkeypatch.setattr(type(blocking.core), "delete_thread", pin_large_first)
    assert sweep(blocking, MONTH, pace=SMALL) == SweepReport(clock.now, spared=2)
    assert names(blocking) == {"a", "large"}


def test_a_thread_that_someone_else_removed_is_gone(timed: EventStore, clock: Clock) -> None:
    old(timed, clock, "a", "b")
    found = planned(timed, MONTH)
    timed.delete_thread("a")
    assert swept(timed, found) == SweepReport(found.now, pruned=1, gone=1)
    assert swept(timed, found) == SweepReport(found.now, gone=2)


def test_a_sweep_refuses_the_future_and_a_plan_that_is_not_its_own(
    timed: EventStore, clock: Clock
) -> None:
    fill(timed, "a", 1)
    future = START + 40 * DAY
    with pytest.raises(ValueError, match="in the future"):
        swept(timed, MONTH, future)
    with pytest.raises(ValueError, match="in the future"):
        swept(timed, planned(timed, MONTH, future))
    with pytest.raises(ValueError, match="its own moment"):
        swept(timed, planned(timed, MONTH), START)
    assert names(timed) == {"a"}


def test_a_plan_belongs_to_a_tenant(blocking: EventStore, clock: Clock) -> None:
    old(blocking, clock, "a")
    other = blocking.with_tenant("other")
    with pytest.raises(ValueError, match="'test'"):
        sweep(other, planned(blocking, MONTH))
    assert sweep(other, MONTH) == SweepReport(clock.now)
    fill(other, "large", 600)
    clock.now += 40 * DAY
    everyone = planned(blocking, MONTH, all_tenants=True)
    assert sweep(other, everyone, pace=SMALL) == SweepReport(clock.now, pruned=2)


def test_every_tenant_is_swept_when_asked_to(blocking: EventStore, clock: Clock) -> None:
    tenants = [blocking.with_tenant(f"tenant {number}") for number in range(3)]
    for number, store in enumerate(tenants):
        fill(store, "a", 3)
        fill(store, "large", 600)
        fill(store, "held", 1)
        store.fork("large", 300, "child")
        if number:
            store.pin("held", "a lawsuit", "legal")
    clock.now += 40 * DAY
    report = sweep(blocking, MONTH, all_tenants=True, pace=SMALL)
    assert report == SweepReport(clock.now, pruned=10)
    assert [names(store) for store in tenants] == [set(), {"held"}, {"held"}]
    assert orphans(blocking) == {}


def test_a_fork_survives_its_parent(timed: EventStore, clock: Clock) -> None:
    keys = old(timed, clock, "parent")
    timed.fork("parent", 2, "child")
    assert swept(timed, MONTH).pruned == 1
    assert_whole(timed, keys)
    assert [e.data["n"] for e in timed.replay("child").events if e.kind] == [1, 2]


# --- when things go wrong ---------------------------------------------------------------


def failing_prune(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, error: Exception, *thread_ids: str
) -> None:
    """Let pruning fail as soon as one of these is in the batch."""
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
        with pytest.raises(ValueError, match="bounds above 0"):
            Pace(**values)


def test_a_sweep_rests_in_proportion_to_what_it_does(
    timed: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(timed, clock, "a", "b", "c")
    rests: list[float] = []

    async def rest(_self: Any, seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr("retention.access.Access.sleep", rest)
    swept(timed, MONTH, pace=Pace(rest=0))
    assert rests == []
    old(timed, clock, "a", "b", "c")
    swept(timed, MONTH, pace=Pace(rows=6, rest=0.5))
    assert len(rests) >= 3 and 0 < min(rests) <= max(rests) <= 1.0


# --- sharing the work -------------------------------------------------------------------


def test_who_shares_leaves_alone_what_others_have_or_have_just_done(
    timed: EventStore, clock: Clock
) -> None:
    old(timed, clock, *(f"t{number}" for number in range(40)))
    lease = timedelta(minutes=1)
    held = timed.claim_slice("another", lease, clock.now)
    assert held is not None
    keys = {thread.thread_key for thread in timed.scan()}
    theirs = {key for key in keys if held.first_key <= key <= held.last_key}
    assert theirs and theirs != keys
    assert swept(timed, MONTH, shared=HOUR).pruned == len(keys - theirs)
    assert swept(timed, MONTH, shared=HOUR) == SweepReport(clock.now)
    clock.now += timedelta(minutes=2)  # the other one is heard of no more
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
    # What one found locked by the other is spared by it, and pruned by the other.
    assert [report.failed for report in reports] == [0, 0]
    assert sum(report.pruned for report in reports) == 120
    assert len(blocking.tombstones(limit=1_000)) == 120
    assert names(blocking) == {"new"}
    assert_whole(blocking, keys)


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
        assert [data for data in data_of(blocking, thread_id) if isinstance(data, str)] == texts
    sweep(blocking, MONTH)
    assert_whole(blocking, keys)
    assert names(blocking) == acknowledged.keys()


# --- kill -9 ----------------------------------------------------------------------------

KILLED: Final = """
import os, signal, sys
from datetime import datetime, timedelta
from eventstore import EventStore, operations, pruning
from retention import Pace, RetentionPolicy, sweep

path, now, module, name, times = sys.argv[1:]
target = {"operations": operations, "pruning": pruning}[module]
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


@pytest.mark.parametrize(
    ("count", "module", "name", "times", "gone", "finished"),
    [
        (3, "pruning", "bury", 1, 0, 0),  # before a batch is gone
        (200, "pruning", "bury", 2, 1, 0),  # between two batches
        (DELETE_BATCH + 5, "operations", "condemn", 2, 1, 0),  # before the second's fate is sealed
        (DELETE_BATCH + 5, "operations", "dependants", 2, 1, 1),  # condemned, nothing removed
        (DELETE_BATCH + 5, "operations", "remove_events", 2, 1, 1),  # a part of it removed
        (DELETE_BATCH + 5, "operations", "bury", 2, 1, 1),  # all but the last part removed
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
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, timeout=120)
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


def test_the_twins_take_the_same_arguments() -> None:
    import inspect

    import retention

    for name in ("plan", "sweep"):
        one, twin = (inspect.signature(getattr(retention, each)) for each in (name, f"a{name}"))
        assert [*one.parameters] == [*twin.parameters]


def test_nothing_is_left_of_what_went(timed: EventStore, clock: Clock) -> None:
    keys = old(timed, clock, "a", "b")
    swept(timed, MONTH)
    assert all(rows_of(timed, key) == {} for key in keys.values())
    assert orphans(timed) == {}
    assert isinstance(timed, EventStore | Awaited)


# --- without the application ------------------------------------------------------------

APPLICATION: Final = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import zstandard
from eventstore import Codec, Event, EventStore, NewSnapshot

class Order:
    def __init__(self, number):
        self.number = number

codec = Codec()
samples = [f"order number {n} of customer {n % 7} in the shop".encode() * 5 for n in range(500)]
codec.add_dictionary(47_110, zstandard.train_dictionary(8192, samples, dict_id=47_110).as_bytes())
codec.register(Order, pack=lambda order: order.number, unpack=Order, name="order", version=1)
clock = lambda: datetime.fromisoformat(sys.argv[2])
with EventStore(sys.argv[1], codec=codec, clock=clock) as store:
    for name in ("old", "long"):
        head = store.head(name)
        for number in range(30):
            events = [Event(1, Order(number)), Event(1, {"text": samples[number].decode()})]
            state = NewSnapshot("app/1", codec.encode(Order(number)), b"", step=number + 1)
            head = store.append_after(head, events, snapshot=state)
    store.fork("old", 40, "branch")
    store.set_ttl("long", timedelta(days=9_999))
    store.set_ttl("branch", timedelta(days=9_999))
"""

SWEEPER: Final = """
import json, sys
from datetime import datetime, timedelta
from eventstore import EventStore
from retention import RetentionPolicy, plan, sweep

policies = RetentionPolicy(
    timedelta(days=30), keep_last_checkpoints=10, seal_after=timedelta(days=1)
)
with EventStore(sys.argv[1], clock=lambda: datetime.fromisoformat(sys.argv[2])) as store:
    counts = plan(store, policies, sizes=True).counts
    report = sweep(store, policies)
assert "graph" not in sys.modules
print(json.dumps([counts, report.pruned, report.trimmed, report.sealed, report.failed]))
"""


def test_a_process_that_knows_no_application_plans_and_sweeps(tmp_path: Path) -> None:
    """No types, no reducers, and not the dictionary that the application compresses with."""
    path = str(tmp_path / "store.db")

    def run(code: str, now: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, path, now],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(APPLICATION, START.isoformat())
    said = run(SWEEPER, (START + 40 * DAY).isoformat())
    counts, pruned, trimmed, sealed, failed = json.loads(said)
    assert (counts["prune"], pruned, failed) == (1, 1, 0)
    assert trimmed == counts["trim"] == 1
    assert sealed >= 1 and counts["seal"] >= 1
