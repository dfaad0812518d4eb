"""What policies say about one thread at one moment. Pure: no clock, no store.

Promises that a pinned thread is left alone, that a waiting thread is not pruned (unless its
policy allows it), that nothing is removed early, and that only the first matching policy counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from eventstore import ThreadInfo
from retention.policies import RetentionPolicy


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies say about a thread, judged by its row alone.

    Attributes:
        policy: the policy that matches; ``None`` if none does.
        reason: why the thread may be pruned; else ``pinned``, ``waiting``, ``active``, ``no ttl``,
            ``no limits`` (the policy sets none) or ``no policy``.
        prune: whether it may be pruned.
        idle_since: prune it only if it has no event after this moment; ``None``: in any case.
        trim, seal: whether there may be events to trim or to seal; the log has to be read to know.
    """

    policy: RetentionPolicy | None
    reason: str
    prune: bool = False
    idle_since: datetime | None = None
    trim: bool = False
    seal: bool = False


def judge(policies: Sequence[RetentionPolicy], thread: ThreadInfo, now: datetime) -> Verdict:
    """The verdict of the first policy that matches a thread."""
    policy = next((each for each in policies if each.match.fits(thread)), None)
    if policy is None:
        return Verdict(None, "no policy")
    if thread.pinned:
        return Verdict(policy, "pinned")
    if not policy.limits:
        return Verdict(policy, "no limits")
    reason = "no ttl"
    if thread.status == "waiting" and policy.respect_pending_interrupts:
        reason = "waiting"
    else:
        if is_older(thread.created_at, policy.max_age, now):
            return Verdict(
                policy, f"older than the max_age of {in_words(policy.max_age)}", prune=True
            )
        idle_since = before(now, _ttl(policy, thread))
        if idle_since is not None and thread.active_at <= idle_since:
            own = "the" if thread.ttl is None else "its own"
            reason = f"idle for {own} ttl of {in_words(_ttl(policy, thread))}"
            return Verdict(policy, reason, prune=True, idle_since=idle_since)
        if idle_since is not None or before(now, policy.max_age) is not None:
            reason = "active"
    # A thread younger than keep_history_for has no history that may be trimmed.
    trim = policy.trims and (
        policy.max_events is not None
        or policy.max_bytes is not None
        or policy.keep_last_checkpoints is not None
        or is_older(thread.created_at, policy.keep_history_for, now)
    )
    seal = is_older(thread.created_at, policy.seal_after, now)
    return Verdict(policy, reason, trim=trim, seal=seal)


def before(now: datetime, duration: timedelta | None) -> datetime | None:
    """The moment that long ago; ``None`` without a duration, or if it precedes the calendar."""
    try:
        return None if duration is None else now - duration
    except OverflowError:
        return None


def is_older(since: datetime, duration: timedelta | None, now: datetime) -> bool:
    """Whether at least this long has passed since a moment; never without a duration."""
    limit = before(now, duration)
    return limit is not None and since <= limit


@lru_cache(100)
def in_words(duration: timedelta | None) -> str:
    """A duration as reasons name it, such as ``30 days`` or ``1:30:00``."""
    return str(duration).removesuffix(", 0:00:00")


def _ttl(policy: RetentionPolicy, thread: ThreadInfo) -> timedelta | None:
    try:
        return policy.ttl if thread.ttl is None else timedelta(seconds=max(0, thread.ttl))
    except OverflowError:  # longer than the calendar, so the thread never expires
        return None
