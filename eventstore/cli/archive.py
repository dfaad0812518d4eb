"""``retention archive``, ``restore``, ``archive ls`` and ``archive verify``: threads put away."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated, Any

import typer

from eventstore import CorruptEventError, ThreadNotFoundError
from eventstore.cli import exits
from eventstore.cli.exits import FOUND, Failed
from eventstore.cli.options import (
    Db,
    Json,
    Schema,
    Target,
    Tenant,
    ThreadId,
    Yes,
    confirm,
    parse_duration,
    reading,
    writing,
)
from eventstore.cli.output import Output, iso, moment, size
from eventstore.cli.threads import thread_json
from eventstore.cli.values import counted, safe
from retention.archives import (
    Archive,
    Archived,
    PruningRefusedError,
    archive_and_prune,
    archive_thread,
)
from retention.archives import restore as restore_thread
from retention.erasing import Erasure, Forks
from retention.erasing import erase as erase_everywhere

archive = typer.Typer(
    name="archive",
    help="Look into an archive of threads. No database is needed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[
    str,
    typer.Option(
        "--archive",
        envvar="EVENTSTORE_ARCHIVE",
        metavar="URL",
        help="file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module that are about an archive alone."""
    archive.command("ls")(list_archive)
    archive.command("verify")(verify_archive)
    app.add_typer(archive)


def register_retention(app: typer.Typer) -> None:
    """Add those that are about threads of a database."""
    app.command("archive")(put_away)
    app.command("restore")(restore)
    app.command("erase")(erase)


# --- threads of a database --------------------------------------------------------------


