"""Retention policies: which threads they match and what limits they set. Pure data.

Checks every value when a policy is made, so that nothing later meets a policy that makes no
sense. What policies mean for a thread is decided in :mod:`retention.verdict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, get_args

from eventstore import ThreadInfo
from eventstore.models import Status
from retention.archives.storage import without_password

STATUSES: Final = get_args(Status)
DURATIONS: Final = ("ttl", "max_age", "keep_history_for", "seal_after")
"""Policy fields of type ``timedelta``."""

NUMBERS: Final = ("keep_last_checkpoints", "max_events", "max_bytes")
"""Policy fields of type ``int``."""

ARCHIVES: Final = re.compile(r"(file|memory):///.*|(s3|gs|az|https?)://[^/].*")
"""URLs accepted for an archive."""

_SCALARS: Final = (str, int, float, bool, type(None))


def _check_archive(url: str | None) -> None:
    _check_text("archive", url)
    if url is not None and not ARCHIVES.fullmatch(url):
        raise ValueError(
            "archive must be a URL such as file:///directory, s3://bucket/prefix, "
            f"gs://bucket/prefix or az://container/prefix, not {without_password(url)!r}"
        )


def _check_text(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f"{name} must be a non-empty string or None, not {value!r}")


@dataclass(frozen=True, slots=True)
class Match:
    """Which threads a policy applies to: those that meet all conditions. Without any, all threads.

    Attributes:
        tenant: the exact tenant.
        thread_id: a shell-style pattern such as ``chat-*``; case-sensitive.
        metadata: top-level values of the thread's metadata: text, numbers, true, false or null,
            compared by type and value.
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
                    "match.metadata must map names to text, numbers, True, False or None, "
                    f"not {name!r} to {value!r}"
                )
        object.__setattr__(self, "metadata", dict(self.metadata))

    def fits(self, thread: ThreadInfo) -> bool:
        """Whether a thread meets all conditions."""
        return (
            (self.tenant is None or thread.tenant == self.tenant)
            and (self.thread_id is None or fnmatchcase(thread.thread_id, self.thread_id))
            and (self.status is None or thread.status == self.status)
            and all(_same(thread.metadata, name, value) for name, value in self.metadata.items())
        )


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long matching threads are kept, and how much of their history.

    A policy without limits keeps its threads as they are, even those with a ``ttl`` of their own.

    Attributes:
        ttl: prune a thread this long after its last event. A thread's own ``ttl`` takes
            precedence; with ``timedelta.max`` only threads that have one are pruned.
        name: recorded in the tombstones; must be unique among several policies.
        match: which threads the policy applies to.
        max_age: prune a thread this long after it was created, active or not.
        keep_last_checkpoints: keep this many checkpoints readable, the last one included; older
            history may be trimmed.
        keep_history_for: keep history of this age; older history may be trimmed.
        max_events, max_bytes: trim the oldest history of a larger thread until it fits. They
            take precedence over ``keep_…``.
        seal_after: pack events older than this.
        archive: URL of an archive to which a thread is written before anything of it is removed.
        respect_pending_interrupts: never prune a thread that waits for a resume value.
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
    archive: str | None = field(default=None, repr=False)  # it may contain a password
    respect_pending_interrupts: bool = True

    def __post_init__(self) -> None:
        for each in DURATIONS:
            value = getattr(self, each)
            if value is not None and not isinstance(value, timedelta):
                raise TypeError(f"{each} must be a timedelta or None, not {value!r}")
            if value is not None and value <= timedelta(0):
                raise ValueError(f"{each} must be greater than zero, not {value}")
        for each in NUMBERS:
            value = getattr(self, each)
            if value is not None and type(value) is not int:
                raise TypeError(f"{each} must be a whole number or None, not {value!r}")
            if value is not None and value < 1:
                raise ValueError(f"{each} must be at least 1, not {value}")
        _check_archive(self.archive)
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, not {self.name!r}")
        if not isinstance(self.match, Match):
            raise TypeError(f"match must be a Match, not {self.match!r}")
        if type(self.respect_pending_interrupts) is not bool:
            raise TypeError(
                "respect_pending_interrupts must be True or False, not "
                f"{self.respect_pending_interrupts!r}"
            )

    @property
    def limits(self) -> bool:
        """Whether it sets any limit; a policy without one keeps its threads as they are."""
        return any(getattr(self, each) is not None for each in (*DURATIONS, *NUMBERS))

    @property
    def trims(self) -> bool:
        """Whether it limits how much history is kept."""
        return any(getattr(self, each) is not None for each in ("keep_history_for", *NUMBERS))

    def described(self) -> dict[str, Any]:
        """The fields that are set, as JSON-like values; durations in seconds, no passwords."""
        found: dict[str, Any] = {"name": self.name}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Match):
                value = {f.name: v for f in fields(value) if (v := getattr(value, f.name))}
            if each.name == "name" or value in (each.default, {}):
                continue
            if each.name in DURATIONS:
                value = value.total_seconds()
            found[each.name] = without_password(value) if each.name == "archive" else value
        return found


Policies = RetentionPolicy | Iterable[RetentionPolicy]
"""One policy, or several of which only the first match counts for a thread."""


def policies_of(given: Policies) -> tuple[RetentionPolicy, ...]:
    """The given policies as a tuple, in their order.

    Raises:
        TypeError: one of them is not a policy.
        ValueError: there are none, or two have the same name.
    """
    found = (given,) if isinstance(given, RetentionPolicy) else tuple(given)
    if not found:
        raise ValueError("expected at least one policy; a policy without limits keeps everything")
    names = set()
    for each in found:
        if not isinstance(each, RetentionPolicy):
            raise TypeError(f"a policy must be a RetentionPolicy, not {each!r}")
        if each.name in names:
            raise ValueError(f"two policies are named {each.name!r}; give each its own name")
        names.add(each.name)
    return found


def _same(metadata: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether metadata has this value; 1 equals neither 1.0 nor true."""
    stored = metadata.get(name, ...)
    return type(stored) is type(value) and stored == value
