"""Commands that look after a database: ``stats``, ``verify`` and ``migrate``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from eventstore import CorruptEventError, EventStore, Stats, VerifyReport
from eventstore.cli.application import codec_of, load_app
from eventstore.cli.exits import FOUND, Failed
from eventstore.cli.options import (
    App,
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    Threads,
    database_name,
    reading,
    writing,
)
from eventstore.cli.output import Output, size
from eventstore.cli.threads import for_each_thread
from eventstore.concurrency import run_sync
from eventstore.explain.values import counted, safe
from eventstore.models import DatabaseReport
from graph.read import refolding


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("stats")(stats)
    app.command("verify")(verify)
    app.command("migrate")(migrate)


# --- stats ------------------------------------------------------------------------------


def stats(
    db: Db,
    threads: Threads = None,
    tenant: Tenant = "default",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Count threads, events, snapshots and bytes, of the named threads or of a whole tenant.

    JSON: one document.
    """
    out = Output(as_json)
    total = Stats(0, 0, 0, 0, 0, 0)
    damaged: list[str] = []
    with reading(Target(db, tenant, schema)) as store:

        def count(thread_id: str) -> None:
            nonlocal total
            try:
                total = total.plus(store.stats(thread_id))
            except CorruptEventError:
                damaged.append(thread_id)

        by_status = {} if threads else store.thread_counts()
        left_out = for_each_thread(out, store, "counting", threads, count)
        damaged += [str(each.thread_id) for each in left_out.values()]
        database = database_name(store)
    if as_json:
        more = {"ratio": round(total.ratio, 3), "by_status": by_status, "damaged": damaged}
        out.json({"tenant": tenant, **asdict(total), **more})
    else:
        counts = ", ".join(f"{count} {safe(name)}" for name, count in sorted(by_status.items()))
        stored, raw = size(total.stored_bytes), size(total.raw_bytes)
        out.facts(
            [
                ("database", database),
                ("tenant", tenant),
                ("threads", f"{total.threads}" + (f" ({counts})" if counts else "")),
                ("events", f"{total.events:,}"),
                ("payloads", f"{stored} stored, {raw} uncompressed"),
                ("ratio", f"{total.ratio:.2f}"),
                ("snapshots", f"{total.snapshots:,}, {size(total.snapshot_bytes)}"),
            ]
        )
        if damaged:
            names = ", ".join(map(safe, damaged))
            out.say(f"damaged threads: {names}; run `eventstore verify` for details", "red")
    if damaged:
        raise typer.Exit(FOUND)


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

    Without names it checks all threads of the tenant, and has the database check its tables and
    indexes (SQLite's integrity_check; PostgreSQL's amcheck, where it is installed). With --app,
    also check that each snapshot equals the fold of its events. Exits with 1 if any thread or the
    database is damaged. A type that is not registered here is not damage; it is only reported.
    """
    out = Output(as_json)
    graph = load_app(app) if app else None
    damaged: list[VerifyReport] = []
    checked = events = 0
    with reading(Target(db, tenant, schema), codec_of(graph)) as store:

        def check(thread_id: str) -> None:
            nonlocal checked, events
            try:
                if graph is None:
                    report = store.verify(thread_id)
                else:
                    report = run_sync(refolding.verify(graph, store.core, thread_id))
            except CorruptEventError as error:
                report = VerifyReport(thread_id, (), 0, 0, (str(error),))
            checked, events = checked + 1, events + report.events
            if not report.ok:
                damaged.append(report)
            if as_json:
                out.json({**asdict(report), "ok": report.ok})

        left_out = for_each_thread(out, store, "verifying", threads, check)
        for each in left_out.values():
            report = VerifyReport(str(each.thread_id), (), 0, 0, (each.problem,))
            damaged.append(report)
            if as_json:
                out.json({**asdict(report), "ok": False})
        whole = DatabaseReport((), None) if threads else store.check_database()
        unknown = store.codec.unknown_types
    if unknown:
        names = ", ".join(map(safe, unknown))
        out.note(
            f"payloads of unregistered types were not decoded, only their digests checked: {names}"
        )
    if whole.note is not None:
        out.note(f"tables and indexes were not checked: {whole.note}")
    for problem in whole.problems:
        if as_json:
            out.json({"database": problem, "ok": False})
        else:
            out.say(f"database: {safe(problem)}", "red")
    if not as_json:
        for report in damaged:
            for problem in report.problems:
                out.say(f"{safe(report.thread_id)}: {safe(problem)}", "red")
        result = f"{len(damaged)} of them damaged" if damaged else "all sound"
        out.say(f"{counted(checked, 'thread')}, {counted(events, 'event')}, {result}")
    if damaged or whole.problems:
        raise typer.Exit(FOUND)


# --- migrate ----------------------------------------------------------------------------


def migrate(
    db: Db,
    schema: Schema = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the pending migrations.")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Create a SQLite file that does not exist.")
    ] = False,
    other_tables: Annotated[
        bool,
        typer.Option(
            "--allow-other-tables",
            help="Also in a SQLite file that holds tables of another application.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Create the tables, or migrate those of an older version. JSON: one document."""
    out = Output(as_json)
    if dry_run:
        with EventStore(
            db, schema=schema, read_only=True, allow_other_tables=other_tables
        ) as store:
            pending, database = store.pending(), database_name(store)
    else:
        with writing(
            Target(db, schema=schema), create=create, setup=False, other_tables=other_tables
        ) as store:
            pending, database = store.pending(), database_name(store)
            store.setup()
            if left := store.pending():
                raise Failed(f"{database} still has pending migrations: {', '.join(left)}", FOUND)
    if as_json:
        out.json({"pending" if dry_run else "applied": pending})
    elif not pending:
        out.say(f"{safe(database)} is up to date")
    else:
        done = "would apply" if dry_run else "applied"
        out.say(f"{safe(database)}: {done} {', '.join(pending)}")
