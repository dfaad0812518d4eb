"""The tables of LangGraph's own savers, read only: threads, their checkpoints and their writes.

Values stay as they are stored: no type of an application is loaded. Only what the SQLite saver
keeps as one piece, a checkpoint with the values of its channels, is taken apart.
"""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventstore import ConfigurationError, EventStoreError
from graph.langgraph.state.records import Typed, Write, WriteKey

_PAGE: Final = 500
"""Threads in one page of a scan."""

Name = tuple[str, str]
"""A namespace and the id of a checkpoint in it."""


class SourceError(EventStoreError):
    """A checkpoint of a source cannot be read."""


class Stored(NamedTuple):
    """A value as it is stored, decrypted and not deserialized."""

    type: str
    data: bytes


class Row(NamedTuple):
    """A checkpoint of a source, with its metadata and pending writes."""

    parent: str | None
    checkpoint: dict[str, Any]
    metadata: Any
    writes: Sequence[tuple[WriteKey, Write]]


class Passing:
    """A serializer that passes on what is stored, and leaves the rest to another one."""

    def __init__(self, inner: SerializerProtocol) -> None:
        self._inner = inner

    def dumps_typed(self, obj: Any) -> Typed:
        """A value's type and bytes."""
        return (obj.type, obj.data) if isinstance(obj, Stored) else self._inner.dumps_typed(obj)

    def loads_typed(self, data: Typed) -> Any:
        """The value that bytes stand for."""
        return self._inner.loads_typed(data)


class Opener:
    """Decrypts what a serializer encrypted, and takes whole checkpoints apart.

    Attributes:
        serde: what the copies are written with; with the cipher of the given one.
    """

    def __init__(self, serde: SerializerProtocol | None) -> None:
        serde = serde if serde is not None else JsonPlusSerializer()
        self._cipher = serde.cipher if isinstance(serde, EncryptedSerializer) else None
        self._inner = serde.serde if isinstance(serde, EncryptedSerializer) else serde
        self.serde: SerializerProtocol = Passing(self._inner)
        if self._cipher is not None:
            self.serde = EncryptedSerializer(self._cipher, self.serde)

    def stored(self, kind: str, data: bytes | None) -> Stored:
        """A value without its encryption."""
        data = bytes(data or b"")
        inner, is_sealed, name = kind.partition("+")
        if not is_sealed:
            return Stored(kind, data)
        if self._cipher is None:
            raise ConfigurationError(
                f"the source is encrypted with {name!r}; pass the EncryptedSerializer that wrote it"
            )
        try:
            return Stored(inner, self._cipher.decrypt(name, data))
        except (AssertionError, ValueError) as error:
            raise ConfigurationError(
                f"the source does not decrypt with this key of {name!r}: {error}; it was written "
                "with another key, or was changed"
            ) from error

    def checkpoint(self, kind: str, data: bytes) -> dict[str, Any]:
        """A whole checkpoint with the values of its channels."""
        kind, data = self.stored(kind, data)
        found: Any
        if not isinstance(self._inner, JsonPlusSerializer):
            found = self._inner.loads_typed((kind, data))
        elif kind == "json":
            found = json.loads(data)
            values = (found.get("channel_values") or {}).items()
            found["channel_values"] = {
                name: Stored("json", json.dumps(value).encode()) for name, value in values
            }
        elif kind == "msgpack":
            # What is no plain data stays as it is; the serializer writes it so again.
            found = ormsgpack.unpackb(
                data, ext_hook=ormsgpack.Ext, option=ormsgpack.OPT_NON_STR_KEYS
            )
        else:
            raise ValueError(f"it is stored as {kind!r}; expected 'msgpack' or 'json'")
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        return found


