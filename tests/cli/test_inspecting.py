"""`stats`, `verify` and `migrate`, and databases that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from tests.cli.support import APP, ESCAPE, Done, run, unchanged
from tests.eventstore.support import sql

Read = Callable[..., Done]


# --- stats ------------------------------------------------------------------------------


def test_stats_of_all_threads_and_of_some(database: str, read: Read) -> None:
    found = read("stats", "--json").json
    with EventStore(database) as store:
        every = store.stats()
    assert (found["threads"], found["events"]) == (every.threads, every.events) == (5, 17)
    assert found["stored_bytes"] == every.stored_bytes
    assert found["by_status"] == {"waiting": 4, "failed": 1}
    some = read("stats", "done", "waits", "--json").json
    assert (some["threads"], some["events"]) == (2, 10)
    out = read("stats").out
    assert "threads    5 (1 failed, 4 waiting)" in out
    assert read("stats", "--tenant", "nobody", "--json").json["threads"] == 0


def test_a_damaged_header_is_counted_out_and_named(database: str, read: Read) -> None:
    with EventStore(database) as store:
        key = store.thread("done").thread_key
        sql(store, "UPDATE events SET payload = x'ff00' WHERE thread_key = ?", (key,))
    done = read("stats", "--json")
    assert done.code == exits.FOUND
    assert done.json["damaged"] == ["done"] and done.json["threads"] == 4


# --- verify -----------------------------------------------------------------------------


def test_sound_threads_verify_without_the_application(read: Read) -> None:
    done = read("verify")
    assert done.code == exits.OK
    assert done.out == "5 threads, 17 events, all sound\n"
    assert "were not decoded, only their digests checked: Author/1" in done.err
    lines = read("verify", "--json").lines
    assert all(each["ok"] for each in lines) and len(lines) == 5
    assert {each["thread_id"] for each in lines} >= {ESCAPE, "done"}
    with_types = read("verify", *APP)
    assert with_types.code == exits.OK
    assert "were not decoded" not in with_types.err


def test_damage_is_found_and_the_others_are_checked_all_the_same(database: str, read: Read) -> None:
    with EventStore(database) as store:
        key = store.thread("done").thread_key
        sql(store, "UPDATE events SET recorded_at = 1 WHERE seq = 2 AND thread_key = ?", (key,))
    done = read("verify")
    assert done.code == exits.FOUND
    assert "done: thread 'done', namespace '', seq 2" in done.out
    assert "1 of them damaged" in done.out
    bad = [each for each in read("verify", "--json").lines if not each["ok"]]
    assert [each["thread_id"] for each in bad] == ["done"] and "seq 2" in bad[0]["problems"][0]
    assert read("verify", "waits").code == exits.OK
    assert read("verify", "done", *APP).code == exits.FOUND


# --- migrate ----------------------------------------------------------------------------


def test_migrate_sets_an_empty_database_up(postgresql_url: str, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert run("migrate", "--db", str(path)).code == exits.DATABASE
    assert not path.exists()
    path.write_bytes(b"")
    for target in (str(path), postgresql_url):
        db = ("--db", target)
        assert run("threads", *db).code == exits.DATABASE
        assert run("migrate", *db, "--dry-run", "--json").json == {
            "pending": [
                "0001_log",
                "0002_retention",
                "0003_run_leases",
                "0004_thread_checksum",
                "0005_first_keys",
                "0006_thread_reached",
            ]
        }
        assert run("threads", *db).code == exits.DATABASE, "a dry run has set it up"
        assert run("migrate", *db, "--json").json == {
            "applied": [
                "0001_log",
                "0002_retention",
                "0003_run_leases",
                "0004_thread_checksum",
                "0005_first_keys",
                "0006_thread_reached",
            ]
        }
        assert "is up to date" in run("migrate", *db).out
        assert run("threads", *db).code == exits.OK
    made = tmp_path / "made.db"
    assert run("migrate", "--db", str(made), "--create").code == exits.OK
    assert run("stats", "--db", f"sqlite:///{made}").code == exits.OK


def test_an_older_database_is_not_migrated_by_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with EventStore(path) as store:
        store.append("a", [Event(1)], 0)
        sql(store, "DELETE FROM eventstore_migrations WHERE name <> '0001_log'")
        for table in ("segments", "dictionaries", "eventstore_secrets"):
            sql(store, f"DROP TABLE {table}")
        for table in ("retention_slices", "retention_sweeps"):
            sql(store, f"DROP TABLE {table}")
    for command in (["threads"], ["show", "a"], ["events", "a"], ["verify"], ["stats"]):
        with unchanged(f"sqlite:///{path}"):
            done = run(*command, "--db", str(path))
        assert done.code == exits.DATABASE
        assert "run `eventstore migrate`" in done.err
    assert run("migrate", "--db", str(path), "--json").json == {
        "applied": [
            "0002_retention",
            "0003_run_leases",
            "0004_thread_checksum",
            "0005_first_keys",
            "0006_thread_reached",
        ]
    }
    assert run("verify", "--db", str(path)).code == exits.OK


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "newer.db"
    with EventStore(path) as store:
        store.append("a", [Event(1)], 0)
        sql(store, "INSERT INTO eventstore_migrations VALUES ('9999_later', 1)")
    for command in (["threads"], ["migrate"], ["migrate", "--dry-run"]):
        with unchanged(f"sqlite:///{path}"):
            done = run(*command, "--db", str(path))
        assert done.code == exits.DATABASE and "'9999_later'" in done.err


# --- databases that cannot be used ------------------------------------------------------


def test_a_mistyped_path_makes_no_database(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database at all" * 1_000)
    missing = tmp_path / "missing.db"
    for target in (str(missing), f"sqlite:///{missing}", "sqlite://", ":memory:", str(garbage)):
        done = run("threads", "--db", target)
        assert done.code == exits.DATABASE and done.out == "", target
        assert done.err.startswith("eventstore: ") and len(done.err.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["garbage.db"]


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "others.db"
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE orders(id)")
    conn.close()
    with unchanged(f"sqlite:///{path}"):
        assert "(orders) and no event store" in run("threads", "--db", str(path)).err


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@127.0.0.1:1/nowhere?connect_timeout=1",
        "postgresql://127.0.0.1:1/nowhere?user=ann&password=s3cret&connect_timeout=1",
        "mysql://ann:s3cret@127.0.0.1/nowhere",
        "s3cret://ann:s3cret@[",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    done = run("threads", "--db", url)
    assert done.code == exits.DATABASE
    assert "s3cret" not in (done.err + done.out).removeprefix("eventstore: ").replace(
        "'s3cret'", ""
    )
    assert "s3cret" not in run("threads", "--help", EVENTSTORE_DB=url).out


def test_a_server_is_named_without_its_password(postgresql_url: str) -> None:
    run("migrate", "--db", postgresql_url)
    out = run("stats", "--db", postgresql_url).out
    assert "database   postgresql" in out
    assert "?" not in out.splitlines()[0] and ":" in out.splitlines()[0]


def test_the_database_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTSTORE_DB", raising=False)
    done = run("threads")
    assert done.code == exits.USAGE and "--db" in done.err
