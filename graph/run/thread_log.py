"""A graph's threads on an event store: where a config points.

Owns the text of checkpoint ids, and the meaning of ``thread_id`` and ``checkpoint_id``
together: this thread's head, its past, or another thread's. Reads states; what is written is
written by the journal that it opens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from eventstore import Head, LineageMovedError, Position, PositionNotFoundError, Replay
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX, Pages
from eventstore.format.digests import origin, prefix_ns
from eventstore.limits import TTL_MAX
from graph.build.schema import Channel
from graph.errors import InvalidConfigError
from graph.run.journal import LogJournal, Means
from graph.run.metadata import RunMetadata
from graph.run.snapshots import Failures, SnapshotTaker, load
from graph.state.events import Kind
from graph.state.fold import Fold, State, checkpoint_id

_CHECKPOINT_ID: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{10})")


def thread_id_of(config: Mapping[str, Any]) -> str:
    """The thread that a config names.

    Raises:
        InvalidConfigError: it names none.
    """
    given = config.get("configurable", {}).get("thread_id")
    if given is None or given == "":
        raise InvalidConfigError(
            "a graph with a checkpointer needs a thread_id; pass "
            "config={'configurable': {'thread_id': '…'}}"
        )
    if isinstance(given, bytes | bool | float):  # as text they would be another name
        raise InvalidConfigError(
            f"a thread_id must be text, a whole number or a UUID, not {type(given).__name__}"
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
    return Position(int(match[1], 16), place.get("checkpoint_ns") or "", int(match[2], 16))


def ns_of(config: Mapping[str, Any]) -> str:
    """The log that a config names: the root's, or that of a subgraph."""
    given = config.get("configurable", {}).get("checkpoint_ns") or ""
    return origin(0, str(given))[1]  # what a fork was given of another log counts as that log


def ttl_of(config: Mapping[str, Any]) -> timedelta | None:
    """How long a config wants its thread to be kept after its last event, if it says so.

    Raises:
        InvalidConfigError: it is no time.
    """
    ttl = config.get("configurable", {}).get("ttl")
    if ttl is None:
        return None
    try:
        found = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidConfigError(f"ttl must be seconds or a timedelta, not {ttl!r:.80}") from error
    if not timedelta(0) <= found <= TTL_MAX:
        raise InvalidConfigError(
            f"ttl must not be negative or longer than {TTL_MAX.days} days, not {ttl!r:.80}"
        )
    return found


