"""What a thread of LangGraph consists of: checkpoints, their channels and writes. Pure.

Values stay as LangGraph's serializer made them. Owns the kinds and the keys of events; the bytes
inside an event are those of :mod:`~graph.langgraph.state.coding`.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from graph.langgraph.state.values import Value

CHECKPOINT: Final = 32
"""Kind of the event of a checkpoint. Numbers are stored: never change one."""

WRITES: Final = 33
"""Kind of the event of writes for a checkpoint."""

RESET: Final = 34
"""Kind of the event after which only what follows it belongs to the thread."""

NS, ID, PARENT, SIDE, REFS, REPLACE, WITH = "ns", "id", "parent", "side", "r", "replace", "w"
"""Fields of an event's data. Most events have none but the references and the body: what is the
same as for the current checkpoint, or said by the event's key, is left out. ``WITH``: the event of
a checkpoint also holds the writes for the one before."""

SEPARATOR: Final = "\x1f"
"""Between the parts of a key."""

MARK: Final = "="
"""In a key: what follows is the id as it is."""

_AFTER_SEPARATOR: Final = "\x20"

_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

CALL: Final = ":"
"""A namespace with this is that of one call of a subgraph, which ends with its superstep."""

Typed = tuple[str, bytes]
"""A serialized value: its type and its bytes."""

Version = str | int | float


class Channel(NamedTuple):
    """A channel at a checkpoint; ``value`` is ``None`` where it has a version and no value."""

    version: Version
    value: Value | None


class Write(NamedTuple):
    """A pending write; ``path`` is that of its task."""

    channel: str
    path: str
    type: str
    data: bytes


WriteKey = tuple[str, int]
"""A write's task, and its index in the task (negative for errors, interrupts and the like)."""

Writes = Mapping[WriteKey, Write]


class Batch(NamedTuple):
    """The writes of a task that were handed over together.

    Attributes:
        replaces: they replace earlier ones of the same keys.
    """

    task_id: str
    path: str
    writes: Sequence[tuple[WriteKey, Write]]
    replaces: bool = False


class PastWrite(NamedTuple):
    """A write to a channel whose value is not stored at the checkpoints after it."""

    task_id: str
    type: str
    data: bytes


class Past(NamedTuple):
    """What a channel without a value is made of: the last stored value and the writes since.

    Attributes:
        seed: ``None``: the writes start from nothing.
        writes: of all ancestors since, oldest first.
    """

    seed: Value | None
    writes: tuple[PastWrite, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint with everything that belongs to it.

    Attributes:
        id, parent: ids of checkpoints in the same namespace.
        head: the checkpoint without its channels' values, serialized.
        meta: its metadata, serialized.
        past: history of channels that have no value here (of a ``DeltaChannel``).
        is_side: it continues a branch that lost against another run; never the latest.
    """

    id: str
    parent: str | None
    head: Typed
    meta: Typed
    channels: Mapping[str, Channel]
    writes: Writes = field(default_factory=dict)
    past: Mapping[str, Past] = field(default_factory=dict)
    is_side: bool = False

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory."""
        channels = sum(each.value.size for each in self.channels.values() if each.value)
        writes = sum(len(each.data) for each in self.writes.values())
        past = sum(len(write.data) for each in self.past.values() for write in each.writes)
        return 500 + len(self.head[1]) + len(self.meta[1]) + channels + writes + past

    def with_history(self, writes: Writes, past: Mapping[str, Past]) -> Saved:
        """The same checkpoint with these writes and this past.

        Made at each superstep, and ``dataclasses.replace`` takes three times as long.
        """
        channels, is_side = self.channels, self.is_side
        return Saved(self.id, self.parent, self.head, self.meta, channels, writes, past, is_side)

    def writes_to(self, channel: str) -> tuple[PastWrite, ...]:
        """The writes to one channel, in the order in which a superstep applies them."""
        return tuple(
            PastWrite(task, write.type, write.data)
            for (task, _), write in ordered(self.writes)
            if write.channel == channel
        )


def ordered(writes: Writes) -> list[tuple[WriteKey, Write]]:
    """Writes in the order in which a superstep applies them: by task path, task and index."""
    if len(writes) < 2:
        return list(writes.items())
    return sorted(writes.items(), key=lambda item: (item[1].path, *item[0]))


def merged(old: Writes, new: Iterable[tuple[WriteKey, Write]], *, replace: bool) -> Writes:
    """Writes with new ones added; where both have a key the old one stays unless ``replace``."""
    result = dict(old)
    for key, write in new:
        if replace or key not in result:
            result[key] = write
    return result


def uuid_bytes(text: str) -> bytes | None:
    """The number of a UUID in its usual form; ``None``: it is no UUID, or of another form.

    As ``UUID(text).bytes``, at a third of the cost.
    """
    if not _UUID.fullmatch(text):
        return None
    return bytes.fromhex(text.replace("-", ""))


# --- keys -------------------------------------------------------------------------------


class Key(NamedTuple):
    """The key of an event, parsed."""

    ns: str
    id: str


def key_of(ns: str, checkpoint_id: str, seq: int | None = None) -> str:
    """The key of the first event of a checkpoint; with ``seq`` of a later one about it."""
    key = f"{ns}{SEPARATOR}{_short(checkpoint_id)}"
    return key if seq is None else f"{key}{SEPARATOR}{seq}"


def parsed(key: str) -> Key:
    """The parts of a key.

    Raises:
        ValueError: it is no such key.
    """
    ns, short, *_ = key.split(SEPARATOR)
    return Key(ns, _long(short))


def span(ns: str, checkpoint_id: str | None = None) -> tuple[str, str]:
    """The keys of a namespace or of one checkpoint: from the first text up to the second."""
    if checkpoint_id is None:
        return f"{ns}{SEPARATOR}", f"{ns}{_AFTER_SEPARATOR}"
    first = key_of(ns, checkpoint_id)
    return first, f"{first}{_AFTER_SEPARATOR}"


def _short(checkpoint_id: str) -> str:
    """An id as keys hold it: a UUID, as nearly all are, in 22 characters; any other marked."""
    number = uuid_bytes(checkpoint_id)
    if number is None:
        return MARK + checkpoint_id
    return urlsafe_b64encode(number).decode()[:-2]


def _long(short: str) -> str:
    if short.startswith(MARK):
        return short[len(MARK) :]
    return str(UUID(bytes=urlsafe_b64decode(short + "==")))


def enclosing(ns: str) -> list[str]:
    """The namespaces around one, the nearest first; the root is the last."""
    parts = ns.split("|") if ns else []
    return ["|".join(parts[:count]) for count in range(len(parts) - 1, -1, -1)]
