"""Moving threads between a store and an archive: archive, archive and prune, restore.

Each operation is written once, as a coroutine; a sync and an async function call it. Promises
that at every moment a thread is in the store, in the archive, or in both.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import run_sync
from eventstore.errors import EventStoreError
from retention.archives.archive import Archive, Archived

Store = EventStore | AsyncEventStore


class PruningRefusedError(EventStoreError):
    """A thread is pinned or waits for a resume value, and so stays in the store.

    Attributes:
        thread_id: the thread.
        problem: why it must stay.
    """

    def __init__(self, thread: ThreadInfo) -> None:
        self.thread_id = thread.thread_id
        pin = f" by {thread.pin.by} ({thread.pin.reason})" if thread.pin else ""
        self.problem = f"thread {thread.thread_id!r} " + (
            f"is pinned{pin}" if thread.pinned else "is waiting for a resume value"
        )
        super().__init__(f"{self.problem} and was kept; pass despite_pin=True to remove it anyway")


# --- archive ----------------------------------------------------------------------------


def archive_thread(store: EventStore, archive: Archive, thread_id: str) -> Archived:
    """Write a thread, as it is now, to an archive. It stays in the store.

    Raises:
        ThreadNotFoundError: no such thread.
        CorruptEventError: stored bytes of the thread do not verify.
        ArchiveUnavailableError: the archive cannot be used.
    """
    return run_sync(_archive(store, archive, thread_id))


async def aarchive_thread(store: AsyncEventStore, archive: Archive, thread_id: str) -> Archived:
    """:func:`archive_thread` for async code."""
    return await _archive(store, archive, thread_id)


async def _archive(store: Store, archive: Archive, thread_id: str) -> Archived:
    with await store.concurrency.run(store.core.dump(thread_id)) as dump:
        return await store.concurrency.call(archive.put, dump)


# --- archive and prune ------------------------------------------------------------------


def archive_and_prune(
    store: EventStore,
    archive: Archive,
    thread_id: str,
    reason: str,
    *,
    despite_pin: bool = False,
    keep_if: Callable[[ThreadInfo], bool] | None = None,
    **deletion: Any,
) -> Archived | None:
    """Move a thread into an archive; it leaves the store only if it did not change meanwhile.

    Args:
        reason: kept in the tombstone.
        despite_pin: move it even if it is pinned (its file is pinned then, too) or waiting.
        keep_if: leave the thread alone if this returns true.
        deletion: further arguments of :meth:`~eventstore.EventStore.delete_thread`
            (``policy``, ``asked_by``, ``idle_since``).

    Returns:
        The file in the archive; ``None`` if the thread stayed in the store.

    Raises:
        PruningRefusedError: the thread is pinned, or waits for a resume value.

    It also raises what :func:`archive_thread` raises.
    """
    return run_sync(
        _archive_and_prune(store, archive, thread_id, reason, despite_pin, keep_if, deletion)
    )


async def aarchive_and_prune(
    store: AsyncEventStore,
    archive: Archive,
    thread_id: str,
    reason: str,
    *,
    despite_pin: bool = False,
    keep_if: Callable[[ThreadInfo], bool] | None = None,
    **deletion: Any,
) -> Archived | None:
    """:func:`archive_and_prune` for async code."""
    return await _archive_and_prune(
        store, archive, thread_id, reason, despite_pin, keep_if, deletion
    )


async def _archive_and_prune(
    store: Store,
    archive: Archive,
    thread_id: str,
    reason: str,
    despite_pin: bool,
    keep_if: Callable[[ThreadInfo], bool] | None,
    deletion: dict[str, Any],
) -> Archived | None:
    def keep(thread: ThreadInfo) -> bool:
        if not despite_pin and (thread.pinned or thread.status == "waiting"):
            raise PruningRefusedError(thread)
        return keep_if is not None and keep_if(thread)

    run, core = store.concurrency.run, store.core
    if keep(await run(core.thread(thread_id))):  # checked early to save the upload
        return None
    archived = await _archive(store, archive, thread_id)
    # Under the lock, `keep` decides again, and only the archived logs may be deleted.
    ends = archived.header.ends
    pruned = await run(
        core.delete_thread(thread_id, reason, unchanged=ends, keep_if=keep, **deletion)
    )
    return archived if pruned else None


# --- restore ----------------------------------------------------------------------------


def restore(
    store: EventStore,
    archive: Archive,
    thread_id: str,
    *,
    generation: int | None = None,
    pin: tuple[str, str] | None = None,
    ttl: timedelta | None = None,
) -> ThreadInfo:
    """Load a thread from an archive, event for event and id for id; its file stays there.

    Its last event keeps its age, so the next sweep prunes it again unless it is pinned or given
    a longer ttl.

    Args:
        generation: 0 for the first thread of that name, and so on; ``None`` for the last one.
        pin: pin it from the start: the reason, and who asked for it.
        ttl: its own time to live, counted from its last event; ``None`` keeps the one it had.

    Raises:
        ArchiveNotFoundError: the archive has no file of the thread.

    It also raises what :meth:`~eventstore.EventStore.load` raises.
    """
    return run_sync(_restore(store, archive, thread_id, generation, pin, ttl))


async def arestore(
    store: AsyncEventStore,
    archive: Archive,
    thread_id: str,
    *,
    generation: int | None = None,
    pin: tuple[str, str] | None = None,
    ttl: timedelta | None = None,
) -> ThreadInfo:
    """:func:`restore` for async code."""
    return await _restore(store, archive, thread_id, generation, pin, ttl)


async def _restore(
    store: Store,
    archive: Archive,
    thread_id: str,
    generation: int | None,
    pin: tuple[str, str] | None,
    ttl: timedelta | None,
) -> ThreadInfo:
    concurrency = store.concurrency
    dump = await concurrency.call(archive.get, thread_id, store.tenant, generation=generation)
    with dump:
        return await concurrency.run(store.core.load(dump, pin=pin, ttl=ttl))
