"""Names of logs that lie inside others: the one rule, for whoever makes, reads or cuts logs.

Pure. A log's name is a path of levels joined with ``|``, one for each log on the way down from
the root's, whose name is empty. A level is a name and, behind a colon, a mark:

- ``node:1a.0``: a log that belongs to one task (index 0) of what began at seq 0x1a of the log
  above; ``node:1a.0.2`` is the third of that name there.
- ``node``: a log that lasts, whatever task uses it; ``node:2f`` the same on the branch that
  began with the fork at seq 0x2f of the log above.

So the name of a log tells what above it belongs to, and from where on nobody above can need it.
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
    """One step on the way down.

    Attributes:
        name: what the log is of, within the log above.
        mark: what tells the logs of that name apart.
    """

    name: str
    mark: str

    @property
    def lasts(self) -> bool:
        """Whether it does not belong to one task."""
        return self.began is None

    @property
    def began(self) -> int | None:
        """Of a task's log: the seq of the log above where that began which it is for."""
        match = _OF_TASK.fullmatch(self.mark)
        return int(match[1], 16) if match else None

    def __str__(self) -> str:
        return f"{self.name}{MARK}{self.mark}" if self.mark else self.name


def token(began: int, task: int, call: int = 0) -> str:
    """The mark of a task's log (the ``call``-th of its name)."""
    return f"{began:x}.{task}.{call}" if call else f"{began:x}.{task}"


def child(parent: str, name: str, mark: str) -> str:
    """The log of this name and mark inside the log ``parent``."""
    level = str(Level(name, mark))
    return f"{parent}{SEPARATOR}{level}" if parent else level


def split(ns: str) -> list[Level]:
    """The way down to a log; empty for the root's."""
    parts = [part.partition(MARK) for part in ns.split(SEPARATOR)] if ns else []
    return [Level(name, mark) for name, _, mark in parts]


def join(levels: Sequence[Level]) -> str:
    """The inverse of :func:`split`."""
    return SEPARATOR.join(map(str, levels))


def began(ns: str) -> int | None:
    """The seq of the root's log where that began which a log is for, or is inside of.

    ``None`` for logs that last, and where somebody else gave the name (unless by another rule it
    looks the same: ask only where the logs are known to be named by this one).
    """
    levels = split(origin(0, ns)[1])
    return levels[0].began if levels else None


class Link(NamedTuple):
    """A fork in the log ``ns`` that goes on from another log of the same thread."""

    ns: str
    seq: int
    source_ns: str
    source_seq: int


def outlived(
    logs: Iterable[str], links: Iterable[Link], cut: int, *, named: bool
) -> frozenset[str]:
    """The logs that nobody needs any more once the root's log begins behind seq ``cut``.

    Those of tasks that began before, with all that is inside them, and what a fork was given of
    other threads' logs; unless a fork that stays goes on from there. What lasts stays whole:
    which part of it the root's history needs is not known here.

    Args:
        named: whether the thread's logs are named by the rule above. If not, names tell nothing,
            and all that goes is what a fork was given.
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
        # Whoever can go back in another thread's root needs what was inside at any point of it.
        whole = {thread for thread, level in needed if thread and not level}
        saved = {family for family in dead if family in needed or family[0] in whole}
        if not saved:
            return frozenset(ns for family in dead for ns in families[family])
        dead -= saved


_Family = tuple[int, str]
"""A thread (0: the own one) and the first level of the path: logs that stay or go together."""


def _family(ns: str) -> _Family:
    thread, name = origin(0, ns)
    return thread, name.partition(SEPARATOR)[0]


def _is_over(family: _Family, cut: int, named: bool) -> bool:
    thread, level = family
    if thread:
        return True
    start = began(level) if named else None
    return start is not None and start < cut