class Source(ABC):
    """The tables of one of LangGraph's savers."""

    kind: str
    writes_table: str
    value_column: str
    size_sql: str

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        columns = self._columns(self.writes_table)
        needed = {"thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id"}
        if not columns or not needed <= self._columns("checkpoints"):
            self.close()
            raise ConfigurationError(
                f"the source has no tables of LangGraph's {self.kind}; expected checkpoints and "
                f"{self.writes_table}"
            )
        self._path_column = "task_path" if "task_path" in columns else "''"

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abstractmethod
    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of a statement whose parameters are question marks."""

    @abstractmethod
    def _columns(self, table: str) -> set[str]:
        """The columns of a table; empty if there is none."""

    @abstractmethod
    def _checkpoint(
        self, thread_id: str, name: Name
    ) -> tuple[str | None, dict[str, Any], Any] | None:
        """A checkpoint: its parent, what it holds, its metadata."""

    def threads(self) -> Iterator[str]:
        """The ids of all threads, in the order of their ids."""
        last: str | None = None
        while True:
            where, given = ("WHERE thread_id > ?", [last]) if last is not None else ("", [])
            page = self._rows(
                f"SELECT DISTINCT thread_id FROM checkpoints {where} "
                f"ORDER BY thread_id LIMIT {_PAGE}",
                *given,
            )
            for (thread_id,) in page:
                yield thread_id
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def count(self) -> int:
        """How many checkpoints there are."""
        found: int = self._rows("SELECT count(*) FROM checkpoints")[0][0]
        return found

    def names(self, thread_id: str) -> list[Name]:
        """The checkpoints of a thread, oldest first, and each after its parent."""
        rows = self._rows(
            "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id FROM checkpoints "
            "WHERE thread_id = ?",
            thread_id,
        )
        parents = {(ns, name): (ns, parent) for ns, name, parent in rows}
        found: dict[Name, None] = {}
        for name in sorted(parents, key=lambda each: (each[1], each[0])):
            line: dict[Name, None] = {}
            while name in parents and name not in found and name not in line:
                line[name] = None
                name = parents[name]
            found |= dict.fromkeys(reversed(line))
        return list(found)

    def size(self, thread_id: str) -> int:
        """The bytes of a thread's rows, without indexes and pages."""
        marks = self.size_sql.count("?")
        found = self._rows(self.size_sql, *[thread_id] * marks)[0][0]
        return int(found or 0)

    def read(self, thread_id: str, name: Name) -> Row | None:
        """A checkpoint; ``None`` if it is gone.

        Raises:
            ConfigurationError: it is encrypted, and there is no key or another one.
            SourceError: it cannot be read.
        """
        try:
            found = self._checkpoint(thread_id, name)
            if found is None:
                return None
            writes = self._rows(
                f"SELECT task_id, idx, channel, {self._path_column}, type, {self.value_column} "
                f"FROM {self.writes_table} "
                "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? "
                "ORDER BY task_id, idx",
                thread_id,
                *name,
            )
            return Row(
                *found,
                [
                    ((task, idx), Write(channel, path, *self._opener.stored(kind, value)))
                    for task, idx, channel, path, kind, value in writes
                ],
            )
        except EventStoreError:
            raise
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise SourceError(
                f"checkpoint {name[1]} of the source's thread {thread_id!r} cannot be read: {error}"
            ) from error


class SqliteSource(Source):
    """The tables of ``SqliteSaver`` and ``AsyncSqliteSaver`` in a file."""

    kind = "SqliteSaver"
    writes_table = "writes"
    value_column = "value"
    size_sql = (
        "SELECT (SELECT sum(length(thread_id) + length(checkpoint_ns) + length(checkpoint_id)"
        " + ifnull(length(parent_checkpoint_id), 0) + length(checkpoint) + length(metadata))"
        " FROM checkpoints WHERE thread_id = ?)"
        " + ifnull((SELECT sum(length(thread_id) + length(checkpoint_ns) + length(checkpoint_id)"
        " + length(task_id) + length(channel) + length(value)) FROM writes WHERE thread_id = ?), 0)"
    )

    def __init__(self, path: str, opener: Opener) -> None:
        if not Path(path).is_file():
            raise ConfigurationError(f"the source {path!r} is not a file; expected a database")
        uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
        try:
            self._connection = sqlite3.connect(uri, uri=True, timeout=30)
        except sqlite3.Error as error:
            raise ConfigurationError(f"the source {path!r} cannot be opened: {error}") from error
        super().__init__(opener)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise ConfigurationError(f"the source cannot be read: {error}") from error

    def _columns(self, table: str) -> set[str]:
        return {name for (name,) in self._rows("SELECT name FROM pragma_table_info(?)", table)}

    def _checkpoint(
        self, thread_id: str, name: Name
    ) -> tuple[str | None, dict[str, Any], Any] | None:
        rows = self._rows(
            "SELECT parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
            "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            thread_id,
            *name,
        )
        for parent, kind, checkpoint, metadata in rows:
            facts = json.loads(metadata) if metadata is not None else {}
            return parent or None, self._opener.checkpoint(kind, checkpoint), facts
        return None


