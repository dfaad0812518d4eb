"""What the events of a thread lead to: the newest checkpoints of each namespace.

``Fold`` applies events one after the other. It keeps, for each namespace, the checkpoints that
others may still continue, a few of them; older ones are read by folding up to their event. Pure:
it needs neither LangGraph nor the application's types, but the key if bodies are encrypted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore import FORK, ConfigurationError, CorruptEventError, RecordedEvent
from eventstore.codec.compression import DECODE_ERRORS
from graph.langgraph.state.coding import decode, decode_writes
from graph.langgraph.state.records import (
    CALL,
    CHECKPOINT,
    ID,
    NS,
    PARENT,
    REFS,
    REPLACE,
    RESET,
    SIDE,
    WITH,
    WRITES,
    Batch,
    Past,
    PastWrite,
    Saved,
    Writes,
    enclosing,
    merged,
    ordered,
    parsed,
)
from graph.langgraph.state.sealing import Seal

EARLY_MAX: Final = 32
"""Checkpoints yet to come whose writes are kept; those of runs that were killed never come."""

RECENT: Final = 8
"""Checkpoints of a namespace that are known by their ids although they are kept no more."""

LEAVES: Final = 4
"""Checkpoints kept of a namespace: the ends of its branches that were continued last."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """The newest checkpoints of a namespace.

    Attributes:
        leaves: by id, in the order in which they were put; the last one is *current*.
        latest: the greatest id of a checkpoint that is not on a side branch; of a call's
            namespace that was over for a while, only of those put since.
        recent: ids of those put last; snapshots do not hold them.
    """

    leaves: dict[str, Saved] = field(default_factory=dict)
    latest: str = ""
    recent: tuple[str, ...] = ()

    @property
    def current(self) -> Saved | None:
        """The checkpoint that was put last."""
        last = next(reversed(self.leaves), None)
        return None if last is None else self.leaves[last]

    @property
    def size(self) -> int:
        """About how many bytes its own checkpoints take in memory, what they share counted once."""
        current = self.current
        return 0 if current is None else current.size + 500 * len(self.leaves)


class Fold:
    """The state of a thread at a position of its log.

    Attributes:
        seal: opens the bodies of events.
        thread_id: what errors call the thread.
        spaces: by name, except namespaces of calls that are over.
        early: writes that came before their checkpoint, by namespace and id.
        late: namespaces in which writes came after a later checkpoint, and to which channels;
            ``None``: perhaps to any.
        top: the greatest id of all checkpoints.
        steps: how many checkpoints of the root there were.
        since: events up to this seq belong to the thread no more; 0: all do.
        is_copy: the log goes on from that of another thread.
    """

    def __init__(self, seal: Seal, thread_id: str | None = None) -> None:
        self.seal = seal
        self.thread_id = thread_id
        self._forget()

    def _forget(self) -> None:
        self.spaces: dict[str, Namespace] = {}
        self.early: dict[tuple[str, str], Writes] = {}
        self.late: dict[str, frozenset[str] | None] = {}
        self.top = ""
        self.steps = 0
        self.since = 0
        self.is_copy = False

    def copy(self, seal: Seal | None = None) -> Fold:
        """A fold to apply further events to; what it holds is shared, and never changed."""
        other = Fold.__new__(Fold)
        other.__dict__.update(self.__dict__)
        other.spaces, other.early, other.late = (
            self.spaces.copy(),
            self.early.copy(),
            self.late.copy(),
        )
        if seal is not None:
            other.seal = seal
        return other

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory."""
        return sum(space.size for space in self.spaces.values())

    def prior(self, ns: str, parent: str | None) -> tuple[Saved | None, bool]:
        """What a new checkpoint is stored as a difference to, and whether it inherits channels.

        The parent if it is known, else the last one there, else the one of the graph around.
        """
        space = self.spaces.get(ns)
        if space is not None and space.leaves:
            known = space.leaves.get(parent) if parent is not None else None
            return known or space.current, True
        for name in enclosing(ns):
            around = self.spaces.get(name)
            if around is not None and around.leaves:
                return around.current, False
        return None, False

    def apply(self, event: RecordedEvent) -> list[tuple[str, Saved]]:
        """Apply an event; the checkpoints, with their namespaces, that are current no more.

        Raises:
            CorruptEventError: it does not decode, or was not written by this package.
            ConfigurationError: it is encrypted, and the key is missing or another one.
        """
        try:
            if event.kind == CHECKPOINT:
                return self._checkpoint(event.data, event.key)
            if event.kind == WRITES:
                self._add_writes(event.data, event.key)
                return []
            if event.kind == RESET:
                return self.reset(event.seq)
        except ConfigurationError:
            raise
        except CorruptEventError as error:
            raise error.at(self.thread_id, event.ns, event.seq) from error
        except DECODE_ERRORS as error:
            raise CorruptEventError(
                f"the event does not fit those before it: {type(error).__name__}: {error!s:.200}"
            ).at(self.thread_id, event.ns, event.seq) from error
        if event.kind == FORK:
            self.is_copy = True
            return []
        raise CorruptEventError(
            f"an event of kind {event.kind} was not written by a saver for LangGraph"
        ).at(self.thread_id, event.ns, event.seq)

    def reset(self, seq: int) -> list[tuple[str, Saved]]:
        """Forget everything: the thread begins anew after the event at ``seq``."""
        closed = [(ns, last) for ns, space in self.spaces.items() if (last := space.current)]
        self._forget()
        self.since = seq
        return closed

    def _checkpoint(self, data: Mapping[str, Any], key: str | None) -> list[tuple[str, Saved]]:
        ns, name = parsed(key or "")
        parent = data[PARENT] if PARENT in data else self.current_id(ns)
        prior, inherits = self.prior(ns, parent)
        found = decode(
            data[REFS],
            self.seal.open(data),
            prior,
            place=(name, parent),
            inherits=inherits,
            is_side=data.get(SIDE, False),
            has_written=data.get(WITH, False),
        )
        for batch in found.written:
            self.add_writes(ns, parent or "", batch, early=False)
        return self.add(ns, found.saved if found.is_complete else self.completed(ns, found.saved))

    def current_id(self, ns: str) -> str | None:
        """Its id."""
        current = self.current(ns)
        return None if current is None else current.id

    def completed(self, ns: str, saved: Saved) -> Saved:
        """A new checkpoint with what events before it say: early writes, and its past."""
        space = self.spaces.get(ns, Namespace())
        early = self.early.get((ns, saved.id), {})
        known = space.leaves.get(saved.id)
        writes = merged(known.writes if known else {}, early.items(), replace=False)
        parent = space.leaves.get(saved.parent) if saved.parent is not None else None
        past = past_of(parent, saved) if parent is not None else {}
        return saved.with_history(writes, past) if writes or past else saved

    def add(self, ns: str, saved: Saved) -> list[tuple[str, Saved]]:
        """Make a checkpoint the current one of its namespace."""
        space = self.spaces.get(ns, Namespace())
        self.early.pop((ns, saved.id), None)
        leaves = {
            name: leaf
            for name, leaf in space.leaves.items()
            if name not in (saved.id, saved.parent)
        }
        closed = [(ns, space.current)] if space.current is not None else []
        latest = space.latest if saved.is_side else max(space.latest, saved.id)
        while len(leaves) >= LEAVES:
            del leaves[next(name for name in leaves if name != latest)]
        leaves[saved.id] = saved
        self.spaces[ns] = Namespace(leaves, latest, (*space.recent[1 - RECENT :], saved.id))
        self.top = max(self.top, saved.id)
        if not ns:
            self.steps += 1
            over = [name for name in self.spaces if CALL in name]
            closed += [(name, last) for name in over if (last := self.spaces[name].current)]
            for name in over:
                del self.spaces[name]
        return closed

    def _add_writes(self, data: Mapping[str, Any], key: str | None) -> None:
        if key is not None:
            ns, name = parsed(key)
        else:
            ns = data.get(NS, "")
            name = data[ID] if ID in data else self.current_id(ns) or ""
        self.add_writes(ns, name, self.writes_of(ns, data), early=ID in data)

    def writes_of(self, ns: str, data: Mapping[str, Any]) -> Batch:
        """The writes that the data of the next event hold."""
        prior = self.current(ns) if data[REFS] else None
        replaces = data.get(REPLACE, False)
        return decode_writes(data[REFS], self.seal.open(data), prior, replaces=replaces)

    def add_writes(self, ns: str, name: str, batch: Batch, *, early: bool) -> None:
        """Add writes for a checkpoint, which may be yet to come, or gone from here."""
        writes, replaces = batch.writes, batch.replaces
        leaf = self.leaf(ns, name)
        if leaf is not None:
            space, found = self.spaces[ns], merged(leaf.writes, writes, replace=replaces)
            leaves = {**space.leaves, name: leaf.with_history(found, leaf.past)}
            self.spaces[ns] = Namespace(leaves, space.latest, space.recent)
        elif early:
            before = self.early.pop((ns, name), {})
            self.early[ns, name] = merged(before, writes, replace=replaces)
            if len(self.early) > EARLY_MAX:
                del self.early[next(iter(self.early))]
        else:
            before_it = self.late.get(ns, frozenset())
            if before_it is not None:
                self.late[ns] = before_it | {write.channel for _, write in writes}

    def is_late(self, ns: str, channel: str) -> bool:
        """Whether writes to a channel came, or may have come, after a later checkpoint."""
        channels = self.late.get(ns, frozenset())
        return channels is None or channel in channels

    def leaf(self, ns: str, name: str) -> Saved | None:
        """A checkpoint, if it is one of those kept."""
        space = self.spaces.get(ns)
        return space.leaves.get(name) if space is not None else None

    def is_recent(self, ns: str, name: str) -> bool:
        """Whether a checkpoint was put lately, even if it is not kept."""
        space = self.spaces.get(ns)
        return space is not None and name in space.recent

    def current(self, ns: str) -> Saved | None:
        """The checkpoint of a namespace that was put last."""
        space = self.spaces.get(ns)
        return space.current if space is not None else None


def past_of(parent: Saved, saved: Saved) -> dict[str, Past]:
    """The histories of the channels that have no value at a checkpoint, from its parent."""
    found: dict[str, Past] = {}
    if all(channel.value is not None for channel in saved.channels.values()):
        return found
    written: dict[str, list[PastWrite]] = {}
    for (task, _), write in ordered(parent.writes):
        written.setdefault(write.channel, []).append(PastWrite(task, write.type, write.data))
    for name, channel in saved.channels.items():
        if channel.value is not None:
            continue
        writes = tuple(written.get(name, ()))
        before = parent.channels.get(name)
        if before is not None and before.value is not None:
            found[name] = Past(before.value, writes)
            continue
        past = parent.past.get(name, Past(None, ()))
        if past.seed is not None or past.writes or writes:
            found[name] = Past(past.seed, past.writes + writes)
    return found