def put_away(
    threads: Annotated[list[str], typer.Argument(metavar="THREAD…")],
    db: Db,
    place: Place,
    tenant: Tenant = "default",
    schema: Schema = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then remove them from the database.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --prune: kept in the tombstone.")] = "archived",
    by: Annotated[str | None, typer.Option(help="With --prune: who asked for it.")] = None,
    despite_pin: Annotated[
        bool, typer.Option("--despite-pin", help="With --prune: pinned and waiting threads too.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Put threads, as they are now, into an archive. JSON: a line for each.

    With --prune a thread goes only once its file was found to be right, and only if nothing was
    added meanwhile; that asks first. Threads that are pinned, or wait for an answer, stay.
    Where one fails the others follow; the exit code is that of the first that did.
    """
    out, where = Output(as_json), Archive(place)
    if prune:
        many = counted(len(threads), "thread")
        confirm(f"Archive {many}, and remove from the database?", yes)
    code = exits.OK
    opened = writing if prune else reading
    with opened(Target(db, tenant, schema)) as store, out.progress("archiving", len(threads)) as go:
        for thread_id in threads:
            try:
                if prune:
                    asked = by or getpass.getuser()
                    gone = archive_and_prune(
                        store, where, thread_id, reason, asked_by=asked, despite_pin=despite_pin
                    )
                    if gone is None:
                        raise Failed(f"{thread_id} has changed meanwhile, and stays", FOUND)
                    _tell(out, gone, "moved to")
                else:
                    _tell(out, archive_thread(store, where, thread_id), "archived as")
            except (ThreadNotFoundError, CorruptEventError, PruningRefusedError, Failed) as error:
                out.note(f"eventstore: {safe(exits.message_of(error))}")
                code = code or exits.code_of(error)
            go(1)
    if code:
        raise typer.Exit(code)


def _tell(out: Output, archived: Archived, what: str) -> None:
    if out.as_json:
        out.json(_plain(archived))
    else:
        out.say(f"{safe(archived.thread_id)} {what} {safe(archived.name)}")


def restore(
    thread_id: ThreadId,
    db: Db,
    place: Place,
    tenant: Tenant = "default",
    schema: Schema = None,
    generation: Annotated[
        int | None, typer.Option(min=0, help="Of the nth thread of that name, from 0.")
    ] = None,
    pin: Annotated[
        str | None, typer.Option("--pin", metavar="REASON", help="Pin it, for this reason.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="With --pin: who wants it; else the user of this computer."),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="A time to live of its own, from its last event on."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring a thread back from an archive, as it was; it stays there, too. JSON: the thread.

    Its last event is as old as it was, so the next sweep may remove it again: --pin keeps it.
    """
    length = None if ttl is None else parse_duration(ttl)
    hold = None if pin is None else (pin, by or getpass.getuser())
    out, where = Output(as_json), Archive(place)
    with writing(Target(db, tenant, schema)) as store:
        info = restore_thread(store, where, thread_id, generation=generation, pin=hold, ttl=length)
    if as_json:
        out.json(thread_json(info))
    else:
        out.say(f"{safe(info.thread_id)} is back")


def erase(
    db: Db,
    reason: Annotated[str, typer.Option(help="Kept in the tombstone: name nobody in it.")],
    thread_id: Annotated[str | None, typer.Argument(metavar="[THREAD]")] = None,
    tenant: Tenant = "default",
    whole_tenant: Annotated[
        bool, typer.Option("--whole-tenant", help="Every thread of the tenant.")
    ] = False,
    schema: Schema = None,
    by: Annotated[
        str | None, typer.Option(help="Who asks for it; without this, the user of this computer.")
    ] = None,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--archive",
            envvar="EVENTSTORE_ARCHIVE",
            metavar="URL",
            help="An archive that may hold files of it; name every one. Repeatable.",
        ),
    ] = None,
    forks: Annotated[
        Forks, typer.Option(help="What becomes of threads that hold bytes of it.")
    ] = "refuse",
    despite_pin: Annotated[bool, typer.Option("--despite-pin", help="Pinned threads too.")] = False,
    vacuum: Annotated[
        bool | None,
        typer.Option(
            "--vacuum/--no-vacuum", help="Write the database's files anew.", show_default="by size"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase everything of a thread, or of a tenant, archives included. Asks first.

    JSON: one document. A tombstone stays, which tells when, why and how much, and no name.
    """
    if (thread_id is None) != whole_tenant:
        raise typer.BadParameter("name a thread, or give --whole-tenant")
    out = Output(as_json)
    what: dict[str, Any] = {"tenant": tenant} if whole_tenant else {"thread_id": thread_id}
    archives = [Archive(url) for url in places or ()]
    with writing(Target(db, tenant, schema)) as store:

        def work(dry: bool) -> Erasure:
            return erase_everywhere(
                store,
                reason,
                by or getpass.getuser(),
                **what,
                archives=archives,
                forks=forks,
                dry_run=dry,
                despite_pin=despite_pin,
                vacuum=vacuum,
            )

        if dry_run or not yes:
            found = work(True)
            if dry_run:
                _tell_erased(out, found, "would be erased")
                return
            out.note(_erased(found, "would be erased, for good"))
            confirm("Erase them?", yes)
        _tell_erased(out, work(False), "erased")


def _tell_erased(out: Output, found: Erasure, what: str) -> None:
    if out.as_json:
        out.json(asdict(found))
        return
    out.say(_erased(found, what))
    for name in (*found.kept, *found.kept_archived):
        out.say(f"kept, with bytes of it: {safe(name)}")


def _erased(found: Erasure, what: str) -> str:
    return f"{counted(found.threads, 'thread')} and {counted(found.archived, 'file')} {what}"


# --- the archive alone ------------------------------------------------------------------


def list_archive(
    place: Place,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Only of this tenant.", show_default="all")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the files of an archive. JSON: a line for each."""
    out = Output(as_json)
    found = Archive(place).ls(tenant)
    if as_json:
        for each in found:
            out.json(_plain(each))
        return
    rows = [
        (
            each.thread_id,
            each.tenant,
            moment(each.header.active_at),
            moment(each.header.archived_at),
            each.header.events,
            size(each.size),
            each.name,
        )
        for each in found
    ]
    if not rows:
        out.note("nothing is there")
        return
    names = ("THREAD", "TENANT", "ACTIVE (UTC)", "ARCHIVED (UTC)", "EVENTS", "SIZE", "FILE")
    out.table(names, rows, right="EVENTS SIZE")


def _plain(each: Archived) -> dict[str, Any]:
    header = each.header
    return {
        "thread_id": header.thread_id,
        "tenant": header.tenant,
        "name": each.name,
        "generation": header.generation,
        "created_at": iso(header.created_at),
        "active_at": iso(header.active_at),
        "archived_at": iso(header.archived_at),
        "events": header.events,
        "bytes": each.size,
    }


def verify_archive(place: Place, as_json: Json = False) -> None:
    """Read every file of an archive and check all of it. JSON: a line for each.

    Exits with 1 if anything is wrong.
    """
    out, checked, broken = Output(as_json), 0, []
    with out.progress("verifying", None) as advance:
        for name, problem in Archive(place).verify():
            checked += 1
            if problem is not None:
                broken.append((name, problem))
            if as_json:
                out.json({"name": name, "ok": problem is None, "problem": problem})
            advance(1)
    if not as_json:
        for name, problem in broken:
            out.say(f"{safe(name)}: {safe(problem)}", "red")
        bad = f"{len(broken)} of them damaged" if broken else "all sound"
        out.say(f"{counted(checked, 'file')}, {bad}")
    if broken:
        raise typer.Exit(FOUND)
