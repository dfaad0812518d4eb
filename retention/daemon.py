"""The retention daemon: sweeps in the background, at an interval or by a cron expression.

APScheduler around :mod:`retention.sweep`. Promises that one sweep runs at a time, that a failed
sweep is logged and the next one runs all the same, that a database that is away is retried with
growing pauses, that a closed store ends the daemon with an error in the log, and that after
``stop()`` nothing of it runs any more. Several daemons on one database share the work. The sync
and the async class differ in how they wait, and in nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_SUBMITTED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler

from eventstore import AsyncEventStore, EventStore, StoreClosedError
from eventstore.concurrency import run_sync
from retention.inputs import Store, check_store, usable_policies
from retention.policies import Policies
from retention.schedule import ClockedJobs, schedule_of
from retention.sweep.actions import DATABASE_ERRORS
from retention.sweep.pace import DEFAULT_PACE, Pace
from retention.sweep.report import SweepReport
from retention.sweep.run import Sweep

if TYPE_CHECKING:
    from retention.metrics import Metrics

log = logging.getLogger(__name__)

CHECK_EVERY: Final = timedelta(days=7)
"""How often a daemon runs the database's own check by default."""

BACKOFF_S: Final = 1.0
BACKOFF_S_MAX: Final = 60.0

_SCHEDULER_LOG: Final = logging.getLogger(f"{__name__}.scheduler")
_SCHEDULER_LOG.setLevel(logging.ERROR)  # APScheduler warns of each sweep that outlasts its interval

_JOB_DEFAULTS: Final = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}


class _Daemon(ABC):
    """What the sync and the async daemon share: the schedule, and what a turn does."""

    def __init__(
        self,
        store: Store,
        policies: Policies,
        every: timedelta | None,
        on_report: Callable[[SweepReport], object],
        cron: str | None,
        jitter: timedelta | None,
        all_tenants: bool,
        pace: Pace,
        metrics: Metrics | None,
        check_every: timedelta | None,
        stopping: threading.Event | asyncio.Event,
    ) -> None:
        if check_every is not None and check_every <= timedelta(0):
            raise ValueError(f"check_every must be positive, or None for never, not {check_every}")
        self._trigger = schedule_of(every, cron, jitter)
        self._store = store
        self._every = every
        self._policies = usable_policies(policies)
        self._all_tenants = all_tenants
        self._tenant = None if all_tenants else store.tenant
        self._pace = pace
        self._on_report = on_report
        self._metrics = metrics
        self._check_every = check_every
        self._checked_at: float | None = None
        self._scheduler: Any = None
        self._is_first = True
        self._stop: threading.Event | asyncio.Event = stopping

    def _begin(self, make: Callable[..., Any], job: Callable[[], Any], **options: Any) -> None:
        if self._scheduler is not None:
            raise RuntimeError("this retention daemon is already running")
        self._stop.clear()
        self._is_first = True
        self._scheduler = make(
            timezone=UTC,
            jobstores={"default": ClockedJobs(self._trigger)},
            job_defaults=_JOB_DEFAULTS,
            logger=_SCHEDULER_LOG,
            **options,
        )
        # An interval begins with a sweep at once; a cron expression names its own moments.
        now = {"next_run_time": datetime.now(UTC)} if self._every else {}
        self._scheduler.add_job(job, self._trigger, name="retention", **now)
        self._scheduler.start()
        log.info(
            "retention started: %s, policies %s",
            self._trigger,
            ", ".join(policy.name for policy in self._policies),
            extra={"tenant": self._tenant},
        )

    async def _turn(self) -> None:
        """One sweep; retried while the database is away."""
        attempt = 0
        while not self._stop.is_set():
            try:
                report = await self._sweep()
                self._is_first = False
                self._publish(report)
                await self._check()
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
                if not isinstance(error, DATABASE_ERRORS):
                    log.exception(
                        "this sweep failed; the next one runs when it is due",
                        extra={"tenant": self._tenant},
                    )
                    return
                longest = min(BACKOFF_S_MAX, BACKOFF_S * 2**attempt)
                pause = longest * random.uniform(0.5, 1.0)
                attempt = min(attempt + 1, 16)
                log.warning(
                    "the database is away, trying again in %.1f s: %s",
                    pause,
                    error,
                    extra={"tenant": self._tenant, "pause_s": pause, "attempt": attempt},
                )
            await self._wait(pause)

    def _sweep(self) -> Awaitable[SweepReport]:
        sweep = Sweep(
            self._store,
            self._policies,
            should_stop=self._stop.is_set,
            all_tenants=self._all_tenants,
            pace=self._pace,
        )
        return sweep.run(shared=self._fresh())

    async def _check(self) -> None:
        """Run the database's own check, if it is due: after the first sweep, and then regularly."""
        every, now = self._check_every, time.monotonic()
        if every is None or self._stop.is_set():
            return
        if self._checked_at is not None and now - self._checked_at < every.total_seconds():
            return
        self._checked_at = now
        report = await self._store.core.check_database(self._stop.is_set)
        if self._metrics is not None and report.checked_by is not None:
            self._metrics.checked(report)
        seconds = round(time.monotonic() - now, 3)
        if report.checked_by is None:
            log.info(
                "the database was not checked: %s",
                report.note,
                extra={"tenant": self._tenant, "seconds": seconds},
            )
        elif report.ok:
            log.info(
                "%s of the database found no problem",
                report.checked_by,
                extra={"tenant": self._tenant, "seconds": seconds},
            )
        for problem in report.problems:
            log.error(
                "the database is damaged: %s; run eventstore verify, and restore what it names",
                problem,
                extra={"tenant": self._tenant, "seconds": seconds},
            )

    def _fresh(self) -> timedelta:
        """Slices swept less than this long ago are skipped: another daemon swept them.

        The first sweep skips none, since its policies may be new.
        """
        return timedelta(0) if self._is_first else self._trigger.shortest / 2

    def _publish(self, report: SweepReport) -> None:
        if self._metrics is not None:
            self._metrics.swept(report)
        log.info("swept: %s", report.summary, extra={"tenant": self._tenant, **asdict(report)})
        self._on_report(report)

    @abstractmethod
    async def _wait(self, seconds: float) -> None:
        """Wait that long, or until ``stop()`` is called."""


