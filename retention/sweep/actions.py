"""Pruning, trimming and sealing: carries out decisions about threads and counts the outcomes.

Promises that each thread is judged again under the lock that decides its deletion, where its last
event is read, too; that a thread is in its archive, up to its last event, before anything of it is
removed; and that an error on one thread is logged and counted without stopping the others. Errors
of the whole database (:data:`DATABASE_ERRORS`) are raised.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Final

from eventstore import (
    EventStoreError,
    StoreBusyError,
    StoreClosedError,
    StoreUnavailableError,
    ThreadInfo,
    ThreadNotFoundError,
)
from eventstore.core.core import Core
from eventstore.core.part import Stopped
from eventstore.models import ThreadDamage
from eventstore.retention_models import Expired
from retention.decisions import Decision
from retention.inputs import Store
from retention.policies import RetentionPolicy
from retention.sweep.archiving import ArchiveGivenUp, SweepArchives
from retention.sweep.pace import Pacer
from retention.sweep.report import Progress, SweepOutcome
from retention.trimming import find_trim_point
from retention.verdict import judge

log = logging.getLogger(__name__)

BATCH: Final = 200
"""Threads offered to one transaction; it takes as many as its bounds allow."""

ARCHIVED_BATCH: Final = 10
"""The same for threads that are archived first: the longer they wait, the more have changed."""

DATABASE_ERRORS: Final = (StoreBusyError, StoreClosedError, StoreUnavailableError)
"""Errors that concern the whole database, not one thread."""

Settled = tuple[Decision, SweepOutcome] | None
"""A decision as it was carried out, and its outcome; ``None`` if there was nothing to do."""

_Large = tuple[Decision, Mapping[str, int] | None]
"""A thread to delete by itself, and where its logs must still end if it was archived."""


class Actions:
    """What one sweep does to threads.

    Attributes:
        counts: by the fields of :class:`~retention.SweepReport`.
    """

    def __init__(
        self,
        store: Store,
        policies: Sequence[RetentionPolicy],
        at: datetime,
        pacer: Pacer,
        on_progress: Progress | None,
        must_stop: Callable[[], bool],
        *,
        is_planned: bool,
    ) -> None:
        self.counts = Counter[str]()
        self._store, self._at = store, at
        self._policies = policies
        self._by_name = {policy.name: policy for policy in policies}
        self._pacer = pacer
        self._on_progress = on_progress
        self._must_stop = must_stop
        self._is_planned = is_planned
        self._archives = SweepArchives(store, must_stop)
        self._damaged: set[int] = set()

    # --- prune --------------------------------------------------------------------------

    async def prune(
        self, decisions: Iterable[Decision], between: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Prune threads, batch by batch and the oldest first, until told to stop.

        Those that forks need come last: perhaps the forks have gone by then.

        Args:
            between: called before each batch.
        """
        large: list[_Large] = []
        decisions = sorted(decisions, key=lambda each: (each.active_at, each.thread_key))
        archives = any(each.archive for each in decisions)  # nobody is to wait for them
        async with nullcontext() if archives else self._store.core.in_rounds():
            await self._prune_in_batches(decisions, large, between)
        for number, (decision, unchanged) in enumerate(large):
            if self._must_stop():
                self.counts["left"] += len(large) - number
                return
            if between is not None:
                await between()
            await self._guarded(decision, partial(self._prune_large, unchanged=unchanged))

    async def _prune_in_batches(
        self,
        decisions: Sequence[Decision],
        large: list[_Large],
        between: Callable[[], Awaitable[None]] | None,
    ) -> None:
        size = ARCHIVED_BATCH if any(each.archive for each in decisions) else BATCH
        at = 0
        while at < len(decisions):
            if self._must_stop():
                self.counts["left"] += len(decisions) - at
                return
            if between is not None:
                await between()
            batch = decisions[at : at + size]
            if any(each.archive for each in batch):
                at += len(batch)
                await self._archive_and_prune(batch, large)
            else:
                at += await self._prune_some(batch, large)

    async def _archive_and_prune(self, batch: Sequence[Decision], large: list[_Large]) -> None:
        """Write threads to their archives, then prune those that have not changed since."""
        ends: dict[int, Mapping[str, int]] = {}

        async def archive(decision: Decision) -> Settled:
            if decision.archive:
                ends[decision.thread_key] = await self._archive(decision)
            return None

        for number, each in enumerate(batch):
            if self._must_stop():
                self.counts["left"] += sum(1 for rest in batch[number:] if rest.archive)
                break
            if each.archive:
                await self._guarded(each, archive)
        ready = [each for each in batch if each.thread_key in ends or not each.archive]
        while ready and not self._must_stop():
            ready = ready[await self._prune_some(ready, large, ends) :]
        self.counts["left"] += len(ready)

    async def _prune_some(
        self,
        batch: Sequence[Decision],
        large: list[_Large],
        ends: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
    ) -> int:
        """Prune the first threads of a batch, as many as fit one transaction; returns how many.

        Args:
            large: collects the threads that have to be deleted one by one.
            ends: where the logs of archived threads ended.
        """
        expired = [
            Expired(
                each.thread_key,
                each.idle_since,
                f"retention: {each.reason}",
                each.policy,
                ends.get(each.thread_key),
            )
            for each in batch
        ]
        keep_if, pace = self._keep_if(batch), self._pacer.pace
        pruning = self._store.core.prune(
            expired, keep_if=keep_if, rows=pace.rows, seconds=pace.seconds
        )
        try:
            outcomes = await self._pacer.run(pruning)
        except DATABASE_ERRORS:
            raise
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
                return 1
            # One thread caused it: halves lead to it, and the others go.
            return await self._prune_some(batch[: len(batch) // 2], large, ends)
        for each, outcome in zip(batch, outcomes, strict=False):
            if outcome == "large":
                large.append((each, ends.get(each.thread_key)))
            else:
                self._settle(each, "spared" if outcome == "kept" else outcome)
        return len(outcomes)

    async def _prune_large(
        self, decision: Decision, unchanged: Mapping[str, int] | None
    ) -> Settled:
        """Prune a thread that is too large for one transaction, or that forks depend on."""
        core = self._core(decision.tenant)
        removed = await self._pacer.run(
            core.delete_thread(
                decision.thread_id,
                f"retention: {decision.reason}",
                idle_since=decision.idle_since,
                keep_if=self._keep_if([decision]),
                policy=decision.policy,
                unchanged=unchanged,
            )
        )
        return decision, "pruned" if removed else "spared"

    def _keep_if(self, batch: Sequence[Decision]) -> Callable[[ThreadInfo], bool]:
        """Judges a thread again under the lock that decides its deletion."""
        due = {each.thread_key: each for each in batch}

        def keep(thread: ThreadInfo) -> bool:
            decision = due.get(thread.thread_key)
            now = judge(self._policies, thread, self._at)
            return (
                decision is None  # another thread of the same name
                or now.policy is None
                or (now.prune, now.policy.name, now.idle_since)
                != (True, decision.policy, decision.idle_since)
            )

        return keep

    # --- trim and seal ------------------------------------------------------------------

    async def trim_or_seal(self, decision: Decision) -> None:
        """Trim or seal one thread."""
        await self._guarded(decision, self._trim if decision.action == "trim" else self._seal)

    async def _trim(self, decision: Decision) -> Settled:
        core, seq = self._core(decision.tenant), decision.seq
        if seq is None:
            policy = self._by_name[decision.policy]
            place = find_trim_point(core, decision.thread_id, policy, self._at)
            point, reason = await self._store.concurrency.run(place)
            if point is None:
                return None
            seq, decision = point.seq, replace(decision, seq=point.seq, reason=reason)
        if decision.archive:
            await self._archive(decision)

        def keep(thread: ThreadInfo) -> bool:
            now = judge(self._policies, thread, self._at)
            return (thread.thread_key, now.trim, now.policy and now.policy.name) != (
                decision.thread_key,
                True,
                decision.policy,
            )

        trimmed = await self._pacer.run(
            core.trim(decision.thread_id, seq, f"retention: {decision.reason}", keep_if=keep)
        )
        if trimmed.events or trimmed.snapshots:
            return decision, "trimmed"
        if self._must_stop():
            self.counts["left"] += 1
            return None
        return decision, "spared"

    async def _seal(self, decision: Decision) -> Settled:
        assert decision.older_than is not None

        def keep(thread: ThreadInfo) -> bool:
            return thread.pinned or thread.thread_key != decision.thread_key

        core = self._core(decision.tenant)
        sealed = await self._pacer.run(
            core.seal(decision.thread_id, decision.older_than, keep_if=keep)
        )
        if sealed.events:
            return decision, "sealed"
        if self._must_stop():
            self.counts["left"] += 1
            return None
        return (decision, "spared") if self._is_planned else None

    # --- every action -------------------------------------------------------------------

    def _core(self, tenant: str) -> Core:
        """The store of a tenant, whose long work on one thread ends when the sweep must stop."""
        return self._store.core.for_tenant(tenant).until(self._must_stop)

    def fail_damaged(self, damage: ThreadDamage) -> None:
        """Count a thread that cannot be judged because its row is damaged, and name it."""
        if damage.thread_key in self._damaged:
            return
        self._damaged.add(damage.thread_key)
        self.counts["failed"] += 1
        log.error(
            "cannot sweep a damaged thread: %s",
            damage.problem,
            extra={"tenant": damage.tenant, "thread_id": damage.thread_id},
        )

    async def _archive(self, decision: Decision) -> Mapping[str, int]:
        ends = await self._archives.put(decision)
        self.counts["archived"] += 1
        return ends

    async def _guarded(
        self, decision: Decision, action: Callable[[Decision], Awaitable[Settled]]
    ) -> None:
        """Carry out one decision; an error concerns this thread only."""
        try:
            settled = await action(decision)
        except DATABASE_ERRORS:
            raise
        except Stopped:
            self.counts["left"] += 1
            return
        except ThreadNotFoundError:
            settled = decision, "gone"
        except Exception as error:
            self._fail(decision, error)
            return
        if settled is not None:
            self._settle(*settled)

    def _fail(self, decision: Decision, error: Exception) -> None:
        if not isinstance(error, ArchiveGivenUp):
            log.error(
                "cannot %s thread %r: %s",
                decision.action,
                decision.thread_id,
                error,
                exc_info=None if isinstance(error, EventStoreError) else error,
                extra={
                    "tenant": decision.tenant,
                    "thread_id": decision.thread_id,
                    "policy": decision.policy,
                    "action": decision.action,
                    "reason": decision.reason,
                },
            )
        self.counts["left"] += 1
        self._settle(decision, "failed")

    def _settle(self, decision: Decision, outcome: SweepOutcome) -> None:
        self.counts[outcome] += 1
        if self._on_progress is not None:
            self._on_progress(decision, outcome)
