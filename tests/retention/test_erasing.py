"""Erasing removes everything of a thread, nothing else, and can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventstore import (
    ArchiveError,
    CorruptEventError,
    Event,
    EventStore,
    NewSnapshot,
    ThreadNotFoundError,
)
from retention.archives import Archive, archive_and_prune, archive_thread, restore
from retention.erasing import ErasureRefusedError, aerase, erase
from tests import awaited
from tests.eventstore.support import FINGERPRINT, check_whole, fill, orphans, sql, values_of
from tests.eventstore.test_archiving import full_thread, taken

WHY: Any = {"reason": "asked to be forgotten", "by": "dpo"}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "archive").mkdir()
    return Archive(f"file://{tmp_path}/archive")


@pytest.fixture
def local() -> Iterator[EventStore]:
    with EventStore("sqlite://", tenant="test") as store:
        yield store


def test_everything_of_a_thread_goes(blocking_store: EventStore, archive: Archive) -> None:
    store = blocking_store
    full_thread(store, "t")
    file = taken(store, "t")
    archive_and_prune(store, archive, "t", "archived", despite_pin=True)
    full_thread(store, "t")
    archive_thread(store, archive, "t")
    full_thread(store, "kept")
    archive_thread(store, archive, "kept")
    dry = erase(store, **WHY, thread_id="t", archives=[archive], dry_run=True)
    assert (dry.threads, dry.archived, dry.wiped) == (1, 2, None)
    assert len(archive.find("t", "test")) == 2
    report = erase(store, **WHY, thread_id="t", archives=[archive])
    assert (report.threads, report.archived, report.tombstones) == (1, 2, 1)
    with pytest.raises(ThreadNotFoundError):
        store.thread("t")
    assert [each.thread_id for each in archive.ls()] == ["kept"]
    tombstones = store.tombstones()
    assert len(tombstones) == 2
    assert all(each.erased and each.asked_by == "dpo" for each in tombstones)
    with pytest.raises(ArchiveError, match="was erased"):
        store.load(file)
    assert not orphans(store)
    fill(store, "t", 1)  # the name can be used again
    assert check_whole(store) == 2


def test_a_thread_that_is_only_in_an_archive(local: EventStore, archive: Archive) -> None:
    full_thread(local, "t")
    file = taken(local, "t")
    archive_and_prune(local, archive, "t", "archived", despite_pin=True)
    report = erase(local, **WHY, thread_id="t", archives=[archive])
    assert (report.threads, report.archived, report.tombstones) == (0, 1, 1)
    assert list(archive.ls()) == []
    with pytest.raises(ArchiveError, match="was erased"):
        local.load(file)
    with EventStore("sqlite://", tenant="test") as other:  # another database, without the thread
        full_thread(local, "u")
        archive_and_prune(local, archive, "u", "archived", despite_pin=True)
        erase(other, **WHY, thread_id="u", archives=[archive])
        (tombstone,) = other.tombstones()
        assert (tombstone.erased, tombstone.events) == (True, 84)


def test_it_can_be_done_again(local: EventStore, archive: Archive) -> None:
    full_thread(local, "t")
    archive_thread(local, archive, "t")
    erase(local, **WHY, thread_id="t", archives=[archive])
    report = erase(local, **WHY, thread_id="t", archives=[archive])
    assert (report.threads, report.archived, report.tombstones) == (0, 0, 0)
    assert len(local.tombstones()) == 1
    with pytest.raises(ThreadNotFoundError):
        erase(local, **WHY, thread_id="nobody", archives=[archive])


def test_a_pinned_thread_is_refused(local: EventStore) -> None:
    full_thread(local, "t")
    local.pin("t", "case 7", "legal")
    with pytest.raises(ErasureRefusedError, match=r"'t' by legal \(case 7\).*nothing was erased"):
        erase(local, **WHY, thread_id="t")
    assert local.verify("t").ok
    assert erase(local, **WHY, thread_id="t", despite_pin=True).threads == 1


@pytest.mark.parametrize("known", [True, False])
def test_damaged_files_are_counted(
    local: EventStore, archive: Archive, tmp_path: Path, known: bool
) -> None:
    for name in ("t", "other"):
        fill(local, name, 2)
        path = tmp_path / "archive" / archive_thread(local, archive, name).name
        path.write_bytes(b"not what was written")
    with EventStore("sqlite://", tenant="test") as empty:
        store = local if known else empty
        dry = erase(store, **WHY, thread_id="t", archives=[archive], dry_run=True)
        assert (dry.threads, dry.archived) == (int(known), 1)
        assert erase(store, **WHY, thread_id="t", archives=[archive]).archived == 1
    assert [*tmp_path.rglob("*.thread")] == [path], "that of the other is left"


def test_a_pin_holds_in_an_archive(local: EventStore, archive: Archive) -> None:
    fill(local, "t", 2)
    local.pin("t", "case 7", "legal")
    archive_and_prune(local, archive, "t", "archived", despite_pin=True)
    with pytest.raises(ErasureRefusedError, match=r"'t' by legal \(case 7\) in an archive"):
        erase(local, **WHY, thread_id="t", archives=[archive])
    with pytest.raises(ErasureRefusedError):
        erase(local, **WHY, tenant="test", archives=[archive], dry_run=True)
    restore(local, archive, "t")
    local.unpin("t")  # the row of a thread in the database takes precedence over its files
    archive_and_prune(local, archive, "t", "archived")
    assert erase(local, **WHY, thread_id="t", archives=[archive]).archived == 2
    fill(local, "u", 2)
    local.pin("u", "case 8", "legal")
    archive_and_prune(local, archive, "u", "archived", despite_pin=True)
    report = erase(local, **WHY, thread_id="u", archives=[archive], despite_pin=True)
    assert report.archived == 1


@pytest.mark.parametrize("forks", ["erase", "keep"])
@pytest.mark.parametrize("fork_is", ["here", "archived", "pruned"])
def test_forks(local: EventStore, archive: Archive, forks: Any, fork_is: str) -> None:
    fill(local, "t", 10)
    local.fork("t", 5, "fork")
    fill(local, "fork", 2, start=100)
    local.fork("fork", 3, "fork of fork")
    expected = values_of(local.replay("fork"))
    if fork_is != "here":
        archive_thread(local, archive, "fork")
    if fork_is == "pruned":
        local.delete_thread("fork")
    with pytest.raises(ErasureRefusedError) as caught:
        erase(local, **WHY, thread_id="t", archives=[archive])
    assert caught.value.thread_ids == ("fork", "fork of fork")
    assert local.verify("t").ok
    report = erase(local, **WHY, thread_id="t", archives=[archive], forks=forks)
    if forks == "erase":
        assert local.threads() == []
        assert list(archive.ls()) == []
        assert report.threads == (2 if fork_is == "pruned" else 3)
        return
    assert "fork of fork" in report.kept
    if fork_is != "here":
        assert len(report.kept_archived) == 1
    if fork_is == "pruned":
        restore(local, archive, "fork")
    assert values_of(local.replay("fork")) == expected
    assert check_whole(local) == 2
    # A later erasure still finds the bytes that they hold.
    with pytest.raises(ErasureRefusedError):
        erase(local, **WHY, thread_id="t", archives=[archive])
    erase(local, **WHY, thread_id="t", archives=[archive], forks="erase")
    assert local.threads() == []
    assert list(archive.ls()) == []


def test_a_tenant(local: EventStore, archive: Archive) -> None:
    other = local.with_tenant("other")
    for store in (local, other):
        for name in ("one", "two", "three"):
            full_thread(store, name)
        store.fork("one", 3, "four")
        archive_thread(store, archive, "one")
        archive_and_prune(store, archive, "three", "archived", despite_pin=True)
    report = erase(local, **WHY, tenant="other", archives=[archive])
    assert (report.threads, report.archived) == (3, 2)
    assert other.threads() == []
    assert {each.tenant for each in archive.ls()} == {"test"}
    assert check_whole(local) == 3
    assert all(each.erased for each in other.tombstones())


def test_for_event_loops(store_url: str, archive: Archive) -> None:
    async def main() -> None:
        async with awaited.opened(store_url) as store:
            await store.append("t", [Event(1, "x")], 0)
            dump = await store.dump("t")
            with dump:
                archive.put(dump)
            report = await aerase(store, **WHY, thread_id="t", archives=[archive])
            assert (report.threads, report.archived) == (1, 1)
            assert await store.threads() == []
        assert list(archive.ls()) == []

    awaited.run(main())


def test_arguments() -> None:
    with EventStore("sqlite://") as store:
        for wrong in (
            {},
            {"thread_id": "t", "tenant": "u"},
            {"thread_id": "t", "forks": "ask"},
            {"thread_id": "t", "by": " "},
        ):
            with pytest.raises(ValueError, match=r"must be|expected either"):
                erase(store, **{**WHY, **wrong})


# --- in the file ------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    """Neither the file's pages nor the write-ahead log contain the text or the name."""
    path = tmp_path / "store.db"
    rng = random.Random(7)
    marker, name = "the patient said so", "patient-4711"
    with EventStore(path, tenant="test") as store:
        for turn in range(300):  # alternating writers, so that pages are split in the middle
            for thread_id in (name, *(f"other {n}" for n in rng.sample(range(40), 4))):
                text = f"{marker} {turn}" if thread_id == name else f"something else {turn}"
                head = store.head(thread_id)
                snapshot = NewSnapshot(FINGERPRINT, text.encode() * 50, b"")
                store.append_after(
                    head,
                    [Event(1, text, key=f"{thread_id} {turn}")],
                    snapshot=snapshot if turn % 10 == 0 else None,
                    metadata={"of": thread_id},
                )
        files = [path, path.with_name("store.db-wal")]
        assert any(marker.encode() in each.read_bytes() for each in files)
        report = erase(store, **WHY, thread_id=name)
        assert report.wiped is not None
        assert report.wiped.vacuumed
        assert report.wiped.log_emptied
        for each in files:
            content = each.read_bytes() if each.exists() else b""
            assert marker.encode() not in content
            assert name.encode() not in content
        assert check_whole(store) == 40


