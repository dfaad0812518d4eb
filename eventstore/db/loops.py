"""The engines of an asynchronous store: one for each event loop that uses it.

Connections, and the queue of a pool, belong to the event loop that they were made in. Promises
that no connection is used in another one, and that those of a loop that ended are closed when the
store is used next, or closed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.pool import NullPool

from eventstore.db.postgresql import borrowing
from eventstore.db.writers import Gathering
from eventstore.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(eq=False)
class LoopEngine:
    """An engine that one event loop uses.

    Attributes:
        under_way: operations that use one of its connections now, or wait to be done.
        gathering: its appends that wait at the same moment.
    """

    engine: AsyncEngine
    under_way: int = 0
    gathering: Gathering | None = None
    _connections: WeakSet[Any] = field(default_factory=WeakSet)

    def own(self) -> LoopEngine:
        """Remember its connections, for :meth:`drop`; returns itself."""

        def note(connection: Any, _record: Any) -> None:
            self._connections.add(connection.driver_connection)

        event.listen(self.engine.sync_engine, "connect", note)
        return self

    def drop(self) -> None:
        """Close its connections without an event loop: theirs has ended."""
        for connection in list(self._connections):
            connection.pgconn.finish()
        self.engine.sync_engine.dispose(close=False)


class LoopEngines:
    """Finds the engine of the running event loop.

    Args:
        first: the engine for the first event loop.
        reopen: makes one for another event loop; ``None``: the engine is the caller's.
    """

    def __init__(self, first: AsyncEngine, reopen: Callable[[], AsyncEngine] | None) -> None:
        self._first = first
        self._reopen = reopen
        self._lock = threading.Lock()
        self._engines: dict[asyncio.AbstractEventLoop, LoopEngine] = {}
        self._owner: tuple[object, asyncio.AbstractEventLoop] | None = None
        self._used_first = False

    @property
    def first(self) -> Engine:
        """The first engine, as a synchronous one."""
        return self._first.sync_engine

    def current(self) -> LoopEngine:
        """The engine of the running event loop.

        Raises:
            ConfigurationError: the caller's engine or pool belongs to another one.
        """
        loop = asyncio.get_running_loop()
        found = self._engines.get(loop)
        if found is None:
            with self._lock:
                self._drop_ended()
                found = self._engines[loop] = self._opened()
        if self._reopen is None:
            self._check_owner(loop)
        return found

    def _opened(self) -> LoopEngine:
        if self._reopen is None:
            return LoopEngine(self._first)
        if not self._engines and not self._used_first:
            self._used_first = True
            return LoopEngine(self._first).own()
        return LoopEngine(self._reopen()).own()

    def _check_owner(self, loop: asyncio.AbstractEventLoop) -> None:
        """A caller's engine or pool serves one event loop, until its connections are new."""
        engine = self.first
        is_pool = borrowing.borrows(engine)
        if isinstance(engine.pool, NullPool) and not is_pool:
            return  # each connection is opened anew
        if self._owner is None or self._owner[0] is not engine.pool:
            self._owner = (engine.pool, loop)
        if self._owner[1] is not loop:
            what = "AsyncConnectionPool" if is_pool else "AsyncEngine"
            raise ConfigurationError(
                f"this {what} was used in another event loop, to which its connections belong; "
                "pass the URL of the database instead, and the store opens connections for each "
                "event loop, or open a store in each"
            )

    def _drop_ended(self) -> None:
        for loop in [each for each in self._engines if each.is_closed()]:
            ended = self._engines.pop(loop)
            if self._reopen is not None:
                ended.drop()

    async def close(self, owned: bool) -> None:
        """Close the engines, each after the operations under way on it."""
        here = asyncio.get_running_loop()
        for loop, each in list(self._engines.items()):
            # A connection that is given back to a pool that is gone would never be closed.
            while each.under_way and not loop.is_closed():
                await asyncio.sleep(0.001)
            if owned and loop is here:
                await each.engine.dispose()
            elif owned:
                each.drop()
        self._engines.clear()

    def forget(self) -> list[object]:
        """Let go of everything, for a forked process; returns what must not be freed there."""
        inherited: list[object] = [self.first.pool, *self._engines.values()]
        self.first.dispose(close=False)
        self._lock = threading.Lock()
        self._engines, self._used_first, self._owner = {}, False, None
        return inherited
