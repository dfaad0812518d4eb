"""An append-only event log per thread, on SQLite or another SQL database.

Knows threads, events and snapshots as bytes and numbers, and no graphs. Start at
:class:`EventStore`.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from eventstore.async_store import AsyncEventStore
    from eventstore.codec.codec import Codec
    from eventstore.codec.extensions import Opaque
    from eventstore.core.seal import Sealed
    from eventstore.core.trim import Trimmed, TrimPoint
    from eventstore.errors import (
        ArchiveDamagedError,
        ArchiveError,
        ArchiveNotFoundError,
        ArchiveUnavailableError,
        ArchiveVersionError,
        ConcurrencyError,
        ConfigurationError,
        CorruptEventError,
        DuplicateKeyError,
        EventStoreError,
        LineageMovedError,
        PositionNotFoundError,
        SchemaVersionError,
        SerializationError,
        StoreBusyError,
        StoreClosedError,
        StoreUnavailableError,
        ThreadExistsError,
        ThreadNotFoundError,
        UnregisteredTypeError,
    )
    from eventstore.format.archive.dump import Dump
    from eventstore.models import (
        FORK,
        Addition,
        Branch,
        Event,
        Fork,
        Head,
        Lineage,
        NewSnapshot,
        Pin,
        Position,
        RecordedEvent,
        Replay,
        Snapshot,
        Stats,
        ThreadInfo,
        VerifyReport,
    )
    from eventstore.retention_models import Expired, Outcome, Slice, SweepRecord, Tombstone
    from eventstore.store import EventStore

_HOMES: Final = (
    "eventstore.errors",
    "eventstore.models",
    "eventstore.retention_models",
    "eventstore.codec.extensions",
    "eventstore.codec.codec",
    "eventstore.core.seal",
    "eventstore.core.trim",
    "eventstore.format.archive.dump",
    "eventstore.store",
    "eventstore.async_store",
)
"""The modules of the exported names, the lightest first. A name is imported when it is first used,
so that a command that needs one part does not wait for all others.
"""

__version__ = "0.1.0"

__all__ = [
    "FORK",
    "Addition",
    "ArchiveDamagedError",
    "ArchiveError",
    "ArchiveNotFoundError",
    "ArchiveUnavailableError",
    "ArchiveVersionError",
    "AsyncEventStore",
    "Branch",
    "Codec",
    "ConcurrencyError",
    "ConfigurationError",
    "CorruptEventError",
    "Dump",
    "DuplicateKeyError",
    "Event",
    "EventStore",
    "EventStoreError",
    "Expired",
    "Fork",
    "Head",
    "Lineage",
    "LineageMovedError",
    "NewSnapshot",
    "Opaque",
    "Outcome",
    "Pin",
    "Position",
    "PositionNotFoundError",
    "RecordedEvent",
    "Replay",
    "SchemaVersionError",
    "Sealed",
    "SerializationError",
    "Slice",
    "Snapshot",
    "Stats",
    "StoreBusyError",
    "StoreClosedError",
    "StoreUnavailableError",
    "SweepRecord",
    "ThreadExistsError",
    "ThreadInfo",
    "ThreadNotFoundError",
    "Tombstone",
    "TrimPoint",
    "Trimmed",
    "UnregisteredTypeError",
    "VerifyReport",
]


def __getattr__(name: str) -> Any:
    """Import an exported name."""
    for home in _HOMES if name in __all__ else ():
        module = import_module(home)
        if hasattr(module, name):
            found = globals()[name] = getattr(module, name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


# The application configures logging; without it nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
