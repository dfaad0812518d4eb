"""On PostgreSQL retention goes by the clock of the database, which all computers share."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventstore import AsyncEventStore, Event, EventStore
from eventstore.core.part import system_clock
from retention import RetentionPolicy, asweep, plan, sweep
from tests.eventstore.support import sql
from tests.retention.support import DAY

MONTH = RetentionPolicy(30 * DAY)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock of this computer."""

    def shift(by: timedelta) -> None:
        class Shown(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + by

        monkeypatch.setattr("eventstore.core.part.datetime", Shown)

    return shift


@pytest.mark.parametrize("days", [400, 1, -1, -400])
def test_a_wrong_clock_prunes_nothing_early_or_late(
    postgresql_url: str, set_clock: Any, days: int, caplog: pytest.LogCaptureFixture
) -> None:
    with EventStore(postgresql_url) as store:
        store.append("young", [Event(1, "x")], 0, ttl=timedelta(hours=1))
        store.append("old", [Event(1, "x")], 0, ttl=timedelta(seconds=1))
        sql(store, "SELECT pg_sleep(1.1)")
        set_clock(days * DAY)
        assert abs(system_clock() - datetime.now(UTC)) > DAY / 2
        assert plan(store, MONTH).counts["prune"] == 1
        assert sweep(store, MONTH, shared=timedelta(hours=1)).pruned == 1
        assert [thread.thread_id for thread in store.threads()] == ["young"]
        (record, *_) = store.sweeps()
        assert abs(record.started_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert abs(record.cutoff - datetime.now(UTC)) < timedelta(minutes=5)
    (warned,) = [each for each in caplog.records if "the clock of this computer" in each.message]
    assert warned.levelno == logging.WARNING
    assert (" ahead of " if days > 0 else " behind ") in warned.message


def test_in_an_event_loop(postgresql_url: str, set_clock: Any) -> None:
    async def main() -> None:
        async with AsyncEventStore(postgresql_url) as store:
            await store.append("young", [Event(1, "x")], 0, ttl=timedelta(hours=1))
            set_clock(DAY)
            assert (await asweep(store, MONTH, shared=timedelta(hours=1))).pruned == 0

    asyncio.run(main())


def test_a_clock_that_was_given_counts(postgresql_url: str) -> None:
    ahead = datetime.now(UTC) + DAY
    with EventStore(postgresql_url, clock=lambda: ahead) as store:
        assert sweep(store, MONTH).now == ahead
