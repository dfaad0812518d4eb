"""Threads of LangGraph's, for the commands that show threads.

Owns how their events and checkpoints look here. Structure is read without LangGraph; where
langgraph-checkpoint is installed, messages and the like are shown as such, else as the plain data
that they are stored as. No type of an application is ever loaded. What is encrypted stays unread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Final

import msgpack

from eventstore import (
    ConfigurationError,
    CorruptEventError,
    EventStore,
    Position,
    RecordedEvent,
    Replay,
    ThreadInfo,
)
from eventstore.concurrency import iterate_sync
from eventstore.core.core import Core
from eventstore.models import RUNTIME
from graph.langgraph.state import snapshots
from graph.langgraph.state.fold import Fold, Namespace
from graph.langgraph.state.records import (
    CHECKPOINT,
    RESET,
    WITH,
    WRITES,
    Saved,
    Write,
    ordered,
    parsed,
)
from graph.langgraph.state.sealing import BODY, CIPHER, Seal
from graph.langgraph.state.values import ARRAY, Value, overlap

INTERRUPT: Final = "__interrupt__"
_SHOWING: Final = ContextVar("showing", default=False)
KINDS: Final = {CHECKPOINT: "checkpoint", WRITES: "writes", RESET: "reset"}


def is_langgraph(info: ThreadInfo) -> bool:
    """Whether a thread was written by the saver for LangGraph."""
    return info.metadata.get(RUNTIME) == "langgraph"


def is_event(event: RecordedEvent) -> bool:
    """Whether an event looks like one of LangGraph's, as it is stored or made readable."""
    return event.kind in KINDS and bool(
        {BODY, "checkpoint", "says"} & event.data.keys() or not event.data
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a LangGraph thread, made readable.

    Attributes:
        event: its data says what happened, in place of what is stored.
        ns: LangGraph's namespace.
        saved: the checkpoint, if it is one and can be read.
        fold: what the events up to here lead to; changes as the next ones are read.
    """

    event: RecordedEvent
    ns: str
    saved: Saved | None = None
    fold: Fold | None = None


def checkpoint_of(event: RecordedEvent) -> tuple[str, str] | None:
    """The namespace and the id of the checkpoint that an event, as stored, puts."""
    return parsed(event.key) if event.kind == CHECKPOINT and event.key else None


def is_checkpoint(entry: Entry) -> bool:
    """Whether an event is that of a checkpoint, readable or not."""
    return entry.event.kind == CHECKPOINT


def entries(store: EventStore, thread_id: str) -> Iterator[Entry]:
    """The events of a thread and of those it was copied from, oldest first."""
    return iterate_sync(read_entries(store.core, thread_id))


async def read_entries(
    core: Core, thread_id: str, upto: Position | None = None, after: Position | None = None
) -> AsyncGenerator[Entry, None]:
    """The events that led to a position of a thread, oldest first.

    Args:
        upto: ``None``: the end of the thread.
        after: only the events of the thread's own log behind this position; what they say is
            read without the whole history.
    """
    if after is not None and after.seq:
        fold = await fold_at(core, thread_id, after)
        events: AsyncIterator[Iterable[RecordedEvent]] = await core.read(
            thread_id, "", after.seq, None if upto is None else upto.seq
        )
    else:
        replay = await core.replay(thread_id, "", upto, snapshots=False)
        fold, events = _started(core, replay, thread_id), replay.events
    own = None if after is None else after.thread_key
    async with aclosing(events) as pages:  # type: ignore[type-var]
        async for page in pages:
            for event in page:
                found, fold = _next(event, fold)
                if own is None or (event.thread_key == own and not event.ns):
                    for entry in found:
                        yield entry


async def fold_at(core: Core, thread_id: str, at: Position) -> Fold | None:
    """What the events up to a position lead to; ``None``: they are encrypted."""
    replay = await core.replay(thread_id, "", at, snapshots.FINGERPRINT)
    fold = _started(core, replay, thread_id)
    async for page in replay.events:
        for event in page:
            if fold is None or (event.kind in KINDS and CIPHER in event.data):
                return None
            if event.kind in KINDS:
                fold.apply(event)
    return fold


def _started(core: Core, replay: Replay[Any], thread_id: str) -> Fold | None:
    """The fold that a replay begins with; ``None``: it is encrypted."""
    if replay.snapshot is None:
        return Fold(Seal(), thread_id)
    try:
        return snapshots.decoded(replay.snapshot, core.codec, Seal(), thread_id)[1]
    except ConfigurationError:
        return None


def _next(event: RecordedEvent, fold: Fold | None) -> tuple[list[Entry], Fold | None]:
    """An event made readable, and the fold behind it; ``None`` from an encrypted event on.

    One that holds writes and a checkpoint is shown as several, the writes first.
    """
    if event.kind not in KINDS:
        return [Entry(event, "")], fold
    if fold is None or CIPHER in event.data:
        return [_unread(event)], None
    before = dict(fold.spaces)
    closed = fold.apply(event)
    found = _stored_with(event, closed[0][1], before) if event.data.get(WITH) else []
    return [replace(each, fold=fold) for each in (*found, _entry(event, fold, before))], fold


def _stored_with(event: RecordedEvent, parent: Saved, before: dict[str, Namespace]) -> list[Entry]:
    """The writes that are stored in the event of the checkpoint that follows them, by task."""
    ns, _ = parsed(event.key or "")
    known = before[ns].leaves[parent.id].writes
    new = [(key, write) for key, write in parent.writes.items() if known.get(key) != write]
    return [
        Entry(event._replace(kind=WRITES, data=_written(ns, parent.id, list(writes)), key=None), ns)
        for _, writes in groupby(new, key=lambda item: item[0][0])
    ]


def find(store: EventStore, thread_id: str, ns: str, text: str) -> Entry | None:
    """A checkpoint by its id, its seq or ``latest``."""
    found: Entry | None = None
    for entry in entries(store, thread_id):
        if entry.saved is None or entry.ns != ns:
            continue
        is_wanted = text in (entry.saved.id, str(entry.event.seq))
        if is_wanted or (text == "latest" and (found is None or entry.saved.id > found.saved.id)):  # type: ignore[union-attr]
            found = entry
    return found


def values(saved: Saved) -> dict[str, Any]:
    """The values of a checkpoint's channels."""
    return {
        name: shown(channel.value.type, channel.value.data)
        for name, channel in saved.channels.items()
        if channel.value is not None
    }


def interrupts(saved: Saved) -> list[dict[str, Any]]:
    """The interrupts that wait at a checkpoint."""
    found = []
    for (task, _), write in ordered(saved.writes):
        if write.channel == INTERRUPT:
            value = shown(write.type, write.data)
            for each in value if isinstance(value, list | tuple) else [value]:
                name = getattr(each, "id", None)
                node = write.path.rpartition(", ")[2] or task
                found.append({"node": node, "id": name, "value": getattr(each, "value", each)})
    return found


async def pending_now(core: Core, thread_id: str) -> list[dict[str, Any]]:
    """The interrupts that wait at the latest checkpoints of a thread."""
    fold = await fold_at(core, thread_id, (await core.head(thread_id)).position)
    if fold is None:
        return []
    # The graph around repeats what an inner one asks.
    found: dict[Any, dict[str, Any]] = {}
    for space in fold.spaces.values():
        for each in interrupts(space.current) if space.current is not None else ():
            found[each["id"] or len(found)] = each
    return list(found.values())


def metadata(saved: Saved) -> dict[str, Any]:
    """The metadata of a checkpoint."""
    found = shown(*saved.meta)
    return found if isinstance(found, dict) else {}


# --- events -----------------------------------------------------------------------------


def _unread(event: RecordedEvent) -> Entry:
    data: dict[str, Any] = {"encrypted": event.data.get(CIPHER, True)}
    ns = event.data.get("ns", "")
    if event.key is not None:
        try:
            ns, data["checkpoint"] = parsed(event.key)
        except ValueError as error:
            raise CorruptEventError("its key is no checkpoint's").at(
                None, event.ns, event.seq
            ) from error
    return Entry(event._replace(data=data, key=None), ns)


def _entry(event: RecordedEvent, fold: Fold, before: dict[str, Any]) -> Entry:
    if event.kind == RESET:
        return Entry(event._replace(data={"says": "the history begins anew"}), "")
    if event.kind == CHECKPOINT:
        ns, name = parsed(event.key or "")
        saved = fold.spaces[ns].leaves[name]
        old = before[ns].leaves.get(saved.parent) if ns in before else None
        facts = metadata(saved)
        data = {
            "checkpoint": saved.id,
            "parent": saved.parent,
            **_named(ns),
            "step": facts.get("step"),
            "source": facts.get("source"),
            "changed": changes(old, saved),
        }
        return Entry(event._replace(data=data, key=None), ns, saved)
    ns, name = parsed(event.key) if event.key else _target(event, fold)
    leaf, old = fold.leaf(ns, name), before.get(ns)
    known = old.leaves[name].writes if old is not None and name in old.leaves else {}
    if leaf is not None:
        writes = leaf.writes
    elif (ns, name) in fold.early:
        writes = fold.early[ns, name]
    else:  # they came after a later checkpoint
        writes = dict(fold.writes_of(ns, event.data).writes)
    new = [(key, write) for key, write in writes.items() if known.get(key) != write]
    return Entry(event._replace(data=_written(ns, name, new), key=None), ns)


def _target(event: RecordedEvent, fold: Fold) -> tuple[str, str]:
    ns = event.data.get("ns", "")
    return ns, event.data.get("id") or fold.current_id(ns) or ""


def _written(ns: str, name: str, writes: list[tuple[Any, Write]]) -> dict[str, Any]:
    return {
        "checkpoint": name,
        **_named(ns),
        "task": writes[0][0][0] if writes else None,
        "node": writes[0][1].path.rpartition(", ")[2] if writes else "",
        "writes": [[write.channel, shown(write.type, write.data)] for _, write in writes],
    }


def _named(ns: str) -> dict[str, Any]:
    return {"ns": ns} if ns else {}


def changes(old: Saved | None, new: Saved) -> dict[str, Any]:
    """What changed of a checkpoint's channels; of a list that grew, only what was added."""
    before = old.channels if old is not None else {}
    found: dict[str, Any] = {}
    for name, channel in new.channels.items():
        known, value = before.get(name), channel.value
        if known == channel or (value is None and (known is None or known.value is None)):
            continue
        found[name] = None if value is None else _difference(known and known.value, value)
    return found


def _difference(old: Value | None, new: Value) -> Any:
    head, _ = overlap(old, new)
    if new.shape == ARRAY and old is not None and head == len(old.parts) < len(new.parts):
        return {"added": [shown(new.type, part) for part in new.parts[head:]]}
    return shown(new.type, new.data)


# --- values -----------------------------------------------------------------------------


def shown(kind: str, data: bytes) -> Any:
    """A serialized value, as far as it can be read without loading an application's types."""
    quiet = _SHOWING.set(True)
    try:
        serializer = _serializer()
        if serializer is not None and kind in ("msgpack", "json", "null", "bytes", "bytearray"):
            return serializer.loads_typed((kind, data))
        return _plain(kind, data)
    except Exception as error:  # whatever the bytes are, the rest of the thread can be shown
        return {"type": kind, "bytes": len(data), "unreadable": type(error).__name__}
    finally:
        _SHOWING.reset(quiet)


@cache
def _serializer() -> Any:
    """LangGraph's serializer, restricted to types that are safe to make; ``None``: not there."""
    try:
        from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
    except ImportError:
        return None
    # It warns of each type that it does not make. What that was made from is shown instead.
    logging.getLogger(JsonPlusSerializer.__module__).addFilter(lambda _: not _SHOWING.get())
    return JsonPlusSerializer(allowed_msgpack_modules=None)


def _plain(kind: str, data: bytes) -> Any:
    if kind == "null":
        return None
    if kind == "json":
        return json.loads(data)
    if kind == "msgpack":
        return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False)
    return data if kind in ("bytes", "bytearray") else {"type": kind, "bytes": len(data)}


def _extension(_code: int, data: bytes) -> Any:
    """An object of LangGraph's: the module and name of its class, and what it was made from."""
    found = msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False)
    if isinstance(found, list) and len(found) >= 3:
        return {"$type": f"{found[0]}.{found[1]}", "value": found[2]}
    return found
