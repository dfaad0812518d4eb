"""Trimming and sealing by policy: the promised history stays, and no state changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest

from eventstore import EventStore
from retention import Match, Pace, RetentionPolicy, SweepReport
from retention.trimming import NO_SNAPSHOT
from tests.eventstore.support import FINGERPRINT, fill, numbers
from tests.retention.support import DAY, Clock, planned, stepped, swept

HOUR: Final = timedelta(hours=1)
STEPS: Final = 10


@pytest.fixture
def log(timed: EventStore, clock: Clock) -> EventStore:
    """A thread with ten checkpoints a day apart, of two events and a snapshot each."""
    stepped(timed, "t", STEPS, clock, DAY)
    clock.now += HOUR
    return timed


def seqs(store: EventStore, thread_id: str = "t") -> list[int]:
    return [event.seq for event in store.read_span(thread_id, _base(store, thread_id), None)]


def _base(store: EventStore, thread_id: str) -> Any:
    lineage = store.lineage(store.head(thread_id).position)
    return lineage.base or store.head(thread_id).position._replace(seq=0)


def state(store: EventStore) -> Any:
    """The state after a replay from the newest snapshot."""
    replay = store.replay("t", fingerprint=FINGERPRINT)
    assert replay.snapshot is not None
    return store.codec.decode(replay.snapshot.state), numbers(list(replay.events))


@pytest.mark.parametrize(
    ("policy", "base", "reason"),
    [
        (RetentionPolicy(keep_history_for=3 * DAY), 14, "older than the history that is kept"),
        (RetentionPolicy(keep_last_checkpoints=3), 16, "older than the history that is kept"),
        (RetentionPolicy(keep_last_checkpoints=1), 20, "older than the history that is kept"),
        (
            RetentionPolicy(keep_history_for=3 * DAY, keep_last_checkpoints=8),
            6,
            "older than the history that is kept",
        ),
        (RetentionPolicy(max_events=9), 12, "more than the max_events of 9"),
        (RetentionPolicy(max_events=1), 20, "more than the max_events of 1"),
        (RetentionPolicy(max_bytes=1), 20, "more than the max_bytes of 1"),
        (
            RetentionPolicy(keep_last_checkpoints=8, max_events=5),
            16,
            "more than the max_events of 5",
        ),
        (RetentionPolicy(keep_last_checkpoints=3, max_events=18), 16, "older than the history"),
    ],
)
def test_history_is_trimmed_and_the_state_stays(
    log: EventStore, clock: Clock, policy: RetentionPolicy, base: int, reason: str
) -> None:
    before = state(log)
    found = planned(log, policy)
    (each,) = found.decisions
    assert (each.action, each.seq, each.events) == ("trim", base, base)
    assert each.reason.startswith(reason)
    assert each.bytes and found.bytes == {"trim": each.bytes}
    assert found.counts == {"prune": 0, "trim": 1}
    assert swept(log, policy) == SweepReport(clock.now, trimmed=1)
    assert seqs(log) == list(range(base + 1, 21))
    assert state(log) == before
    assert log.verify("t").ok
    again = planned(log, policy)
    assert again.decisions == ()
    assert swept(log, policy) == SweepReport(clock.now), "a second time there is nothing to trim"


def test_a_plan_is_trimmed_where_it_says(log: EventStore, clock: Clock) -> None:
    found = planned(log, RetentionPolicy(keep_last_checkpoints=3))
    stepped(log, "t", 5, clock, HOUR)
    assert swept(log, found) == SweepReport(found.now, trimmed=1)
    assert seqs(log)[0] == 17
    assert swept(log, found) == SweepReport(found.now, spared=1)


@pytest.mark.parametrize("policy", [RetentionPolicy(max_events=3), RetentionPolicy(max_bytes=3)])
def test_where_there_is_no_snapshot_the_plan_says_so(
    timed: EventStore, clock: Clock, policy: RetentionPolicy
) -> None:
    fill(timed, "bare", 10)
    assert planned(timed, policy).counts == {"prune": 0, NO_SNAPSHOT: 1}
    assert swept(timed, policy) == SweepReport(clock.now)


def test_that_history_stays_is_said_where_it_is_sealed_too(timed: EventStore, clock: Clock) -> None:
    fill(timed, "bare", 60)
    policy = RetentionPolicy(keep_history_for=7 * DAY, seal_after=DAY, max_bytes=10**9)
    clock.now += 2 * DAY
    assert planned(timed, policy).counts == {"prune": 0, "seal": 1}, "all of it is kept as yet"
    clock.now += 8 * DAY
    assert planned(timed, policy).counts == {"prune": 0, "seal": 1, NO_SNAPSHOT: 1}


@pytest.mark.parametrize(
    "policy", [RetentionPolicy(keep_history_for=DAY), RetentionPolicy(keep_last_checkpoints=1)]
)
def test_what_is_trimmed_already_lacks_no_snapshot(
    log: EventStore, clock: Clock, policy: RetentionPolicy
) -> None:
    clock.now += 2 * DAY
    assert swept(log, policy) == SweepReport(clock.now, trimmed=1)
    assert planned(log, policy).counts == {"prune": 0, "no ttl": 1}
    fill(log, "t", 5, start=21)
    assert planned(log, RetentionPolicy(max_events=3)).counts == {"prune": 0, NO_SNAPSHOT: 1}


def test_too_young_is_not_a_matter_of_snapshots(log: EventStore) -> None:
    assert planned(log, RetentionPolicy(keep_history_for=60 * DAY)).counts == {
        "prune": 0,
        "no ttl": 1,
    }
    assert planned(log, RetentionPolicy(30 * DAY, keep_last_checkpoints=99)).counts == {
        "prune": 0,
        "active": 1,
    }


def test_pinned_threads_are_not_touched_and_waiting_ones_are_trimmed(
    log: EventStore, clock: Clock
) -> None:
    policy = RetentionPolicy(DAY, keep_last_checkpoints=3, seal_after=HOUR)
    log.pin("t", "a lawsuit", "legal")
    clock.now += 9 * DAY
    assert planned(log, policy).counts == {"prune": 0, "pinned": 1}
    assert swept(log, policy) == SweepReport(clock.now)
    log.unpin("t")
    log.set_thread("t", status="waiting")
    assert planned(log, policy).counts == {"prune": 0, "trim": 1}
    assert swept(log, policy) == SweepReport(clock.now, trimmed=1)


def test_a_pin_that_comes_after_the_plan_is_heeded(log: EventStore, clock: Clock) -> None:
    fill(log, "t", 40, start=21)
    clock.now += 2 * DAY
    found = planned(log, RetentionPolicy(keep_last_checkpoints=3, seal_after=DAY))
    assert found.counts == {"prune": 0, "trim": 1, "seal": 1}
    log.pin("t", "a lawsuit", "legal")
    assert swept(log, found) == SweepReport(found.now, spared=2)
    assert seqs(log)[0] == 1


def test_what_is_cold_is_sealed_once(timed: EventStore, clock: Clock) -> None:
    fill(timed, "t", 60)
    clock.now += 2 * DAY
    fill(timed, "t", 3, start=61)
    clock.now += HOUR
    policy = RetentionPolicy(30 * DAY, seal_after=DAY)
    before = timed.stats("t")
    found = planned(timed, policy)
    (each,) = found.decisions
    assert (each.action, each.events, each.older_than) == ("seal", 60, clock.now - DAY)
    assert found.counts == {"prune": 0, "seal": 1}
    assert swept(timed, policy) == SweepReport(clock.now, sealed=1)
    after = timed.stats("t")
    assert (after.events, after.stored_bytes) == (63, before.stored_bytes - (each.bytes or 0))
    assert numbers(list(timed.read("t"))) == list(range(1, 64))
    assert timed.verify("t").ok
    assert planned(timed, policy).counts == {"prune": 0, "active": 1}
    assert swept(timed, policy) == SweepReport(clock.now)


def test_a_plan_seals_nothing_that_it_trims_first(log: EventStore, clock: Clock) -> None:
    policy = RetentionPolicy(keep_last_checkpoints=1, seal_after=HOUR)
    clock.now += 2 * DAY
    found = planned(log, policy)
    assert found.counts == {"prune": 0, "trim": 1}
    assert found.events == {"trim": 20}
    fill(log, "t", 40, start=21)
    clock.now += 2 * DAY
    found = planned(log, policy)
    assert found.events == {"trim": 20, "seal": 39}
    assert swept(log, found) == SweepReport(clock.now, trimmed=1, sealed=1)
    assert log.stats("t").sealed_events == 39


def test_sealed_threads_are_trimmed_and_pruned_like_others(log: EventStore, clock: Clock) -> None:
    policy = RetentionPolicy(30 * DAY, seal_after=DAY)
    assert swept(log, policy) == SweepReport(clock.now, sealed=1)
    assert swept(log, RetentionPolicy(keep_last_checkpoints=3)) == SweepReport(clock.now, trimmed=1)
    assert log.verify("t").ok and seqs(log) == [17, 18, 19, 20]
    clock.now += 40 * DAY
    assert swept(log, policy) == SweepReport(clock.now, pruned=1)


def test_one_that_cannot_be_looked_into_does_not_stop_the_others(
    log: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped(log, "other", STEPS, clock, timedelta(0))
    bad, real = log.thread("t").thread_id, log.core.trim_points

    async def fails(thread_id: str, ns: str = "") -> Any:
        if thread_id == bad:
            raise OSError("a scratch")
        return await real(thread_id, ns)

    monkeypatch.setattr(log.core, "trim_points", fails)
    policy = RetentionPolicy(keep_last_checkpoints=3)
    assert swept(log, policy) == SweepReport(clock.now, trimmed=1, failed=1, left=1)


def test_stopping_between_two_threads(log: EventStore, clock: Clock) -> None:
    stepped(log, "other", STEPS, clock, timedelta(0))
    done: list[str] = []
    policy = RetentionPolicy(keep_last_checkpoints=3, match=Match(tenant="test"))
    report = swept(
        log,
        planned(log, policy),
        on_progress=lambda each, outcome: done.append(outcome),
        should_stop=lambda: bool(done),
        pace=Pace(rest=0),
    )
    assert report == SweepReport(report.now, trimmed=1, left=1, stopped=True)
