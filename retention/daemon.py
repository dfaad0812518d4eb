"""Sweeps in the background, every so often or by the calendar: APScheduler around a sweep.

Promises that one sweep runs at a time, that one which fails is logged and does not end the next
ones, that a database which goes away for a while is waited for, that a store which is closed
ends it with an error in the log, and that after ``stop()`` no thread is half gone and nothing of
this runs any more. Several of these on one database share the work. The blocking kind and the
one for event loops differ in how they wait, and in nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from eventstore import AsyncEventStore, EventStore, StoreClosedError
from eventstore.concurrency import run_sync
from retention.access import expect, usable
from retention.policies import Policies
from retention.sweep import DEFAULT_PACE, PASSING, Pace, SweepReport, asweep, sweep

if TYPE_CHECKING:
    from retention.metrics import Metrics

log = logging.getLogger(__name__)

BACKOFF_S: Final = 1.0
BACKOFF_S_MAX: Final = 60.0

_QUIET: Final = logging.getLogger(f"{__name__}.scheduler")
"""What the scheduler says: errors, and not that a sweep takes longer than its interval."""
_QUIET.setLevel(logging.ERROR)

_JOBS: Final = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}


class _Retention(ABC):
    """What both kinds have in common: when to sweep, and what is made of it."""

    def __init__(
        self,
        policies: Policies,
        tenant: str | None,
        every: timedelta | None,
        cron: str | None,
        jitter: timedelta | None,
        on_report: Callable[[SweepReport], object],
        metrics: Metrics | None,
        stop: threading.Event | asyncio.Event,
    ) -> None:
        if (every is None) == (cron is None):
            raise ValueError("give either every= or cron=")
        if every is not None and every <= timedelta(0):
            raise ValueError(f"every must be longer than nothing, not {every}")
        if jitter is not None and jitter < timedelta(0):
            raise ValueError(f"jitter must be at least nothing, not {jitter}")
        seconds = jitter.total_seconds() if jitter else None
        if every is not None:
            self._trigger: Any = IntervalTrigger(
                seconds=every.total_seconds(), timezone=UTC, jitter=seconds
            )
        else:
            self._trigger = CronTrigger.from_crontab(cron, timezone=UTC)
            self._trigger.jitter = seconds
        self._every = every
        self._policies = usable(policies)
        self._tenant = tenant
        self._on_report = on_report
        self._metrics = metrics
        self._scheduler: Any = None
        self._is_first = True
        self._stop: threading.Event | asyncio.Event = stop

    def _begin(self, make: Callable[[], Any], job: Callable[[], Any]) -> None:
        if self._scheduler is not None:
            raise RuntimeError("retention is running already")
        self._stop.clear()
        self._is_first = True
        self._scheduler = make()
        # The calendar is to be kept to: who says "at three" does not mean now.
        now = {"next_run_time": datetime.now(UTC)} if self._every else {}
        self._scheduler.add_job(job, self._trigger, name="retention", **now)
        self._scheduler.start()

    async def _turn(self) -> None:
        """One sweep; tried again for as long as the database is away."""
        count = 0
        while not self._stop.is_set():
            try:
                report = await self._sweep(self._fresh())
                self._is_first = False
                self._heard(report)
                return
            except Exception as error:
                if self._metrics is not None:
                    self._metrics.failed()
                if isinstance(error, StoreClosedError):
                    log.error(
                        "the store is closed: no more sweeps; call stop() before close()",
                        extra={"tenant": self._tenant},
                    )
                    self._stop.set()
                    if (scheduler := self._scheduler) is not None:
                        scheduler.remove_all_jobs()
                    return
                if not isinstance(error, PASSING):
                    log.exception(
                        "this sweep failed; the next one comes when it is due",
                        extra={"tenant": self._tenant},
                    )
                    return
                longest = min(BACKOFF_S_MAX, BACKOFF_S * 2**count)
                pause = longest * random.uniform(0.5, 1.0)
                count = min(count + 1, 16)
                log.warning(
                    "the database is away, trying again in %.1f s: %s",
                    pause,
                    error,
                    extra={"tenant": self._tenant, "pause_s": pause, "attempt": count},
                )
            await self._wait(pause)

    def _fresh(self) -> timedelta:
        """What was swept less than so long ago is left out: another one of us was there.

        The first time nothing is: the policies may be new.
        """
        if self._is_first:
            return timedelta(0)
        now = datetime.now(UTC)
        following = self._trigger.get_next_fire_time(now, now) if self._every is None else None
        gap = self._every or (following - now if following else timedelta(0))
        return gap / 2

    def _heard(self, report: SweepReport) -> None:
        if self._metrics is not None:
            self._metrics.swept(report)
        log.info(
            "swept: %d pruned, %d trimmed, %d sealed, %d failed",
            report.pruned,
            report.trimmed,
            report.sealed,
            report.failed,
            extra={"tenant": self._tenant, **asdict(report)},
        )
        self._on_report(report)

    @abstractmethod
    async def _sweep(self, fresh: timedelta) -> SweepReport:
        """One sweep, which leaves out what was swept less than so long ago."""

    @abstractmethod
    async def _wait(self, seconds: float) -> None:
        """Wait, unless ``stop()`` is called."""


class BackgroundRetention(_Retention):
    """Keeps policies on a thread of its own, from ``start()`` to ``stop()``. A context manager.

    Args:
        store: stays the caller's; close it after ``stop()``.
        policies: one, or several of which the first that matches a thread counts.
        every: from the start of one sweep to the start of the next; the first begins at once.
        on_report: called after each sweep, on the thread that swept.
        cron: instead of ``every``, when to sweep, as in a crontab: ``"0 3 * * *"``; UTC.
        jitter: sweep up to so much later, at random, so that several do not begin at once.
        all_tenants: not only the store's own threads.
        pace: how much of the database a sweep takes for itself.
        metrics: told of each sweep.

    Raises:
        TypeError: the store is one for event loops.
        ValueError: the schedule or the policies make no sense.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
    """

    def __init__(
        self,
        store: EventStore,
        policies: Policies,
        every: timedelta | None = None,
        on_report: Callable[[SweepReport], object] = lambda report: None,
        *,
        cron: str | None = None,
        jitter: timedelta | None = None,
        all_tenants: bool = False,
        pace: Pace = DEFAULT_PACE,
        metrics: Metrics | None = None,
    ) -> None:
        expect(EventStore, store, "AsyncBackgroundRetention")
        tenant = None if all_tenants else store.tenant
        self._store, self._pace = store, pace
        self._stopping = threading.Event()
        super().__init__(policies, tenant, every, cron, jitter, on_report, metrics, self._stopping)

    def start(self) -> Self:
        """Sweep from now on. Raises ``RuntimeError`` when it is started already."""
        self._begin(
            lambda: BackgroundScheduler(timezone=UTC, job_defaults=_JOBS, logger=_QUIET),
            lambda: run_sync(self._turn()),
        )
        return self

    def stop(self) -> None:
        """Finish what is under way, and return when all is quiet. Harmless when stopped."""
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _sweep(self, fresh: timedelta) -> SweepReport:
        return sweep(
            self._store,
            self._policies,
            should_stop=self._stopping.is_set,
            all_tenants=self._tenant is None,
            pace=self._pace,
            shared=fresh,
        )

    async def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)


class AsyncBackgroundRetention(_Retention):
    """:class:`BackgroundRetention` for event loops: ``async with``, or ``await`` both calls.

    ``on_report`` is called in the event loop.
    """

    def __init__(
        self,
        store: AsyncEventStore,
        policies: Policies,
        every: timedelta | None = None,
        on_report: Callable[[SweepReport], object] = lambda report: None,
        *,
        cron: str | None = None,
        jitter: timedelta | None = None,
        all_tenants: bool = False,
        pace: Pace = DEFAULT_PACE,
        metrics: Metrics | None = None,
    ) -> None:
        expect(AsyncEventStore, store, "BackgroundRetention")
        tenant = None if all_tenants else store.tenant
        self._store, self._pace = store, pace
        self._stopping = asyncio.Event()
        super().__init__(policies, tenant, every, cron, jitter, on_report, metrics, self._stopping)
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> Self:
        """Sweep from now on. Raises ``RuntimeError`` when it is started already."""
        self._begin(
            lambda: AsyncIOScheduler(
                timezone=UTC,
                job_defaults=_JOBS,
                logger=_QUIET,
                event_loop=asyncio.get_running_loop(),
            ),
            self._take_turn,
        )
        return self

    async def stop(self) -> None:
        """Finish what is under way, and return when all is quiet. Harmless when stopped."""
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.pause()
            await self._idle.wait()  # shutting down would cancel it in its middle
            scheduler.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _take_turn(self) -> None:
        self._idle.clear()
        try:
            await self._turn()
        finally:
            self._idle.set()

    async def _sweep(self, fresh: timedelta) -> SweepReport:
        return await asweep(
            self._store,
            self._policies,
            should_stop=self._stopping.is_set,
            all_tenants=self._tenant is None,
            pace=self._pace,
            shared=fresh,
        )

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
