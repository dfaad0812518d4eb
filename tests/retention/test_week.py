"""Daemons through a week: clocks that are wrong and jump, computers that sleep, and outages.

Time is simulated (see `simulated.py`), the rest is real. PostgreSQL's own clock is simulated by a
function of that name, which a search path puts before the built-in one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import make_url

from eventstore import Event, EventStore
from retention import Match, Pace, RetentionPolicy, SweepReport
from retention.metrics import Metrics
from retention.schedule import schedule_of
from tests.effort import effort
from tests.retention.simulated import Computer, SimulatedRetention, World
from tests.retention.support import DAY, START, names

pytestmark = pytest.mark.slow

HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
THREADS: Final = effort(60, 120)


class Week:
    """Threads that are due in the course of a week, and the daemons that prune them.

    Attributes:
        every: how often each daemon sweeps.
        late_max: how long after it is due a thread is pruned; it is looked every ten minutes.
    """

    def __init__(self, world: World, url: str, archive: Path, every: timedelta = HOUR) -> None:
        self.world, self.url = world, url
        self.every, self.late_max = every, every + 15 * MINUTE
        self.policies = [
            RetentionPolicy(
                name="kept",
                match=Match(thread_id="kept-*"),
                ttl=timedelta.max,
                archive=f"file://{archive}",
            ),
            RetentionPolicy(name="rest", ttl=timedelta.max),
        ]
        self.due: dict[str, datetime] = {}
        self.pruned: dict[str, datetime] = {}
        self.reports: list[SweepReport] = []
        self.outages: list[tuple[datetime, datetime]] = []
        self.daemons: list[tuple[Computer, Metrics]] = []
        self._stack = ExitStack()
        self._observer = self._stack.enter_context(EventStore(url, clock=lambda: world.true))
        self._observer.setup()
        self._fill()

    def close(self) -> None:
        self._stack.close()

    def _fill(self) -> None:
        """Threads with a ttl that ends at some time of the week; others that are not due in it."""
        rng = random.Random(7)
        for number in range(THREADS):
            name = f"{'kept-' if number % 4 == 0 else ''}{number:03}"
            ttl = timedelta(seconds=rng.randint(60, 7 * 86_400))
            self._observer.append(name, [Event(1, number)], 0, ttl=ttl)
            self.due[name] = self.world.true + ttl
        for number in range(10):
            self._observer.append(f"later-{number}", [Event(1, number)], 0, ttl=8 * DAY)

    def daemon(self, computer: Computer, **schedule: Any) -> None:
        """Start a daemon on a computer."""
        store = self._stack.enter_context(EventStore(self.url))
        patience = schedule_of(schedule.get("every"), schedule.get("cron"), None).patience
        metrics = computer.within(lambda: Metrics(unhealthy_after=patience))
        daemon = SimulatedRetention(
            self.world,
            computer,
            store,
            self.policies,
            on_report=self.observe,
            metrics=metrics,
            pace=Pace(rest=0),
            **schedule,
        )
        self.daemons.append((computer, metrics))
        daemon.start()

    def observe(self, report: SweepReport) -> None:
        """Note what a sweep has pruned."""
        self.reports.append(report)
        if not report.pruned:
            return
        there = names(self._observer)
        for name in self.due.keys() - there - self.pruned.keys():
            self.pruned[name] = self.world.true

    def outage(self, start: timedelta, end: timedelta, stop: Any, go_on: Any) -> None:
        """Let something be away for some time of the week."""
        self.world.at(START + start, stop)
        self.world.at(START + end, go_on)
        self.outages.append((START + start, START + end))

    def lateness(self, name: str) -> timedelta:
        """How long after it was due a thread was pruned, outages left out."""
        due, pruned = self.due[name], self.pruned[name]
        for start, end in self.outages:
            if start - self.late_max <= due <= end:
                due = end
        return pruned - due

    def check(self, unhealthy: Callable[[Computer, datetime], bool | None]) -> None:
        """Let the week pass, look at each daemon's health every hour, and at what was pruned."""
        wrong = Counter[str]()

        def look() -> None:
            for number, (computer, metrics) in enumerate(self.daemons):
                expected = unhealthy(computer, self.world.true)
                healthy = computer.within(partial(getattr, metrics, "healthy"))
                if expected is not None and healthy == expected:
                    wrong[f"daemon {number} is {healthy=} at {self.world.true - START}"] += 1

        for hour in range(1, 7 * 24):
            self.world.at(START + hour * HOUR, look)
        self.world.run(7 * DAY + 2 * self.late_max)
        assert not wrong
        assert self.pruned.keys() == self.due.keys(), "all that was due, and nothing else"
        assert sum(report.pruned for report in self.reports) == THREADS, "each once"
        assert len(names(self._observer)) == 10
        for name, due in self.due.items():
            assert self.pruned[name] >= due, f"{name} was pruned early"
            assert self.lateness(name) <= self.late_max, f"{name} was pruned late"

    def expected(
        self, away: list[tuple[timedelta, timedelta]], either: list[tuple[timedelta, timedelta]]
    ) -> Callable[[Computer, datetime], bool | None]:
        """Whether a daemon is to be unhealthy: after three turns in an outage, and soon not any
        more after it. ``None``: it may be."""
        late = self.late_max

        def unhealthy(computer: Computer, moment: datetime) -> bool | None:
            passed = moment - START
            if computer.suspended or any(a < passed < b + late for a, b in either):
                return None
            for start, end in away:
                if start < passed <= end + late:
                    return start + 3 * self.every + late < passed < end or None
            return False

        return unhealthy


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("retention.schedule.LOOK", 10 * MINUTE)
    monkeypatch.setattr("retention.daemon.BACKOFF_S_MAX", 600.0)
    monkeypatch.setattr("eventstore.db.transactions.ATTEMPTS", 2)
    monkeypatch.setattr("eventstore.db.transactions.FIRST_ATTEMPTS", 2)
    monkeypatch.setattr("eventstore.db.transactions.PAUSE_S", 0.001)
    monkeypatch.setattr("eventstore.db.sqlite.BUSY_TIMEOUT_S", 0.01)
    return World(monkeypatch)


