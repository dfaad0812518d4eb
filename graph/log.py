"""A graph's threads on an event store: where a config points, and how a run is recorded.

Owns the text of checkpoint ids, the meaning of ``thread_id`` and ``checkpoint_id``
together (this thread's head, its past, or another thread's), and :class:`Journal`: the
state of one run, kept equal to the log by folding exactly what is appended. Nothing else
in this package calls the store to write.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol

from eventstore import Event, Fork, Head, LineageMovedError, Position, Replay
from eventstore.chain import prefix_ns
from eventstore.core import Core
from eventstore.events import Status
from eventstore.reading import Pages
from graph.errors import InvalidConfigError
from graph.events import Data, Kind
from graph.fold import NOWHERE, Fold, State, checkpoint_id, initial
from graph.schema import Channel
from graph.snapshots import SnapshotTaker, load

_CHECKPOINT_ID: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{10})")

MOVES_MAX: Final = 5
"""Ancestors that may be deleted, one after the other, while a fork is loaded once."""

Draft = tuple[Kind, Data]


def thread_id_of(config: Mapping[str, Any]) -> str:
    """The thread that a config names.

    Raises:
        InvalidConfigError: it names none.
    """
    given = config.get("configurable", {}).get("thread_id")
    if given is None or given == "":
        raise InvalidConfigError(
            "a graph with a checkpointer needs to know which thread this is: pass "
            "config={'configurable': {'thread_id': '…'}}"
        )
    return str(given)


def position_of(config: Mapping[str, Any]) -> Position | None:
    """The checkpoint that a config names, if it names one.

    Raises:
        InvalidConfigError: its ``checkpoint_id`` is not one of ours.
    """
    place = config.get("configurable", {})
    given = place.get("checkpoint_id")
    if not given:
        return None
    match = _CHECKPOINT_ID.fullmatch(str(given))
    if match is None:
        raise InvalidConfigError(
            f"{given!r} is not a checkpoint_id of this library; take it from "
            "get_state(config).config or get_state_history(config)"
        )
    return Position(int(match[1], 16), place.get("checkpoint_ns", ""), int(match[2], 16))


class Journal(Protocol):
    """Where a run's events go; ``state`` is always the fold of what was recorded."""

    state: State

    @property
    def busy_at(self) -> int | None:
        """The seq at which another run was under way when this was opened; ``None``: none was."""

    async def record(self, drafts: Sequence[Draft], stops: Callable[[State], bool]) -> State:
        """Record events, all or nothing, and return the state after them."""

    async def branch(self, stops: Callable[[State], bool]) -> None:
        """Record by itself that the run goes on from the past, if that is so."""


class NoJournal:
    """The journal of a graph without a checkpointer: the fold alone, nothing stored."""

    def __init__(self, channels: Mapping[str, Channel], now_us: Callable[[], int]) -> None:
        self._channels = channels
        self._now_us = now_us
        self.state = initial(channels)
        self.busy_at = None

    async def record(self, drafts: Sequence[Draft], stops: Callable[[State], bool]) -> State:
        """Fold the events."""
        folding = Fold(self._channels, self.state)
        now = self._now_us()
        for seq, (kind, data) in enumerate(drafts, self.state.at.seq + 1):
            folding.feed(kind, data, NOWHERE._replace(seq=seq), now)
        self.state = folding.state()
        return self.state

    async def branch(self, stops: Callable[[State], bool]) -> None:
        """There is no past to go on from."""


