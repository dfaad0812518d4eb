"""The list of threads: filters, pages, sizes, and those that wait for a person."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from eventstore import ThreadInfo
from eventstore.models import STATUSES, from_micros, to_micros
from eventstore.ui.events import questions_of
from eventstore.ui.pages import BadRequest, Document, Query, command
from eventstore.ui.source import Source
from retention.verdict import judge

PAGE: Final = 50

SECONDS: Final = 0.25
"""How long a page counts threads of tenants."""

PAGE_OF_WAITING: Final = 20
"""Fewer, because the log of each is read for its questions."""


def threads(query: Query) -> Document:
    """A page of threads, the most recently active first."""
    source, limit = query.source, query.limit(PAGE)
    filters = _filters(query)
    wanted: dict[str, Any] = {
        "status": filters["status"] or None,
        "prefix": filters["prefix"] or None,
        "metadata": _metadata(query.metadata),
        "active_since": _time(query, "since"),
        "active_until": _time(query, "until"),
        "pinned": True if filters["pinned"] else None,
    }
    damaged: list[str] = []
    found = source.run(
        source.core.threads(
            **wanted,
            after=_place(query),
            limit=limit + 1,
            on_damage=lambda each: damaged.append(each.problem),
        )
    )
    rows = [thread_row(query, info) for info in found[:limit]]
    following = found[limit - 1] if len(found) > limit else None
    return {
        "view": "threads",
        "threads": rows,
        "filters": {**filters, "metadata": list(query.metadata)},
        "statuses": list(STATUSES),
        "next": None if following is None else _cursor(following),
        "is_first": not query.text("after"),
        "damaged": [source.redaction.text("error", each) for each in damaged],
        "command": command(
            source,
            "threads",
            status=filters["status"],
            prefix=filters["prefix"],
            metadata=[each for each in query.metadata if each.strip()],
            since=filters["since"],
            until=filters["until"],
            pinned=filters["pinned"],
            limit=limit,
        ),
    }


def counts(query: Query) -> Document:
    """The number of threads by status. Goes through all of them, so lists ask for it later."""
    source = query.source
    return {
        "view": "counts",
        "counts": source.run(source.core.thread_counts()),
        "command": command(source, "stats"),
    }


def tenants(query: Query) -> Document:
    """The tenants that have threads, and how many, as far as they are counted quickly."""
    source, limit, after = query.source, query.limit(PAGE), query.text("after")
    found = source.run(source.core.tenants()) if source.all_tenants else [source.store.tenant]
    found = [each for each in found if each > after]
    rows: list[Document] = []
    ends = time.monotonic() + SECONDS
    for name in found[:limit]:
        if rows and time.monotonic() > ends:
            rows.append({"tenant": name, "counts": None})
            continue
        counts = source.run(source.of_tenant(name).core.thread_counts())
        rows.append({"tenant": name, "counts": counts})
    return {
        "view": "tenants",
        "tenants": rows,
        "next": found[limit - 1] if len(found) > limit else None,
        "command": command(source, "tenants"),
    }


def waiting(query: Query) -> Document:
    """Threads that wait for a person, with what they ask and since when."""
    source, limit = query.source, query.limit(PAGE_OF_WAITING)
    found = source.run(source.core.threads(status="waiting", after=_place(query), limit=limit + 1))
    rows = []
    for info in found[:limit]:
        row = thread_row(query, info)
        row["waiting_since"] = _since(source, info)
        row["questions"] = questions_of(source, info)
        rows.append(row)
    following = found[limit - 1] if len(found) > limit else None
    return {
        "view": "waiting",
        "threads": rows,
        "next": None if following is None else _cursor(following),
        "command": command(source, "waiting", limit=limit),
    }


def sizes(query: Query) -> Document:
    """The events and stored bytes of the threads of a page, by thread key, and since when those
    that wait do so.
    """
    source = query.source
    keys = query.text("keys").split(",")[:500]
    if not all(key and set(key) <= set("0123456789abcdef") and len(key) <= 16 for key in keys):
        raise BadRequest("the parameter 'keys' must be thread keys, separated by commas")
    rows = (source.run(source.core.thread_at(int(key, 16) % 2**63)) for key in keys)
    infos = [info for info in rows if info is not None]
    found = source.run(source.core.stored(infos))
    sizes: Document = {}
    for info in infos:
        count, size = found[info.thread_key]
        since = _since(source, info) if info.status == "waiting" else None
        sizes[f"{info.thread_key:016x}"] = {"events": count, "bytes": size, "waiting_since": since}
    return {"view": "sizes", "sizes": sizes}


def _since(source: Source, info: ThreadInfo) -> str | None:
    """Since when a thread waits: its newest event."""
    recorded_us = source.run(source.core.last_recorded_us(info.thread_id))
    return from_micros(recorded_us).isoformat() if recorded_us else None


def thread_row(query: Query, info: ThreadInfo) -> Document:
    """A thread as lists show it."""
    source = query.source
    return {
        "thread_id": info.thread_id,
        "tenant": info.tenant,
        "status": info.status,
        "created_at": info.created_at.isoformat(),
        "active_at": info.active_at.isoformat(),
        "ttl_seconds": info.ttl,
        "expires": expires(source, info, query.now),
        "pinned": info.pinned,
        "pin": info.pin
        and {"reason": info.pin.reason, "by": info.pin.by, "at": info.pin.at.isoformat()},
        "metadata": source.redaction.apply("metadata", dict(info.metadata)),
        "thread_key": f"{info.thread_key:016x}",
    }


def expires(source: Source, info: ThreadInfo, now: datetime) -> Document | None:
    """When a thread will go, as far as its row and the operator's policies say it."""
    if source.policies:
        verdict = judge(source.policies, info, now)
        name = verdict.policy.name if verdict.policy is not None else None
        own = None if info.ttl is None else timedelta(seconds=info.ttl)
        ttl = own if own is not None else getattr(verdict.policy, "ttl", None)
        kept = verdict.policy is None or verdict.reason in ("pinned", "waiting", "no limits")
        at = None if kept or ttl is None else _plus(info.active_at, ttl)
        return {"policy": name, "reason": verdict.reason, "now": verdict.prune, "at": at}
    if info.ttl is None:
        return None
    if info.pinned:
        return {"policy": None, "reason": "pinned", "now": False, "at": None}
    at = _plus(info.active_at, timedelta(seconds=info.ttl))
    return {"policy": None, "reason": "its own ttl", "now": False, "at": at}


