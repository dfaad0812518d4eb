"""The state at an address of a thread: read and folded, or what an earlier run left in memory.

Owns what a checkpoint means for a thread (its head, its past, or the past of another thread that it
was forked from), how a log's events and snapshots become a state, which of it stays in memory, and
how a snapshot that is due is made. Reads only.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final

from eventstore import (
    CorruptEventError,
    EventStoreError,
    Fork,
    Head,
    LineageMovedError,
    NewSnapshot,
    Position,
    PositionNotFoundError,
    RecordedEvent,
    Replay,
    SerializationError,
)
from eventstore.core.core import Core
from eventstore.core.read import MOVES_MAX, Pages
from eventstore.format.digests import origin, prefix_ns
from eventstore.models import Prepared
from graph.build.channels import Channel
from graph.errors import GraphError, InvalidConfigError, ReducerError, SchemaChangedError
from graph.run import recent
from graph.run.address import Address
from graph.run.metadata import RunMetadata
from graph.run.recent import Decoded, Notes, Packed
from graph.run.snapshots import Failures, SnapshotTaker, load
from graph.state.events import Data, Kind
from graph.state.fold import Fold, parts
from graph.state.state import State, checkpoint_id
from graph.types import START

log = logging.getLogger(__name__)

CHECK_EVERY: Final = 32
"""How many runs in turn may have a state from memory, until it is compared with the log's."""


class _OfAnother(Exception):
    """A position is in another thread: whether this one was forked from there is to be seen."""