class LogJournal:
    """The journal of one run on one thread: appends, and folds what it appended."""

    def __init__(
        self,
        log: ThreadLog,
        head: Head,
        state: State,
        taker: SnapshotTaker,
        *,
        fork_from: Position | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._log = log
        self._head = head
        self._taker = taker
        self._fork_from = fork_from
        self._metadata = metadata or {}
        self.state = state
        self.busy_at = head.seq if head.status == "running" else None

    async def record(self, drafts: Sequence[Draft], stops: Callable[[State], bool]) -> State:
        """Append the events in one transaction, with a fork before them if we left the past.

        Raises:
            ConcurrencyError: another writer was first; nothing was stored.
            SerializationError: a value cannot be stored; nothing was.
        """
        events: list[Event | Fork] = [Event(int(kind), data) for kind, data in drafts]
        if self._fork_from is not None:
            events.insert(0, Fork(self._fork_from))
        now = self._log.core.now_us()
        state, complete = self._fold(drafts, self._head, now)
        # A parent in another log may move with it; one of ours stays where it is.
        local = state.parent is None or state.parent[:2] == state.at[:2]
        settled = complete and not state.pending and local
        snapshot = self._taker.take(state) if settled else None
        head = await self._log.core.append_after(
            self._head,
            events,
            status=status_of(state, stops),
            metadata=self._metadata,
            snapshot=snapshot,
            now_us=now,
        )
        if head.thread_key != self._head.thread_key:  # its first choice of key was taken
            state, _ = self._fold(drafts, replace(head, seq=self._head.seq), now)
        if snapshot is None:
            self._taker.saw(head.written, len(events))
        self._head, self._fork_from, self.state = head, None, state
        return state

    async def branch(self, stops: Callable[[State], bool]) -> None:
        """Append the fork alone, so that the thread stands where the caller went back to."""
        if self._fork_from is not None:
            await self.record([], stops)

    def _fold(self, drafts: Sequence[Draft], head: Head, now: int) -> tuple[State, bool]:
        folding = Fold(self._log.channels, self.state)
        at = head.position
        if self._fork_from is not None:
            at = at._replace(seq=at.seq + 1)
            folding.feed(Kind.FORK, {}, at, now)
        complete = not drafts
        for kind, data in drafts:
            at = at._replace(seq=at.seq + 1)
            complete = folding.feed(kind, data, at, now) or complete
        return folding.state(), complete


def status_of(state: State, stops: Callable[[State], bool]) -> Status:
    """What the thread's row says of a run that has come to ``state``."""
    if state.errors:
        return "failed"
    if not state.frontier:
        return "idle"
    return "waiting" if not state.pending and stops(state) else "running"


class ThreadLog:
    """Threads of one graph in one event store."""

    def __init__(self, core: Core, channels: Mapping[str, Channel], version: str | None) -> None:
        self.core = core
        self.channels = channels
        parts = [f"{name}={channels[name].fingerprint}" for name in sorted(channels)]
        text = "\n".join([version or "", *parts])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=9).hexdigest()

    async def open(self, config: Mapping[str, Any]) -> LogJournal:
        """The journal of a run that goes on where ``config`` points.

        The head of a thread goes on as it stands, finished tasks included. An older
        checkpoint, or one of another thread for a thread that is new, goes on by a fork.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not belong to it.
        """
        thread_id = thread_id_of(config)
        metadata = _json_only(config.get("metadata") or {})
        at = await self._resolve(thread_id, position_of(config))
        if at is None or (await self.core.head(thread_id)).position[:2] == at[:2]:
            replay, state, taker = await self.load(thread_id, None)
            if at is None or state.checkpoint == at:
                return LogJournal(self, replay.head, state, taker, metadata=metadata)
        replay, state, taker = await self.load(thread_id, at)
        return LogJournal(self, replay.head, state, taker, fork_from=at, metadata=metadata)

    async def read(self, config: Mapping[str, Any]) -> tuple[str, State, bool]:
        """The state where ``config`` points, without writing.

        Returns:
            The thread, the state, and whether that is the state in which it now stands.
        """
        thread_id = thread_id_of(config)
        at = await self._resolve(thread_id, position_of(config))
        replay, state, _ = await self.load(thread_id, at)
        if at is not None and state.checkpoint != at:
            raise InvalidConfigError(
                f"{checkpoint_id(at)} is no checkpoint of thread {thread_id!r}: there a "
                "superstep was under way. Take ids from get_state_history(config)."
            )
        return thread_id, state, replay.position == replay.head.position

    async def _resolve(self, thread_id: str, at: Position | None) -> Position | None:
        """The position meant by a checkpoint id; ``None``: the thread as it now stands.

        A foreign id on a thread that was forked from there names the origin, and so means
        the branch itself, wherever it stands by now.
        """
        if at is None:
            return None
        head = await self.core.head(thread_id)
        if not head.exists or at.thread_key == head.thread_key:
            return at
        if await self.origin(head) == at:
            return None
        kept = (head.thread_key, prefix_ns(at.thread_key, at.ns))
        async with aclosing(self.lineage(head.position)) as steps:
            async for step in steps:
                if step[:2] in (at[:2], kept) and at.seq <= step.seq:
                    return at._replace(thread_key=step.thread_key, ns=step.ns)
        owner = await self.core.thread_at(at.thread_key)
        named = f"thread {owner.thread_id!r}" if owner else "a thread that is not there"
        raise InvalidConfigError(
            f"the checkpoint {checkpoint_id(at)} belongs to {named}, and thread {thread_id!r} "
            "exists and was not forked from it. To branch from that checkpoint, choose a "
            "thread_id that is new."
        )

    async def load(
        self, thread_id: str, at: Position | None
    ) -> tuple[Replay[Pages], State, SnapshotTaker]:
        """The state at a position of a thread's lineage, or (``None``) as the thread stands."""
        for _ in range(MOVES_MAX):
            replay = await self.core.replay(
                thread_id, upto=at, fingerprint=self.fingerprint, cached=at is None
            )
            try:
                state, taker = await self.fold(replay)
            except LineageMovedError:
                continue  # an ancestor was deleted while we read; its part is ours now
            self.core.remember(replay)
            return replay, state, taker
        raise LineageMovedError(thread_id)

    async def fold(self, replay: Replay[Pages]) -> tuple[State, SnapshotTaker]:
        """The state that a replay leads to, and a taker that goes on from there."""
        taker = SnapshotTaker(self.core.codec, self.fingerprint)
        start = None
        if replay.snapshot is not None:
            start, chained = load(self.core.codec, replay.snapshot)
            at = replay.snapshot.position
            if (at.thread_key, at.ns) == (replay.head.thread_key, replay.head.ns):
                taker.resume(replay.snapshot, start, chained)
        folding = Fold(self.channels, start)
        async with aclosing(replay.events) as pages:
            async for page in pages:
                for event in page:
                    folding.feed(event.kind, event.data, event.position, event.recorded_us)
                    taker.saw(event.size)
        return folding.state(), taker

    async def origin(self, head: Head) -> Position | None:
        """The foreign position that a thread was forked from when it was made."""
        if not head.exists or head.seq == 0:
            return None
        start = Position(head.thread_key, head.ns, 0)
        async with aclosing(await self.core.read_span(head.thread_id, start, 1)) as pages:
            async for page in pages:
                for first in page:
                    return Position(*first.data["source"]) if first.kind == Kind.FORK else None
        return None

    async def lineage(self, at: Position) -> AsyncGenerator[Position, None]:
        """The ends of the runs of events that lead to a position, newest first."""
        here: Position | None = at
        while here is not None:
            yield here
            here = (await self.core.lineage(here)).source


def _json_only(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of the caller's metadata can be searched for in the threads' list."""
    plain = str | int | float | bool
    return {key: value for key, value in metadata.items() if isinstance(value, plain)}
