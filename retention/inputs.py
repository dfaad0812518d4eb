"""Checks what callers pass to plans, sweeps and daemons: stores, policies and moments.

Promises that nothing is read or changed before all of them make sense.
"""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime

from eventstore import AsyncEventStore, ConfigurationError, EventStore
from eventstore.models import from_micros
from retention.policies import Policies, RetentionPolicy, policies_of

Store = EventStore | AsyncEventStore


def check_store(kind: type[Store], store: object, twin: str) -> None:
    """Check that a store is of the expected kind.

    Raises:
        TypeError: it is not; the message names the twin for the other kind.
    """
    if not isinstance(store, kind):
        raise TypeError(
            f"expected an {kind.__name__}, not {store!r}; use {twin} for the other kind of store"
        )


def usable_policies(given: Policies) -> tuple[RetentionPolicy, ...]:
    """The given policies, each of which can be applied here.

    Raises:
        ValueError: there are none, or two have the same name.
        ConfigurationError: a policy archives, and ``obstore`` is not installed.
    """
    found = policies_of(given)
    for policy in found:
        if policy.archive is not None and importlib.util.find_spec("obstore") is None:
            raise ConfigurationError(
                f"the policy {policy.name!r} archives, and archives need obstore: "
                "pip install 'graph-eventstore[archive]'"
            )
    return found


async def moment_of(store: Store, now: datetime | None) -> datetime:
    """The given moment in UTC; without one, the time that all sweepers of the database share.

    Raises:
        ValueError: the moment has no timezone.
    """
    if now is not None and now.tzinfo is None:
        raise ValueError(f"now must be timezone-aware, not {now!r}")
    if now is not None:
        return now.astimezone(UTC)
    return from_micros(await store.concurrency.run(store.core.shared_now_us()))
