"""Copies threads into the tables of LangGraph's own savers, and compares every checkpoint.

The other way of :mod:`~graph.langgraph.transfer`. LangGraph's saver writes; what it wrote is read
back from its tables and compared byte by byte. The copies themselves say how far an export came: a
second one finds everything there, and one that was killed goes on where it ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

from eventstore import ConfigurationError, EventStore, EventStoreError
from eventstore.closing import Closing
from eventstore.concurrency import run_sync
from graph.langgraph.finding import History
from graph.langgraph.operations import Operations
from graph.langgraph.source import Name, Opener, Source, Stored, is_postgresql, opened, path_of
from graph.langgraph.state.records import Saved, Write, WriteKey
from graph.langgraph.transfer import Moved, TransferError, is_equal, missing_of

_BLOCK: Final = 16
"""Checkpoints held in memory at a time."""

_INLINE: Final = (str, int, float, bool, type(None))
"""What LangGraph's PostgreSQL saver keeps in the checkpoint itself."""


class Export(Closing):
    """Copies threads of a store into the tables of a LangGraph saver.

    Args:
        store: where from; open while this is used, and only read.
        target: a SQLite file, or a PostgreSQL URL. Tables that it has not are made.
        serde: the serializer of the threads here; an ``EncryptedSerializer`` decrypts them, and
            encrypts the copies. ``None``: LangGraph's default.
        dry_run: only count; nothing is made or written.

    Raises:
        ConfigurationError: the target cannot be opened, is a store of this library, or its saver
            is not installed.
    """

    def __init__(
        self,
        store: EventStore,
        target: str,
        serde: SerializerProtocol | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self._dry_run = dry_run
        self._store = store
        operations = Operations(store.core, store.concurrency, "last", None)
        opener = Opener(serde)
        self._wire = operations.wire(opener.serde)
        self._logs = operations.reading.logs
        self._opening: AbstractContextManager[BaseCheckpointSaver[Any]] | None = None
        self._tables: Source | None = None
        self._has_blobs = is_postgresql(target)
        if not self._has_blobs:
            _refuse_store(path_of(target), store)
        if dry_run and not _has_tables(target, serde):
            return
        if not dry_run:
            self._opening = _saver(target)
            with _errors_as(ConfigurationError, "the target cannot be opened"):
                self._saver = self._opening.__enter__()
        try:
            if not dry_run:
                self._saver.serde = opener.serde
                with _errors_as(ConfigurationError, "the target cannot be set up"):
                    self._saver.setup()  # type: ignore[attr-defined]
            self._tables, _ = opened(target, serde)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the target; the store stays open."""
        if self._tables is not None:
            self._tables.close()
        if self._opening is not None:
            self._opening.__exit__(None, None, None)
        self._tables = self._opening = None

    def thread(self, thread_id: str, advance: Callable[[int], None] = lambda count: None) -> Moved:
        """Copy what a thread has and its copy has not, and verify every checkpoint.

        Args:
            advance: called with how many checkpoints were found equal.

        Raises:
            TransferError: the thread and its copy went on differently, or do not become equal.
            EventStoreError: the thread cannot be read.
        """
        return run_sync(self._thread(thread_id, advance))

    async def _thread(self, thread_id: str, advance: Callable[[int], None]) -> Moved:
        history = History(self._logs, await self._logs.tip(thread_id, self._wire.seal))
        refs = sorted(await history.all(None), key=lambda ref: (ref.id, ref.ns))
        names = [ref.name for ref in refs]
        present = set(self._tables.names(thread_id)) if self._tables is not None else set()
        copied, is_ahead = missing_of(
            names,
            present,
            f"thread {thread_id!r} was continued here and in the target",
            "delete it there to export it anew",
        )
        if is_ahead:
            advance(len(names))
        elif not self._dry_run:
            copied = 0
            for start in range(0, len(refs), _BLOCK):
                block = refs[start : start + _BLOCK]
                found = await history.load(block)
                copied += self._block(thread_id, [(ref.name, found[ref.name]) for ref in block])
                advance(len(block))
        size = self._tables.size(thread_id) if self._tables is not None else 0
        stored = self._store.stats(thread_id).stored_bytes
        return Moved(thread_id, len(names), copied, stored, size, is_ahead)

    def _block(self, thread_id: str, block: Sequence[tuple[Name, Saved]]) -> int:
        """Write the checkpoints that are missing or differ; how many did."""
        assert self._tables is not None
        differing = [each for each in block if not self._is_copied(thread_id, *each)]
        for name, saved in differing:
            with _errors_as(TransferError, f"thread {thread_id!r}: the target cannot be written"):
                self._put(thread_id, name, saved)
            if not self._is_copied(thread_id, name, saved):
                raise TransferError(
                    f"thread {thread_id!r}: checkpoint {name[1]} differs from its copy after it "
                    "was written; the target may be in use, or its saver is of another version"
                )
        return len(differing)

    def _is_copied(self, thread_id: str, name: Name, saved: Saved) -> bool:
        assert self._tables is not None
        row = self._tables.read(thread_id, name)
        return row is not None and is_equal(self._wire, row, saved, exactly=True)

    def _put(self, thread_id: str, name: Name, saved: Saved) -> None:
        ns, checkpoint_id = name
        place = {"thread_id": thread_id, "checkpoint_ns": ns}
        checkpoint: Any = self._wire.loads(*saved.head)
        versions = checkpoint["channel_versions"]
        checkpoint["channel_values"] = {
            channel: self._value(each.value.type, each.value.data)
            for channel, each in saved.channels.items()
            if each.value is not None and each.version == versions.get(channel)
        }
        parent = {"checkpoint_id": saved.parent} if saved.parent else {}
        metadata: Any = self._wire.metadata(saved)
        self._saver.put({"configurable": {**place, **parent}}, checkpoint, metadata, versions)
        config: Any = {"configurable": {**place, "checkpoint_id": checkpoint_id}}

        def task_of(item: tuple[WriteKey, Write]) -> tuple[str, str]:
            (task, _), write = item
            return task, write.path

        for (task, path), found in groupby(sorted(saved.writes.items(), key=task_of), task_of):
            for batch in _batches({index: write for (_, index), write in found}, task):
                self._saver.put_writes(
                    config,
                    [(each.channel, Stored(each.type, each.data)) for each in batch],
                    task,
                    path,
                )

    def _value(self, kind: str, data: bytes) -> Any:
        """A value for the target's saver, which writes it as it is stored here."""
        if kind == "msgpack":
            # What is no plain data stays as it is; the serializer writes it so again.
            value = ormsgpack.unpackb(
                data, ext_hook=ormsgpack.Ext, option=ormsgpack.OPT_NON_STR_KEYS
            )
            is_apart = self._has_blobs and not isinstance(value, _INLINE)
            return Stored(kind, data) if is_apart else value
        if kind == "null":
            return None
        return self._wire.loads(kind, data)


def _batches(writes: dict[int, Write], task: str) -> Iterator[list[Write]]:
    """The calls of ``put_writes`` that give a task's writes their indexes.

    A saver numbers the writes of a call, those with an index of their own (errors, interrupts and
    the like) counted. These replace what was there if a call has no others.
    """
    special = [writes[index] for index in sorted(writes) if index < 0]
    plain = {index: write for index, write in writes.items() if index >= 0}
    if plain:
        batch = []
        for index in range(max(plain) + 1):
            if index in plain:
                batch.append(plain[index])
            elif special:
                batch.append(special.pop(0))
            else:
                raise TransferError(
                    f"task {task}: write {index} is missing before write {max(plain)}, and "
                    "LangGraph's savers number the writes of a task without gaps"
                )
        yield batch
    if special:
        yield special


def _saver(target: str) -> AbstractContextManager[BaseCheckpointSaver[Any]]:
    """LangGraph's own saver for a target.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        if is_postgresql(target):
            from langgraph.checkpoint.postgres import PostgresSaver

            _, _, rest = target.partition("://")
            return PostgresSaver.from_conn_string(f"postgresql://{rest}")
        from langgraph.checkpoint.sqlite import SqliteSaver

        return SqliteSaver.from_conn_string(path_of(target))
    except ImportError as error:
        package = "postgres" if is_postgresql(target) else "sqlite"
        raise ConfigurationError(
            f"exporting needs LangGraph's own saver; run pip install "
            f"langgraph-checkpoint-{package} ({error})"
        ) from error


@contextmanager
def _errors_as(kind: type[EventStoreError], what: str) -> Iterator[None]:
    """Errors of the target's database become ours; its saver passes on those of the driver."""
    drivers: tuple[type[Exception], ...] = (sqlite3.Error,)
    with suppress(ImportError):
        import psycopg

        drivers += (psycopg.Error,)
    try:
        yield
    except drivers as error:
        raise kind(f"{what}: {error}") from error


def _has_tables(target: str, serde: SerializerProtocol | None) -> bool:
    if not is_postgresql(target) and not Path(path_of(target)).is_file():
        return False
    try:
        opened(target, serde)[0].close()
    except ConfigurationError as error:
        if "no tables" in str(error):
            return False
        raise
    return True


def _refuse_store(path: str, store: EventStore) -> None:
    """Refuse the file of a store. That of the open one is not opened: closing it would end the
    locks that SQLite holds on it.
    """
    if not Path(path).is_file():
        return
    here = store.engine.url.database if store.engine.dialect.name == "sqlite" else None
    if here and Path(here).is_file() and Path(here).samefile(path):
        raise ConfigurationError(f"the target {path!r} is the store itself; name another file")
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as found:
        try:
            names = {name for (name,) in found.execute("SELECT name FROM sqlite_master")}
        except sqlite3.OperationalError as error:
            raise ConfigurationError(f"the target {path!r} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"the target {path!r} is no database: {error}") from error
    if {"events", "threads"} <= names:
        raise ConfigurationError(
            f"the target {path!r} is a store of this library; name another file for LangGraph"
        )
