"""Who is measured: this library, LangGraph with its SQLite saver, and the bare limits.

A peer lends a workload its graph classes and opens its own store on a file; both commit with
``synchronous=FULL`` in WAL mode. The limits are what nobody can beat on the same machine: a
plain ``sqlite3`` loop that inserts the same rows with one commit per superstep, and a plain
loop that decompresses and unpacks the same payloads.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import msgpack
import zstandard
from sqlalchemy import select

Row = tuple[Any, ...]


class Session(Protocol):
    """A peer's store, opened on one file."""

    saver: Any

    def delete_thread(self, thread_id: str) -> None:
        """Remove all that is stored of a thread."""

    def settle(self) -> None:
        """Move the write-ahead log into the file, so that sizes show what is stored."""

    def close(self) -> None:
        """Close the file."""


@dataclass(frozen=True)
class Peer:
    """A library under measurement; satisfies ``workloads.GraphApi``.

    Attributes:
        key: under which ``PEERS`` makes it, in this process or another.
    """

    key: str
    name: str
    state_graph: Callable[[Any], Any]
    start: str
    end: str
    open_session: Callable[[Path], Session]

    @contextmanager
    def session(self, folder: Path) -> Iterator[Session]:
        """The store in ``folder``, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        session = self.open_session(folder / "state.db")
        try:
            yield session
        finally:
            session.close()


def size_of(folder: Path) -> int:
    """Bytes of all files in ``folder``, side files included."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- this library ---------------------------------------------------------------------------


class OurSession:
    """``graph.SqliteSaver`` on a file, ``durability="full"``, which is its default."""

    def __init__(self, path: Path) -> None:
        from graph import SqliteSaver

        self.saver: Any = SqliteSaver(str(path))
        self._path = path

    def delete_thread(self, thread_id: str) -> None:
        self.saver.store.delete_thread(thread_id)

    def settle(self) -> None:
        # With the same driver: two copies of SQLite in one process drop each other's locks.
        connection = sqlite_driver().connect(str(self._path))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def close(self) -> None:
        self.saver.close()

    def rows(self, thread_id: str) -> list[Row]:
        """The stored events of a thread, every column, in the order of the log."""
        from eventstore.schema import events

        store = self.saver.store
        key = store.thread(thread_id).thread_key
        statement = select(events).where(events.c.thread_key == key).order_by(events.c.seq)
        with store.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(statement)]


def ours() -> Peer:
    """This library."""
    from graph import END, START, StateGraph

    return Peer("ours", "this library", StateGraph, START, END, OurSession)


# --- LangGraph ------------------------------------------------------------------------------


class LangGraphSession:
    """``SqliteSaver`` on a connection as its documentation opens it, committing durably."""

    def __init__(self, path: Path) -> None:
        from langgraph.checkpoint.sqlite import SqliteSaver

        self._connection = sqlite3.connect(path, check_same_thread=False)
        self.saver: Any = SqliteSaver(self._connection)
        self.saver.setup()
        self._connection.execute("PRAGMA synchronous = FULL")

    def delete_thread(self, thread_id: str) -> None:
        self.saver.delete_thread(thread_id)

    def settle(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()


def langgraph() -> Peer:
    """LangGraph with its SQLite saver."""
    from langgraph.graph import END, START, StateGraph

    return Peer("langgraph", "LangGraph", StateGraph, START, END, LangGraphSession)


PEERS: Final[dict[str, Callable[[], Peer]]] = {"ours": ours, "langgraph": langgraph}


# --- the limits -----------------------------------------------------------------------------


def sqlite_driver() -> ModuleType:
    """The ``sqlite3`` module that the library uses."""
    from eventstore.dialects import sqlite_driver as chosen

    return chosen()


class BareSqlite:
    """Rows into one table through the driver alone: nothing is encoded, checked or derived."""

    _TABLE: Final = (
        "CREATE TABLE events (thread_key INTEGER NOT NULL, ns TEXT NOT NULL, seq INTEGER NOT NULL,"
        " kind INTEGER NOT NULL, key TEXT, recorded_at INTEGER NOT NULL, digest BLOB NOT NULL,"
        " payload BLOB NOT NULL, PRIMARY KEY (thread_key, ns, seq))"
    )
    _INSERT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite_driver().connect(str(path), isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(self._TABLE)

    def write(self, supersteps: Sequence[Sequence[Row]]) -> None:
        """One transaction, and so one fsync, per superstep."""
        execute = self._connection.execute
        many = self._connection.executemany
        for rows in supersteps:
            execute("BEGIN IMMEDIATE")
            many(self._INSERT, rows)
            execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def by_superstep(rows: Sequence[Row], sizes: Sequence[int]) -> list[list[Row]]:
    """Cut rows into transactions of the given sizes, over and over."""
    if len(rows) % sum(sizes):
        raise ValueError(f"{len(rows)} rows do not divide into supersteps of {list(sizes)}")
    groups, at = [], 0
    while at < len(rows):
        for size in sizes:
            groups.append(list(rows[at : at + size]))
            at += size
    return groups


def bare_decoder(payloads: Sequence[bytes]) -> Callable[[], list[Any]]:
    """A loop over payloads with nothing but ``zstandard`` and ``msgpack`` in it."""
    from eventstore.dictionaries import builtin

    plain = zstandard.ZstdDecompressor()
    decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def decompressor(body: bytes) -> zstandard.ZstdDecompressor:
        number = zstandard.get_frame_parameters(body).dict_id
        if not number:
            return plain
        if number not in decompressors:
            data = zstandard.ZstdCompressionDict(builtin(number))
            decompressors[number] = zstandard.ZstdDecompressor(dict_data=data)
        return decompressors[number]

    # Which decompressor a payload needs is settled before the clock starts.
    work = [(p[2:], decompressor(p[2:]).decompress if p[1] else bytes) for p in payloads]

    def loop() -> list[Any]:
        return [msgpack.unpackb(expand(body), strict_map_key=False) for body, expand in work]

    return loop
