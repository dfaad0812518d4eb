"""Whatever a row holds, or lacks: its thread is named, every other thread is used as before.

The rows of a real file are damaged one at a time, and everything is done with it afterwards: list,
read, verify, plan, sweep, append, export, erase. Nothing runs in circles.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventstore import CorruptEventError, Event, EventStore, EventStoreError
from retention import sweep
from tests.effort import effort
from tests.eventstore.damage_support import (
    FLIP,
    POLICY,
    SOUND,
    TABLES,
    VALUES,
    Named,
    build,
    columns_of,
    contents,
    damage_row,
    examine,
    limited,
    logged,
    raw,
    rows_of_file,
)

pytestmark = pytest.mark.slow

Original = tuple[Path, dict[str, Any], int]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """A sound file, what is in it by thread, and the key of the thread to damage."""
    path = tmp_path_factory.mktemp("original") / "store.db"
    build(path)
    return path, _wanted(path), _key(path)


def _wanted(path: Path) -> dict[str, Any]:
    with EventStore(path) as store:
        found = {each.thread_id: contents(store, each.thread_id) for each in store.threads()}
        assert all(store.verify(name).ok for name in found)
    connection = raw(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return found


def _key(path: Path) -> int:
    with EventStore(path) as store:
        return store.thread("t").thread_key


def _copy(path: Path, to: Path) -> Path:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{to}{suffix}").unlink(missing_ok=True)
    shutil.copy(path, to)
    return to


@pytest.mark.parametrize("table", TABLES)
def test_a_column_may_hold_anything(original: Original, tmp_path: Path, table: str) -> None:
    path, wanted, key = original
    chance = random.Random(table)
    cases = [(column, value) for column in columns_of(path, table) for value in VALUES]
    chance.shuffle(cases)
    for column, value in cases[: effort(7, len(cases))]:
        if column == "active_at" and (value is FLIP or type(value) is int):
            continue  # a moment like any other: a clock may have been as wrong as that
        copy = _copy(path, tmp_path / "copy.db")
        if damage_row(copy, table, column, value, chance, key):
            examine(copy, wanted)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("forks", "seq", 1.5),  # erasing asks who descends from the thread
        ("events", "seq", 2**63 - 1),  # appending computes the next one
        ("threads", "condemned_at", 5),
        ("threads", "reached", 2**62),
    ],
)
def test_columns_that_once_did_harm(
    original: Original, tmp_path: Path, table: str, column: str, value: Any
) -> None:
    path, wanted, key = original
    copy = _copy(path, tmp_path / "copy.db")
    assert damage_row(copy, table, column, value, random.Random(table), key)
    assert examine(copy, wanted) == "found"


@pytest.mark.parametrize("table", TABLES)
def test_a_row_may_be_missing(original: Original, tmp_path: Path, table: str) -> None:
    path, wanted, key = original
    chance = random.Random(table)
    for _ in range(effort(1, 10)):
        copy = _copy(path, tmp_path / "copy.db")
        connection = raw(copy)
        connection.execute("PRAGMA foreign_keys = OFF")
        rows = connection.execute(f"SELECT * FROM {table} WHERE thread_key = ?", (key,)).fetchall()
        names = columns_of(copy, table)
        where = " AND ".join(f"{name} IS ?" for name in names)
        connection.execute(f"DELETE FROM {table} WHERE {where}", chance.choice(rows))
        connection.close()
        if table == "threads":
            _examine_without_row(copy, wanted)
        else:
            examine(copy, wanted)


def _examine_without_row(path: Path, wanted: dict[str, Any]) -> None:
    """A thread whose row is gone cannot be named: the database's check counts its other rows."""
    with EventStore(path) as store:
        problems = store.check_database().problems
        assert any("events belong to no thread" in each for each in problems), problems
        for name in SOUND:
            assert contents(store, name) == wanted[name]
        assert not sweep(store, POLICY).failed