class Loader:
    """Loads the states of one graph's threads from one event store."""

    def __init__(
        self,
        core: Core,
        channels: Mapping[str, Channel],
        version: str | None,
        snapshot_each_run: bool = False,
        reuse_state: bool = False,
    ) -> None:
        self.core = core
        self.channels = channels
        self._each_run = snapshot_each_run
        self._reuses = reuse_state
        self._failures = Failures()
        self.metadata = RunMetadata(core.codec)
        self._version = version
        self._forms = {name: channel.form for name, channel in channels.items()}
        parts = [f"{name}={channels[name].fingerprint}" for name in sorted(channels)]
        text = "\n".join([version or "", *parts])
        self.fingerprint = hashlib.blake2b(text.encode(), digest_size=9).hexdigest()

    async def read(self, address: Address) -> tuple[State, Replay[Pages]]:
        """The state at an address, and the replay that led to it. Writes nothing."""
        thread_id, at = address.thread_id, address.position
        try:
            replay, state, _ = await self.load(
                thread_id, at, address.ns, is_own=True, keeps_past=True
            )
        except (_OfAnother, PositionNotFoundError):
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
            return at, *await self.load(thread_id, at, ns, keeps_past=True)
        except PositionNotFoundError:
            now = await self.resolve(thread_id, address.position)
            if now == at:
                raise
            return now, *await self.load(thread_id, now, ns, keeps_past=True)

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

    async def load(
        self,
        thread_id: str,
        at: Position | None,
        ns: str = "",
        snapshots: bool = True,
        is_own: bool = False,
        reuses: bool = False,
        known: Replay[Pages] | None = None,
        keeps_past: bool = False,
    ) -> tuple[Replay[Pages], State, SnapshotTaker]:
        """The state at a position in a thread's lineage; ``None``: at its current end.

        Args:
            is_own: raise ``_OfAnother`` if the position is in another thread than this one.
            reuses: the state may be the one that an earlier run had.
            known: a replay to the end, which need not be read again.
            keeps_past: a state before the end may come from memory, too, and is kept there.

        Raises:
            ReducerError: naming the first event that the reducers cannot merge.
        """
        failed: ReducerError | None = None
        for _ in range(MOVES_MAX):
            replay, known = known, None
            if replay is None:
                replay = await self.core.replay(
                    thread_id,
                    ns,
                    at,
                    self.fingerprint,
                    snapshots,
                    cached=snapshots and (at is None or keeps_past),
                )
            head = replay.head
            if is_own and at is not None and head.exists and at.thread_key != head.thread_key:
                raise _OfAnother
            kept = recent.kept_of(replay.cached) if reuses and replay.cached else None
            if kept is not None and kept.uses % CHECK_EVERY:
                self.refuse_other_forms(thread_id, kept.state)
                taker = self.taker()
                taker.follow(kept.chain, kept.state)
                return replay, kept.state, taker
            try:
                state, taker, packed = await self._folded(replay, careful=failed is not None)
            except LineageMovedError:
                continue  # an ancestor was deleted or trimmed meanwhile; read again
            except CorruptEventError:
                if replay.cached is None or not replay.cached.was_found:
                    raise
                self.core.forget(replay.position.thread_key)  # the database was replaced
                continue
            except ReducerError as error:
                if error.seq is not None:
                    raise
                failed = error  # once more, one by one, to find the event
                continue
            if replay.cached is not None:
                replay = self._cached(replay, state, taker, packed)
            if kept is not None:
                taker.compare(thread_id, state, kept.state)
            return replay, state, taker
        raise failed or LineageMovedError(thread_id)

    async def materialize(
        self,
        head: Head,
        taker: SnapshotTaker,
        logs: Mapping[int, Mapping[str, int]],
        events: Sequence[Fork | Prepared],
        live: State,
    ) -> tuple[NewSnapshot | None, SnapshotTaker]:
        """A snapshot that is due after events that are about to be appended.

        It is made of what is recorded, read again, and of the bodies of the events: not of the
        state that the run has, in which a node may have changed something in place.

        Args:
            head, taker: the end of the log, and the taker of the run.
            logs: where the logs of subgraphs ended when the run began.
            live: the state after the events, as the run has it.

        Returns:
            The snapshot, and the taker to go on with. ``None`` if no snapshot can be made, which
            never fails the append.
        """
        fork = events[0] if isinstance(events[0], Fork) else None
        at = head.position
        try:
            replay, state, again = await self.load(
                head.thread_id, fork.source if fork else None, head.ns
            )
            if (replay.head.position, replay.head.digest) != (at, head.digest):
                return None, taker  # another writer was first
            folding = Fold(self.channels, state._replace(logs=logs) if fork else state)
            for event in events:
                at = at._replace(seq=at.seq + 1)
                if isinstance(event, Fork):
                    folding.feed(Kind.FORK, {}, at, live.created_us)
                else:
                    data = self.core.codec.unpack(event.body, own=True)
                    folding.feed(event.kind, data, at, event.recorded_us)
            recorded = folding.state()
        except (EventStoreError, GraphError) as error:
            log.warning(
                "thread %r: no snapshot was made, the next one will be tried: %s",
                head.thread_id,
                error,
                extra={"thread_id": head.thread_id, "ns": head.ns, "seq": head.seq},
            )
            return None, taker
        again.compare(head.thread_id, recorded, live)
        snapshot = again.take(recorded)
        again.follow(again.chain(recorded), live)  # whose lists are other objects
        return snapshot, again

    def taker(self) -> SnapshotTaker:
        """A new taker, for a log without snapshots."""
        return SnapshotTaker(
            self.core.codec,
            self.fingerprint,
            self._failures,
            each_run=self._each_run,
            keeps_state=self._reuses,
        )

    def _cached(
        self, replay: Replay[Pages], state: State, taker: SnapshotTaker, packed: Packed
    ) -> Replay[Pages]:
        """Keep what leads to the end of a log, as a snapshot in memory where that can be made."""
        snapshot, notes, codec = None, None, self.core.codec
        if recent.is_due(replay.cached) and state.stays:
            with suppress(SerializationError):  # a reducer made something that cannot be stored
                made = packed.followed(codec, state)
                if made is not None:
                    chain = taker.chain(state)
                    snapshot, notes = made.snapshot(codec, self.fingerprint, state, chain)
        return self.core.cache_replay(replay, snapshot, notes)

    async def fold(self, replay: Replay[Pages]) -> tuple[State, SnapshotTaker]:
        """The state that a replay leads to, and a taker that continues from there."""
        return (await self._folded(replay, careful=False))[:2]

    async def _folded(
        self, replay: Replay[Pages], careful: bool
    ) -> tuple[State, SnapshotTaker, Packed]:
        """As :meth:`fold`, and what the values were packed to with which the replay began.

        Args:
            careful: reduce after each event, so that an error names it.
        """
        taker, packed = self.taker(), Packed()
        start = None
        if replay.snapshot is not None:
            notes: Notes | None = replay.cached and replay.cached.notes
            decoded, chained, at = Decoded(self.core), frozenset[str](), replay.snapshot.position
            if notes is None:
                start, chained = load(decoded.decode, replay.snapshot)
            else:
                own = partial(self.core.codec.unpack, own=True)
                start = recent.load(own, replay.snapshot, notes.parts)
            parent = start.parent
            if replay.snapshot.is_base and parent and origin(*parent[:2]) == origin(*at[:2]):
                start = start._replace(parent=None, stands_on=None)  # nothing exists before a base
            if notes is not None:
                packed = Packed.of(notes.parts, start)
                taker.follow(notes.chain, start)
            elif (at.thread_key, at.ns) == (replay.head.thread_key, replay.head.ns):
                taker.resume(replay.snapshot, start, chained)
                if replay.cached is not None and recent.is_due(replay.cached):
                    packed = Packed.of(decoded.parts(), start)
        folding = Fold(self.channels, start)
        size = count = 0
        async with aclosing(replay.events) as pages:
            async for page in pages:
                for event in page:
                    pending = dict(folding.pending) if careful else {}
                    folding.feed(event.kind, event.data, event.position, event.recorded_us)
                    size, count = size + event.size, count + 1
                    if careful:
                        await self._check(folding, pending, event, replay.head.thread_id)
        taker.saw(size, count)
        state = folding.state()
        self.refuse_other_forms(replay.head.thread_id, state)
        return state, taker, packed

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
            found = parts(pending, event.kind, event.data, error.key)
            at = event.position
            owner = await self.core.thread_at(at.thread_key)
            name = owner.thread_id if owner else thread_id
            node = found[min(error.nth, len(found) - 1)].get("node", START)
            raise error.at(name, at.ns, at.seq, node) from error.__cause__


def _fits(value: Any, kind: type[Any] | None) -> bool:
    number = kind in (int, float) and isinstance(value, int | float)
    return kind is None or value is None or number or isinstance(value, kind)
