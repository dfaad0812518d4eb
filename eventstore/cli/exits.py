"""Exit codes of the command line, and which error leads to which."""

from __future__ import annotations

from typing import Final

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
from graph.errors import GraphError
from retention.archives import PruningRefusedError
from retention.erasing import ErasureRefusedError

OK: Final = 0
FOUND: Final = 1
"""Problems were found, or some of what was asked for could not be done."""
USAGE: Final = 2
"""Wrong arguments, an application that cannot be loaded, or not confirmed."""
DATABASE: Final = 3
"""The database cannot be used, or something else that is needed, such as a port."""
MISSING: Final = 4
"""There is no such thread, log or checkpoint."""
INTERRUPTED: Final = 130
"""Stopped by Ctrl-C."""
PIPE: Final = 141
"""Whoever read the output has gone."""


class Failed(Exception):
    """A command cannot go on; says why, and with which code it ends."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


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
    """What an error says, in the words of the command line where it has some for a way out."""
    match error:
        case ErasureRefusedError(pinned=True):
            way = "unpin what may go, or give --despite-pin"
            return f"{error.problem}; {way}; {error.done}"
        case ErasureRefusedError():
            way = "give --forks erase to erase them too, or --forks keep to let them keep these"
            return f"{error.problem}; {way}; {error.done}"
        case PruningRefusedError():
            return f"{error.problem}, and stays; give --despite-pin to remove it all the same"
        case ThreadExistsError():
            return f"thread {error.thread_id!r} already exists in tenant {error.tenant!r}"
        case _:
            return str(error)