@pytest.mark.parametrize("index", ["forks_by_source", "threads_by_activity", "events_by_key"])
@pytest.mark.parametrize("change", ["entry lost", "row lost"])
def test_an_index_that_does_not_fit_its_table(
    original: Original, tmp_path: Path, index: str, change: str
) -> None:
    path, wanted, key = original
    copy = _copy(path, tmp_path / "copy.db")
    connection = raw(copy)
    connection.execute("PRAGMA foreign_keys = OFF")
    ((table, page, text),) = connection.execute(
        "SELECT tbl_name, rootpage, sql FROM sqlite_master WHERE name = ?", (index,)
    ).fetchall()
    with EventStore(path) as store:
        owner = store.thread("t's fork").thread_key if table == "forks" else key
    condition = "thread_key = ?" + (" AND key = 'k20'" if table == "events" else "")
    row = connection.execute(f"SELECT * FROM {table} WHERE {condition}", (owner,)).fetchone()
    if change == "entry lost":  # it goes with the row, which comes again without it
        connection.execute(f"DELETE FROM {table} WHERE {condition}", (owner,))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
    connection.execute("PRAGMA writable_schema = RESET")
    if change == "entry lost":
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    else:
        connection.execute(f"DELETE FROM {table} WHERE {condition}", (owner,))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "INSERT INTO sqlite_master VALUES ('index', ?, ?, ?, ?)", (index, table, page, text)
    )
    connection.execute("PRAGMA writable_schema = RESET")
    connection.close()
    with EventStore(copy) as store:
        # (SQLite's check does not count the entries of a partial index.)
        assert not store.check_database().ok or not store.verify("t").ok
        with limited(store):
            for name in SOUND:
                assert contents(store, name) == wanted[name]
            sweep(store, POLICY)
            for name in SOUND:
                assert store.verify(name).ok


def test_flipped_bits_of_a_file(tmp_path: Path) -> None:
    """Each is found, or changes nothing that anybody reads; none is silent, none endless."""
    path = tmp_path / "original.db"
    build(path, tuple(f"u{number}" for number in range(effort(6, 100))))
    wanted = _wanted(path)
    connection = raw(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    sound, content = rows_of_file(path), path.read_bytes()
    with EventStore(path) as store:
        names = {store.thread(name).thread_key: name for name in wanted}
    chance, table = random.Random(1), Counter[str]()
    for number in range(effort(40, 1000)):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        copy = _copy(path, tmp_path / "copy.db")
        copy.write_bytes(flipped)
        outcome = _outcome(copy, sound, wanted, names, use=number % 4 == 0)
        table[outcome] += 1
        assert outcome != "silent", table
    print(dict(table))
    assert table["found"] and table["harmless"]


def _outcome(
    path: Path,
    sound: dict[str, list[Any]],
    wanted: dict[str, Any],
    names: dict[int, str],
    use: bool,
) -> str:
    with logged() as named:
        try:
            with EventStore(path, durability="normal") as store:
                store.setup()
                with limited(store):
                    is_ok = store.check_database().ok
                    if use:
                        for name in [*wanted][:3]:
                            _use(store, name, named)
                        sweep(store, POLICY)
                    if named.said or not is_ok:
                        return "found"
                    if use:
                        return "harmless"
                    return _compared(store, path, sound, wanted, names)
        except EventStoreError:
            return "found"


def _use(store: EventStore, name: str, named: Named) -> None:
    try:
        contents(store, name)
        store.append_after(store.head(name), [Event(1, {"n": 0})])
        store.delete_thread(name)
    except EventStoreError as error:
        named.said.append(str(error))


def _compared(
    store: EventStore,
    path: Path,
    sound: dict[str, list[Any]],
    wanted: dict[str, Any],
    names: dict[int, str],
) -> str:
    """The outcome where the database finds nothing: by the threads whose rows differ."""
    found = rows_of_file(path)
    if found == sound:
        return "harmless"
    differing = [
        row
        for name in sound
        for row in (*found.get(name, []), *sound[name])
        if (row in found.get(name, [])) != (row in sound[name])
    ]
    for name in {names[row[0]] for row in differing if row[0] in names}:
        try:
            if not store.verify(name).ok:
                return "found"
            if contents(store, name) != wanted[name]:
                return "silent"
        except EventStoreError:
            return "found"
    return "harmless"


def test_a_schema_that_is_no_text_is_named(tmp_path: Path) -> None:
    """SQLite quotes it in its own message, which no driver can decode."""
    path = tmp_path / "store.db"
    with EventStore(path) as store:
        store.setup()
    connection = raw(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET name = CAST(x'66f4' AS TEXT), sql = 'x'")
    connection.close()
    with EventStore(path) as store, pytest.raises(CorruptEventError, match="file is damaged"):
        store.threads()
