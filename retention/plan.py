"""What would be pruned, trimmed and sealed now, and why. Reads, and touches nothing.

Threads are read a page at a time; a :class:`Plan` keeps what would be done and counts the rest.
Only threads whose policy limits their history, or seals it, are looked into; all others are
judged by their rows, which tell the last activity to the minute: a sweep, which looks at the
last event, may spare a few more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from eventstore import AsyncEventStore, EventStore, ThreadInfo, ThreadNotFoundError
from eventstore.concurrency import run_sync
from eventstore.core.seal import EVENTS_MIN
from eventstore.core.trim import Trimmed
from retention.access import Access, expect, usable
from retention.policies import (
    ACTIONS,
    Action,
    Policies,
    RetentionPolicy,
    Verdict,
    before,
    judge,
    promised,
    promises_less,
)

if TYPE_CHECKING:
    from eventstore.core.core import Core
    from eventstore.core.trim import TrimPoint

PAGE: Final = 1_000
"""Threads read at a time."""

NOWHERE: Final = "no snapshot to trim at"
"""Why a thread keeps more history than its policy asks for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to do to one thread.

    Attributes:
        active_at: of its last event, to the minute.
        policy: the name of the one that asks for it.
        action: ``prune``, ``trim`` or ``seal``.
        reason: why.
        idle_since: prune it if it has no event after this moment; ``None``: whatever it has.
        seq: trim the root's log up to this one.
        older_than: seal events from before this moment.
        archive: where it is written to first.
        events, bytes: how much would go (or, of ``seal``, be packed, and saved); ``None``: not
            counted. A ``seal`` beside a ``trim``: about.
    """

    thread_id: str
    tenant: str
    thread_key: int
    status: str
    active_at: datetime
    policy: str
    action: Action
    reason: str
    idle_since: datetime | None = None
    seq: int | None = None
    older_than: datetime | None = None
    archive: str | None = None
    events: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done at a moment.

    Attributes:
        tenant: whose threads; ``None``: everybody's.
        policies: in the order in which they were asked.
        decisions: what would be done, in the order of the threads' keys.
        counts: threads by what happens to them (``prune``, ``trim``, ``seal``; ``archive`` of
            those that would be archived first), or by why nothing does; and by why history
            stays that should go, whatever else happens to them.
        events, bytes: what would go or be saved, by what happens; only what was counted.
    """

    tenant: str | None
    policies: tuple[RetentionPolicy, ...]
    now: datetime
    decisions: tuple[Decision, ...]
    counts: Mapping[str, int]
    events: Mapping[str, int]
    bytes: Mapping[str, int]


def plan(
    store: EventStore,
    policies: Policies,
    now: datetime | None = None,
    *,
    all_tenants: bool = False,
    sizes: bool = False,
) -> Plan:
    """Say what would be done at a moment of the past or the future; ``None``: now.

    Args:
        all_tenants: not only of the store's own.
        sizes: count events and bytes of what would be pruned, too: a query for each thread.

    Raises:
        TypeError: the store is one for event loops: see :func:`aplan`.
        ValueError: ``now`` has no timezone; or the policies make no sense together.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
    """
    expect(EventStore, store, "aplan")
    return run_sync(planning(Access(store), usable(policies), now, all_tenants, sizes))


async def aplan(
    store: AsyncEventStore,
    policies: Policies,
    now: datetime | None = None,
    *,
    all_tenants: bool = False,
    sizes: bool = False,
) -> Plan:
    """:func:`plan` for event loops."""
    expect(AsyncEventStore, store, "plan")
    return await planning(Access(store), usable(policies), now, all_tenants, sizes)


async def planning(
    access: Access,
    policies: tuple[RetentionPolicy, ...],
    now: datetime | None,
    all_tenants: bool,
    sizes: bool,
) -> Plan:
    """A plan, by blocking or by awaiting."""
    at = access.moment(now)
    counts, events, saved = Counter(prune=0), Counter[str](), Counter[str]()
    decisions: list[Decision] = []
    async for page in pages(access, all_tenants=all_tenants):
        for thread in page:
            verdict = judge(policies, thread, at)
            found, why = await decide(access, verdict, thread, at, sizes)
            decisions += found
            counts[why] += bool(why)
            for each in found:
                counts[each.action] += 1
                counts["archive"] += each.archive is not None
                events[each.action] += each.events or 0
                saved[each.action] += each.bytes or 0
    tenant = None if all_tenants else access.store.tenant
    # What is done first, and then why the others stay.
    order = [*dict.fromkeys([*ACTIONS, "archive", *sorted(counts)])]
    said = {name: counts[name] for name in order if counts[name] or name == "prune"}
    return Plan(tenant, policies, at, tuple(decisions), said, +events, +saved)


async def pages(
    access: Access,
    first: int = 0,
    last: int = 2**63 - 1,
    *,
    all_tenants: bool,
    idle_before: datetime | None = None,
    created_before: datetime | None = None,
    with_ttl: bool = False,
) -> AsyncGenerator[list[ThreadInfo], None]:
    """Threads in the order of their keys, while threads come, go and move."""
    after = None
    while page := await access.do(
        access.core.scan(
            first=first,
            last=last,
            after=after,
            limit=PAGE,
            all_tenants=all_tenants,
            idle_before=idle_before,
            created_before=created_before,
            with_ttl=with_ttl,
        )
    ):
        yield page
        after = page[-1].thread_key


