"""Plans: which threads would be pruned, trimmed and sealed at a moment, and why. Reads only.

Reads threads page by page; a :class:`Plan` keeps the decisions and counts all other threads. Logs
are read only where a policy limits history or seals it. All other threads are judged by their
rows, which record the last activity to the minute: a sweep, which reads the last event itself,
may spare a few more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from eventstore import (
    AsyncEventStore,
    CorruptEventError,
    EventStore,
    ThreadInfo,
    ThreadNotFoundError,
)
from eventstore.concurrency import run_sync
from eventstore.core.seal import EVENTS_MIN
from eventstore.core.trim import Trimmed
from eventstore.models import ThreadDamage
from retention.decisions import ACTIONS, Decision, to_prune, to_seal, to_trim
from retention.inputs import Store, check_store, moment_of, usable_policies
from retention.policies import Policies, RetentionPolicy
from retention.trimming import find_trim_point
from retention.verdict import Verdict, judge

log = logging.getLogger(__name__)

PAGE: Final = 1_000
"""Threads read at a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done at a moment.

    Attributes:
        tenant: whose threads; ``None`` for all tenants.
        policies: in the order in which they are matched.
        decisions: what would be done, in order of thread keys.
        counts: threads by action (``prune``, ``trim``, ``seal``, and ``archive`` for those that
            would be archived first) or by the reason why nothing happens to them. Threads whose
            history should be trimmed but cannot be are counted under that reason, too, and
            damaged ones as ``damaged``; the log names them.
        events, bytes: how much would be removed or saved, by action; only what was counted.
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
    """Plan what a sweep would do at a moment, past or future; ``None``: now.

    Args:
        all_tenants: include the threads of all tenants, not only the store's.
        sizes: also count events and bytes of threads to prune: one query for each.

    Raises:
        TypeError: the store is an async one: use :func:`aplan`.
        ValueError: ``now`` has no timezone, or the policies contradict each other.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
    """
    check_store(EventStore, store, "aplan")
    return run_sync(_plan(store, policies, now, all_tenants, sizes))


async def aplan(
    store: AsyncEventStore,
    policies: Policies,
    now: datetime | None = None,
    *,
    all_tenants: bool = False,
    sizes: bool = False,
) -> Plan:
    """:func:`plan` for async code."""
    check_store(AsyncEventStore, store, "plan")
    return await _plan(store, policies, now, all_tenants, sizes)


async def _plan(
    store: Store, policies: Policies, now: datetime | None, all_tenants: bool, sizes: bool
) -> Plan:
    checked, at = usable_policies(policies), await moment_of(store, now)
    counts, events, saved = Counter(prune=0), Counter[str](), Counter[str]()
    decisions: list[Decision] = []
    damaged: dict[int, ThreadDamage] = {}

    def note(damage: ThreadDamage) -> None:
        damaged[damage.thread_key] = damage

    async for page in pages(store, all_tenants=all_tenants, on_damage=note):
        for thread in page:
            try:
                found, why = await _decide(store, judge(checked, thread, at), thread, at, sizes)
            except CorruptEventError as error:
                note(ThreadDamage(thread.thread_key, thread.tenant, thread.thread_id, str(error)))
                continue
            decisions += found
            counts[why] += bool(why)
            for each in found:
                counts[each.action] += 1
                counts["archive"] += each.archive is not None
                events[each.action] += each.events or 0
                saved[each.action] += each.bytes or 0
    for damage in damaged.values():
        log.error(
            "cannot plan for a damaged thread: %s",
            damage.problem,
            extra={"tenant": damage.tenant, "thread_id": damage.thread_id},
        )
    counts["damaged"] += len(damaged)
    order = [*dict.fromkeys([*ACTIONS, "archive", *sorted(counts)])]
    shown = {name: counts[name] for name in order if counts[name] or name == "prune"}
    tenant = None if all_tenants else store.tenant
    return Plan(tenant, checked, at, tuple(decisions), shown, +events, +saved)


async def pages(
    store: Store,
    first: int = 0,
    last: int = 2**63 - 1,
    *,
    all_tenants: bool,
    idle_before: datetime | None = None,
    created_before: datetime | None = None,
    with_ttl: bool = False,
    on_damage: Callable[[ThreadDamage], object] | None = None,
) -> AsyncGenerator[list[ThreadInfo], None]:
    """Threads in key order, a page at a time, while others create, change and remove threads."""
    after = None
    while page := await store.concurrency.run(
        store.core.scan(
            first=first,
            last=last,
            after=after,
            limit=PAGE,
            all_tenants=all_tenants,
            idle_before=idle_before,
            created_before=created_before,
            with_ttl=with_ttl,
            on_damage=on_damage,
        )
    ):
        yield page
        after = page[-1].thread_key


async def _decide(
    store: Store, verdict: Verdict, thread: ThreadInfo, at: datetime, sizes: bool
) -> tuple[list[Decision], str]:
    """The decisions for a thread; and why there is none, or why its history stays."""
    policy = verdict.policy
    if policy is None or not (verdict.prune or verdict.trim or verdict.seal):
        return [], verdict.reason
    run, core = store.concurrency.run, store.core.for_tenant(thread.tenant)
    found, why, trimmed = list[Decision](), "", Trimmed()
    try:
        if verdict.prune:
            pruning = to_prune(policy, verdict, thread)
            if sizes:
                stats = await run(core.stats(thread.thread_id))
                size = stats.stored_bytes + stats.snapshot_bytes
                pruning = replace(pruning, events=stats.events, bytes=size)
            return [pruning], ""
        if verdict.trim:
            place = find_trim_point(core, thread.thread_id, policy, at, thread.created_at)
            point, reason = await run(place)
            if point is None:
                why = reason
            else:
                trimmed = await run(core.trim(thread.thread_id, point.seq, dry_run=True))
                trimming = to_trim(policy, thread, point.seq, reason)
                found.append(replace(trimming, events=trimmed.events, bytes=trimmed.bytes))
        if verdict.seal and (sealing := to_seal(policy, thread, at)):
            assert sealing.older_than is not None
            sealed = await run(core.seal(thread.thread_id, sealing.older_than, dry_run=True))
            saved, left = sealed.bytes_before - sealed.bytes_after, sealed.events
            if trimmed.events and left:  # events that are trimmed first are not sealed
                stats = await run(core.stats(thread.thread_id))
                left -= max(0, trimmed.events - stats.sealed_events)
            if left >= EVENTS_MIN:
                saved = saved * left // sealed.events
                found.append(replace(sealing, events=left, bytes=saved))
    except ThreadNotFoundError:
        return [], "gone"
    return found, why or ("" if found else verdict.reason)
