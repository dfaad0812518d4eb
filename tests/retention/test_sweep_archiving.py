"""Sweeps that archive: nothing is removed before its last event is in the archive."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from eventstore import ArchiveUnavailableError, Event, EventStore, Pin
from retention import Match, RetentionPolicy, SweepReport
from retention.archives import Archive, restore
from retention.daemon import AsyncBackgroundRetention
from retention.sweep.archiving import LOOK_S, REFUSALS_MAX
from tests import awaited, processes
from tests.eventstore.support import fill, numbers
from tests.retention.support import DAY, Clock, names, opened, planned, stepped, swept

SECONDS_MAX: Final = 60.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of an archive in its own directory."""
    return f"file://{tmp_path / 'archive'}"


def test_what_goes_is_archived_first_and_can_be_restored(
    blocking: EventStore, clock: Clock, url: str
) -> None:
    for number in range(25):
        fill(blocking, f"chat-{number}", 3)
    fill(blocking, "large", 1_100)
    fill(blocking, "job", 1)
    clock.now += 40 * DAY
    policies = [
        RetentionPolicy(30 * DAY, "jobs", Match(thread_id="job")),
        RetentionPolicy(30 * DAY, "rest", archive=url),
    ]
    found = planned(blocking, policies)
    assert found.counts == {"prune": 27, "archive": 26}
    assert swept(blocking, found) == SweepReport(found.now, pruned=27, archived=26)
    assert names(blocking) == set()
    archive = Archive(url)
    assert {each.thread_id for each in archive.ls()} == {
        *(f"chat-{number}" for number in range(25)),
        "large",
    }
    restore(blocking, archive, "large")
    assert numbers(list(blocking.read("large"))) == list(range(1, 1_101))


def test_every_tenant_and_kind_of_store(timed: EventStore, clock: Clock, url: str) -> None:
    fill(timed, "t", 3)
    clock.now += 40 * DAY
    policy = RetentionPolicy(30 * DAY, archive=url)
    assert swept(timed, policy, all_tenants=True) == SweepReport(clock.now, pruned=1, archived=1)
    (each,) = Archive(url).ls()
    assert (each.tenant, each.thread_id) == ("test", "t")


def test_a_restored_thread_outlasts_the_next_sweep(
    blocking: EventStore, clock: Clock, url: str
) -> None:
    for name in ("plain", "pinned", "lives on"):
        fill(blocking, name, 1)
    clock.now += 40 * DAY
    policy, archive = RetentionPolicy(30 * DAY, archive=url), Archive(url)
    assert swept(blocking, policy).pruned == 3
    restore(blocking, archive, "plain")
    pinned = restore(blocking, archive, "pinned", pin=("case 7", "legal"))
    assert pinned.pin == Pin("case 7", "legal", clock.now)
    assert restore(blocking, archive, "lives on", ttl=60 * DAY).ttl == 60 * 86_400
    assert swept(blocking, policy).pruned == 1
    assert names(blocking) == {"pinned", "lives on"}
    clock.now += 30 * DAY
    assert swept(blocking, policy).pruned == 1
    assert names(blocking) == {"pinned"}