class BackgroundRetention(_Daemon):
    """Sweeps on a thread of its own, from ``start()`` to ``stop()``. A context manager.

    Args:
        store: the caller closes it, after ``stop()``.
        policies: one policy, or several of which only the first match counts for a thread.
        every: time from the start of one sweep to the start of the next; the first one starts at
            once.
        on_report: called after each sweep, on the thread that swept.
        cron: instead of ``every``: when to sweep, as in a crontab, in UTC: ``"0 3 * * *"``.
            Weekdays are 0 to 7, both 0 and 7 are Sunday, or names; of a day of the month and a
            weekday, either is enough.
        jitter: start each sweep up to this much later, at random, so that several daemons do not
            start together.
        all_tenants: sweep the threads of all tenants, not only the store's.
        pace: how much of the database a sweep takes for itself.
        metrics: counts each sweep.
        check_every: time between the database's own checks of its tables and indexes, which read
            all of it; the first one follows the first sweep. What they find is logged as an error
            and counted. ``None``: never.

    Raises:
        TypeError: the store is an async one: use :class:`AsyncBackgroundRetention`.
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
        check_every: timedelta | None = CHECK_EVERY,
    ) -> None:
        check_store(EventStore, store, "AsyncBackgroundRetention")
        self._stopping = threading.Event()
        super().__init__(
            store,
            policies,
            every,
            on_report,
            cron,
            jitter,
            all_tenants,
            pace,
            metrics,
            check_every,
            self._stopping,
        )
        self._sweeper: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()

    def start(self) -> Self:
        """Start sweeping. Raises ``RuntimeError`` if it is already running."""
        self._begin(BackgroundScheduler, self._take_turn)
        return self

    def stop(self) -> None:
        """Finish the batch under way, and return when nothing runs any more. May be repeated.

        ``on_report`` may call it, too: then nothing runs any more when ``on_report`` returns.
        """
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        within_turn = self._sweeper is threading.current_thread()
        if scheduler is not None:
            scheduler.shutdown(wait=not within_turn)
        if not within_turn:
            self._idle.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _take_turn(self) -> None:
        self._idle.clear()
        self._sweeper = threading.current_thread()
        try:
            run_sync(self._turn())
        finally:
            self._sweeper = None
            self._idle.set()

    async def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)


class AsyncBackgroundRetention(_Daemon):
    """:class:`BackgroundRetention` for async code: ``async with``, or ``await`` both methods.

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
        check_every: timedelta | None = CHECK_EVERY,
    ) -> None:
        check_store(AsyncEventStore, store, "BackgroundRetention")
        self._stopping = asyncio.Event()
        super().__init__(
            store,
            policies,
            every,
            on_report,
            cron,
            jitter,
            all_tenants,
            pace,
            metrics,
            check_every,
            self._stopping,
        )
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> Self:
        """Start sweeping. Raises ``RuntimeError`` if it is already running."""
        loop = asyncio.get_running_loop()
        self._begin(AsyncIOScheduler, self._turn, event_loop=loop)
        # A turn is a task before it has begun, and for a moment after it has ended.
        self._scheduler.add_listener(lambda _: self._idle.clear(), EVENT_JOB_SUBMITTED)
        self._scheduler.add_listener(
            lambda _: self._idle.set(), EVENT_JOB_EXECUTED | EVENT_JOB_ERROR
        )
        return self

    async def stop(self) -> None:
        """Finish the batch under way, and return when nothing runs any more. May be repeated."""
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.pause()
            await self._idle.wait()  # shutting down would cancel a sweep under way
            scheduler.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
