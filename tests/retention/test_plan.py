"""Plans: what would be done at any moment and why, without changing anything."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

import pytest

from eventstore import Event, EventStore
from retention import Match, RetentionPolicy
from tests.eventstore.support import fill, sql
from tests.retention.support import DAY, START, Clock, planned

MONTH = RetentionPolicy(30 * DAY)


def test_every_thread_is_counted_once_over_many_pages(
    timed: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["retention.plan"], "PAGE", 7)
    for number in range(17):
        fill(timed, f"old {number}", 1)
    fill(timed, "pinned", 1)
    timed.pin("pinned", "a lawsuit", "legal")
    fill(timed, "waiting", 1)
    timed.set_thread("waiting", status="waiting")
    clock.now += 40 * DAY
    fill(timed, "new", 1)
    before = sql(timed, "SELECT * FROM threads ORDER BY 1")
    found = planned(timed, MONTH)
    assert sql(timed, "SELECT * FROM threads ORDER BY 1") == before
    assert found.counts == {"prune": 17, "pinned": 1, "waiting": 1, "active": 1}
    assert {each.thread_id for each in found.decisions} == {f"old {n}" for n in range(17)}
    assert {each.active_at for each in found.decisions} == {START}
    assert (found.now, found.tenant, found.policies) == (START + 40 * DAY, "test", (MONTH,))
    keys = [each.thread_key for each in found.decisions]
    assert keys == sorted(keys)


def test_a_decision_says_what_and_why(timed: EventStore, clock: Clock) -> None:
    fill(timed, "chat-1", 3)
    fill(timed, "chat-1", 2, ns="inner")
    clock.now += 40 * DAY
    chat = RetentionPolicy(30 * DAY, "chat", Match(thread_id="chat-*"), archive="memory:///")
    (each,) = planned(timed, [chat]).decisions
    assert (each.action, each.policy, each.archive) == ("prune", "chat", "memory:///")
    assert each.reason == "idle for the ttl of 30 days"
    assert (each.events, each.bytes) == (None, None)
    found = planned(timed, [chat], sizes=True)
    (each,) = found.decisions
    stats = timed.stats("chat-1")
    assert (each.events, each.bytes) == (5, stats.stored_bytes)
    assert found.counts == {"prune": 1, "archive": 1}
    assert (found.events, found.bytes) == ({"prune": 5}, {"prune": stats.stored_bytes})


def test_the_first_policy_that_matches_decides(timed: EventStore, clock: Clock) -> None:
    for thread_id in ("chat-1", "chat-2", "job-1"):
        timed.append(thread_id, [Event(1, "x")], 0, metadata={"case": thread_id[-1]})
    clock.now += 10 * DAY
    policies = [
        RetentionPolicy(name="held", match=Match(metadata={"case": "2"})),
        RetentionPolicy(7 * DAY, "chat", Match(thread_id="chat-*")),
        RetentionPolicy(30 * DAY, "rest"),
    ]
    found = planned(timed, policies)
    assert [(each.thread_id, each.policy) for each in found.decisions] == [("chat-1", "chat")]
    assert found.counts == {"prune": 1, "no limits": 1, "active": 1}
    assert planned(timed, policies[1:2]).counts == {"prune": 2, "no policy": 1}


def test_a_plan_may_look_ahead_but_needs_a_timezone(timed: EventStore, clock: Clock) -> None:
    fill(timed, "a", 1)
    assert planned(timed, MONTH).counts == {"prune": 0, "active": 1}
    assert planned(timed, MONTH, clock.now + 31 * DAY).counts == {"prune": 1}
    with pytest.raises(ValueError, match="timezone-aware"):
        planned(timed, MONTH, datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="expected at least one policy"):
        planned(timed, [])


def test_tenants_do_not_see_each_other_unless_asked_to(blocking: EventStore, clock: Clock) -> None:
    fill(blocking, "a", 1)
    fill(blocking.with_tenant("other"), "a", 2)
    clock.now += 40 * DAY
    assert [each.tenant for each in planned(blocking, MONTH).decisions] == ["test"]
    found = planned(blocking, MONTH, all_tenants=True, sizes=True)
    assert sorted((e.tenant, e.events) for e in found.decisions) == [("other", 2), ("test", 1)]
    assert found.tenant is None
    other = RetentionPolicy(DAY, match=Match(tenant="other"))
    assert planned(blocking, other, all_tenants=True).counts == {"prune": 1, "no policy": 1}


def test_a_shortened_policy_applies_to_old_threads(timed: EventStore, clock: Clock) -> None:
    fill(timed, "a", 1)
    clock.now += 10 * DAY
    assert planned(timed, MONTH).counts == {"prune": 0, "active": 1}
    assert planned(timed, RetentionPolicy(timedelta(days=9))).counts == {"prune": 1}


def test_only_threads_that_a_policy_asks_about_are_looked_into(
    blocking: EventStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan over 100,000 threads reads only their rows, unless a policy limits history."""
    for number in range(5):
        fill(blocking, f"t{number}", 2)
    clock.now += 40 * DAY

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("looked into a thread")

    for name in ("stats", "trim_points", "trim", "seal"):
        monkeypatch.setattr(type(blocking.core), name, refuse)
    policy = RetentionPolicy(
        30 * DAY, max_age=60 * DAY, keep_history_for=50 * DAY, seal_after=50 * DAY
    )
    assert planned(blocking, policy).counts == {"prune": 5}
