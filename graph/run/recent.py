"""Snapshots in memory: the states at the ends of the logs that were loaded last.

Owns how such a snapshot is made from the one that loading began with: of a list that has grown,
only the new items are packed. A snapshot holds bytes, packed before anybody else could see the
values: so code that changes values in place cannot change what is loaded. It is never stored, and
the log cache of the store bounds what is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eventstore import Codec, SerializationError, Snapshot
from eventstore.core.cache import CachedLog
from eventstore.core.core import Core
from graph.run.snapshots import Chain, begins_with, lists_of, state_data
from graph.state.fold import State

PART: Final = 16 * 1024
"""Bytes from which a part of a list is left as it is, and further items go into another one."""


class Part(NamedTuple):
    """Items of a list, as the body of a map with their key."""

    key: str
    length: int
    body: bytes


class Notes(NamedTuple):
    """What is kept beside a snapshot in memory, whose items are bodies, not payloads.

    Attributes:
        parts: of its lists, in order.
        chain: how to continue from the last snapshot that is stored.
    """

    parts: Sequence[Part]
    chain: Chain


@dataclass(frozen=True, slots=True)
class Start:
    """The snapshot that loading began with, if it did: parts of lists, and the lists that were
    decoded from them.
    """

    parts: Mapping[str, Sequence[Part]] = field(default_factory=dict)
    lists: Mapping[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Iterable[Part], state: State) -> Start:
        """The start at a snapshot that was decoded to ``state``, whose lists have these parts."""
        parts = defaultdict(list)
        for part in found:
            parts[part.key].append(part)
        return cls(parts, lists_of(state.values))


class Decoded:
    """What a stored snapshot was decoded to: a value and a body for each of its payloads."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._found: list[tuple[Any, bytes]] = []

    def decode(self, payload: bytes) -> Any:
        """The value of the next payload: that of the state, then those of the lists' items."""
        self._found.append(self._core.bodies.decode(self._core.codec, payload))
        return self._found[-1][0]

    def parts(self) -> Iterator[Part]:
        """The parts of its lists."""
        pack = self._core.codec.pack
        for items, body in self._found[1:]:
            for key, new in items.items():
                own = body if len(items) == 1 else pack({key: new}, own=True)
                yield Part(key, len(new), own)


def is_due(cached: CachedLog) -> bool:
    """Whether a log gets a snapshot in memory when it is loaded: unless it is all in one already,
    or too large.
    """
    return not cached.is_large and (cached.notes is None or bool(cached.rows))


def snapshot_of(
    codec: Codec, fingerprint: str, state: State, start: Start
) -> tuple[Snapshot, Sequence[Part]] | None:
    """A settled state as a snapshot in memory, and the parts of its lists.

    ``None`` if it cannot be one: a reducer made something that cannot be stored.
    """
    lists = lists_of(state.values)
    rest = {key: value for key, value in state.values.items() if key not in lists}
    try:
        parts = [part for key in lists for part in _parts(codec, key, lists[key], start)]
        body = codec.pack(state_data(state, rest), own=True)
    except SerializationError:
        return None
    bodies = tuple(part.body for part in parts)
    return Snapshot(state.at, fingerprint, False, body, bodies), parts


def _parts(codec: Codec, key: str, items: list[Any], start: Start) -> list[Part]:
    """The parts of a list: those that it began with, as far as they are large, and a new one."""
    parts = list(start.parts.get(key, ()))
    if not parts or not begins_with(items, start.lists[key]):
        parts = []
    done = sum(part.length for part in parts)
    if parts and done == len(items):
        return parts
    if parts and len(parts[-1].body) < PART:
        done -= parts.pop().length
    new = items[done:]
    return [*parts, Part(key, len(new), codec.pack({key: new}, own=True))]
