"""Policies and plans: what may go, what stays and why, at which moment; nothing is touched."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventstore import EventStore, ThreadInfo
from retention import RetentionPolicy, plan
from retention.plan import PAGE
from tests.eventstore.support import fill, sql
from tests.retention.support import DAY, START, Clock, opened

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = RetentionPolicy(timedelta(days=30))


def thread(days: float, **values: Any) -> ThreadInfo:
    """A thread that was last active so many days before NOW."""
    at = NOW - days * DAY
    return dataclasses.replace(ThreadInfo("t", "x", at, at, "idle", None, False), **values)


@pytest.mark.parametrize(
    ("policy", "given", "reason"),
    [
        (MONTH, thread(31), "idle for the ttl of 30 days, 0:00:00"),
        (MONTH, thread(30), "idle for the ttl of 30 days, 0:00:00"),
        (MONTH, thread(29.99), "active"),
        (MONTH, thread(-5), "active"),
        (MONTH, thread(31, status="running"), "idle for the ttl of 30 days, 0:00:00"),
        (MONTH, thread(31, status="waiting"), "waiting"),
        (MONTH, thread(31, pinned=True), "pinned"),
        (MONTH, thread(31, ttl=40 * 86_400), "active"),
        (MONTH, thread(2, ttl=86_400), "idle for its own ttl of 1 day, 0:00:00"),
        (MONTH, thread(2, ttl=1, pinned=True), "pinned"),
        (MONTH, thread(2, ttl=1, status="waiting"), "waiting"),
        (MONTH, thread(0, ttl=0), "idle for its own ttl of 0:00:00"),
        (MONTH, thread(-1, ttl=-9_999_999), "active"),
        (MONTH, thread(31, ttl=10**11), "no ttl"),
        (MONTH, thread(31, ttl=10**30), "no ttl"),
        (RetentionPolicy(timedelta.max), thread(31), "no ttl"),
        (RetentionPolicy(None), thread(9_999), "no ttl"),
        (RetentionPolicy(None), thread(2, ttl=86_400), "idle for its own ttl of 1 day, 0:00:00"),
        (
            RetentionPolicy(DAY, respect_waiting=False),
            thread(2, status="waiting"),
            "idle for the ttl of 1 day, 0:00:00",
        ),
        (RetentionPolicy(DAY, respect_waiting=False), thread(2, pinned=True), "pinned"),
    ],
)
def test_a_policy_says_what_may_go(policy: RetentionPolicy, given: ThreadInfo, reason: str) -> None:
    decision = policy.judge(given, NOW)
    assert decision.reason == reason
    assert (decision.idle_since is not None) == reason.startswith("idle for")
    assert decision.idle_since is None or given.active_at <= decision.idle_since <= NOW


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
def test_a_ttl_that_is_not_positive_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        RetentionPolicy(ttl)


def test_a_number_is_no_ttl() -> None:
    given: Any = 30
    with pytest.raises(TypeError, match="must be a timedelta or None, not 30"):
        RetentionPolicy(given)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MONTH.ttl = None  # type: ignore[misc]


def test_a_plan_counts_every_thread_once_over_many_pages(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    with store:
        for number in range(2 * PAGE + 3):
            fill(store, f"old {number}", 1)
        fill(store, "pinned", 1)
        store.set_thread("pinned", pinned=True)
        fill(store, "waiting", 1)
        store.set_thread("waiting", status="waiting")
        clock.now += 40 * DAY
        fill(store, "new", 1)
        before = list(sql(store, "SELECT * FROM threads ORDER BY 1"))
        found = plan(store, MONTH)
        assert sql(store, "SELECT * FROM threads ORDER BY 1") == before
    assert found.counts == {"prune": 2 * PAGE + 3, "pinned": 1, "waiting": 1, "active": 1}
    assert {each.thread_id for each in found.decisions} == {f"old {n}" for n in range(2 * PAGE + 3)}
    assert {each.active_at for each in found.decisions} == {START}
    assert found.now == START + 40 * DAY


def test_a_plan_may_look_ahead_but_needs_a_timezone(store: EventStore) -> None:
    fill(store, "a", 1)
    assert plan(store, MONTH).counts == {"prune": 0, "active": 1}
    assert plan(store, MONTH, datetime.now(UTC) + 31 * DAY).counts == {"prune": 1}
    with pytest.raises(ValueError, match="timezone-aware"):
        plan(store, MONTH, datetime(2026, 1, 1))
