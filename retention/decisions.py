"""Decisions: one action on one thread, as a plan lists it and a sweep carries it out.

Pure data, made from a policy's verdict. A decision records what must still be true of the thread
when it is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

from eventstore import ThreadInfo
from retention.policies import RetentionPolicy
from retention.verdict import Verdict, before, in_words

Action = Literal["prune", "trim", "seal"]

ACTIONS: Final = get_args(Action)


@dataclass(frozen=True, slots=True)
class Decision:
    """One action on one thread.

    Attributes:
        active_at: when its last event was recorded, to the minute.
        policy: name of the policy that asks for the action.
        action: ``prune``, ``trim`` or ``seal``.
        reason: why.
        idle_since: prune the thread only if it has no event after this moment; ``None``: in any
            case.
        seq: trim the root's log up to this seq.
        older_than: seal events from before this moment.
        archive: URL of the archive to write the thread to first.
        events, bytes: how much would be removed (for ``seal``: packed, and saved); ``None`` if
            it was not counted. An estimate for a ``seal`` that follows a ``trim``.
    """

    thread_id: str
    tenant: str
    thread_key: int
    status: str
    active_at: datetime
    policy: str
    action: Action
    reason: str
    idle_since: datetime | None = None
    seq: int | None = None
    older_than: datetime | None = None
    archive: str | None = field(default=None, repr=False)  # it may contain a password
    events: int | None = None
    bytes: int | None = None


def to_prune(policy: RetentionPolicy, verdict: Verdict, thread: ThreadInfo) -> Decision:
    """The decision to prune a thread."""
    return _decision(
        policy,
        thread,
        "prune",
        verdict.reason,
        idle_since=verdict.idle_since,
        archive=policy.archive,
    )


def to_trim(policy: RetentionPolicy, thread: ThreadInfo, seq: int | None, reason: str) -> Decision:
    """The decision to trim a thread; with ``seq`` ``None`` the sweep looks up where."""
    return _decision(policy, thread, "trim", reason, seq=seq, archive=policy.archive)


def to_seal(policy: RetentionPolicy, thread: ThreadInfo, at: datetime) -> Decision | None:
    """The decision to seal a thread, unless no event can be old enough. Nothing is removed."""
    older_than = before(at, policy.seal_after)
    if older_than is None:
        return None
    reason = f"older than the seal_after of {in_words(policy.seal_after)}"
    return _decision(policy, thread, "seal", reason, older_than=older_than)


def _decision(
    policy: RetentionPolicy, thread: ThreadInfo, action: Action, reason: str, **values: Any
) -> Decision:
    return Decision(
        thread.thread_id,
        thread.tenant,
        thread.thread_key,
        thread.status,
        thread.active_at,
        policy.name,
        action,
        reason,
        **values,
    )
