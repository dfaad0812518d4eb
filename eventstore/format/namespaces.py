"""Names of nested logs: the one rule for those who make, read or trim logs. Pure functions.

A log's name is a path of levels joined with ``|``, one for each log on the way down from the
root log, whose name is empty. A level is a name and, after a colon, a mark:

- ``node:1a.0``: a log of one task (index 0) of the work that began at seq 0x1a of the log
  above; ``node:1a.0.2`` is the third of that name there.
- ``node``: a permanent log, whichever task uses it; ``node:2f`` is the same on the branch that
  began with the fork at seq 0x2f of the log above.

So a log's name tells which event of the log above it belongs to, and so when trimming that log
makes it unnecessary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from eventstore.format.digests import origin

SEPARATOR: Final = "|"
MARK: Final = ":"
_OF_TASK: Final = re.compile(r"([0-9a-f]+)\.[0-9]+(?:\.[0-9]+)?")


class Level(NamedTuple):
    """One level of a log's name.

    Attributes:
        name: of the log within the log above.
        mark: distinguishes the logs of that name.
    """

    name: str
    mark: str

    @property
    def lasts(self) -> bool:
        """Whether the log is permanent and does not belong to one task."""
        return self.began is None

    @property
    def began(self) -> int | None:
        """For a task's log: the seq of the log above at which the task's work began."""
        match = _OF_TASK.fullmatch(self.mark)
        return int(match[1], 16) if match else None

    def __str__(self) -> str:
        return f"{self.name}{MARK}{self.mark}" if self.mark else self.name


def token(began: int, task: int, call: int = 0) -> str:
    """The mark of a task's log, the ``call``-th of its name."""
    return f"{began:x}.{task}.{call}" if call else f"{began:x}.{task}"


def child(parent: str, name: str, mark: str) -> str:
    """The log of this name and mark inside the log ``parent``."""
    level = str(Level(name, mark))
    return f"{parent}{SEPARATOR}{level}" if parent else level


def split(ns: str) -> list[Level]:
    """The levels of a log's name; none for the root log."""
    parts = [part.partition(MARK) for part in ns.split(SEPARATOR)] if ns else []
    return [Level(name, mark) for name, _, mark in parts]


def join(levels: Sequence[Level]) -> str:
    """The inverse of :func:`split`."""
    return SEPARATOR.join(map(str, levels))


def began(ns: str) -> int | None:
    """The seq of the root log at which the task began that a log, or one around it, belongs to.

    ``None`` for permanent logs and for names not made by this rule. A name made by another rule
    may look the same: call this only for logs that are named by this one.
    """
    levels = split(origin(0, ns)[1])
    return levels[0].began if levels else None


def nested(logs: Iterable[str], above: str) -> dict[int, list[str]]:
    """The logs of tasks of the log ``above``, with all logs inside them, by the seq at which their
    task began. Logs and prefixes may be mixed: a prefix belongs to the prefix of the log above.
    """
    home, name = origin(0, above)
    path = split(name)
    found: dict[int, list[str]] = {}
    for ns in logs:
        thread, inner = origin(0, ns)
        below = split(inner)[len(path) :]
        if thread == home and split(inner)[: len(path)] == path and below:
            seq = below[0].began
            if seq is not None:
                found.setdefault(seq, []).append(ns)
    return found


class Link(NamedTuple):
    """A fork in the log ``ns`` that goes on from another log of the same thread."""

    ns: str
    seq: int
    source_ns: str
    source_seq: int


def outlived(
    logs: Iterable[str], links: Iterable[Link], cut: int, *, named: bool
) -> frozenset[str]:
    """The logs that are unnecessary once the root log is trimmed up to seq ``cut``.

    These are the logs of tasks that began before, with all logs inside them, and the prefixes
    copied from other threads; but not those that a remaining fork goes on from. Permanent logs
    stay whole: which part of them the root's history needs is not known here.

    Args:
        named: whether the thread's logs are named by the rule above. If not, only prefixes go.
    """
    families: dict[_Family, list[str]] = {}
    for ns in logs:
        families.setdefault(_family(ns), []).append(ns)
    dead = {family for family in families if _is_over(family, cut, named)}
    waiting = list(links)
    while True:
        needed = {
            _family(link.source_ns)
            for link in waiting
            if (link.seq > cut if not link.ns else _family(link.ns) not in dead)
        }
        # A fork that goes on from another thread's root log may need any log inside that one.
        whole = {thread for thread, level in needed if thread and not level}
        saved = {family for family in dead if family in needed or family[0] in whole}
        if not saved:
            return frozenset(ns for family in dead for ns in families[family])
        dead -= saved


_Family = tuple[int, str]
"""A thread (0: this one) and the first level of a name: logs that stay or go together."""


def _family(ns: str) -> _Family:
    thread, name = origin(0, ns)
    return thread, name.partition(SEPARATOR)[0]


def _is_over(family: _Family, cut: int, named: bool) -> bool:
    thread, level = family
    if thread:
        return True
    start = began(level) if named else None
    return start is not None and start < cut
