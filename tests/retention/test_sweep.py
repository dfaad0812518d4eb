"""Sweeps remove exactly what is due, whole and with a reason, without the application."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import (
    Event,
    EventStore,
)
from retention import Decision, Match, Pace, RetentionPolicy, SweepReport, sweep
from tests.awaited import Awaited
from tests.eventstore.support import fill, orphans, rows_of
from tests.retention.support import (
    DAY,
    START,
    Clock,
    assert_whole,
    names,
    planned,
    swept,
)
from tests.retention.sweep_support import MONTH, ROOT, SMALL, old


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
    assert tombstone.reason == "retention: idle for the ttl of 30 days"
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
    fill(timed, "a", 1, ns="sub")  # within a minute, so `active_at` stays
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
        clock.now += 60 * DAY  # the sweep's own moment stays fixed
        for thread_id in names(blocking):
            fill(blocking, thread_id, 1)

    pace = Pace(rows=6, rest=0)  # one thread at a time
    report = sweep(blocking, MONTH, on_progress=wake, pace=pace)
    assert report == SweepReport(START + 40 * DAY, pruned=1, spared=19)


def test_a_pin_set_at_the_last_moment_is_heeded(
    blocking: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sweep's last read and the lock that decides the deletion."""
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


# --- kill -9 ----------------------------------------------------------------------------


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


@pytest.mark.slow
def test_a_process_that_knows_no_application_plans_and_sweeps(tmp_path: Path) -> None:
    """Without types, reducers, or the dictionary that the application compresses with."""
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


def test_a_report_in_one_line() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert SweepReport(now, seconds=0.04).summary == "pruned 0 threads, in 0.0 s"
    report = SweepReport(
        now,
        pruned=1,
        archived=2,
        finished=1,
        spared=2,
        failed=1,
        left=4,
        reclaimed=2**21,
        seconds=3,
    )
    assert report.summary == (
        "pruned 1 thread, archived 2 threads first, finished 1 interrupted deletion, "
        "kept 2 that changed meanwhile, failed on 1, left 4 for the next sweep, freed 2.0 MiB, "
        "in 3.0 s"
    )
    assert SweepReport(now, stopped=True).summary.endswith(", stopped before the end")
