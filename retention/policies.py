"""What a policy says about one thread at one moment. Pure: no clock, no store.

Promises that a pinned thread is left alone, that one which waits for a person is not pruned
(unless its policy says otherwise), that nothing goes before its time, and that the first policy
that matches a thread is the only one that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from eventstore import ThreadInfo
from eventstore.models import Status

if TYPE_CHECKING:
    from eventstore.core.trim import TrimPoint

Action = Literal["prune", "trim", "seal"]

ACTIONS: Final = get_args(Action)
"""What can be done to a thread."""

STATUSES: Final = get_args(Status)
DURATIONS: Final = ("ttl", "max_age", "keep_history_for", "seal_after")
"""Fields of a policy that are a ``timedelta``."""

NUMBERS: Final = ("keep_last_checkpoints", "max_events", "max_bytes")
"""Fields of a policy that are a whole number."""

ARCHIVES: Final = re.compile(r"(file|memory):///.*|(s3|gs|az|https?)://[^/].*")
"""URLs that an archive may have."""

_SCALARS: Final = (str, int, float, bool, type(None))


def _check_archive(url: str | None) -> None:
    _check_text("archive", url)
    if url is not None and not ARCHIVES.fullmatch(url):
        raise ValueError(
            "archive must be a URL such as file:///directory, s3://bucket/prefix, "
            f"gs://bucket/prefix or az://container/prefix, not {re.sub('//[^/]*@', '//', url)!r}"
        )


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f"{name} must be a text that is not empty, or None, not {value!r}")


@dataclass(frozen=True, slots=True)
class Match:
    """Which threads a policy is for: those of which all of this is true. Without any: all.

    Attributes:
        tenant: whose they are, exactly.
        thread_id: a pattern as of a shell, such as ``chat-*``; case counts.
        metadata: values that a thread's metadata has at its top level: text, numbers, true,
            false or null, of the same type.
        status: ``running``, ``waiting``, ``failed`` or ``idle``.
    """

    tenant: str | None = None
    thread_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    status: str | None = None

    def __post_init__(self) -> None:
        _check_text("match.tenant", self.tenant)
        _check_text("match.thread_id", self.thread_id)
        if self.status is not None and self.status not in STATUSES:
            raise ValueError(f"match.status must be one of {STATUSES}, not {self.status!r}")
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"match.metadata must be a mapping, not {self.metadata!r}")
        for name, value in self.metadata.items():
            if not isinstance(name, str) or type(value) not in _SCALARS:
                raise TypeError(
                    "match.metadata compares text, numbers, True, False and None by their names, "
                    f"not {name!r}: {value!r}"
                )
        object.__setattr__(self, "metadata", dict(self.metadata))

    def fits(self, thread: ThreadInfo) -> bool:
        """Whether all of this is true of a thread."""
        return (
            (self.tenant is None or thread.tenant == self.tenant)
            and (self.thread_id is None or fnmatchcase(thread.thread_id, self.thread_id))
            and (self.status is None or thread.status == self.status)
            and all(_same(thread.metadata, name, value) for name, value in self.metadata.items())
        )


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long the threads that match are kept, and how much of their history.

    One that sets no limit keeps all of them, also those that have a ``ttl`` of their own.

    Attributes:
        ttl: a thread may be pruned so long after its last event. Its own ``ttl``, where it has
            one, goes first; with ``timedelta.max`` only those that have one go.
        name: kept with what it let go; needed where there are several policies.
        match: which threads it is for.
        max_age: a thread may be pruned so long after it was made, active or not.
        keep_last_checkpoints: so many checkpoints stay readable, the last one included; older
            history may be trimmed.
        keep_history_for: history of this much time stays; older may be trimmed.
        max_events, max_bytes: of a thread; where it has more, its oldest history may be trimmed
            until it fits. They go before what ``keep_…`` promise.
        seal_after: events older than this are packed.
        archive: the URL of an archive where a thread is written to before anything of it goes.
        respect_pending_interrupts: never prune a thread that waits for a person.
    """

    ttl: timedelta | None = None
    name: str = "default"
    match: Match = Match()
    max_age: timedelta | None = None
    keep_last_checkpoints: int | None = None
    keep_history_for: timedelta | None = None
    max_events: int | None = None
    max_bytes: int | None = None
    seal_after: timedelta | None = None
    archive: str | None = None
    respect_pending_interrupts: bool = True

    def __post_init__(self) -> None:
        for each in DURATIONS:
            value = getattr(self, each)
            if value is not None and not isinstance(value, timedelta):
                raise TypeError(f"{each} must be a timedelta or None, not {value!r}")
            if value is not None and value <= timedelta(0):
                raise ValueError(f"{each} must be longer than nothing, not {value}")
        for each in NUMBERS:
            value = getattr(self, each)
            if value is not None and type(value) is not int:
                raise TypeError(f"{each} must be a whole number or None, not {value!r}")
            if value is not None and value < 1:
                raise ValueError(f"{each} must be at least 1, not {value}")
        _check_archive(self.archive)
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a text that is not empty, not {self.name!r}")
        if not isinstance(self.match, Match):
            raise TypeError(f"match must be a Match, not {self.match!r}")
        if type(self.respect_pending_interrupts) is not bool:
            raise TypeError(
                "respect_pending_interrupts must be True or False, not "
                f"{self.respect_pending_interrupts!r}"
            )

    @property
    def limits(self) -> bool:
        """Whether it limits anything; one that does not keeps its threads as they are."""
        return any(getattr(self, each) is not None for each in (*DURATIONS, *NUMBERS))

    @property
    def trims(self) -> bool:
        """Whether it says how much history is kept."""
        return any(getattr(self, each) is not None for each in ("keep_history_for", *NUMBERS))

    def described(self) -> dict[str, Any]:
        """What it says, as JSON has it: only what was set, durations in seconds."""
        said: dict[str, Any] = {"name": self.name}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Match):
                value = {f.name: v for f in fields(value) if (v := getattr(value, f.name))}
            if each.name != "name" and value not in (each.default, {}):
                said[each.name] = value.total_seconds() if each.name in DURATIONS else value
        return said


