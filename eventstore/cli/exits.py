"""The exit codes of the command line, and the error messages that it words its own way.

Every error of the library ends a command with one of these codes. Scripts depend on them: a code
is never renumbered.
"""

from __future__ import annotations

import errno
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
"""Problems were found, or part of the work failed."""
USAGE: Final = 2
"""Wrong arguments, an application that cannot be loaded, or not confirmed."""
DATABASE: Final = 3
"""The database, or something else that the command needs (such as a port), cannot be used."""
MISSING: Final = 4
"""There is no such thread, log or checkpoint."""
OUTPUT: Final = 5
"""The results cannot be written: the disk is full, say."""
INTERRUPTED: Final = 130
"""Stopped by Ctrl-C."""
PIPE: Final = 141
"""The reader of standard output has closed it."""

WRITE_ERRORS: Final = (
    errno.EPIPE,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EAGAIN,
    errno.EBADF,
)
"""Numbers of errors that writing meets: nobody reads, or the disk is full."""


class Failed(Exception):
    """A command cannot continue: the message, and the exit code that it ends with."""

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
