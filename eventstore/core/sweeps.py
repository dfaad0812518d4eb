"""Sweeps: slices of the key space that sweepers claim, and the record of each sweep.

Sweepers share one database without a leader: each claims a slice under a lease that ends by
itself if its sweeper dies.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from eventstore import queries
from eventstore.core.part import Part
from eventstore.core.threads import check_limit, sound_records
from eventstore.errors import ConfigurationError
from eventstore.format import records
from eventstore.limits import check_name, seconds_of
from eventstore.models import to_micros
from eventstore.retention_models import Slice, SweepRecord

_MICROSECOND: Final = timedelta(microseconds=1)

SKEW: Final = timedelta(minutes=1)
"""Clocks of sweepers may differ by so much; a time further in the future is of a wrong clock."""

_SKEW_US: Final = SKEW // _MICROSECOND

KEPT: Final = timedelta(days=400)
"""Records of older sweeps are deleted."""


class Sweeps(Part):
    """Keeps leases and records for sweepers."""

    async def claim_slice(
        self, holder: str, lease: timedelta, due: datetime, *, all_tenants: bool = False
    ) -> Slice | None:
        """Claim the part of the key space that has waited longest for a sweep.

        Args:
            holder: a name that no other sweeper has.
            lease: how long it is held unless renewed.
            due: slices whose last sweep began at this moment or later are left out.
            all_tenants: claim it for a sweep of all tenants' threads; else of this tenant's.

        Returns:
            A slice that nobody else gets meanwhile; ``None``: there is none.
        """
        length = _lease(holder, lease)
        scope = "*" if all_tenants else f"={self.tenant}"
        now = await self.shared_now_us()
        found = await self.transactions.run(
            "idempotent_write",
            queries.sweeps.claim,
            scope,
            holder,
            now_us=now,
            until_us=now + length,
            due_us=to_micros(due, "due"),
            skew_us=_SKEW_US,
        )
        if found is None:
            return None
        ahead = max(found.swept_at - now, found.lease_until - now - length)
        return Slice(found.slice, scope, ahead * _MICROSECOND if ahead > _SKEW_US else timedelta(0))

    async def renew_slice(self, claimed: Slice, holder: str, lease: timedelta) -> bool:
        """Hold a slice longer, counted from now; false if somebody else has claimed it."""
        until = await self.shared_now_us() + _lease(holder, lease)
        return await self.transactions.run(
            "idempotent_write", queries.sweeps.renew, claimed.scope, claimed.number, holder, until
        )

    async def release_slice(
        self, claimed: Slice, holder: str, swept_at: datetime | None = None
    ) -> None:
        """Give a slice back, if the holder still has it.

        Args:
            swept_at: when its sweep began; ``None``: the sweep was not finished.
        """
        swept_us = None if swept_at is None else to_micros(swept_at, "swept_at")
        await self.transactions.run(
            "idempotent_write",
            queries.sweeps.release,
            claimed.scope,
            claimed.number,
            holder,
            swept_us,
        )

    async def begin_sweep(self, holder: str, cutoff: datetime, policy: Mapping[str, Any]) -> str:
        """Record that a sweep begins, with its policies and the moment it judges at; its id."""
        row = {
            "sweep_id": uuid.uuid4().hex,
            "holder": check_name("a holder", holder),
            "started_at": await self.shared_now_us(),
            "finished_at": None,
            "cutoff": to_micros(cutoff, "cutoff"),
            "policy": json.dumps(dict(policy)),
            "counts": "{}",
        }
        await self.transactions.run("idempotent_write", queries.sweeps.begin_sweep, row)
        return str(row["sweep_id"])

    async def end_sweep(self, sweep_id: str, counts: Mapping[str, Any]) -> None:
        """Record what a sweep did.

        Raises:
            ConfigurationError: no sweep of that id is on record.
        """
        now, text = await self.shared_now_us(), json.dumps(dict(counts))
        before = now - KEPT // _MICROSECOND
        done = await self.transactions.run(
            "idempotent_write", queries.sweeps.end_sweep, sweep_id, now, text, before
        )
        if not done:
            raise ConfigurationError(f"no sweep {sweep_id!r} is on record")

    async def sweeps(self, limit: int = 20) -> list[SweepRecord]:
        """The sweeps of this database on record, the last first."""
        check_limit(limit)
        rows = await self.transactions.run("read", queries.sweeps.list_sweeps, limit)
        return list(sound_records(rows, records.sweep))


def _lease(holder: str, lease: timedelta) -> int:
    """The length of a lease in microseconds."""
    if not check_name("a holder", holder):
        raise ConfigurationError("holder must be a non-empty name")
    seconds_of("lease", lease)
    if not lease:
        raise ConfigurationError("lease must be longer than 0 s")
    return lease // _MICROSECOND
