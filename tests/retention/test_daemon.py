"""The daemon and `python -m retention`: start, stop, signals, exit codes and output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import Event, EventStore, StoreUnavailableError
from eventstore.core.core import Core
from retention import Pace, RetentionPolicy, SweepReport, aplan, asweep, plan, sweep
from retention.__main__ import main
from retention.daemon import AsyncBackgroundRetention, BackgroundRetention
from retention.metrics import Metrics
from retention.sweep.run import Sweep
from tests import awaited, processes
from tests.eventstore.support import fill
from tests.retention.support import DAY, Clock, assert_whole, names, opened

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parents[2]
MONTH: Final = RetentionPolicy(30 * DAY)
SOON: Final = timedelta(milliseconds=20)
SECONDS_MAX: Final = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[EventStore]:
    """A store in a file; its clock shows January, long before the clock of the command."""
    with opened(tmp_path, Clock()) as store:
        yield store


def ago(store: EventStore, days: int) -> None:
    """Set the store's clock to this many days before now."""
    clock: Any = store.core._clock
    clock.now = datetime.now(UTC) - days * DAY


def test_it_sweeps_at_once_and_again_until_it_is_stopped(disk: EventStore) -> None:
    before = threading.active_count()
    reports: queue.Queue[SweepReport] = queue.Queue()
    ago(disk, 100)
    fill(disk, "a", 1)
    ago(disk, 0)
    daemon = BackgroundRetention(disk, MONTH, SOON, reports.put)
    with daemon:
        assert reports.get(timeout=SECONDS_MAX).pruned == 1
        with pytest.raises(RuntimeError, match="already running"):
            daemon.start()
        assert reports.get(timeout=SECONDS_MAX).pruned == 0
    assert threading.active_count() == before
    reports.queue.clear()
    time.sleep(3 * SOON.total_seconds())
    assert reports.empty(), "swept after it was stopped"
    daemon.stop()  # may be repeated
    with daemon:
        reports.get(timeout=SECONDS_MAX)
    assert threading.active_count() == before


def test_one_sweep_at_a_time_and_a_failure_does_not_end_it(
    disk: EventStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running, most, calls = 0, 0, 0
    done = threading.Event()

    async def slow(*args: Any, **kwargs: Any) -> SweepReport:
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)
        time.sleep(4 * SOON.total_seconds())
        running -= 1
        if calls == 3:
            done.set()
        raise OSError("no such luck")

    monkeypatch.setattr(Sweep, "run", slow)
    with BackgroundRetention(disk, MONTH, SOON):
        assert done.wait(SECONDS_MAX)
    assert most == 1 and running == 0
    assert "this sweep failed" in caplog.text
    assert "skipped" not in caplog.text, "it is no news that a sweep takes its time"


