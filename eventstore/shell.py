"""What ``EventStore`` and ``AsyncEventStore`` share: one core, and how their methods come of it.

An operation is written once, as a coroutine of :class:`~eventstore.core.core.Core`. A shell lists
it as ``append = sync_method(Core.append)`` or ``append = async_method(Core.append)``: a method with
the same parameters and docstring, which runs the operation the shell's way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from eventstore.codec.codec import Codec
from eventstore.concurrency import Concurrency, run_sync
from eventstore.core.core import Core
from eventstore.db.transactions import Transactions

P = ParamSpec("P")
T = TypeVar("T")


class Shell:
    """An open store: its database, its operations, and how to wait for them.

    Attributes:
        concurrency: runs operations of ``core`` the way this store does.
    """

    def __init__(
        self,
        database: Transactions,
        concurrency: Concurrency,
        tenant: str,
        codec: Codec | None,
        clock: Callable[[], datetime] | None,
        cache_bytes: int,
        run_lease_s: float,
    ) -> None:
        self.database = database
        self.concurrency = concurrency
        self.core = Core(database, tenant, codec, clock, cache_bytes, run_lease_s)
        self._is_guest = False

    @property
    def tenant(self) -> str:
        """The tenant whose threads these are."""
        return self.core.tenant

    @property
    def codec(self) -> Codec:
        """Turns values into bytes and back."""
        return self.core.codec

    def now_us(self) -> int:
        """The time by the store's clock, in microseconds since 1970 UTC."""
        return self.core.now_us()

    def with_tenant(self, tenant: str) -> Self:
        """The same store for the threads of another tenant.

        It shares everything with this one: closing it closes nothing, and it ends with this one.
        """
        twin = copy.copy(self)
        twin.core = self.core.for_tenant(tenant)
        twin._is_guest = True
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.database.engine.url!r}, tenant={self.tenant!r})"


def sync_method(
    operation: Callable[Concatenate[Core, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """A method that runs an operation of the core, and blocks until it is done."""
    name = operation.__name__

    @wraps(operation)
    def method(self: Shell, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = run_sync(getattr(self.core, name)(*args, **kwargs))
        return result

    return method


def async_method(
    operation: Callable[Concatenate[Core, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A coroutine method that runs an operation of the core."""
    name = operation.__name__

    @wraps(operation)
    async def method(self: Shell, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self.concurrency.run(getattr(self.core, name)(*args, **kwargs))
        return result

    return method
