"""Sweeps that archive: nothing is removed before its last event is in the archive."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from eventstore import ArchiveUnavailableError, EventStore, Pin
from retention import Match, RetentionPolicy, SweepReport
from retention.archives import Archive, restore
from retention.sweep.archiving import REFUSALS_MAX
from tests.eventstore.support import fill, numbers
from tests.retention.support import DAY, Clock, names, planned, stepped, swept


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
