"""A store as plans and sweeps reach it: by blocking, or from an event loop.

Owns the difference between the two kinds of store, so that all else is written once, as
coroutines (see :mod:`eventstore.concurrency`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from eventstore import AsyncEventStore, ConfigurationError, EventStore
from eventstore.concurrency import awaited
from eventstore.core.core import Core
from eventstore.models import from_micros
from retention.policies import Policies, RetentionPolicy, policies_of

T = TypeVar("T")
P = ParamSpec("P")

Store = EventStore | AsyncEventStore


def usable(given: Policies) -> tuple[RetentionPolicy, ...]:
    """The policies that were meant, of which each can be kept here.

    Raises:
        ValueError: they make no sense together.
        ConfigurationError: one archives, and ``obstore`` is not installed.
    """
    found = policies_of(given)
    for policy in found:
        if policy.archive is not None and importlib.util.find_spec("obstore") is None:
            raise ConfigurationError(
                f"the policy {policy.name!r} archives, and archives need obstore; "
                "pip install 'graph-eventstore[archive]'"
            )
    return found


def expect(kind: type[Store], store: object, twin: str) -> None:
    """See to it that a store is of the kind that something works with.

    Raises:
        TypeError: it is not; names the twin that works with the other kind.
    """
    if not isinstance(store, kind):
        raise TypeError(
            f"expected an {kind.__name__}, not {store!r}; for the other kind there is {twin}"
        )


class Access:
    """How one plan or sweep reaches a store, and the tenants that share its database."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.core = store.core
        self._blocks = isinstance(store, EventStore)
        self._perform = awaited if isinstance(store, EventStore) else store.database.perform
        self._other = store.core  # of the tenant that was asked for last

    async def do(self, operation: Awaitable[T]) -> T:
        """What an operation of a core comes to."""
        return await self._perform(operation)

    async def beside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns that waits for something else than this database."""
        if self._blocks:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        """Wait, without keeping an event loop from going on."""
        if self._blocks:
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    def of(self, tenant: str) -> Core:
        """What reaches the threads of a tenant by their names."""
        if self._other.tenant != tenant:
            self._other = self.core.for_tenant(tenant)
        return self._other

    def moment(self, now: datetime | None) -> datetime:
        """The moment that was meant, in UTC; without one, what the store's clock says."""
        if now is not None and now.tzinfo is None:
            raise ValueError(f"now must be timezone-aware, not {now!r}")
        return now.astimezone(UTC) if now else from_micros(self.core.now_us())
