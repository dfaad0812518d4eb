"""Sweeps in the background, now and every so often: APScheduler around :func:`sweep`.

Promises that one sweep runs at a time, that one which fails is logged and does not end the next
ones, and that after ``stop()`` no thread is half gone and nothing of this runs any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from apscheduler.schedulers.background import BackgroundScheduler

from eventstore import EventStore
from retention.policy import RetentionPolicy
from retention.sweep import SweepReport, sweep

log = logging.getLogger(__name__)


class BackgroundRetention:
    """Keeps a policy, from ``start()`` to ``stop()`` or as a context manager.

    Args:
        store: stays the caller's; close it after ``stop()``.
        every: from the start of one sweep to the start of the next.
        on_report: called after each sweep, on the thread that swept.
    """

    def __init__(
        self,
        store: EventStore,
        policy: RetentionPolicy,
        every: timedelta,
        on_report: Callable[[SweepReport], None] = lambda report: None,
    ) -> None:
        if every <= timedelta(0):
            raise ValueError(f"every must be longer than nothing, not {every}")
        self._store, self._policy, self._every = store, policy, every
        self._on_report = on_report
        self._stopping = threading.Event()
        self._scheduler: Any = None

    def start(self) -> Self:
        """Sweep now and from now on. Raises ``RuntimeError`` when it is started already."""
        if self._scheduler is not None:
            raise RuntimeError("retention is running already")
        self._stopping.clear()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        seconds = self._every.total_seconds()
        self._scheduler.add_job(
            self._sweep, "interval", seconds=seconds, next_run_time=datetime.now(UTC)
        )
        self._scheduler.start()
        return self

    def stop(self) -> None:
        """Finish the thread under way, and return when all is quiet. Harmless when stopped."""
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _sweep(self) -> None:
        try:
            report = sweep(self._store, self._policy, should_stop=self._stopping.is_set)
            log.info(
                "swept: %d pruned, %d failed",
                report.pruned,
                report.failed,
                extra={
                    "tenant": self._store.tenant,
                    "finished": report.finished,
                    "pruned": report.pruned,
                    "spared": report.spared,
                    "gone": report.gone,
                    "failed": report.failed,
                },
            )
            self._on_report(report)
        except Exception:
            log.exception(
                "this sweep failed; the next one comes in %s",
                self._every,
                extra={"tenant": self._store.tenant, "every_s": self._every.total_seconds()},
            )
