"""Appending checkpoints and writes as LangGraph hands them over."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    EXCLUDED_METADATA_KEYS,
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from eventstore import ConfigurationError
from eventstore.models import Status
from graph.langgraph.appending import About, Appending, Awaited
from graph.langgraph.conflict import OnConflict, RunConflictError, Seen
from graph.langgraph.finding import History
from graph.langgraph.logs import METADATA, Creation, Plan, Tip
from graph.langgraph.state import records
from graph.langgraph.state.drafts import CheckpointDraft, WritesDraft
from graph.langgraph.state.fold import Fold, past_of
from graph.langgraph.state.records import (
    Batch,
    Channel,
    Saved,
    Typed,
    Write,
    WriteKey,
    key_of,
    merged,
)
from graph.langgraph.state.values import cut
from graph.langgraph.wire import Place, Wire
from graph.run.metadata import RunMetadata

log = logging.getLogger(__name__)

_NOT_SEARCHED: Final = EXCLUDED_METADATA_KEYS | {"ttl"}

DELTA_COUNTERS: Final = "counters_since_delta_snapshot"
"""In a checkpoint's metadata, by LangGraph: the channels that are a ``DeltaChannel``."""


class Writing:
    """Appends to the threads of one saver.

    Attributes:
        conflicts: how many checkpoints continued one that another run had continued before.
    """

    def __init__(
        self, appending: Appending, seen: Seen, on_conflict: OnConflict, ttl: timedelta | None
    ) -> None:
        self.appending = appending
        self.logs = appending.logs
        self.seen = seen
        self.on_conflict = on_conflict
        self.ttl = ttl
        self.conflicts = 0
        self._delta_channels: set[str] = set()
        self._metadata = RunMetadata(self.logs.core.codec)

    # --- checkpoints --------------------------------------------------------------------

    async def put(
        self,
        wire: Wire,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Append a checkpoint, as the difference to its parent."""
        place = Place(config)
        ns = place.ns or ""
        meta = get_checkpoint_metadata(config, metadata)
        self._delta_channels.update(meta.get(DELTA_COUNTERS, ()))
        new = _Put(wire, checkpoint, meta, new_versions, ns, place.id)
        was_overtaken = False

        async def plan(tip: Tip) -> Plan:
            nonlocal was_overtaken
            history = History(self.logs, tip)
            parent = await history.find(ns, place.id) if place.id is not None else None
            is_side = parent is not None and parent.is_side
            if not is_side:
                was_overtaken = self._is_overtaken(tip, place.thread_id, ns, place.id)
                is_side = was_overtaken and self.on_conflict == "branch"
            existing = await _existing(history, ns, checkpoint["id"])
            return new.plan(tip, parent, existing, is_side)

        known = self.logs.known(place.thread_id)
        is_early = metadata.get("source") == "loop" and _lacks_writes(known, place)
        awaits: Awaited | None = "writes" if is_early else None
        creation = self._creation(known, place, wire)
        about = About((ns, place.id), True, awaits)
        await self.appending.write(place.thread_id, wire.seal, plan, creation, about)
        if was_overtaken:
            self._report(place.thread_id, ns, place.id)
        self.seen.note(place.thread_id, ns, checkpoint["id"], as_latest=not was_overtaken)
        return {"configurable": {**place.at(ns), "checkpoint_id": checkpoint["id"]}}

    def copied(
        self,
        wire: Wire,
        ns: str,
        parent_id: str | None,
        checkpoint: Checkpoint,
        metadata: Mapping[str, Any],
    ) -> Callable[[Tip], Awaitable[Plan | None]]:
        """How to append a checkpoint of another saver, with its metadata as it is there."""
        new = _Put(wire, checkpoint, metadata, checkpoint["channel_versions"], ns, parent_id)

        async def plan(tip: Tip) -> Plan:
            history = History(self.logs, tip)
            parent = await history.find(ns, parent_id) if parent_id is not None else None
            existing = await _existing(history, ns, checkpoint["id"])
            return new.plan(tip, parent, existing, parent is not None and parent.is_side)

        return plan

    def _is_overtaken(self, tip: Tip, thread_id: str, ns: str, parent: str | None) -> bool:
        """Whether another run has continued ``parent``, which this one got as the latest.

        Raises:
            RunConflictError: it has, and the policy says ``"error"``.
        """
        space = tip.fold.spaces.get(ns)
        if space is None or not space.latest or space.latest == parent:
            return False
        if not self.seen.was_latest(thread_id, ns, parent):
            return False
        if self.on_conflict == "error":
            raise RunConflictError(thread_id, ns, parent, space.latest, tip.head.seq)
        return True

    def _report(self, thread_id: str, ns: str, parent: str | None) -> None:
        self.conflicts += 1
        log.warning(
            "two runs continue checkpoint %s of thread %r; both are kept (on_conflict=%r)",
            parent,
            thread_id,
            self.on_conflict,
            extra={"thread_id": thread_id, "ns": ns, "checkpoint_id": parent},
        )

    # --- writes -------------------------------------------------------------------------

    async def put_writes(
        self,
        wire: Wire,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        """Append the writes of a task for a checkpoint, unless they are there already."""
        place = Place(config)
        ns, checkpoint_id = place.ns or "", place.id
        if checkpoint_id is None:
            raise ConfigurationError("the config names no checkpoint that the writes are for")
        if not writes:
            return
        written: Callable[[Tip], Awaitable[Plan | None]] | None = None

        async def plan(tip: Tip) -> Plan | None:
            # Not before it is in the queue, or the checkpoint that follows comes first.
            nonlocal written
            if written is None:
                found: list[tuple[WriteKey, Write]] = [
                    (
                        (task_id, WRITES_IDX_MAP.get(channel, index)),
                        Write(channel, task_path, *wire.dumps(value)),
                    )
                    for index, (channel, value) in enumerate(writes)
                ]
                replaces = all(channel in WRITES_IDX_MAP for channel, _ in writes)
                batch = Batch(task_id, task_path, found, replaces)
                written = self.written(wire, (ns, checkpoint_id), batch)
            return await written(tip)

        known = self.logs.known(place.thread_id)
        is_followed = self._is_followed(known, place, {channel for channel, _ in writes})
        awaits: Awaited | None = "checkpoint" if is_followed else None
        creation = self._creation(known, place, wire)
        is_early = known is not None and not (
            known.fold.leaf(ns, checkpoint_id) or known.fold.is_recent(ns, checkpoint_id)
        )
        about = About((ns, checkpoint_id), False, awaits, is_early)
        await self.appending.write(place.thread_id, wire.seal, plan, creation, about)

    def _creation(self, tip: Tip | None, place: Place, wire: Wire) -> Creation:
        """How the thread of a config is made, if there is none yet.

        It can be searched for what the config's metadata says, as the threads of graphs of this
        library can. With a key, nothing of that is stored in the open.
        """
        ttl = _ttl(place.ttl, self.ttl)
        if tip is not None and tip.head.exists:
            return Creation(ttl)
        return Creation(ttl, self._searchable(wire, place.metadata))

    def copied_creation(self, wire: Wire, metadata: Mapping[str, Any]) -> Creation:
        """How the copy of a thread of another saver is made, given its first checkpoint's metadata,
        in which LangGraph keeps that of the config.
        """
        own = CheckpointMetadata.__annotations__.keys() - {"run_id"}
        given = {name: value for name, value in metadata.items() if name not in own}
        return Creation(metadata=self._searchable(wire, given))

    def _searchable(self, wire: Wire, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
        if wire.seal.cipher is not None:
            return METADATA
        given = {
            name: value
            for name, value in metadata.items()
            if name not in _NOT_SEARCHED and not str(name).startswith("__")
        }
        return self._metadata.searchable({**METADATA, **given, **METADATA})

    def _is_followed(self, tip: Tip | None, place: Place, channels: set[str]) -> bool:
        """Whether a checkpoint probably follows at once after writes to these channels.

        Not if it came before them, or if they say that the task failed or was interrupted. Nor if
        they are for a ``DeltaChannel``: LangGraph waits for these before it stores the checkpoint.
        """
        if channels <= WRITES_IDX_MAP.keys():
            return False
        space = tip.fold.spaces.get(place.ns or "") if tip is not None else None
        is_late = space is not None and place.id in space.recent[:-1]
        return not is_late and self._delta_channels.isdisjoint(channels)

    def written(
        self,
        wire: Wire,
        name: tuple[str, str],
        batch: Batch,
    ) -> Callable[[Tip], Awaitable[Plan | None]]:
        """How to append the writes of a task for a checkpoint, unless they are there already."""
        ns, checkpoint_id = name
        found, replaces = batch.writes, batch.replaces
        status = _status(ns, {write.channel for _, write in found})

        async def plan(tip: Tip) -> Plan | None:
            leaf = tip.fold.leaf(ns, checkpoint_id)
            if leaf is not None and merged(leaf.writes, found, replace=replaces) == leaf.writes:
                return None
            current = tip.fold.current(ns)
            key, is_early = None, False
            if leaf is None or leaf is not current:
                is_recent = tip.fold.is_recent(ns, checkpoint_id)
                is_early = not (leaf or is_recent) and not await _is_known(
                    History(self.logs, tip), ns, checkpoint_id
                )
                if not is_early:
                    key = key_of(ns, checkpoint_id, tip.seq + 1)
                    # Of others, readers do not want to fold what came meanwhile.
                    current = current if is_recent else None
            draft = WritesDraft(wire.seal, ns, checkpoint_id, batch, current, is_early, key)
            fold = tip.fold.copy()
            fold.add_writes(ns, checkpoint_id, batch, early=is_early)
            return Plan([draft], fold, status)

        return plan


class _Put:
    """A checkpoint to be appended; each value is serialized once."""

    def __init__(
        self,
        wire: Wire,
        checkpoint: Checkpoint,
        meta: Mapping[str, Any],
        new_versions: ChannelVersions,
        ns: str,
        parent: str | None,
    ) -> None:
        self._wire = wire
        self._id = checkpoint["id"]
        self._ns, self._parent = ns, parent
        self._values = checkpoint["channel_values"]
        self._versions = checkpoint["channel_versions"]
        self._new = new_versions
        head = {name: part for name, part in checkpoint.items() if name != "channel_values"}
        self._head, self._meta = wire.dumps(head), wire.dumps(meta)
        self._dumped: dict[str, Typed] = {}

    def plan(self, tip: Tip, parent: Saved | None, existing: Saved | None, is_side: bool) -> Plan:
        """How to append it, given its parent and what was put under its id before."""
        fold = tip.fold.copy()
        prior, _ = fold.prior(self._ns, self._parent)
        channels = self._channels(parent, prior)
        saved = Saved(self._id, self._parent, self._head, self._meta, channels, is_side=is_side)
        derived = fold.completed(self._ns, saved)
        saved = derived
        if parent is not None and fold.leaf(self._ns, parent.id) is not parent:
            saved = replace(saved, past=past_of(parent, saved))
        if existing is not None:
            writes = merged(existing.writes, saved.writes.items(), replace=False)
            saved = replace(saved, writes=writes)
        carry = saved != derived
        key = key_of(self._ns, self._id, None if self._id > fold.top else tip.seq + 1)
        draft = checkpoint_draft(fold, self._ns, saved, key, carry=carry)
        fold.add(self._ns, saved)
        # Writes may come before their checkpoint, interrupts among them.
        asks = any(write.channel == INTERRUPT for write in saved.writes.values())
        status: Status | None = "waiting" if asks else None if self._ns else "idle"
        return Plan([draft], fold, status)

    def _channels(self, parent: Saved | None, prior: Saved | None) -> dict[str, Channel]:
        channels = {}
        for name, version in self._versions.items():
            old = parent.channels.get(name) if parent is not None else None
            if name not in self._new and old is not None and old.version == version:
                channels[name] = old
            elif name in self._values:
                base = prior.channels.get(name) if prior is not None else None
                if name not in self._dumped:
                    self._dumped[name] = self._wire.dumps(self._values[name])
                kind, data = self._dumped[name]
                value = cut(kind, data, base.value if base is not None else None)
                channels[name] = Channel(version, value)
            elif name in self._new:
                channels[name] = Channel(version, None)
        return channels


def checkpoint_draft(
    fold: Fold, ns: str, saved: Saved, key: str, *, carry: bool
) -> CheckpointDraft:
    """The event of a checkpoint that follows those of a fold."""
    prior, inherits = fold.prior(ns, saved.parent)
    is_next = saved.parent == fold.current_id(ns)
    can_join = is_next and not carry and saved.id > fold.top
    return CheckpointDraft(fold.seal, ns, saved, key, prior, inherits, is_next, can_join, carry)


def _lacks_writes(tip: Tip | None, place: Place) -> bool:
    """Whether the checkpoint of a config is the last one, and has no writes yet."""
    current = tip.fold.current(place.ns or "") if tip is not None else None
    return current is not None and current.id == place.id and not current.writes


async def _existing(history: History, ns: str, checkpoint_id: str) -> Saved | None:
    """What was put under an id before, if it is not at hand; rarely anything was."""
    fold = history.tip.fold
    if checkpoint_id > fold.top or fold.leaf(ns, checkpoint_id) is not None:
        return None
    return await history.find(ns, checkpoint_id)


async def _is_known(history: History, ns: str, checkpoint_id: str) -> bool:
    """Whether a checkpoint that is not at hand was put before."""
    if checkpoint_id > history.tip.fold.top:
        return False
    refs = await history.refs(records.span(ns, checkpoint_id))
    return any(ref.id == checkpoint_id for ref in refs)


def _status(ns: str, channels: set[str]) -> Status | None:
    """The status of a thread after writes to these channels; ``None``: as before."""
    if INTERRUPT in channels:
        return "waiting"
    if RESUME in channels and not ns:
        return "idle"
    return "failed" if ERROR in channels and not ns else None


def _ttl(given: Any, default: timedelta | None) -> timedelta | None:
    """How long a new thread is kept: as its config says (seconds), or the saver."""
    if given is None:
        return default
    if isinstance(given, timedelta):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool) and given >= 0:
        with suppress(OverflowError):
            return timedelta(seconds=given)
    raise ConfigurationError(f"ttl must be a timedelta or seconds, not {given!r:.80}")
