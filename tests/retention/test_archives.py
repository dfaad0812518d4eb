"""Archives in a directory, in memory and on an S3 server: files are complete and can be found."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventstore import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveNotFoundError,
    ArchiveUnavailableError,
    ConfigurationError,
    Event,
    EventStore,
    ThreadNotFoundError,
)
from retention.archives import (
    Archive,
    PruningRefusedError,
    aarchive_and_prune,
    aexport_thread,
    aimport_thread,
    archive_and_prune,
    archive_thread,
    arestore,
    export_thread,
    import_thread,
    restore,
)
from retention.erasing import ErasureRefusedError, erase
from tests import awaited, processes
from tests.effort import effort
from tests.eventstore.support import check_whole, fill, numbers, orphans
from tests.eventstore.test_archiving import all_rows, full_thread
from tests.retention.support import DAY, Clock

pytestmark = pytest.mark.slow

BUCKET = "archive"


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server with one bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["directory", "memory", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    """An empty archive."""
    if request.param == "directory":
        (tmp_path / "far/archive").mkdir(parents=True)
        return Archive(f"file://{tmp_path}/far/archive")
    if request.param == "memory":
        return Archive("memory:///")
    options = {
        "endpoint": request.getfixturevalue("s3"),
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
    }
    return Archive(f"s3://{BUCKET}/{tmp_path.name}", options)


@pytest.fixture
def local() -> Iterator[EventStore]:
    """A store on the cheapest database, for tests that do not depend on it."""
    with EventStore("sqlite://", tenant="test") as store:
        yield store


def test_there_and_back(blocking_store: EventStore, tmp_path: Path) -> None:
    store, archive = blocking_store, Archive(f"file://{tmp_path}/archive")
    key = full_thread(store)
    before = all_rows(store, key)
    archived = archive_and_prune(store, archive, "t", "archived", policy="old", despite_pin=True)
    assert archived is not None
    with pytest.raises(ThreadNotFoundError):
        store.thread("t")
    assert restore(store, archive, "t").thread_id == "t"
    assert all_rows(store, key) == before
    assert not orphans(store)


def test_there_and_back_for_event_loops(store_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        archive = Archive(f"file://{tmp_path}/archive")
        async with awaited.opened(store_url) as store:
            await store.append("t", [Event(1, {"n": 1})], 0)
            assert await aarchive_and_prune(store, archive, "t", "archived")
            assert (await store.head("t")).seq == 0
            with pytest.raises(ConfigurationError, match="needs a non-empty"):
                await arestore(store, archive, "t", pin=(" ", "legal"))
            back = await arestore(store, archive, "t", pin=("case 7", "legal"))
            assert back.pin is not None
            assert (back.thread_id, back.pin.reason) == ("t", "case 7")
            assert (await store.head("t")).seq == 1
            await aexport_thread(store, "t", tmp_path / "t.thread")
            await store.delete_thread("t")
            await aimport_thread(store, tmp_path / "t.thread")
            assert (await store.verify("t")).ok

    awaited.run(main())


def test_what_an_archive_holds(local: EventStore, archive: Archive) -> None:
    for name in ("one", "two"):
        full_thread(local, name)
    kept = {name: archive_thread(local, archive, name) for name in ("one", "two")}
    elsewhere = local.with_tenant("other")
    fill(elsewhere, "one", 3)
    archive_thread(elsewhere, archive, "one")
    listed = list(archive.ls("test"))
    assert sorted(listed, key=lambda each: each.thread_id) == [kept["one"], kept["two"]]
    assert [each.tenant for each in archive.ls("other")] == ["other"]
    assert len(list(archive.ls())) == 3
    assert archive.find("one", "test") == [kept["one"]]
    assert all(problem is None for _, problem in archive.verify())
    with archive.get("two", "test") as dump:
        assert dump.header == kept["two"].header
    assert not any("one" in each.name or "two" in each.name for each in listed)
    assert archive.delete("one", "test") == 1
    assert archive.delete("one", "test") == 0
    with pytest.raises(ArchiveNotFoundError, match="'one'"):
        archive.get("one", "test")
    assert archive.find("one", "test") == []


def test_the_newest_of_several_files(local: EventStore, archive: Archive) -> None:
    fill(local, "t", 2)
    archive_thread(local, archive, "t")
    fill(local, "t", 2, start=3)
    archive_and_prune(local, archive, "t", "archived")
    fill(local, "t", 1, start=100)
    archive_and_prune(local, archive, "t", "archived")
    assert len(archive.find("t", "test")) == 3
    restore(local, archive, "t")
    assert numbers(local.read("t")) == [100]
    local.delete_thread("t")
    restore(local, archive, "t", generation=0)
    assert numbers(local.read("t")) == [1, 2, 3, 4]
    assert archive.delete("t", "test", generation=0) == 2


def test_a_large_file(local: EventStore, archive: Archive) -> None:
    local.append("t", [Event(1, os.urandom(2_000_000)) for _ in range(6)], 0)
    archived = archive_and_prune(local, archive, "t", "archived")
    assert archived is not None
    assert archived.size > 12_000_000
    restore(local, archive, "t")
    assert local.verify("t").ok


def test_a_thread_that_has_come_to_life_stays(
    local: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(f"file://{tmp_path}/archive")
    fill(local, "t", 2)
    put = archive.put

    def put_and_append(dump: Any) -> Any:
        fill(local, "t", 1, start=3)
        return put(dump)

    monkeypatch.setattr(archive, "put", put_and_append)
    assert archive_and_prune(local, archive, "t", "archived") is None
    assert numbers(local.read("t")) == [1, 2, 3]


def test_a_thread_that_is_held_stays(store_url: str, local: EventStore, tmp_path: Path) -> None:
    archive = Archive(f"file://{tmp_path}/archive")
    fill(local, "pinned", 1)
    local.pin("pinned", "case 7", "legal")
    local.append("waits", [Event(1, "?")], 0, status="waiting")
    for name, why in (("pinned", r"pinned by legal \(case 7\)"), ("waits", "waiting")):
        with pytest.raises(PruningRefusedError, match=why):
            archive_and_prune(local, archive, name, "archived")
        assert not list(tmp_path.rglob("*.thread")), "nothing is archived in vain"
        assert local.thread(name).thread_id == name
    assert archive_and_prune(local, archive, "waits", "archived", despite_pin=True)
    assert archive_and_prune(local, archive, "pinned", "archived", despite_pin=True)
    assert restore(local, archive, "pinned").pinned

    async def main() -> None:
        async with awaited.opened(store_url) as store:
            await store.append("t", [Event(1, "?")], 0, status="waiting")
            with pytest.raises(PruningRefusedError):
                await aarchive_and_prune(store, archive, "t", "archived")
            assert await aarchive_and_prune(store, archive, "t", "archived", despite_pin=True)

    awaited.run(main())


def test_a_thread_that_is_pinned_while_it_is_archived_stays(
    local: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(f"file://{tmp_path}/archive")
    fill(local, "t", 2)
    put = archive.put

    def put_and_pin(dump: Any) -> Any:
        local.pin("t", "case 7", "legal")
        return put(dump)

    monkeypatch.setattr(archive, "put", put_and_pin)
    with pytest.raises(PruningRefusedError):
        archive_and_prune(local, archive, "t", "archived")
    assert numbers(local.read("t")) == [1, 2]


@pytest.mark.parametrize("at", [0, 20, 60, -200, -1])
def test_damage_in_an_archive_is_found(local: EventStore, tmp_path: Path, at: int) -> None:
    archive = Archive(f"file://{tmp_path}/archive")
    for name in ("t", "other"):
        full_thread(local, name)
    archived = archive_and_prune(local, archive, "t", "archived", despite_pin=True)
    archive_thread(local, archive, "other")
    assert archived is not None
    path = tmp_path / "archive" / archived.name
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveDamagedError):
        restore(local, archive, "t")
    problems = dict(archive.verify())
    assert len(problems) == 2
    assert [name for name, problem in problems.items() if problem] == [archived.name]
    assert "other" in {each.thread_id for each in archive.ls()}
    assert check_whole(local) == 1


def test_a_file_under_another_name_is_found(local: EventStore, tmp_path: Path) -> None:
    archive = Archive(f"file://{tmp_path}/archive")
    names = {}
    for name in ("one", "two"):
        fill(local, name, 1)
        names[name] = tmp_path / "archive" / archive_thread(local, archive, name).name
    names["two"].write_bytes(names["one"].read_bytes())
    with pytest.raises(ArchiveDamagedError, match="another thread"):
        archive.get("two", "test")


def test_an_archive_that_cannot_be_used(local: EventStore, tmp_path: Path) -> None:
    fill(local, "t", 1)
    with pytest.raises(ConfigurationError, match="as an archive"):
        Archive("nonsense")
    options = {
        "endpoint": "http://127.0.0.1:9",
        "access_key_id": "test",
        "secret_access_key": "hidden",
        "region": "us-east-1",
        "client_options": {"allow_http": True},
        "retry_config": {"max_retries": 0},
    }
    archive = Archive("s3://bucket/prefix", options)
    with pytest.raises(ArchiveUnavailableError) as caught:
        archive_and_prune(local, archive, "t", "archived")
    assert "hidden" not in str(caught.value)
    assert numbers(local.read("t")) == [1]


def test_a_directory_is_made_by_what_puts_into_it_alone(local: EventStore, tmp_path: Path) -> None:
    archive = Archive(f"file://{tmp_path}/no/such")
    fill(local, "t", 1)
    looks: list[Any] = [
        lambda: list(archive.ls()),
        lambda: list(archive.verify()),
        lambda: archive.find("t"),
        lambda: archive.delete("t"),
        lambda: restore(local, archive, "t"),
        lambda: erase(local, "asked for", "dpo", thread_id="t", archives=[archive]),
    ]
    for look in looks:
        with pytest.raises(ArchiveUnavailableError, match="no such directory"):
            look()
    assert not (tmp_path / "no").exists()
    assert local.thread("t").thread_id == "t"
    archive_thread(local, archive, "t")
    assert [each.thread_id for each in archive.ls()] == ["t"]


def test_a_directory_is_named_from_the_root_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    for url in ("file:arch", "file:/arch", "file://arch", "FILE:arch", "file://localhost/arch"):
        with pytest.raises(ConfigurationError, match=r"absolute path.*file:///directory"):
            Archive(url)
    with pytest.raises(ConfigurationError, match="is not a directory"):
        Archive((tmp_path / "a file").as_uri())


def test_export_and_import(local: EventStore, tmp_path: Path) -> None:
    key = full_thread(local)
    before = all_rows(local, key)
    header = export_thread(local, "t", tmp_path / "t.thread")
    assert header.thread_id == "t"
    local.delete_thread("t")
    import_thread(local, tmp_path / "t.thread")
    assert all_rows(local, key) == before


# --- killed -----------------------------------------------------------------------------

MOVER = """
import sys
from eventstore import EventStore
from retention.archives import Archive, archive_and_prune, restore
store, archive = EventStore(sys.argv[1], tenant="test"), Archive(sys.argv[2])
print("ready", flush=True)
while True:
    archive_and_prune(store, archive, "t", "archived")
    restore(store, archive, "t")
