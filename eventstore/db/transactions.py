"""What the parts of a store stand on: transactions, repeated where that is safe.

Owns the rule of what may be tried again. A transaction that was rolled back for certain
(a serialization failure, a deadlock, a connection lost before its COMMIT was sent) is begun
anew, with growing pauses and a bound. One whose connection went away *during* the commit may
have happened: a read is repeated all the same, and whoever writes is told
(:class:`LostConnection`) and finds out by reading.
"""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from eventstore import telemetry
from eventstore.codec.codec import Codec
from eventstore.concurrency import Asyncio, Blocking, Concurrency
from eventstore.core.cache import BYTES, LogCache
from eventstore.db import migrations
from eventstore.errors import ConfigurationError, StoreClosedError, StoreUnavailableError
from eventstore.models import to_micros

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from eventstore.db.dialects import Mode

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

ATTEMPTS: Final = 20
"""Tries of one transaction: half a minute in all, in which a server may restart or fail over."""

FIRST_ATTEMPTS: Final = 4
"""Tries as long as the database has never answered: its address may simply be wrong."""

PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 2.0


class Interrupted(StoreUnavailableError):
    """A transaction failed for a passing reason and was rolled back for certain."""


class LostConnection(StoreUnavailableError):
    """The connection went away during the commit: whether it went through is unknown."""


class Transactions(ABC):
    """Runs operations, each in a transaction of its own.

    Attributes:
        concurrency: how an operation waits within itself.
        asyncio: how an event loop runs a whole operation.
        blocking: how a blocking caller does; ``None``: it cannot.
        read_only: whatever would write is refused, setting the database up too.
    """

    concurrency: Concurrency
    asyncio: Asyncio
    blocking: Blocking | None
    read_only: bool

    def __init__(self, read_only: bool = False) -> None:
        self.read_only = read_only
        self._is_set_up = False
        self._closed = False

    async def read(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``operation(conn, …)`` returns; it must not write."""
        return await self._repeat("read", operation, args, kwargs)

    async def read_moment(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As :meth:`read`, all of whose statements see the database as it was at one moment."""
        return await self._repeat("moment", operation, args, kwargs)

    async def outside(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``operation(conn, …)`` returns, in no transaction: each statement is one."""
        return await self._repeat("none", operation, args, kwargs)

    async def write(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``operation(conn, …)`` returns, once it is committed.

        Raises:
            LostConnection: it may or may not have happened.
        """
        return await self._repeat("write", operation, args, kwargs)

    async def write_alone(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As :meth:`write`, for what is a single statement wherever that has to be told apart.

        A statement alone is its own transaction, and spares a server two round trips.
        """
        return await self._repeat("statement", operation, args, kwargs)

    async def write_again(
        self,
        operation: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As :meth:`write`, for an operation that does no harm when it happens twice."""
        count = 1
        while True:
            try:
                return await self.write(operation, *args, **kwargs)
            except LostConnection as error:
                await self.pause(count, error)
            count += 1

    async def _repeat(
        self, mode: Mode, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        if not self._is_set_up:
            await self.setup()
        if self.read_only and mode not in ("read", "moment"):
            raise ConfigurationError("this event store was opened for reading only")
        count = 1
        while True:
            if self._closed:  # perhaps while this waited
                raise StoreClosedError
            try:
                return await self.transact(mode, operation, args, kwargs)
            except (Interrupted, LostConnection) as error:
                if mode not in ("read", "moment") and isinstance(error, LostConnection):
                    raise
                await self.pause(count, error)
            count += 1

    async def pause(self, count: int, error: Exception) -> None:
        """Wait before attempt ``count + 1``, longer each time and never in step with others.

        Raises:
            StoreUnavailableError: that was the last one.
        """
        if count >= (ATTEMPTS if self._is_set_up else FIRST_ATTEMPTS):
            raise StoreUnavailableError(f"gave up after {count} attempts: {error}") from error
        pause = min(PAUSE_MAX_S, PAUSE_S * 2 ** (count - 1)) * random.uniform(0.5, 1.5)
        reason = "commit_in_doubt" if isinstance(error, LostConnection) else "rolled_back"
        sqlstate = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
        log.warning(
            "attempt %d failed, trying again: %s",
            count,
            error,
            extra={"attempt": count, "reason": reason, "sqlstate": sqlstate, "pause_s": pause},
        )
        telemetry.retry(reason, sqlstate, count)
        await self.concurrency.sleep(pause)

    async def setup(self) -> None:
        """Create or migrate the tables. Done at first use; safe from many processes at once."""
        if self.read_only:
            migrations.demand_none(await self.pending())
        else:
            await self._until_done(self.prepare)
        self._is_set_up = True

    async def pending(self) -> list[str]:
        """Names of the migrations that the database lacks; runs none of them."""

        async def look() -> list[str]:
            return await self.transact("read", migrations.pending, (), {})

        return await self._until_done(look)

    async def _until_done(self, attempt: Callable[[], Awaitable[T]]) -> T:
        if self._closed:
            raise StoreClosedError
        count = 1
        while True:
            try:
                return await attempt()
            except (Interrupted, LostConnection) as error:
                await self.pause(count, error)
            count += 1

    @abstractmethod
    async def transact(
        self, mode: Mode, operation: Callable[..., T], args: Any, kwargs: Mapping[str, Any]
    ) -> T:
        """One try of one transaction.

        Raises:
            Interrupted: it failed for a passing reason, and nothing of it happened.
            LostConnection: its connection went away during the commit.
        """

    @abstractmethod
    async def prepare(self) -> None:
        """One try of bringing the database into the form that is needed."""

    @property
    def blocks(self) -> bool:
        """Whether waiting blocks the thread."""
        return self.blocking is not None

    async def perform(self, operation: Awaitable[T]) -> T:
        """Run a whole operation for an event loop."""
        return await self.asyncio.run(operation)


class Part:
    """What every part of a store has: transactions, a codec, a clock, a tenant, a cache."""

    def __init__(
        self,
        transactions: Transactions,
        tenant: str,
        codec: Codec | None = None,
        clock: Callable[[], datetime] | None = None,
        cache_bytes: int = BYTES,
    ) -> None:
        self.cache = LogCache(cache_bytes)
        self.transactions = transactions
        self.tenant = tenant
        self.codec = codec or Codec()
        self.kept_dictionaries: set[int] = set()
        """Those of the codec that the database is known to have."""
        self._clock = clock or _utc_now

    def now_us(self) -> int:
        """What the store's clock says, in microseconds since 1970 UTC."""
        return to_micros(self._clock())


def _utc_now() -> datetime:
    return datetime.now(UTC)
