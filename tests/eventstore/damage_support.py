"""A file with every kind of row, what may be done to one of them, and what has to hold then.

`build` makes the file. Its thread ``t`` is to be damaged; ``a`` and ``b`` have nothing to do with
it, and whatever happens to ``t`` they can be listed, read, appended to, planned, swept and
exported. `examine` does all that, and tells how the damage shows.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from unittest.mock import patch

import pytest

from eventstore import (
    CorruptEventError,
    Event,
    EventStore,
    EventStoreError,
    Fork,
    NewSnapshot,
    ThreadNotFoundError,
)
from eventstore.core import seal
from eventstore.db.sqlite import sqlite_driver
from retention import RetentionPolicy, plan, sweep
from retention.erasing import erase
from tests.eventstore.support import FINGERPRINT

Outcome = Literal["found", "harmless"]

SOUND: Final = ("a", "b")
TABLES: Final = ("threads", "events", "segments", "snapshots", "forks")
"""Tables whose rows belong to a thread."""

SECONDS_MAX: Final = 20.0
"""A case that computes longer than this runs in circles."""

WAITING_SECONDS_MAX: Final = 300.0
"""The same by the clock on the wall: a busy machine may take longer than the case computes."""

LONG_AGO: Final = timedelta(days=100)
POLICY: Final = RetentionPolicy(timedelta(days=3650), max_events=12, seal_after=timedelta(days=1))


def build(path: Path, threads: tuple[str, ...] = (*SOUND, "t")) -> None:
    """Make a file; each thread has keys, a subgraph's log, snapshots, a segment, a base, a fork."""
    began = datetime.now(UTC) - LONG_AGO
    with EventStore(path, clock=lambda: began, durability="normal") as store:
        for name in threads:
            _thread(store, name)
        store.append("gone", [Event(1, 1)], 0)
        store.delete_thread("gone")
        erase(store, "erased", "nobody", thread_id=_one(store), vacuum=False)


def _one(store: EventStore) -> str:
    store.append("erased", [Event(1, 1)], 0)
    return "erased"


def _thread(store: EventStore, name: str) -> None:
    head = store.head(name)
    for n in range(1, 25):
        key = f"k{n}" if n % 5 == 0 else None
        snapshot = None
        if n in (8, 16, 22):
            state = store.codec.encode(list(range(1, n + 1)))
            snapshot = NewSnapshot(FINGERPRINT, state, b"", step=n)
        head = store.append_after(
            head,
            [Event(1, {"n": n, "of": name}, key=key)],
            snapshot=snapshot,
            metadata={"team": name, "n": 1},
            ttl=timedelta(days=9999) if n == 1 else None,
        )
        if n == 12:
            store.trim(name, 8)
    store.append(name, [Event(1, {"n": n}) for n in range(1, 6)], 0, "sub")
    store.fork(name, 20, f"{name}'s fork", data=name)
    store.append(name, [Fork(head.position._replace(seq=23))], head.seq)
    store.pin(f"{name}'s fork", "case 12", "legal")
    later = datetime.now(UTC) + timedelta(days=1)
    with patch.multiple(seal, EVENTS_MIN=4, SETTLED_US=-(10**15)):
        store.seal(name, later)


