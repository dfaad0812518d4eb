"""Everything an event store can do, as coroutines over a transactions: its parts in one.

Reading, appending, removal and the others are parts in modules of their own; here are only
the list of threads and what is said about each. Nobody calls this but the two shells
(:mod:`eventstore.store`, :mod:`eventstore.async_store`), whose docstrings say what each
operation means, and ``graph``, which composes operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from eventstore import queries
from eventstore.core.append import Appending, json_text
from eventstore.core.archive import Archiving
from eventstore.core.erase import Erasing
from eventstore.core.retention import Retaining
from eventstore.core.seal import Sealing
from eventstore.core.sweeps import Sweeping
from eventstore.core.trim import Trimming
from eventstore.core.verify import Inspection
from eventstore.errors import ConfigurationError
from eventstore.format import records
from eventstore.models import Status, ThreadInfo, to_micros


class Core(Appending, Erasing, Retaining, Sweeping, Sealing, Trimming, Archiving, Inspection):
    """The operations of an event store, written once."""

    async def threads(
        self,
        *,
        status: Status | None = None,
        prefix: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        after: ThreadInfo | None = None,
        limit: int = 100,
    ) -> list[ThreadInfo]:
        """One page of this tenant's threads, the most recently active first."""
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit}")
        if prefix is not None:
            records.name("a prefix", prefix)
        place = None if after is None else (to_micros(after.active_at), after.thread_key)
        rows = await self.transactions.run(
            "read",
            queries.listing.list_threads,
            self.tenant,
            status=status,
            prefix=prefix,
            metadata=metadata or {},
            after=place,
            limit=limit,
        )
        return self.infos(rows)

    async def thread_counts(self) -> dict[str, int]:
        """How many threads this tenant has, by status."""
        return await self.transactions.run("read", queries.listing.count_threads, self.tenant)

    async def set_thread(self, thread_id: str, **values: Any) -> ThreadInfo:
        """Change ``metadata``, ``status``, ``ttl`` (seconds or ``None``) or ``pinned``."""
        stored = _thread_values(values)
        return await (self.change_thread(thread_id, stored) if stored else self.thread(thread_id))


def _thread_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``set_thread`` was given, if it makes sense."""
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metadata": (lambda value: isinstance(value, Mapping), "a mapping"),
        "status": (lambda value: value in get_args(Status), f"one of {get_args(Status)}"),
        "ttl": (
            lambda value: value is None or (type(value) is int and 0 <= value < 2**53),
            "seconds as a whole number, or None",
        ),
        "pinned": (lambda value: type(value) is bool, "True or False"),
    }
    for name, value in values.items():
        if name not in checks:
            raise ConfigurationError(f"a thread has no {name!r}; it has {', '.join(checks)}")
        fits, expected = checks[name]
        if not fits(value):
            raise ConfigurationError(f"{name} must be {expected}, not {value!r:.80}")
    stored = dict(values)
    if "metadata" in values:
        stored["metadata"] = json_text(values["metadata"])
    if values.get("pinned") is False:
        stored["pin"] = None
    return stored
