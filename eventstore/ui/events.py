"""Events as views show them: read from logs of our runtime and of LangGraph's alike, redacted.

Owns the places of a log that are pages (keyset paging by seq), and which of its events still lead
to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from eventstore import CorruptEventError, LineageMovedError, Position, RecordedEvent, ThreadInfo
from eventstore.explain import describe, langgraph, questions
from eventstore.explain.trail import trail
from eventstore.explain.values import simple, text_of
from eventstore.format.digests import origin
from eventstore.format.namespaces import join, split
from eventstore.ui import tree
from eventstore.ui.pages import Document, NotFound, Query, command
from eventstore.ui.source import Source
from graph.state.events import updates_of

BRANCHES_MAX: Final = 1_000
"""Forks that are followed to know which events lead to the end of a log."""


def position(query: Query, info: ThreadInfo) -> Position:
    """The position that an address names: the thread's, in log ``ns``, at ``seq`` or its end."""
    ns, seq = query.text("ns"), query.number("seq", most=2**62)
    head = query.source.run(query.source.core.head(info.thread_id, ns))
    if not head.seq and ns:
        raise NotFound(f"thread {info.thread_id!r} has no log {ns!r}")
    if seq is not None and not 1 <= seq <= max(head.seq, 1):
        raise NotFound(f"the log ends at seq {head.seq}; there is no event at seq {seq}")
    return head.position if seq is None else head.position._replace(seq=seq)


def read(source: Source, info: ThreadInfo, after: Position, upto: int) -> list[RecordedEvent]:
    """The events of a log of a thread after a position, made readable and redacted."""
    if langgraph.is_langgraph(info) and not after.ns:
        end = after._replace(seq=upto)
        entries = langgraph.read_entries(source.core, info.thread_id, end, after)
        found = [entry.event for entry in source.each(entries)]
    else:
        found = source.events(info.thread_id, after.ns, after.seq, upto)
    return [redacted(source, event) for event in found]


def redacted(source: Source, event: RecordedEvent) -> RecordedEvent:
    """An event with what may be shown of its data."""
    if not source.redaction.hides:
        return event
    return event._replace(data=source.redaction.apply("event", event.data))


def led_here(
    source: Source, info: ThreadInfo, at: Position, limit: int
) -> tuple[list[RecordedEvent], Position | None]:
    """The events that led to a position, newest first, and the position before them."""
    if langgraph.is_langgraph(info):
        found = read(source, info, at._replace(seq=max(0, at.seq - limit)), at.seq)
        first = found[0].seq if found else 1
        return found[::-1], at._replace(seq=first - 1) if first > 1 else None
    page = source.run(trail(source.core, info.thread_id, at, limit))
    return [redacted(source, event) for event in page.events], page.earlier


def spans(source: Source, at: Position, first: int) -> list[tuple[int, int]]:
    """The seqs of a log, from ``first`` on, that led to a position of it: spans of two ends."""
    found: list[tuple[int, int]] = []
    here: Position | None = at
    for _ in range(BRANCHES_MAX):
        if here is None or here[:2] != at[:2] or here.seq < first:
            return found
        lineage = source.run(source.core.lineage(here))
        found.append((lineage.first, here.seq))
        here = lineage.source
    return [*found, (0, found[-1][0])]


def is_in(seq: int, found: Sequence[tuple[int, int]]) -> bool:
    """Whether a seq is in one of some spans."""
    return any(first <= seq <= last for first, last in found)


def owner(source: Source, thread_key: int) -> str | None:
    """The id of the thread under a key, if there is one."""
    found = source.run(source.core.thread_at(thread_key))
    return None if found is None else found.thread_id


def place(source: Source, at: Position | None, names: dict[int, str | None]) -> Document | None:
    """A position as views link to it."""
    if at is None or not at.seq:
        return None
    key, ns = origin(at.thread_key, at.ns)
    if key not in names:
        names[key] = owner(source, key)
    return {"thread_id": names[key], "ns": ns, "seq": at.seq}


