"""What every part of a store has: transactions, a tenant, a codec, a clock, and a cache."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from eventstore.codec.codec import Codec
from eventstore.core.cache import BYTES, LogCache
from eventstore.db.transactions import Transactions
from eventstore.leases import RUN_LEASE_S, Leases
from eventstore.models import to_micros


class Part:
    """The base of each part of :class:`~eventstore.core.core.Core`."""

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
        self.tenant = tenant
        self.codec = codec or Codec()
        self.cache = LogCache(cache_bytes)
        self.stored_dictionaries: set[int] = set()
        """Those of the codec that the database is known to hold."""
        self._clock = clock or _utc_now
        self.leases = Leases(transactions, self.now_us, run_lease_s)

    def now_us(self) -> int:
        """The time by the store's clock, in microseconds since 1970 UTC."""
        return to_micros(self._clock())


def _utc_now() -> datetime:
    return datetime.now(UTC)
