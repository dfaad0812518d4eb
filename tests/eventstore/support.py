"""What the tests of the log share: looking at the tables, and acting between two statements.

`sql` works through the store's own engine, never through a second copy of the SQLite library
in this process, which would drop the first one's locks. `Watch` sees every statement at the
moment it begins, whatever way the store sends it to the driver.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from weakref import WeakKeyDictionary

import pytest
from sqlalchemy import Connection, Engine, event, inspect, text

from eventstore import Addition, Event, EventStore, NewSnapshot, RecordedEvent, Replay, Sealed
from eventstore.core import seal

FINGERPRINT: Final = "test/1"


def data_of(store: EventStore, thread_id: str, ns: str = "", **bounds: Any) -> list[Any]:
    """The values of a log, oldest first."""
    return [event.data for event in store.read(thread_id, ns, **bounds)]


def values_of(replay: Replay[Any]) -> list[Any]:
    """The values along a replay, fork events left out."""
    return [event.data for event in replay.events if event.kind]


def fill(store: EventStore, thread_id: str, count: int, ns: str = "", start: int = 1) -> int:
    """Append ``count`` events whose data are the numbers from ``start`` on."""
    head = store.head(thread_id, ns)
    batch = [Event(1, {"n": number}) for number in range(start, start + count)]
    return store.append(thread_id, batch, head.seq, ns)


def numbers(events: Iterator[RecordedEvent] | Sequence[RecordedEvent]) -> list[int]:
    """The numbers that `fill` wrote."""
    return [event.data["n"] for event in events if event.kind]


def sql(store: EventStore, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Run one statement behind the library's back; ``?`` stands for each parameter."""
    with store.engine.begin() as conn:
        found = _run(conn, statement, parameters)
        return [tuple(row) for row in found] if found.returns_rows else []


def sql_without_keys(store: EventStore, *statements: str) -> None:
    """Run statements that foreign keys would forbid."""
    if not is_sqlite(store):
        with store.engine.connect() as conn:
            conn = conn.execution_options(isolation_level="READ COMMITTED")
            conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for statement in statements:
                _run(conn, statement)
            conn.commit()
        return
    with store.engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for statement in statements:
            _run(conn, statement)
        conn.commit()
        conn.exec_driver_sql("PRAGMA foreign_keys = ON")


def mark_for_deletion(store: EventStore, thread_id: str = "") -> None:
    """Leave threads, one or all, as a process does that marks them for deletion and then dies.

    What their tombstones should record was not recorded yet, as in older versions.
    """
    live = "SELECT thread_key FROM threads WHERE condemned_at IS NULL AND ? IN (thread_id, '')"
    sql(
        store,
        "INSERT INTO events (thread_key, ns, seq, kind, recorded_at, digest, payload) SELECT "
        "thread_key, ns, max(seq) + 1, -1, 1, x'00', x'' FROM events WHERE thread_key IN "
        f"({live}) GROUP BY thread_key, ns",
        (thread_id,),
    )
    sql(store, f"UPDATE threads SET condemned_at = 1 WHERE thread_key IN ({live})", (thread_id,))


def is_sqlite(store: EventStore) -> bool:
    """Whether the store is on SQLite, which takes any value in any column."""
    return store.engine.dialect.name == "sqlite"


