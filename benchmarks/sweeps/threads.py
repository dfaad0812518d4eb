"""Many conversations in a database, expired and live ones, made quickly.

A few conversations are run as a graph, by this library and by LangGraph alike. Their rows are then
copied under other names, by SQL: as if fifty people at a time took turns, so that the rows of a
thread lie on many pages. A copy's digests do not fit its name, which no sweep looks at.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

import psycopg

from benchmarks.peers.registry import find_peer
from benchmarks.workloads.chat import chat_graph, chat_turns
from eventstore import EventStore
from eventstore.db.schema import threads as threads_table
from eventstore.format import digests
from eventstore.format.checks import checksum_of

TEMPLATES: Final = 10
"""Conversations that are run; all others are copies of one of them."""

WAVE: Final = 50
"""Conversations that take turns."""

EXPIRED: Final = timedelta(days=60)
LIVE: Final = timedelta(days=1)

_OURS: Final[Mapping[str, str]] = {"events": "seq", "segments": "seq", "snapshots": "seq"}
"""Tables, and the column in whose order their rows came."""

_THEIRS: Final[Mapping[str, str]] = {
    "checkpoints": "checkpoint_id",
    "writes": "checkpoint_id",
    "checkpoint_blobs": "version",
    "checkpoint_writes": "checkpoint_id",
}


@dataclass(frozen=True)
class Target:
    """A database of one peer.

    Attributes:
        place: the path of a SQLite file, or the URL of a PostgreSQL database.
    """

    place: str

    @property
    def is_sqlite(self) -> bool:
        return "://" not in self.place

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection of the driver, which commits at the end."""
        if not self.is_sqlite:
            with psycopg.connect(self.place) as server:
                yield server
            return
        with closing(sqlite3.connect(self.place)) as file:
            file.execute("PRAGMA synchronous = OFF")
            yield file
            file.commit()


def name_of(number: int) -> str:
    """The name of a thread; the first half of them is expired."""
    return f"thread-{number}"


def fill_ours(target: Target, threads: int, turns: int, *, sealed: bool) -> None:
    """Store conversations in the tables of this library."""
    with EventStore(target.place, durability="normal") as store:
        templates = _run("ours", store, turns)
        if sealed:
            ahead = datetime.now(UTC) + timedelta(hours=1)  # younger events are never sealed
            with EventStore(target.place, clock=lambda: ahead) as later:
                for name in templates:
                    later.seal(name, ahead)
        keys = [store.thread(name).thread_key for name in templates]
    now_us = time.time_ns() // 1_000
    rows: list[dict[str, Any]] = []
    for number in range(threads):
        age = EXPIRED if number < threads // 2 else LIVE
        at = now_us - age // timedelta(microseconds=1) + number
        row: dict[str, Any] = {
            "thread_key": digests.thread_key(store.tenant, name_of(number), 0),
            "tenant": store.tenant,
            "thread_id": name_of(number),
            "created_at": at,
            "active_at": at,
            "status": "idle",
            "ttl": None,
            "pinned": False,
            "condemned_at": None,
            "metadata": "{}",
            "life": 0,
            "pin": None,
            "fate": None,
            "owner": None,
            "reached": 2 * turns,
        }
        rows.append({**row, "checksum": checksum_of(SimpleNamespace(**row))})
    assert {*rows[0]} == {column.name for column in threads_table.columns}
    with target.connected() as connection:
        _insert(connection, target, "threads", rows)
        copies = [
            (number, keys[number % TEMPLATES], row["thread_key"], now_us - row["active_at"])
            for number, row in enumerate(rows)
        ]
        _copy(connection, target, copies, "thread_key", _OURS)


def fill_theirs(target: Target, saver: Any, threads: int, turns: int) -> None:
    """Store the same conversations in the tables of LangGraph."""
    templates = _run("langgraph", saver, turns)
    with target.connected() as connection:
        copies = [
            (number, templates[number % TEMPLATES], name_of(number), 0) for number in range(threads)
        ]
        _copy(connection, target, copies, "thread_id", _THEIRS)


def _run(peer: str, checkpointer: Any, turns: int) -> list[str]:
    """Run some conversations; their names."""
    conversation = chat_turns(TEMPLATES * turns)
    names = [f"template-{number}" for number in range(TEMPLATES)]
    for number, name in enumerate(names):
        part = conversation[number * turns : (number + 1) * turns]
        app = chat_graph(find_peer(peer), part).compile(checkpointer=checkpointer)
        for turn in part:
            app.invoke({"messages": [turn.question]}, {"configurable": {"thread_id": name}})
    return names


def _copy(
    connection: Any,
    target: Target,
    copies: Sequence[tuple[int, Any, Any, int]],
    key: str,
    tables: Mapping[str, str],
) -> None:
    """Copy rows of templates, wave by wave, each in the order in which they came."""
    cursor = connection.cursor()
    kind = "BIGINT" if type(copies[0][1]) is int else "TEXT"
    cursor.execute(
        f"CREATE TEMPORARY TABLE copies"
        f" (number BIGINT PRIMARY KEY, template {kind}, copy {kind}, age_us BIGINT)"
    )
    names = ("number", "template", "copy", "age_us")
    _insert(connection, target, "copies", [dict(zip(names, row, strict=True)) for row in copies])
    for table, order in tables.items():
        if not _is_there(connection, target, table):
            continue
        cursor.execute(f"SELECT * FROM {table} WHERE 1 = 0")
        columns = [f'"{each[0]}"' for each in cursor.description]
        values = {f'"{key}"': "c.copy", '"recorded_at"': "t.recorded_at - c.age_us"}
        chosen = ", ".join(values.get(each, f"t.{each}") for each in columns)
        for first in range(0, len(copies), WAVE):
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen}"
                f" FROM copies c JOIN {table} t ON t.{key} = c.template"
                f" WHERE c.number BETWEEN {first} AND {first + WAVE - 1}"
                f" ORDER BY t.{order}, c.number"
            )
            if target.is_sqlite:
                connection.commit()


def _is_there(connection: Any, target: Target, table: str) -> bool:
    catalog = "sqlite_master WHERE name" if target.is_sqlite else "pg_tables WHERE tablename"
    found = connection.execute(f"SELECT count(*) FROM {catalog} = '{table}'").fetchone()
    return bool(found[0])


def _insert(connection: Any, target: Target, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ", ".join(rows[0])
    marks = ", ".join("?" if target.is_sqlite else "%s" for _ in rows[0])
    connection.cursor().executemany(
        f"INSERT INTO {table} ({columns}) VALUES ({marks})", [tuple(row.values()) for row in rows]
    )
