"""An append-only event log per thread, on SQLite or another SQL database.

Knows threads, events and snapshots as bytes and numbers, and no graphs. Start at
:class:`EventStore`.
"""

import logging

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

# The application configures logging; without it nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())