@pytest.mark.slow
def test_a_reader_keeps_the_log_from_being_emptied(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with EventStore(path, tenant="test") as store:
        fill(store, "t", 3)
        reader = store.engine.raw_connection()
        cursor = reader.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SELECT count(*) FROM events").fetchall()
        try:
            report = erase(store, **WHY, thread_id="t", vacuum=False)
            assert report.wiped is not None
            assert not report.wiped.log_emptied
        finally:
            cursor.execute("ROLLBACK")
            reader.close()
        again = erase(store, **WHY, thread_id="t", vacuum=False)
        assert again.wiped is not None
        assert again.wiped.log_emptied


def test_rows_of_tombstones_tell_nothing(local: EventStore) -> None:
    full_thread(local, "t")
    key = local.thread("t").thread_key
    erase(local, **WHY, thread_id="t")
    (row,) = sql(local, "SELECT * FROM tombstones")
    assert key not in row


def test_damage_to_another_thread_is_not_in_the_way(
    blocking_store: EventStore, archive: Archive
) -> None:
    store = blocking_store
    for name in ("t", "damaged"):
        fill(store, name, 3)
    archive_thread(store, archive, "t")
    sql(
        store,
        "UPDATE threads SET condemned_at = 1, fate = 'damaged' WHERE thread_id = 'damaged'",
    )
    with pytest.raises(CorruptEventError, match="'damaged'"):  # raised at the end
        erase(store, **WHY, thread_id="t", archives=[archive])
    assert list(archive.ls()) == []
    assert sql(store, "SELECT thread_id FROM threads") == [("damaged",)]
    (tombstone,) = store.tombstones()
    assert tombstone.erased
