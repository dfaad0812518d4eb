"""The exit code of each error, and the error messages that the command line words its own way."""

from __future__ import annotations

from eventstore import (
    ArchiveDamagedError,
    ArchiveNotFoundError,
    ConcurrencyError,
    CorruptEventError,
    EventStoreError,
    LineageMovedError,
    PositionNotFoundError,
    SerializationError,
    ThreadExistsError,
    ThreadNotFoundError,
)
from eventstore.cli.exits import DATABASE, FOUND, MISSING, Failed
from graph.errors import GraphError
from retention.archives import PruningRefusedError
from retention.erasing import ErasureRefusedError


def code_of(error: EventStoreError | GraphError | Failed) -> int:
    """The exit code for an error that ended a command."""
    match error:
        case Failed():
            return error.code
        case (
            ThreadNotFoundError() | PositionNotFoundError() | ArchiveNotFoundError() | GraphError()
        ):
            return MISSING
        case (
            ArchiveDamagedError()
            | ErasureRefusedError()
            | PruningRefusedError()
            | CorruptEventError()
            | ConcurrencyError()
            | LineageMovedError()
            | SerializationError()
            | ThreadExistsError()
        ):
            return FOUND
        case _:
            return DATABASE


def message_of(error: Exception) -> str:
    """An error's message; where it advises what to do, with options instead of arguments."""
    match error:
        case ErasureRefusedError(pinned=True):
            advice = "unpin the threads, or pass --despite-pin"
            return f"{error.problem}; {advice}; {error.done}"
        case ErasureRefusedError():
            advice = (
                "pass --forks erase to erase them too, or --forks keep to leave them as they are"
            )
            return f"{error.problem}; {advice}; {error.done}"
        case PruningRefusedError():
            return f"{error.problem}, so it was not removed; pass --despite-pin to remove it anyway"
        case ThreadExistsError():
            return f"thread {error.thread_id!r} already exists in tenant {error.tenant!r}"
        case _:
            return str(error)
