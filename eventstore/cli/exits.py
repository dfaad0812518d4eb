"""The exit codes of the command line.

Every error of the library ends a command with one of these codes. Scripts depend on them: a code
is never renumbered. Imports nothing of the library.
"""

from __future__ import annotations

import errno
from typing import Final

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
