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
            | CorruptEventError()
            | ConcurrencyError()
            | LineageMovedError()
            | SerializationError()
            | ThreadExistsError()
        ):
            return FOUND
        case _:
            return DATABASE
