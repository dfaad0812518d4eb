"""The rules that let the log run on databases sharded by thread, and behind proxies.

On Citus, CockroachDB, YugabyteDB and the like a row lives where its `thread_key` says; what is
unique or referred to has to be so within one thread, and nothing is numbered by the database.
Behind a proxy that pools transactions nothing may hang on a session. The first half of this
file reads the tables, the second watches every statement of a store at work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from eventstore import Event, EventStore, Expired, Fork, NewSnapshot
from eventstore.db.schema import metadata
from eventstore.models import Status
from tests.awaited import core_of
from tests.eventstore.support import FINGERPRINT, fill, mark_for_deletion, set_everywhere

pytestmark = pytest.mark.slow

REFERENCE: Final = frozenset(
    "dictionaries eventstore_migrations eventstore_renewals eventstore_secrets "
    "retention_slices retention_sweeps".split()
)
"""Small tables that belong to no thread: every shard may have a copy."""

TABLES: Final = [table for table in metadata.sorted_tables if table.name not in REFERENCE]
IDS: Final = [table.name for table in TABLES]


@pytest.fixture
def store_url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def store(blocking_store: EventStore) -> EventStore:
    """What the asynchronous store sends is the same: both run the same operations."""
    return blocking_store


# --- the tables -------------------------------------------------------------------------


def test_reference_tables_are_what_we_think() -> None:
    """A new table belongs to threads, unless somebody decides otherwise here."""
    without = {table.name for table in metadata.sorted_tables if "thread_key" not in table.c}
    assert without == REFERENCE


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_whatever_is_unique_begins_with_the_thread(table: Table) -> None:
    found = [
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    ]
    found += [[column.name for column in index.columns] for index in table.indexes if index.unique]
    assert found
    assert [columns[0] for columns in found] == ["thread_key"] * len(found)


@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_foreign_keys_stay_within_the_thread(table: Table) -> None:
    for constraint in table.constraints:
        if isinstance(constraint, ForeignKeyConstraint):
            pairs = [(key.parent.name, key.column.name) for key in constraint.elements]
            assert pairs[0] == ("thread_key", "thread_key")


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_nothing_is_numbered_by_the_database(table: Table) -> None:
    for column in table.columns:
        assert column.identity is None
        assert column.server_default is None
        assert column.default is None
    for dialect in (postgresql.dialect(), sqlite.dialect()):  # type: ignore[no-untyped-call]
        created = [str(CreateTable(table).compile(dialect=dialect))]
        created += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
        assert not re.search(r"SERIAL|IDENTITY|SEQUENCE|AUTOINCREMENT", "".join(created).upper())


# --- a store at work --------------------------------------------------------------------

SESSION: Final = re.compile(
    r"\b(SAVEPOINT|LISTEN|NOTIFY|UNLISTEN|DECLARE|PREPARE|TEMP|TEMPORARY|NEXTVAL|CURRVAL|SETVAL"
    r"|PG_(TRY_)?ADVISORY\w*|SET_CONFIG|LOCK TABLE)\b|^\s*(SET|DISCARD|RESET)\b",
    re.IGNORECASE,
)
"""What hangs on a session, or asks the whole cluster for something."""

DDL: Final = re.compile(r"^\s*(CREATE|ALTER|DROP)\b", re.IGNORECASE)
WRITE: Final = re.compile(
    r"\b(?:INSERT INTO|DELETE FROM|(?<!FOR )(?<!KEY )UPDATE) (\w+)", re.IGNORECASE
)


@dataclass
class Statements:
    """Every statement of a store, and what each transaction was made of."""

    statements: list[tuple[str, Any]] = field(default_factory=list)
    transactions: list[list[str]] = field(default_factory=list)
    _open: dict[int, list[str]] = field(default_factory=dict)

    def watch(self, store: EventStore) -> None:
        event.listen(store.engine, "before_cursor_execute", self._seen)
        event.listen(store.engine, "begin", self._begun)
        event.listen(store.engine, "commit", self._ended)
        event.listen(store.engine, "rollback", self._ended)

    def _seen(self, conn: Any, _c: Any, statement: str, values: Any, *_: Any) -> None:
        self.statements.append((statement, values))
        self._open.setdefault(id(conn), []).append(statement)

    def _begun(self, conn: Any) -> None:
        self._open[id(conn)] = []

    def _ended(self, conn: Any) -> None:
        self.transactions.append(self._open.pop(id(conn), []))

    def writes(self) -> Iterator[tuple[str, str, set[int]]]:
        """Each write: the statement, its table, and the threads that it names.

        A statement that is sent with many rows of parameters is as many statements.
        """
        for statement, values in self.statements:
            for table in WRITE.findall(statement):
                rows = values if isinstance(values, list) else [values]
                names = set(re.findall(r"thread_key = %\((\w+)\)s", statement))
                names |= {"thread_key", "new_thread_key"}
                for row in rows:
                    yield statement, table, {row[n] for n in names if n in row}


@pytest.fixture
def at_work(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Statements:
    """What a store does in a life: everything that writes, and reading in between."""
    seen = Statements()
    seen.watch(store)
    store.setup()
    fill(store, "t", 1)
    fill(store, "t", 5, start=2)
    fill(store, "t", 2, "sub")
    store.append("t", [Event(1, "keyed", key="k")], 6, status="waiting", metadata={"a": 1})
    head = store.head("t")
    head = store.append_after(head, [Event(1)], snapshot=NewSnapshot(FINGERPRINT, b"s", b"i"))
    head = store.append_after(head, [Event(1), Event(2)], status="failed")
    store.append("t", [Fork(head.position._replace(seq=3)), Event(1)], head.seq)
    store.put_snapshot(store.head("t"), NewSnapshot(FINGERPRINT, b"s", b"i", 8))
    store.set_thread("t", pinned=True, ttl=5, metadata={"b": 2})
    for name in ("one", "two"):
        store.fork("t", 5, name)
    fill(store, "small", 2)
    with store.dump("small") as dump:
        store.delete_thread("small")
        store.load(dump)
    store.delete_thread("small")
    fill(store, "small", 2)
    store.delete_snapshots("one")
    for read in (store.threads, store.stats, lambda: store.verify("t")):
        read()
    list(store.replay("one", fingerprint=FINGERPRINT).events)
    list(store.read("t"))
    set_everywhere(monkeypatch, "DELETE_BATCH", 3)
    store.delete_thread("t")  # condemned, its forks given what they need, removed in batches
    mark_for_deletion(store, "one")
    del seen.statements[-2:]
    store.finish_deletions()
    retain(store)
    return seen


def retain(store: EventStore) -> None:
    """What retention does."""
    now = datetime.now(UTC)
    for name in ("a", "b", "c"):
        fill(store, name, 3)
        store.put_snapshot(store.head(name), NewSnapshot(FINGERPRINT, b"s", b"i"))
    store.fork("a", 2, "d", ttl=timedelta(days=1))
    store.pin("a", "why", "who")
    store.unpin("a")
    store.set_ttl("a", None)
    found = core_of(store).scan(all_tenants=True, created_before=now + timedelta(1), with_ttl=True)
    expired = [Expired(thread.thread_key, None, "ttl") for thread in found]
    assert {"pruned", "large"} <= set(core_of(store).prune(expired))
    store.descendants("a")
    for _ in range(2):
        store.delete_thread("a", erase=True)
        fill(store, "a", 1)
    claimed = core_of(store).claim_slice("h", timedelta(1), now)
    assert claimed is not None
    core_of(store).renew_slice(claimed, "h", timedelta(1))
    core_of(store).release_slice(claimed, "h", now)
    core_of(store).end_sweep(core_of(store).begin_sweep("h", now, {}), {})


def test_the_watching_sees_enough(at_work: Statements) -> None:
    tables = {table for _, table, _ in at_work.writes()}
    unwritten = {"dictionaries", "eventstore_renewals"}  # of long runs only
    assert {table.name for table in metadata.sorted_tables} - tables <= unwritten
    assert len(at_work.statements) > 100


def test_every_write_names_one_thread(at_work: Statements) -> None:
    for statement, table, keys in at_work.writes():
        if table not in REFERENCE:
            assert len(keys) == 1, statement
            if not re.match(r"\s*(WITH|INSERT)", statement):
                assert "thread_key = %(" in statement, statement


def test_nothing_hangs_on_a_session(at_work: Statements) -> None:
    for statement, _ in at_work.statements:
        assert not SESSION.search(statement), statement


def test_tables_are_made_in_transactions_of_their_own(at_work: Statements) -> None:
    data = re.compile(rf"\b(FROM|INTO|UPDATE) ({'|'.join(IDS)})\b")
    made = 0
    for transaction in at_work.transactions:
        if any(DDL.match(statement) for statement in transaction):
            made += 1
            assert not any(data.search(statement) for statement in transaction)
    assert made == 1


STATUSES: Final[list[Status | None]] = [None, "failed", "idle"]


def test_an_append_is_one_statement(store: EventStore) -> None:
    """Whatever its length, and with a change of the thread's status, too."""
    fill(store, "t", 3)
    seen = Statements()
    seen.watch(store)
    head = store.head("t")
    for batch in ([Event(1)], [Event(1)] * 50):
        for status in STATUSES:
            seen.statements.clear()
            head = store.append_after(head, batch, status=status)
            assert len(seen.statements) == 1


def test_a_read_of_the_end_is_one_statement(store: EventStore) -> None:
    fill(store, "t", 3)
    seen = Statements()
    seen.watch(store)
    store.head("t")
    assert len(seen.statements) == 1
