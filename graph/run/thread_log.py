"""A graph's threads on an event store: opens the journal of a run at an address.

Owns where a run goes on: at the end of a thread, or with a fork from its past or that of another
thread. The journals that it opens write.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from eventstore import (
    Position,
    RecordedEvent,
    Replay,
)
from eventstore.cache import CachedLog
from eventstore.core.read import Pages
from graph.errors import ReducerError
from graph.run import recent
from graph.run.address import Address
from graph.run.journal import LogJournal, Means
from graph.run.loading import Loader
from graph.run.recent import Packed, Recorded
from graph.run.snapshots import SnapshotTaker
from graph.state.events import Kind
from graph.state.state import State


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
                recorded.reuses(0, cached.size - cached.live_size)
        return recorded

    async def has_moved(self, journal: LogJournal) -> bool:
        """Whether a log ends elsewhere than its journal assumes, which has written nothing."""
        head = await self.core.head(journal.thread_id, journal.at.ns)
        return head.position != journal.at or head.digest != journal.digest