async def decide(
    access: Access, verdict: Verdict, thread: ThreadInfo, at: datetime, sizes: bool
) -> tuple[list[Decision], str]:
    """What is to be done to a thread; and why nothing is, or why history stays."""
    policy = verdict.policy
    if policy is None or not (verdict.prune or verdict.trim or verdict.seal):
        return [], verdict.reason
    core, why, gone = access.of(thread.tenant), "", Trimmed()
    found = []
    try:
        if verdict.prune:
            pruning = to_prune(policy, verdict, thread)
            if sizes:
                stats = await access.do(core.stats(thread.thread_id))
                size = stats.stored_bytes + stats.snapshot_bytes
                pruning = replace(pruning, events=stats.events, bytes=size)
            return [pruning], ""
        if verdict.trim:
            place = place_to_trim(core, thread.thread_id, policy, at, thread.created_at)
            point, said = await access.do(place)
            if point is None:
                why = said
            else:
                gone = await access.do(core.trim(thread.thread_id, point.seq, dry_run=True))
                trimming = to_trim(policy, thread, point.seq, said)
                found.append(replace(trimming, events=gone.events, bytes=gone.bytes))
        if verdict.seal and (sealing := to_seal(policy, thread, at)):
            assert sealing.older_than is not None
            packed = core.seal(thread.thread_id, sealing.older_than, dry_run=True)
            sealed = await access.do(packed)
            saved, left = sealed.bytes_before - sealed.bytes_after, sealed.events
            if gone.events and left:  # what is trimmed first is not there to be sealed
                stats = await access.do(core.stats(thread.thread_id))
                left -= max(0, gone.events - stats.sealed_events)
            if left >= EVENTS_MIN:
                saved = saved * left // sealed.events
                found.append(replace(sealing, events=left, bytes=saved))
    except ThreadNotFoundError:
        return [], "gone"
    return found, why or ("" if found else verdict.reason)


def to_prune(policy: RetentionPolicy, verdict: Verdict, thread: ThreadInfo) -> Decision:
    """That a thread is to be pruned."""
    idle_since, archive = verdict.idle_since, policy.archive
    return _decision(
        policy, thread, "prune", verdict.reason, idle_since=idle_since, archive=archive
    )


def to_trim(policy: RetentionPolicy, thread: ThreadInfo, seq: int | None, reason: str) -> Decision:
    """That a thread is to be trimmed; ``None``: where is to be looked up."""
    return _decision(policy, thread, "trim", reason, seq=seq, archive=policy.archive)


def to_seal(policy: RetentionPolicy, thread: ThreadInfo, at: datetime) -> Decision | None:
    """That a thread is to be sealed, if anything ever is old enough. Nothing goes by it."""
    older_than = before(at, policy.seal_after)
    if older_than is None:
        return None
    reason = f"older than the seal_after of {policy.seal_after}"
    return _decision(policy, thread, "seal", reason, older_than=older_than)


def _decision(
    policy: RetentionPolicy, thread: ThreadInfo, action: Action, reason: str, **values: Any
) -> Decision:
    return Decision(
        thread.thread_id,
        thread.tenant,
        thread.thread_key,
        thread.status,
        thread.active_at,
        policy.name,
        action,
        reason,
        **values,
    )


# --- where to trim ----------------------------------------------------------------------


async def place_to_trim(
    core: Core,
    thread_id: str,
    policy: RetentionPolicy,
    at: datetime,
    created_at: datetime | None = None,
) -> tuple[TrimPoint | None, str]:
    """Where to trim a thread, and why; or ``None``, and why not, if that is worth saying.

    Args:
        created_at: of the thread, if somebody wants to know why not.
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
                point, reason = fitting, _said(policy, excess)
    if point is not None:
        return point, reason
    if points or created_at is None:
        return None, ""
    stays = any(excess) or (
        promises_less(policy, created_at, at)
        # Before the base of a log nothing is left, and the base itself is a snapshot.
        and not (await core.trim(thread_id, 0, dry_run=True)).base
    )
    return None, NOWHERE if stays else ""


async def _fitting(
    core: Core, thread_id: str, points: Sequence[TrimPoint], excess: tuple[int, int]
) -> TrimPoint:
    """The oldest place where trimming takes so much away; if none does, the newest."""
    low, high = 0, len(points) - 1
    while low < high:  # the later the place, the more goes
        middle = (low + high) // 2
        goes = await core.trim(thread_id, points[middle].seq, dry_run=True)
        if goes.events >= excess[0] and goes.bytes >= excess[1]:
            high = middle
        else:
            low = middle + 1
    return points[low]


def _over(number: int, limit: int | None) -> int:
    return 0 if limit is None else max(0, number - limit)


def _said(policy: RetentionPolicy, excess: tuple[int, int]) -> str:
    limits = (f"max_events of {policy.max_events}", f"max_bytes of {policy.max_bytes}")
    over = [limit for limit, more in zip(limits, excess, strict=True) if more]
    return f"more than the {' and the '.join(over)}"