Policies = RetentionPolicy | Iterable[RetentionPolicy]
"""One policy, or several of which the first that matches counts."""


def policies_of(given: Policies) -> tuple[RetentionPolicy, ...]:
    """The policies that were meant.

    Raises:
        ValueError: there are none, or two have the same name.
    """
    found = (given,) if isinstance(given, RetentionPolicy) else tuple(given)
    if not found:
        raise ValueError("there is no policy: give one that says nothing to keep everything")
    names = set()
    for each in found:
        if not isinstance(each, RetentionPolicy):
            raise TypeError(f"a policy must be a RetentionPolicy, not {each!r}")
        if each.name in names:
            raise ValueError(f"two policies are called {each.name!r}: give each a name of its own")
        names.add(each.name)
    return found


# --- judging ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies say about a thread, as far as its row tells.

    Attributes:
        policy: the one that matches; ``None``: none does.
        reason: why it may be pruned, or ``pinned``, ``waiting``, ``active``, ``no ttl``,
            ``no limits`` (its policy has none) or ``no policy``.
        prune: whether it may be pruned,
        idle_since: if it has no event after this moment; ``None``: whatever it has.
        trim, seal: whether there may be something to trim or to seal: its events will tell.
    """

    policy: RetentionPolicy | None
    reason: str
    prune: bool = False
    idle_since: datetime | None = None
    trim: bool = False
    seal: bool = False


def judge(policies: Sequence[RetentionPolicy], thread: ThreadInfo, now: datetime) -> Verdict:
    """What the first policy that matches a thread says about it at a moment."""
    policy = next((each for each in policies if each.match.fits(thread)), None)
    if policy is None:
        return Verdict(None, "no policy")
    if thread.pinned:
        return Verdict(policy, "pinned")
    if not policy.limits:
        return Verdict(policy, "no limits")
    reason = "no ttl"
    if thread.status == "waiting" and policy.respect_pending_interrupts:
        reason = "waiting"
    else:
        if _is_past(thread.created_at, policy.max_age, now):
            return Verdict(policy, f"older than the max_age of {policy.max_age}", prune=True)
        idle_since = before(now, _ttl(policy, thread))
        if idle_since is not None and thread.active_at <= idle_since:
            own = "the" if thread.ttl is None else "its own"
            reason = f"idle for {own} ttl of {_ttl(policy, thread)}"
            return Verdict(policy, reason, prune=True, idle_since=idle_since)
        if idle_since is not None or before(now, policy.max_age) is not None:
            reason = "active"
    # What is promised to stay is younger than the promise; so is all of a thread that is.
    trim = policy.trims and (
        policy.max_events is not None
        or policy.max_bytes is not None
        or policy.keep_last_checkpoints is not None
        or _is_past(thread.created_at, policy.keep_history_for, now)
    )
    seal = _is_past(thread.created_at, policy.seal_after, now)
    return Verdict(policy, reason, trim=trim, seal=seal)


def promised(
    policy: RetentionPolicy, points: Sequence[TrimPoint], now: datetime
) -> TrimPoint | None:
    """The newest place to trim at that keeps what ``keep_…`` promise; ``None``: there is none.

    Args:
        points: oldest first. What none of them counts is not known to be a checkpoint.
    """
    if policy.keep_history_for is None and policy.keep_last_checkpoints is None:
        return None
    found = list(points)
    if policy.keep_history_for is not None:
        limit = before(now, policy.keep_history_for)
        found = [each for each in found if limit is not None and each.recorded_at <= limit]
    if policy.keep_last_checkpoints is not None:
        # The log may hold more checkpoints than the last point knows of: then more are kept.
        last = max((each.step for each in points if each.step is not None), default=0)
        spare = last - policy.keep_last_checkpoints + 1
        found = [each for each in found if each.step is not None and each.step <= spare]
    return found[-1] if found else None


def promises_less(policy: RetentionPolicy, created_at: datetime, now: datetime) -> bool:
    """Whether ``keep_…`` let a thread's first history go."""
    if policy.keep_history_for is not None:
        return _is_past(created_at, policy.keep_history_for, now)
    return policy.keep_last_checkpoints is not None


def before(now: datetime, duration: timedelta | None) -> datetime | None:
    """The moment so long before; ``None`` where that is before the calendar, or never."""
    try:
        return None if duration is None else now - duration
    except OverflowError:
        return None


def _is_past(since: datetime, duration: timedelta | None, now: datetime) -> bool:
    limit = before(now, duration)
    return limit is not None and since <= limit


def _ttl(policy: RetentionPolicy, thread: ThreadInfo) -> timedelta | None:
    try:
        return policy.ttl if thread.ttl is None else timedelta(seconds=max(0, thread.ttl))
    except OverflowError:  # longer than the calendar, so forever
        return None


def _same(metadata: Mapping[str, Any], name: str, value: Any) -> bool:
    """1 is neither 1.0 nor true."""
    stored = metadata.get(name, ...)
    return type(stored) is type(value) and stored == value
