"""The records of retention, all immutable: what may be removed, what was, and the sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

SLICES: Final = 16
"""Parts of the key space that sweepers claim one at a time."""

KEYS_PER_SLICE: Final = 2**63 // SLICES

Outcome = Literal["pruned", "kept", "gone", "large"]
"""The result of ``prune`` for one thread.

``pruned``: it was removed whole. ``kept``: it became active, differs from what was archived, must
be kept, or is locked by somebody else. ``gone``: it did not exist any more. ``large``: it has too
many rows for one short transaction, or other threads need bytes of it: use ``delete_thread``.
"""


@dataclass(frozen=True, slots=True)
class Expired:
    """A thread that may be pruned.

    Attributes:
        thread_key: of a thread of any tenant.
        idle_since: keep it if it has an event after this moment; ``None``: only ``keep_if``
            decides.
        reason, policy: recorded in the tombstone.
        unchanged: keep it unless its logs are exactly these, and end at these seqs.
    """

    thread_key: int
    idle_since: datetime | None
    reason: str
    policy: str | None = None
    unchanged: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of a deleted thread.

    Attributes:
        thread_key: the key that it had; if it was erased, a negative number that is no key.
        name_digest: of its name; if it was erased, nobody can compute it without a secret of
            this database.
        events, bytes: how many events it had, and the stored bytes of their payloads.
        policy, asked_by: the policy that removed it, and who asked for it, if recorded.
    """

    thread_key: int
    name_digest: bytes
    tenant: str
    deleted_at: datetime
    reason: str
    events: int
    bytes: int
    policy: str | None
    asked_by: str | None

    @property
    def erased(self) -> bool:
        """Whether its name was erased, too."""
        return self.thread_key < 0


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the key space, claimed by a sweeper for a while.

    Attributes:
        scope: ``=`` and the tenant whose threads are swept, or ``*`` for all tenants.
        ahead: how far in the future its last sweep or lease was, because a clock was wrong.
    """

    number: int
    scope: str
    ahead: timedelta = timedelta(0)

    @property
    def first_key(self) -> int:
        """The lowest key in it."""
        return self.number * KEYS_PER_SLICE

    @property
    def last_key(self) -> int:
        """The highest key in it."""
        return (self.number + 1) * KEYS_PER_SLICE - 1


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep as it was recorded.

    Attributes:
        finished_at: ``None``: it is under way, or was interrupted.
        cutoff: the moment that it judges threads at.
        policy: its policies, JSON-like.
        counts: what it did, JSON-like; empty until it has finished.
    """

    sweep_id: str
    holder: str
    started_at: datetime
    finished_at: datetime | None
    cutoff: datetime
    policy: Mapping[str, Any]
    counts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the tombstone of a thread marked for deletion will record.

    Attributes:
        erase: erase the name, too.
        events, bytes: of the whole thread, counted before anything was removed.
    """

    reason: str
    policy: str | None = None
    asked_by: str | None = None
    erase: bool = False
    events: int = 0
    bytes: int = 0
