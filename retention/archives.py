"""Archives of threads: a directory, or object storage, with one file for each thread.

An archive holds the files that ``store.dump`` makes, under names that do not show whose they
are, and finds those of a thread without listing the others. A file is there whole or not at
all. Waiting blocks the thread; the asynchronous functions wait on another one.

Needs ``obstore`` (``pip install 'graph-eventstore[archive]'``); credentials and endpoints come
from the environment, as the tools of each provider read them, or from ``options``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from eventstore import AsyncEventStore, EventStore, ThreadInfo
from eventstore.concurrency import run_sync
from eventstore.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveNotFoundError,
    ArchiveUnavailableError,
    ConfigurationError,
    EventStoreError,
)
from eventstore.format import digests
from eventstore.format.archive.dump import Dump
from eventstore.format.archive.header import PREAMBLE, Header, header_bytes, read_header

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

SUFFIX: Final = ".thread"

_WHOLE_BYTES: Final = 8 * 2**20
"""Files up to this size are put at once, and read back whole."""

_START_BYTES: Final = 4096
_CHUNK_BYTES: Final = 2**20
_LOOKS: Final = 16
"""Headers read at the same time when an archive is listed."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A thread in an archive.

    Attributes:
        name: of the object that holds it.
        size: of the file, in bytes.
        header: what the file says of itself.
    """

    name: str
    size: int
    header: Header

    @property
    def thread_id(self) -> str:
        """Whose file it is."""
        return self.header.thread_id

    @property
    def tenant(self) -> str:
        """Whose thread it is."""
        return self.header.tenant


class Archive:
    """A place where threads are kept as files.

    Args:
        url: ``file:///directory``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
            ``az://container/prefix`` or ``memory:///`` (for tests: gone with this object). A
            directory that is not there is made when the first thread is put into it.
        options: for the object store, as ``obstore.store.from_url`` takes them, such as
            ``{"endpoint": "http://localhost:9000", "client_options": {"allow_http": True}}``.

    Raises:
        ConfigurationError: ``obstore`` is not installed, or the URL leads nowhere.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigurationError(
                "archives need obstore; pip install 'graph-eventstore[archive]'"
            ) from error
        self._ob = obstore
        self.url = _without_password(url)
        self._folder: Path | None = None
        self._opened: ObjectStore | None = None
        try:
            if urlsplit(url).scheme == "file":
                self._folder = _folder_at(url)
            self._open: Callable[[], ObjectStore] = partial(from_url, url, **(options or {}))
            if self._folder is None or self._folder.exists():
                self._opened = self._open()
        except Exception as error:
            said = _said(error).replace(url, self.url)
            raise ConfigurationError(
                f"there is no archive at {self.url!r}: {said}; expected "
                "file:///directory, s3://bucket/prefix, gs://bucket/prefix or memory:///"
            ) from error

    @property
    def _store(self) -> ObjectStore:
        if self._opened is None:
            if self._folder is not None and not self._folder.is_dir():
                raise ArchiveUnavailableError(
                    f"there is no archive at {self.url}: no such directory, and only what puts "
                    "threads into an archive makes one"
                )
            self._opened = self._open()
        return self._opened

    def __repr__(self) -> str:
        return f"Archive({self.url!r})"

    # --- one thread ---------------------------------------------------------------------

    def put(self, dump: Dump) -> Archived:
        """Keep a thread's file; when this returns, it is there and was found to be right.

        What was archived of the thread before stays: :meth:`get` gives the newest.

        Raises:
            ArchiveUnavailableError: it could not be kept. Nothing is there under its name.
        """
        name = _name_of(dump)
        with self._asking():
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            if dump.size <= _WHOLE_BYTES:
                self._ob.put(self._store, name, dump.read(), use_multipart=False)
            else:
                self._ob.put(self._store, name, iter(dump))
        self._settle(name)
        size = self._size(name)
        if size != dump.size or not self._holds(name, dump):
            self._remove(name)
            raise ArchiveUnavailableError(
                f"the archive {self.url} gave other bytes back than it was given for {name}"
            )
        return Archived(name, dump.size, dump.header)

    def _holds(self, name: str, dump: Dump) -> bool:
        """Whether an object is a file: all of it if that is small, else its end (its checksum)."""
        if dump.size <= _WHOLE_BYTES:
            return self._range(name, 0, dump.size) == dump.read()
        return self._range(name, dump.size - len(dump.checksum), dump.size) == dump.checksum

    def get(
        self, thread_id: str, tenant: str = "default", *, generation: int | None = None
    ) -> Dump:
        """The newest file of a thread, verified; close it after use.

        Args:
            generation: of the nth thread of that name (from 0); ``None``: the last one there is.

        Raises:
            ArchiveNotFoundError: there is none.
            ArchiveDamagedError: it is not what was put there.
        """
        names = self._names(thread_id, tenant, generation)
        if not names:
            raise ArchiveNotFoundError(thread_id, tenant, self.url)
        return self.open(names[-1])

    def open(self, name: str) -> Dump:
        """The file that an object holds, verified; close it after use.

        Raises:
            ArchiveNotFoundError: there is no such object.
            ArchiveDamagedError: it is not what was put there.
        """
        with self._asking(name):
            found = Dump.open(bytes(chunk) for chunk in self._ob.get(self._store, name))
        if not name.endswith(_name_of(found)):
            found.close()
            raise ArchiveDamagedError(f"{name} holds the file of another thread")
        return found

    def find(self, thread_id: str, tenant: str = "default") -> list[Archived]:
        """Every file of a thread, the newest last, by looking at their headers."""
        return [self._look(name) for name in self._names(thread_id, tenant)]

    def delete(
        self, thread_id: str, tenant: str = "default", *, generation: int | None = None
    ) -> int:
        """Delete a thread's files, or those of one generation; returns how many there were."""
        names = self._names(thread_id, tenant, generation)
        for name in names:
            self._remove(name)
        return len(names)

    def remove(self, archived: Archived) -> None:
        """Delete one file; no harm if it is gone."""
        self._remove(archived.name)

    # --- all of them --------------------------------------------------------------------

    def ls(self, tenant: str | None = None) -> Iterator[Archived]:
        """Every file of a tenant, or of all, in the order of their names.

        Only their headers are read. What has none that can be read is left out, and the log
        says so; :meth:`verify` tells more.
        """
        for _, found in self.look_through():
            if isinstance(found, Archived) and tenant in (None, found.tenant):
                yield found

    def look_through(self) -> Iterator[tuple[str, Archived | ArchiveError]]:
        """The name of every file, and what it says of itself, or why that cannot be read."""
        with ThreadPoolExecutor(_LOOKS, thread_name_prefix="archive") as threads:
            for batch in self._batches():
                for name, found in zip(batch, threads.map(self._try_to_look, batch), strict=True):
                    if isinstance(found, ArchiveError):
                        log.error(
                            "left out of the list: %s: %s", name, found, extra={"object": name}
                        )
                    yield name, found

    def verify(self) -> Iterator[tuple[str, str | None]]:
        """Read every file and check all of it: its name, and what is wrong or ``None``.

        A dictionary that only the application has is in the file: nothing else is needed.
        """
        for batch in self._batches():
            for name in batch:
                try:
                    with self.open(name) as dump:
                        dump.verify()
                except ArchiveError as error:
                    yield name, str(error)
                else:
                    yield name, None

    # --- objects ------------------------------------------------------------------------

    def _names(self, thread_id: str, tenant: str, generation: int | None = None) -> list[str]:
        folder = _folder_of(tenant, thread_id)
        with self._asking():
            found = self._ob.list(self._store, folder)
            names = sorted(each["path"] for batch in found for each in batch)
        begins = "" if generation is None else f"{generation:08x}-"
        return [n for n in names if n.endswith(SUFFIX) and _base(n).startswith(begins)]

    def _batches(self) -> Iterator[list[str]]:
        with self._asking():
            for batch in self._ob.list(self._store):
                yield [each["path"] for each in batch if each["path"].endswith(SUFFIX)]

    def _try_to_look(self, name: str) -> Archived | ArchiveError:
        try:
            return self._look(name)
        except ArchiveError as error:
            return error

    def _look(self, name: str) -> Archived:
        """What an object says of itself, by its beginning alone."""
        size = self._size(name)
        start = self._range(name, 0, min(size, _START_BYTES))
        if len(start) >= PREAMBLE.size and header_bytes(start) > len(start):
            start = self._range(name, 0, min(size, header_bytes(start)))
        return Archived(name, size, read_header(start))

    def _size(self, name: str) -> int:
        with self._asking(name):
            return int(self._ob.head(self._store, name)["size"])

    def _range(self, name: str, start: int, end: int) -> bytes:
        with self._asking(name):
            return bytes(self._ob.get_range(self._store, name, start=start, end=end))

    def _remove(self, name: str) -> None:
        try:
            with self._asking(name):
                self._ob.delete(self._store, name)
        except ArchiveNotFoundError:
            log.debug("%s was gone already", name, extra={"object": name})

    def _settle(self, name: str) -> None:
        """Make a file in a directory survive power loss, as object storage does by itself."""
        if self._folder is None or os.name != "posix":
            return
        path = self._folder / name
        for each in (path, *path.parents[: name.count("/") + 1]):
            handle = os.open(each, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextmanager
    def _asking(self, name: str = "") -> Iterator[None]:
        """What goes wrong with the object store, in our words."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise ArchiveNotFoundError(name, "", self.url) from error
        except (BaseError, OSError, ValueError) as error:
            raise ArchiveUnavailableError(
                f"the archive {self.url} cannot be used: {_said(error)}"
            ) from error


def _folder_at(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or not url[len("file:") :].startswith("///"):
        raise ValueError("a directory is named from the root on, after file://")
    folder = Path(unquote(parts.path))
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no directory")
    return folder


def is_of(name: str, tenant: str, thread_id: str) -> bool:
    """Whether a file of this name, whatever is in it, is one of a thread."""
    return f"/{name}".endswith(f"/{_folder_of(tenant, thread_id)}/{_base(name)}")


def _folder_of(tenant: str, thread_id: str) -> str:
    digest = digests.name_digest(tenant, thread_id).hex()
    return f"{digest[:2]}/{digest}"


def _name_of(dump: Dump) -> str:
    """Where a file goes: beside the others of its thread, in the order in which they were made."""
    header = dump.header
    which = f"{header.generation:08x}-{header.archived_us:016x}-{dump.checksum.hex()[:16]}"
    return f"{_folder_of(header.tenant, header.thread_id)}/{which}{SUFFIX}"


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _said(error: BaseException) -> str:
    """The first line of what an object store says; the others are for its developers."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _without_password(url: str) -> str:
    head, sign, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{head}{sign}{host.rpartition('@')[2]}{slash}{path}"


# --- threads of a store -----------------------------------------------------------------


def archive_thread(store: EventStore, archive: Archive, thread_id: str) -> Archived:
    """Put a thread, as it is now, into an archive. It stays where it is.

    Raises:
        ThreadNotFoundError: no such thread.
        CorruptEventError: something of it does not verify.
        ArchiveUnavailableError: the archive cannot be used.
    """
    with store.dump(thread_id) as dump:
        return archive.put(dump)


async def aarchive_thread(store: AsyncEventStore, archive: Archive, thread_id: str) -> Archived:
    """As :func:`archive_thread`, for event loops."""
    dump = await store.dump(thread_id)
    try:
        return await asyncio.to_thread(archive.put, dump)
    finally:
        dump.close()


class PruningRefusedError(EventStoreError):
    """A thread is pinned, or waits for somebody, and stays in the store.

    Attributes:
        thread_id: of the thread.
        problem: what stands against removing it.
    """

    def __init__(self, thread: ThreadInfo) -> None:
        self.thread_id = thread.thread_id
        pin = f" by {thread.pin.by} ({thread.pin.reason})" if thread.pin else ""
        self.problem = f"thread {thread.thread_id!r} " + (
            f"is pinned{pin}" if thread.pinned else "is waiting for an answer"
        )
        super().__init__(
            f"{self.problem}, and stays; say despite_pin=True to remove it all the same"
        )


def _unless_held(
    keep_if: Callable[[ThreadInfo], bool] | None, despite_pin: bool
) -> Callable[[ThreadInfo], bool]:
    """What keeps a thread, asked under its lock; raises where that is not a matter of time."""

    def keep(thread: ThreadInfo) -> bool:
        if not despite_pin and (thread.pinned or thread.status == "waiting"):
            raise PruningRefusedError(thread)
        return keep_if is not None and keep_if(thread)

    return keep


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
    """Move a thread into an archive: it goes only if nothing was added since it was archived.

    Whatever happens meanwhile, the thread is in the store, or in the archive, or in both.

    Args:
        reason: kept in the tombstone.
        despite_pin: also if it is pinned (then its file is, too), or waits for an answer.
        keep_if: leave it alone if this says so.
        deletion: as :meth:`~eventstore.EventStore.delete_thread` takes it (``policy``,
            ``asked_by``, ``idle_since``).

    Returns:
        What was archived; ``None`` if the thread stayed.

    Raises:
        PruningRefusedError: it is pinned, or waits for an answer.
        As :func:`archive_thread`.
    """
    keep = _unless_held(keep_if, despite_pin)
    if keep(store.thread(thread_id)):  # so that nothing is archived in vain
        return None
    archived = archive_thread(store, archive, thread_id)
    ends = archived.header.ends
    gone = store.delete_thread(thread_id, reason, unchanged=ends, keep_if=keep, **deletion)
    return archived if gone else None


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
    """As :func:`archive_and_prune`, for event loops."""
    keep = _unless_held(keep_if, despite_pin)
    if keep(await store.thread(thread_id)):
        return None
    archived = await aarchive_thread(store, archive, thread_id)
    ends = archived.header.ends
    gone = await store.delete_thread(thread_id, reason, unchanged=ends, keep_if=keep, **deletion)
    return archived if gone else None


def restore(
    store: EventStore,
    archive: Archive,
    thread_id: str,
    *,
    generation: int | None = None,
    pin: tuple[str, str] | None = None,
    ttl: timedelta | None = None,
) -> ThreadInfo:
    """Bring a thread back from an archive, equal; it stays in the archive, too.

    Its last event is as old as it was: a sweep moves it out again, unless it is pinned, or given
    a ttl that is not over.

    Args:
        generation: of the nth thread of that name (from 0); ``None``: the last one there is.
        pin: why it is pinned from the moment on at which it is back, and by whom.
        ttl: its own time to live from then on, counted from its last event; ``None``: as it was.

    Raises:
        ArchiveNotFoundError: the archive does not hold it.
        As :meth:`~eventstore.EventStore.load`.
    """
    with archive.get(thread_id, store.tenant, generation=generation) as dump:
        return run_sync(store.core.load(dump, pin=pin, ttl=ttl))


async def arestore(
    store: AsyncEventStore,
    archive: Archive,
    thread_id: str,
    *,
    generation: int | None = None,
    pin: tuple[str, str] | None = None,
    ttl: timedelta | None = None,
) -> ThreadInfo:
    """As :func:`restore`, for event loops."""
    dump = await asyncio.to_thread(archive.get, thread_id, store.tenant, generation=generation)
    try:
        return await store.database.perform(store.core.load(dump, pin=pin, ttl=ttl))
    finally:
        dump.close()


# --- plain files ------------------------------------------------------------------------


def export_thread(store: EventStore, thread_id: str, path: str | os.PathLike[str]) -> Header:
    """Write a thread to a file, which is there whole or not at all.

    Raises:
        ThreadNotFoundError: no such thread.
        CorruptEventError: something of it does not verify.
        OSError: the file cannot be written.
    """
    with store.dump(thread_id) as dump:
        dump.save(path)
        return dump.header


async def aexport_thread(
    store: AsyncEventStore, thread_id: str, path: str | os.PathLike[str]
) -> Header:
    """As :func:`export_thread`, for event loops."""
    dump = await store.dump(thread_id)
    try:
        await asyncio.to_thread(dump.save, path)
        return dump.header
    finally:
        dump.close()


def import_thread(store: EventStore, path: str | os.PathLike[str]) -> ThreadInfo:
    """Put a thread from a file into a store.

    Raises:
        OSError: the file cannot be read.
        As :meth:`~eventstore.EventStore.load`.
    """
    return store.load(path)


async def aimport_thread(store: AsyncEventStore, path: str | os.PathLike[str]) -> ThreadInfo:
    """As :func:`import_thread`, for event loops."""
    return await store.load(path)
