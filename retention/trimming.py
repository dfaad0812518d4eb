"""Where to trim a thread so that its policy holds: chooses among the log's trim points.

Reads, and changes nothing. ``keep_…`` fields choose the newest point that still keeps what they
promise; ``max_…`` fields the oldest point at which the thread fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from eventstore.core.core import Core
from eventstore.core.trim import TrimPoint
from retention.policies import RetentionPolicy
from retention.verdict import before, is_older

NO_SNAPSHOT: Final = "no snapshot to trim at"
"""Why a thread keeps more history than its policy allows."""


async def find_trim_point(
    core: Core,
    thread_id: str,
    policy: RetentionPolicy,
    at: datetime,
    created_at: datetime | None = None,
) -> tuple[TrimPoint | None, str]:
    """Where to trim a thread, and why; or ``None``, and why its history stays (else ``""``).

    Args:
        created_at: when the thread was created; without it no reason is looked up.
    """
    points, excess = await core.trim_points(thread_id), (0, 0)
    point, reason = promised(policy, points, at), "older than the history that is kept"
    if policy.max_events is not None or policy.max_bytes is not None:
        stats = await core.stats(thread_id)
        size = stats.stored_bytes + stats.snapshot_bytes
        excess = _over(stats.events, policy.max_events), _over(size, policy.max_bytes)
        if any(excess) and points:
            fitting = await _fitting(core, thread_id, points, excess)
            if point is None or fitting.seq > point.seq:
                point, reason = fitting, _exceeded(policy, excess)
    if point is not None:
        return point, reason
    if points or created_at is None:
        return None, ""
    should_trim = any(excess) or (
        _lets_history_go(policy, created_at, at)
        # A log that begins at its base has no earlier history; the base itself is a snapshot.
        and not (await core.trim(thread_id, 0, dry_run=True)).base
    )
    return None, NO_SNAPSHOT if should_trim else ""


def promised(
    policy: RetentionPolicy, points: Sequence[TrimPoint], now: datetime
) -> TrimPoint | None:
    """The newest trim point that keeps what ``keep_…`` promise; ``None`` if there is none.

    Args:
        points: oldest first. A point without a ``step`` may not be a checkpoint.
    """
    if policy.keep_history_for is None and policy.keep_last_checkpoints is None:
        return None
    found = list(points)
    if policy.keep_history_for is not None:
        limit = before(now, policy.keep_history_for)
        found = [each for each in found if limit is not None and each.recorded_at <= limit]
    if policy.keep_last_checkpoints is not None:
        # The log may hold more checkpoints than the last point counts: then more are kept.
        last = max((each.step for each in points if each.step is not None), default=0)
        spare = last - policy.keep_last_checkpoints + 1
        found = [each for each in found if each.step is not None and each.step <= spare]
    return found[-1] if found else None


def _lets_history_go(policy: RetentionPolicy, created_at: datetime, now: datetime) -> bool:
    """Whether ``keep_…`` allow a thread's first history to be trimmed."""
    if policy.keep_history_for is not None:
        return is_older(created_at, policy.keep_history_for, now)
    return policy.keep_last_checkpoints is not None


async def _fitting(
    core: Core, thread_id: str, points: Sequence[TrimPoint], excess: tuple[int, int]
) -> TrimPoint:
    """The oldest point at which trimming removes the excess; else the newest point."""
    low, high = 0, len(points) - 1
    while low < high:  # later points remove more
        middle = (low + high) // 2
        removed = await core.trim(thread_id, points[middle].seq, dry_run=True)
        if removed.events >= excess[0] and removed.bytes >= excess[1]:
            high = middle
        else:
            low = middle + 1
    return points[low]


def _over(number: int, limit: int | None) -> int:
    return 0 if limit is None else max(0, number - limit)


def _exceeded(policy: RetentionPolicy, excess: tuple[int, int]) -> str:
    limits = (f"max_events of {policy.max_events}", f"max_bytes of {policy.max_bytes}")
    over = [limit for limit, more in zip(limits, excess, strict=True) if more]
    return f"more than the {' and the '.join(over)}"
