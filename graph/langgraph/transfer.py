"""Copies threads out of the tables of LangGraph's own savers, and compares every checkpoint.

The copies themselves say how far an import came: it goes over a thread's checkpoints, appends those
that are missing or differ, and then reads those back from the log, until none differs. A second
import finds everything there, and one that was killed goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT

from eventstore import EventStore, EventStoreError
from eventstore.closing import Closing
from eventstore.concurrency import run_sync
from graph.langgraph.finding import History
from graph.langgraph.logs import AS_USUAL, Plan, Tip
from graph.langgraph.operations import Operations
from graph.langgraph.source import Name, Row, Source, opened
from graph.langgraph.state.records import Batch, Saved, Typed, WriteKey
from graph.langgraph.wire import Wire

ROUNDS: Final = 5
"""How often a thread is gone over for checkpoints that differ; the source may be written to."""

_BLOCK: Final = 16
"""Checkpoints held in memory at a time."""


class TransferError(EventStoreError):
    """A thread cannot be copied."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a thread.

    Attributes:
        checkpoints: how many the source has.
        copied: how many of them were appended or completed; all others were there already.
        source_bytes: what the thread's rows take in the source, without indexes.
        stored_bytes: what the thread takes here.
        is_ahead: it was continued here, and so left as it is.
    """

    thread_id: str
    checkpoints: int
    copied: int
    source_bytes: int
    stored_bytes: int
    is_ahead: bool = False


class Import(Closing):
    """Copies threads of a source into a store.

    Args:
        store: where to; open while this is used.
        source: a SQLite file, or a PostgreSQL URL, with the tables of LangGraph's saver.
        serde: the serializer of the source; an ``EncryptedSerializer`` decrypts it, and encrypts
            the copies. ``None``: LangGraph's default.
    """

    def __init__(
        self, store: EventStore, source: str, serde: SerializerProtocol | None = None
    ) -> None:
        self.source: Source
        self.source, opener = opened(source, serde)
        self._store = store
        self._operations = Operations(store.core, store.concurrency, "last", None)
        self._wire = self._operations.wire(opener.serde)
        self._logs = self._operations.reading.logs

    def close(self) -> None:
        """Close the source; the store stays open."""
        self.source.close()

    def thread(
        self,
        thread_id: str,
        advance: Callable[[int], None] = lambda count: None,
        *,
        dry_run: bool = False,
    ) -> Moved:
        """Copy what a thread has and its copy has not, and verify every checkpoint.

        Args:
            advance: called with how many checkpoints were found equal.
            dry_run: only count; nothing is written, and nothing compared.

        Raises:
            TransferError: source and copy went on differently, or do not become equal.
            SourceError: a checkpoint cannot be read.
            EventStoreError: the copy cannot be read or written.
        """
        names = self.source.names(thread_id)
        present = run_sync(self._present(thread_id))
        copied, is_ahead = missing_of(
            names,
            present,
            f"thread {thread_id!r} was continued here and in the source",
            "delete it here to import it anew",
        )
        if is_ahead:
            advance(len(names))
        elif not dry_run:
            copied = run_sync(self._copy(thread_id, names, advance))
        exists = present or (copied and not dry_run)
        stored = self._store.stats(thread_id).stored_bytes if exists else 0
        size = self.source.size(thread_id)
        return Moved(thread_id, len(names), copied, size, stored, is_ahead)

    async def _present(self, thread_id: str) -> set[Name]:
        history = History(self._logs, await self._logs.tip(thread_id, self._wire.seal))
        return {ref.name for ref in await history.all(None)}

    async def _copy(
        self, thread_id: str, names: Sequence[Name], advance: Callable[[int], None]
    ) -> int:
        """Append what differs until nothing does; how many checkpoints did."""
        todo, copied = list(names), 0
        for _ in range(ROUNDS):
            differing = await self._round(thread_id, todo, advance)
            if not differing:
                return copied
            copied = copied or len(differing)
            todo = differing
            self._logs.forget(thread_id)  # what is compared next is read from the log
        raise TransferError(
            f"thread {thread_id!r}: {len(todo)} checkpoints still differ from the source after "
            f"{ROUNDS} attempts, {todo[0][1]} first; import again, or verify the thread"
        )

    async def _round(
        self, thread_id: str, names: Sequence[Name], advance: Callable[[int], None]
    ) -> list[Name]:
        """Compare checkpoints with their copies, and append those that differ."""
        history = History(self._logs, await self._logs.tip(thread_id, self._wire.seal))
        refs = {ref.name: ref for ref in await history.all(None)}
        differing: list[Name] = []
        creation = AS_USUAL
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            saved = await history.load(refs[name] for name in block if name in refs)
            plans: list[Callable[[Tip], Awaitable[Plan | None]]] = []
            equal = 0
            for name in block:
                row = self.source.read(thread_id, name)
                if row is None or is_equal(self._wire, row, saved.get(name)):
                    equal += 1
                    continue
                if not refs and not differing:  # the first of a new thread
                    creation = self._operations.writing.copied_creation(self._wire, row.metadata)
                differing.append(name)
                plans += self._plans(name, row)
            if plans:
                appending = self._operations.writing.appending
                await appending.write_all(thread_id, self._wire.seal, plans, creation)
            advance(equal)
        return differing

    def _plans(self, name: Name, row: Row) -> list[Callable[[Tip], Awaitable[Plan | None]]]:
        """How to append a checkpoint, and the writes of each of its tasks."""
        writing = self._operations.writing
        checkpoint: Any = row.checkpoint
        plans = [writing.copied(self._wire, name[0], row.parent, checkpoint, row.metadata)]

        def task_of(item: Any) -> tuple[bool, str, str, bool]:
            (task, index), write = item
            # A thread that waits has its interrupts last.
            return write.channel == INTERRUPT, task, write.path, index < 0

        for (_, task, path, is_special), items in groupby(sorted(row.writes, key=task_of), task_of):
            found: list[tuple[WriteKey, Any]] = list(items)
            batch = Batch(task, path, found, is_special)
            plans.append(writing.written(self._wire, name, batch))
        return plans


def missing_of(
    names: Sequence[Name], present: set[Name], apart: str, remedy: str
) -> tuple[int, bool]:
    """How many checkpoints a copy lacks, and whether it went on by itself.

    Raises:
        TransferError: both went on; ``apart`` says so, ``remedy`` what to do.
    """
    missing = sum(name not in present for name in names)
    is_ahead = bool(present - set(names))
    if is_ahead and missing:
        raise TransferError(f"{apart}; nothing was copied; {remedy}")
    return missing, is_ahead


def is_equal(wire: Wire, row: Row, saved: Saved | None, *, exactly: bool = False) -> bool:
    """Whether a checkpoint here holds what one of LangGraph's tables does, the values compared
    byte by byte.

    Args:
        exactly: it has no further writes here.
    """
    if saved is None or saved.parent != row.parent:
        return False
    head = {name: part for name, part in row.checkpoint.items() if name != "channel_values"}
    if not (_holds(wire, saved.head, head) and _holds(wire, saved.meta, row.metadata)):
        return False
    values = {name: wire.dumps(each) for name, each in row.checkpoint["channel_values"].items()}
    stored = {
        name: (each.value.type, each.value.data)
        for name, each in saved.channels.items()
        if each.value is not None
    }
    if exactly and len(saved.writes) != len(row.writes):
        return False
    return values == stored and all(saved.writes.get(key) == write for key, write in row.writes)


def _holds(wire: Wire, stored: Typed, value: Any) -> bool:
    """Whether bytes stand for a value; PostgreSQL does not keep the order of a mapping's keys."""
    return stored == wire.dumps(value) or bool(wire.loads(*stored) == value)
