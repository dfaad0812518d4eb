"""Reading checkpoints the way LangGraph asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory, get_checkpoint_id

from eventstore import ThreadInfo
from graph.langgraph.conflict import Seen
from graph.langgraph.finding import BLOCK, History, Ref
from graph.langgraph.logs import METADATA, Logs
from graph.langgraph.state.records import Past, PastWrite, Saved
from graph.langgraph.wire import Place, Wire, matches

_THREADS: Final = 100
"""Threads in one page of a scan."""


class Reading:
    """Reads the threads of one saver."""

    def __init__(self, logs: Logs, seen: Seen) -> None:
        self.logs = logs
        self.seen = seen

    async def get_tuple(self, wire: Wire, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the latest one."""
        place = Place(config)
        ns = place.ns or ""
        history = History(self.logs, await self.logs.tip(place.thread_id, wire.seal))
        saved = await history.find(ns, place.id)
        found = saved.id if saved is not None else place.id
        self.seen.note(place.thread_id, ns, found, as_latest=place.id is None)
        return await wire.tuple(place.at(ns), saved, history.find) if saved is not None else None

    async def list(
        self,
        wire: Wire,
        config: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, with the greatest ids first."""
        if limit is not None and limit <= 0:
            return
        end = get_checkpoint_id(before) if before else None
        refs: list[tuple[History, Any, Ref]] = []
        async for history, thread, ns, checkpoint_id in self._histories(wire, config):
            refs += [
                (history, thread, ref)
                for ref in await history.all(ns)
                if (checkpoint_id is None or ref.id == checkpoint_id)
                and (end is None or ref.id < end)
            ]
        refs.sort(key=lambda each: each[2].id, reverse=True)
        if limit is not None and not wanted:
            refs = refs[:limit]
        count = 0
        for start in range(0, len(refs), BLOCK):
            block = refs[start : start + BLOCK]
            loaded = {
                id(history): await history.load(ref for other, _, ref in block if other is history)
                for history in {id(each[0]): each[0] for each in block}.values()
            }
            for history, thread, ref in block:
                saved = loaded[id(history)].get(ref.name)
                if saved is None:
                    continue
                metadata = wire.metadata(saved)
                if not matches(metadata, wanted):
                    continue
                place = {"thread_id": thread, "checkpoint_ns": ref.ns}
                yield await wire.tuple(place, saved, history.find, metadata)
                count += 1
                if count == limit:
                    return

    async def _histories(
        self, wire: Wire, config: RunnableConfig | None
    ) -> AsyncIterator[tuple[History, Any, str | None, str | None]]:
        """The threads that a config names: each with its name and what to list of it."""
        if config is not None and "thread_id" in (config.get("configurable") or {}):
            place = Place(config)
            tip = await self.logs.tip(place.thread_id, wire.seal)
            if tip.head.exists:
                yield History(self.logs, tip), place.thread, place.ns, place.id
            return
        found = (config or {}).get("configurable") or {}
        async for info in self.threads():
            tip = await self.logs.tip(info.thread_id, wire.seal)
            if tip.head.exists:
                history = History(self.logs, tip)
                checkpoint_id = found.get("checkpoint_id")
                yield history, info.thread_id, found.get("checkpoint_ns"), checkpoint_id

    async def threads(self) -> AsyncIterator[ThreadInfo]:
        """Every thread of LangGraph's in the store."""
        last: ThreadInfo | None = None
        while True:
            page = await self.logs.core.threads(metadata=METADATA, after=last, limit=_THREADS)
            for info in page:
                yield info
            if len(page) < _THREADS:
                return
            last = page[-1]

    # --- channels whose values are not stored -------------------------------------------

    async def delta_history(
        self, wire: Wire, config: RunnableConfig, channels: Sequence[str]
    ) -> dict[str, DeltaChannelHistory]:
        """What each channel is made of at a checkpoint: a stored value, and the writes since."""
        place = Place(config)
        ns = place.ns or ""
        history = History(self.logs, await self.logs.tip(place.thread_id, wire.seal))
        saved = await history.find(ns, place.id)
        found = await pasts(history, ns, saved, channels) if saved is not None else {}
        return {name: _delta(wire, name, found.get(name, Past(None, ()))) for name in channels}


async def pasts(
    history: History, ns: str, saved: Saved, channels: Sequence[str]
) -> dict[str, Past]:
    """The pasts of channels at a checkpoint, from its ancestors as far as they are needed.

    A checkpoint knows the past of a channel that has no value. That is not enough where writes
    came after a later checkpoint; then its ancestors are asked as long as there are any.
    """
    fold = history.tip.fold
    found: dict[str, Past] = {}
    writes: dict[str, tuple[PastWrite, ...]] = dict.fromkeys(channels, ())
    at: Saved | None = saved
    while at is not None and len(found) < len(channels):
        for name in channels:
            past = at.past.get(name)
            if name not in found and past is not None:
                if at.parent is None or not fold.is_late(ns, name):
                    found[name] = Past(past.seed, past.writes + writes[name])
        if len(found) == len(channels):
            break
        parent = await history.find(ns, at.parent) if at.parent is not None else None
        for name in channels:
            if name in found:
                continue
            if parent is None:
                past = at.past.get(name, Past(None, ()))
                found[name] = Past(past.seed, past.writes + writes[name])
                continue
            writes[name] = parent.writes_to(name) + writes[name]
            channel = parent.channels.get(name)
            if channel is not None and channel.value is not None:
                found[name] = Past(channel.value, writes[name])
            elif channel is None and not fold.is_late(ns, name):
                found[name] = Past(None, writes[name])
        at = parent
    return found


def _delta(wire: Wire, name: str, past: Past) -> DeltaChannelHistory:
    found: DeltaChannelHistory = {
        "writes": [(each.task_id, name, wire.loads(each.type, each.data)) for each in past.writes]
    }
    if past.seed is not None:
        found["seed"] = wire.load(past.seed)
    return found
