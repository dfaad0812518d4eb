"""When to sweep: at an interval, or at the times of a crontab. Triggers for APScheduler.

Owns what a schedule means when a clock is wrong. Promises that a sweep which is due runs once: soon
after the computer was suspended or the clock was set ahead; at its interval, whatever the clock
shows; and not again at a time of a crontab that an adjusted clock shows twice. APScheduler trusts
the clock from one sweep to the next; so :class:`ClockedJobs` looks at it again every half minute.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

log = logging.getLogger(__name__)

LOOK: Final = timedelta(seconds=30)
"""The clock is looked at this often."""

ADJUSTED_MAX: Final = timedelta(hours=3)
"""A clock that was set back by less shows some times twice; one that was set back by more was
wrong before. As in cron."""

MISSED_MAX: Final = 3
"""After so many sweeps in a row that did not succeed, nothing was swept for too long."""

LENGTH_MAX: Final = timedelta(days=36_500)

_SLACK: Final = timedelta(seconds=1)
_TIMES: Final = 100
"""Coming times of a crontab that are looked at for the gaps between them."""

_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def schedule_of(every: timedelta | None, cron: str | None, jitter: timedelta | None) -> Schedule:
    """The schedule for these arguments of a daemon.

    Raises:
        ValueError: they make no sense, or the time never comes.
    """
    if (every is None) == (cron is None):
        raise ValueError("expected either every= or cron=")
    if every is not None and every <= timedelta(0):
        raise ValueError(f"every must be greater than zero, not {every}")
    if jitter is not None and jitter < timedelta(0):
        raise ValueError(f"jitter must not be negative, not {jitter}")
    for name, length in (("every", every), ("jitter", jitter)):
        if length is not None and length > LENGTH_MAX:
            raise ValueError(f"{name} must not exceed {LENGTH_MAX.days:,} days, not {length}")
    if cron is not None:
        return Crontab(cron, jitter or timedelta(0))
    assert every is not None
    return Interval(every, jitter or timedelta(0))


class Schedule(BaseTrigger):  # type: ignore[misc]  # APScheduler is not typed
    """Times at which sweeps begin.

    Attributes:
        shortest: the shortest time from one sweep to the next.
        patience: in this time a sweep succeeds, unless ``MISSED_MAX`` in a row did not.
    """

    shortest: timedelta
    patience: timedelta

    def __init__(self, jitter: timedelta) -> None:
        self.jitter = jitter

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """When the sweep after the ``previous`` one begins. Those that were missed are left out."""
        return self.following(previous, now) + random.uniform(0, 1) * self.jitter

    @abstractmethod
    def following(self, previous: datetime | None, now: datetime) -> datetime:
        """The first time after now, without jitter."""

    @abstractmethod
    def latest(self, previous: datetime | None, since: timedelta, now: datetime) -> datetime:
        """When the coming sweep begins at the latest, as the clock shows now.

        Args:
            previous: when the one before began, as the clock showed then.
            since: how long ago that is by a clock that nobody sets.
        """


class Interval(Schedule):
    """A sweep begins this long after the one before."""

    def __init__(self, every: timedelta, jitter: timedelta) -> None:
        super().__init__(jitter)
        self.shortest, self.patience = every, MISSED_MAX * every + jitter
        self._every = every

    def __str__(self) -> str:
        return f"every {self._every}"

    def following(self, previous: datetime | None, now: datetime) -> datetime:
        """The first time after now that is a multiple of the interval from the previous one."""
        if previous is None or previous > now:
            return now + self._every
        return previous + ((now - previous) // self._every + 1) * self._every

    def latest(self, previous: datetime | None, since: timedelta, now: datetime) -> datetime:
        """When the interval has passed, whatever the clock showed."""
        return now + max(self._every + self.jitter - since, timedelta(0))


class Crontab(Schedule):
    """A sweep begins at the times of a crontab, in UTC: ``"0 3 * * 1-5"``, ``"@daily"``."""

    def __init__(self, cron: str, jitter: timedelta) -> None:
        super().__init__(jitter)
        self._cron = cron
        self._fields = _fields_of(cron)
        try:
            coming = list(itertools.islice(self._after(datetime.now(UTC)), _TIMES))
        except (CronSimError, ValueError) as error:
            if not _lacks_only_its_day(self._fields):
                raise ValueError(f"{_expected(cron)}: {error}") from error
            coming = []
        if len(coming) <= MISSED_MAX:
            raise ValueError(f"cron {cron!r} never comes: none of its months has such a day")
        self.shortest = min(later - earlier for earlier, later in itertools.pairwise(coming))
        spans = zip(coming, coming[MISSED_MAX:], strict=False)
        self.patience = max(later - earlier for earlier, later in spans) + jitter

    def __str__(self) -> str:
        return f"cron {self._cron}"

    def following(self, previous: datetime | None, now: datetime) -> datetime:
        """The first time after now; not again a time that the clock showed before."""
        if previous is not None and now < previous < now + ADJUSTED_MAX:
            now = previous
        return next(self._after(now))

    def latest(self, previous: datetime | None, since: timedelta, now: datetime) -> datetime:
        """The first time after now."""
        return self.following(previous, now) + self.jitter

    def _after(self, moment: datetime) -> Iterator[datetime]:
        return CronSim(" ".join(self._fields), moment)


def _fields_of(cron: str) -> list[str]:
    """The five fields of a crontab's line.

    Raises:
        ValueError: there are not five.
    """
    if not isinstance(cron, str):
        raise ValueError(_expected(cron))
    fields = _NICKNAMES.get(cron.strip().lower(), cron).split()
    if len(fields) != len("mhdMw"):
        raise ValueError(f"{_expected(cron)}: Wrong number of fields: {len(fields)}")
    fields[4] = re.sub("-sun(?![a-z])", "-7", fields[4], flags=re.IGNORECASE)  # "fri-sun"
    return fields


def _expected(cron: object) -> str:
    return (
        "cron must be five fields as in a crontab (minute, hour, day of the month, month, day of "
        f"the week), such as '0 3 * * *', not {cron!r:.100}"
    )


def _lacks_only_its_day(fields: list[str]) -> bool:
    """Whether each field is right by itself, but no month of these has such a day."""
    try:
        for at in (2, 3):
            CronSim(" ".join([*fields[:at], "*", *fields[at + 1 :]]), datetime.now(UTC))
    except (CronSimError, ValueError):
        return False
    return True


class ClockedJobs(MemoryJobStore):  # type: ignore[misc]  # APScheduler is not typed
    """The job of a daemon; it runs when it is due by the clock as that is now.

    APScheduler would sleep until the time that it computed when the job ran last: for a year if
    the clock is set back by a year, and hours too long if the computer is suspended.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule
        self._previous: datetime | None = None
        self._began_s = time.monotonic()

    def get_due_jobs(self, now: datetime) -> list[Any]:
        """The job, if it is due."""
        since = timedelta(seconds=time.monotonic() - self._began_s)
        latest = self._schedule.latest(self._previous, since, now)
        for job in self.get_all_jobs():
            if job.next_run_time - latest > _SLACK:
                log.warning(
                    "the clock was set back: the next sweep begins at %s, not at %s",
                    latest.isoformat(timespec="seconds"),
                    job.next_run_time.isoformat(timespec="seconds"),
                    extra={"due": latest, "was_due": job.next_run_time},
                )
                job.modify(next_run_time=latest)
        due: list[Any] = super().get_due_jobs(now)
        if due:
            self._previous, self._began_s = now, time.monotonic()
        return due

    def get_next_run_time(self) -> datetime | None:
        """When to look at the clock again."""
        due: datetime | None = super().get_next_run_time()
        return due and min(due, datetime.now(UTC) + LOOK)