class ThreadLog:
    """Threads of one graph in one event store."""

    def __init__(
        self,
        core: Core,
        channels: Mapping[str, Channel],
        version: str | None,
        snapshot_each_run: bool = False,
    ) -> None:
        self.core = core
        self.channels = channels
        self._each_run = snapshot_each_run
        self._failures = Failures()
        self.metadata = RunMetadata(core.codec)
        parts = [f"{name}={channels[name].fingerprint}" for name in sorted(channels)]
        text = "\n".join([version or "", *parts])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=9).hexdigest()

    async def open(
        self, config: Mapping[str, Any], means: Means, answers: bool = False
    ) -> LogJournal:
        """The journal of a run that goes on where ``config`` points.

        The head of a thread goes on as it stands, finished tasks included. An older
        checkpoint, or one of another thread for a thread that is new, goes on by a fork.

        Args:
            answers: the run answers questions; where none is left at the head, those of the
                checkpoint are meant, and its answers are given anew.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not belong to it.
        """
        thread_id, ns = thread_id_of(config), ns_of(config)
        metadata = self.metadata.searchable(config)
        ttl = ttl_of(config)
        at = await self.resolve(thread_id, position_of(config))
        if at is None or (await self.core.head(thread_id, ns)).position[:2] == at[:2]:
            journal = await self.open_end(thread_id, ns, means, metadata, ttl)
            state = journal.state
            anew = answers and at != state.at and not state.interrupts
            if at is None or (state.checkpoint == at and not anew):
                return journal
        at, replay, state, taker = await self.load_named(thread_id, position_of(config), at, ns)
        return self._journal(replay, state, taker, means, metadata, ttl, fork_from=at)

    async def open_end(
        self,
        thread_id: str,
        ns: str,
        means: Means,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
    ) -> LogJournal:
        """The journal of a run that goes on where a log ends."""
        replay, state, taker = await self.load(thread_id, None, ns)
        return self._journal(replay, state, taker, means, metadata, ttl)

    async def ended(self, journal: LogJournal, call: str) -> LogJournal:
        """A journal for reading the log of a graph that remembers as of an earlier call."""
        state = journal.earlier.get(call)
        if state is None:
            at = await self.resolve(journal.thread_id, journal.state.ended[call], journal.at.ns)
            _, state, _ = await self.load(journal.thread_id, at, journal.at.ns)
        return journal.as_of(state)

    async def open_at(
        self,
        thread_id: str,
        at: Position,
        logs: Mapping[int, Mapping[str, int]],
        means: Means,
        ns: str = "",
    ) -> LogJournal:
        """The journal of a run that goes back to a position, with the logs of its tasks' subgraphs
        as they stood at these places.
        """
        replay, state, taker = await self.load(thread_id, at, ns)
        return self._journal(replay, replace(state, logs=logs), taker, means, fork_from=at)

    def _journal(
        self,
        replay: Replay[Pages],
        state: State,
        taker: SnapshotTaker,
        means: Means,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        fork_from: Position | None = None,
    ) -> LogJournal:
        return LogJournal(
            self.core,
            self.channels,
            replay.head,
            state,
            taker,
            means,
            fork_from=fork_from,
            metadata=metadata,
            ttl=ttl,
        )

    async def read(self, config: Mapping[str, Any]) -> tuple[str, State, bool]:
        """The state where ``config`` points, without writing.

        Returns:
            The thread, the state, and whether that is the state in which it now stands.
        """
        thread_id, ns = thread_id_of(config), ns_of(config)
        named = position_of(config)
        at = await self.resolve(thread_id, named)
        at, replay, state, _ = await self.load_named(thread_id, named, at, ns)
        if at is not None and state.checkpoint != at:
            raise InvalidConfigError(
                f"{checkpoint_id(at)} is not a checkpoint of thread {thread_id!r}, but within a "
                "superstep; take ids from get_state_history(config)"
            )
        return thread_id, state, replay.position == replay.head.position

    async def resolve(
        self, thread_id: str, at: Position | None, ns: str | None = None
    ) -> Position | None:
        """The position meant by a checkpoint id; ``None``: the thread as it now stands.

        A foreign id on a thread that was forked from there names the origin, and so means
        the branch itself, wherever it stands by now.
        """
        if at is None:
            return None
        ns = origin(at.thread_key, at.ns)[1] if ns is None else ns
        head = await self.core.head(thread_id, ns)
        if not head.exists or at.thread_key == head.thread_key:
            return at
        if not ns and await self.origin(head) == at:
            return None
        kept = (head.thread_key, prefix_ns(at.thread_key, at.ns))
        async with aclosing(self.lineage(head.position)) as steps:
            async for step in steps:
                if step[:2] in (at[:2], kept) and at.seq <= step.seq:
                    return at._replace(thread_key=step.thread_key, ns=step.ns)
        beginning = await self.beginning(thread_id)
        trimmed = (
            f"; its history begins at seq {beginning.seq}, and what was before was trimmed"
            if beginning is not None
            else ""
        )
        owner = await self.core.thread_at(at.thread_key)
        named = f"thread {owner.thread_id!r}" if owner else "a thread that is not there"
        raise InvalidConfigError(
            f"the checkpoint {checkpoint_id(at)} belongs to {named}, and thread {thread_id!r} "
            f"exists and was not forked from it{trimmed}; to branch from that checkpoint, choose a "
            "new thread_id"
        )

    async def load_named(
        self, thread_id: str, named: Position | None, at: Position | None, ns: str
    ) -> tuple[Position | None, Replay[Pages], State, SnapshotTaker]:
        """The state at a position, which a checkpoint id was found to mean; and the position.

        That may be another one by now: in what the thread, a fork, was given of the other.
        """
        try:
            return at, *await self.load(thread_id, at, ns)
        except PositionNotFoundError:
            now = await self.resolve(thread_id, named)
            if now == at:
                raise
            return now, *await self.load(thread_id, now, ns)

    async def load(
        self, thread_id: str, at: Position | None, ns: str = "", snapshots: bool = True
    ) -> tuple[Replay[Pages], State, SnapshotTaker]:
        """The state at a position of a thread's lineage, or (``None``) as the thread stands."""
        for _ in range(MOVES_MAX):
            replay = await self.core.replay(
                thread_id, ns, at, self.fingerprint, snapshots, cached=at is None and snapshots
            )
            try:
                state, taker = await self.fold(replay)
            except LineageMovedError:
                continue  # an ancestor was deleted or trimmed while we read; its part is ours now
            self.core.cache_replay(replay)
            return replay, state, taker
        raise LineageMovedError(thread_id)

    def taker(self) -> SnapshotTaker:
        """Makes the snapshots of a log that has none yet."""
        return SnapshotTaker(
            self.core.codec, self.fingerprint, self._failures, each_run=self._each_run
        )

    async def fold(self, replay: Replay[Pages]) -> tuple[State, SnapshotTaker]:
        """The state that a replay leads to, and a taker that goes on from there."""
        taker = self.taker()
        start = None
        if replay.snapshot is not None:
            start, chained = load(self.core.codec, replay.snapshot)
            at = replay.snapshot.position
            if replay.snapshot.is_base and start.parent and start.parent[:2] == at[:2]:
                start = replace(start, parent=None)  # nothing is there before a base
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
        try:
            async with aclosing(await self.core.read_span(head.thread_id, start, 1)) as pages:
                async for page in pages:
                    for first in page:
                        return Position(*first.data["source"]) if first.kind == Kind.FORK else None
        except LineageMovedError:
            return None  # it was trimmed, and with that goes what it was forked from
        return None

    async def beginning(self, thread_id: str) -> Position | None:
        """The base at which a trimmed thread begins; ``None`` where that is its first event."""
        end = (await self.core.head(thread_id)).position
        async with aclosing(self.lineage(end)) as steps:
            return [(await self.core.lineage(step)).base async for step in steps][-1]

    async def lineage(self, at: Position) -> AsyncGenerator[Position, None]:
        """The ends of the runs of events that lead to a position, newest first."""
        here: Position | None = at
        while here is not None:
            yield here
            here = (await self.core.lineage(here)).source
