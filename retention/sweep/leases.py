"""Where the retention lease is claimed: how several sweepers share a database without a leader.

All threads are divided into slices by their keys (:class:`~eventstore.retention_models.Slice`). A
sweeper claims the slice that has waited longest, renews its lease while it works, and releases it
with the moment of its sweep. A slice whose sweeper died is free again when the lease expires.
The rows are in the table ``retention_slices``; :mod:`eventstore.queries.sweeps` has the SQL.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import datetime, timedelta
from typing import Final

from eventstore.retention_models import Slice
from retention.inputs import Store

LEASE: Final = timedelta(minutes=1)
"""How long a slice stays claimed without being renewed."""


def new_holder() -> str:
    """A name for one sweep, by which its leases and its record are known."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


async def claim_lease(
    store: Store, holder: str, swept_before: datetime, *, all_tenants: bool
) -> SliceLease | None:
    """Claim the slice that has waited longest for a sweep.

    Args:
        swept_before: leave out slices that were swept since this moment.

    Returns:
        The lease; ``None`` if every other slice is claimed or was swept recently.
    """
    claimed = await store.concurrency.run(
        store.core.claim_slice(holder, LEASE, swept_before, all_tenants=all_tenants)
    )
    return None if claimed is None else SliceLease(store, claimed, holder)


class SliceLease:
    """A claimed slice of the key space; release it after use.

    Attributes:
        slice: the part of the key space that only the holder sweeps.
    """

    def __init__(self, store: Store, claimed: Slice, holder: str) -> None:
        self.slice = claimed
        self._run, self._core = store.concurrency.run, store.core
        self._holder = holder
        self._renew_at = self._next_renewal()

    async def renew(self) -> bool:
        """Extend the lease if a third of it has passed; false if another sweeper has the slice."""
        if time.monotonic() <= self._renew_at:
            return True
        if not await self._run(self._core.renew_slice(self.slice, self._holder, LEASE)):
            return False
        self._renew_at = self._next_renewal()
        return True

    async def release(self, swept_at: datetime | None) -> None:
        """Give the slice back; ``swept_at`` is ``None`` if it was not swept to its end."""
        await self._run(self._core.release_slice(self.slice, self._holder, swept_at))

    def _next_renewal(self) -> float:
        return time.monotonic() + LEASE.total_seconds() / 3
