"""Opening a store: URLs, engines and connections of the caller's, old and newer databases."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import StaticPool

from eventstore import (
    AsyncEventStore,
    ConfigurationError,
    Event,
    EventStore,
    EventStoreError,
    SchemaVersionError,
    StoreClosedError,
    StoreUnavailableError,
)
from eventstore.db.migrations import MIGRATIONS
from eventstore.db.sqlite import sqlite_driver
from tests import processes
from tests.effort import effort
from tests.eventstore.support import Copies, Watch, check_whole, data_of, fill, numbers, sql

pytestmark = pytest.mark.every_backend

ROOT = Path(__file__).parents[2]


# --- what may be opened -----------------------------------------------------------------


def test_every_way_to_name_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "store.db"
    targets: list[Any] = [
        path,
        str(path),
        "store.db",
        "./store.db",
        f"sqlite:///{path}",
        "sqlite:///store.db",
        URL.create("sqlite", database=str(path)),
        f"sqlite+pysqlite:///{path}",
    ]
    for number, target in enumerate(targets):
        with EventStore(target) as store:
            assert fill(store, "t", 1, start=number) == number + 1
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def test_every_way_to_name_memory() -> None:
    for target in (":memory:", "sqlite://", "sqlite:///:memory:", URL.create("sqlite")):
        with EventStore(target) as one, EventStore(target) as two:
            fill(one, "t", 1)
            assert not two.head("t").exists


@pytest.mark.parametrize(
    "name", ["with space.db", "ünï.db", "a%20b.db", "q?.db", "h#.db", "a'b.db"]
)
def test_file_names_of_any_text(tmp_path: Path, name: str) -> None:
    with EventStore(tmp_path / name) as store:
        fill(store, "t", 1)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "target",
    [
        "/no/such/folder/store.db",
        "sqlite:////no/such/folder/store.db",
        "nonsense://somewhere",
        "://",
        "postgresql+psycopg://u:hunter2@host:notaport/db",
        "mysql://u:hunter2@host/db",
        5,
        None,
    ],
)
def test_what_cannot_be_opened(target: Any) -> None:
    with pytest.raises((ConfigurationError, TypeError)) as caught:
        EventStore(target).setup()
    assert "hunter2" not in str(caught.value)


NAMES_NOTHING: list[Any] = [
    "",
    " ",
    "\n",
    Path(),
    "sqlite:///",
    "sqlite:/// ",
    "sqlite://runs.db",
    "sqlite+aiosqlite:///runs.db",
    URL.create("sqlite", database=""),
    None,
    b"runs.db",
    EventStore,
]
"""What leads to a database in memory, or nowhere, if it is taken for a name."""


@pytest.mark.parametrize("target", NAMES_NOTHING, ids=repr)
@pytest.mark.parametrize("opened", [EventStore, AsyncEventStore])
def test_a_target_that_names_nothing(
    opened: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        opened(target)
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_libpq_are_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EventStore("host=localhost dbname=runs password=hunter2") as store:
        assert store.engine.dialect.name == "postgresql"
        assert "hunter2" not in repr(store)
    (tmp_path / "port=1").mkdir()
    with EventStore("./port=1/runs.db") as store:
        fill(store, "t", 1)
    assert [file.name for file in (tmp_path / "port=1").iterdir()] == ["runs.db"]


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(EventStoreError), EventStore(tmp_path) as store:
        store.setup()
    with pytest.raises(ConfigurationError, match="is a directory"):
        EventStore(tmp_path)


@pytest.mark.parametrize("text", ["x", "milk", "milk, bread\n" * 500])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_text_file_of_any_length_is_left_as_it_is(
    tmp_path: Path, text: str, read_only: bool
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with (
        EventStore(path, read_only=read_only) as store,
        pytest.raises(EventStoreError, match=r"not an SQLite database|no event store"),
    ):
        fill(store, "t", 1)
    assert snapshot_of(tmp_path) == {"notes.txt": text.encode()}


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and must stay\n" * 100)
    before = path.read_bytes()
    with pytest.raises(EventStoreError), EventStore(path) as store:
        store.setup()
    assert path.read_bytes() == before


def test_durability_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        EventStore(tmp_path / "a.db", durability="none")  # type: ignore[arg-type]


def test_repr_names_the_place(tmp_path: Path) -> None:
    assert "a.db" in repr(EventStore(tmp_path / "a.db", tenant="acme"))


# --- closing ----------------------------------------------------------------------------


def test_a_closed_store_says_so(store_url: str) -> None:
    store = EventStore(store_url)
    fill(store, "t", 600)
    reader = store.read("t")
    next(reader)
    head = store.head("t")
    store.close()
    store.close()
    for call in (
        store.setup,
        lambda: store.head("t"),
        lambda: store.append("t", [Event(1)], 600),
        lambda: store.append_after(head, [Event(1)]),
        lambda: store.read("t"),
        lambda: store.replay("t"),
        store.threads,
        lambda: store.thread("t"),
        lambda: store.delete_thread("t"),
        store.finish_deletions,
        lambda: store.verify("t"),
        store.stats,
        lambda: list(reader),
        lambda: store.__enter__().head("t"),
    ):
        with pytest.raises(StoreClosedError):
            call()


def test_closing_before_the_first_use(tmp_path: Path) -> None:
    with EventStore(tmp_path / "a.db"):
        pass
    assert list(tmp_path.iterdir()) == []


# --- what the caller made ---------------------------------------------------------------


def test_a_callers_engine_stays_open(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", module=sqlite_driver())
    with EventStore(engine) as store:
        fill(store, "t", 3)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM events")).scalar_one() == 3
    with EventStore(engine) as store:
        assert fill(store, "t", 1, start=4) == 4
    engine.dispose()


def test_a_callers_engine_in_memory() -> None:
    engine = create_engine(
        "sqlite://",
        module=sqlite_driver(),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
    )
    with EventStore(engine) as store:
        fill(store, "t", 3)
    with EventStore(engine) as again:
        assert numbers(again.read("t")) == [1, 2, 3]
    engine.dispose()


@pytest.mark.slow
def test_a_callers_connection_to_memory_is_used_and_not_closed() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE mine (a)")
    with EventStore(connection) as store:
        fill(store, "t", 3)
        assert check_whole(store) == 1
    del store
    gc.collect()
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
    assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    with EventStore(connection) as again:
        assert numbers(again.read("t")) == [1, 2, 3]
    connection.close()


@pytest.mark.slow
def test_a_callers_connection_to_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    with EventStore(connection) as store:
        fill(store, "t", 3)
    gc.collect()
    assert connection.execute("SELECT count(*) FROM events").fetchone()[0] == 3
    connection.close()


@pytest.mark.parametrize("factory", [None, sqlite3.Row, lambda cursor, row: dict(enumerate(row))])
@pytest.mark.parametrize("isolation", ["", "DEFERRED", None])
def test_a_connection_with_habits_of_its_own(isolation: Any, factory: Any) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=isolation)
    connection.row_factory = factory
    try:
        with contextlib.suppress(ConfigurationError), EventStore(connection) as store:
            fill(store, "t", 3)
            assert numbers(store.read("t")) == [1, 2, 3]
            assert store.verify("t").ok
        assert connection.row_factory is factory
        assert connection.isolation_level == isolation
    finally:
        connection.close()


@pytest.mark.parametrize("memory", [True, False])
def test_a_callers_open_transaction_is_not_disturbed(tmp_path: Path, memory: bool) -> None:
    """What it has not committed is neither committed nor rolled back by us."""
    connection = sqlite3.connect(":memory:" if memory else tmp_path / "a.db")
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    with EventStore(connection) as store:
        fill(store, "t", 1)
        if memory:
            connection.execute("INSERT INTO mine VALUES (1)")
            assert connection.in_transaction
            for call in (lambda: fill(store, "t", 1), lambda: data_of(store, "t")):
                try:
                    call()
                except EventStoreError:  # a clear error is as good
                    continue
            assert connection.in_transaction
            connection.rollback()
            assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)
        else:
            connection.execute("SELECT * FROM mine").fetchall()
            fill(store, "t", 1)
            connection.execute("INSERT INTO mine VALUES (1)")
            assert len(data_of(store, "t")) == 2
            assert connection.in_transaction
            connection.rollback()
            assert connection.execute("SELECT count(*) FROM mine").fetchone() == (0,)
        fill(store, "t", 1)
    connection.close()


def test_a_file_that_is_no_database_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("milk, bread\n" * 200)
    with (
        EventStore(path) as store,
        pytest.raises(StoreUnavailableError, match="not an SQLite database"),
    ):
        store.head("t")
    assert path.read_text() == "milk, bread\n" * 200


# --- databases that are there already ---------------------------------------------------


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_newer_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with EventStore(path) as store:
        fill(store, "t", 3)
        sql(store, "INSERT INTO eventstore_migrations VALUES ('9999_from_the_future', 0)")
    before = snapshot_of(tmp_path)
    for _ in range(2):
        with EventStore(path) as store:
            for call in (store.setup, lambda: store.head("t"), lambda: fill(store, "t", 1)):
                with pytest.raises(SchemaVersionError) as caught:
                    call()
                assert caught.value.found == "9999_from_the_future"
                assert caught.value.newest_known in str(caught.value)
    assert snapshot_of(tmp_path) == before


@pytest.mark.parametrize("table", ["events", "threads", "snapshots", "forks"])
def test_tables_of_another_program_are_not_touched(tmp_path: Path, table: str) -> None:
    path = tmp_path / "theirs.db"
    connection = sqlite_driver().connect(str(path))
    connection.execute(f"CREATE TABLE {table} (a)")
    connection.execute(f"INSERT INTO {table} VALUES (1)")
    connection.commit()
    connection.close()
    before = snapshot_of(tmp_path)
    with pytest.raises(ConfigurationError) as caught, EventStore(path) as store:
        store.setup()
    assert table in str(caught.value)
    assert snapshot_of(tmp_path) == before


def test_beside_tables_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    connection = sqlite_driver().connect(str(path))
    connection.execute("CREATE TABLE invoices (a)")
    connection.commit()
    connection.close()
    before = snapshot_of(tmp_path)
    for read_only in (False, True):
        with EventStore(path, read_only=read_only) as store:
            for call in (store.setup, lambda: store.head("t"), lambda: fill(store, "t", 1)):
                with pytest.raises(ConfigurationError, match=r"\(invoices\)"):
                    call()
    assert snapshot_of(tmp_path) == before
    with EventStore(path, allow_other_tables=True) as store:
        fill(store, "t", 3)
        assert sql(store, "SELECT count(*) FROM invoices") == [(0,)]
    with EventStore(path) as store:  # it is an event store's file now
        assert numbers(store.read("t")) == [1, 2, 3]


def test_a_view_of_another_program_counts_too(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    connection = sqlite_driver().connect(str(path))
    connection.execute("CREATE VIEW invoices AS SELECT 1")
    connection.close()
    with EventStore(path) as store, pytest.raises(ConfigurationError, match="invoices"):
        store.setup()


def test_setup_may_be_repeated(store: EventStore) -> None:
    store.setup()
    fill(store, "t", 1)
    store.setup()
    with EventStore(store.engine, tenant="test") as again:
        again.setup()
        assert numbers(again.read("t")) == [1]


def test_a_setup_cut_short_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Killed before any statement of the first opening, the next opening ends it."""
    path = tmp_path / "store.db"
    copies = Copies(path, tmp_path)
    with EventStore(path) as store:
        watch = Watch(store, copies.take)
        with watch.on():
            store.setup()
    assert len(copies.paths) >= 2
    for copied in copies.paths:
        with EventStore(copied) as store:
            fill(store, "t", 2)
            assert check_whole(store) == 1


OPENER = """
import sys
from eventstore import Event, EventStore
print("ready", flush=True)
sys.stdin.readline()
with EventStore(sys.argv[1]) as store:
    store.append(sys.argv[2], [Event(1, sys.argv[2])], 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, effort(4, 8)])
def test_processes_that_open_a_new_file_together(tmp_path: Path, count: int) -> None:
    path = tmp_path / "new.db"
    openers = [
        processes.Popen(
            [sys.executable, "-c", OPENER, str(path), f"t{number}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    errors = [opener.communicate(timeout=120)[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * count, "\n".join(errors)
    with EventStore(path) as store:
        assert check_whole(store) == count
        assert sql(store, "SELECT count(*) FROM eventstore_migrations") == [(len(MIGRATIONS),)]


def test_threads_that_open_a_new_file_together(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def run(number: int) -> None:
        barrier.wait()
        try:
            with EventStore(tmp_path / "new.db") as store:
                fill(store, f"t{number}", 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    with EventStore(tmp_path / "new.db") as store:
        assert check_whole(store) == 8


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = EventStore(f"sqlite:///file:{path}?mode=ro&uri=true")
    with store, pytest.raises(StoreUnavailableError):
        fill(store, "t", 1)
    assert not path.exists()