def test_what_cannot_be_archived_stays(
    timed: EventStore, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file, where a directory should be")
    for number in range(12):
        fill(timed, f"t{number}", 3)
    fill(timed, "c", 1)
    clock.now += 40 * DAY
    policies = [
        RetentionPolicy(30 * DAY, "c", Match(thread_id="c")),
        RetentionPolicy(30 * DAY, archive=f"file://{tmp_path}/taken/archive"),
    ]
    with caplog.at_level(logging.ERROR):
        report = swept(timed, policies)
    assert report == SweepReport(clock.now, pruned=1, failed=12, left=12)
    assert len(names(timed)) == 12
    assert 1 <= len(caplog.records) <= REFUSALS_MAX, "not a line for each thread"
    assert "taken" in caplog.text and "Traceback" not in caplog.text


@pytest.mark.parametrize(("bad", "archived"), [({0, 1, 3, 4}, 2), ({2, 3, 4, 5}, 2)])
def test_an_archive_that_refuses_some_in_a_row_is_asked_no_more(
    blocking: EventStore,
    clock: Clock,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bad: set[int],
    archived: int,
) -> None:
    for number in range(6):
        fill(blocking, f"t{number}", 1)
    clock.now += 40 * DAY
    real, asked = Archive.put, 0

    def put(self: Archive, dump: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked - 1 in bad:
            raise ArchiveUnavailableError("connection refused")
        return real(self, dump)

    monkeypatch.setattr(Archive, "put", put)
    report = swept(blocking, RetentionPolicy(30 * DAY, archive=url))
    failed = 6 - archived
    expected = SweepReport(
        clock.now, pruned=archived, archived=archived, failed=failed, left=failed
    )
    assert report == expected
    assert asked == (6 if 0 in bad else 5)
    assert "Traceback" not in caplog.text
    assert swept(blocking, RetentionPolicy(30 * DAY, archive=url)).failed < failed


def test_what_was_written_to_meanwhile_stays(
    blocking: EventStore, clock: Clock, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for thread_id in ("a", "b"):
        fill(blocking, thread_id, 3)
    clock.now += 40 * DAY
    real = Archive.put

    def put(self: Archive, dump: Any) -> Any:
        archived = real(self, dump)
        if dump.header.thread_id == "a":
            fill(blocking, "a", 1, ns="another log")
        return archived

    monkeypatch.setattr(Archive, "put", put)
    policy = RetentionPolicy(max_age=30 * DAY, archive=url)  # activity does not save it
    assert swept(blocking, policy) == SweepReport(clock.now, pruned=1, archived=2, spared=1)
    assert names(blocking) == {"a"}
    monkeypatch.undo()
    clock.now += DAY
    assert swept(blocking, policy) == SweepReport(clock.now, pruned=1, archived=1)
    assert Archive(url).find("a", "test")[-1].header.ends == {"": 3, "another log": 1}


def test_history_is_archived_before_it_is_trimmed(
    blocking: EventStore, clock: Clock, url: str
) -> None:
    stepped(blocking, "t", 10, clock, DAY)
    policy = RetentionPolicy(keep_last_checkpoints=3, archive=url)
    assert planned(blocking, policy).counts == {"prune": 0, "trim": 1, "archive": 1}
    assert swept(blocking, policy) == SweepReport(clock.now, trimmed=1, archived=1)
    blocking.delete_thread("t")
    restore(blocking, Archive(url), "t")
    assert numbers(list(blocking.read("t"))) == list(range(1, 21))


# --- an archive that does not respond ---------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Object storage that accepts connections and says nothing, as a stopped server does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        server.settimeout(SECONDS_MAX)
        yield server


HANGING: Final = RetentionPolicy(30 * DAY, archive="s3://bucket/threads", max_events=5)


@pytest.mark.slow
@pytest.mark.parametrize("actions", ["prune", "trim"])
def test_a_sweep_that_is_to_stop_does_not_wait_for_it(
    timed: EventStore, clock: Clock, silent: socket.socket, actions: str
) -> None:
    for number in range(3):
        stepped(timed, f"t{number}", 20, clock, timedelta(0))
    clock.now += 40 * DAY if actions == "prune" else DAY
    asked = threading.Event()

    def ask() -> None:
        connection, _ = silent.accept()
        asked.set()
        time.sleep(2 * LOOK_S)
        connection.close()

    threading.Thread(target=ask, daemon=True).start()
    began = time.monotonic()
    report = swept(timed, HANGING, should_stop=asked.is_set)
    assert time.monotonic() - began < 20
    assert report.stopped and report.failed == report.pruned == report.trimmed == 0
    assert report.left >= 1 and len(names(timed)) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("command", [["sweep"], ["run", "--every", "1h"]])
def test_a_signal_ends_a_process_that_waits_for_it(
    tmp_path: Path, silent: socket.socket, command: list[str]
) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as store:
        for number in range(30):
            fill(store, f"t{number}", 1)
    policies = tmp_path / "policies.toml"
    policies.write_text('[[policy]]\nname = "a"\nttl = "1d"\narchive = "s3://bucket/threads"\n')
    arguments = ["--db", str(tmp_path / "store.db"), "--policies", str(policies), "--yes", "--json"]
    run = processes.Popen(
        [sys.executable, "-m", "retention", *command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        connection, _ = silent.accept()
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=SECONDS_MAX)
    finally:
        run.kill()
        run.communicate()
    connection.close()
    assert time.monotonic() - began < 20
    assert run.returncode == 0 and "Traceback" not in err
    report = json.loads(out)
    assert report["stopped"] and report["failed"] == report["pruned"] == 0 and report["left"]


@pytest.mark.slow
def test_stopping_a_daemon_does_not_wait_for_it(
    store_url: str, clock: Clock, silent: socket.socket
) -> None:
    async def main() -> None:
        async with awaited.opened(store_url) as store:
            store.core._clock = clock
            await store.append("t", [Event(1, "x")], 0)
            clock.now += 40 * DAY
            daemon = AsyncBackgroundRetention(store, HANGING, DAY)
            await daemon.start()
            connection, _ = await asyncio.to_thread(silent.accept)
            await asyncio.wait_for(daemon.stop(), 20)
            connection.close()
            assert await store.thread("t")

    awaited.run(main())
