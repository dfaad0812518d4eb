"""One thread: its conversation, the timeline of its log, its logs and its branches."""

from __future__ import annotations

from typing import Any, Final

from eventstore import CorruptEventError, Position, ThreadInfo
from eventstore.explain import langgraph
from eventstore.explain.transcript import transcript
from eventstore.format.digests import is_prefix, origin
from eventstore.ui import events
from eventstore.ui.pages import Document, Query, command
from eventstore.ui.source import Source
from eventstore.ui.views.threads import thread_row

EVENTS: Final = 60
"""Events in a page of the timeline."""

LINES: Final = 100
"""Events that a page of the transcript is made of."""


def thread(query: Query) -> Document:
    """A thread: its transcript beside its timeline, the newest page of each first.

    ``before`` names the seq before which the page of the timeline ends.
    """
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    ns = query.text("ns")
    end = events.position(query, info)
    limit = query.limit(EVENTS)
    before = query.number("before", most=2**62)
    last = end.seq if before is None else max(0, min(end.seq, before - 1))
    found: Document = {
        "view": "thread",
        **thread_row(query, info),
        "ns": ns,
        "seq": end.seq,
        "is_langgraph": langgraph.is_langgraph(info),
        "questions": events.questions_of(source, info),
        "logs": _logs(source, thread_id),
        "origin": _origin(source, end),
        "command": command(source, "history", thread_id, ns=ns, limit=limit),
        "problem": None,
    }
    try:
        found |= _page(source, info, end, last, limit)
        found["transcript"] = lines(source, info, end._replace(seq=last), query)
    except events.READING as error:
        found |= {"timeline": [], "first": 0, "last": last, "newer": None, "older": None}
        found["transcript"] = {"lines": [], "earlier": None}
        found["problem"] = source.redaction.text("error", str(error))
    return found


def _page(source: Source, info: ThreadInfo, end: Position, last: int, limit: int) -> Document:
    first = max(1, last - limit + 1)
    extra = max(0, first - 2)
    page = events.read(source, info, end._replace(seq=extra), last)
    before = next((each for each in page if each.seq == first - 1), None)
    shown = [each for each in page if each.seq >= first]
    logs = source.run(source.core.namespaces(info.thread_id))
    groups = events.timeline(shown, before.recorded_us if before is not None else None, logs)
    path = [(1, end.seq)] if langgraph.is_langgraph(info) else events.spans(source, end, first)
    names: dict[int, str | None] = {end.thread_key: info.thread_id}
    for group in groups:
        for each in group["events"]:
            each["is_on_path"] = events.is_in(each["seq"], path)
            if "source" in each and len(each["source"]) == 3:
                try:
                    each["source"] = events.place(source, Position(*each["source"]), names)
                except (TypeError, CorruptEventError):
                    each["source"] = None
    begins = shown[0].seq if shown else first
    return {
        "timeline": groups,
        "first": begins,
        "last": last,
        "older": begins if begins > 1 and shown and first == begins else None,
        "newer": min(end.seq, last + limit) + 1 if last < end.seq else None,
    }


def lines(source: Source, info: ThreadInfo, at: Position, query: Query) -> Document:
    """A page of the transcript: the conversation that led to a position."""
    if not at.seq:
        return {"lines": [], "earlier": None}
    found, earlier = events.led_here(source, info, at, LINES)
    names: dict[int, str | None] = {at.thread_key: info.thread_id}
    shown: list[dict[str, Any]] = []
    for line in transcript(reversed(found)):
        where = events.place(source, line.at, names)
        at_time = line.recorded_us
        shown.append({**line.as_json(), **dict(line.extra), "where": where, "at": at_time})
    return {"lines": shown, "earlier": events.place(source, earlier, names)}


def talk(query: Query) -> Document:
    """The conversation that led to a position, alone."""
    source, thread_id = query.source, query.needed("id")
    info = source.run(source.core.thread(thread_id))
    at = events.position(query, info)
    return {
        "view": "transcript",
        "thread_id": thread_id,
        "ns": at.ns,
        "seq": at.seq,
        **lines(source, info, at, query),
        "command": command(source, "transcript", thread_id, ns=at.ns),
    }


def _logs(source: Source, thread_id: str) -> list[Document]:
    found = []
    for ns in source.run(source.core.namespaces(thread_id))[:200]:
        head = source.run(source.core.head(thread_id, ns))
        name = origin(0, ns)[1]
        found.append({"ns": ns, "last": head.seq, "is_copy": is_prefix(ns), "name": name})
    return found


def _origin(source: Source, end: Position) -> Document | None:
    """The position in another thread that this log was forked from."""
    at: Position | None = end
    for _ in range(events.BRANCHES_MAX):
        if at is None or not at.seq:
            return None
        lineage = source.run(source.core.lineage(at))
        if lineage.base is not None or (lineage.first == 1 and lineage.source is None):
            return None
        if lineage.source is not None and lineage.source[:2] != end[:2]:
            return events.place(source, lineage.source, {})
        at = lineage.source
    return None
