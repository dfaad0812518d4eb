"""`export` and `import`: threads as files, out of one database and into another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore import Event, EventStore
from eventstore.cli import exits
from tests import processes
from tests.cli.support import ESCAPE, ROOT, SECONDS_MAX, Done, run
from tests.eventstore.support import sql

Read = Callable[..., Done]


def listed(url: str) -> dict[str, Any]:
    """The events of every thread, as the command line shows them."""
    names = [each["thread_id"] for each in run("threads", "--all", "--json", "--db", url).lines]
    return {name: run("events", name, "--json", "--db", url).lines for name in names}


@pytest.fixture
def other(tmp_path: Path) -> str:
    """An empty event store in another file."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    assert run("migrate", "--create", "--db", url).code == exits.OK
    return url


def test_every_thread_goes_to_a_file_and_comes_back(
    database: str, read: Read, other: str, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    done = read("export", "--all", "--to", str(folder), "--json")
    assert done.code == exits.OK and len(done.lines) == 5
    files = [each["file"] for each in done.lines]
    assert sorted(map(str, folder.iterdir())) == sorted(files)
    assert all(name.isprintable() and name.isascii() for name in files)
    assert {each["thread_id"] for each in done.lines} >= {"done", ESCAPE}
    # The branch goes on from `done`, which need not be there: each file is complete in itself.
    loaded = run("import", *sorted(files), "--db", other)
    assert (loaded.code, loaded.err) == (exits.OK, ""), loaded
    assert r"a \x1b[2J\u202e name from " in loaded.out
    assert listed(other) == listed(database)
    assert run("verify", "--db", other).code == exits.OK


def test_one_thread_goes_to_the_file_that_was_named(read: Read, other: str, tmp_path: Path) -> None:
    path = tmp_path / "one.thread"
    assert read("export", "branch", "--to", str(path)).code == exits.OK
    before = path.read_bytes()
    assert read("export", "branch", "--to", str(path), "--json").lines[0]["bytes"] == len(before)
    done = run("import", str(path), "--db", other, "--json")
    assert done.code == exits.OK and done.lines[0]["thread_id"] == "branch"
    assert len(run("events", "branch", "--json", "--db", other).lines) == 2


def test_through_a_pipe(read: Read, other: str, database: str) -> None:
    command = [sys.executable, "-m", "eventstore"]
    out = processes.run(
        [*command, "export", "done", "--to", "-", "--db", database],
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS_MAX,
    )
    assert (out.returncode, out.stderr) == (exits.OK, b"")
    into = processes.run(
        [*command, "import", "-", "--db", other],
        cwd=ROOT,
        input=out.stdout,
        capture_output=True,
        timeout=SECONDS_MAX,
    )
    assert (into.returncode, into.stderr) == (exits.OK, b"")
    assert read("export", "done", "--to", "-", "--json").code == exits.USAGE


def test_a_thread_that_is_there_is_not_touched(read: Read, other: str, tmp_path: Path) -> None:
    path = str(tmp_path / "done.thread")
    read("export", "done", "--to", path)
    assert run("import", path, "--db", other).code == exits.OK
    with EventStore(other) as store:
        store.set_thread("done", metadata={"changed": True})
    again = run("import", path, "--db", other)
    assert again.code == exits.FOUND and "already exists" in again.err
    assert run("import", path, "--db", other, "--skip-existing").code == exits.OK
    assert run("show", "done", "--db", other, "--json").json["metadata"] == {"changed": True}


def test_files_that_are_damaged_are_refused_and_the_others_loaded(
    read: Read, other: str, tmp_path: Path
) -> None:
    good, bad, none = (tmp_path / f"{name}.thread" for name in ("good", "bad", "none"))
    read("export", "done", "--to", str(good))
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    done = run("import", str(bad), str(none), str(good), "--db", other)
    assert done.code == exits.FOUND and "done from " in done.out
    assert len(done.err.splitlines()) == 2 and "checksum" in done.err and "No such file" in done.err
    assert [e["thread_id"] for e in run("threads", "--db", other, "--json").lines] == ["done"]


def test_tenants_are_kept_unless_one_is_demanded(
    database: str, read: Read, other: str, tmp_path: Path
) -> None:
    with EventStore(database, tenant="ours") as store:
        store.append("done", [Event(1, "ours")], 0)
    ours = str(tmp_path / "ours.thread")
    assert read("export", "done", "--to", ours, "--tenant", "ours").code == exits.OK
    path = str(tmp_path / "done.thread")
    read("export", "done", "--to", path)
    refused = run("import", path, "--db", other, "--tenant", "ours")
    assert refused.code == exits.FOUND and "tenant 'default'" in refused.err
    assert run("import", path, ours, "--db", other).code == exits.OK
    found = run("events", "done", "--tenant", "ours", "--db", other, "--json").lines
    assert [each["data"] for each in found] == ["ours"]


def test_a_damaged_thread_is_named_and_the_others_exported(
    database: str, read: Read, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with EventStore(database) as store:
        key = store.thread("waits").thread_key
        sql(store, "UPDATE events SET payload = x'0100' WHERE seq = 2 AND thread_key = ?", (key,))
    done = read("export", "--all", "--to", str(folder))
    assert done.code == exits.FOUND and "cannot export waits: " in done.err
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--to", "x"], exits.USAGE),
        (["done", "--all", "--to", "x"], exits.USAGE),
        (["done", "waits", "--to", "no-such-folder"], exits.USAGE),
        (["nobody", "--to", "x.thread"], exits.MISSING),
        (["done", "--to", "no-such-folder/x.thread"], exits.FOUND),
    ],
)
def test_what_cannot_be_exported(read: Read, arguments: list[str], code: int) -> None:
    done = read("export", *arguments)
    assert done.code == code and done.err


def test_names_of_files_are_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    names = ["../../up", "a/b", "x" * 500, "ü\u202e", "CON", ".", "a b~c"]
    with EventStore(url) as store:
        for name in names:
            store.append(name, [Event(1, name)], 0)
    folder = tmp_path / "files"
    folder.mkdir()
    done = run("export", "--all", "--to", str(folder), "--db", url, "--json")
    assert done.code == exits.OK
    assert len(list(folder.iterdir())) == len(names)
    assert sorted(each["thread_id"] for each in done.lines) == sorted(names)
