"""A checkpoint: its state as a tree, who wrote what, and what differs from another one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from eventstore import Position, ThreadInfo
from eventstore.explain import compare, langgraph
from eventstore.explain.blame import Write, blame
from eventstore.explain.texts import text_changes
from eventstore.explain.values import line
from eventstore.ui import events, states, tree
from eventstore.ui.pages import Document, NotFound, Query, command
from eventstore.ui.source import Source
from graph.build.channels import MISSING
from graph.errors import GraphError

CHANGES: Final = 100
"""Differences in a page."""

WRITES: Final = 50
"""Writes of a key that are listed, the newest."""

_LONG: Final = 40
"""Characters from which on a text's difference is shown line by line."""


ITEMS: Final = 20
"""Items added to a list that are shown, each in a line."""


def checkpoint(query: Query) -> Document:
    """The state at a position, and everything about it."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    found: Document = {
        "view": "checkpoint",
        "thread_id": thread_id,
        "thread_status": info.status,
        "ns": at.ns,
        "seq": at.seq,
        "problem": None,
        "event": None,
        "state": None,
        "keys": [],
        "command": command(source, "events", thread_id, ns=at.ns, upto=at.seq, last=1, full=True),
    }
    if not at.seq:
        return {**found, "problem": "this log has no events", "prev": None, "next_seq": None}
    end = source.run(source.core.head(thread_id, at.ns)).seq
    found["prev"] = at.seq - 1 if at.seq > 1 else None
    found["next_seq"] = at.seq + 1 if at.seq < end else None
    try:
        here = events.one(source, info, at)
        found["event"] = {**events.row(here), "key": here.key, "digest": here.digest.hex()}
    except (NotFound, *events.READING) as error:
        found["problem"] = source.redaction.text("error", str(error))
    try:
        shown = states.state(source, info, at)
    except (*events.READING, GraphError) as error:
        found["problem"] = source.redaction.text("error", str(error))
        return found
    if shown is None:
        return found
    names: dict[int, str | None] = {at.thread_key: thread_id}
    found["state"] = {
        **shown.facts,
        "at": events.place(source, shown.checkpoint, names),
        "parent": events.place(source, shown.parent, names),
    }
    written = _writers(source, info, at, names)
    found["keys"] = [
        {
            **tree.outline(name, value, (number,)),
            "assumed": name in shown.assumed,
            "writer": written.get(name),
        }
        for number, (name, value) in enumerate(islice(shown.values.items(), 500))
    ]
    return found


def part(query: Query) -> Document:
    """A part of a state, a level deep."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    values = dict(states.needed(source, info, at).values)
    path = events.path_of(query)
    labels, value = events.part(values, path)
    return {
        "view": "state",
        "thread_id": thread_id,
        "ns": at.ns,
        "seq": at.seq,
        "labels": labels,
        "tree": tree.node(labels[-1] if labels else "state", value, path, events.offset(query)),
    }


# --- who wrote it -----------------------------------------------------------------------


def _writers(
    source: Source, info: ThreadInfo, at: Position, names: dict[int, str | None]
) -> Mapping[str, Document]:
    """Who wrote each key last, as far as the newest events tell."""
    if langgraph.is_langgraph(info):
        return {}
    try:
        found = source.run(blame(source.core, info.thread_id, at, events_max=400))
    except events.READING:
        return {}
    return {key: _write(source, key, writes[-1], names) for key, writes in found.writes.items()}


def _value(source: Source, key: str, write: Write) -> Any:
    """What was written, as it may be shown: a path to hide begins with the key."""
    found = source.redaction.apply("state", {key: write.value})
    return found.get(key) if isinstance(found, Mapping) else found


def _write(source: Source, key: str, write: Write, names: dict[int, str | None]) -> Document:
    return {
        "at": events.place(source, write.at, names),
        "kind": write.kind,
        "node": write.node,
        "recorded_us": write.recorded_us,
        "read": events.place(source, write.read, names),
        "value": line(_value(source, key, write), chars=300),
        "argument": None
        if write.argument is MISSING
        else line(source.redaction.apply("state", write.argument), chars=300),
    }


def who(query: Query) -> Document:
    """Who wrote a key of the state, or a part of it: from a value to its cause."""
    source, thread_id, key = query.source, query.needed("id"), query.needed("key")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    path = events.path_of(query)
    names: dict[int, str | None] = {at.thread_key: thread_id}
    found: Document = {
        "view": "blame",
        "thread_id": thread_id,
        "ns": at.ns,
        "seq": at.seq,
        "key": key,
        "labels": [],
        "value": None,
        "writes": [],
        "cause": None,
        "earlier": None,
        "searched": 0,
        "command": command(source, "blame", thread_id, key, ns=at.ns, at=at.seq),
    }
    if langgraph.is_langgraph(info):
        return {**found, **_of_langgraph(source, info, at, key, names)}
    part_of = None
    if path:
        values = dict(states.needed(source, info, at).values)
        found["labels"], part_of = events.part(values, path)
        found["value"] = line(part_of, chars=300)
    origin = query.number("from", most=2**62)
    start = at if origin is None else at._replace(seq=min(origin, at.seq))
    result = source.run(blame(source.core, thread_id, start, [key]))
    writes = result.writes.get(key, [])
    cause = _cause(source, key, writes, part_of) if path[1:] else None
    found["writes"] = [_write(source, key, each, names) for each in writes[: -WRITES - 1 : -1]]
    found["cause"] = None if cause is None else _write(source, key, cause, names)
    found["earlier"] = events.place(source, result.earlier, names)
    found["searched"] = result.searched
    return found


