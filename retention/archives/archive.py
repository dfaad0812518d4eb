"""An archive: one file per thread, generation and moment, in a :class:`Storage`.

Keeps the files that ``store.dump`` makes. Promises that a file is complete or absent, that what
:meth:`Archive.put` returned can be read back, and that the files of one thread are found without
listing all others. Damaged files are reported by name and never stop a listing. All calls block;
async code runs them off its event loop (see :mod:`retention.archives.moving`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from eventstore.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveNotFoundError,
    ArchiveUnavailableError,
)
from eventstore.format.archive.dump import Dump
from eventstore.format.archive.header import PREAMBLE, Header, header_bytes, read_header
from retention.archives import naming
from retention.archives.storage import Storage

log = logging.getLogger(__name__)

_WHOLE_BYTES: Final = 8 * 2**20
"""Files up to this size are uploaded in one request, and compared whole after upload."""

_HEADER_BYTES: Final = 4096
"""Bytes read first to find the header, which is rarely longer."""

_HEADER_READERS: Final = 16
"""Headers read at the same time when an archive is listed."""


@dataclass(frozen=True, slots=True)
class Archived:
    """A thread's file in an archive.

    Attributes:
        name: name of the object.
        size: length of the file in bytes.
        header: what the file says about its thread.
    """

    name: str
    size: int
    header: Header

    @property
    def thread_id(self) -> str:
        """The thread in the file."""
        return self.header.thread_id

    @property
    def tenant(self) -> str:
        """The tenant of the thread."""
        return self.header.tenant

    @property
    def recency(self) -> tuple[int, int, int]:
        """Sorts the files of a thread by age: a log only grows, while a clock may be wrong."""
        header = self.header
        return header.generation, header.ends.get("", 0), header.archived_us


class Archive:
    """A directory or bucket that keeps threads as files.

    Args:
        url: ``file:///directory``, ``s3://bucket/prefix``, ``gs://bucket/prefix``,
            ``az://container/prefix`` or ``memory:///`` (for tests: it lives as long as this
            object). A missing directory is created by the first :meth:`put`.
        options: options for ``obstore.store.from_url``, such as
            ``{"endpoint": "http://localhost:9000", "client_options": {"allow_http": True}}``.

    Attributes:
        url: the URL without a password.

    Raises:
        ConfigurationError: ``obstore`` is not installed, or the URL is not usable.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self._storage = Storage(url, options)
        self.url = self._storage.url

    def __repr__(self) -> str:
        return f"Archive({self.url!r})"

    # --- one thread ---------------------------------------------------------------------

    def put(self, dump: Dump) -> Archived:
        """Keep a thread's file. When this returns, the file was read back and compared.

        Older files of the thread stay; :meth:`get` returns the newest.

        Raises:
            ArchiveUnavailableError: the file could not be kept; nothing is left of it.
        """
        name = naming.name_of(dump)
        is_small = dump.size <= _WHOLE_BYTES
        self._storage.put(name, dump.read() if is_small else iter(dump))
        if self._storage.size(name) != dump.size or not self._holds(name, dump):
            self._storage.delete(name)
            raise ArchiveUnavailableError(
                f"the archive {self.url} returned other bytes than were written to {name}"
            )
        return Archived(name, dump.size, dump.header)

    def _holds(self, name: str, dump: Dump) -> bool:
        """Whether an object is this dump: all of a small file is compared, else its checksum."""
        if dump.size <= _WHOLE_BYTES:
            return self._storage.read_range(name, 0, dump.size) == dump.read()
        start = dump.size - len(dump.checksum)
        return self._storage.read_range(name, start, dump.size) == dump.checksum

    def get(
        self, thread_id: str, tenant: str = "default", *, generation: int | None = None
    ) -> Dump:
        """The newest file of a thread, verified; close it after use.

        Args:
            generation: 0 for the first thread of that name, and so on; ``None`` for the last one.

        Raises:
            ArchiveNotFoundError: the archive has no file of the thread.
            ArchiveDamagedError: the file is damaged.
        """
        names = self._names(thread_id, tenant, generation)
        if not names:
            raise ArchiveNotFoundError(thread_id, tenant, self.url)
        return self.open(self._newest(names))

    def _newest(self, names: list[str]) -> str:
        """The newest of a thread's files; reads their headers if there are several."""
        headers = [self._try_read_header(name) for name in names] if len(names) > 1 else []
        readable = [each for each in headers if isinstance(each, Archived)]
        if not readable or isinstance(headers[-1], ArchiveError):
            return names[-1]
        return max(readable, key=lambda each: each.recency).name

    def open(self, name: str) -> Dump:
        """The file in an object, verified; close it after use.

        Raises:
            ArchiveNotFoundError: there is no such object.
            ArchiveDamagedError: the file is damaged.
        """
        with self._storage.translated_errors(name):
            dump = Dump.open(self._storage.read(name))
        if not name.endswith(naming.name_of(dump)):
            dump.close()
            raise ArchiveDamagedError(f"{name} contains the file of another thread")
        return dump

    def find(self, thread_id: str, tenant: str = "default") -> list[Archived]:
        """All files of a thread, the newest last. Reads their headers only."""
        found = [self._read_header(name) for name in self._names(thread_id, tenant)]
        return sorted(found, key=lambda each: each.recency)

    def delete(
        self, thread_id: str, tenant: str = "default", *, generation: int | None = None
    ) -> int:
        """Delete all files of a thread, or of one generation; returns how many."""
        names = self._names(thread_id, tenant, generation)
        for name in names:
            self._storage.delete(name)
        return len(names)

    def remove(self, archived: Archived) -> None:
        """Delete one file; a missing one is no error."""
        self._storage.delete(archived.name)

    def _names(self, thread_id: str, tenant: str, generation: int | None = None) -> list[str]:
        """Names of a thread's files, oldest first."""
        folder = naming.folder_of(tenant, thread_id)
        found = (name for batch in self._storage.names(folder) for name in batch)
        return sorted(name for name in found if naming.is_archive_file(name, generation))

    # --- all threads --------------------------------------------------------------------

    def ls(self, tenant: str | None = None) -> Iterator[Archived]:
        """All files, or those of one tenant. Reads their headers only.

        Files with an unreadable header are logged and left out; :meth:`verify` reports them.
        """
        for _, found in self.scan():
            if isinstance(found, Archived) and tenant in (None, found.tenant):
                yield found

    def scan(self, *, quiet: bool = False) -> Iterator[tuple[str, Archived | ArchiveError]]:
        """The name and header of every file, or the error that its header raises.

        Args:
            quiet: do not log the errors.
        """
        with ThreadPoolExecutor(_HEADER_READERS, thread_name_prefix="archive") as threads:
            for batch in self._batches():
                headers = threads.map(self._try_read_header, batch)
                for name, found in zip(batch, headers, strict=True):
                    if isinstance(found, ArchiveError) and not quiet:
                        log.error(
                            "skipped an unreadable file: %s: %s",
                            name,
                            found,
                            extra={"object": name},
                        )
                    yield name, found

    def verify(self) -> Iterator[tuple[str, str | None]]:
        """Read and check every file: its name, and the problem or ``None``.

        Files contain the application's dictionaries, so nothing else is needed to check them.
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

    def _batches(self) -> Iterator[list[str]]:
        for batch in self._storage.names():
            yield [name for name in batch if naming.is_archive_file(name)]

    def _try_read_header(self, name: str) -> Archived | ArchiveError:
        try:
            return self._read_header(name)
        except ArchiveError as error:
            return error

    def _read_header(self, name: str) -> Archived:
        size = self._storage.size(name)
        start = self._storage.read_range(name, 0, min(size, _HEADER_BYTES))
        if len(start) >= PREAMBLE.size and header_bytes(start) > len(start):
            start = self._storage.read_range(name, 0, min(size, header_bytes(start)))
        header = read_header(start)
        if not naming.belongs_to(name, header.tenant, header.thread_id):
            raise ArchiveDamagedError(f"{name} contains the file of another thread")
        return Archived(name, size, header)