def row(event: RecordedEvent) -> Document:
    """An event in a line of a timeline."""
    kind = describe.kind_of(event)
    data = event.data if isinstance(event.data, dict) else {}
    parts = [part for part in updates_of(data) if isinstance(part, dict)]
    found: Document = {
        "seq": event.seq,
        "ns": event.ns,
        "kind": kind,
        "node": describe.node_of(event),
        "step": describe.step_of(event),
        "recorded_at": event.recorded_at.isoformat(),
        "says": describe.sentence(event),
        "writes": list(dict.fromkeys(key for p in parts for key in describe.written_keys(p))),
        "next": [node for part in parts for node in describe.next_nodes(part)],
        "bytes": event.size,
    }
    task = data.get("task")
    if type(task) is int:
        found["task"] = task
    if kind == "error":
        found["error"] = {
            "type": text_of(data["type"]),
            "message": text_of(data["message"]),
            "attempts": simple(data.get("attempts")),
        }
    elif kind == "output" and isinstance(data.get("failed"), list):
        found["retries"] = [": ".join(map(text_of, each)) for each in data["failed"]]
    if kind == "fork" and isinstance(data.get("source"), list | tuple):
        found["source"] = simple(data["source"])
    if isinstance(data.get("metadata"), dict) and data["metadata"]:
        found["metadata"] = simple(data["metadata"])
    if isinstance(data.get("checkpoint"), str):
        found["checkpoint"] = data["checkpoint"]
    return found


def one(source: Source, info: ThreadInfo, at: Position) -> RecordedEvent:
    """The event at a position, made readable and redacted."""
    found = read(source, info, at._replace(seq=at.seq - 1), at.seq)
    event = next((event for event in found if event.seq == at.seq), None)
    if event is None:
        raise NotFound(f"the event at seq {at.seq} is gone: history before it was trimmed")
    return event


def event(query: Query) -> Document:
    """One event: what it says, its data as a tree, its digest and size."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = position(query, info)
    found = one(source, info, at)
    value = found.data
    path = path_of(query)
    labels, value = part(value, path)
    return {
        "view": "event",
        "thread_id": thread_id,
        "ns": at.ns,
        **row(found),
        "key": found.key,
        "digest": found.digest.hex(),
        "labels": labels,
        "tree": tree.node(labels[-1] if labels else "data", value, path, offset(query)),
        "command": command(
            source, "events", thread_id, ns=at.ns, after=at.seq - 1, upto=at.seq, full=True
        ),
    }


def path_of(query: Query) -> tree.Path:
    """The part of a value that an address names."""
    try:
        return tree.parse(query.text("path"))
    except ValueError:
        raise NotFound("there is no such part") from None


def part(value: Any, path: tree.Path) -> tuple[list[str], Any]:
    """A part of a value.

    Raises:
        NotFound: there is none.
    """
    try:
        return tree.part(value, path)
    except LookupError:
        raise NotFound("there is no such part") from None


def offset(query: Query) -> int:
    """Where a page of a part begins."""
    return query.number("offset", 0) or 0


def questions_of(source: Source, info: ThreadInfo) -> list[Document]:
    """What a thread waits for, if it waits."""
    if info.status != "waiting":
        return []
    found = source.run(questions.pending(source.core, info))
    return [simple(source.redaction.apply("question", each)) for each in found]


READING: Final = (CorruptEventError, LineageMovedError)
"""Errors of one log that leave the rest of a page readable."""


def timeline(
    events: Iterable[RecordedEvent], before_us: int | None, logs: Iterable[str] = ()
) -> list[Document]:
    """Events by supersteps: those that belong together, with how long each took.

    Args:
        before_us: when the event before them was recorded.
        logs: names of the thread's logs, of which those of subgraphs are put to their superstep.
    """
    groups: list[Document] = []
    began = before_us
    for each in events:
        line = row(each)
        is_task = line["kind"] in ("output", "error") and line["step"] is not None
        known = groups[-1] if groups else None
        if not (is_task and known is not None and known["step"] == line["step"] and known["tasks"]):
            groups.append({"step": line["step"], "tasks": is_task, "events": []})
            began = before_us
        if is_task and began is not None:
            line["seconds"] = max(0, each.recorded_us - began) / 1_000_000
        groups[-1]["events"].append(line)
        before_us = each.recorded_us
    for group in groups:
        group["logs"] = []
    tasks = [group for group in groups if group["tasks"]]
    for ns, began in _inside(logs, groups[0]["events"][0]["ns"]) if groups else ():
        later = [each for each in tasks if each["events"][0]["seq"] > began]
        if later and (later[0] is not tasks[0] or began >= groups[0]["events"][0]["seq"]):
            later[0]["logs"].append(ns)
    return groups


def _inside(logs: Iterable[str], ns: str) -> Iterator[tuple[str, int]]:
    """The logs of subgraphs right inside a log, and the seq at which their superstep began."""
    for each in logs:
        levels = split(origin(0, each)[1])
        began = levels[-1].began if levels else None
        if began is not None and join(levels[:-1]) == origin(0, ns)[1]:
            yield each, began
