"""The facts of forgetting, as immutable records: what may go, what went, and who sweeps what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

SLICES: Final = 16
"""Parts of the key space that sweepers claim one at a time."""

KEYS_PER_SLICE: Final = 2**63 // SLICES

Outcome = Literal["pruned", "kept", "gone", "large"]
"""What ``prune`` did about a thread.

``pruned``: it is gone, whole. ``kept``: it has become active, is not what was archived, must
be kept, or somebody has it locked. ``gone``: it was not there any more. ``large``: it has too
many rows for one short transaction, or other threads need bytes of it: see ``delete_thread``.
"""


@dataclass(frozen=True, slots=True)
class Expired:
    """A thread that may go.

    Attributes:
        thread_key: of a thread of any tenant.
        idle_since: leave it alone if it has an event after this moment; ``None``: go by
            nothing but ``keep_if``.
        reason, policy: kept in the tombstone.
        unchanged: leave it alone unless its logs are exactly these, and end at these seqs.
    """

    thread_key: int
    idle_since: datetime | None
    reason: str
    policy: str | None = None
    unchanged: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a thread that was removed.

    Attributes:
        thread_key: the key that it had; negative, and no key of any thread, if it was erased.
        name_digest: of its name; if it was erased, one that nobody can make without a secret
            of this database.
        events, bytes: how many events it had, and the stored bytes of their payloads.
        policy, asked_by: which policy let it go, and who asked for it, where that was said.
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
        """Whether nothing of its name is left."""
        return self.thread_key < 0


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the key space, claimed by a sweeper for a while.

    Attributes:
        scope: ``=`` and the tenant whose threads are swept, or ``*``: everybody's.
    """

    number: int
    scope: str

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
        finished_at: ``None``: it is under way, or was cut short.
        cutoff: the moment that it judges at.
        policy: what it goes by, JSON-like.
        counts: what it did, JSON-like; empty until it is finished.
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
    """What the tombstone of a thread marked for deletion is to say, whoever writes it.

    Attributes:
        erase: nothing of the name may be left.
        events, bytes: of the whole thread, counted before anything of it went.
    """

    reason: str
    policy: str | None = None
    asked_by: str | None = None
    erase: bool = False
    events: int = 0
    bytes: int = 0