def test_on_one_computer(world: World, tmp_path: Path) -> None:
    """Its clock is set back and jumps; it sleeps; the database and the archive go away."""
    url, archive = f"sqlite:///{tmp_path}/store.db", tmp_path / "archive"
    with closing(Week(world, url, archive)) as week, EventStore(url) as other:
        computer = Computer(world)
        week.daemon(computer, every=week.every)
        behind = [(10 * HOUR, 20 * HOUR), (26 * HOUR, 27 * HOUR)]
        for (start, end), length in zip(behind, (2 * HOUR, 400 * DAY), strict=True):
            week.outage(start, end, partial(computer.jump, -length), partial(computer.jump, length))
        asleep, shut, locked = ((hour * HOUR, (hour + 9) * HOUR) for hour in (50, 75, 100))
        week.outage(*asleep, partial(computer.suspend, True), partial(computer.suspend, False))
        week.outage(*shut, partial(close_archive, archive), partial(open_archive, archive))
        lock = other.engine.raw_connection()
        week.outage(
            *locked,
            lambda: lock.cursor().execute("BEGIN IMMEDIATE"),
            lambda: lock.cursor().execute("ROLLBACK"),
        )
        week.check(week.expected([locked], [asleep, shut]))
        lock.close()


def test_on_four_computers_of_which_one_has_a_wrong_clock(
    world: World, postgresql_url: str, tmp_path: Path
) -> None:
    """PostgreSQL tells the time for all of them."""
    archive, hours = tmp_path / "archive", effort(2, 1)
    with (
        closing(Server(postgresql_url, world)) as server,
        closing(Week(world, postgresql_url, archive, hours * HOUR)) as week,
    ):
        wrong, sleepy, *right = (Computer(world, timedelta(seconds=each)) for each in range(-2, 2))
        wrong.jump(365 * DAY)
        for computer in (wrong, sleepy, right[0]):
            week.daemon(computer, every=week.every)
        week.daemon(right[1], cron=f"7 */{hours} * * *")
        for hour, days in ((20, -700), (40, 335), (60, 3), (61, -3), (80, 0.1), (120, -0.1)):
            world.at(START + hour * HOUR, partial(wrong.jump, days * DAY))
        for hour in (30, 50, 130):
            world.at(START + hour * HOUR, partial(sleepy.suspend, True))
            world.at(START + (hour + 9) * HOUR, partial(sleepy.suspend, False))
        shut, away = ((hour * HOUR, (hour + 9) * HOUR) for hour in (75, 100))
        week.outage(*shut, partial(close_archive, archive), partial(open_archive, archive))
        week.outage(*away, server.disconnect, server.connect)
        week.check(week.expected([away], [shut]))


def close_archive(archive: Path) -> None:
    """A directory that cannot be used."""
    if archive.exists():
        archive.rename(archive.with_suffix(".away"))
    archive.write_text("no directory")


def open_archive(archive: Path) -> None:
    archive.unlink()
    if archive.with_suffix(".away").exists():
        archive.with_suffix(".away").rename(archive)


class Server:
    """A database on PostgreSQL whose clock shows the true time, and which can be disconnected."""

    def __init__(self, url: str, world: World) -> None:
        self._name = str(make_url(url).database)
        self._conn = psycopg.connect(url, autocommit=True)
        elsewhere = make_url(url).set(database="postgres")
        self._admin = psycopg.connect(
            elsewhere.render_as_string(hide_password=False), autocommit=True
        )
        for statement in (
            "CREATE SCHEMA simulated",
            "CREATE TABLE simulated.clock (shown timestamptz NOT NULL)",
            "INSERT INTO simulated.clock VALUES (now())",
            "CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS 'SELECT shown FROM simulated.clock'",
            f'ALTER DATABASE "{self._name}" SET search_path = public, simulated, pg_catalog',
        ):
            self._conn.execute(statement.encode())
        world.watch(self._show)
        self._show(world.true)

    def _show(self, moment: datetime) -> None:
        self._conn.execute("UPDATE simulated.clock SET shown = %s", [moment])

    def disconnect(self) -> None:
        """End all connections, and accept none."""
        self._accept(False)
        self._conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def connect(self) -> None:
        """Accept connections again."""
        self._accept(True)

    def _accept(self, connections: bool) -> None:
        allowed = "true" if connections else "false"
        self._admin.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS {allowed}'.encode())

    def close(self) -> None:
        self._conn.close()
        self._admin.close()