def _cause(source: Source, key: str, writes: list[Write], value: Any) -> Write | None:
    """The newest write that holds a value."""
    for write in reversed(writes):
        hidden = _value(source, key, write)
        if compare.same(hidden, value) or (
            isinstance(hidden, list) and any(compare.same(each, value) for each in hidden)
        ):
            return write
    return None


def _of_langgraph(
    source: Source, info: ThreadInfo, at: Position, key: str, names: dict[int, str | None]
) -> Document:
    """The checkpoints of a LangGraph thread that changed a key, newest first.

    Writes name the checkpoint that their node read; they may be stored behind the next one.
    """
    found: list[tuple[langgraph.Entry, str | None]] = []
    nodes: dict[str, list[str]] = {}
    places: dict[str, Position] = {}
    searched = 0
    for entry in source.each(langgraph.read_entries(source.core, info.thread_id)):
        searched += 1
        data = entry.event.data
        if entry.saved is not None:
            places[entry.saved.id] = entry.event.position
            if key in data.get("changed", {}) and entry.event.seq <= at.seq:
                found.append((entry, entry.saved.parent))
        elif isinstance(data, dict) and isinstance(data.get("writes"), list):
            if key in [pair[0] for pair in data["writes"]]:
                nodes.setdefault(str(data.get("checkpoint")), []).append(str(data.get("node", "")))
    writes = []
    for entry, parent in found[: -WRITES - 1 : -1]:
        value = source.redaction.apply("state", {key: entry.event.data["changed"][key]})
        writes.append(
            {
                "at": events.place(source, entry.event.position, names),
                "kind": "checkpoint",
                "node": ", ".join(dict.fromkeys(nodes.get(parent or "", ()))),
                "recorded_us": entry.event.recorded_us,
                "read": events.place(source, places.get(parent or ""), names),
                "value": line(value[key] if isinstance(value, Mapping) else value, chars=300),
                "argument": None,
            }
        )
    return {"writes": writes, "searched": searched}


# --- differences ------------------------------------------------------------------------


def diff(query: Query) -> Document:
    """What differs between the states at two positions, structurally, with texts line by line.

    ``to`` names the seq of the older one, by default the checkpoint before; ``to_id`` its thread.
    """
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    newer = states.needed(source, info, at)
    other_id = query.text("to_id") or thread_id
    other = info if other_id == thread_id else source.run(source.core.thread(other_id))
    seq = query.number("to", most=2**62)
    names: dict[int, str | None] = {at.thread_key: thread_id}
    if seq is None and other_id == thread_id:
        before = newer.parent or at._replace(seq=max(0, newer.checkpoint.seq - 1))
    else:
        head = source.run(source.core.head(other_id, at.ns))
        if seq is not None and seq > head.seq:
            raise NotFound(f"the log ends at seq {head.seq}; there is no event at seq {seq}")
        before = head.position if seq is None else head.position._replace(seq=seq)
    older: Mapping[str, Any] = {}
    if before.seq:
        before_info = other
        if before.thread_key not in (at.thread_key, other.thread_key):
            owner = source.run(source.core.thread_at(before.thread_key))
            before_info = owner or other
        older = states.needed(source, before_info, before).values
    found = list(islice(compare.changes(dict(older), dict(newer.values)), CHANGES + 1))
    return {
        "view": "diff",
        "thread_id": thread_id,
        "ns": at.ns,
        "seq": at.seq,
        "from": events.place(source, before, names),
        "changes": [_change(each) for each in found[:CHANGES]],
        "more": len(found) > CHANGES,
        "command": _diff_command(source, info, before, at),
    }


def _diff_command(source: Source, info: ThreadInfo, before: Position, at: Position) -> str:
    """The command that compares, or, where that needs an application, the events between."""
    app = source.options.get("app")
    is_own = before.thread_key == at.thread_key
    if is_own and (app is not None or langgraph.is_langgraph(info)):
        ends = (str(before.seq), str(at.seq))
        return command(source, "diff", info.thread_id, *ends, ns=at.ns, app=app)
    after = before.seq if is_own else 0
    return command(source, "events", info.thread_id, ns=at.ns, after=after, upto=at.seq, full=True)


def _change(change: compare.Change) -> Document:
    before, after = change.before, change.after
    found: Document = {"path": change.path, "change": change.kind}
    if isinstance(before, str) and isinstance(after, str) and max(len(before), len(after)) > _LONG:
        text = text_changes(before, after)
        if text:  # else they differ in the ends of lines alone
            return {**found, "text": text}
    for name, value in change.values().items():
        found[name] = line(value, chars=600)
    items = change.values().get("after", change.values().get("before"))
    if len(change.values()) == 1 and isinstance(items, list):
        found["members"] = [line(each, chars=600) for each in items[:ITEMS]]
        found["more"] = max(0, len(items) - ITEMS)
    return found