class PostgresSource(Source):
    """The tables of ``PostgresSaver`` and ``AsyncPostgresSaver``."""

    kind = "PostgresSaver"
    writes_table = "checkpoint_writes"
    value_column = "blob"
    size_sql = "SELECT " + " + ".join(
        f"coalesce((SELECT sum(pg_column_size(t.*)) FROM {table} t WHERE thread_id = ?), 0)"
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    )

    def __init__(self, url: str, opener: Opener) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ConfigurationError(
                f"a PostgreSQL source needs psycopg; run pip install "
                f"'graph-eventstore[postgres]' ({error})"
            ) from error
        self._error = psycopg.Error
        try:
            self._connection = psycopg.connect(url, autocommit=True)
        except psycopg.Error as error:
            raise ConfigurationError(f"the source cannot be opened: {error}") from error
        self._connection.read_only = True
        super().__init__(opener)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, sql: str, *parameters: Any) -> list[Any]:
        text: Any = sql.replace("?", "%s")
        try:
            return self._connection.execute(text, parameters).fetchall()
        except self._error as error:
            raise ConfigurationError(f"the source cannot be read: {error}") from error

    def _columns(self, table: str) -> set[str]:
        rows = self._rows(
            "SELECT attname FROM pg_attribute "
            "WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped",
            table,
        )
        return {name for (name,) in rows}

    def _checkpoint(
        self, thread_id: str, name: Name
    ) -> tuple[str | None, dict[str, Any], Any] | None:
        place = "thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
        rows = self._rows(
            f"SELECT parent_checkpoint_id, checkpoint, metadata FROM checkpoints WHERE {place}",
            thread_id,
            *name,
        )
        for parent, checkpoint, metadata in rows:
            values = self._rows(
                "SELECT b.channel, b.type, b.blob FROM ("
                f"SELECT * FROM checkpoints WHERE {place}) c "
                "CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') v "
                "JOIN checkpoint_blobs b ON b.thread_id = c.thread_id "
                "AND b.checkpoint_ns = c.checkpoint_ns AND b.channel = v.key "
                "AND b.version = v.value",
                thread_id,
                *name,
            )
            found = dict(checkpoint.get("channel_values") or {})
            found |= {
                channel: self._opener.stored(kind, blob)
                for channel, kind, blob in values
                if kind != "empty"
            }
            return parent or None, {**checkpoint, "channel_values": found}, metadata
        return None


def opened(target: str, serde: SerializerProtocol | None) -> tuple[Source, Opener]:
    """The tables that a path or a URL names.

    Raises:
        ConfigurationError: there are none, or they cannot be opened.
    """
    opener = Opener(serde)
    if is_postgresql(target):
        return PostgresSource(f"postgresql://{target.partition('://')[2]}", opener), opener
    return SqliteSource(path_of(target), opener), opener


def is_postgresql(target: str) -> bool:
    """Whether a text is the URL of a PostgreSQL database."""
    scheme, is_url, _ = target.partition("://")
    return bool(is_url) and scheme.partition("+")[0] in ("postgresql", "postgres")


def path_of(target: str) -> str:
    """The path of a SQLite file, from that path or a URL.

    Raises:
        ConfigurationError: it is a URL of another kind.
    """
    scheme, is_url, rest = target.partition("://")
    if is_url and scheme.partition("+")[0] != "sqlite":
        raise ConfigurationError(
            f"{target!r} is of kind {scheme!r}; expected a SQLite file or a postgresql:// URL"
        )
    return rest.removeprefix("/") if is_url else target