def _run(conn: Connection, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
    if conn.dialect.name != "sqlite":
        statement = re.sub(r"\bx'([0-9a-f]*)'", r"decode('\1', 'hex')", statement)
        statement = re.sub(r"zeroblob\((\d+)\)", r"decode(repeat('00', \1), 'hex')", statement)
    names = iter(range(len(parameters)))
    named = re.sub(r"\?", lambda _: f":p{next(names)}", statement)
    return conn.execute(text(named), {f"p{n}": value for n, value in enumerate(parameters)})


def tables_by_thread(store: EventStore) -> list[str]:
    """Every table of the database, today's and tomorrow's, whose rows belong to a thread."""
    if store.engine not in _TABLES:
        look = inspect(store.engine)
        _TABLES[store.engine] = [
            table
            for table in look.get_table_names()
            if any(column["name"] == "thread_key" for column in look.get_columns(table))
        ]
    return _TABLES[store.engine]


_TABLES: WeakKeyDictionary[Engine, list[str]] = WeakKeyDictionary()


def rows_of(store: EventStore, thread_key: int) -> dict[str, int]:
    """How many rows each table holds of a thread; tables without any, and tombstones, left out."""
    counts = {
        table: sql(store, f"SELECT count(*) FROM {table} WHERE thread_key = ?", (thread_key,))
        for table in tables_by_thread(store)
        if table != "tombstones"
    }
    return {table: rows[0][0] for table, rows in counts.items() if rows[0][0]}


def orphans(store: EventStore) -> dict[str, int]:
    """Rows that belong to no thread, or to one that is half removed, by table."""
    live = "(SELECT thread_key FROM threads WHERE condemned_at IS NULL)"
    counts = {
        table: sql(store, f"SELECT count(*) FROM {table} WHERE thread_key NOT IN {live}")
        for table in tables_by_thread(store)
        if table != "tombstones"
    }
    dangling = f"SELECT count(*) FROM forks WHERE source_thread_key NOT IN {live}"
    counts["forks into nothing"] = sql(store, dangling)
    return {table: rows[0][0] for table, rows in counts.items() if rows[0][0]}


def check_whole(store: EventStore) -> int:
    """Every thread verifies, has no gap, and can be replayed; returns how many there are."""
    infos = store.threads(limit=10_000)
    for info in infos:
        report = store.verify(info.thread_id)
        assert report.ok, report.problems
        for ns in report.namespaces:
            if not ns.startswith("~"):
                seqs = [event.seq for event in store.read(info.thread_id, ns)]
                assert seqs == list(range(1, len(seqs) + 1))
                assert store.head(info.thread_id, ns).seq == len(seqs)
                list(store.replay(info.thread_id, ns, fingerprint=FINGERPRINT).events)
    return len(infos)


def seal_now(store: EventStore, thread_id: str, dry_run: bool = False) -> Sealed:
    """Seal all that can be, however few and however young the events are."""
    later = datetime.now(UTC) + timedelta(days=1)
    with patch.multiple(seal, EVENTS_MIN=1, SETTLED_US=-(10**15)):
        return store.seal(thread_id, later, dry_run=dry_run)


WRITES: dict[str, Callable[[EventStore, Any], Any]] = {
    "append": lambda store, head: store.append("t", [Event(1, {"n": 9})], 5),
    "append_after": lambda store, head: store.append_after(head, [Event(1, {"n": 9})]),
    "append_after to a new log": lambda store, head: store.append_after(
        store.head("t", "fresh"), [Event(1, {"n": 9})]
    ),
    "append_after with a snapshot": lambda store, head: store.append_after(
        head, [Event(1, {"n": 9})], snapshot=NewSnapshot(FINGERPRINT, b"s", b""), status="failed"
    ),
    "append_together": lambda store, head: store.append_together(
        [
            Addition(head, [Event(1, {"n": 9})]),
            Addition(store.head("t", "fresh"), [Event(1, {"n": 9})]),
        ]
    ),
    "put_snapshot": lambda store, head: store.put_snapshot(
        head, NewSnapshot(FINGERPRINT, b"s", b"")
    ),
    "set_thread": lambda store, head: store.set_thread("t", pinned=True),
    "seal": lambda store, head: seal_now(store, "t"),
    "delete_snapshots": lambda store, head: store.delete_snapshots("t"),
    "delete_thread": lambda store, head: store.delete_thread("t"),
    "read": lambda store, head: list(store.read("t")),
    "replay": lambda store, head: list(store.replay("t", fingerprint=FINGERPRINT).events),
    "verify": lambda store, head: store.verify("t"),
    "stats": lambda store, head: store.stats("t"),
}
"""What may be done with thread ``t`` of five events, whose end the caller has read."""


class Watch:
    """Calls ``on_statement`` with the text of each statement just before it runs.

    Must be made before the store's first use. What the function raises is kept, because the
    driver would swallow it; `check` raises it.
    """

    def __init__(self, store: EventStore, on_statement: Callable[[str], None]) -> None:
        self.enabled = False
        self.errors: list[BaseException] = []
        self._on_statement = on_statement
        event.listen(store.engine, "connect", self._connected)

    def _connected(self, connection: Any, _record: Any) -> None:
        connection.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        if not self.enabled:
            return
        self.enabled = False  # what the function itself does is not of interest
        try:
            self._on_statement(statement)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.enabled = True

    @contextmanager
    def on(self) -> Iterator[None]:
        """While this lasts, statements are seen; then errors of the function come out."""
        self.enabled = True
        try:
            yield
        finally:
            self.enabled = False
        self.check()

    def check(self) -> None:
        """Raise what the function raised."""
        if self.errors:
            raise self.errors[0]


def begins_transaction(statement: str) -> bool:
    """Whether no lock is held yet when this statement starts."""
    return statement.upper().startswith("BEGIN")


def set_everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Set a constant of the library in every module that has it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("eventstore")]
    having = [module for module in modules if hasattr(module, name)]
    assert having, f"nothing in eventstore is called {name}"
    for module in having:
        monkeypatch.setattr(module, name, value)


class Copies:
    """The file as a process killed before any statement would leave it, each state once."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._last: dict[str, bytes] = {}
        self.paths: list[Path] = []

    def take(self, _statement: str = "") -> None:
        """Copy the file and its journal, unless nothing was written since the last copy."""
        found = {}
        for suffix in ("", "-wal", "-journal"):
            path = self._source.with_name(self._source.name + suffix)
            if path.exists():
                found[path.name] = path.read_bytes()
        if found in ({}, self._last):
            return
        self._last = found
        target = self._folder / f"copy {len(self.paths)}"
        target.mkdir()
        for name, content in found.items():
            (target / name).write_bytes(content)
        self.paths.append(target / self._source.name)


SOON = timedelta(minutes=1)


def later() -> datetime:
    """A moment after everything that a test has appended."""
    return datetime.now(UTC) + SOON
