"""What every part of a store has: transactions, a tenant, a codec, a clock, and a cache."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from eventstore.cache import (
    BODIES_SHARE,
    BYTES,
    PAST_SHARE,
    BodyCache,
    LogCache,
    LogEnds,
    PastCache,
)
from eventstore.codec.codec import Codec
from eventstore.db import maintenance
from eventstore.db.transactions import Transactions
from eventstore.errors import ConfigurationError
from eventstore.leases import RUN_LEASE_S, Leases
from eventstore.limits import check_name, check_number, shown
from eventstore.models import to_micros


class Stopped(Exception):
    """Long work on one thread that cannot end half-way was given up, as asked: nothing is left."""


class Part:
    """The base of each part of :class:`~eventstore.core.core.Core`.

    Attributes:
        should_stop: asked between the transactions of long work on one thread: trimming, sealing
            and deleting end early where it returns true, and the thread is whole.
    """

    def __init__(
        self,
        transactions: Transactions,
        tenant: str,
        codec: Codec | None = None,
        clock: Callable[[], datetime] | None = None,
        cache_bytes: int = BYTES,
        run_lease_s: float = RUN_LEASE_S,
    ) -> None:
        self.transactions = transactions
        self.tenant = check_name("a tenant", tenant)
        if codec is not None and not isinstance(codec, Codec):
            raise ConfigurationError(f"codec must be a Codec, not {shown(codec)}")
        self.codec = codec or Codec()
        self.cache = LogCache(check_number("cache_bytes", cache_bytes, 0))
        self.past = PastCache(cache_bytes // PAST_SHARE)
        self.ends = LogEnds()
        self.bodies = BodyCache(cache_bytes // BODIES_SHARE)
        self.stored_dictionaries: set[int] = set()
        """Those of the codec that the database is known to hold."""
        self.generations: dict[str, int] = {}
        """By the names of threads that had former ones: the generation that was found last."""
        self._clock = clock or system_clock
        self.leases = Leases(transactions, self.now_us, run_lease_s)
        self.should_stop: Callable[[], bool] = _never

    @property
    def is_server(self) -> bool:
        """Whether each statement is a round trip, and may be a transaction by itself."""
        return self.transactions.engine.dialect.name == "postgresql"

    def until(self, should_stop: Callable[[], bool]) -> Self:
        """The same store, whose long work on one thread ends early when asked to."""
        twin = copy.copy(self)
        twin.should_stop = should_stop
        return twin

    def forget(self, thread_key: int) -> None:
        """Drop what is cached of a thread's logs."""
        self.cache.forget(thread_key)
        self.past.forget(thread_key)

    def now_us(self) -> int:
        """The time by the store's clock, in microseconds since 1970 UTC."""
        return to_micros(self._clock(), "the time that clock= tells")

    async def shared_now_us(self) -> int:
        """The time for what several computers do together: retention and its leases.

        PostgreSQL's time, so that no clock of a client can be wrong; the store's own on SQLite,
        and if the store was given a clock.
        """
        if self._clock is not system_clock or self.transactions.engine.dialect.name == "sqlite":
            return self.now_us()
        return await self.transactions.run("read", maintenance.now_us)


def _never() -> bool:
    return False


def system_clock() -> datetime:
    """The time by the clock of this computer."""
    return datetime.now(UTC)