def test_stopping_finishes_the_batch_under_way_and_no_more(
    disk: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ago(disk, 100)
    for number in range(5):
        fill(disk, f"t{number}", 3)
    keys = {thread.thread_id: thread.thread_key for thread in disk.threads()}
    ago(disk, 0)
    under_way, go_on = threading.Event(), threading.Event()
    real = disk.core.prune

    async def prune(*args: Any, **kwargs: Any) -> Any:
        under_way.set()
        go_on.wait(SECONDS_MAX)
        return await real(*args, **kwargs)

    monkeypatch.setattr(disk.core, "prune", prune)
    pace = Pace(rows=4)  # one thread at a time
    daemon = BackgroundRetention(disk, MONTH, DAY, pace=pace).start()
    assert under_way.wait(SECONDS_MAX)
    stopping = threading.Thread(target=daemon.stop)
    stopping.start()
    assert daemon._stopping.wait(SECONDS_MAX)
    go_on.set()
    stopping.join(SECONDS_MAX)
    assert not stopping.is_alive()
    assert len(names(disk)) == 4
    assert_whole(disk, keys)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ({"every": timedelta(0)}, "every must be greater than zero"),
        ({}, "expected either every= or cron="),
        ({"every": DAY, "cron": "0 3 * * *"}, "expected either every= or cron="),
        ({"cron": "at three"}, "Wrong number of fields"),
        ({"cron": "0 3 31 2 *"}, "never comes"),
        ({"every": DAY, "jitter": -DAY}, "jitter must not be negative"),
    ],
)
def test_a_schedule_must_make_sense(disk: EventStore, schedule: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BackgroundRetention(disk, MONTH, **schedule)
    with pytest.raises(ValueError, match="expected at least one policy"):
        BackgroundRetention(disk, [], DAY)


def test_by_the_calendar_it_does_not_begin_at_once(disk: EventStore) -> None:
    now = datetime.now(UTC)
    cron = f"{(now.minute + 30) % 60} * * * *"
    reports: queue.Queue[SweepReport] = queue.Queue()
    with BackgroundRetention(disk, MONTH, on_report=reports.put, cron=cron) as daemon:
        (job,) = daemon._scheduler.get_jobs()
        assert timedelta(minutes=25) < job.next_run_time - now < timedelta(minutes=35)
    assert reports.empty()


def test_a_database_that_goes_away_is_waited_for(
    disk: EventStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("retention.daemon.BACKOFF_S", 0.01)
    calls, run = 0, Sweep.run

    async def flaky(*args: Any, **kwargs: Any) -> SweepReport:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise StoreUnavailableError("connection refused")
        return await run(*args, **kwargs)

    monkeypatch.setattr(Sweep, "run", flaky)
    reports: queue.Queue[SweepReport] = queue.Queue()
    metrics = Metrics()
    with BackgroundRetention(disk, MONTH, DAY, reports.put, metrics=metrics):
        assert not reports.get(timeout=SECONDS_MAX).stopped
    waits = [record for record in caplog.records if "the database is away" in record.message]
    assert len(waits) == 3 and "connection refused" in waits[0].message
    get = metrics.registry.get_sample_value
    assert get("retention_sweeps_total", {"result": "failed"}) == 3
    assert get("retention_sweeps_total", {"result": "done"}) == 1


def test_stopping_does_not_wait_for_a_database_that_is_away(
    disk: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retention.daemon.BACKOFF_S", 3_600.0)
    tried = threading.Event()

    async def away(*args: Any, **kwargs: Any) -> SweepReport:
        tried.set()
        raise StoreUnavailableError("connection refused")

    monkeypatch.setattr(Sweep, "run", away)
    with BackgroundRetention(disk, MONTH, DAY):
        assert tried.wait(SECONDS_MAX)


def test_a_store_that_is_closed_ends_it(disk: EventStore, caplog: pytest.LogCaptureFixture) -> None:
    reports: queue.Queue[SweepReport] = queue.Queue()
    with BackgroundRetention(disk, MONTH, SOON, reports.put) as daemon:
        reports.get(timeout=SECONDS_MAX)
        disk.close()
        assert daemon._stopping.wait(SECONDS_MAX)
        time.sleep(5 * SOON.total_seconds())
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "the store is closed: no more sweeps" in record.message and not record.exc_info


def test_several_share_the_work(disk: EventStore, tmp_path: Path) -> None:
    ago(disk, 100)
    for number in range(60):
        fill(disk, f"t{number}", 1)
    ago(disk, 0)
    clock: Any = disk.core._clock
    reports: queue.Queue[SweepReport] = queue.Queue()
    with (
        opened(tmp_path, clock) as other,
        BackgroundRetention(disk, MONTH, DAY, reports.put, pace=Pace(rows=2)),
        BackgroundRetention(other, MONTH, DAY, reports.put, pace=Pace(rows=2)),
    ):
        both = [reports.get(timeout=SECONDS_MAX) for _ in range(2)]
    assert sum(report.pruned for report in both) == 60
    assert sum(report.gone + report.spared for report in both) == 0, "each had slices of its own"
    assert names(disk) == set()


def test_it_is_stopped_by_its_own_callback(disk: EventStore) -> None:
    before = threading.active_count()
    reports: list[SweepReport] = []
    under_way = threading.Event()

    def report(found: SweepReport) -> None:
        daemon.stop()
        daemon.stop()  # may be repeated
        under_way.set()
        time.sleep(0.2)
        reports.append(found)

    daemon = BackgroundRetention(disk, MONTH, SOON, report)
    with daemon:
        assert under_way.wait(SECONDS_MAX)
        assert not reports
    assert len(reports) == 1, "leaving the block waits for the callback"
    time.sleep(3 * SOON.total_seconds())
    assert len(reports) == 1, "swept after it was stopped"
    with daemon:  # it can be started again
        while len(reports) < 2:
            time.sleep(0.01)
    deadline = time.monotonic() + SECONDS_MAX
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- for event loops --------------------------------------------------------------------


def test_in_an_event_loop(store_url: str) -> None:
    async def main() -> None:
        reports: asyncio.Queue[SweepReport] = asyncio.Queue()
        async with awaited.opened(store_url) as store:
            clock = Clock()
            store.core._clock = clock
            await store.append("a", [Event(1, "x")], 0)
            clock.now += 40 * DAY
            daemon = AsyncBackgroundRetention(store, MONTH, SOON, reports.put_nowait)
            async with daemon:
                assert (await asyncio.wait_for(reports.get(), SECONDS_MAX)).pruned == 1
                with pytest.raises(RuntimeError, match="already running"):
                    await daemon.start()
                assert (await asyncio.wait_for(reports.get(), SECONDS_MAX)).pruned == 0
            while not reports.empty():
                reports.get_nowait()
            await asyncio.sleep(3 * SOON.total_seconds())
            assert reports.empty(), "swept after it was stopped"
            await daemon.stop()  # may be repeated

    awaited.run(main())


def test_in_an_event_loop_it_is_stopped_by_its_own_callback(store_url: str) -> None:
    async def main() -> None:
        async with awaited.opened(store_url) as store:
            reports: list[SweepReport] = []
            stopping: list[asyncio.Task[None]] = []

            def report(found: SweepReport) -> None:
                reports.append(found)
                stopping.append(asyncio.get_running_loop().create_task(daemon.stop()))

            daemon = AsyncBackgroundRetention(store, MONTH, SOON, report)
            async with daemon:
                while not stopping:
                    await asyncio.sleep(0.01)
                await asyncio.wait_for(stopping[0], SECONDS_MAX)
            await asyncio.sleep(3 * SOON.total_seconds())
            assert len(reports) == 1

    awaited.run(main())


@pytest.mark.parametrize("turns", [0, 1])
def test_in_an_event_loop_nothing_of_it_runs_after_stopping_at_any_moment(
    store_url: str, turns: int
) -> None:
    """A turn is a task of the loop before it begins and after it ends, too."""

    async def main() -> None:
        async with awaited.opened(store_url) as store:
            before = asyncio.all_tasks()
            for steps in range(8):
                reports: asyncio.Queue[SweepReport] = asyncio.Queue()
                daemon = AsyncBackgroundRetention(
                    store, MONTH, SOON, reports.put_nowait, check_every=None
                )
                await daemon.start()
                for _ in range(turns):
                    await asyncio.wait_for(reports.get(), SECONDS_MAX)
                for _ in range(steps):
                    await asyncio.sleep(0)
                await daemon.stop()
                assert asyncio.all_tasks() == before, steps

    awaited.run(main())


def test_in_an_event_loop_stopping_finishes_the_batch_under_way(store_url: str) -> None:
    async def main() -> None:
        async with awaited.opened(store_url) as store:
            clock = Clock()
            store.core._clock = clock
            for number in range(20):
                await store.append(f"t{number}", [Event(1, "x")], 0)
            clock.now += 40 * DAY
            under_way, go_on = asyncio.Event(), asyncio.Event()
            loop, real = asyncio.get_running_loop(), store.core.prune

            async def prune(*args: Any, **kwargs: Any) -> Any:
                loop.call_soon_threadsafe(under_way.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(SECONDS_MAX)
                return await real(*args, **kwargs)

            async def prune_here(*args: Any, **kwargs: Any) -> Any:
                under_way.set()
                await go_on.wait()
                return await real(*args, **kwargs)

            # On SQLite the operation runs on a thread, and not in the event loop.
            store.core.prune = prune if store.database.blocking else prune_here  # type: ignore[method-assign]
            daemon = AsyncBackgroundRetention(store, MONTH, DAY, pace=Pace(rows=2))
            await daemon.start()
            await asyncio.wait_for(under_way.wait(), SECONDS_MAX)
            stopping = asyncio.create_task(daemon.stop())
            await asyncio.sleep(0.05)
            assert not stopping.done()
            go_on.set()
            await asyncio.wait_for(stopping, SECONDS_MAX)
            assert len(await store.threads()) == 19

    awaited.run(main())


def test_the_wrong_kind_of_store_is_refused_at_once(disk: EventStore, store_url: str) -> None:
    wrong: Any = disk

    async def main() -> None:
        async with awaited.opened(store_url) as store:
            other: Any = store
            for call in (plan, sweep):
                with pytest.raises(TypeError, match=f"use a{call.__name__} for"):
                    call(other, MONTH)
            with pytest.raises(TypeError, match="use AsyncBackgroundRetention for"):
                BackgroundRetention(other, MONTH, DAY)
            for acall in (aplan, asweep):
                with pytest.raises(TypeError, match="expected an AsyncEventStore"):
                    await acall(wrong, MONTH)
            with pytest.raises(TypeError, match="use BackgroundRetention for"):
                AsyncBackgroundRetention(wrong, MONTH, DAY)

    awaited.run(main())


# --- the command ------------------------------------------------------------------------


def command(*arguments: str, **options: Any) -> processes.Popen:
    return processes.Popen(
        [sys.executable, "-m", "retention", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def database(disk: EventStore, tmp_path: Path) -> str:
    """A database with two old threads, one pinned thread and one new thread."""
    ago(disk, 100)
    for thread_id in ("a", "a longer name \x1b[2J", "pinned"):
        fill(disk, thread_id, 2)
    disk.set_thread("pinned", pinned=True)
    ago(disk, 0)
    fill(disk, "new", 1)
    return str(tmp_path / "store.db")


def test_a_dry_run_prints_a_table_and_touches_nothing(
    disk: EventStore, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--db", database, "--ttl", "30d", "--dry-run"]) == 0
    header, *rows, counts = capsys.readouterr().out.splitlines()
    assert sorted(row.split("  ")[0] for row in rows) == ["a", r"a longer name \x1b[2J"]
    at = header.index("STATUS"), header.index("WHY")
    assert all(row[at[0] :].startswith("idle ") for row in rows)
    assert all(row[at[1] :].startswith("idle for the ttl of 30 days") for row in rows)
    assert counts == "2 to prune, 1 active, 1 pinned"
    assert main(["sweep", "--db", database, "--ttl", "30d", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"prune": 2, "active": 1, "pinned": 1}
    assert len(names(disk)) == 4


def test_pruning_once(disk: EventStore, database: str) -> None:
    run = command("sweep", "--db", f"sqlite:///{database}", "--ttl", "30d", "--json", "--yes")
    out, err = run.communicate(timeout=SECONDS_MAX)
    assert (run.returncode, err) == (0, "")
    assert json.loads(out)["pruned"] == 2
    assert names(disk) == {"pinned", "new"}


def test_without_a_yes_nothing_is_pruned(disk: EventStore, database: str) -> None:
    run = command("sweep", "--db", database, "--ttl", "30d")
    out, err = run.communicate(timeout=SECONDS_MAX)
    assert run.returncode == 2
    assert "2 to prune" in out and "--yes" in err
    assert len(names(disk)) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of Unix")
@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 2), ("n\n", 2, 4), ("\x04", 2, 4)])
def test_someone_at_a_terminal_is_asked(
    disk: EventStore, database: str, answer: str, code: int, left: int
) -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        arguments = ["-m", "retention", "sweep", "--db", database, "--ttl", "30d"]
        run = processes.run(
            [sys.executable, *arguments], cwd=ROOT, stdin=theirs, timeout=SECONDS_MAX
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert run.returncode == code
    assert len(names(disk)) == left


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_sweeps_until_a_signal_and_exits_0(
    disk: EventStore, database: str, number: signal.Signals
) -> None:
    run = command("run", "--db", database, "--ttl", "30d", "--every", "1s", "--json", "--yes")
    try:
        assert run.stdout is not None
        assert [json.loads(run.stdout.readline())["pruned"] for _ in range(2)] == [2, 0]
        run.send_signal(number)
        _, err = run.communicate(timeout=SECONDS_MAX)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0
    assert err.splitlines() == [*announced(database, "1s"), *stopped(number)]
    assert names(disk) == {"pinned", "new"}


def announced(database: str, every: str) -> list[str]:
    """What `run` says on standard error when it starts."""
    return [
        f"sweeping tenant 'default' of {database} every {every}, starting now",
        "policy 'default': ttl 30d",
    ]


def stopped(number: signal.Signals) -> list[str]:
    """What `run` says on standard error when a signal stops it."""
    return [f"{number.name}: finishing the batch under way", "stopped"]


SIGNALLED: Final = """
import os, signal, sys
from eventstore.queries.removing import prune
from retention.__main__ import main

real = prune.remove_rest

def remove(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    return real(*args)

prune.remove_rest = remove
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals and signals of Unix")
@pytest.mark.parametrize("mode", [["sweep"], ["run", "--every", "1h"]])
def test_a_signal_amid_a_batch_lets_it_end(
    disk: EventStore, database: str, mode: list[str]
) -> None:
    keys = {thread.thread_id: thread.thread_key for thread in disk.threads()}
    arguments = [*mode, "--db", database, "--ttl", "30d", "--json", "--yes"]
    run = processes.run(
        [sys.executable, "-c", SIGNALLED, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert run.returncode == 0
    notes = [*announced(database, "1h"), *stopped(signal.SIGTERM)] if mode[0] == "run" else []
    assert run.stderr.splitlines() == notes
    report = json.loads(run.stdout)
    # The daemon sweeps slice by slice, so the two may be in different batches.
    assert report["pruned"] == 2 or (report["stopped"] and report["pruned"] == 1)
    assert_whole(disk, keys)


TAKEN_BY_ANOTHER_THREAD: Final = """
import signal, sys, threading, time
from retention.__main__ import main

def take():
    sys.stdin.readline()
    time.sleep(0.2)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(600)

threading.Thread(target=take, daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_signal_that_wakes_another_thread_stops_it_too(disk: EventStore, database: str) -> None:
    arguments = ["run", "--every", "1h", "--db", database, "--ttl", "30d", "--json", "--yes"]
    run = processes.Popen(
        [sys.executable, "-c", TAKEN_BY_ANOTHER_THREAD, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        assert json.loads(run.stdout.readline())["pruned"] == 2
        _, err = run.communicate("now\n", timeout=SECONDS_MAX)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0
    assert err.splitlines() == [*announced(database, "1h"), *stopped(signal.SIGTERM)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "--ttl", "30d"], "--db"),
        (
            ["sweep", "--db", "x", "--ttl", "30"],
            "'30' is not a duration; expected a form such as 30d",
        ),
        (["sweep", "--db", "x", "--ttl", "0d"], "the duration '0d' must be positive"),
        (["run", "--db", "x", "--every", "-1h"], "'-1h' is not a duration"),
        (["sweep", "--db", "x", "--every", "1h"], "--every"),
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("EVENTSTORE_DB", raising=False)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_database_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, garbage = tmp_path / "missing.db", tmp_path / "garbage.db"
    garbage.write_bytes(b"no database at all" * 1_000)
    for target in (str(missing), f"sqlite:///{missing}", "sqlite://", str(garbage), "x://y"):
        assert main(["sweep", "--db", target, "--ttl", "30d", "--yes"]) == 3, target
        assert capsys.readouterr().err.startswith("eventstore: ")
    assert not missing.exists()


def test_threads_that_cannot_be_pruned_exit_with_1(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]

    async def fails(*args: Any, **kwargs: Any) -> bool:
        raise OSError("a scratch")

    monkeypatch.setattr(Core, "prune", fails)
    try:
        assert main(["sweep", "--db", database, "--ttl", "30d", "--yes", "--json"]) == 1
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert json.loads(capsys.readouterr().out)["failed"] == 2
