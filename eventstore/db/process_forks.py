"""Stores that are open when their process is forked, as by a server that preloads its application.

The child inherits the parent's memory, but must not use its connections: two processes would talk
over one socket, or share the locks of one file. Promises that both go on with the stores they have:
connections to files are closed before the fork, and the child lets go of the others and opens its
own. What can only be used by the parent says so.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final, Protocol
from weakref import WeakSet

from eventstore.db.gates import Calm

log = logging.getLogger(__name__)

WAIT_S: Final = 5.0
"""How long a fork waits for the transactions of other threads on SQLite."""


class Forkable(Protocol):
    """An open database."""

    def calm(self) -> Calm | None:
        """What has to be calm while the process is forked."""

    def after_fork(self, was_calm: bool) -> object:
        """Begin anew in a child; returns what it inherited and must not free."""


_open: WeakSet[Forkable] = WeakSet()
_held: list[tuple[Forkable, Calm, bool]] = []
_inherited: list[object] = []
"""Connections of the parent. Freed, they would be closed, or warn that they were not."""


def track(database: Forkable) -> None:
    """Take care of a database for as long as it exists."""
    _open.add(database)


def _before() -> None:
    deadline = time.monotonic() + WAIT_S
    for each in list(_open):
        calm = each.calm()
        if calm is not None:
            _held.append((each, calm, calm.hold(deadline)))
    for _, calm, is_calm in _held:
        if is_calm:
            calm.close_idle()
        else:
            log.warning(
                "the process is forked while threads use a SQLite file: the child cannot use it",
                extra={"pid": os.getpid()},
            )


def _in_parent() -> None:
    while _held:
        _held.pop()[1].release()


def _in_child() -> None:
    busy = {id(each) for each, _, is_calm in _held if not is_calm}
    _in_parent()
    for each in list(_open):
        _inherited.append(each.after_fork(id(each) not in busy))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
