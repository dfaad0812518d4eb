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

from eventstore import (
    Head,
    LineageMovedError,
    Position,
    PositionNotFoundError,
    RecordedEvent,
    Replay,
)
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX, Pages
from eventstore.format.digests import origin, prefix_ns
from graph.build.schema import Channel
from graph.errors import InvalidConfigError, ReducerError, SchemaChangedError
from graph.run.journal import LogJournal, Means
from graph.run.snapshots import Failures, SnapshotTaker, load
from graph.state.events import Data, Kind
from graph.state.fold import Fold, State, checkpoint_id, writers

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
    if found < timedelta(0):
        raise InvalidConfigError(f"ttl must not be negative, not {ttl!r:.80}")
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
        self._version = version
        self._forms = {name: channel.form for name, channel in channels.items()}
        parts = [f"{name}={channels[name].fingerprint}" for name in sorted(channels)]
        text = "\n".join([version or "", *parts])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=9).hexdigest()

    async def open(
        self, config: Mapping[str, Any], means: Means, answers: bool | None = None
    ) -> LogJournal:
        """The journal of a run that goes on where ``config`` points.

        The head of a thread goes on as it stands, finished tasks included. An older
        checkpoint, or one of another thread for a thread that is new, goes on by a fork.

        Args:
            answers: whether the run answers interrupts: those of the checkpoint, anew if none is
                left at the head, or else those at which a run from there has come to wait. If not,
                they are asked again that have been answered since. ``None``: it is no run.

        Raises:
            InvalidConfigError: no thread, or a checkpoint that does not belong to it.
        """
        thread_id, ns = thread_id_of(config), ns_of(config)
        metadata = _json_only(config.get("metadata") or {})
        ttl = ttl_of(config)
        at = await self.resolve(thread_id, position_of(config))
        if at is None or (await self.core.head(thread_id, ns)).position[:2] == at[:2]:
            try:
                journal = await self.open_end(thread_id, ns, means, metadata, ttl)
            except ReducerError:
                if at is None:
                    raise
            else:
                state = journal.state
                if at is None:
                    return journal
                if state.checkpoint == at and not await self._left(thread_id, state, answers):
                    return journal
                if answers:
                    at = await self.asked_since(thread_id, at, state.at)
                    if at == state.at:
                        return journal
        at, replay, state, taker = await self.load_named(thread_id, position_of(config), at, ns)
        return self._journal(replay, state, taker, means, metadata, ttl, fork_from=at)

    async def _left(self, thread_id: str, end: State, answers: bool | None) -> bool:
        """Whether a run goes back to the last checkpoint, since its interrupts were answered."""
        at = end.checkpoint
        if at == end.at or answers is None:
            return False
        if answers:
            return not end.interrupts
        if not end.answers:
            return False
        _, state, _ = await self.load(thread_id, at, at.ns)
        return state.answered != end.answered

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
            version=self._version,
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
        """The state at a position of a thread's lineage, or (``None``) as the thread stands.

        Raises:
            ReducerError: naming the first event that today's reducers cannot merge.
        """
        failed: ReducerError | None = None
        for _ in range(MOVES_MAX):
            replay = await self.core.replay(
                thread_id, ns, at, self.fingerprint, snapshots, cached=at is None and snapshots
            )
            try:
                state, taker = await self.fold(replay, careful=failed is not None)
            except LineageMovedError:
                continue  # an ancestor was deleted or trimmed while we read; its part is ours now
            except ReducerError as error:
                if error.seq is not None:
                    raise
                failed = error  # once more, one by one, to find the event
                continue
            self.core.cache_replay(replay)
            return replay, state, taker
        raise failed or LineageMovedError(thread_id)

    def taker(self) -> SnapshotTaker:
        """Makes the snapshots of a log that has none yet."""
        return SnapshotTaker(
            self.core.codec, self.fingerprint, self._failures, each_run=self._each_run
        )

    async def fold(
        self, replay: Replay[Pages], careful: bool = False
    ) -> tuple[State, SnapshotTaker]:
        """The state that a replay leads to, and a taker that goes on from there.

        Args:
            careful: reduce after each event, so that an error names it.
        """
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
                    pending = dict(folding.pending) if careful else {}
                    folding.feed(event.kind, event.data, event.position, event.recorded_us)
                    taker.saw(event.size)
                    if careful:
                        await self._check(folding, pending, event, replay.head.thread_id)
        state = folding.state()
        self.refuse_other_forms(replay.head.thread_id, state)
        return state, taker

    def refuse_other_forms(self, thread_id: str, state: State) -> None:
        """Refuse a state whose keys were declared otherwise under the same version of the graph.

        Folded by today's declaration it would be another one, and nobody would know.

        Raises:
            SchemaChangedError: naming the key.
        """
        if state.version != self._version or state.forms == self._forms:
            return
        for key, stored in state.forms.items():
            channel = self.channels.get(key)
            if channel is None or channel.form == stored or key not in state.values:
                continue
            merged, merges = stored.endswith("+"), channel.reducer is not None
            value = state.values[key]
            if merged and merges:
                continue  # reducers tell what they cannot take
            if not (merged or merges) and (stored == "" or _fits(value, channel.kind)):
                continue
            if merges and channel.initial is not None:
                pack = self.core.codec.pack
                if pack(value) == pack(channel.initial()):
                    continue  # it was not written yet
            raise SchemaChangedError(thread_id, state.at.ns, key, stored, channel.form)

    async def _check(
        self, folding: Fold, pending: Mapping[int, Data], event: RecordedEvent, thread_id: str
    ) -> None:
        """Reduce what an event wrote.

        Raises:
            ReducerError: naming the event.
        """
        try:
            folding.state()
        except ReducerError as error:
            nodes = writers(pending, event.kind, event.data, error.key)
            at = event.position
            owner = await self.core.thread_at(at.thread_key)
            name = owner.thread_id if owner else thread_id
            node = nodes[min(error.nth, len(nodes) - 1)]
            raise error.at(name, at.ns, at.seq, node) from error.__cause__

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


def _fits(value: Any, kind: type[Any] | None) -> bool:
    number = kind in (int, float) and isinstance(value, int | float)
    return kind is None or value is None or number or isinstance(value, kind)


def _json_only(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of the caller's metadata can be searched for in the threads' list."""
    plain = str | int | float | bool
    return {key: value for key, value in metadata.items() if isinstance(value, plain)}
