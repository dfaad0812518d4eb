"""A graph's threads on an event store: loads the state at an address.

Owns what a checkpoint means for a thread: its head, its past, or the past of another thread that
it was forked from. Reads only; the journals that it opens write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from eventstore import (
    Head,
    LineageMovedError,
    Position,
    PositionNotFoundError,
    RecordedEvent,
    Replay,
)
from eventstore.core.cache import CachedLog
from eventstore.core.read import Pages
from eventstore.format.digests import origin, prefix_ns
from graph.errors import InvalidConfigError, ReducerError
from graph.run import recent
from graph.run.address import Address
from graph.run.journal import LogJournal, Means
from graph.run.loading import Loader, OfAnother
from graph.run.recent import Packed, Recorded
from graph.run.snapshots import SnapshotTaker
from graph.state.events import Kind
from graph.state.fold import State, checkpoint_id


class ThreadLog(Loader):
    """Threads of one graph in one event store."""

    async def open(
        self,
        address: Address,
        means: Means,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        resumes: bool | None = None,
        assumes: bool = False,
    ) -> LogJournal:
        """The journal of a run that continues from an address.

        At the end of a thread the run continues it, with its finished tasks. At an older
        checkpoint, or at one of another thread for a new thread, it begins with a fork.

        Args:
            metadata, ttl: those of a thread that the run creates.
            resumes: whether the run has resume values: for the interrupts of the checkpoint, which
                are resumed again if none is pending at the end of the thread, or else for those
                that a run from the checkpoint has come to since. If it has none, interrupts of the
                checkpoint that were resumed since are raised again. ``None``: it is no run.
            assumes: the thread may be taken to end where this process last saw it end.

        Raises:
            InvalidConfigError: the checkpoint does not belong to the thread.
        """
        thread_id, ns = address.thread_id, address.ns
        metadata = self.metadata.searchable(metadata or {})
        at = address.position
        if at is None:
            return await self.open_end(thread_id, ns, means, metadata, ttl, assumes)
        try:
            replay, state, taker = await self.load(thread_id, None, ns)
        except ReducerError:
            at = await self.resolve(thread_id, at)
            if at is None:
                raise
        else:
            journal = self._journal(replay, state, taker, means, metadata, ttl)
            head = replay.head
            if head.exists and at.thread_key != head.thread_key:
                at = await self.resolve(thread_id, at)
            if at is None:
                return journal
            if at[:2] == head.position[:2]:
                if state.checkpoint == at and not await self._left(thread_id, state, resumes):
                    return journal
                if resumes:
                    at = await self.asked_since(thread_id, at, state.at)
                    if at == state.at:
                        return journal
        at, replay, state, taker = await self.load_named(address, at)
        return self._journal(replay, state, taker, means, metadata, ttl, fork_from=at)

    async def _left(self, thread_id: str, end: State, resumes: bool | None) -> bool:
        """Whether a run leaves the end of a thread, since interrupts of the last checkpoint were
        resumed.
        """
        at = end.checkpoint
        if at == end.at or resumes is None:
            return False
        if resumes:
            return not end.interrupts
        if not end.resume_values:
            return False
        _, state, _ = await self.load(thread_id, at, at.ns)
        return state.resumed != end.resumed

    async def asked_since(self, thread_id: str, at: Position, end: Position) -> Position:
        """The position whose interrupts are meant by a resume value for a checkpoint.

        Its own, if it has any. An edit or a fork stands for what goes on from it, the latest where
        that is several branches; other checkpoints for what was asked since, if nothing was
        answered and the thread (whose log ends at ``end``) still waits there.
        """
        _, state, _ = await self.load(thread_id, at, at.ns)
        if state.interrupts:
            return at
        last, answered = at, False
        async with aclosing(self._descending(thread_id, at)) as events:
            async for event in events:
                last, answered = event.position, answered or event.kind == Kind.RESUME
        if state.source in ("fork", "update") or (last == end and not answered):
            _, state, _ = await self.load(thread_id, last, at.ns)
            if state.interrupts and state.checkpoint == last:
                return last
        return at

    async def _descending(
        self, thread_id: str, at: Position
    ) -> AsyncGenerator[RecordedEvent, None]:
        """The events of a log that go on from a position of it, on whichever branch."""
        descends, seqs = True, {at.seq}
        async with aclosing(await self.core.read_span(thread_id, at, None)) as pages:
            async for page in pages:
                for event in page:
                    if event.kind == Kind.FORK:
                        source = Position(*event.data["source"])
                        descends = source[:2] == at[:2] and source.seq in seqs
                    if descends:
                        seqs.add(event.seq)
                        yield event

    async def open_end(
        self,
        thread_id: str,
        ns: str,
        means: Means,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        assumes: bool = False,
    ) -> LogJournal:
        """The journal of a run that continues from the end of a log.

        Args:
            assumes: the end may be taken to be where this process last saw it.
        """
        known = self.core.replay_known(thread_id, ns, self.fingerprint) if assumes else None
        replay, state, taker = await self.load(
            thread_id, None, ns, reuses=self._reuses, known=known
        )
        journal = self._journal(replay, state, taker, means, metadata, ttl)
        journal.is_assumed = replay.head is known.head if known is not None else False
        return journal

    async def ended(self, journal: LogJournal, call: str) -> LogJournal:
        """A read-only journal of a subgraph with ``checkpointer=True`` after an earlier call."""
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
        """The journal of a run that goes back to a position.

        Args:
            logs: where the logs of subgraphs ended at that position, by task and name.
        """
        replay, state, taker = await self.load(thread_id, at, ns)
        return self._journal(replay, state._replace(logs=logs), taker, means, fork_from=at)

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
            self.materialize,
            recorded=None if fork_from else self._recorded(replay.cached, state),
            fork_from=fork_from,
            metadata=metadata,
            ttl=ttl,
            version=self._version,
        )

    def _recorded(self, cached: CachedLog | None, state: State) -> Recorded | None:
        """What a run that continues from the end of a log keeps in memory of what it records."""
        if cached is None:
            return None
        is_packed = cached.notes is not None and not cached.rows
        packed = Packed.of(cached.notes.parts, state) if is_packed else None
        if packed is None and not self._reuses:
            return None
        recorded = Recorded(self.core, self.channels, self.fingerprint, packed)
        if self._reuses:
            kept = recent.kept_of(cached)
            if kept is not None and kept.state is state:
                recorded.reuses(kept.uses, kept.size)
            else:
                recorded.reuses(0, cached.size)
        return recorded

    async def has_moved(self, journal: LogJournal) -> bool:
        """Whether a log ends elsewhere than its journal assumes, which has written nothing."""
        if not journal.is_assumed:
            return False
        head = await self.core.head(journal.thread_id, journal.at.ns)
        return head.position != journal.at or head.digest != journal.digest

    async def read(self, address: Address) -> tuple[State, Replay[Pages]]:
        """The state at an address, and the replay that led to it. Writes nothing."""
        thread_id, at = address.thread_id, address.position
        try:
            replay, state, _ = await self.load(thread_id, at, address.ns, is_own=True)
        except (OfAnother, PositionNotFoundError):
            at = await self.resolve(thread_id, at)
            at, replay, state, _ = await self.load_named(address, at)
        if at is not None and state.checkpoint != at:
            raise InvalidConfigError(
                f"{checkpoint_id(at)} is not a checkpoint of thread {address.thread_id!r}, but "
                "within a superstep; take ids from get_state_history(config)"
            )
        return state, replay

    async def resolve(
        self, thread_id: str, at: Position | None, ns: str | None = None
    ) -> Position | None:
        """The position that a checkpoint id means for a thread; ``None``: its current end.

        The checkpoint of another thread from which this thread was forked means the current end
        of the fork.

        Raises:
            InvalidConfigError: it belongs to another thread, and this one was not forked from it.
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
        self, address: Address, at: Position | None
    ) -> tuple[Position | None, Replay[Pages], State, SnapshotTaker]:
        """The state at the position that an address was resolved to, and that position.

        The position changes if its thread was deleted meanwhile: the thread, a fork of that one,
        then has the events in a prefix of its own.
        """
        thread_id, ns = address.thread_id, address.ns
        try:
            return at, *await self.load(thread_id, at, ns)
        except PositionNotFoundError:
            now = await self.resolve(thread_id, address.position)
            if now == at:
                raise
            return now, *await self.load(thread_id, now, ns)

    async def origin(self, head: Head) -> Position | None:
        """The position in another thread from which a thread was forked at its creation."""
        if not head.exists or head.seq == 0:
            return None
        start = Position(head.thread_key, head.ns, 0)
        try:
            async with aclosing(await self.core.read_span(head.thread_id, start, 1)) as pages:
                async for page in pages:
                    for first in page:
                        return Position(*first.data["source"]) if first.kind == Kind.FORK else None
        except LineageMovedError:
            return None  # trimmed, and its fork event with it
        return None

    async def beginning(self, thread_id: str) -> Position | None:
        """The base at which a trimmed thread begins; ``None`` if it was not trimmed."""
        end = (await self.core.head(thread_id)).position
        async with aclosing(self.lineage(end)) as steps:
            return [(await self.core.lineage(step)).base async for step in steps][-1]

    async def lineage(self, at: Position) -> AsyncGenerator[Position, None]:
        """The ends of the spans of events that lead to a position, newest first."""
        here: Position | None = at
        while here is not None:
            yield here
            here = (await self.core.lineage(here)).source