def raw(path: Path) -> Any:
    """A connection of the driver that the library uses, which takes any value in any column."""
    connection = sqlite_driver().connect(str(path), isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return connection


def contents(store: EventStore, name: str) -> Any:
    """Everything that a reader may ask of a thread."""
    info = store.thread(name)
    logs = {
        ns: [(e.seq, e.kind, e.key, e.recorded_us, e.digest, repr(e.data)) for e in
             store.read(name, ns)]
        for ns in store.namespaces(name)
    }  # fmt: skip
    replay = store.replay(name, fingerprint=FINGERPRINT)
    start = store.codec.decode(replay.snapshot.state) if replay.snapshot else []
    folded = [*start, *(event.data["n"] for event in replay.events if event.kind)]
    return info, logs, folded, store.head(name).seq


@contextmanager
def limited(store: EventStore) -> Iterator[None]:
    """A query that runs in circles is ended, and what comes of it is no error of ours."""
    began, computed = time.monotonic(), time.process_time()

    def stop() -> bool:
        waited = time.monotonic() - began > WAITING_SECONDS_MAX
        return waited or time.process_time() - computed > SECONDS_MAX

    with store.engine.connect() as conn:
        driver: Any = conn.connection.dbapi_connection
        driver.set_progress_handler(stop, 100_000)
    yield
    assert not stop(), "it took too long"


class Named(logging.Handler):
    """Collects what the log says of errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def logged() -> Iterator[Named]:
    """Collects errors of the log while it lasts."""
    named = Named()
    logging.getLogger().addHandler(named)
    try:
        yield named
    finally:
        logging.getLogger().removeHandler(named)


def examine(path: Path, wanted: dict[str, Any], victim: str = "t") -> Outcome:
    """Use everything in a file whose thread ``victim`` may be damaged; how that shows.

    Args:
        wanted: the `contents` of each thread before the damage.
    """
    with logged() as named, EventStore(path, durability="normal") as store:
        store.setup()
        with limited(store):
            return _examine(store, wanted, victim, named)


def _examine(store: EventStore, wanted: dict[str, Any], victim: str, named: Named) -> Outcome:
    touched = {victim, f"{victim}'s fork"}
    errors: list[EventStoreError] = []

    def attempt(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except EventStoreError as error:
            errors.append(error)
            return None

    same = True
    for name in sorted(touched):
        same &= attempt(lambda name=name: contents(store, name)) == wanted[name]  # type: ignore[misc]
        report = attempt(lambda name=name: store.verify(name))  # type: ignore[misc]
        if report is not None and not report.ok:
            errors.append(CorruptEventError("; ".join(report.problems)))
        attempt(lambda name=name: store.trim_points(name))  # type: ignore[misc]
        attempt(lambda name=name: store.stats(name))  # type: ignore[misc]
        attempt(lambda name=name: store.dump(name).close())  # type: ignore[misc]
        attempt(lambda name=name: store.descendants(name))  # type: ignore[misc]
    others = sorted(set(wanted) - touched)
    for name in others:
        assert contents(store, name) == wanted[name], name
        assert store.verify(name).ok, store.verify(name).problems
        with store.dump(name) as dump:
            assert dump.header.thread_id == name
    assert set(others) <= {info.thread_id for info in store.threads(limit=1000)}
    listed = [info.thread_id for info in store.threads(limit=2)]
    assert len(listed) == 2
    store.thread_counts(), store.tombstones(), store.sweeps()
    stats = store.stats()
    assert stats.threads >= len(others)
    planned = plan(store, POLICY)
    trimmed = {each.thread_id for each in planned.decisions if each.action == "trim"}
    assert {name for name in others if "'" not in name} <= trimmed
    report = sweep(store, POLICY)
    assert report.trimmed >= len([name for name in others if "'" not in name])
    for name in others:
        before = store.head(name).seq
        assert store.append(name, [Event(1, "after")], before) == before + 1
        assert store.verify(name).ok
    attempt(lambda: store.append_after(store.head(victim), [Event(1, "after")]))
    if not store.check_database().ok:
        errors.append(CorruptEventError("the database's own check"))
    _remove(store, victim)
    for name in others:
        assert store.verify(name).ok
    if errors or named.said or report.failed or stats.damaged or planned.counts.get("damaged"):
        return "found"
    assert same, "something else is read, and nobody says so"
    return "harmless"


def _remove(store: EventStore, victim: str) -> None:
    """Erase the damaged thread and delete its fork, whatever is wrong with them."""
    try:
        erase(
            store,
            "asked to",
            "test",
            thread_id=victim,
            forks="keep",
            despite_pin=True,
            vacuum=False,
        )
    except ThreadNotFoundError:
        pass  # the row itself is gone
    except CorruptEventError as error:
        # A damaged mark for deletion hides the thread. It is not believed: nothing is deleted.
        if "which is being deleted, is damaged" not in str(error):
            raise
        return
    for name in (victim, f"{victim}'s fork"):
        with suppress(ThreadNotFoundError):
            store.delete_thread(name)
        with pytest.raises(ThreadNotFoundError):
            store.thread(name)


def rows_of_file(path: Path) -> dict[str, list[Any]]:
    """Every row of every table, without using the library."""
    connection = raw(path)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for (name,) in names.fetchall()
        }
    finally:
        connection.close()


def damage_row(
    path: Path, table: str, column: str, value: Any, chance: random.Random, victim_key: int
) -> bool:
    """Put a value into a column of some row of the victim; false if the table refuses it.

    Args:
        value: ``FLIP`` for the value that is there with one bit changed.
    """
    connection = raw(path)
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        places = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5]]
        where = " AND ".join(f"{each} IS ?" for each in places)
        rows = connection.execute(
            f"SELECT {', '.join(places)} FROM {table} WHERE thread_key = ?", (victim_key,)
        ).fetchall()
        row = chance.choice(rows)
        if value is FLIP:
            ((found,),) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}", row)
            value = _flipped(found, chance)
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value, *row))
    except sqlite_driver().Error:
        return False
    finally:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    return True


def _flipped(value: Any, chance: random.Random) -> Any:
    if isinstance(value, int):
        return value ^ (1 << chance.randrange(62))
    if value is None or len(value) == 0:
        return 1
    content = bytearray(value if isinstance(value, bytes) else value.encode())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(7)
    return bytes(content) if isinstance(value, bytes) else content.decode("latin-1")


FLIP: Final = object()
VALUES: Final = (
    FLIP, FLIP, FLIP, None, 0, 1, -1, 5, 2**40, 2**62, 2**63 - 1, -(2**63), 1.5, "text", "", "[1]",
    "{}", '{"reason": 1}', "[" * 100_000, b"", bytes([0, 255]),
)  # fmt: skip
"""What a column may be found to hold."""


def columns_of(path: Path, table: str) -> list[str]:
    """The columns of a table."""
    connection = raw(path)
    try:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    finally:
        connection.close()