"""


def test_killed_at_any_moment_it_is_in_one_of_the_two(store_url: str, tmp_path: Path) -> None:
    """The thread is in the store, in the archive or in both, and complete wherever it is."""
    if store_url == "sqlite://":
        pytest.skip("nothing is left of a database in memory")
    url = f"file://{tmp_path}/archive"
    (tmp_path / "archive").mkdir()  # a mover may be killed before it archives anything
    archive = Archive(url)
    with EventStore(store_url, tenant="test") as store:
        fill(store, "t", 1500)
        fill(store, "t", 10, "sub")
        expected = numbers(store.read("t"))
    for turn in range(effort(2, 5)):
        command = [sys.executable, "-c", MOVER, store_url, url]
        mover = processes.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd())
        assert mover.stdout is not None
        assert mover.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.037 * turn)
        mover.send_signal(signal.SIGKILL)
        mover.wait()
        mover.stdout.close()
        with EventStore(store_url, tenant="test") as store:
            store.finish_deletions()
            if not store.head("t").exists:
                restore(store, archive, "t")
            assert numbers(store.read("t")) == expected
            assert check_whole(store) == 1
            assert not orphans(store)
    assert all(problem is None for _, problem in archive.verify())


def test_the_newest_file_is_that_of_the_longest_log(tmp_path: Path) -> None:
    """A clock that was ahead when a thread was archived does not hide what was added later."""
    clock, archive = Clock(), Archive(f"file://{tmp_path}/archive")
    with EventStore("sqlite://", tenant="test", clock=clock) as store:
        fill(store, "t", 3)
        clock.now += 365 * DAY
        archive_thread(store, archive, "t")
        clock.now -= 364 * DAY
        fill(store, "t", 2)
        store.pin("t", "case 7", "legal")
        archive_thread(store, archive, "t")
        clock.now += DAY
        archive_and_prune(store, archive, "t", "archived", despite_pin=True)
        assert [each.header.events for each in archive.find("t", "test")] == [3, 5, 5]
        with pytest.raises(ErasureRefusedError, match="case 7"):
            erase(store, "asked", "dpo", thread_id="t", archives=[archive], dry_run=True)
        assert restore(store, archive, "t").pinned
        assert len(list(store.read("t"))) == 5


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@127.0.0.1:1/bucket?sig=s3cret",
        "http://s3cret@127.0.0.1:1/bucket",
        "nope://user:s3cret@host/x",
        "s3://user:s3/cret@host/x",
    ],
)
def test_errors_show_no_password(url: str) -> None:
    with pytest.raises((ArchiveError, ConfigurationError)) as raised:
        list(Archive(url, {"retry_config": {"max_retries": 0}}).ls())
    assert "s3cret" not in str(raised.value) and "cret@" not in str(raised.value)