def _plus(moment: datetime, span: timedelta) -> str | None:
    try:
        return (moment + span).isoformat()
    except OverflowError:
        return None


# --- filters ----------------------------------------------------------------------------


def _filters(query: Query) -> dict[str, Any]:
    status = query.text("status")
    if status and status not in STATUSES:
        raise BadRequest(f"the parameter 'status' must be one of {', '.join(STATUSES)}")
    return {
        "status": status,
        "prefix": query.text("prefix"),
        "since": query.text("since"),
        "until": query.text("until"),
        "pinned": query.text("pinned") in ("1", "on", "true"),
    }


def _metadata(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        if not pair.strip():
            continue
        key, separator, text = pair.partition("=")
        if not separator:
            raise BadRequest("the parameter 'metadata' must have the form KEY=VALUE")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if not isinstance(value, str | int | float | bool | None):
            value = text
        found[key] = value
    return found


def _time(query: Query, name: str) -> datetime | None:
    text = query.text(name)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(
            f"the parameter {name!r} must be a time such as 2026-01-31T12:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _cursor(info: ThreadInfo) -> str:
    return f"{to_micros(info.active_at)}-{info.thread_key:x}"


def _place(query: Query) -> tuple[datetime, int] | None:
    text = query.text("after")
    if not text:
        return None
    micros, _, key = text.partition("-")
    try:
        return from_micros(int(micros)), int(key, 16)
    except (ValueError, OverflowError):
        raise BadRequest("the parameter 'after' is not the end of a page") from None
