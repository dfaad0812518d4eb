"""Every SQL statement of the log, as functions that take a connection first.

One file per subject. Nothing here opens or ends a transaction, retries, encodes or decodes.
Callers need no SQLAlchemy: they pass a ``Connection`` through, and catch a ``Conflict``.
"""

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as Conflict

from eventstore.queries import (
    ancestry,
    append,
    archive,
    delete,
    detach,
    dictionaries,
    events,
    forks,
    lineage,
    listing,
    prune,
    segments,
    snapshots,
    sweeps,
    threads,
    tombstones,
    trim,
)

__all__ = [
    "Conflict",
    "Connection",
    "ancestry",
    "append",
    "archive",
    "delete",
    "detach",
    "dictionaries",
    "events",
    "forks",
    "lineage",
    "listing",
    "prune",
    "segments",
    "snapshots",
    "sweeps",
    "threads",
    "tombstones",
    "trim",
]
