"""The logs of LangGraph's threads: reading them into folds, and appending to them.

A thread is one log, whatever namespaces LangGraph has in it. What was folded last is cached: a
reader compares the end of the log with the cached one and folds only what is new, and a writer
appends without reading, since an append to a log that has grown is refused and then made anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from eventstore import (
    FORK,
    CorruptEventError,
    Event,
    Head,
    Lineage,
    LineageMovedError,
    Position,
    Replay,
)
from eventstore.core.core import Core
from eventstore.core.read import Pages
from eventstore.models import RUNTIME, NewSnapshot, Prepared, RecordedEvent
from graph.langgraph.state import snapshots
from graph.langgraph.state.drafts import Draft, event_of
from graph.langgraph.state.fold import Fold
from graph.langgraph.state.records import Saved
from graph.langgraph.state.sealing import Seal

CACHE_BYTES: Final = 64 * 2**20
"""What the folds of the threads used last may take in memory."""

LOADED_BYTES: Final = 16 * 2**20
"""What earlier checkpoints of a thread that were read last may take in memory."""

LOADED_THREADS: Final = 4
"""Threads of which earlier checkpoints are kept."""

EVENTS_MAX: Final = 64
"""Events after which a snapshot is due."""

_OVERHEAD: Final = 1_000
_MEASURED_EVERY: Final = 8
"""Events after which it is looked how much memory a thread takes."""

_CHAIN_MAX: Final = 256
_CHAIN_SHARE: Final = 2

METADATA: Final = {RUNTIME: "langgraph"}
"""Marks a thread as one of LangGraph's."""


@dataclass(frozen=True, slots=True)
class Base:
    """The last snapshot of a log.

    Attributes:
        seq: where it is.
        fold: what it holds.
        chain: how many snapshots it rests on, and itself.
        size: bytes of all these.
        ratio: bytes of the first of them for each byte in memory of what it holds.
    """

    seq: int
    fold: Fold
    chain: int
    size: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Tip:
    """A thread as it was at the end of its log.

    Attributes:
        planned: how many events behind the end are yet to be appended; they cannot be read.
        lineage: what the log began with when its end was read; ``None``: look.
    """

    head: Head
    fold: Fold
    base: Base | None = None
    planned: int = 0
    lineage: Lineage | None = None

    @property
    def seq(self) -> int:
        """Of its last event, those included that are yet to be appended."""
        return self.head.seq + self.planned

    @property
    def position(self) -> Position:
        """Where the log ended."""
        return self.head.position


class Plan(NamedTuple):
    """What to append, and what it leads to."""

    events: Sequence[Draft]
    fold: Fold
    status: Any = None


class Creation(NamedTuple):
    """How a thread is made, if there is none yet.

    Attributes:
        metadata: what it can be searched for.
    """

    ttl: timedelta | None = None
    metadata: Mapping[str, Any] = METADATA


AS_USUAL: Final = Creation()


class Stretch(NamedTuple):
    """A part of a thread's history that is in one log: the events after ``after`` up to ``end``."""

    end: Position
    after: int


@dataclass(slots=True)
class _Cache:
    tips: OrderedDict[str, tuple[Tip, int]] = field(default_factory=OrderedDict)
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, thread_id: str) -> Tip | None:
        with self.lock:
            found = self.tips.get(thread_id)
            if found is None:
                return None
            self.tips.move_to_end(thread_id)
            return found[0]

    def put(self, thread_id: str, tip: Tip) -> None:
        before = self.tips.get(thread_id)
        if before is None or tip.seq // _MEASURED_EVERY > before[0].seq // _MEASURED_EVERY:
            size = _OVERHEAD + tip.fold.size
        else:
            size = before[1]
        with self.lock:
            self._drop(thread_id)
            self.tips[thread_id] = tip, size
            self.size += size
            while self.size > CACHE_BYTES and len(self.tips) > 1:
                self._drop(next(iter(self.tips)))

    def drop(self, thread_id: str) -> None:
        with self.lock:
            self._drop(thread_id)

    def _drop(self, thread_id: str) -> None:
        found = self.tips.pop(thread_id, None)
        self.size -= found[1] if found else 0


