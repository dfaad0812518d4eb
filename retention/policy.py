"""What a policy says about one thread at one moment. Pure: no clock, no store.

Promises that a pinned thread is never let go, nor one that waits for a person (unless the
policy says otherwise), nor one with an event later than the moment that was asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from eventstore import ThreadInfo


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about a thread.

    Attributes:
        active_at: of its last event, to the minute.
        reason: why it may go, or ``pinned``, ``waiting``, ``no ttl`` or ``active``.
        idle_since: it may go if it has no event after this moment; ``None``: it stays.
    """

    thread_id: str
    status: str
    active_at: datetime
    reason: str
    idle_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which threads may be pruned.

    Attributes:
        ttl: how long a thread is kept after its last event. A thread's own ``ttl`` goes first;
            ``None`` prunes only threads that have one.
        respect_waiting: never prune a thread that waits for a person.
    """

    ttl: timedelta | None
    respect_waiting: bool = True

    def __post_init__(self) -> None:
        if self.ttl is not None and not isinstance(self.ttl, timedelta):
            raise TypeError(f"ttl must be a timedelta or None, not {self.ttl!r}")
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise ValueError(f"ttl must be longer than nothing, not {self.ttl}")

    def judge(self, thread: ThreadInfo, now: datetime) -> Decision:
        """Whether a thread may go, as far as its row tells; its last event may be later."""
        reason, idle_since = "no ttl", None
        if thread.pinned:
            reason = "pinned"
        elif thread.status == "waiting" and self.respect_waiting:
            reason = "waiting"
        else:
            try:
                ttl = self.ttl if thread.ttl is None else timedelta(seconds=max(0, thread.ttl))
                idle_since = None if ttl is None else now - ttl
            except OverflowError:  # longer than the calendar, so forever
                ttl = None
            if idle_since is not None and thread.active_at > idle_since:
                reason, idle_since = "active", None
            elif idle_since is not None:
                reason = f"idle for {'the' if thread.ttl is None else 'its own'} ttl of {ttl}"
        return Decision(thread.thread_id, thread.status, thread.active_at, reason, idle_since)
