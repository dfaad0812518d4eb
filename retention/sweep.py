"""Carries out what policies or a plan ask for: finishes, prunes, trims, seals, gives space back.

Promises: the moment that decides is frozen when the sweep starts, and recorded. Each thread is
judged again under the lock that decides its deletion, its last event is looked at there, and what
was to be archived first is in the archive by then, to the last event. A sweep may be killed
anywhere: the next one first ends what was cut short, and finds the rest again. Whatever it
writes, it writes in short transactions with pauses between them. What goes wrong with one
thread is logged and counted, and does not stop the others.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from eventstore import (
    ArchiveUnavailableError,
    AsyncEventStore,
    ConfigurationError,
    EventStore,
    EventStoreError,
    StoreBusyError,
    StoreClosedError,
    StoreUnavailableError,
    ThreadInfo,
    ThreadNotFoundError,
)
from eventstore.concurrency import run_sync
from eventstore.retention_models import Expired, Slice
from retention.access import Access, expect, usable
from retention.archives import Archive
from retention.plan import Decision, Plan, pages, place_to_trim, to_prune, to_seal, to_trim
from retention.policies import Policies, RetentionPolicy, before, judge

log = logging.getLogger(__name__)

T = TypeVar("T")

Outcome = Literal["pruned", "trimmed", "sealed", "spared", "gone", "failed"]

Progress = Callable[[Decision, Outcome], object]

BATCH: Final = 200
"""Threads offered to one transaction; it takes as many as its bounds allow."""

ARCHIVED_BATCH: Final = 10
"""The same of threads that are archived first: what is not taken has changed by the next one."""

PASSING: Final = (StoreBusyError, StoreClosedError, StoreUnavailableError)
"""What is a matter of the whole database, and no thread's."""

LEASE: Final = timedelta(minutes=1)
"""How long a slice stays claimed by a sweeper that is heard of no more."""

REFUSALS_MAX: Final = 3
"""After so many threads in a row that an archive did not take, a sweep asks it no more."""

REST_S_MAX: Final = 1.0

RECLAIM_STEPS_MAX: Final = 100_000

_CUT_SHORT: Final = "retention: cut short, ended later"


class _NoArchive(Exception):
    """An archive cannot be used in this sweep, which is in the log already."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the database a sweep takes for itself.

    Attributes:
        rows: deleted in one transaction, about.
        seconds: that one transaction may take, about.
        rest: pause after each, in multiples of the time that it took; 0: none.
        bytes: of a file, given back in one step at the end.
    """

    rows: int = 2_000
    seconds: float = 0.005
    rest: float = 1.0
    bytes: int = 262_144

    def __post_init__(self) -> None:
        if self.rows < 1 or self.seconds <= 0 or self.rest < 0 or self.bytes < 1:
            raise ValueError(f"a pace has bounds above 0, and a rest of at least 0, not {self}")


