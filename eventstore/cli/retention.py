"""``eventstore retention``: what may be forgotten, and what must be kept."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from eventstore import SweepRecord, ThreadInfo, Tombstone
from eventstore.cli import archive, sweep
from eventstore.cli.options import (
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
from eventstore.cli.values import line, safe


def register(app: typer.Typer) -> None:
    """Add the group of all that is about retention."""
    group = typer.Typer(
        name="retention",
        help="Decide what to keep and for how long, and apply it.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    fill(group)
    app.add_typer(group)


def fill(group: typer.Typer) -> None:
    """Add the commands of the group."""
    sweep.register(group)
    group.command("pin")(pin)
    group.command("unpin")(unpin)
    group.command("ttl")(set_ttl)
    archive.register_retention(group)
    group.command("report")(report)


# --- one thread -------------------------------------------------------------------------


def pin(
    thread_id: ThreadId,
    db: Db,
    reason: Annotated[str, typer.Option(help="Why: a case, an order, a question.")],
    tenant: Tenant = "default",
    schema: Schema = None,
    by: Annotated[
        str | None, typer.Option(help="Who wants it; without this, the user of this computer.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Keep a thread whatever any policy says, until it is unpinned. JSON: the thread."""
    with writing(Target(db, tenant, schema)) as store:
        _tell(as_json, store.pin(thread_id, reason, by or getpass.getuser()), "is pinned")


def unpin(
    thread_id: ThreadId,
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Let policies decide about a thread again. JSON: the thread."""
    with writing(Target(db, tenant, schema)) as store:
        _tell(as_json, store.unpin(thread_id), "is not pinned any more")


def set_ttl(
    thread_id: ThreadId,
    length: Annotated[
        str, typer.Argument(metavar="DURATION|none", help="Such as 30d; none: as its policy says.")
    ],
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Give a thread a time to live of its own, from its last event on. JSON: the thread."""
    ttl = None if length == "none" else parse_duration(length)
    with writing(Target(db, tenant, schema)) as store:
        info = store.set_ttl(thread_id, ttl)
    said = "has no ttl of its own" if info.ttl is None else f"is kept for {duration(info.ttl)}"
    _tell(as_json, info, said)


def _tell(as_json: bool, info: ThreadInfo, said: str) -> None:
    out = Output(as_json)
    if as_json:
        out.json(thread_json(info))
    else:
        out.say(f"{safe(info.thread_id)} {said}")


# --- what was done ----------------------------------------------------------------------


def report(
    db: Db,
    tenant: Tenant = "default",
    schema: Schema = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Of each, at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Tell which sweeps ran, and what is left of the threads that were removed, newest first.

    Sweeps are of the whole database, removed threads of the tenant. JSON: one document.
    """
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        sweeps, tombstones = store.sweeps(limit), store.tombstones(limit)
    if as_json:
        out.json(
            {
                "sweeps": [_sweep(each) for each in sweeps],
                "removed": list(map(_tombstone_key, tombstones)),
            }
        )
        return
    names = ("SWEEP", "BEGAN (UTC)", "ENDED (UTC)", "JUDGED AT (UTC)", "BY", "COUNTS")
    rows = [
        (
            each.sweep_id,
            moment(each.started_at),
            moment(each.finished_at) or "not ended",
            moment(each.cutoff),
            each.holder,
            line(each.counts, chars=100),
        )
        for each in sweeps
    ]
    if rows:
        out.table(names, rows)
    else:
        out.say("no sweep has been recorded")
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
        out.say("no thread has been removed")


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


def _tombstone_key(each: Tombstone) -> dict[str, Any]:
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
