"""Threads as plain files, without an archive: export one to a path, import it from there.

The files are the same as in an archive, each complete in itself.
"""

from __future__ import annotations

import os

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import run_sync
from eventstore.format.archive.header import Header


def export_thread(store: EventStore, thread_id: str, path: str | os.PathLike[str]) -> Header:
    """Write a thread to a file, which appears whole or not at all.

    Raises:
        ThreadNotFoundError: no such thread.
        CorruptEventError: stored bytes of the thread do not verify.
        OSError: the file cannot be written.
    """
    return run_sync(_export(store, thread_id, path))


async def aexport_thread(
    store: AsyncEventStore, thread_id: str, path: str | os.PathLike[str]
) -> Header:
    """:func:`export_thread` for async code."""
    return await _export(store, thread_id, path)


async def _export(
    store: EventStore | AsyncEventStore, thread_id: str, path: str | os.PathLike[str]
) -> Header:
    with await store.concurrency.run(store.core.dump(thread_id)) as dump:
        await store.concurrency.call(dump.save, path)
        return dump.header


def import_thread(store: EventStore, path: str | os.PathLike[str]) -> ThreadInfo:
    """Load a thread from a file into a store.

    Raises:
        OSError: the file cannot be read.

    It also raises what :meth:`~eventstore.EventStore.load` raises.
    """
    return store.load(path)


async def aimport_thread(store: AsyncEventStore, path: str | os.PathLike[str]) -> ThreadInfo:
    """:func:`import_thread` for async code."""
    return await store.load(path)
