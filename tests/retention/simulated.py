"""Simulated time: computers with clocks of their own, and the retention daemons that run on them.

Everything else is real: the scheduler, the schedules, the daemons, the store and its database. Each
daemon sweeps in the thread of the test when its scheduler would wake up; nothing waits.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

import pytest
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.base import BaseScheduler

from retention.daemon import BackgroundRetention
from retention.schedule import ClockedJobs, Schedule
from tests.retention.support import START


class World:
    """The true time, what happens at which moment, and the computers.

    Attributes:
        running: the computer whose code runs; its clocks are those that the code reads.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, true: datetime = START) -> None:
        self.true = true
        self.computers: list[Computer] = []
        self.running: Computer | None = None
        self._events: list[tuple[datetime, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._watchers: list[Callable[[datetime], object]] = []
        world = self

        class Shown(datetime):
            """What the clock of the computer shows."""

            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return world.running.clock() if world.running else world.true

        for module in (
            "apscheduler.schedulers.base",
            "eventstore.core.part",
            "retention.daemon",
            "retention.schedule",
        ):
            monkeypatch.setattr(f"{module}.datetime", Shown)
        time = SimpleNamespace(
            monotonic=lambda: world.running.steady_s if world.running else 0.0,
            time=lambda: Shown.now().timestamp(),
        )
        monkeypatch.setattr("retention.schedule.time", time)
        monkeypatch.setattr("retention.metrics.time", time)

    def at(self, moment: datetime, event: Callable[[], object]) -> None:
        """Let something happen at a moment."""
        heapq.heappush(self._events, (moment, next(self._numbers), event))

    def watch(self, watcher: Callable[[datetime], object]) -> None:
        """Report each change of the true time."""
        self._watchers.append(watcher)

    def run(self, length: timedelta) -> None:
        """Let time pass."""
        end = self.true + length
        while (moment := self._next()) <= end:
            self.advance(moment)
            for computer in self.computers:
                computer.work_if_due()
        self.advance(end)

    def advance(self, to: datetime) -> None:
        """Let time pass without any daemon working; what happens meanwhile happens."""
        while self._events and self._events[0][0] <= to:
            moment, _, event = heapq.heappop(self._events)
            self._set(moment)
            running, self.running = self.running, None
            event()
            self.running = running
        self._set(to)

    def _set(self, to: datetime) -> None:
        passed, self.true = max(to - self.true, timedelta(0)), max(to, self.true)
        for computer in self.computers:
            if not computer.suspended:
                computer.steady_s += passed.total_seconds()
        if passed:
            for watcher in self._watchers:
                watcher(self.true)

    def _next(self) -> datetime:
        coming = [computer.wakes_at() for computer in self.computers]
        return min([*coming, *(moment for moment, _, _ in self._events[:1])])


class Computer:
    """A computer with one scheduler.

    Attributes:
        ahead: how far its clock is ahead of the true time.
        suspended: whether it sleeps; the clock that nobody sets stands still meanwhile.
        steady_s: what that clock shows.
    """

    def __init__(self, world: World, ahead: timedelta = timedelta(0)) -> None:
        self._world = world
        self.ahead = ahead
        self.suspended = False
        self.steady_s = 0.0
        self._wakes_s = math.inf
        self.scheduler: BaseScheduler | None = None
        world.computers.append(self)

    def clock(self) -> datetime:
        """What its clock shows."""
        return self._world.true + self.ahead

    def jump(self, by: timedelta) -> None:
        """Set its clock."""
        self.ahead += by

    def suspend(self, suspended: bool) -> None:
        """Put it to sleep, or wake it up."""
        self.suspended = suspended

    def within(self, action: Callable[[], Any]) -> Any:
        """Run something on this computer."""
        before, self._world.running = self._world.running, self
        try:
            return action()
        finally:
            self._world.running = before

    def scheduled(self, schedule: Schedule, job: Callable[[], object]) -> Self:
        """Run a job by a schedule on it."""
        scheduler = Stepped(
            timezone=UTC,
            jobstores={"default": ClockedJobs(schedule)},
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
            executors={"default": DebugExecutor()},
        )

        def start() -> None:
            scheduler.add_job(job, schedule)
            scheduler.start()

        self.within(start)
        self.begin(scheduler)
        return self

    def begin(self, scheduler: BaseScheduler) -> None:
        """Let a scheduler, which has been started, work when time passes."""
        self.scheduler, self._wakes_s = scheduler, self.steady_s

    def wakes_at(self) -> datetime:
        """The true time at which its scheduler wakes up."""
        if self.suspended or self._wakes_s == math.inf:
            return datetime.max.replace(tzinfo=UTC)
        left = timedelta(seconds=max(self._wakes_s - self.steady_s, 0.0))
        return self._world.true + left

    def work_if_due(self) -> None:
        """Let the scheduler do what is due, if it wakes up now."""
        if self.scheduler is not None and self.wakes_at() <= self._world.true:
            wait = self.within(self.scheduler._process_jobs)
            self._wakes_s = math.inf if wait is None else self.steady_s + max(wait, 0.001)


class Stepped(BaseScheduler):  # type: ignore[misc]  # APScheduler is not typed
    """A scheduler that works when it is told to."""

    def wakeup(self) -> None:
        """It wakes up by simulated time."""

    def shutdown(self, wait: bool = True) -> None:
        """Stop working."""
        super().shutdown(wait)


class SimulatedRetention(BackgroundRetention):
    """A daemon on a simulated computer."""

    def __init__(self, world: World, computer: Computer, *args: Any, **options: Any) -> None:
        self._world, self._computer = world, computer
        computer.within(lambda: super(SimulatedRetention, self).__init__(*args, **options))

    def start(self) -> Self:
        """Start sweeping, in simulated time."""
        executors = {"default": DebugExecutor()}
        self._computer.within(lambda: self._begin(Stepped, self._take_turn, executors=executors))
        self._computer.begin(self._scheduler)
        return self

    async def _wait(self, seconds: float) -> None:
        self._world.advance(self._world.true + timedelta(seconds=seconds))
