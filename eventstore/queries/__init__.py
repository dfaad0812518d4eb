"""Every SQL statement of the log, as functions that take a connection first.

One file per subject. Nothing here opens or ends a transaction, retries, or decodes a value.
Callers need no SQLAlchemy: they pass a ``Connection`` through, and catch a ``Conflict``, which
the database raises when a key is taken or a row that is referred to is gone.
"""

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as Conflict

from eventstore.queries import (
    append,
    archive,
    dictionaries,
    events,
    forks,
    lineage,
    listing,
    loading,
    segments,
    snapshots,
    sweeps,
    threads,
    tombstones,
)
from eventstore.queries.removing import delete, prune, trim

__all__ = [
    "Conflict",
    "Connection",
    "append",
    "archive",
    "delete",
    "dictionaries",
    "events",
    "forks",
    "lineage",
    "listing",
    "loading",
    "prune",
    "segments",
    "snapshots",
    "sweeps",
    "threads",
    "tombstones",
    "trim",
]
