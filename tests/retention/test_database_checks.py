"""The daemon runs the database's own check now and then, and tells what it found."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from eventstore import EventStore
from retention import RetentionPolicy, SweepReport
from retention.daemon import AsyncBackgroundRetention, BackgroundRetention
from retention.metrics import Metrics
from tests import awaited
from tests.eventstore.support import fill
from tests.retention.support import DAY

SOON: Final = timedelta(milliseconds=20)
MONTH: Final = RetentionPolicy(30 * DAY)
SECONDS_MAX: Final = 60.0


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == level]


def until(found: Callable[[], object]) -> None:
    ends = time.monotonic() + SECONDS_MAX
    while not found() and time.monotonic() < ends:
        time.sleep(0.01)
    assert found()


def test_damage_is_logged_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    path = tmp_path / "runs.db"
    with EventStore(path) as store:
        fill(store, "a", 3)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA foreign_keys = OFF")
    raw.execute("DELETE FROM threads")
    raw.close()
    with (
        EventStore(path) as store,
        BackgroundRetention(store, MONTH, SOON, metrics=metrics),
    ):
        until(lambda: told(caplog, logging.ERROR))
    (problem,) = told(caplog, logging.ERROR)
    assert "the database is damaged: foreign_key_check: 3 rows of events" in problem
    assert metrics.registry.get_sample_value("retention_database_problems") == 1
    assert metrics.registry.get_sample_value("retention_last_check_timestamp_seconds")


@pytest.mark.slow
def test_it_is_checked_as_often_as_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reports: queue.Queue[SweepReport] = queue.Queue()

    def checks(check_every: timedelta | None) -> int:
        caplog.clear()
        with (
            EventStore() as store,
            BackgroundRetention(store, MONTH, SOON, reports.put, check_every=check_every),
        ):
            for _ in range(4):
                reports.get(timeout=SECONDS_MAX)
        return sum(
            "of the database found no problem" in each for each in told(caplog, logging.INFO)
        )

    assert checks(timedelta(days=1)) == 1
    assert checks(SOON / 10) >= 3
    assert checks(None) == 0
    with EventStore() as store, pytest.raises(ValueError, match="check_every must be positive"):
        BackgroundRetention(store, MONTH, SOON, check_every=timedelta(0))


def test_in_an_event_loop(store_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with awaited.opened(store_url) as store:
            reports: asyncio.Queue[SweepReport] = asyncio.Queue()
            async with AsyncBackgroundRetention(store, MONTH, SOON, reports.put_nowait):
                for _ in range(2):
                    await asyncio.wait_for(reports.get(), SECONDS_MAX)

    awaited.run(main())
    said = "amcheck is not installed" if "postgresql" in store_url else "found no problem"
    assert any(said in each for each in told(caplog, logging.INFO))


def test_a_check_that_is_stopped_says_so_and_the_store_goes_on(store: EventStore) -> None:
    fill(store, "a", 3)
    report = store.check_database(lambda: True)
    assert report.checked_by is None and report.ok
    on_postgresql = store.engine.dialect.name == "postgresql"
    assert ("amcheck" if on_postgresql else "stopped") in (report.note or "")
    assert len(list(store.read("a"))) == 3
    assert store.check_database().ok
