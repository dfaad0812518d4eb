"""Retention: what the policies say now, what sweeps did, pins, tombstones, archives and storage."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Final

from eventstore import CorruptEventError, Stats, ThreadInfo, ThreadNotFoundError, Tombstone
from eventstore.explain.values import simple
from eventstore.models import from_micros, to_micros
from eventstore.ui.pages import BadRequest, Document, Query, command
from eventstore.ui.source import Source
from eventstore.ui.views.threads import thread_row
from retention.verdict import judge

PAGE: Final = 100
PAGE_OF_STORAGE: Final = 25

SECONDS: Final = 0.15
"""How long a page measures threads; the rest of the page is measured when it is asked for."""


def overview(query: Query) -> Document:
    """Policies, sweeps, pinned threads and the newest tombstones."""
    source = query.source
    pinned = source.run(source.core.threads(pinned=True, limit=PAGE))
    return {
        "view": "retention",
        "policies": [simple(each.described()) for each in source.policies],
        "sweeps": [
            {
                "sweep_id": each.sweep_id,
                "holder": each.holder,
                "started_at": each.started_at.isoformat(),
                "finished_at": each.finished_at and each.finished_at.isoformat(),
                "cutoff": each.cutoff.isoformat(),
                "counts": simple(dict(each.counts)),
            }
            for each in source.run(source.core.sweeps(20))
        ],
        "pinned": [thread_row(query, info) for info in pinned],
        **_tombstones(query, 20),
        "archive": None if source.archive is None else _named(source.archive),
        "command": command(source, "retention", "report"),
    }


def plan(query: Query) -> Document:
    """What the policies say about each thread now, by its row: a page in the order of keys."""
    source, limit = query.source, query.limit(PAGE)
    after = query.text("after")
    damaged: list[str] = []
    found = source.run(
        source.core.scan(
            after=_key(after) if after else None,
            limit=limit,
            on_damage=lambda each: damaged.append(each.problem),
        )
    )
    rows = []
    for info in found:
        verdict = judge(source.policies, info, query.now)
        actions = [
            name
            for name, holds in (
                ("prune", verdict.prune),
                ("trim", verdict.trim),
                ("seal", verdict.seal),
            )
            if holds
        ]
        rows.append(
            {
                **thread_row(query, info),
                "policy": verdict.policy.name if verdict.policy is not None else None,
                "reason": verdict.reason,
                "actions": actions,
            }
        )
    return {
        "view": "plan",
        "has_policies": bool(source.policies),
        "threads": rows,
        "next": f"{found[-1].thread_key:x}" if len(found) == limit else None,
        "damaged": [source.redaction.text("error", each) for each in damaged],
        "command": command(source, "retention", "plan", policies=source.options.get("policies")),
    }


def tombstones(query: Query) -> Document:
    """What is kept of deleted threads, the last deleted first."""
    return {
        "view": "tombstones",
        **_tombstones(query, query.limit(PAGE)),
        "command": command(query.source, "retention", "report"),
    }


def archive(query: Query) -> Document:
    """The threads in the operator's archive, a bounded number of them."""
    source, limit = query.source, query.limit(PAGE)
    found: list[Document] = []
    if source.archive is not None:
        from retention.archives import Archive

        for each in islice(Archive(source.archive).ls(source.store.tenant), limit):
            found.append(simple({"thread_id": each.thread_id, **asdict(each)}))
    return {
        "view": "archive",
        "archive": None if source.archive is None else _named(source.archive),
        "threads": found,
        "command": None
        if source.archive is None
        else command(source, "archive", "ls", archive=_named(source.archive)),
    }


def storage(query: Query) -> Document:
    """How much is stored: of the threads active last, with compression and sealed share."""
    source, limit = query.source, query.limit(PAGE_OF_STORAGE)
    after = query.text("after")
    place = None
    if after:
        micros, _, key = after.partition("-")
        try:
            place = from_micros(int(micros)), int(key, 16)
        except (ValueError, OverflowError):
            raise BadRequest("the parameter 'after' is not the end of a page") from None
    found = source.run(source.core.threads(after=place, limit=limit))
    rows: list[Document] = []
    ends = time.monotonic() + SECONDS
    for info in found:
        if rows and time.monotonic() > ends:
            break
        rows.append({"thread_id": info.thread_id, **_measured(source, info)})
    last = found[len(rows) - 1] if rows else None
    is_end = len(rows) == len(found) < limit
    total: Document | None = None
    if query.text("all"):
        total = _stats(source.run(source.core.stats()))
    return {
        "view": "storage",
        "tenant": source.store.tenant,
        "threads": rows,
        "total": total,
        "next": None
        if last is None or is_end
        else f"{to_micros(last.active_at)}-{last.thread_key:x}",
        "command": command(source, "stats"),
    }


def _measured(source: Source, info: ThreadInfo) -> Document:
    try:
        return _stats(source.run(source.core.stats(info.thread_id)))
    except (CorruptEventError, ThreadNotFoundError) as error:
        return {"problem": source.redaction.text("error", str(error))}


def _stats(found: Stats) -> Document:
    share = found.sealed_events / found.events if found.events else 0.0
    return {**asdict(found), "ratio": found.ratio, "sealed_share": share, "problem": None}


def _tombstones(query: Query, limit: int) -> Document:
    source, after = query.source, query.text("deleted_before")
    place = None
    if after:
        micros, _, key = after.partition("-")
        try:
            moment = from_micros(int(micros))
            place = _place(moment, int(key))
        except (ValueError, OverflowError):
            raise BadRequest("the parameter 'deleted_before' is not the end of a page") from None
    found = source.run(source.core.tombstones(limit, place))
    last = found[-1] if len(found) == limit else None
    return {
        "tombstones": [
            {
                "name_digest": each.name_digest.hex(),
                "erased": each.erased,
                "deleted_at": each.deleted_at.isoformat(),
                "reason": each.reason,
                "policy": each.policy,
                "asked_by": each.asked_by,
                "events": each.events,
                "bytes": each.bytes,
            }
            for each in found
        ],
        "next_tombstone": None
        if last is None
        else f"{to_micros(last.deleted_at)}-{last.thread_key}",
    }


def _place(deleted_at: datetime, key: int) -> Tombstone:
    return Tombstone(key, b"", "", deleted_at, "", 0, 0, None, None)


def _key(text: str) -> int:
    try:
        return int(text, 16) % 2**63
    except ValueError:
        raise BadRequest("the parameter 'after' is not the end of a page") from None


def _named(url: str) -> str:
    """An archive's URL without a password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}" if separator else url
