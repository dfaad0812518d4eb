"""What would be pruned now, and why. Reads, and touches nothing.

Threads are read a page at a time; a :class:`Plan` keeps the decisions to prune and counts the
rest. A thread's row tells its last activity to the minute: a sweep, which looks at the last
event, may spare a few more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from eventstore import EventStore
from eventstore.events import from_micros
from retention.policy import Decision, RetentionPolicy

PAGE: Final = 256
"""Threads read at a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be pruned at a moment.

    Attributes:
        decisions: the threads that would go, the most recently active first.
        counts: threads by what happens to them: ``prune``, or the reason why they stay.
    """

    tenant: str
    policy: RetentionPolicy
    now: datetime
    decisions: tuple[Decision, ...]
    counts: Mapping[str, int]


def plan(store: EventStore, policy: RetentionPolicy, now: datetime | None = None) -> Plan:
    """Say what would go at a moment of the past or the future; ``None``: now."""
    at = moment(store, now)
    counts, expired = Counter(prune=0), []
    for each in decide(store, policy, at):
        counts["prune" if each.idle_since else each.reason] += 1
        if each.idle_since:
            expired.append(each)
    return Plan(store.tenant, policy, at, tuple(expired), dict(counts))


def moment(store: EventStore, now: datetime | None) -> datetime:
    """The moment that was meant, in UTC; without one, what the store's clock says."""
    if now is not None and now.tzinfo is None:
        raise ValueError(f"now must be timezone-aware, not {now!r}")
    return now.astimezone(UTC) if now else from_micros(store.now_us())


def decide(store: EventStore, policy: RetentionPolicy, now: datetime) -> Iterator[Decision]:
    """What the policy says about each thread, while threads come, go and move."""
    after = None
    while page := store.threads(after=after, limit=PAGE):
        yield from (policy.judge(thread, now) for thread in page)
        after = page[-1]
