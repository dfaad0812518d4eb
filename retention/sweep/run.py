"""One sweep from its beginning to its end: which threads it looks at, and in which order.

Promises that the moment at which threads are judged is fixed and recorded when the sweep starts,
and that a sweep may be killed anywhere: the next one first finishes interrupted deletions, and
finds the other threads again. Threads are found in the order of their keys and pruned in that of
their age: threads of the same age lie side by side in the database. What happens to a thread is
in :mod:`retention.sweep.actions`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import run_sync
from eventstore.core.sweeps import SKEW
from eventstore.models import from_micros
from eventstore.retention_models import SLICES
from retention.decisions import Decision, to_prune, to_seal, to_trim
from retention.inputs import Store, check_store, moment_of, usable_policies
from retention.plan import Plan, pages
from retention.policies import Policies, RetentionPolicy
from retention.sweep.actions import DATABASE_ERRORS, Actions
from retention.sweep.leases import SliceLease, claim_lease, new_holder
from retention.sweep.pace import DEFAULT_PACE, Pace, Pacer
from retention.sweep.report import Progress, SweepReport
from retention.verdict import before, judge

log = logging.getLogger(__name__)

RECLAIM_STEPS_MAX: Final = 100_000

DUE_MAX: Final = 50_000
"""Threads that are collected before they are pruned in the order of their age."""

SLICES_AT_ONCE: Final = SLICES // 2
"""Slices that a sweeper claims together: the more, the more of the threads that it prunes lie side
by side. Others find some left."""

_FINISHED: Final = "retention: interrupted, finished later"
"""The reason in tombstones whose deletion did not record one."""


def sweep(
    store: EventStore,
    plan_or_policies: Plan | Policies,
    now: datetime | None = None,
    on_progress: Progress | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    all_tenants: bool = False,
    pace: Pace = DEFAULT_PACE,
    shared: timedelta | None = None,
) -> SweepReport:
    """Prune, trim and seal what the policies allow.

    Args:
        plan_or_policies: with a plan, only the threads that it names are touched.
        now: the moment at which threads are judged; ``None``: now. A plan has its own.
        on_progress: called after each thread; an exception from it ends the sweep.
        should_stop: called between threads, and between the transactions of long work on one;
            the sweep ends early if it returns true.
        all_tenants: sweep the threads of all tenants, not only the store's. A plan has its own.
        shared: share the work with other sweepers of the same threads that pass it, too: skip
            slices that others have claimed, or that were swept less than this long ago.

    Raises:
        TypeError: the store is an async one: use :func:`asweep`.
        ValueError: the plan is for another tenant, or the moment is in the future, where live
            threads would look idle.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
        StoreUnavailableError: the database is gone.
        EventStoreError: the threads cannot be listed.
    """
    check_store(EventStore, store, "asweep")
    one = Sweep(store, plan_or_policies, now, on_progress, should_stop, all_tenants, pace)
    return run_sync(one.run(shared))


async def asweep(
    store: AsyncEventStore,
    plan_or_policies: Plan | Policies,
    now: datetime | None = None,
    on_progress: Progress | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    all_tenants: bool = False,
    pace: Pace = DEFAULT_PACE,
    shared: timedelta | None = None,
) -> SweepReport:
    """:func:`sweep` for async code. If cancelled, it completes the transaction under way."""
    check_store(AsyncEventStore, store, "sweep")
    one = Sweep(store, plan_or_policies, now, on_progress, should_stop, all_tenants, pace)
    return await one.run(shared)


class Sweep:
    """One sweep; takes the arguments of :func:`sweep`."""

    def __init__(
        self,
        store: Store,
        plan_or_policies: Plan | Policies,
        now: datetime | None = None,
        on_progress: Progress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        all_tenants: bool = False,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self._store = store
        plan = self._plan = plan_or_policies if isinstance(plan_or_policies, Plan) else None
        policies = (
            plan_or_policies.policies if isinstance(plan_or_policies, Plan) else plan_or_policies
        )
        self._policies = usable_policies(policies)
        if plan is not None:
            if now is not None:
                raise ValueError("a plan has its own moment; leave now out")
            if plan.tenant not in (None, store.tenant):
                raise ValueError(f"the plan is for tenant {plan.tenant!r}, not {store.tenant!r}")
            all_tenants, now = plan.tenant is None, plan.now
        self._all_tenants = all_tenants
        self._tenant = None if all_tenants else store.tenant
        self._now = now
        self._should_stop = should_stop
        self._stopped = False
        self._on_progress = on_progress
        self._pacer = Pacer(store, pace, self._must_stop)

    async def run(self, shared: timedelta | None) -> SweepReport:
        """Sweep, and record it."""
        began, holder = time.monotonic(), new_holder()
        run, core = self._store.concurrency.run, self._store.core
        self._at = await self._moment()
        self._actions = Actions(
            self._store,
            self._policies,
            self._at,
            self._pacer,
            self._on_progress,
            self._must_stop,
            is_planned=self._plan is not None,
        )
        self._counts = self._actions.counts
        recorded = {
            "policies": [policy.described() for policy in self._policies],
            "tenant": self._tenant,
            "planned": self._plan is not None,
        }
        sweep_id = await run(core.begin_sweep(holder, self._at, recorded))
        await self._finish_deletions()
        if self._plan is not None:
            await self._carry_out(self._plan.decisions)
        elif shared is None:
            await self._sweep_threads(())
        else:
            await self._sweep_slices(holder, shared)
        if not self._must_stop():
            await self._reclaim()
        report = SweepReport(
            self._at,
            **self._counts,
            stopped=self._stopped,
            seconds=time.monotonic() - began,
        )
        counts = {name: value for name, value in asdict(report).items() if name != "now"}
        await run(core.end_sweep(sweep_id, counts))
        return report

    async def _moment(self) -> datetime:
        """The moment at which threads are judged.

        Raises:
            ValueError: it is in the future.
        """
        present = await moment_of(self._store, None)
        at = present if self._now is None else await moment_of(self._store, self._now)
        if at > present:
            raise ValueError(f"cannot sweep as of {at.isoformat()}, which is in the future")
        ahead = from_micros(self._store.core.now_us()) - present
        if abs(ahead) > SKEW:
            log.warning(
                "the clock of this computer is %.0f s %s that of the database, by which retention "
                "goes; set it right: events get their times from it",
                abs(ahead).total_seconds(),
                "ahead of" if ahead > timedelta(0) else "behind",
                extra={"tenant": self._tenant},
            )
        return at

    def _must_stop(self) -> bool:
        """Whether to stop; once true, it stays true."""
        self._stopped = self._stopped or self._should_stop()
        return self._stopped

    async def _finish_deletions(self) -> None:
        """Finish deletions that were interrupted, of this sweep's tenants."""
        core, tenants = self._store.core, [self._store.tenant]
        if self._all_tenants:
            tenants = await self._store.concurrency.run(core.tenants())
        for tenant in tenants:
            if self._must_stop():
                return
            try:
                finishing = core.for_tenant(tenant).until(self._must_stop)
                self._counts["finished"] += await self._pacer.run(
                    finishing.finish_deletions(_FINISHED)
                )
            except DATABASE_ERRORS:
                raise
            except Exception:
                log.exception("cannot finish interrupted deletions", extra={"tenant": tenant})
                self._counts["failed"] += 1

    async def _carry_out(self, decisions: Sequence[Decision]) -> None:
        """Carry out the decisions of a plan."""
        await self._actions.prune([each for each in decisions if each.action == "prune"])
        others = [each for each in decisions if each.action != "prune"]
        for number, each in enumerate(others):
            if self._must_stop():
                self._counts["left"] += len(others) - number
                return
            await self._actions.trim_or_seal(each)

    async def _sweep_slices(self, holder: str, fresh: timedelta) -> None:
        """Claim and sweep slices until none is due that nobody else has claimed."""
        due = before(self._at, fresh) or datetime.min.replace(tzinfo=UTC)
        ahead = timedelta(0)
        for _ in range(SLICES):  # a clock that is set back meanwhile would make all due again
            if self._must_stop():
                break
            leases = await self._claim_some(holder, due)
            if not leases:
                break
            ahead = max(ahead, *(lease.slice.ahead for lease in leases))
            swept: Collection[SliceLease] = ()  # until they are swept to their end, for others
            try:
                swept = await self._sweep_threads(leases)
            finally:
                for lease in leases:
                    await lease.release(self._at if lease in swept else None)
        if ahead:
            log.warning(
                "the last sweep is recorded %.0f s in the future: a clock was wrong, then or now; "
                "what it claims to have swept was swept again",
                ahead.total_seconds(),
                extra={"tenant": self._tenant},
            )

    async def _claim_some(self, holder: str, due: datetime) -> list[SliceLease]:
        leases: list[SliceLease] = []
        while len(leases) < SLICES_AT_ONCE:
            lease = await claim_lease(self._store, holder, due, all_tenants=self._all_tenants)
            if lease is None or any(lease.slice == each.slice for each in leases):
                break
            leases.append(lease)
        return leases

    async def _sweep_threads(self, leases: Sequence[SliceLease]) -> Collection[SliceLease]:
        """Sweep the threads of leased slices, or all; returns the slices that were swept."""
        held = list(leases)

        async def renew() -> None:
            for lease in tuple(held):
                if not await lease.renew():
                    held.remove(lease)

        due: list[Decision] = []  # threads to prune
        for lease in leases or (None,):
            found = pages(
                self._store,
                *((lease.slice.first_key, lease.slice.last_key) if lease else ()),
                all_tenants=self._all_tenants,
                on_damage=self._actions.fail_damaged,
                **_conditions(self._policies, self._at),
            )
            async with aclosing(found):
                async for page in found:
                    await renew()
                    if lease and lease not in held:
                        break
                    due += await self._sweep_page(page)
                    if len(due) >= DUE_MAX:
                        await self._actions.prune(due, renew)
                        due.clear()
                    if self._must_stop():
                        self._counts["left"] += len(due)
                        return ()
        await self._actions.prune(due, renew)
        return () if self._must_stop() else held

    async def _sweep_page(self, page: Sequence[ThreadInfo]) -> list[Decision]:
        """Trim and seal threads; returns those to prune."""
        due = list[Decision]()
        for thread in page:
            verdict = judge(self._policies, thread, self._at)
            policy = verdict.policy
            if policy is None:
                continue
            if verdict.prune:
                due.append(to_prune(policy, verdict, thread))
                continue
            if not (verdict.trim or verdict.seal) or self._must_stop():
                continue
            if verdict.trim:
                await self._actions.trim_or_seal(to_trim(policy, thread, None, ""))
            if verdict.seal and (sealing := to_seal(policy, thread, self._at)):
                await self._actions.trim_or_seal(sealing)
        return due

    async def _reclaim(self) -> None:
        """Shrink an SQLite file step by step."""
        pace = self._pacer.pace
        try:
            async with self._store.core.in_rounds():
                for _ in range(RECLAIM_STEPS_MAX):
                    reclaim = self._store.core.reclaim(pace.bytes, pace.seconds)
                    freed = await self._pacer.run(reclaim)
                    self._counts["reclaimed"] += freed
                    if not freed or self._must_stop():
                        return
        except DATABASE_ERRORS:
            raise
        except Exception:
            log.exception("cannot reclaim free space", extra={"tenant": self._tenant})
            self._counts["failed"] += 1


def _conditions(policies: Sequence[RetentionPolicy], at: datetime) -> dict[str, Any]:
    """Conditions that every thread of interest meets, for the database to select by."""
    if any(policy.trims or policy.seal_after for policy in policies):
        return {}
    idle = [moment for policy in policies if (moment := before(at, policy.ttl))]
    created = [moment for policy in policies if (moment := before(at, policy.max_age))]
    return {
        "idle_before": max(idle, default=None),
        "created_before": max(created, default=None),
        "with_ttl": True,
    }
