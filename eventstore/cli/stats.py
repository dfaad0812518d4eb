"""Commands that look after a database: ``stats``, ``verify``, ``migrate``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from eventstore import CorruptEventError, EventStore, Stats, ThreadNotFoundError, VerifyReport
from eventstore.cli.exits import FOUND, Failed
from eventstore.cli.history import reader_of
from eventstore.cli.options import (
    App,
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    codec_of,
    load_app,
    reading,
    shown,
    writing,
)
from eventstore.cli.output import Output, size
from eventstore.cli.threads import PAGE
from eventstore.cli.values import counted, safe
from eventstore.concurrency import run_sync

Threads = Annotated[
    list[str] | None, typer.Argument(metavar="[THREAD]…", help="Which threads; none: all of them.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("stats")(stats)
    app.command("verify")(verify)
    app.command("migrate")(migrate)


def thread_ids(store: EventStore) -> Iterator[str]:
    """The names of a tenant's threads, a page at a time."""
    after = None
    while page := store.threads(after=after, limit=PAGE):
        yield from (info.thread_id for info in page)
        after = page[-1]


# --- stats ------------------------------------------------------------------------------


def stats(
    db: Db,
    threads: Threads = None,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Say how much is stored, of some threads or of all of a tenant's. JSON: one document."""
    out = Output(as_json)
    with reading(Target(db, tenant, schema)) as store:
        counts = store.thread_counts()
        total = len(threads) if threads else sum(counts.values())
        found, damaged = Stats(0, 0, 0, 0, 0, 0), []
        with out.progress("counting", total) as advance:
            for thread_id in threads or thread_ids(store):
                try:
                    found = _sum(found, store.stats(thread_id))
                except CorruptEventError:
                    damaged.append(thread_id)
                except ThreadNotFoundError:
                    if threads:  # else it was deleted while the others were counted
                        raise
                advance(1)
        where = shown(store)
    by_status = {} if threads else counts
    if as_json:
        ratio = {"ratio": round(found.ratio, 3), "by_status": by_status, "damaged": damaged}
        out.json({"tenant": tenant, **asdict(found), **ratio})
    else:
        said = ", ".join(f"{count} {safe(name)}" for name, count in sorted(by_status.items()))
        out.facts(
            [
                ("database", where),
                ("tenant", tenant),
                ("threads", f"{found.threads}" + (f" ({said})" if said else "")),
                ("events", f"{found.events:,}"),
                ("payloads", f"{size(found.stored_bytes)}, {size(found.raw_bytes)} unpacked"),
                ("ratio", f"{found.ratio:.2f}"),
                ("snapshots", f"{found.snapshots:,}, {size(found.snapshot_bytes)}"),
            ]
        )
        if damaged:
            out.say(f"damaged: {', '.join(map(safe, damaged))}; see `eventstore verify`", "red")
    if damaged:
        raise typer.Exit(FOUND)


def _sum(one: Stats, other: Stats) -> Stats:
    return Stats(**{name: value + asdict(other)[name] for name, value in asdict(one).items()})


# --- verify -----------------------------------------------------------------------------


def verify(
    db: Db,
    threads: Threads = None,
    tenant: Tenant = "default",
    schema: Schema = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Check threads: digests, payloads, links and snapshots. JSON: a line for each thread.

    With --app also that each snapshot equals the fold of its events. Exits with 1 if anything is
    wrong. A type that is not registered here is no fault; it is said which ones were met.
    """
    out = Output(as_json)
    graph = load_app(app) if app else None
    broken: list[VerifyReport] = []
    checked = events = 0
    with reading(Target(db, tenant, schema), codec_of(graph)) as store:
        total = len(threads) if threads else sum(store.thread_counts().values())
        with out.progress("verifying", total) as advance:
            for thread_id in threads or thread_ids(store):
                try:
                    if graph is None:
                        report = store.verify(thread_id)
                    else:
                        report = run_sync(reader_of(graph, store, "").verify(thread_id))
                except ThreadNotFoundError:
                    if threads:
                        raise
                    continue  # deleted while the others were looked at
                except CorruptEventError as error:
                    report = VerifyReport(thread_id, (), 0, 0, (str(error),))
                checked, events = checked + 1, events + report.events
                if not report.ok:
                    broken.append(replace(report, problems=report.problems))
                if as_json:
                    out.json({**asdict(report), "ok": report.ok})
                advance(1)
        unknown = store.codec.unknown_types
    _say_verified(out, broken, checked, events, unknown)
    if broken:
        raise typer.Exit(FOUND)


def _say_verified(
    out: Output, broken: list[VerifyReport], checked: int, events: int, unknown: list[str]
) -> None:
    if unknown:
        out.note(
            f"not decoded, for want of the application's types: {', '.join(map(safe, unknown))}; "
            "their digests were checked"
        )
    if out.as_json:
        return
    for report in broken:
        for problem in report.problems:
            out.say(f"{safe(report.thread_id)}: {safe(problem)}", "red")
    bad = f"{len(broken)} of them damaged" if broken else "all sound"
    out.say(f"{counted(checked, 'thread')}, {counted(events, 'event')}, {bad}")


# --- migrate ----------------------------------------------------------------------------


def migrate(
    db: Db,
    schema: Schema = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is pending.")] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make the SQLite file, if it is not there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a database to the tables of today; set up one that has none. JSON: one document."""
    out = Output(as_json)
    target = Target(db, schema=schema)
    if dry_run:
        with EventStore(db, schema=schema, read_only=True) as store:
            missing, where = store.pending(), shown(store)
    else:
        with writing(target, create=create, setup=False) as store:
            missing, where = store.pending(), shown(store)
            store.setup()
            if left := store.pending():
                raise Failed(f"{where} still lacks {', '.join(left)}", FOUND)
    if as_json:
        found: dict[str, Any] = {"pending" if dry_run else "applied": missing}
        out.json(found)
    elif not missing:
        out.say(f"{safe(where)} is up to date")
    else:
        out.say(f"{safe(where)}: {'would apply' if dry_run else 'applied'} {', '.join(missing)}")
