"""Every error that the event store raises, as one tree.

Each error carries its data as attributes, so that callers need not parse the message. A message
starts in lower case, names the thing, says what was expected and what to do, and has no full stop
at its end.

    EventStoreError
    ├── ConfigurationError
    ├── SchemaVersionError
    ├── SerializationError
    ├── CorruptEventError
    │   └── UnregisteredTypeError
    ├── ThreadNotFoundError
    ├── ThreadExistsError
    ├── PositionNotFoundError
    ├── LineageMovedError
    ├── ConcurrencyError
    ├── DuplicateKeyError
    ├── ArchiveError
    │   ├── ArchiveDamagedError
    │   ├── ArchiveVersionError
    │   ├── ArchiveNotFoundError
    │   └── ArchiveUnavailableError
    ├── StoreBusyError
    ├── StoreUnavailableError
    └── StoreClosedError
"""

from __future__ import annotations


class EventStoreError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(EventStoreError, ValueError):
    """An argument or a setting cannot be used."""


class SchemaVersionError(EventStoreError):
    """The database was written by a newer version of this library. Nothing was changed."""

    def __init__(self, found: str, newest_known: str) -> None:
        self.found = found
        self.newest_known = newest_known
        super().__init__(
            f"the database carries migration {found!r}, which is newer than this version of "
            f"graph-eventstore knows (up to {newest_known!r}); nothing was changed; upgrade "
            "graph-eventstore to open it"
        )


class SerializationError(EventStoreError, TypeError):
    """A value cannot be stored. Raised before anything is written.

    Attributes:
        path: where in the value, e.g. ``messages[3].attachment``; empty for the value itself.
        type_name: the type that could not be encoded.
    """

    def __init__(self, path: str, type_name: str, reason: str) -> None:
        self.path = path
        self.type_name = type_name
        self.reason = reason
        super().__init__(f"cannot store {path or 'the value'} of type {type_name}: {reason}")


class CorruptEventError(EventStoreError):
    """Stored bytes do not verify or do not decode.

    Attributes:
        reason: what is wrong with the bytes.
        thread_id, ns, seq: the event or snapshot; ``None`` while only the bytes are known.
    """

    def __init__(
        self,
        reason: str,
        *,
        thread_id: str | None = None,
        ns: str | None = None,
        seq: int | None = None,
    ) -> None:
        self.reason = reason
        self.thread_id = thread_id
        self.ns = ns
        self.seq = seq
        super().__init__(reason)

    def at(self, thread_id: str | None, ns: str, seq: int) -> CorruptEventError:
        """Fill in the place, in a layer that knows it; returns itself."""
        self.thread_id, self.ns, self.seq = thread_id, ns, seq
        return self

    def __str__(self) -> str:
        if self.seq is None:
            return self.reason
        where = f"thread {self.thread_id!r}, namespace {self.ns!r}, seq {self.seq}"
        return f"{where}: {self.reason}; other threads are not affected"


class UnregisteredTypeError(CorruptEventError):
    """A payload holds an application type that is not registered with this codec."""

    def __init__(self, name: str, version: int, reason: str | None = None) -> None:
        self.type_name = name
        self.version = version
        super().__init__(
            reason
            or f"the payload holds a value of type '{name}/{version}', which is not registered; "
            f"call codec.register(<class>, name={name!r}, version={version}) on the codec that the "
            "store was opened with (codec=), then read again"
        )


class ThreadNotFoundError(EventStoreError, LookupError):
    """There is no such thread, or it has just been deleted."""

    def __init__(self, thread_id: str, tenant: str) -> None:
        self.thread_id = thread_id
        self.tenant = tenant
        super().__init__(f"no thread {thread_id!r} in tenant {tenant!r} (it may have been deleted)")


class ThreadExistsError(EventStoreError):
    """A thread of that name exists already, where a new one was to be created."""

    def __init__(self, thread_id: str, tenant: str) -> None:
        self.thread_id = thread_id
        self.tenant = tenant
        super().__init__(
            f"thread {thread_id!r} already exists in tenant {tenant!r}; choose another thread_id"
        )


class PositionNotFoundError(EventStoreError, LookupError):
    """A position names an event that is not in the store."""

    def __init__(self, thread_id: str, ns: str, seq: int, reason: str) -> None:
        self.thread_id = thread_id
        self.ns = ns
        self.seq = seq
        super().__init__(f"thread {thread_id!r}, namespace {ns!r}, seq {seq}: {reason}")


class LineageMovedError(EventStoreError):
    """The lineage of a position was moved while it was being read. Read again.

    A thread that a fork goes on from was deleted or trimmed, and the fork was given the bytes it
    needs of it; or old history of the thread itself was trimmed.
    """

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        super().__init__(
            f"while thread {thread_id!r} was being read, its old history was trimmed, or the "
            "thread that it was forked from was trimmed or deleted; it is complete, read it again"
        )


class ConcurrencyError(EventStoreError):
    """Another writer appended first. Nothing of this append was stored."""

    def __init__(self, thread_id: str, ns: str, expected: int, actual: int) -> None:
        self.thread_id = thread_id
        self.ns = ns
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"thread {thread_id!r}, namespace {ns!r}: expected the log to end at seq {expected}, "
            f"but it ends at {actual}; another writer was first and nothing was stored; "
            "read the new events and decide again"
        )


class DuplicateKeyError(EventStoreError):
    """The log already holds another event under this key. Nothing was stored."""

    def __init__(self, thread_id: str, ns: str, key: str, seq: int) -> None:
        self.thread_id = thread_id
        self.ns = ns
        self.key = key
        self.seq = seq
        super().__init__(
            f"thread {thread_id!r}, namespace {ns!r}: key {key!r} is taken by the event at "
            f"seq {seq}, whose content differs; nothing was stored"
        )


class ArchiveError(EventStoreError):
    """An archived thread cannot be read, or cannot be loaded here. Nothing was loaded."""


class ArchiveDamagedError(ArchiveError):
    """A file is not an archived thread, is truncated, or is not what was written."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{reason}; the archive of this thread is damaged and nothing was loaded from it; "
            "fetch it again, or use another copy"
        )


class ArchiveVersionError(ArchiveError):
    """A file was written by a newer version of this library. Nothing was loaded."""

    def __init__(self, found: int, newest_known: int) -> None:
        self.found = found
        self.newest_known = newest_known
        super().__init__(
            f"the archive has format version {found}, which is newer than this version of "
            f"graph-eventstore knows (up to {newest_known}); upgrade graph-eventstore to read it"
        )


class ArchiveNotFoundError(ArchiveError, LookupError):
    """An archive does not hold this thread."""

    def __init__(self, thread_id: str, tenant: str, where: str) -> None:
        self.thread_id = thread_id
        self.tenant = tenant
        super().__init__(f"no thread {thread_id!r} of tenant {tenant!r} in the archive {where}")


class ArchiveUnavailableError(ArchiveError):
    """An archive cannot be reached, or its storage failed."""


class StoreBusyError(EventStoreError):
    """The database stayed locked, or every connection of the pool in use, for the whole wait."""


class StoreUnavailableError(EventStoreError):
    """The database cannot be reached, or fails (disk full, read-only, gone)."""


class StoreClosedError(EventStoreError):
    """The store was used after ``close()``."""

    def __init__(self) -> None:
        super().__init__("this EventStore is closed; open a new one")
