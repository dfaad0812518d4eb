"""Snapshots in memory: the states at the ends of the logs that were loaded last.

Owns how such a snapshot is made from the one that loading began with: of a list that has grown,
only the new items are packed, of other values those that were written. A snapshot holds bytes,
packed before anybody else could see the values: so code that changes values in place cannot change
what is loaded. It is never stored, and the log cache of the store bounds what is kept.

A run makes one of its end from what it records, if nothing in its values can come from what a node
changed in place. Otherwise the next load makes it, from the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eventstore import Codec, Head, SerializationError, Snapshot
from eventstore.cache import CachedLog, Live
from eventstore.core.core import Core
from graph.build.channels import MISSING, Channel
from graph.run.snapshots import Chain, SnapshotTaker, begins_with, state_data, state_of
from graph.state.state import State

PART: Final = 16 * 1024
"""Bytes from which a part of a list is left as it is, and further items go into another one."""

SMALL_MAX: Final = 16
"""How many smaller parts the end of a list may have before a load packs them together."""

_IMMUTABLE: Final = frozenset((type(MISSING), type(None), bool, int, float, str, bytes))


class Part(NamedTuple):
    """A value, or items of a list, as the body of a map with their key.

    Attributes:
        length: the number of items; ``None``: it is a whole value.
    """

    key: str
    length: int | None
    body: bytes


class Notes(NamedTuple):
    """What is kept beside a snapshot in memory.

    Attributes:
        parts: of its values, in order; their bodies are the items of the snapshot.
        chain: how to continue from the last snapshot that is stored.
    """

    parts: Sequence[Part]
    chain: Chain


@dataclass(frozen=True, slots=True)
class Packed:
    """Values of a state, and what they were packed to.

    Attributes:
        values: by key; the lists are copies, because a reducer of the application may extend its
            list in place.
        parts: those of each key, in order. A value without any is not packed yet.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Iterable[Part], state: State) -> Packed:
        """The values of ``state``, some of which were decoded from these parts."""
        parts: defaultdict[str, list[Part]] = defaultdict(list)
        for part in found:
            parts[part.key].append(part)
        return cls(copied(state.values), {key: tuple(each) for key, each in parts.items()})

    def followed(
        self, codec: Codec, state: State, channels: Mapping[str, Channel] | None = None
    ) -> Packed | None:
        """The values of a later state, of which only what is new is packed.

        Args:
            channels: of the values, if nodes have seen those before; ``None``: nobody has.

        Returns:
            ``None`` if something new may come from what a node changed in place.

        Raises:
            SerializationError: a reducer made something that cannot be stored.
        """
        values, parts = copied(state.values), {}
        for key, value in values.items():
            known, old = self.parts.get(key, ()), self.values.get(key, MISSING)
            channel = None if channels is None else channels.get(key)
            is_merged = channel is not None and channel.reducer is not None
            if type(value) is type(old) is list and begins_with(value, old):
                appends = channel is None or not is_merged or channel.concatenates
                if len(value) > len(old) and not appends:
                    return None
                parts[key] = _parts_of_list(codec, key, value, known, merges=channels is None)
            elif known and value is old:
                parts[key] = known
            elif is_merged and type(old) not in _IMMUTABLE:
                return None
            elif type(value) is list:
                parts[key] = _parts_of_list(codec, key, value, ())
            else:
                parts[key] = (Part(key, None, codec.pack({key: value}, own=True)),)
        return Packed(values, parts)

    def snapshot(
        self, codec: Codec, fingerprint: str, state: State, chain: Chain
    ) -> tuple[Snapshot, Notes]:
        """A snapshot of the state that has these values, and what is kept beside it.

        Raises:
            SerializationError: its metadata cannot be stored.
        """
        parts = [part for parts in self.parts.values() for part in parts]
        body = codec.pack(state_data(state, {}), own=True)
        items = tuple([part.body for part in parts])
        return Snapshot(state.at, fingerprint, False, body, items), Notes(parts, chain)


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with copies of the lists."""
    return {key: each.copy() if type(each) is list else each for key, each in values.items()}


def _parts_of_list(
    codec: Codec, key: str, items: list[Any], known: tuple[Part, ...], merges: bool = False
) -> tuple[Part, ...]:
    """The parts of a list: those that it begins with, and one of the items after them.

    Args:
        merges: pack the small parts at the end together.
    """
    while merges and known and len(known[-1].body) < PART:
        known = known[:-1]
    new = items[sum(part.length or 0 for part in known) :]
    if known and not new:
        return known
    return (*known, Part(key, len(new), codec.pack({key: new}, own=True)))


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
        """The parts of its lists that only grow."""
        pack = self._core.codec.pack
        for items, body in self._found[1:]:
            for key, new in items.items():
                own = body if len(items) == 1 else pack({key: new}, own=True)
                yield Part(key, len(new), own)


def load(unpack: Callable[[bytes], Any], snapshot: Snapshot, parts: Sequence[Part]) -> State:
    """The state of a snapshot in memory, of new objects."""
    values: dict[str, Any] = {}
    for key, length, body in parts:
        value = unpack(body)[key]
        if length is None or key not in values:
            values[key] = value
        else:
            values[key] += value
    data = unpack(snapshot.state)
    return state_of({**data, "values": values}, snapshot.position)


def is_due(cached: CachedLog) -> bool:
    """Whether a log gets a snapshot in memory when it is loaded: unless it is all in one already,
    of few parts, or too large.
    """
    notes: Notes | None = cached.notes
    if cached.is_large:
        return False
    if notes is None or cached.rows:
        return True
    small = [key for key, length, body in notes.parts if length is not None and len(body) < PART]
    return len(small) > SMALL_MAX and max(Counter(small).values()) > SMALL_MAX


class Kept(NamedTuple):
    """The state at the end of a run, as the run had it, for the next run of a graph that reuses it.

    Attributes:
        chain: how to continue from the last snapshot that is stored.
        uses: how many runs in turn had it from memory.
        size: of the values, packed.
    """

    state: State
    chain: Chain
    uses: int
    size: int


def kept_of(cached: CachedLog) -> Kept | None:
    """The state that a run of a graph that reuses it has kept of the end of a log."""
    live = cached.live
    if live is None or live.digest != cached.digest or not cached.was_found:
        return None
    kept: Kept = live.content
    return kept


class Recorded:
    """The values of a run, as bytes of what it recorded: for a snapshot in memory of its end.

    Args:
        packed: those that the run began with; ``None``: they are not known.
    """

    def __init__(
        self,
        core: Core,
        channels: Mapping[str, Channel],
        fingerprint: str,
        packed: Packed | None,
    ) -> None:
        self._core = core
        self._channels = channels
        self._fingerprint = fingerprint
        self._packed = packed
        self._uses: int | None = None
        self._size = 0

    def reuses(self, uses: int, size: int) -> None:
        """Keep the state, too, as the run has it.

        Args:
            uses: how many runs in turn had it from memory.
            size: of the values that the run began with, packed.
        """
        self._uses, self._size = uses, size

    def follow(self, before: State, after: State, bodies: Iterable[bytes]) -> None:
        """Pack what events wrote, before anybody sees it; ``bodies`` are those of the events."""
        if self._uses is not None:
            self._size += sum(map(len, bodies))
        packed, self._packed = self._packed, None
        if packed is None or before.interrupts or before.errors:
            return
        with suppress(SerializationError):
            self._packed = packed.followed(self._core.codec, after, self._channels)

    def keep(
        self, before: Head, end: Head, state: State, taker: SnapshotTaker, is_stored: bool
    ) -> None:
        """Let the log cache begin at the end of a run, which nobody needs to fold again.

        Args:
            before, end: where the log ended before the last append, and after it.
            is_stored: that append stored a snapshot.
        """
        packed, uses, chain = self._packed, self._uses, taker.chain(state)
        if packed is not None and state.stays and state.above is None and _is_flat(state.metadata):
            with suppress(SerializationError):
                codec, fingerprint = self._core.codec, self._fingerprint
                snapshot, notes = packed.snapshot(codec, fingerprint, state, chain)
                self._core.cache.start_at(before, end, snapshot, notes, is_stored)
                self._size = sum(map(len, snapshot.items))
        if uses is not None and not taker.has_other_values:
            kept = Kept(state, chain, uses + 1, self._size)
            self._core.cache.keep(end, Live(end.digest, kept, self._size))


def _is_flat(values: Mapping[str, Any]) -> bool:
    """Whether nothing in it can be changed in place."""
    return all(type(value) in _IMMUTABLE for value in values.values())