class Loaded:
    """Earlier checkpoints that were read last; they stay as they are until their thread grows.

    A reader of a history asks for its checkpoints one by one, and for the ancestors of each.
    Whether one is still there, and was not trimmed, the log has to say.
    """

    def __init__(self) -> None:
        self._threads: OrderedDict[tuple[bytes, Seal], dict[tuple[str, str], Saved]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, tip: Tip) -> dict[tuple[str, str], Saved]:
        """Those of a thread, by namespace and id; to be read only."""
        with self._lock:
            return self._threads.get((tip.head.digest, tip.fold.seal), {})

    def add(self, tip: Tip, found: Mapping[tuple[str, str], Saved]) -> None:
        """Keep these of a thread, and as many of those before as there is room for."""
        name = tip.head.digest, tip.fold.seal
        with self._lock:
            kept = dict(found)
            room = LOADED_BYTES - sum(saved.size for saved in kept.values())
            for place, saved in reversed(self._threads.pop(name, {}).items()):
                room -= saved.size
                if room < 0:
                    break
                kept.setdefault(place, saved)
            self._threads[name] = kept
            if len(self._threads) > LOADED_THREADS:
                self._threads.popitem(last=False)


class Logs:
    """The threads of LangGraph in a store; shared by all copies of a saver."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._cache = _Cache()
        self.loaded = Loaded()

    # --- reading ------------------------------------------------------------------------

    async def tip(self, thread_id: str, seal: Seal) -> Tip:
        """A thread at the end of its log; a thread that does not exist is empty."""
        head, lineage = await self.core.end(thread_id)
        cached = self._cache.get(thread_id)
        if cached is not None and cached.head.digest == head.digest:
            is_same = cached.fold.seal is seal
            fold = cached.fold if is_same else cached.fold.copy(seal)
            return Tip(head, fold, cached.base, lineage=lineage)
        if not head.exists:
            found = Tip(head, Fold(seal, thread_id))
            self._cache.put(thread_id, found)
            return found
        if cached is not None and cached.head.thread_key == head.thread_key:
            if cached.head.seq < head.seq:
                extended = await self._extended(cached, head, seal)
                if extended is not None:
                    self._cache.put(thread_id, extended)
                    return extended
        found = await self._load(thread_id, seal)
        self._cache.put(thread_id, found)
        return found

    async def _extended(self, cached: Tip, head: Head, seal: Seal) -> Tip | None:
        """A cached tip with the events since; ``None`` if the log must be read anew."""
        fold = cached.fold.copy(seal)
        digest = b""
        try:
            pages = await self.core.read_span(head.thread_id, cached.position, head.seq)
            async for event in flat(pages):
                if event.kind == FORK:
                    return None
                fold.apply(event)
                digest = event.digest
        except (CorruptEventError, LineageMovedError):
            return None  # reading it anew says what is wrong
        return Tip(head, fold, cached.base) if digest == head.digest else None

    async def _load(self, thread_id: str, seal: Seal) -> Tip:
        replay = await self.core.replay(thread_id, fingerprint=snapshots.FINGERPRINT)
        fold, base = self._start(replay, seal)
        async for event in flat(replay.events):
            fold.apply(event)
        return Tip(replay.head, fold, base)

    def _start(self, replay: Replay[Any], seal: Seal) -> tuple[Fold, Base | None]:
        found = replay.snapshot
        thread_id = replay.head.thread_id
        if found is None:
            return Fold(seal, thread_id), None
        first, fold = snapshots.decoded(found, self.core.codec, seal, thread_id)
        if found.position[:2] != replay.head.position[:2]:
            return fold.copy(), None
        size, ratio = sum(map(len, found.items)), _ratio(found.items[0], first)
        return fold.copy(), Base(found.position.seq, fold, len(found.items), size, ratio)

    async def replay(
        self, thread_id: str, upto: Position, seal: Seal
    ) -> tuple[Fold, Position | None, AsyncIterator[RecordedEvent]]:
        """The fold at the nearest snapshot, where that is, and the events from there."""
        replay = await self.core.replay(thread_id, upto=upto, fingerprint=snapshots.FINGERPRINT)
        fold, _ = self._start(replay, seal)
        start = replay.snapshot.position if replay.snapshot is not None else None
        return fold, start, flat(replay.events)

    async def fold_at(self, thread_id: str, at: Position, seal: Seal) -> Fold:
        """The fold at a position of the thread's history."""
        fold, _, events = await self.replay(thread_id, at, seal)
        async for event in events:
            fold.apply(event)
        return fold

    async def history(self, tip: Tip) -> tuple[list[Stretch], Position | None]:
        """The logs that a thread's history runs through, the newest first, and its base.

        The base is where the history begins if it was trimmed.
        """
        at, since = tip.position, tip.fold.since
        found: list[Stretch] = []
        while True:
            known = tip.lineage if at == tip.position else None
            lineage = known or await self.core.lineage(at)
            found.append(Stretch(at, max(lineage.first - 1, since)))
            if since or lineage.source is None:
                is_cut = lineage.base is not None and lineage.base.seq >= since
                return found, lineage.base if is_cut else None
            at = lineage.source

    def known(self, thread_id: str) -> Tip | None:
        """A thread as it was known last, if it is at hand."""
        return self._cache.get(thread_id)

    # --- appending ----------------------------------------------------------------------

    async def writing_tip(self, thread_id: str, seal: Seal) -> Tip:
        """A thread at the end of its log as it was known last, which an append may find grown."""
        cached = self._cache.get(thread_id)
        if cached is not None and cached.fold.seal is seal:
            return cached
        return await self.tip(thread_id, seal)

    async def append(self, tip: Tip, plan: Plan, creation: Creation) -> Tip:
        """Append to a thread that ends at ``tip``; its new end.

        Raises:
            ConcurrencyError, DuplicateKeyError, ThreadNotFoundError: it ends elsewhere by now.
        """
        fold, seq = plan.fold, tip.head.seq + len(plan.events)
        base, snapshot = tip.base, None
        if seq // EVENTS_MAX > tip.head.seq // EVENTS_MAX:
            base, snapshot = self._snapshot(tip, fold, seq)
        head = await self.core.append_after(
            tip.head,
            self._packed(map(event_of, plan.events)),
            status=plan.status,
            metadata=creation.metadata,
            ttl=creation.ttl,
            snapshot=snapshot,
        )
        new = Tip(head, fold, base)
        self._cache.put(tip.head.thread_id, new)
        return new

    def _packed(self, events: Iterable[Event]) -> list[Prepared]:
        """Events as they are stored: what they hold is compressed already, or encrypted."""
        pack, now = self.core.codec.pack, self.core.now_us()
        return [
            Prepared(each.kind, pack(each.data), now, each.key, is_compressed=True)
            for each in events
        ]

    def _snapshot(self, tip: Tip, fold: Fold, seq: int) -> tuple[Base, NewSnapshot]:
        """A snapshot that rests on the last one, or is complete if that is the smaller."""
        base = tip.base
        if base is not None and (
            base.chain >= _CHAIN_MAX or base.size > _CHAIN_SHARE * base.ratio * fold.size
        ):
            base = None
        items = snapshots.encoded(fold, base.fold if base is not None else None, self.core.codec)
        rests_on = base.seq if base is not None else None
        taken = NewSnapshot(
            snapshots.FINGERPRINT, self.core.codec.encode(None), items, rests_on, fold.steps
        )
        if base is None:
            return Base(seq, fold, 1, len(items), _ratio(items, fold)), taken
        return Base(seq, fold, base.chain + 1, base.size + len(items), base.ratio), taken

    def forget(self, thread_id: str) -> None:
        """Drop a thread from the cache."""
        self._cache.drop(thread_id)


def _ratio(items: bytes, fold: Fold) -> float:
    return len(items) / max(1, fold.size)


async def flat(pages: Pages) -> AsyncIterator[RecordedEvent]:
    """The events of pages."""
    async with aclosing(pages) as found:
        async for page in found:
            for event in page:
                yield event
