"""Stores that are open when their process is forked, as by a server that preloads its application.

The child inherits the parent's memory, but must not use its connections: two processes would talk
over one socket, or share the locks of one file. Promises that both go on with the stores they have:
connections to files are closed before the fork, and the child lets go of the others and opens its
own. What can only be used by the parent says so.

The child has none of the parent's threads: a connection in use would stay so for ever, and one
to a SQLite file would even spoil the locks of those that the child opens
(https://www.sqlite.org/howtocorrupt.html, 2.6). So a fork waits, for a moment, until none is used.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any, Final, Protocol
from weakref import WeakSet

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from eventstore.db.engines import Lender
from eventstore.db.writers import is_memory

log = logging.getLogger(__name__)

WAIT_S: Final = 5.0
"""How long a fork waits for the transactions of other threads on SQLite."""


_POLL_S: Final = 0.001


class Calm:
    """A pool of which no connection is in use, and none can be taken, until this is released.

    It holds up those who take a connection only while it lasts, so that it costs nothing otherwise.
    """

    def __init__(self, engine: Engine, lender: Lender) -> None:
        self._pool: Any = engine.pool
        self._lender = lender
        self._is_memory = is_memory(engine)
        self._released = threading.Event()

    def hold(self, deadline: float) -> bool:
        """Let nobody take a connection, and wait for those in use; whether that was in time."""
        pool, released = self._pool, self._released
        if not isinstance(pool, QueuePool):
            return True
        take = pool._do_get

        def wait_and_take() -> Any:
            released.wait()
            return take()

        pool._do_get = wait_and_take  # type: ignore[method-assign]
        self._lender.pause()
        while True:
            self._mutex.acquire()  # keeps those out who are about to take one
            if pool.checkedout() == 0:
                return True
            if time.monotonic() >= deadline:
                return False
            self._mutex.release()
            time.sleep(_POLL_S)

    def close_idle(self) -> None:
        """Close the connections of a pool that is calm; it opens others when it needs them."""
        if isinstance(self._pool, QueuePool) and not self._is_memory:
            self._pool.dispose()

    def release(self) -> None:
        """Let connections be taken again."""
        if isinstance(self._pool, QueuePool):
            self._pool.__dict__.pop("_do_get", None)
            self._lender.resume()
            self._mutex.release()
            self._released.set()

    @property
    def _mutex(self) -> Any:
        """The lock of the pool's queue; a thread may take it again."""
        return self._pool._pool.mutex


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
