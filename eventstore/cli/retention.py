"""``eventstore retention``: pin threads, set their time to live, and report what was removed.

Also assembles the group: its other commands are in :mod:`eventstore.cli.sweep` and
:mod:`eventstore.cli.archive`.
"""

from __future__ import annotations

import getpass
from dataclasses import fields
from typing import Annotated, Any

import typer

from eventstore import SweepRecord, ThreadInfo, Tombstone
from eventstore.cli import archive, sweep
from eventstore.cli.options import (
    LIMIT_MAX,
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    ThreadId,
    parse_duration,
    reading,
    writing,
)
from eventstore.cli.output import Output, duration, iso, moment, size
from eventstore.cli.threads import thread_json
from eventstore.explain.values import safe
from retention import SweepReport


def register(app: typer.Typer) -> None:
    """Add the group ``retention``."""
    group = typer.Typer(
        name="retention",
        help="Decide what to keep and for how long, and apply it.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    sweep.register(group)
    group.command("pin")(pin)
    group.command("unpin")(unpin)
    group.command("ttl")(set_ttl)
    archive.register_retention(group)
    group.command("report")(report)
    app.add_typer(group)


# --- one thread -------------------------------------------------------------------------


def pin(
    thread_id: ThreadId,
    db: Db,
    reason: Annotated[str, typer.Option(help="Why: a case, an order.")],
    tenant: Tenant = "default",
    schema: Schema = None,
    by: Annotated[
        str | None, typer.Option(help="Who asked for it; by default the user of this computer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep a thread, whatever its policy says, until it is unpinned. JSON: the thread."""
    with writing(Target(db, tenant, schema)) as store:
        _print_thread(as_json, store.pin(thread_id, reason, by or getpass.getuser()), "is pinned")


def unpin(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Let policies apply to a thread again. JSON: the thread."""
    with writing(Target(db, tenant, schema)) as store:
        _print_thread(as_json, store.unpin(thread_id), "is no longer pinned")


def set_ttl(
    thread_id: ThreadId,
    length: Annotated[
        str, typer.Argument(metavar="DURATION|none", help="Such as 30d; none to follow its policy.")
    ],
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Set a thread's own time to live, counted from its last event. JSON: the thread."""
    ttl = None if length == "none" else parse_duration(length)
    with writing(Target(db, tenant, schema)) as store:
        info = store.set_ttl(thread_id, ttl)
    text = "has no ttl of its own" if info.ttl is None else f"is kept for {duration(info.ttl)}"
    _print_thread(as_json, info, text)


def _print_thread(as_json: bool, info: ThreadInfo, text: str) -> None:
    out = Output(as_json)
    if as_json:
        out.json(thread_json(info))
    else:
        out.say(f"{safe(info.thread_id)} {text}")


# --- report ----------------------------------------------------------------------------


def report(
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="Show at most this many of each.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """List sweeps and the tombstones of removed threads, newest first.

    Sweeps of all tenants, tombstones of this tenant. JSON: one document.
    """
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        sweeps, tombstones = store.sweeps(limit), store.tombstones(limit)
    if as_json:
        out.json(
            {
                "sweeps": [_sweep(each) for each in sweeps],
                "removed": list(map(_tombstone, tombstones)),
            }
        )
        return
    names = ("SWEEP", "STARTED (UTC)", "FINISHED (UTC)", "JUDGED AT (UTC)", "BY", "DID")
    rows = [
        (
            each.sweep_id,
            moment(each.started_at),
            moment(each.finished_at) or "not finished",
            moment(each.cutoff),
            each.holder,
            _summary(each),
        )
        for each in sweeps
    ]
    if rows:
        out.table(names, rows)
    else:
        out.say("no sweeps recorded")
    out.say()
    removed = [
        (
            moment(each.deleted_at),
            "erased" if each.erased else f"{each.thread_key:016x}",
            each.events,
            size(each.bytes),
            each.policy or "",
            each.asked_by or "",
            each.reason,
        )
        for each in tombstones
    ]
    if removed:
        titles = ("REMOVED (UTC)", "KEY", "EVENTS", "SIZE", "POLICY", "ASKED BY", "REASON")
        out.table(titles, removed, right="EVENTS SIZE")
    else:
        out.say("no threads removed")


def _summary(each: SweepRecord) -> str:
    """What a recorded sweep did; the version that recorded it may have counted other things."""
    known = {field.name for field in fields(SweepReport)}
    counts = {name: number for name, number in each.counts.items() if name in known}
    return SweepReport(each.cutoff, **counts).summary if counts else ""


def _sweep(each: SweepRecord) -> dict[str, Any]:
    return {
        "sweep_id": each.sweep_id,
        "holder": each.holder,
        "started_at": iso(each.started_at),
        "finished_at": iso(each.finished_at),
        "cutoff": iso(each.cutoff),
        "policy": each.policy,
        "counts": each.counts,
    }


def _tombstone(each: Tombstone) -> dict[str, Any]:
    return {
        "thread_key": None if each.erased else f"{each.thread_key:016x}",
        "name_digest": each.name_digest.hex(),
        "tenant": each.tenant,
        "deleted_at": iso(each.deleted_at),
        "reason": each.reason,
        "events": each.events,
        "bytes": each.bytes,
        "policy": each.policy,
        "asked_by": each.asked_by,
        "erased": each.erased,
    }
