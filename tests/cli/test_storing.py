"""`archive`, `retention archive`, `restore` and `erase`: threads archived, restored and erased."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from tests.cli.support import ESCAPE, Done, run

Read = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for an archive, which commands find in the environment."""
    folder = tmp_path / "archive"
    monkeypatch.setenv("EVENTSTORE_ARCHIVE", folder.as_uri())
    return folder


def test_threads_are_put_away_and_listed(read: Read, place: Path) -> None:
    done = read("retention", "archive", "done", ESCAPE, "--json")
    assert done.code == exits.OK
    assert [each["thread_id"] for each in done.lines] == ["done", ESCAPE]
    assert len([each for each in place.rglob("*") if each.is_file()]) == 2
    found = {each["thread_id"]: each for each in run("archive", "ls", "--json").lines}
    assert found.keys() == {"done", ESCAPE} and found["done"]["events"] == 7
    out = run("archive", "ls").out
    assert r"a \x1b[2J\u202e name" in out and out.startswith("THREAD ")
    assert run("archive", "ls", "--tenant", "nobody").err == "no files of tenant 'nobody'\n"
    assert run("archive", "verify").out == "2 files, all sound\n"
    assert read("show", "done").code == exits.OK, "it is still in the database"


def test_a_thread_is_moved_and_comes_back_equal(database: str, read: Read, place: Path) -> None:
    before = read("events", "done", "--json").lines
    refused = run("retention", "archive", "done", "--prune")
    assert refused.code == exits.USAGE and "--yes" in refused.err
    move = ("retention", "archive", "done", "--prune", "--reason", "old", "--by", "Ann", "--yes")
    waiting = run(*move)
    assert waiting.code == exits.FOUND and "waiting for a resume value" in waiting.err
    moved = run(*move, "--despite-pin")
    assert moved.code == exits.OK and "done moved to " in moved.out
    assert read("show", "done").code == exits.MISSING
    (tombstone,) = read("retention", "report", "--json").json["removed"]
    assert (tombstone["reason"], tombstone["asked_by"]) == ("old", "Ann")
    assert run("retention", "restore", "done", "--json").json["thread_id"] == "done"
    assert read("events", "done", "--json").lines == before
    assert read("retention", "report", "--json").json["removed"] == []
    there = run("retention", "restore", "done")
    assert there.code == exits.FOUND and "already exists" in there.err
    assert "thread_id" not in there.err


def test_one_that_is_missing_does_not_keep_the_others(database: str, place: Path) -> None:
    done = run("retention", "archive", "waits", "nobody", "failed", "--json")
    assert done.code == exits.MISSING and "nobody" in done.err
    assert [each["thread_id"] for each in done.lines] == ["waits", "failed"]
    done = run("retention", "archive", "waits", "nobody", "failed", "--prune", "--yes", "--json")
    assert done.code == exits.FOUND and "waits" in done.err and "nobody" in done.err
    assert [each["thread_id"] for each in done.lines] == ["failed"]


def test_a_thread_comes_back_to_stay(database: str, place: Path) -> None:
    assert run("retention", "archive", "failed", "--prune", "--yes").code == exits.OK
    restore = ("retention", "restore", "failed")
    assert run(*restore, "--ttl", "long").code == exits.USAGE
    done = run(*restore, "--pin", "case 7", "--by", "legal", "--ttl", "90d", "--json")
    assert done.code == exits.OK
    assert done.json["pinned"] and done.json["ttl_seconds"] == 90 * 86_400
    assert run("retention", "archive", "failed", "--prune", "--yes").code == exits.FOUND


def test_a_pinned_thread_is_not_moved(database: str, read: Read, place: Path) -> None:
    run("retention", "pin", "done", "--reason", "case 7", "--by", "legal")
    move = ("retention", "archive", "done", "--prune", "--yes")
    refused = run(*move)
    assert refused.code == exits.FOUND and "pinned by legal (case 7)" in refused.err
    assert "--despite-pin" in refused.err and "=" not in refused.err
    assert read("show", "done").code == exits.OK
    assert run(*move, "--despite-pin").code == exits.OK
    erase = ("retention", "erase", "done", "--reason", "x", "--yes", "--forks", "keep")
    refused = run(*erase)
    assert refused.code == exits.FOUND and "case 7" in refused.err
    assert [each["thread_id"] for each in run("archive", "ls", "--json").lines] == ["done"]
    assert run(*erase, "--despite-pin").code == exits.OK


