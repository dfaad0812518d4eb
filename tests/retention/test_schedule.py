"""When sweeps begin: intervals, crontabs, and clocks that are set, wrong or asleep."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from retention.schedule import LOOK, Crontab, Interval, Schedule, schedule_of
from tests import processes
from tests.retention.simulated import Computer, World
from tests.retention.support import DAY

NONE: Final = timedelta(0)
HOUR: Final = timedelta(hours=1)
FRIDAY: Final = datetime(2026, 6, 5, 12, tzinfo=UTC)


def times(cron: str, count: int, after: datetime = FRIDAY) -> list[datetime]:
    """The coming times of a crontab."""
    found, schedule = [after], Crontab(cron, NONE)
    for _ in range(count):
        found.append(schedule.get_next_fire_time(None, found[-1]))
    return found[1:]


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 3 * * 0", ["Sun 07", "Sun 14", "Sun 21"]),
        ("0 3 * * 7", ["Sun 07", "Sun 14", "Sun 21"]),
        ("0 3 * * 1-5", ["Mon 08", "Tue 09", "Wed 10", "Thu 11", "Fri 12", "Mon 15"]),
        ("0 3 * * 5-7", ["Sat 06", "Sun 07", "Fri 12", "Sat 13"]),
        ("0 3 * * 0,6", ["Sat 06", "Sun 07", "Sat 13"]),
        ("0 3 * * 6", ["Sat 06", "Sat 13"]),
        ("0 3 * * sun", ["Sun 07", "Sun 14"]),
        ("0 3 * * MON-Fri", ["Mon 08", "Tue 09", "Wed 10", "Thu 11", "Fri 12", "Mon 15"]),
        ("0 3 * * fri-sun", ["Sat 06", "Sun 07", "Fri 12"]),
        ("0 3 * * sun-tue", ["Sun 07", "Mon 08", "Tue 09", "Sun 14"]),
        ("0 3 * * 1-7/2", ["Sun 07", "Mon 08", "Wed 10", "Fri 12", "Sun 14"]),
        ("0 3 * * */2", ["Sat 06", "Sun 07", "Tue 09", "Thu 11", "Sat 13"]),
        # Of two restricted days either is enough; a star that takes steps restricts nothing.
        ("0 3 13 * 5", ["Fri 12", "Sat 13", "Fri 19"]),
        ("0 3 10,20 6 1", ["Mon 08", "Wed 10", "Mon 15", "Sat 20", "Mon 22"]),
        ("0 3 13 * *", ["Sat 13", "Mon 13"]),
        ("0 3 */2 * 1", ["Mon 15", "Mon 29"]),
        ("@weekly", ["Sun 07", "Sun 14"]),
        ("@daily", ["Sat 06", "Sun 07"]),
        ("@monthly", ["Wed 01", "Sat 01"]),
    ],
)
def test_days_are_those_of_a_crontab(cron: str, days: list[str]) -> None:
    assert [f"{each:%a %d}" for each in times(cron, len(days))] == days


def test_hours_and_minutes_are_those_of_a_crontab() -> None:
    found = times("*/20 9-17/4,23 * jun-aug *", 7)
    assert [f"{each:%H:%M}" for each in found] == [
        *("13:00", "13:20", "13:40", "17:00", "17:20", "17:40", "23:00"),
    ]
    assert times("30 2 29 2 *", 2) == [
        datetime(2028, 2, 29, 2, 30, tzinfo=UTC),
        datetime(2032, 2, 29, 2, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    "cron",
    ["0 3 31 2 *", "0 3 30 feb *", "0 3 31 4,6,9,11 *", "0 3 30-31 2 */2", "@never 2 30 2 *"],
)
def test_a_time_that_never_comes_is_refused(cron: str) -> None:
    said = "never comes" if cron[0] == "0" else "not '@never 2 30 2"
    with pytest.raises(ValueError, match=said):
        schedule_of(None, cron, None)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("at three", "Wrong number of fields: 2"),
        ("", "Wrong number of fields: 0"),
        ("0 0 3 * * *", "Wrong number of fields: 6"),
        ("@reboot", "Wrong number of fields: 1"),
        ("0 3 * * 8", "Bad day-of-week"),
        ("0 3 * * 6-1", "Bad day-of-week"),
        ("0 3 * * monday", "Bad day-of-week"),
        ("0 3 0 * *", "Bad day-of-month"),
        ("0 3 32 2 *", "Bad day-of-month"),
        ("0 3 * 13 *", "Bad month"),
        ("0 24 * * *", "Bad hour"),
        ("60 3 * * *", "Bad minute"),
        ("*/0 3 * * *", "Bad minute"),
        ("-1 3 * * *", "Bad minute"),
        ("²  3 * * *", "Bad minute"),
        (f"{'9' * 5_000} 3 * * *", "not '9999"),
        (None, "expected either every= or cron="),
        (5, "not 5"),
    ],
)
def test_what_is_no_crontab_is_refused(cron: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        schedule_of(None, cron, None)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("name", ["every", "jitter"])
def test_a_length_beyond_the_calendar_is_refused(name: str) -> None:
    lengths: dict[str, Any] = {"every": DAY, "cron": None, "jitter": None}
    with pytest.raises(ValueError, match=f"{name} must not exceed 36,500 days"):
        schedule_of(**{**lengths, name: timedelta.max})


def test_a_crontab_that_skips_days_skips_no_sweep() -> None:
    """From Friday to Monday is longer than from Thursday to Friday, which counts for sharing."""
    schedule = Crontab("0 3 * * 1-5", NONE)
    assert schedule.shortest == DAY
    assert schedule.patience == 5 * DAY, "three sweeps, with a weekend between them"
    assert Interval(HOUR, timedelta(minutes=5)).patience == timedelta(hours=3, minutes=5)


@pytest.mark.slow
def test_daylight_saving_changes_nothing() -> None:
    """Schedules are in UTC: in no zone is there an hour that comes twice, or never."""
    script = (
        "from datetime import *; from retention.schedule import Crontab\n"
        "s, at = Crontab('30 2 * * *', timedelta(0)), datetime(2026, 3, 28, tzinfo=UTC)\n"
        "for _ in range(3): at = s.get_next_fire_time(at, at); print(at)\n"
    )
    shown = {
        processes.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env={"TZ": zone}
        ).stdout
        for zone in ("Europe/Berlin", "America/New_York", "UTC")
    }
    assert shown == {"".join(f"2026-03-{day} 02:30:00+00:00\n" for day in (28, 29, 30))}


# --- clocks -----------------------------------------------------------------------------


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, FRIDAY)


def began(world: World, schedule: Schedule, ahead: timedelta = NONE) -> tuple[Computer, Any]:
    """A computer with a schedule, and the true times at which its job ran."""
    computer, moments = Computer(world, ahead), list[datetime]()
    computer.scheduled(schedule, lambda: moments.append(world.true))
    return computer, moments


def hours(moments: list[datetime]) -> list[float]:
    """Hours since the start, to the second."""
    return [round((each - FRIDAY).total_seconds()) / 3600 for each in moments]


YEAR: Final = 365 * DAY


@pytest.mark.parametrize("jump", [-YEAR, -HOUR, -timedelta(minutes=1), NONE])
def test_a_clock_set_back_delays_no_interval(world: World, jump: timedelta) -> None:
    computer, moments = began(world, Interval(HOUR, NONE))
    world.at(FRIDAY + 2.5 * HOUR, lambda: computer.jump(jump))
    world.run(6.5 * HOUR)
    assert len(moments) == 6
    gaps = [later - earlier for earlier, later in itertools.pairwise([FRIDAY, *moments])]
    assert max(gaps) <= HOUR + LOOK and min(gaps) >= HOUR - LOOK


def test_a_clock_that_is_set_back_again_and_again_stops_no_interval(world: World) -> None:
    computer, moments = began(world, Interval(HOUR, NONE))
    for number in range(48):
        world.at(FRIDAY + number * HOUR / 2, lambda: computer.jump(-DAY))
    world.run(DAY)
    assert 23 <= len(moments) <= 24


@pytest.mark.parametrize("schedule", [Interval(HOUR, NONE), Crontab("0 * * * *", NONE)])
def test_a_clock_set_ahead_makes_up_for_what_it_skipped_once(
    world: World, schedule: Schedule
) -> None:
    """A year of sweeps by the minute is neither run nor listed."""
    computer, moments = began(world, schedule)
    world.at(FRIDAY + 2.5 * HOUR, lambda: computer.jump(YEAR))
    world.run(5.2 * HOUR)
    assert hours(moments)[:2] == [1, 2] and 2.5 <= hours(moments)[2] <= 2.51
    assert len(moments) == 6
    assert Interval(timedelta(seconds=1), NONE).get_next_fire_time(FRIDAY, FRIDAY + YEAR) == (
        FRIDAY + YEAR + timedelta(seconds=1)
    )


def test_a_computer_that_slept_sweeps_soon_after_it_woke_up(world: World) -> None:
    found = [began(world, each) for each in (Interval(HOUR, NONE), Crontab("0 * * * *", NONE))]
    for computer, _ in found:
        world.at(FRIDAY + 1.5 * HOUR, lambda computer=computer: computer.suspend(True))  # type: ignore[misc]
        world.at(FRIDAY + 9.5 * HOUR, lambda computer=computer: computer.suspend(False))  # type: ignore[misc]
    world.run(11.2 * HOUR)
    for _, moments in found:
        first, woken, *rest = hours(moments)
        assert first == 1 and 9.5 <= woken <= 9.51
        assert rest[-1] == pytest.approx(11, abs=0.01) and len(rest) == 2


def test_a_crontab_runs_no_time_twice_that_an_adjusted_clock_shows_twice(world: World) -> None:
    computer, moments = began(world, Crontab("30 * * * *", NONE))
    world.at(FRIDAY + 0.6 * HOUR, lambda: computer.jump(-timedelta(minutes=20)))
    world.run(2 * HOUR)
    assert hours(moments) == [0.5, pytest.approx(1.5 + 1 / 3, abs=0.01)]


@pytest.mark.slow
def test_a_clock_that_was_wrong_for_a_year_stops_no_crontab(world: World) -> None:
    computer, moments = began(world, Crontab("0 3 * * *", NONE), ahead=YEAR)
    world.at(FRIDAY + 2 * DAY, lambda: computer.jump(-YEAR))
    world.run(5 * DAY)
    assert [f"{each:%d %H:%M}" for each in moments] == [f"{day:02} 03:00" for day in range(6, 11)]


def test_jitter_starts_later_and_never_earlier(world: World) -> None:
    jitter = timedelta(minutes=10)
    _, moments = began(world, Crontab("0 * * * *", jitter))
    world.run(50 * HOUR)
    late = [each - each.replace(minute=0, second=0, microsecond=0) for each in moments]
    assert len(moments) in (49, 50) and max(late) <= jitter + LOOK and len(set(late)) > 40


@pytest.mark.slow
def test_a_clock_that_is_set_back_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    computer, _ = began(world, Crontab("0 3 * * *", NONE))
    world.at(FRIDAY + DAY, lambda: computer.jump(-YEAR))
    world.run(2 * DAY)
    (record,) = [each for each in caplog.records if "set back" in each.message]
    assert "begins at 2025-06-" in record.message and "not at 2026-06-07" in record.message