DEFAULT_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        now: the moment that decided.
        finished: deletions, cut short earlier, that it ended first.
        pruned, trimmed, sealed: threads removed, cut, packed.
        archived: threads written to an archive first.
        spared: had become active, pinned or waiting, or were given another ttl or policy.
        gone: someone else removed them first.
        failed: errors, all of them in the log.
        left: threads that are known to be due and are still there: failed, or not reached
            when it was asked to stop.
        reclaimed: bytes by which the database's file became smaller.
        stopped: it was asked to stop before it was through.
        seconds: how long it took.
    """

    now: datetime
    finished: int = 0
    pruned: int = 0
    trimmed: int = 0
    sealed: int = 0
    archived: int = 0
    spared: int = 0
    gone: int = 0
    failed: int = 0
    left: int = 0
    reclaimed: int = field(default=0, compare=False)
    stopped: bool = False
    seconds: float = field(default=0.0, compare=False)


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
    """Prune, trim and seal what may be.

    Args:
        plan_or_policies: a plan touches no thread that it does not name.
        now: the moment to judge at; ``None``: now. A plan has its own.
        on_progress: called after each thread; what it raises ends the sweep.
        should_stop: asked between threads.
        all_tenants: not only the store's own threads. A plan says so itself.
        shared: share the work with others who sweep the same threads and say so, too: leave
            to them what they have claimed, and what was swept less than so long ago.

    Raises:
        TypeError: the store is one for event loops: see :func:`asweep`.
        ValueError: the plan is of another tenant, or the moment in the future, where live
            threads look idle.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
        StoreUnavailableError: the database is gone.
        EventStoreError: the threads cannot be listed.
    """
    expect(EventStore, store, "asweep")
    run = _Sweep(Access(store), plan_or_policies, now, on_progress, should_stop, all_tenants, pace)
    return run_sync(run.run(shared))


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
    """:func:`sweep` for event loops. Cancelled, it leaves whole what it has begun."""
    expect(AsyncEventStore, store, "sweep")
    run = _Sweep(Access(store), plan_or_policies, now, on_progress, should_stop, all_tenants, pace)
    return await run.run(shared)


class _Sweep:
    """One sweep under way."""

    def __init__(
        self,
        access: Access,
        given: Plan | Policies,
        now: datetime | None,
        on_progress: Progress | None,
        should_stop: Callable[[], bool],
        all_tenants: bool,
        pace: Pace,
    ) -> None:
        self.access, self.pace = access, pace
        self.on_progress, self.should_stop = on_progress, should_stop
        self.planned = given if isinstance(given, Plan) else None
        self.policies = usable(given.policies if isinstance(given, Plan) else given)
        self.by_name = {policy.name: policy for policy in self.policies}
        if self.planned is not None:
            if now is not None or self.planned.tenant not in (None, access.store.tenant):
                raise ValueError(
                    f"a plan has its own moment, and a tenant: {self.planned.tenant!r}"
                )
            all_tenants, now = self.planned.tenant is None, self.planned.now
        self.all_tenants = all_tenants
        self.at = access.moment(now)
        if self.at > access.moment(None):
            raise ValueError(f"cannot sweep as of {self.at.isoformat()}, which is in the future")
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self.archives: dict[str, Archive | None] = {}  # None: it cannot be used
        self.refusals = Counter[str]()
        self.counts = Counter[str]()
        self.stopped = False

    async def run(self, shared: timedelta | None) -> SweepReport:
        """All of it."""
        began = time.monotonic()
        core = self.access.core
        said = {
            "policies": [policy.described() for policy in self.policies],
            "tenant": self.tenant,
            "planned": self.planned is not None,
        }
        sweep_id = await self.access.do(core.begin_sweep(self.holder, self.at, said))
        await self._finish_deletions()
        if self.planned is not None:
            await self._carry_out(self.planned.decisions)
        elif shared is None:
            await self._sweep_keys()
        else:
            await self._sweep_slices(shared)
        if not self._stop():
            await self._reclaim()
        took = time.monotonic() - began
        report = SweepReport(self.at, **self.counts, stopped=self.stopped, seconds=took)
        await self.access.do(core.end_sweep(sweep_id, _counted(report)))
        return report

    @property
    def tenant(self) -> str | None:
        """Whose threads it sweeps; ``None``: everybody's."""
        return None if self.all_tenants else self.access.store.tenant

    # --- which threads ------------------------------------------------------------------

    async def _finish_deletions(self) -> None:
        tenants = [self.access.store.tenant]
        try:
            if self.all_tenants:
                tenants = await self.access.do(self.access.core.tenants())
            for tenant in tenants:
                if self._stop():
                    return
                ended = self.access.of(tenant).finish_deletions(_CUT_SHORT)
                self.counts["finished"] += await self._paced(ended)
        except PASSING:
            raise
        except Exception:
            log.exception(
                "cannot end the deletions that were cut short", extra={"tenant": self.tenant}
            )
            self.counts["failed"] += 1

    async def _sweep_slices(self, fresh: timedelta) -> None:
        """Slices that wait for a sweep, as long as there are any that nobody else has."""
        core = self.access.core
        due = before(self.at, fresh) or datetime.min.replace(tzinfo=UTC)
        while not self._stop():
            claimed = await self.access.do(
                core.claim_slice(self.holder, LEASE, due, all_tenants=self.all_tenants)
            )
            if claimed is None:
                return
            swept_at = None  # as long as it is not through, others may have it
            try:
                if await self._sweep_keys(claimed):
                    swept_at = self.at
            finally:
                await self.access.do(core.release_slice(claimed, self.holder, swept_at))

    async def _sweep_keys(self, part: Slice | None = None) -> bool:
        """All threads with keys in a slice; false if it was not to be finished."""
        first, last = (part.first_key, part.last_key) if part else (0, 2**63 - 1)
        held_until = time.monotonic() + LEASE.total_seconds() / 3
        found = pages(
            self.access,
            first,
            last,
            all_tenants=self.all_tenants,
            **_conditions(self.policies, self.at),
        )
        async with aclosing(found):
            async for page in found:
                if part and time.monotonic() > held_until:
                    renewed = self.access.core.renew_slice(part, self.holder, LEASE)
                    if not await self.access.do(renewed):
                        return False  # it took so long that another has it by now
                    held_until = time.monotonic() + LEASE.total_seconds() / 3
                await self._page(page)
                if self._stop():
                    return False
        return True

    async def _page(self, page: Sequence[ThreadInfo]) -> None:
        verdicts = [(thread, judge(self.policies, thread, self.at)) for thread in page]
        await self._prune(
            [
                to_prune(verdict.policy, verdict, thread)
                for thread, verdict in verdicts
                if verdict.prune and verdict.policy
            ]
        )
        for thread, verdict in verdicts:
            policy = verdict.policy
            if policy is None or verdict.prune or not (verdict.trim or verdict.seal):
                continue
            if self._stop():
                return
            if verdict.trim:
                await self._guarded(to_trim(policy, thread, None, ""), self._trim)
            if verdict.seal and (sealing := to_seal(policy, thread, self.at)):
                await self._guarded(sealing, self._seal)

    async def _carry_out(self, decisions: Sequence[Decision]) -> None:
        await self._prune([each for each in decisions if each.action == "prune"])
        others = [each for each in decisions if each.action != "prune"]
        for number, each in enumerate(others):
            if self._stop():
                self.counts["left"] += len(others) - number
                return
            await self._guarded(each, self._trim if each.action == "trim" else self._seal)

    # --- one thread, or a few -----------------------------------------------------------

    async def _prune(self, due: Sequence[Decision]) -> None:
        size = ARCHIVED_BATCH if any(each.archive for each in due) else BATCH
        at = 0
        while at < len(due):
            if self._stop():
                self.counts["left"] += len(due) - at
                return
            batch = due[at : at + size]
            if any(each.archive for each in batch):
                at += len(batch)
                await self._prune_archived(batch)
            else:
                at += await self._prune_some(batch)

    async def _prune_archived(self, batch: Sequence[Decision]) -> None:
        """Each written to its archive first; what has changed by then is left alone."""
        ends: dict[int, Mapping[str, int]] = {}

        async def archive(each: Decision) -> tuple[Decision, Outcome] | None:
            if each.archive:
                ends[each.thread_key] = await self._archive(each)
            return None

        for each in batch:
            if each.archive:
                await self._guarded(each, archive)
        ready = [each for each in batch if each.thread_key in ends or not each.archive]
        while ready and not self._stop():
            ready = ready[await self._prune_some(ready, ends) :]
        self.counts["left"] += len(ready)

    async def _prune_some(
        self,
        batch: Sequence[Decision],
        ends: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
    ) -> int:
        """Prune the first of these, as many as fit into a transaction; returns how many."""
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
        keep_if, pace = self._keeper(batch), self.pace
        pruning = self.access.core.prune(
            expired, keep_if=keep_if, rows=pace.rows, seconds=pace.seconds
        )
        try:
            outcomes = await self._paced(pruning)
        except PASSING:
            raise
        except Exception as error:
            if len(batch) == 1:
                self._failed(batch[0], error)
                return 1
            # One of them is to blame: the others go by themselves.
            for each in batch:
                await self._prune_some([each], ends)
            return len(batch)
        for each, outcome in zip(batch, outcomes, strict=False):
            if outcome == "large":
                await self._guarded(
                    each, partial(self._remove, unchanged=ends.get(each.thread_key))
                )
            else:
                self._settle(each, "spared" if outcome == "kept" else outcome)
        return len(outcomes)

    async def _remove(
        self, each: Decision, unchanged: Mapping[str, int] | None
    ) -> tuple[Decision, Outcome]:
        """Prune a thread that is too large for one transaction, or that forks depend on."""
        removed = await self._paced(
            self.access.of(each.tenant).delete_thread(
                each.thread_id,
                f"retention: {each.reason}",
                idle_since=each.idle_since,
                keep_if=self._keeper([each]),
                policy=each.policy,
                unchanged=unchanged,
            )
        )
        return each, "pruned" if removed else "spared"

    def _keeper(self, batch: Sequence[Decision]) -> Callable[[ThreadInfo], bool]:
        """Whether to keep a thread after all: asked under the lock that decides its deletion."""
        due = {each.thread_key: each for each in batch}

        def keep(thread: ThreadInfo) -> bool:
            each, now = due.get(thread.thread_key), judge(self.policies, thread, self.at)
            return (
                each is None  # another one of the same name
                or now.policy is None
                or (now.prune, now.policy.name, now.idle_since)
                != (True, each.policy, each.idle_since)
            )

        return keep

    async def _archive(self, each: Decision) -> Mapping[str, int]:
        """Write a thread to its archive; where its logs ended then."""
        assert each.archive is not None
        archive = await self._opened(each.archive)
        dump = await self.access.do(self.access.of(each.tenant).dump(each.thread_id))
        try:
            archived = await self.access.beside(archive.put, dump)
        except ArchiveUnavailableError as error:
            self.refusals[each.archive] += 1
            if self.refusals[each.archive] < REFUSALS_MAX:
                raise
            raise self._given_up(each.archive, error) from error
        finally:
            dump.close()
        self.refusals[each.archive] = 0
        self.counts["archived"] += 1
        return archived.header.ends

    async def _opened(self, url: str) -> Archive:
        """An archive, opened once."""
        if url not in self.archives:
            try:
                self.archives[url] = await self.access.beside(Archive, url)
            except (ArchiveUnavailableError, ConfigurationError) as error:
                raise self._given_up(url, error) from error
        if (archive := self.archives[url]) is None:
            raise _NoArchive
        return archive

    def _given_up(self, url: str, error: EventStoreError) -> _NoArchive:
        """Ask an archive no more: said once, and not of each of its threads."""
        self.archives[url] = None
        log.error(
            "an archive cannot be used; what should go there stays until the next sweep: %s",
            error,
            extra={"tenant": self.tenant},
        )
        return _NoArchive()

    async def _trim(self, each: Decision) -> tuple[Decision, Outcome] | None:
        core, seq = self.access.of(each.tenant), each.seq
        if seq is None:
            policy = self.by_name[each.policy]
            looked = place_to_trim(core, each.thread_id, policy, self.at)
            point, reason = await self.access.do(looked)
            if point is None:
                return None
            seq, each = point.seq, replace(each, seq=point.seq, reason=reason)
        if each.archive:
            await self._archive(each)

        def keep(thread: ThreadInfo) -> bool:
            now = judge(self.policies, thread, self.at)
            return (thread.thread_key, now.trim, now.policy and now.policy.name) != (
                each.thread_key,
                True,
                each.policy,
            )

        trimmed = await self._paced(
            core.trim(each.thread_id, seq, f"retention: {each.reason}", keep_if=keep)
        )
        return each, "trimmed" if trimmed.events or trimmed.snapshots else "spared"

    async def _seal(self, each: Decision) -> tuple[Decision, Outcome] | None:
        assert each.older_than is not None

        def keep(thread: ThreadInfo) -> bool:
            return thread.pinned or thread.thread_key != each.thread_key

        core = self.access.of(each.tenant)
        sealed = await self._paced(core.seal(each.thread_id, each.older_than, keep_if=keep))
        if sealed.events:
            return each, "sealed"
        return (each, "spared") if self.planned else None

    async def _guarded(
        self,
        decision: Decision,
        work: Callable[[Decision], Awaitable[tuple[Decision, Outcome] | None]],
    ) -> None:
        """Do something to one thread; what goes wrong with it is no matter of the others."""
        try:
            done = await work(decision)
        except PASSING:
            raise
        except ThreadNotFoundError:
            done = decision, "gone"
        except Exception as error:
            self._failed(decision, error)
            return
        if done is not None:
            self._settle(*done)

    def _failed(self, each: Decision, error: Exception) -> None:
        if not isinstance(error, _NoArchive):
            log.error(
                "cannot %s thread %r: %s",
                each.action,
                each.thread_id,
                error,
                exc_info=None if isinstance(error, EventStoreError) else error,
                extra={
                    "tenant": each.tenant,
                    "thread_id": each.thread_id,
                    "policy": each.policy,
                    "action": each.action,
                    "reason": each.reason,
                },
            )
        self.counts["left"] += 1
        self._settle(each, "failed")

    def _settle(self, decision: Decision, outcome: Outcome) -> None:
        self.counts[outcome] += 1
        if self.on_progress is not None:
            self.on_progress(decision, outcome)

    # --- pace ---------------------------------------------------------------------------

    def _stop(self) -> bool:
        """Whether to go no further; once it was told to stop it does not ask again."""
        self.stopped = self.stopped or self.should_stop()
        return self.stopped

    async def _paced(self, operation: Awaitable[T]) -> T:
        """What an operation comes to; and a pause in proportion to it, for others."""
        began = time.monotonic()
        result = await self.access.do(operation)
        rest = self.pace.rest * (time.monotonic() - began)
        if rest:
            await self.access.sleep(min(rest, REST_S_MAX))
        return result

    async def _reclaim(self) -> None:
        """Let the file become smaller, step by step."""
        try:
            for _ in range(RECLAIM_STEPS_MAX):
                freed = await self._paced(self.access.core.reclaim(self.pace.bytes))
                self.counts["reclaimed"] += freed
                if not freed or self._stop():
                    return
        except PASSING:
            raise
        except Exception:
            log.exception("cannot give space back", extra={"tenant": self.tenant})
            self.counts["failed"] += 1


def _conditions(policies: Sequence[RetentionPolicy], at: datetime) -> dict[str, Any]:
    """What is true of every thread that is to be looked at, for the database to choose by."""
    if any(policy.trims or policy.seal_after for policy in policies):
        return {}
    idle = [moment for policy in policies if (moment := before(at, policy.ttl))]
    created = [moment for policy in policies if (moment := before(at, policy.max_age))]
    return {
        "idle_before": max(idle, default=None),
        "created_before": max(created, default=None),
        "with_ttl": True,
    }


def _counted(report: SweepReport) -> dict[str, Any]:
    """A report as JSON has it."""
    return {name: value for name, value in asdict(report).items() if name != "now"}