def test_what_an_archive_does_not_hold(database: str, place: Path) -> None:
    for command in (
        ("archive", "ls"),
        ("archive", "verify"),
        ("retention", "restore", "nobody"),
        ("retention", "erase", "done", "--reason", "x", "--yes"),
    ):
        done = run(*command)
        assert done.code == exits.DATABASE and "no such directory" in done.err
    assert not place.exists()
    place.mkdir()
    done = run("retention", "restore", "nobody")
    assert done.code == exits.MISSING and "nobody" in done.err
    assert run("retention", "archive", "nobody").code == exits.MISSING
    for url in ("nonsense", "ftp://host/x", "file:arch"):
        done = run("archive", "ls", "--archive", url)
        assert done.code == exits.DATABASE and done.err.startswith("eventstore: ")
    secret = run("archive", "ls", "--archive", "nope://ann:s3cret@host/x")
    assert secret.code == exits.DATABASE and "s3cret" not in secret.err


def test_a_damaged_file_is_found(read: Read, place: Path) -> None:
    for name in ("done", "waits"):
        assert read("retention", "archive", name).code == exits.OK
    path = next(each for each in place.rglob("*") if each.is_file())
    path.write_bytes(path.read_bytes()[:-40])
    done = run("archive", "verify")
    assert done.code == exits.FOUND and "2 files, 1 damaged" in done.out
    lines = run("archive", "verify", "--json").lines
    assert sorted(each["ok"] for each in lines) == [False, True]


def test_erasing_leaves_nothing_but_a_tombstone_without_a_name(
    database: str, read: Read, place: Path
) -> None:
    assert read("retention", "archive", "waits").code == exits.OK
    erase = ("retention", "erase", "waits", "--reason", "asked for", "--by", "Ann")
    dry = run(*erase, "--dry-run", "--json")
    assert dry.code == exits.OK
    assert (dry.json["threads"], dry.json["archived"]) == (1, 1)
    refused = run(*erase)
    assert refused.code == exits.USAGE and "--yes" in refused.err
    assert read("show", "waits").code == exits.OK
    done = run(*erase, "--yes")
    assert done.code == exits.OK and "1 thread and 1 file erased" in done.out
    assert read("show", "waits").code == exits.MISSING
    assert run("archive", "ls", "--json").lines == []
    (tombstone,) = read("retention", "report", "--json").json["removed"]
    assert (
        tombstone["erased"] and tombstone["thread_key"] is None and tombstone["asked_by"] == "Ann"
    )
    again = run(*erase, "--yes", "--json")
    assert again.code == exits.OK and again.json["threads"] == 0, "no harm in asking again"


def test_forks_and_pins_stand_against_erasing(database: str, read: Read) -> None:
    refused = run("retention", "erase", "done", "--reason", "x", "--yes")
    assert refused.code == exits.FOUND and "branch" in refused.err
    assert "--forks erase" in refused.err and "forks=" not in refused.err
    run("retention", "pin", "failed", "--reason", "case")
    assert run("retention", "erase", "failed", "--reason", "x", "--yes").code == exits.FOUND
    kept = run("retention", "erase", "done", "--reason", "x", "--yes", "--forks", "keep", "--json")
    assert kept.code == exits.OK and kept.json["kept"] == ["branch"]
    assert read("verify", "branch").code == exits.OK


def test_a_persons_threads_are_erased_by_metadata(database: str, read: Read, place: Path) -> None:
    with EventStore(database) as store:
        for name, user in (("ann-1", "ann"), ("ann-2", "ann"), ("bob", "bob")):
            store.append(name, [Event(1)], 0, metadata={"user": user})
    assert read("retention", "archive", "ann-1").code == exits.OK
    erase = ("retention", "erase", "--reason", "asked for", "--yes", "--json")
    assert run(*erase, "--metadata", "user=ann", "bob").code == exits.USAGE
    nobody = run(*erase, "--metadata", "usr=ann")
    assert nobody.code == exits.MISSING and "no thread has usr=ann" in nobody.err
    dry = run(*erase, "--metadata", "user=ann", "--dry-run")
    assert (dry.json["threads"], dry.json["archived"]) == (2, 1)
    done = run(*erase, "--metadata", "user=ann")
    assert (done.code, done.json["threads"], done.json["archived"]) == (exits.OK, 2, 1)
    names = {each["thread_id"] for each in read("threads", "--json").lines}
    assert "bob" in names and not {"ann-1", "ann-2"} & names
    assert run("archive", "ls", "--json").lines == []


def test_a_whole_tenant_is_erased(database: str, read: Read) -> None:
    for wrong in ([], ["done", "--whole-tenant"]):
        assert run("retention", "erase", *wrong, "--reason", "x", "--yes").code == exits.USAGE
    done = run("retention", "erase", "--whole-tenant", "--reason", "left", "--yes", "--json")
    assert done.code == exits.OK and done.json["threads"] == 5
    assert read("threads", "--json").lines == []
